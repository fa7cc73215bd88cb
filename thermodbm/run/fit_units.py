"""Units at the edge of a fit: from what laboratories write to kelvin and k_B = 1, per site. All numbers come from pint."""

from functools import cache
from typing import NamedTuple

from thermodbm.models import SpinHamiltonian


class Scales(NamedTuple):
    """Factors between the numbers of a data file and those of the model, whose energies are kelvin (or reduced)."""

    coupling: float  # kelvin in one unit of the couplings
    field: float  # h of the model, over g, of one unit of field
    susceptibility: float  # data over g^2 times the model's susceptibility
    magnetization: float  # data over g times the model's magnetisation
    specific_heat: float  # data over the model's; the same of the entropy
    reduced: bool  # whether g has no part in the susceptibility


UNITS = {
    "temperature": ("K", "J"),
    "coupling": ("K", "meV", "1/cm", "J"),
    "susceptibility": ("emu/mol", "m^3/mol", "reduced"),
    "specific_heat": ("J/mol/K", "R"),
    "magnetization": ("mu_B", "emu/mol", "reduced"),
    "field": ("T", "reduced"),
}
"""Quantity -> what may be written; the first is the default, J (reduced) taking the place of K and T where temperatures are in J."""


@cache
def _registry():
    import pint  # a second of start-up

    return pint.UnitRegistry()


@cache
def kelvin_per(unit: str) -> float:
    """Kelvin in one unit of energy over k_B."""
    u = _registry()
    energy = {
        "K": 1 * u.kelvin * u.boltzmann_constant,
        "meV": 1 * u.millielectron_volt,
        "1/cm": 1 * u.planck_constant * u.speed_of_light / u.cm,
    }
    return 1.0 if unit == "J" else float((energy[unit] / u.boltzmann_constant).to("kelvin").magnitude)


def scales(hamiltonian: SpinHamiltonian, units: dict[str, str]) -> Scales:
    """Of resolved units.

    Exchange models have S = sigma/2 and -h sum Sz with h = g mu_B B; the Ising model Pauli matrices, so that its h is half of that, its
    magnetisation twice and its susceptibility four times that of S.
    """
    u = _registry()
    pauli = 2 * hamiltonian.moment
    magneton = float((1 * u.bohr_magneton / u.boltzmann_constant).to("kelvin / tesla").magnitude)
    # chi = N_A g^2 mu_B^2 chi_S / k_B in SI (times mu_0), of which cgs is 10^6 / 4 pi
    si = float(
        (1 * u.avogadro_constant * u.bohr_magneton**2 * u.vacuum_permeability / u.boltzmann_constant).to("m^3 * kelvin / mol").magnitude
    )
    chi = {"emu/mol": si * 1e6 / (4 * 3.141592653589793), "m^3/mol": si, "reduced": pauli**2}
    # emu = erg/gauss = 10^-3 A m^2
    moment = {
        "mu_B": 1.0,
        "emu/mol": float((1 * u.avogadro_constant * u.bohr_magneton).to("ampere * meter^2 / mol").magnitude) * 1e3,
        "reduced": pauli,
    }
    heat = {"J/mol/K": float((1 * u.molar_gas_constant).to("joule / mol / kelvin").magnitude), "R": 1.0}
    return Scales(
        coupling=kelvin_per(units["coupling"]),
        field=1.0 if units["field"] == "reduced" else magneton / pauli,
        susceptibility=chi[units["susceptibility"]] / pauli**2,
        magnetization=moment[units["magnetization"]] / pauli,
        specific_heat=heat[units["specific_heat"]],
        reduced=units["susceptibility"] == "reduced",
    )


def resolved(units: dict[str, str | None]) -> dict[str, str]:
    """Units with defaults filled in."""
    in_j = units.get("temperature") == "J"
    default = {name: values[0] for name, values in UNITS.items()}
    if in_j:
        default |= {"coupling": "J", "susceptibility": "reduced", "specific_heat": "R", "magnetization": "reduced", "field": "reduced"}
    return {name: units.get(name) or default[name] for name in UNITS}

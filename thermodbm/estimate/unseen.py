"""What samples cannot have seen: the part of an error bar that their scatter does not tell, and values that need none.

n independent draws that are all alike say that other ones have a probability below about 1/n, not that there are none. If one of
those would change a quantity by q, the error of its mean is not below q/n. That matters where something is nearly frozen: gapped magnets
far below their gap, Ising magnets in a weak field.
"""

from collections.abc import Mapping

import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import spin_flip_symmetric

SINGLE = 2.0**-23
"""Of a value: samples are measured in single precision, and their scatter may be less than its rounding errors."""


def least_changes(
    hamiltonian: SpinHamiltonian, beta: float, means: Mapping[str, np.ndarray], *, by_turns: bool = False
) -> dict[str, float | np.ndarray]:
    """The change q of one draw of each observable, per site, by the event that a frozen magnet would show first: a spin or a pair of them
    turned in an ordered state, a magnon. A spin that turns changes the sum A = sqrt(N S) of spins behind a structure factor
    S = |A|^2 / N by 2 m, so that S changes by 4 m sqrt(S / N) + 4 m^2 / N.

    Args:
        means: of the observables; those of structure factors are used.
        by_turns: whether m_x is measured by the turns of spins in imaginary time, which in a weak transverse field are rare, and count
            1/(beta gamma) each.
    """
    n, moment = hamiltonian.n_sites, hamiltonian.moment
    around = np.zeros(n)
    np.add.at(around, hamiltonian.bonds.ravel(), np.repeat(np.abs(np.asarray(hamiltonian.zz)) + 2 * np.abs(np.asarray(hamiltonian.xy)), 2))
    gap = 2 * float((around + np.abs(np.asarray(hamiltonian.z_field))).max())

    def of_square(name: str, unit: float = 1.0) -> np.ndarray:
        mean = np.asarray(means.get(name, np.nan), float)
        return 4 * moment * np.sqrt(np.maximum(unit * mean / n, 0)) + 4 * moment**2 * unit / n

    averaged = n if len(hamiltonian.lattice.translations) > 1 else 1  # pairs, of which the event changes two
    changes = {
        "energy": gap / n,
        "specific_heat": beta**2 * gap**2 / n,
        "magnetization_z": 2 * moment / n,
        "correlation_zz": min(2.0, 4 / averaged) * moment**2,
        "structure_factor_zz": of_square("structure_factor_zz"),
        "imaginary_time_correlation_zz": min(2.0, 4 / averaged) * moment**2,
        "imaginary_time_structure_factor_zz": of_square("imaginary_time_structure_factor_zz"),
        "static_susceptibility_zz": of_square("static_susceptibility_zz", beta),
        "staggered_structure_factor": of_square("staggered_structure_factor"),
    }
    if hamiltonian.conserves_sz:
        return changes | {"susceptibility": beta / n, "susceptibility_x": beta / n}
    magnetised = bool(np.any(np.asarray(hamiltonian.z_field)))
    gamma = np.abs(np.asarray(hamiltonian.x_field))
    turn = 1 / (beta * gamma[gamma > 0].min(initial=np.inf)) if by_turns else 0.0
    return changes | {
        "magnetization_x": max(2.0, turn) / n,
        "order_parameter_squared": 4 * (n - 1) / n**2,
        "binder_ratio": 16 / n**2,
        "susceptibility": 4 * beta / (n if magnetised else 1),
    }


def known_values(hamiltonian: SpinHamiltonian, n_tau: int | None = None) -> dict[str, tuple[np.ndarray, float]]:
    """Entries that identities and symmetries fix: name -> (which, value).

    Args:
        n_tau: of correlations in imaginary time, which stand one time after the other.
    """
    n, moment = hamiltonian.n_sites, hamiltonian.moment
    known = {"correlation_zz": (np.arange(n) == 0, moment**2)}
    if n_tau:
        known["imaginary_time_correlation_zz"] = (np.arange((n_tau // 2 + 1) * n) == 0, moment**2)
    if spin_flip_symmetric(hamiltonian):
        known["magnetization_z"] = (np.True_, 0.0)
    if not np.any(np.asarray(hamiltonian.x_field)):
        known["magnetization_x"] = (np.True_, 0.0)
    if n == 1 and not hamiltonian.conserves_sz:
        known |= {"order_parameter_squared": (np.True_, 1.0), "binder_ratio": (np.True_, 1.0)}
    return known

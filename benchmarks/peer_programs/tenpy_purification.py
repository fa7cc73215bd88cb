"""TeNPy: a purified matrix product state of an open chain of `length` sites, cooled by TEBD of second order, the only one there is.

Its best case: where correlations decay over a few sites, the middle of a short open chain is as good as a ring of 64, which would need
the square of the bond dimension. It runs with steps dt and 2 dt and extrapolates, and once more with 2 dt on a shorter chain; the error
holds what both change. The specific heat is the derivative of the energy (five points), the susceptibility of a conserved magnetisation
the sum of correlations.
"""

import numpy as np
from result import answer, cpu_seconds, problem
from tenpy.algorithms.purification import PurificationTEBD
from tenpy.models.spins import SpinChain
from tenpy.models.spins_nnn import SpinChainNNN
from tenpy.networks.purification_mps import PurificationMPS

MIDDLE = 2
"""Sites of the MPS from the middle over which bond energies are averaged."""
SHORTER = 8
"""Sites that the chain lacks by which the effect of its ends is told."""


def model(magnet: dict, length: int):
    """In spin operators, an Ising model with x and z exchanged, which conserves the parity; second neighbours by pairs of sites."""
    if magnet["model"] == "tfim":
        settings = {"Jx": -4 * magnet["J"], "Jy": 0.0, "Jz": 0.0, "hz": 2 * magnet["gamma"], "conserve": "parity"}
    else:
        J = magnet.get("J", magnet.get("J1"))
        settings = {"Jx": J, "Jy": J, "Jz": J * magnet.get("delta", 1.0), "hz": magnet.get("h", 0.0), "conserve": "Sz"}
    if magnet["model"] == "j1j2":
        settings |= {"Jxp": magnet["J2"], "Jyp": magnet["J2"], "Jzp": magnet["J2"]}
    return (SpinChainNNN if magnet["model"] == "j1j2" else SpinChain)({"L": length, "S": 0.5, "bc_MPS": "finite", **settings})


def cooled(task: dict, dt: float, shorter: int = 0) -> dict[str, float]:
    """Averages per site at one step, of a chain that lacks some sites."""
    magnet, beta = task["magnet"], 1 / task["T"]
    per_site = 2 if magnet["model"] == "j1j2" else 1  # spins of a site of the MPS
    chain = model(magnet, (task["length"] - shorter) // per_site)
    psi = PurificationMPS.from_infiniteT(chain.lat.mps_sites(), bc="finite")
    truncation = {"chi_max": task["chi"], "svd_min": task["svd_min"]}
    n_steps = round(beta / 2 / dt)
    engine = PurificationTEBD(psi, chain, {"trunc_params": truncation, "dt": beta / 2 / n_steps})
    middle, energies, values = psi.L // 2 - 1, [], {}
    for step in range(1, n_steps + 3):
        engine.run_imaginary(engine.options["dt"])
        if step >= n_steps - 2:
            bonds = np.real(chain.bond_energies(psi))[middle - MIDDLE : middle + MIDDLE]  # of an even number: both kinds alike
            energies.append(float(np.mean(bonds)) / per_site)
        if step == n_steps and magnet["model"] != "tfim":
            values = {"susceptibility": susceptibility(psi, beta, ["Sz"] if per_site == 1 else ["Sz0", "Sz1"])}
    slope = (energies[0] - 8 * energies[1] + 8 * energies[3] - energies[4]) / (12 * beta / n_steps)
    return {"energy": energies[2], "specific_heat": -(beta**2) * slope, **values}


def susceptibility(psi: PurificationMPS, beta: float, spins: list[str]) -> float:
    """beta sum_j <Sz_i Sz_j> - <Sz_i><Sz_j> of a spin i in the middle, with the spins that a site of the MPS consists of."""
    site, total = psi.L // 2, 0.0
    here = psi.expectation_value(spins[0])[site]
    for spin in spins:
        total += np.real(psi.correlation_function(spins[0], spin, sites1=[site])[0] - here * psi.expectation_value(spin)).sum()
    return beta * float(total)


def main() -> None:
    task, setup = problem(), cpu_seconds()
    fine, coarse, short = cooled(task, task["dt"]), cooled(task, 2 * task["dt"]), cooled(task, 2 * task["dt"], SHORTER)
    values = {}
    for name, x in fine.items():
        values[name] = (4 * x - coarse[name]) / 3, np.hypot((x - coarse[name]) / 3, coarse[name] - short[name])
    answer(values, setup, n_sites=int(np.prod(task["magnet"]["extent"])))


if __name__ == "__main__":
    main()

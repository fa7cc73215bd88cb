"""What is known of every magnet at infinite temperature: all configurations are equally likely, and all terms of H are traceless."""

import math

import numpy as np

from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.lattice import two_coloring


def infinite_temperature(hamiltonian: SpinHamiltonian, n_tau: int | None = None) -> dict[str, np.ndarray]:
    """Averages per site at beta = 0, under the names of the contract: <H> = 0, s = ln 2, <S_i S_j> = m^2 delta_ij with the moment m.

    beta f = -ln 2, so f itself is -inf; susceptibilities, beta times fluctuations, are 0.

    Args:
        n_tau: with correlations at these parts of an imaginary time that has no length.

    >>> from thermodbm.models import heisenberg, make_lattice
    >>> {name: float(x) for name, x in infinite_temperature(heisenberg(make_lattice("chain", 3))).items() if x.ndim == 0}["entropy"]
    0.6931471805599453
    """
    lattice, n = hamiltonian.lattice, hamiltonian.n_sites
    zero, square = np.zeros(()), np.asarray(hamiltonian.moment**2)
    values = {
        "energy": zero,
        "specific_heat": zero,
        "specific_heat_direct": zero,
        "entropy": np.asarray(math.log(2)),
        "free_energy": np.asarray(-np.inf),
        "susceptibility": zero,
        "magnetization_z": zero,
        "correlation_zz": np.where(np.arange(n) == 0, square, 0.0),
    }
    if lattice.wavevectors is not None:
        values["structure_factor_zz"] = np.full(len(lattice.wavevectors), square)
    if two_coloring(n, lattice.bonds()) is not None:
        values["staggered_structure_factor"] = square
    if hamiltonian.conserves_sz:
        values["susceptibility_x"] = zero
    else:
        values["magnetization_x"] = zero
    if hamiltonian.model == "tfim":
        values |= {"order_parameter_squared": square / n, "binder_ratio": np.asarray(3 - 2 / n)}
    if n_tau:
        for pairs in ("correlation_zz", "structure_factor_zz"):
            if pairs in values:
                values[f"imaginary_time_{pairs}"] = np.tile(values[pairs], (n_tau // 2 + 1, 1))
        if "structure_factor_zz" in values:
            values["static_susceptibility_zz"] = np.zeros_like(values["structure_factor_zz"])
    return values

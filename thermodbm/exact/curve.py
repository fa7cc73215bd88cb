"""The exact thermal curve of a Hamiltonian, by whichever way there is."""

from collections.abc import Callable

import numpy as np

from thermodbm.errors import InputError
from thermodbm.exact import diagonalisation, free_fermions
from thermodbm.exact.infinite_temperature import infinite_temperature
from thermodbm.models.hamiltonian import SpinHamiltonian, check_hamiltonian

Curve = dict[str, np.ndarray]
"""Observable -> values per site, (n_T, ...), under the names of the contract."""


def exact_solver(hamiltonian: SpinHamiltonian) -> Callable[[np.ndarray], Curve]:
    """A function from inverse temperatures (n_T,) to the exact curve; all the costly work is done here, once.

    Diagonalisation with all observables where it is cheap, free fermions for longer uniform Ising rings, with correlations up to 256 sites.

    Raises:
        InputError: if neither is possible.
    """
    if free_fermions.applicable(hamiltonian) and hamiltonian.n_sites > 12:
        n, J, gamma = hamiltonian.n_sites, -float(hamiltonian.zz[0]), float(hamiltonian.x_field[0])
        return lambda betas: free_fermions.ising_ring(n, J, gamma, betas)
    spectrum = diagonalisation.diagonalise(hamiltonian)
    return lambda betas: diagonalisation.thermal_averages(spectrum, betas)


def exact_curve(hamiltonian: SpinHamiltonian, betas: np.ndarray) -> Curve:
    """The exact thermal curve at inverse temperatures (n_T,), zero among them if need be.

    Raises:
        InputError: for inverse temperatures that are negative, and if the system is too large for every exact way.

    >>> from thermodbm.models import heisenberg, make_lattice
    >>> float(exact_curve(heisenberg(make_lattice("chain", 2)), np.array([100.0]))["energy"][0])  # two spins: a singlet, -3/4
    -0.375
    """
    betas = np.asarray(betas, float)
    if betas.ndim != 1 or not (np.isfinite(betas) & (betas >= 0)).all():
        raise InputError("temperature", expected="inverse temperatures of at least 0", found=betas.tolist())
    check_hamiltonian(hamiltonian)
    curve = exact_solver(hamiltonian)(np.where(betas > 0, betas, 1.0))
    if (hot := betas == 0).any():
        for name, value in infinite_temperature(hamiltonian).items():
            if name in curve:
                curve[name][hot] = value
    return curve

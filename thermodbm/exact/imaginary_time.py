"""Exact correlations of sz in imaginary time, and the static susceptibilities that they integrate to, from all levels of a small magnet.

C_ij(tau) = Tr[exp(-(beta - tau) H) s_i exp(-tau H) s_j] / Z = sum_nm exp(-beta E_n - tau (E_m - E_n)) <n|s_i|m> <m|s_j|n> / Z, and
int_0^beta C_ij dtau, in sectors of magnetisation where that is conserved, without other symmetries. H is real: C(beta - tau) = C(tau).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from thermodbm.exact.kubo import boltzmann_integral
from thermodbm.exact.sectors import sector_matrix, spins_of, transitions
from thermodbm.exact.whole_space import magnetisation_blocks
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.operators import Couplings

MAX_ELEMENTS = 2**26
"""Elements of all sz_i between all states of a sector that are held: 0.5 GB, up to 12 sites (10 of tfim)."""


class _Block(NamedTuple):
    """One sector."""

    energies: np.ndarray  # (n,)
    elements: np.ndarray  # (N, n, n) <n|s_i|m>


def imaginary_time_solver(hamiltonian: SpinHamiltonian, n_tau: int) -> Callable[[float], dict[str, np.ndarray]]:
    """A function from an inverse temperature to imaginary_time_correlation_zz (n_tau/2 + 1, n_sites), with site 0 and averaged over
    translations, at tau = 0, beta/n_tau, ... beta/2; and on a periodic lattice imaginary_time_structure_factor_zz (n_tau/2 + 1, n_cells)
    and static_susceptibility_zz (n_cells,).

    Raises:
        InputError: for magnets that are too large.
    """
    blocks = _solve(hamiltonian)
    lattice, n = hamiltonian.lattice, hamiltonian.n_sites
    waves = None if lattice.wavevectors is None else np.exp(-1j * lattice.positions @ lattice.wavevectors.T)

    def structure(pairs: np.ndarray) -> np.ndarray:
        return np.einsum("...ij,ik,jk->...k", pairs, waves, waves.conj()).real / n

    def averages(beta: float) -> dict[str, np.ndarray]:
        ground = min(float(b.energies.min()) for b in blocks)
        log_z = logsumexp(np.concatenate([-beta * (b.energies - ground) for b in blocks]))
        parts = beta * np.arange(n_tau // 2 + 1) / n_tau
        weights = [lambda x, y, tau=tau: np.exp(-(beta - tau) * x - tau * y - log_z) for tau in parts]
        pairs = np.array([sum(_pairs(b, w, ground) for b in blocks) for w in weights])
        origin = np.array([[pairs[:, t[0], j] for j in t] for t in lattice.translations])
        found = {"imaginary_time_correlation_zz": origin.mean(0).T}
        if waves is not None:
            integral = sum(_pairs(b, lambda x, y: boltzmann_integral(x, y, beta) * np.exp(-log_z), ground) for b in blocks)
            found |= {"imaginary_time_structure_factor_zz": structure(pairs), "static_susceptibility_zz": structure(integral)}
        return found

    return averages


def _solve(hamiltonian: SpinHamiltonian) -> list[_Block]:
    orbits, sectors = magnetisation_blocks(hamiltonian, "method.n_tau", hamiltonian.n_sites, MAX_ELEMENTS)
    spins = hamiltonian.moment * spins_of(orbits.representatives, hamiltonian.n_sites)
    operator, blocks = transitions(orbits, Couplings.of(hamiltonian)), []
    for rows in sectors:
        energies, v = np.linalg.eigh(sector_matrix(orbits, np.ones(1), rows, operator).toarray())
        blocks.append(_Block(energies, np.array([v.T @ (s[:, None] * v) for s in spins[rows].T])))
    return blocks


def _pairs(block: _Block, weight: Callable[[np.ndarray, np.ndarray], np.ndarray], ground: float) -> np.ndarray:
    """sum_nm w(E_n, E_m) <n|s_i|m> <m|s_j|n> for excitation energies, (N, N)."""
    e = block.energies - ground
    flat = block.elements.reshape(len(block.elements), -1)
    return (flat * weight(e[:, None], e).ravel()) @ flat.T

"""Operators of a Hamiltonian: its couplings as matrices, and observables diagonal in sz."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.lattice import two_coloring

Array = np.ndarray | jax.Array


class Couplings(NamedTuple):
    """H as dense float64 arrays, in the form of `SpinHamiltonian`."""

    zz: np.ndarray  # (N, N), upper triangle
    xy: np.ndarray  # (N, N), upper triangle
    x: np.ndarray  # (N,)
    z: np.ndarray  # (N,)

    @classmethod
    def of(cls, hamiltonian: SpinHamiltonian) -> "Couplings":
        """All terms of H."""
        pairs = (np.triu(bond_matrix(hamiltonian, leaf)) for leaf in (hamiltonian.zz, hamiltonian.xy))
        return cls(*pairs, np.asarray(hamiltonian.x_field, float), np.asarray(hamiltonian.z_field, float))

    @classmethod
    def transverse(cls, n: int) -> "Couplings":
        """sum_i sx_i."""
        return cls(np.zeros((n, n)), np.zeros((n, n)), -np.ones(n), np.zeros(n))

    def invariant(self, permutation: np.ndarray) -> bool:
        """Whether relabelling the sites leaves every coupling as it is."""
        whole = [self.zz + self.zz.T, self.xy + self.xy.T]
        moved = [m[np.ix_(permutation, permutation)] for m in whole]
        return all(map(np.array_equal, [*whole, self.x, self.z], [*moved, self.x[permutation], self.z[permutation]]))


def bond_matrix(hamiltonian: SpinHamiltonian, values: Array) -> np.ndarray:
    """Values of the bonds (n_bonds,) as a symmetric matrix (N, N), zero elsewhere."""
    i, j = hamiltonian.bonds.T
    matrix = np.zeros((hamiltonian.n_sites,) * 2)
    np.add.at(matrix, (i, j), np.asarray(values, float))
    return matrix + matrix.T


def spin_flip_symmetric(hamiltonian: SpinHamiltonian) -> bool:
    """Whether reversing all spins leaves H unchanged: there is no field along z."""
    return not np.any(np.asarray(hamiltonian.z_field))


def isotropic(hamiltonian: SpinHamiltonian) -> bool:
    """Whether H is the same along all axes, and so are its susceptibilities."""
    alike = hamiltonian.conserves_sz and np.array_equal(np.asarray(hamiltonian.zz), np.asarray(hamiltonian.xy))
    return bool(alike) and not np.any(np.asarray(hamiltonian.z_field))


def diagonal_observables(hamiltonian: SpinHamiltonian) -> Callable[[Array], dict[str, Array]]:
    """Observables diagonal in sz, per site, as a function of spins +-1 of shape (n, n_sites), NumPy or JAX alike.

    Units are those of the model: s = sz for tfim, and Sz = sz/2 for exchange models.

    Returns:
        A function to correlation_zz (n, n_sites), with site 0 and averaged over translations; magnetization_z, m = sum_i s_i / N, and
        m^2, order_parameter_squared for tfim and magnetization_z_squared for exchange models, (n,) each; structure_factor_zz
        (n, n_cells) on a periodic lattice; staggered_structure_factor (n,) on a bipartite one.
    """
    lattice, n = hamiltonian.lattice, hamiltonian.n_sites
    square = "order_parameter_squared" if hamiltonian.model == "tfim" else "magnetization_z_squared"
    signs = two_coloring(n, lattice.bonds())
    waves = None if lattice.wavevectors is None else np.exp(-1j * lattice.positions @ lattice.wavevectors.T)

    def values(spins: Array) -> dict[str, Array]:
        s = hamiltonian.moment * spins.astype(float)
        m = s.mean(-1)
        found = {"correlation_zz": _pairs(s, lattice.translations), "magnetization_z": m, square: m**2}
        if waves is not None:
            found["structure_factor_zz"] = ((s @ waves.real) ** 2 + (s @ waves.imag) ** 2) / n
        if signs is not None:
            found["staggered_structure_factor"] = (s @ signs) ** 2 / n
        return found

    return values


def _pairs(s: Array, translations: np.ndarray) -> Array:
    """The mean over translations T of s_T(0) s_T(j), (n, n_sites); one translation at a time, as (n, n_T, n_sites) may not fit."""
    if isinstance(s, np.ndarray):
        return sum(s[:, t[:1]] * s[:, t] for t in translations) / len(translations)
    total, _ = jax.lax.scan(lambda total, t: (total + s[:, t[:1]] * s[:, t], None), jnp.zeros_like(s), jnp.asarray(translations))
    return total / len(translations)

"""Symmetries of a purified thermal state, as signed permutations of its visible units."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from thermodbm.models import Lattice, SpinHamiltonian


class SymmetryGroup(NamedTuple):
    """Group of maps (g v)_i = sign_g v[perm_g[i]] of visible units (spins, then ancillas) that leave the state unchanged."""

    perm: np.ndarray  # (G, V) int
    sign: np.ndarray  # (G,) +-1

    @property
    def inverse(self) -> np.ndarray:
        """Inverse permutations, (G, V)."""
        return np.argsort(self.perm, axis=1)


def symmetry_group(
    hamiltonian: SpinHamiltonian, *, translations: bool = True, point_group: bool = False, exchange: bool = True
) -> SymmetryGroup:
    """The space operations that leave every coupling unchanged, times the exchange of spins and ancillas.

    exp(-beta H/2) is a real symmetric matrix and the ancilla is the mirror image of a column index, so that
    Psi(sigma, sigma') = Psi(-sigma', -sigma): the exchange, with sign -1. Space operations act on spins and ancillas together.
    """
    sites = _space_operations(hamiltonian, translations, point_group)
    n = hamiltonian.n_sites
    same = np.concatenate([sites, sites + n], axis=1)
    if not exchange:
        return SymmetryGroup(same, np.ones(len(same), int))
    swapped = np.concatenate([sites + n, sites], axis=1)
    return SymmetryGroup(np.concatenate([same, swapped]), np.repeat([1, -1], len(sites)))


def spin_flip_symmetric(hamiltonian: SpinHamiltonian) -> bool:
    """Whether reversing all spins leaves H unchanged: there is no field along z."""
    return not np.any(np.asarray(hamiltonian.z_field))


def site_orbits(group: SymmetryGroup) -> tuple[np.ndarray, np.ndarray]:
    """Class of each visible unit, (V,) from 0, and the sign that joins it to the first unit of its class."""
    image = group.perm.min(0)
    sign = group.sign[group.perm.argmin(0)]
    return np.unique(image, return_inverse=True)[1].reshape(-1), sign


def pair_orbits(group: SymmetryGroup) -> np.ndarray:
    """Class of each pair of visible units, (V, V) from 0; the diagonal holds -1."""
    v = group.perm.shape[1]
    label = np.full((v, v), v * v)
    for p in group.perm:
        low, high = np.minimum(p[:, None], p), np.maximum(p[:, None], p)
        label = np.minimum(label, low * v + high)
    off_diagonal = ~np.eye(v, dtype=bool)
    label[off_diagonal] = np.unique(label[off_diagonal], return_inverse=True)[1].reshape(-1)
    label[~off_diagonal] = -1
    return label


def _space_operations(hamiltonian: SpinHamiltonian, translations: bool, point_group: bool) -> np.ndarray:
    """Site permutations (n, n_sites), the identity first, that leave bonds and fields unchanged and form a group."""
    lattice = hamiltonian.lattice
    shifts = lattice.translations if translations else np.arange(lattice.n_sites)[None]
    points = list(_point_operations(lattice)) if point_group else [np.arange(lattice.n_sites)]
    found = {tuple(p[t].tolist()): None for p in points for t in shifts if _leaves_unchanged(hamiltonian, p[t])}
    return np.array(list(found))


def _point_operations(lattice: Lattice) -> Iterator[np.ndarray]:
    """Site permutations of a Bravais lattice that are linear in its cell coordinates; the identity comes first."""
    yield np.arange(lattice.n_sites)
    if lattice.kind == "graph" or lattice.n_basis > 1:
        return
    open_axes = ~np.array(lattice.periodic)
    n_axes = len(lattice.extent)
    for rows in product(product((-1, 0, 1), repeat=n_axes), repeat=n_axes):
        matrix = np.array(rows)
        if abs(round(np.linalg.det(matrix))) != 1:
            continue
        image = lattice.cells @ matrix.T
        image = image - np.where(open_axes, image.min(0), 0)
        sites = lattice.site(image)
        if (sites >= 0).all() and len(set(sites.tolist())) == lattice.n_sites:
            yield sites


def _leaves_unchanged(hamiltonian: SpinHamiltonian, sites: np.ndarray) -> bool:
    fields = np.stack([hamiltonian.x_field, hamiltonian.z_field])
    if not np.array_equal(fields[:, sites], fields):
        return False
    n = hamiltonian.n_sites
    couplings = np.zeros((2, n, n))
    i, j = hamiltonian.bonds.T
    couplings[:, i, j] = couplings[:, j, i] = np.stack([hamiltonian.zz, hamiltonian.xy])
    return np.array_equal(couplings[:, sites][:, :, sites], couplings)

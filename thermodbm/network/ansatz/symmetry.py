"""Symmetries of a purified thermal state, as signed permutations of its visible units."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import networkx as nx
import numpy as np

from thermodbm.models import Lattice, SpinHamiltonian
from thermodbm.models.operators import Couplings, bond_matrix


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


def largest_subgroup(hamiltonian: SpinHamiltonian, most: int, *, translations: bool = True, exchange: bool = True) -> SymmetryGroup:
    """A group of at most `most` elements: translations, as far as they fit, then rotations, reflections and whatever other permutations
    of sites leave all couplings unchanged, then the exchange of spins and ancillas."""
    group = symmetry_group(hamiltonian, translations=False, exchange=False)
    shifts = symmetry_group(hamiltonian, translations=translations, exchange=False)
    sites = automorphisms(hamiltonian) if translations else np.arange(hamiltonian.n_sites)[None]
    others = SymmetryGroup(np.concatenate([sites, sites + hamiltonian.n_sites], axis=1), np.ones(len(sites), int))
    swap = symmetry_group(hamiltonian, translations=False, exchange=exchange)
    for candidates in (shifts, others, swap):
        group = _grow(group, candidates, most)
    return group


MAX_AUTOMORPHISMS = 1024
"""A magnet of more symmetries than that is taken to have none beyond translations."""


def automorphisms(hamiltonian: SpinHamiltonian) -> np.ndarray:
    """All permutations of sites that leave bonds and fields unchanged, (n, n_sites), those that move every site and
    of them those of the highest order first; the identity alone where there are more than `MAX_AUTOMORPHISMS`."""
    n = hamiltonian.n_sites
    couplings = np.stack([bond_matrix(hamiltonian, leaf) for leaf in (hamiltonian.zz, hamiltonian.xy)])
    couplings[:, range(n), range(n)] = np.stack([hamiltonian.x_field, hamiltonian.z_field])
    label = np.unique(couplings.reshape(2, -1), axis=1, return_inverse=True)[1].reshape(n, n)
    order = _connected_order(n, hamiltonian.bonds)
    found: list[np.ndarray] = []
    images, choices = [], [list(range(n))]
    for _ in range(100 * MAX_AUTOMORPHISMS):
        if not choices or len(found) > MAX_AUTOMORPHISMS:
            break
        if not choices[-1]:
            choices.pop()
            images[-1:] = []
            continue
        images.append(choices[-1].pop())
        k = len(images)
        if k == n:
            found.append(np.array(images)[np.argsort(order)])
            images.pop()
            continue
        fits = (label[:, images] == label[order[k], order[:k]]).all(1) & (label.diagonal() == label[order[k], order[k]])
        fits[images] = False
        choices.append(np.flatnonzero(fits).tolist())
    if choices:
        return np.arange(n)[None]
    table = np.array(found)
    return table[np.lexsort([-_element_orders(table), (table == np.arange(n)).sum(1)])]


def _connected_order(n_sites: int, bonds: np.ndarray) -> np.ndarray:
    """All sites, each beside earlier ones where there is such a one."""
    g = nx.Graph()
    g.add_nodes_from(range(n_sites))
    g.add_edges_from(bonds.tolist())
    return np.array([site for part in nx.connected_components(g) for site in nx.bfs_tree(g, min(part))])


def _element_orders(table: np.ndarray) -> np.ndarray:
    """How many times each permutation (n, sites) is applied until it is the identity, at most 64."""
    power, orders = table, np.full(len(table), 64)
    for k in range(1, 64):
        orders = np.where((power == np.arange(table.shape[1])).all(1) & (orders == 64), k, orders)
        power = np.take_along_axis(table, power, axis=1)
    return orders


def _grow(group: SymmetryGroup, candidates: SymmetryGroup, most: int) -> SymmetryGroup:
    """The group with those of the candidates that keep it at no more than `most` elements, in their order."""
    elements = {(*perm, sign): None for perm, sign in zip(group.perm.tolist(), group.sign.tolist(), strict=True)}
    for perm, sign in zip(candidates.perm.tolist(), candidates.sign.tolist(), strict=True):
        if 2 * len(elements) > most:
            break
        if (*perm, sign) not in elements:
            elements = _generated(elements, (*perm, sign), most) or elements
    table = np.array(list(elements))
    return SymmetryGroup(table[:, :-1], table[:, -1])


def _generated(elements: dict, one: tuple, most: int) -> dict | None:
    """The group that elements of one and another generate; None where it has more than `most`."""
    new, all_of_them = [one], np.array(list(elements))
    elements = dict(elements)
    while new:
        element = np.array(new.pop())
        for a, b in ((element[None], all_of_them), (all_of_them, element[None])):
            perm = np.take_along_axis(*np.broadcast_arrays(a[:, :-1], b[:, :-1]), axis=1)
            for product_ in np.concatenate([perm, a[:, -1:] * b[:, -1:]], axis=1).tolist():
                if tuple(product_) not in elements:
                    elements[tuple(product_)] = None
                    new.append(tuple(product_))
                    if len(elements) > most:
                        return None
        all_of_them = np.array(list(elements))
    return elements


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
    unchanged = Couplings.of(hamiltonian).invariant
    found = {tuple(p[t].tolist()): None for p in points for t in shifts if unchanged(p[t])}
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

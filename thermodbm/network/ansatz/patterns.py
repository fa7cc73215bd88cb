"""Correlations of few neighbouring sites: a factor for each pattern that their spins and ancillas can show.

    ln Psi(v) = sum_c f[type of c, pattern of v on c]

over clusters c of sites, f the same for all that the symmetries of the magnet map upon each other. Patterns are of order one however small
what they add: other than the weights of hidden units, which enter four-spin terms by their fourth power, they are learned from few samples.
"""

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from flax import linen as nn

from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import spin_flip_symmetric
from thermodbm.network.ansatz.trial import Prepared, TrialState, Unravel, all_ratios

MAX_CLASSES = 400
"""Of patterns, and of these no more: samples must tell them apart."""
MAX_CLUSTERS = 4096
"""Of one kind, and of these no more."""
KINDS = ((3, 3), (3, 2), (4, 6), (4, 5), (4, 4), (4, 3))
"""Sites of a cluster and bonds among them, in the order in which clusters are taken as long as their patterns are few."""


class Clusters(NamedTuple):
    """All clusters, and the classes of their patterns."""

    powers: np.ndarray  # (n_clusters, V): the number of a pattern is its product with the bits of all units, up is 1
    first: np.ndarray  # (n_clusters,) where the classes of its type begin
    classes: np.ndarray  # of all patterns of all types

    @property
    def n_classes(self) -> int:
        """How many parameters they come to."""
        return int(self.classes.max(initial=-1)) + 1


def pattern_clusters(hamiltonian: SpinHamiltonian, sites: np.ndarray) -> Clusters:
    """Clusters of connected sites, as many `KINDS` of them as have at most `MAX_CLASSES` classes of patterns.

    In one class are patterns that permutations of sites, the exchange of spins and ancillas, and the reversal of all spins where H allows
    it, map upon each other.

    Args:
        sites: permutations (n, n_sites) that leave H unchanged.
    """
    n, flips = hamiltonian.n_sites, spin_flip_symmetric(hamiltonian)
    powers, first, classes = [], [], []
    n_patterns = n_classes = 0
    connected = {size: _connected(hamiltonian, size) for size in {size for size, _ in KINDS}}
    for size, n_bonds in KINDS:
        clusters = {c for c, bonds in connected[size].items() if bonds == n_bonds}
        types = _types(clusters if len(clusters) <= MAX_CLUSTERS else set(), sites)
        found = [_pattern_classes(size, stabilizer, flips=flips) for _, stabilizer in types]
        if n_classes + sum(c.max() + 1 for c in found) > MAX_CLASSES:
            break
        for (members, _), labels in zip(types, found, strict=True):
            for ordered in map(np.array, members):
                row = np.zeros(2 * n, int)
                row[ordered], row[ordered + n] = 1 << np.arange(size), 1 << np.arange(size, 2 * size)
                powers.append(row)
                first.append(n_patterns)
            classes.append(labels + n_classes)
            n_patterns, n_classes = n_patterns + len(labels), n_classes + labels.max() + 1
    if not powers:
        return Clusters(np.zeros((0, 2 * n), int), np.zeros(0, int), np.zeros(0, int))
    return Clusters(np.array(powers), np.array(first), np.concatenate(classes))


def _connected(hamiltonian: SpinHamiltonian, size: int) -> dict[frozenset[int], int]:
    """All connected sets of so many sites and how many bonds they have; or none where there are far too many."""
    g = nx.Graph(hamiltonian.bonds.tolist())
    found = {frozenset((i, j)) for i, j in g.edges}
    for _ in range(size - 2):
        found = {c | {k} for c in found for i in c for k in g[i] if k not in c}
        if len(found) > 64 * MAX_CLUSTERS:
            return {}
    return {c: g.subgraph(c).number_of_edges() for c in found}


def _types(clusters: set[frozenset[int]], sites: np.ndarray) -> list[tuple[list[tuple[int, ...]], np.ndarray]]:
    """Clusters that symmetries map upon each other, each with its sites in the order of the first of them; and the permutations of these
    that map the first upon itself."""
    found, left = [], set(clusters)
    while left:
        first = np.array(sorted(min(left, key=sorted)))
        images = sites[:, first]
        same = np.sort(images, axis=1) == first
        stabilizer = np.unique(np.searchsorted(first, images[same.all(1)]), axis=0)
        members = {frozenset(image): tuple(image) for image in images.tolist()}
        found.append(([members[key] for key in sorted(members, key=sorted)], stabilizer))
        left -= set(members)
    return found


def _pattern_classes(size: int, stabilizer: np.ndarray, *, flips: bool) -> np.ndarray:
    """Class of each pattern of spins and ancillas of so many sites, (4^size,) from 0.

    Psi(sigma, sigma') = Psi(-sigma', -sigma): exchange turns all units round."""
    bits = np.arange(4**size)[:, None] >> np.arange(2 * size) & 1
    label = np.arange(4**size)
    for order, exchange, flip in product(stabilizer, (False, True), (False, True) if flips else (False,)):
        units = np.concatenate([order, order + size])
        image = np.roll(bits, size, axis=1) if exchange else bits
        image = image[:, units] ^ (exchange != flip)
        label = np.minimum(label, image @ (1 << np.arange(2 * size)))
    return np.unique(label, return_inverse=True)[1].reshape(-1)


class Patterns(nn.Module):
    """Visible units (..., V) of +-1 to the sum of what their patterns add to ln Psi (...)."""

    clusters: Clusters

    def setup(self) -> None:
        self.f = self.param("f", nn.initializers.zeros, (self.clusters.n_classes,), jnp.complex128)

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        flat = visible.reshape(-1, visible.shape[-1])
        return _sum(self.f[self.clusters.classes], _numbers(self.clusters, flat.T), self.clusters).reshape(visible.shape[:-1])

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state: the numbers of all patterns are kept, and move by differences."""
        return _tabulated(self.clusters, unravel)


def _numbers(clusters: Clusters, visible: jax.Array) -> jax.Array:
    """Numbers of all patterns, (n_clusters, n), of visible units (V, n)."""
    return (jnp.asarray(clusters.powers, float) @ (visible > 0).astype(float)).astype(jnp.int32)


def _sum(table: jax.Array, numbers: jax.Array, clusters: Clusters) -> jax.Array:
    return table[numbers + jnp.asarray(clusters.first, jnp.int32)[:, None]].sum(0)


class _Flips(NamedTuple):
    """Some clusters, and the bits of the numbers of their patterns that are turned round."""

    clusters: np.ndarray
    flips: np.ndarray


class _Move(NamedTuple):
    """Patterns; of those of two units at most also what `ratios` needs."""

    flips: np.ndarray  # (K, n_clusters) bits of the numbers that are turned round
    touched: _Flips  # (K, m) the same, of those that are
    units: np.ndarray | None = None  # (K, 2) rows of the table of single flips, the last one where there is no second unit
    shared: _Flips | None = None  # (K, m) clusters of both units, filled up with void flips
    apart: np.ndarray | None = None  # (K, m, 2) entries of that table, all rows in one, for either unit alone


def _moves(clusters: Clusters, patterns: np.ndarray) -> tuple[_Move, _Flips | None]:
    """Of patterns (K, V), and the table of single flips: the clusters of each unit that is turned round, (units + 1, m)."""
    flips = np.abs(patterns) @ clusters.powers.T
    if np.abs(patterns).sum(1).max(initial=0) > 2:
        return _Move(flips.astype(np.int32), _listed(flips)), None
    used = np.flatnonzero(patterns.any(0))
    bits = np.concatenate([clusters.powers[:, used].T, np.zeros((1, len(clusters.powers)), int)])
    units = np.array([[*np.searchsorted(used, np.flatnonzero(pattern)), len(used), len(used)][:2] for pattern in patterns])
    alone, (a, b) = _listed(bits), bits[units.T]
    shared = _listed(np.where((a > 0) & (b > 0), a + b, 0))
    position = np.zeros(bits.shape, int)
    np.put_along_axis(position, alone.clusters, np.arange(alone.flips.size).reshape(alone.flips.shape), axis=1)
    apart = np.where(shared.flips[..., None], position[units[:, None], shared.clusters[..., None]], alone.flips.size - 1)
    return _Move(flips.astype(np.int32), _listed(flips), units, shared, apart), alone


def _listed(flips: np.ndarray) -> _Flips:
    """Of each row (n_clusters,) the clusters of which bits are turned round; the longest list sets the length."""
    order = np.argsort(flips == 0, axis=1, kind="stable")[:, : (flips > 0).sum(1).max(initial=1)]
    return _Flips(order.astype(np.int32), np.take_along_axis(flips, order, axis=1).astype(np.int32))


def _tabulated(clusters: Clusters, unravel: Unravel) -> TrialState:
    classes, first = jnp.asarray(clusters.classes), jnp.asarray(clusters.first, jnp.int32)

    def table(theta: jax.Array) -> jax.Array:
        return unravel(theta)["f"][classes]

    def log_amplitude(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return _sum(table(theta), _numbers(clusters, visible.T), clusters)

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        found = classes[_numbers(clusters, visible.T) + clusters.first[:, None]]
        zeros = jnp.zeros((len(visible), clusters.n_classes))
        return zeros.at[jnp.arange(len(visible)), found].add(1.0).astype(complex)

    def moves(theta: jax.Array, patterns: np.ndarray) -> Prepared:
        rows, singles = jax.tree.map(jnp.asarray, _moves(clusters, np.asarray(patterns, int)))
        return Prepared(rows, (table(theta), singles))

    def cache(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return _numbers(clusters, visible)

    def change(table: jax.Array, numbers: jax.Array, flips: _Flips) -> jax.Array:
        """What each of these flips adds to ln Psi, (..., n)."""
        before, begin = numbers[flips.clusters], first[flips.clusters][..., None]
        return table[(before ^ flips.flips[..., None]) + begin] - table[before + begin]

    def propose(fixed: tuple, move: _Move, numbers: jax.Array, sign: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.exp(change(fixed[0], numbers, move.touched).sum(0)), numbers ^ move.flips[:, None]

    def ratios(moves: Prepared, numbers: jax.Array, sign: jax.Array) -> jax.Array:
        """Each unit's flip adds what it does to its clusters, but for those that both units of a move belong to."""
        move, (table, singles) = moves.rows, moves.fixed
        if singles is None:
            return all_ratios(trial._replace(ratios=None), moves, numbers, sign)
        alone = change(table, numbers, singles)
        apart = alone.reshape(-1, alone.shape[-1])[move.apart].sum(2)
        return jnp.exp(alone.sum(1)[move.units].sum(1) + (change(table, numbers, move.shared) - apart).sum(1))

    return (trial := TrialState(log_amplitude, log_derivs, moves, cache, propose, unravel, ratios=ratios))

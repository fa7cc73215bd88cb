"""The ring of exchange gates as a graph of plaquettes and cells, and the labelling of its loops and clusters.

Visible and deep units of a worldline, between one gate and the next, form a cell: one spin. Each gate is a plaquette that joins two
cells below (its inputs) to two cells above. All arrays of cells have the shape (n_layers, 2, n_pairs): the cell is the input on side 0
or 1 of the plaquette (layer, pair), and time goes up with the layer, periodically.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.network.exchange import trotter_step

VERTICAL, HORIZONTAL, DIAGONAL, FROZEN = range(4)
"""How a plaquette joins its legs: along each worldline, below and above, across, or all four."""


@dataclass(frozen=True, eq=False)
class PlaquetteRing:
    """Geometry of `n_steps` Trotter steps in a ring. Sites without a gate in a layer are paired by gates that do nothing."""

    n_sites: int
    n_steps: int
    sites: np.ndarray  # (n_sub, 2, n_pairs) site of each cell of one step; n_sites stands for an idle extra site that evens the number
    bonds: np.ndarray  # (n_sub, n_pairs) bond number, -1 for a gate that does nothing
    fractions: np.ndarray  # (n_sub,) duration of each layer's gates in units of delta
    up: np.ndarray  # (n_layers, 2, n_pairs) int32 number of the cell above, on the same site
    down: np.ndarray  # (n_layers, 2, n_pairs) int32 number of the cell below

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_layers, 2, n_pairs)."""
        return self.up.shape

    @property
    def n_cells(self) -> int:
        """Number of cells, n_layers * 2 * n_pairs; cells are numbered in the order of their array, layer 0 first."""
        return self.up.size


def plaquette_ring(n_sites: int, bonds: np.ndarray, n_steps: int) -> PlaquetteRing:
    """The ring of `n_steps` symmetric Trotter steps of the gates on `bonds`, (n_bonds, 2)."""
    even = n_sites + n_sites % 2
    gates = trotter_step(bonds)
    orders, numbers = [], []
    for group, _ in gates:
        pairs = bonds[group]
        idle = np.setdiff1d(np.arange(even), pairs).reshape(-1, 2)
        orders.append(np.concatenate([pairs, idle]).T)
        numbers.append(np.concatenate([group, np.full(len(idle), -1)]))
    sites = np.stack(orders)
    n_sub = len(gates)
    place = np.argsort(sites.reshape(n_sub, even), axis=1)  # of each site within the cells of a layer
    above = place[(np.arange(n_sub) + 1) % n_sub]
    layer = np.arange(n_steps * n_sub)
    within = np.take_along_axis(above, sites.reshape(n_sub, even), axis=1)[layer % n_sub]
    up = (((layer + 1) % len(layer))[:, None] * even + within).astype(np.int32)
    down = np.argsort(up.reshape(-1)).astype(np.int32)
    shape = (len(layer), 2, even // 2)
    return PlaquetteRing(
        n_sites, n_steps, sites, np.stack(numbers), np.array([f for _, f in gates]), up.reshape(shape), down.reshape(shape)
    )


def take(cells: jax.Array, numbers: jax.Array) -> jax.Array:
    """cells[chain, numbers], the same for all chains, of (n_chains, ...) with the cells flattened."""
    return jax.vmap(_take, in_axes=(0, None))(cells, numbers)


def take_each(cells: jax.Array, numbers: jax.Array) -> jax.Array:
    """cells[chain, numbers[chain]] of (n_chains, ...) with the cells flattened."""
    return jax.vmap(_take)(cells, numbers)


def _take(cells: jax.Array, numbers: jax.Array) -> jax.Array:
    return cells.reshape(-1).at[numbers].get(mode="promise_in_bounds")


def label_loops(ring: PlaquetteRing, spins: jax.Array, graphs: jax.Array) -> jax.Array:
    """The lowest cell number on each cell's loop, (n_chains, n_layers, 2, n_pairs) int32, when no plaquette is frozen.

    Following up spins upward and down spins downward, every loop is a cycle of a permutation (horizontal joins are between opposite
    spins). Pointers of length 1, 2, 4, ... along the cycles take the lowest number: log2(n_cells) rounds.

    Args:
        spins: +-1, (n_chains, n_layers, 2, n_pairs).
        graphs: VERTICAL, HORIZONTAL or DIAGONAL for each plaquette, (n_chains, n_layers, n_pairs).
    """
    half = 16 if ring.n_cells <= 1 << 16 else 32  # label and pointer share a word: one gather instead of two
    word = jnp.uint32 if half == 16 else jnp.uint64
    cells = np.arange(ring.n_cells).reshape(ring.shape)
    beside = cells[:, ::-1]
    beside_down = beside.reshape(-1)[ring.down]
    above = {VERTICAL: ring.up, HORIZONTAL: beside, DIAGONAL: ring.up[:, ::-1]}
    below = {VERTICAL: ring.down, HORIZONTAL: ring.up.reshape(-1)[beside_down], DIAGONAL: beside_down}

    def follow(graph: jax.Array, targets: dict[int, np.ndarray]) -> jax.Array:
        vertical, horizontal, diagonal = (jnp.asarray(targets[g], word) for g in (VERTICAL, HORIZONTAL, DIAGONAL))
        return jnp.where(graph == VERTICAL, vertical, jnp.where(graph == HORIZONTAL, horizontal, diagonal))

    on_cells = jnp.broadcast_to(graphs[:, :, None], spins.shape)
    pointer = jnp.where(spins > 0, follow(on_cells, above), follow(take(on_cells, ring.down), below))
    low = word((1 << half) - 1)

    def double(_: int, words: jax.Array) -> jax.Array:
        ahead = take_each(words, (words & low).astype(jnp.int32))
        return jnp.minimum(words & ~low, ahead & ~low) | (ahead & low)

    # testing for convergence would cost more than the rounds it saves
    words = jax.lax.fori_loop(0, (ring.n_cells - 1).bit_length(), double, (jnp.asarray(cells, word) << half) | pointer)
    return (words >> half).astype(jnp.int32)


def label_clusters(ring: PlaquetteRing, spins: jax.Array, graphs: jax.Array) -> jax.Array:
    """The lowest cell number in each cell's cluster, (n_chains, n_layers, 2, n_pairs) int32, for any graphs.

    First loops, on which frozen plaquettes follow the worldlines; then the loops that meet at a frozen plaquette are merged, the higher
    label hooking on to the lower one, until none that meet differ.
    """
    frozen = graphs == FROZEN
    kept = spins[:, :, 0] == take(spins, ring.up[:, 0])
    along = jnp.where(kept, VERTICAL, DIAGONAL).astype(graphs.dtype)
    identity = jnp.arange(ring.n_cells, dtype=jnp.int32)
    hook = jax.vmap(lambda high, low: identity.at[high.reshape(-1)].min(low.reshape(-1), mode="promise_in_bounds"))

    def meeting(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        sides = jnp.where(frozen[:, :, None], labels, labels[:, :, :1])
        return sides.max(2), sides.min(2)

    def merge(labels: jax.Array) -> jax.Array:
        parent = hook(*meeting(labels))
        parent = take_each(parent, take_each(parent, parent))
        return take_each(parent, labels)

    def unfinished(labels: jax.Array) -> jax.Array:
        high, low = meeting(labels)
        return jnp.any(high != low)

    return jax.lax.while_loop(unfinished, merge, label_loops(ring, spins, jnp.where(frozen, along, graphs)))

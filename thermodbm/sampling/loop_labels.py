"""The ring of exchange gates as a graph of plaquettes and cells, and the labelling of its loops and clusters.

Visible and deep units of a worldline, between one gate and the next, form a cell: one spin. Each gate is a plaquette that joins two
cells below (its inputs) to two cells above. All arrays of cells have the shape (n_layers, 2, n_pairs): the cell is the input on side 0
or 1 of the plaquette (layer, pair), and time goes up with the layer, periodically.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.network.exchange import trotter_step
from thermodbm.sampling.union import Joints, at, block_length, merge, no_joints

VERTICAL, HORIZONTAL, DIAGONAL, FROZEN = range(4)
"""How a plaquette joins its legs: along each worldline, below and above, across, or all four."""
HALF_WORD = 15
"""Bits of a count of steps: rings have fewer than 2^15."""


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
    return ring_of_gates(n_sites, bonds, trotter_step(bonds), n_steps)


def ring_of_gates(n_sites: int, bonds: np.ndarray, gates: Sequence[tuple[np.ndarray, float]], n_steps: int = 1) -> PlaquetteRing:
    """A ring of `n_steps` equal steps.

    Args:
        gates: of one step, a layer after the other: numbers of bonds that share no site, and their duration in units of delta.
    """
    even = n_sites + n_sites % 2
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
    return jax.vmap(lambda own: at(own.reshape(-1), numbers))(cells)


def over_steps(ring: PlaquetteRing, x: jax.Array) -> jax.Array:
    """Sums over the steps of the ring, (n_chains, n_sub, ...), of what belongs to its layers, (n_chains, n_layers, ...): all are alike."""
    return x.reshape(len(x), ring.n_steps, len(ring.sites), *x.shape[2:]).sum(1, dtype=jnp.int32)


def counts_over_steps(ring: PlaquetteRing, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Over how many steps each of two is true, as `over_steps`: both by one sum, which is all that they cost."""
    both = over_steps(ring, first.astype(jnp.int32) + (second.astype(jnp.int32) << HALF_WORD))
    return (both & (1 << HALF_WORD) - 1).astype(float), (both >> HALF_WORD).astype(float)


def label_clusters(ring: PlaquetteRing, graphs: jax.Array, *, frozen: bool) -> jax.Array:
    """A number for each cell, equal on the cells of a loop or cluster, (n_chains, n_layers, 2, n_pairs) int32.

    Numbers are below `n_labels(graphs)`. A cluster that crosses layer 0 has the number of its lowest cell there, counted through all
    chains. Stretches of a worldline between two graphs that are not vertical are numbered as wholes, and those graphs, which are few,
    join them.

    Args:
        graphs: graph of each plaquette, (n_chains, n_layers, n_pairs).
        frozen: whether FROZEN occurs among them.
    """
    n_chains, n_layers, n_pairs = graphs.shape
    in_layer = n_pairs * n_chains
    n_first = 2 * in_layer
    kinds = graphs.transpose(1, 2, 0)  # chains innermost: what moves is whole rows of them
    turns = kinds != VERTICAL
    # turns are counted up each column of plaquettes, one column after the other
    in_column = turns.sum(0, dtype=jnp.int32)
    of_chain, first_rank = jax.lax.scan(lambda before, n: (before + n, before), jnp.zeros(n_chains, jnp.int32), in_column)
    until = jnp.cumsum(of_chain, dtype=jnp.int32)
    n_turns, first_rank = until[-1], first_rank + until - of_chain

    def up(carry: tuple[jax.Array, jax.Array], layer: tuple[jax.Array, jax.Array]) -> tuple[tuple, tuple]:
        (stretch, rank), (turns, below) = carry, layer
        outgoing = _after_turn(rank, n_turns, n_first)
        out = jnp.where(turns, jnp.stack([outgoing, outgoing + 1]), stretch)
        return (at(out.reshape(-1, n_chains), below).reshape(stretch.shape), rank + turns), (stretch, rank)

    start = jnp.arange(n_first, dtype=jnp.int32).reshape(n_chains, 2, n_pairs).transpose(1, 2, 0)
    below = np.roll(ring.down, -1, axis=0).reshape(n_layers, -1) % (2 * n_pairs)
    (last, _), (stretches, rank) = jax.lax.scan(up, (start, first_rank), (turns, jnp.asarray(below, jnp.int32)))

    length = block_length()
    blocks = -(-graphs.size // length)
    number = jnp.arange(graphs.size, dtype=jnp.int32).reshape(turns.shape)
    turn = jnp.zeros(blocks * length, jnp.int32).at[jnp.where(turns, rank, blocks * length)].set(number, mode="drop")
    flat, kinds = stretches.reshape(-1), kinds.reshape(-1)
    per_turn = 3 if frozen else 2

    def joints_of_turns(k: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        listed = k * length + jnp.arange(length, dtype=jnp.int32)
        plaquette = jax.lax.dynamic_slice_in_dim(turn, k * length, length)
        lower = plaquette + plaquette // in_layer * in_layer  # there are two cells to a plaquette
        in_0, in_1, kind = at(flat, lower), at(flat, lower + in_layer), at(kinds, plaquette)
        out_0 = _after_turn(listed, n_turns, n_first)
        a = [in_0, jnp.where(kind == DIAGONAL, in_1, out_0 + 1)]
        b = [jnp.where(kind == DIAGONAL, out_0 + 1, in_1), out_0]
        if frozen:
            a, b = [*a, in_0], [*b, jnp.where(kind == FROZEN, out_0, in_0)]
        a, b = (jnp.where(listed < n_turns, jnp.stack(x), 0) for x in (a, b))
        return _put(ends[0], a, k * per_turn * length), _put(ends[1], b, k * per_turn * length)

    n_blocks = (n_turns + length - 1) // length
    n_joints = n_blocks * per_turn * length
    a, b, _ = no_joints(n_first + per_turn * blocks * length)
    a, b = jax.lax.fori_loop(jnp.int32(0), n_blocks, joints_of_turns, (a, b))
    joints = Joints(_put(a, last, n_joints), _put(b, start, n_joints), n_joints + n_first)  # the last layer joins the first
    root = merge(n_labels(graphs), joints, n_first + 2 * (_mask(n_turns) + 1))
    return jnp.moveaxis(at(root, stretches), -1, 0)


def chains_together(ring: PlaquetteRing, n_chains: int) -> int:
    """How many of the chains are best labelled at once: on CPUs at least eight, which fill a vector, then as many as fit into the cache."""
    most = max(8, (1 << 16) // ring.n_cells) if jax.default_backend() == "cpu" else n_chains
    return max(k for k in range(1, min(most, n_chains) + 1) if n_chains % k == 0)


def n_labels(graphs: jax.Array) -> int:
    """A bound on the numbers that `label_clusters` gives."""
    n_chains, _, n_pairs = graphs.shape
    return 2 * n_chains * n_pairs + 2 * (1 << (graphs.size - 1).bit_length())


def _put(x: jax.Array, new: jax.Array, place: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, new.reshape(-1), place, 0)


def _after_turn(rank: jax.Array, n_turns: jax.Array, n_first: int) -> jax.Array:
    """Number of the first of the two stretches that begin at a turn.

    Ranks are scattered over the next power of two: where numbers grew along a loop, trees of joints would be as deep as it is long.
    """
    scattered = (rank.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)).astype(jnp.int32) & _mask(n_turns)
    return n_first + 2 * scattered


def _mask(n_turns: jax.Array) -> jax.Array:
    """Ones below the first power of two that is not less than n_turns."""
    return (jnp.int32(1) << (32 - jax.lax.clz(jnp.maximum(n_turns - 1, 0)))) - 1

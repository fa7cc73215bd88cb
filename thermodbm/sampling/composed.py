"""Sampling of joined trial states: the ring of layers of spins that the square of a product of amplitudes is.

A trial state Psi(sigma, sigma') is a matrix K(x, y) = Psi(x, -y), since spins and ancillas are opposite at infinite temperature. m copies,
joined by m - 1 layers of deep units, are M = K^m, and averages are traces of M^+ M: a sum over 2m layers of

    K(x_0, x_1) ... K(x_{m-1}, x_m) conj(K(x_0, x_{2m-1}) ... K(x_{m+1}, x_m)).

Samples are drawn from the modulus; the phase is the sign of the ring.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.network.ansatz.trial import Cache, Prepared, TrialState, match
from thermodbm.sampling.spread import over_devices


class RingMoves(NamedTuple):
    """What the layers of a ring can do: a local move in all layers of an arc; and in all layers at once, the flip of one spin."""

    local: np.ndarray  # (K, N) int8 patterns of one layer, as in network.ansatz.trial
    flips: np.ndarray  # (n_flips, N), where the magnetisation, the same in all layers, changes by no local move


def ring_moves(hamiltonian: SpinHamiltonian) -> RingMoves:
    """Exchanges along bonds, and flips in all layers, of a model that conserves the magnetisation; flips alone of any other."""
    n = hamiltonian.n_sites
    sites = hamiltonian.off_diagonal[0]
    local = np.zeros((len(sites), n), np.int8)
    for pattern, move in zip(local, sites, strict=True):
        pattern[move] = (1, -1)[: len(move)]
    return RingMoves(local, np.eye(n, dtype=np.int8)[: n if hamiltonian.conserves_sz else 0])


def links(copies: int) -> list[tuple[int, int]]:
    """Layers (x, y) that the amplitudes join, round the ring; of the second half it is the complex conjugate."""
    n = 2 * copies
    return [(k, k + 1) if k < copies else ((k + 1) % n, k) for k in range(n)]


def arcs(copies: int) -> np.ndarray:
    """Ways to move several layers at once, (n_ways, 2m): the arc that each layer belongs to, or -1. Arcs of two, three and so on
    neighbouring layers, as many as there is room for with a layer between any two, that stays; and all layers."""
    n = 2 * copies
    lengths = [length for length in (2, 3, 4, 6, 8, 12, 16) if length < n]
    place = np.arange(n)
    found = [np.where((place % (k + 1) < k) & (place // (k + 1) < n // (k + 1)), place // (k + 1), -1) for k in lengths]
    return np.array([*found, np.zeros(n, int)])


def visible_of(layers: jax.Array, link: tuple[int, int]) -> jax.Array:
    """Visible units (n, V) of one amplitude of rings (n, 2m, N)."""
    return jnp.concatenate([layers[:, link[0]], -layers[:, link[1]]], axis=1)


def log_ring(trial: TrialState, theta: jax.Array, layers: jax.Array) -> jax.Array:
    """ln of the product of amplitudes of rings (n, 2m, N), (n,) complex."""
    copies = layers.shape[1] // 2
    parts = [trial.log_amplitude(theta, visible_of(layers, link)) for link in links(copies)]
    return sum(parts[:copies]) + sum(parts[copies:]).conj()


def sweep_rings(
    trial: TrialState, moves: RingMoves, n_steps: int
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """A function (key, theta, layers) by which every ring makes `n_steps` steps of several moves, chosen at random but the same for all:
    new layers and the share of accepted moves among those that were not void. Layers are (n_rings, 2m, N) int8 +-1; the number of rings
    is a multiple of `trial.block` or less than it, and they are spread over the devices of this process.
    """
    sweep = over_devices(partial(_sweep, trial, moves, n_steps))

    def run(key: jax.Array, theta: jax.Array, layers: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, key_accept = jax.random.split(key)
        n, block = len(layers), min(trial.block, len(layers))
        blocks = jnp.moveaxis(layers.reshape(n // block, block, *layers.shape[1:]), 1, -1)
        done, counts = sweep((key, theta), (blocks, jax.random.split(key_accept, n // block)))
        accepted, tried = counts.sum(0)
        return jnp.moveaxis(done, -1, 1).reshape(layers.shape), accepted / jnp.maximum(tried, 1)

    return run


class _Rings(NamedTuple):
    """Of the rings of a block; the last axis runs over them."""

    layers: jax.Array  # (2m, N, n)
    caches: tuple[Cache, ...]  # of the links


class _Choice(NamedTuple):
    """Moves of all layers at once."""

    arc: jax.Array  # (2m,) that each layer belongs to; -1: it stays
    which: jax.Array  # (2m,) local move of each arc
    flip: jax.Array | bool  # the flip of one spin, in place of all this
    uniform: jax.Array  # (2m, n) of each arc


def _sweep(trial: TrialState, moves: RingMoves, n_steps: int, shared: tuple, work: tuple) -> tuple[jax.Array, jax.Array]:
    """Blocks of rings (n_blocks, 2m, N, n) one after another: where they end, and accepted and tried moves of each block.

    A step moves every second layer by itself; then arcs, or all layers, or one spin in all of them."""
    (key_which, key_way, key_start), theta = jax.random.split(shared[0], 3), shared[-1]
    n_layers, n_flips = work[0].shape[1], len(moves.flips)
    ends, ways = np.array(links(n_layers // 2)), jnp.asarray(arcs(n_layers // 2))
    which = jax.random.randint(key_which, (n_steps, 2, n_layers), 0, 2**30)
    way = jax.random.randint(key_way, (n_steps,), 0, (1 + (n_flips > 0)) * len(ways))  # half of them flips
    start = jax.random.randint(key_start, (n_steps,), 0, n_layers)
    prepared = _prepare(trial, theta, moves)
    every = _stretch(n_steps, trial.refresh_every, 3)
    place = np.arange(n_layers)

    def step(rings: _Rings, xs: tuple) -> tuple[_Rings, jax.Array]:
        which, way, start, key = xs
        uniform = jax.random.uniform(key, (2, *rings.layers.shape[::2]))
        alone = jnp.where((place + start) % 2 == 0, place // 2, -1)
        rings, counts = _attempt(trial, prepared, moves, rings, _Choice(alone, which[0], False, uniform[0]), alone=True)
        arc, flip = jnp.roll(ways[jnp.minimum(way, len(ways) - 1)], start), way >= len(ways)
        rings, more = _attempt(trial, prepared, moves, rings, _Choice(arc, which[1], flip, uniform[1]), alone=False)
        return rings, counts + more

    def of_block(args: tuple) -> tuple[jax.Array, jax.Array]:
        x, key = args  # (2m, N, n)

        def stretch(x: jax.Array, xs: tuple) -> tuple[jax.Array, jax.Array]:
            caches = tuple(trial.cache(theta, jnp.concatenate([x[a], -x[b]])) for a, b in ends)
            rings, counts = jax.lax.scan(step, _Rings(x, caches), xs)
            return rings.layers, counts.sum(0)

        xs = which, way, start, jax.random.split(key, n_steps)
        x, counts = jax.lax.scan(stretch, x, jax.tree.map(lambda z: z.reshape(n_steps // every, every, *z.shape[1:]), xs))
        return x, counts.sum(0)

    return jax.lax.map(of_block, work)


def _prepare(trial: TrialState, theta: jax.Array, moves: RingMoves) -> Prepared:
    """Local moves of the spins of an amplitude, then of the ancillas, then flips of both of a site."""
    none = np.zeros_like(moves.local)
    spins, ancillas = np.concatenate([moves.local, none], 1), np.concatenate([none, moves.local], 1)
    return trial.moves(theta, np.concatenate([spins, ancillas, np.concatenate([moves.flips, -moves.flips], 1)]))


def _attempt(
    trial: TrialState, prepared: Prepared, moves: RingMoves, rings: _Rings, choice: _Choice, *, alone: bool
) -> tuple[_Rings, jax.Array]:
    """The moves of all arcs, each accepted or not; and how many were, and were not void.

    Args:
        alone: whether every arc is one layer, and so every link moves at one end.
    """
    layers, arc, flip = rings.layers, choice.arc, choice.flip
    n_layers, n_local, n_flips = len(layers), len(moves.local), len(moves.flips)
    k = choice.which[jnp.maximum(arc, 0)] % n_local  # (2m,)
    spin = choice.which[0] % max(n_flips, 1)
    patterns = jnp.where((arc >= 0)[:, None], jnp.asarray(moves.local)[k], 0)
    if n_flips:
        patterns = jnp.where(flip, jnp.asarray(moves.flips)[spin], patterns)
    signs, agree = jax.vmap(match)(patterns, layers)
    agree &= ~jnp.asarray(flip) | (signs == signs[0])

    ratios, caches = [], []
    for link, cache in enumerate(rings.caches):
        near, far = link, (link + 1) % n_layers
        forward = link < n_layers // 2  # then the near layer is that of the spins; ancillas are opposite
        rows = k[near] + (0 if forward else n_local), k[far] + (n_local if forward else 0)
        turned = signs[near] * (1 if forward else -1), signs[far] * (-1 if forward else 1)
        moves_near, moves_far = arc[near] >= 0, arc[far] >= 0
        if alone:
            ratio, cache = _propose(trial, prepared, jnp.where(moves_near, *rows), cache, jnp.where(moves_near, *turned))
        else:
            first = jnp.where(flip, 2 * n_local + spin, rows[0]), jnp.where(flip, signs[near], turned[0])
            ratio, cache = _propose(trial, prepared, first[0], cache, first[1], moves_near)
            more, cache = _propose(trial, prepared, rows[1], cache, turned[1], moves_far & ~jnp.asarray(flip))
            ratio *= more
        ratios.append(ratio)
        caches.append(cache)
    of_link = jnp.maximum(arc, jnp.roll(arc, -1))
    names = np.arange(n_layers)[:, None]
    ratio = jnp.where((of_link == names)[..., None], jnp.stack(ratios), 1).prod(1)
    valid = (agree | (arc != names)[..., None]).all(1) & (arc == names).any(1)[:, None]
    # as a product: anything less would be fused into the tables' update and done again for each of their entries
    accept = jnp.tensordot(jnp.ones(2), jnp.stack([valid, choice.uniform < ratio]).astype(float), 1) > 1.5

    def where(arc: jax.Array) -> jax.Array:
        return accept[jnp.maximum(arc, 0)] & (arc >= 0)[..., None]

    on = where(of_link)
    caches = [
        jax.tree.map(lambda new, old, i=i: jnp.where(on[i], new, old), c, old)
        for i, (c, old) in enumerate(zip(caches, rings.caches, strict=True))
    ]
    layers = jnp.where(where(arc)[:, None], layers - (2 * patterns[..., None] * signs[:, None]).astype(layers.dtype), layers)
    return _Rings(layers, tuple(caches)), jnp.stack([accept.sum(), valid.sum()])


def _propose(
    trial: TrialState, prepared: Prepared, row: jax.Array, cache: Cache, sign: jax.Array, moves: jax.Array | bool = True
) -> tuple[jax.Array, Cache]:
    """|Psi(v')/Psi(v)| and the cache of v', which is v itself unless it moves."""
    ratio, moved = trial.propose(prepared.fixed, jax.tree.map(lambda x: x[row], prepared.rows), cache, sign)
    if moves is True:
        return jnp.abs(ratio), moved
    return jnp.where(moves, jnp.abs(ratio), 1.0), jax.tree.map(lambda new, old: jnp.where(moves, new, old), moved, cache)


def _stretch(n_steps: int, refresh_every: int | None, changes: int) -> int:
    """Steps between two computations of the tables, a divisor of n_steps, each changing an amplitude so many times."""
    most = n_steps if refresh_every is None else max(1, refresh_every // changes)
    return next(d for d in range(min(n_steps, most), 0, -1) if n_steps % d == 0)

"""Sampling of two joined trial states: the ring of four layers of spins that the square of a product of amplitudes is.

A trial state Psi(sigma, sigma') is a matrix K(x, y) = Psi(x, -y), since spins and ancillas are opposite at infinite temperature. Joined by
a layer of deep units it is M = K K, and averages are traces of M^+ M: a sum over layers x_0, x_1, x_2, x_3 of

    K(x_0, x_1) K(x_1, x_2) conj(K(x_0, x_3) K(x_3, x_2)).

Samples are drawn from the modulus; the phase is the sign of the ring.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.network.ansatz.trial import Cache, Prepared, TrialState, match
from thermodbm.sampling.spread import over_devices

LINKS = ((0, 1), (1, 2), (0, 3), (3, 2))
"""Layers (x, y) that an amplitude joins; of the last two it is the complex conjugate."""
_ARCS = tuple(sorted({tuple(int((k - first) % 4 < length) for k in range(4)) for first, length in product(range(4), (1, 2, 4))}))
"""Neighbouring layers of the ring that move together: one, two or all."""


class RingMoves(NamedTuple):
    """What the layers of a ring can do: a local move in all layers of an arc; and in all four layers at once, the flip of one spin."""

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


def visible_of(layers: jax.Array, link: tuple[int, int]) -> jax.Array:
    """Visible units (n, V) of one amplitude of rings (n, 4, N)."""
    return jnp.concatenate([layers[:, link[0]], -layers[:, link[1]]], axis=1)


def log_ring(trial: TrialState, theta: jax.Array, layers: jax.Array) -> jax.Array:
    """ln of the product of amplitudes of rings (n, 4, N), (n,) complex."""
    parts = [trial.log_amplitude(theta, visible_of(layers, link)) for link in LINKS]
    return parts[0] + parts[1] + parts[2].conj() + parts[3].conj()


def sweep_rings(
    trial: TrialState, moves: RingMoves, n_steps: int
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """A function (key, theta, layers) by which every ring attempts `n_steps` moves, chosen at random but the same for all: new layers and
    the share of accepted moves among those that were not void. Layers are (n_rings, 4, N) int8 +-1; the number of rings is a multiple of
    `trial.block` or less than it, and they are spread over the devices of this process.
    """
    sweep = over_devices(partial(_sweep, trial, moves, n_steps))

    def run(key: jax.Array, theta: jax.Array, layers: jax.Array) -> tuple[jax.Array, jax.Array]:
        *keys, key_accept = jax.random.split(key, 3)
        n, block = len(layers), min(trial.block, len(layers))
        blocks = jnp.moveaxis(layers.reshape(n // block, block, *layers.shape[1:]), 1, -1)
        done, counts = sweep((*keys, theta), (blocks, jax.random.split(key_accept, n // block)))
        accepted, tried = counts.sum(0)
        return jnp.moveaxis(done, -1, 1).reshape(layers.shape), accepted / jnp.maximum(tried, 1)

    return run


def _sweep(trial: TrialState, moves: RingMoves, n_steps: int, shared: tuple, work: tuple) -> tuple[jax.Array, jax.Array]:
    """Blocks of rings (n_blocks, 4, N, n) one after another: where they end, and accepted and tried moves of each block."""
    key_kind, key_move, theta = shared
    n_kinds = len(_ARCS) + (len(moves.flips) > 0)
    kinds = jax.random.randint(key_kind, (n_steps,), 0, n_kinds)
    numbers = jax.random.randint(key_move, (n_steps,), 0, 2**30)
    prepared = _prepare(trial, theta, moves)
    branches = [lambda rings, k, arc=arc: _arc(trial, prepared, moves, arc, rings, k) for arc in _ARCS]
    if len(moves.flips):
        branches.append(lambda rings, k: _flip(trial, prepared, moves, rings, k))
    every = _stretch(n_steps, trial.refresh_every)

    def step(rings: _Rings, xs: tuple) -> tuple[_Rings, jax.Array]:
        kind, number, uniform_key = xs
        ratio, valid, moved = jax.lax.switch(kind, branches, rings, number)
        accept = valid & (jax.random.uniform(uniform_key, valid.shape) < ratio)
        return jax.tree.map(lambda new, old: jnp.where(accept, new, old), moved, rings), jnp.stack([accept.sum(), valid.sum()])

    def of_block(args: tuple) -> tuple[jax.Array, jax.Array]:
        x, key = args  # (4, N, n)

        def stretch(x: jax.Array, xs: tuple) -> tuple[jax.Array, jax.Array]:
            caches = tuple(trial.cache(theta, jnp.concatenate([x[a], -x[b]])) for a, b in LINKS)
            rings, counts = jax.lax.scan(step, _Rings(x, caches), xs)
            return rings.layers, counts.sum(0)

        xs = kinds, numbers, jax.random.split(key, n_steps)
        x, counts = jax.lax.scan(stretch, x, jax.tree.map(lambda z: z.reshape(n_steps // every, every, *z.shape[1:]), xs))
        return x, counts.sum(0)

    return jax.lax.map(of_block, work)


class _Rings(NamedTuple):
    """Of the rings of a block; the last axis runs over them."""

    layers: jax.Array  # (4, N, n)
    caches: tuple[Cache, ...]  # of the links


class _Prepared(NamedTuple):
    """Local moves of the spins and of the ancillas of an amplitude, and flips of both of a site."""

    spins: Prepared
    ancillas: Prepared
    flips: Prepared | None


def _prepare(trial: TrialState, theta: jax.Array, moves: RingMoves) -> _Prepared:
    none = np.zeros_like(moves.local)
    spins, ancillas = np.concatenate([moves.local, none], 1), np.concatenate([none, moves.local], 1)
    flips = trial.moves(theta, np.concatenate([moves.flips, -moves.flips], 1)) if len(moves.flips) else None
    return _Prepared(trial.moves(theta, spins), trial.moves(theta, ancillas), flips)


def _propose(trial: TrialState, moves: Prepared, k: jax.Array, cache: Cache, sign: jax.Array) -> tuple[jax.Array, Cache]:
    ratio, cache = trial.propose(moves.fixed, jax.tree.map(lambda x: x[k], moves.rows), cache, sign)
    return jnp.abs(ratio), cache


def _arc(
    trial: TrialState, prepared: _Prepared, moves: RingMoves, arc: tuple[int, ...], rings: _Rings, number: jax.Array
) -> tuple[jax.Array, jax.Array, _Rings]:
    """A local move in the layers of an arc, each with the sign by which it agrees."""
    k = number % len(moves.local)
    pattern = jnp.asarray(moves.local)[k]
    layers, signs, valid = rings.layers, {}, True
    for layer in np.flatnonzero(arc):
        signs[layer], agrees = match(pattern, layers[layer])
        valid &= agrees
        layers = layers.at[layer].add((-2 * pattern[:, None] * signs[layer]).astype(layers.dtype))
    ratio, caches = 1.0, []
    for (x, y), cache in zip(LINKS, rings.caches, strict=True):
        if arc[x]:
            r, cache = _propose(trial, prepared.spins, k, cache, signs[x])
            ratio *= r
        if arc[y]:  # an ancilla is opposite
            r, cache = _propose(trial, prepared.ancillas, k, cache, -signs[y])
            ratio *= r
        caches.append(cache)
    return ratio, valid, _Rings(layers, tuple(caches))


def _flip(
    trial: TrialState, prepared: _Prepared, moves: RingMoves, rings: _Rings, number: jax.Array
) -> tuple[jax.Array, jax.Array, _Rings]:
    """The flip of a spin that is the same in all layers."""
    k = number % len(moves.flips)
    spin = rings.layers[:, k]  # (4, n)
    sign, valid = spin[0].astype(float), (spin == spin[0]).all(0)
    parts = [_propose(trial, prepared.flips, k, cache, sign) for cache in rings.caches]
    ratio = parts[0][0] * parts[1][0] * parts[2][0] * parts[3][0]
    return ratio, valid, _Rings(rings.layers.at[:, k].multiply(-1), tuple(cache for _, cache in parts))


def _stretch(n_steps: int, refresh_every: int | None) -> int:
    """Moves between two computations of the tables, a divisor of n_steps; one of ours may be two of the trial state's."""
    most = n_steps if refresh_every is None else max(1, refresh_every // 2)
    return next(d for d in range(min(n_steps, most), 0, -1) if n_steps % d == 0)

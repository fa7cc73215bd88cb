"""Metropolis sampling of a power of |Psi(sigma, sigma')| by many walkers that share each random choice of a move, and local ratios."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from thermodbm.models import SpinHamiltonian
from thermodbm.network.ansatz.trial import Everything, TrialState, all_ratios, match
from thermodbm.sampling.spread import over_devices


class Moves(NamedTuple):
    """Patterns of 0, +-1 over the visible units (see network.ansatz.trial), in kinds that are chosen equally often."""

    patterns: np.ndarray  # (K, V) int8
    kind: np.ndarray  # (K,) int


def metropolis_moves(hamiltonian: SpinHamiltonian, *, conserve_sz: bool, largest: int | None = None) -> Moves:
    """Moves that join all configurations of non-zero amplitude.

    Without conservation: flip a spin; flip an ancilla; flip both of an antiparallel pair; flip both of a parallel pair.
    With it (total sz of the spins and ancillas together zero): exchange along a bond among the spins, among the ancillas, in both at
    once; flip the antiparallel pair of a site; flip an antiparallel pair of a spin and an ancilla across a bond.

    Args:
        largest: units that a move may change; with 2 there are no exchanges in both at once.
    """
    n, bonds = hamiltonian.n_sites, hamiltonian.bonds
    kinds: list[list[dict[int, int]]]
    if conserve_sz:
        pairs = [(i, j) for i, j in bonds.tolist()]
        kinds = [
            [{i: 1, j: -1} for i, j in pairs],
            [{n + i: 1, n + j: -1} for i, j in pairs],
            [{i: 1, j: -1, n + i: -1, n + j: 1} for i, j in pairs],
            [{i: 1, n + i: -1} for i in range(n)],
            [{a: 1, n + b: -1} for i, j in pairs for a, b in ((i, j), (j, i))],
        ]
    else:
        kinds = [
            [{i: 1} for i in range(n)],
            [{n + i: 1} for i in range(n)],
            [{i: 1, n + i: -1} for i in range(n)],
            [{i: 1, n + i: 1} for i in range(n)],
        ]
    kinds = [kind for kind in kinds if largest is None or all(len(move) <= largest for move in kind)]
    return Moves(_patterns([move for kind in kinds for move in kind], 2 * n), np.repeat(np.arange(len(kinds)), [len(k) for k in kinds]))


def hamiltonian_patterns(hamiltonian: SpinHamiltonian) -> tuple[np.ndarray, jax.Array]:
    """Off-diagonal part of H (x) 1 as patterns (K, V) and matrix elements (K,): spin flips with -x_field, exchanges with 2 xy."""
    sites, elements = hamiltonian.off_diagonal
    return _patterns([dict(zip(move, (1, -1), strict=False)) for move in sites.tolist()], 2 * hamiltonian.n_sites), elements


def antiparallel_flips(n_sites: int) -> np.ndarray:
    """Patterns (n_sites, V) that flip a spin and its ancilla where they are antiparallel; no symmetry of H forbids them."""
    return _patterns([{i: 1, n_sites + i: -1} for i in range(n_sites)], 2 * n_sites)


def random_neighbours(key: jax.Array, visible: jax.Array, patterns: np.ndarray) -> jax.Array:
    """Configurations (n, V), each with an even chance changed by one of the moves `patterns` (K, V), all equally likely, unless it is
    void."""
    if not len(patterns):
        return visible
    key_which, key_stay = jax.random.split(key)
    choices = jnp.asarray(np.asarray(patterns, np.int8))
    pattern = choices[jax.random.randint(key_which, (len(visible),), 0, len(choices))]
    overlap = (pattern * visible).sum(-1, dtype=jnp.int8)
    valid = (jnp.abs(overlap) == jnp.abs(pattern).sum(-1)) & jax.random.bernoulli(key_stay, 0.5, (len(visible),))
    sign = jnp.where(valid, jnp.where(overlap < 0, -1, 1), 0).astype(jnp.int8)
    return visible - 2 * pattern * sign[:, None]


def log_neighbour_weights(patterns: np.ndarray, visible: jax.Array, ratios: jax.Array) -> jax.Array:
    """ln of the weight, against the law of `random_neighbours` of samples of |Psi|^2, by which they are averages in |Psi|^2, (n,):

        w(v) = 2 K / (K + void + sum_k |r_k|^2)

    with r_k = Psi(v_k)/Psi(v) of the moves from v that are not void: w <= 2, and w |sum_k H_k r_k|^2 <= 2 K sum_k H_k^2 however small
    Psi(v) is.

    Args:
        ratios: (n, K) as of `local_ratios`, zero where a move is void.
    """
    if not len(patterns):
        return jnp.zeros(len(visible))
    patterns = np.asarray(patterns, np.int8)
    support = np.abs(patterns).sum(-1, dtype=np.int32)
    void = (jnp.abs(visible.astype(jnp.int32) @ patterns.T.astype(np.int32)) != support).sum(-1)
    largest = jnp.maximum(jnp.abs(ratios).max(-1), 1.0)  # squares of ratios next to a node may overflow
    total = (len(patterns) + void) / largest / largest + (jnp.abs(ratios / largest[:, None]) ** 2).sum(-1)
    return np.log(2 * len(patterns)) - jnp.log(total) - 2 * jnp.log(largest)


def metropolis(
    key: jax.Array, trial: TrialState, theta: jax.Array, visible: jax.Array, moves: Moves, n_steps: int, power: jax.Array | float = 2.0
) -> tuple[jax.Array, jax.Array]:
    """Every walker attempts `n_steps` moves, chosen at random but the same for all; new configurations and acceptance.

    Walkers share no other random number, and given the moves each one has |Psi|^power as its stationary law, so that their samples are
    uncorrelated. Kinds of moves are equally likely.

    Args:
        visible: (n_walkers, V) int8 +-1; the number of walkers is a multiple of `BLOCK` or less than it.
        power: 2 for samples of the state; less makes rare configurations more frequent.

    Returns:
        visible (n_walkers, V), and the share of accepted moves among those that were not void.
    """
    shared, blocks = _work(key, trial, theta, visible, power)
    return _ended(*_walk(trial, moves, n_steps, shared, blocks))


def shared_metropolis(trial: TrialState, moves: Moves, n_steps: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """`metropolis` as a function (key, theta, visible, power), compiled, whose walkers are spread over the devices of this process; the
    result is the same."""
    walk = over_devices(partial(_walk, trial, moves, n_steps))

    def run(key: jax.Array, theta: jax.Array, visible: jax.Array, power: float) -> tuple[jax.Array, jax.Array]:
        return _ended(*walk(*_work(key, trial, theta, visible, power, jax.local_device_count())))

    return run


def _work(
    key: jax.Array, trial: TrialState, theta: jax.Array, visible: jax.Array, power: jax.Array | float, n_devices: int = 1
) -> tuple[tuple, tuple]:
    """What all walkers share: a key for the choice of moves, parameters, the power. And blocks of walkers with the keys of their groups,
    which are those of walkers, whatever blocks and devices there are."""
    key_moves, key_accept = jax.random.split(key)
    blocks, group = _to_blocks(visible, trial.block, n_devices), min(trial.block, len(visible))
    keys = jax.random.split(key_accept, len(visible) // group).reshape(len(blocks), -1)
    return (key_moves, theta, jnp.asarray(power, float)), (blocks, keys)


def _walk(trial: TrialState, moves: Moves, n_steps: int, shared: tuple, work: tuple) -> tuple[jax.Array, jax.Array]:
    """Blocks of walkers one after another: where they end, and accepted and tried moves of each block, (n_blocks, 2)."""
    (key, theta, power), (blocks, keys) = shared, work
    log_weight = -np.log(np.bincount(moves.kind)[moves.kind])
    chosen = jax.random.categorical(key, jnp.asarray(log_weight), shape=(n_steps,))
    prepared = trial.moves(theta, moves.patterns)
    patterns, group = jnp.asarray(moves.patterns), blocks.shape[-1] // keys.shape[1]

    def step(carry: tuple, xs: tuple) -> tuple[tuple, jax.Array]:
        v, cache = carry
        k, key = xs
        pattern = patterns[k]
        sign, valid = match(pattern, v)
        ratio, moved = trial.propose(prepared.fixed, jax.tree.map(lambda x: x[k], prepared.rows), cache, sign)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, (group,)))(key).reshape(-1)
        likely = uniform < (ratio.real**2 + ratio.imag**2) ** (power / 2)
        # a product: anything less would be fused into the tables' update and done again for each of their entries
        accept = jnp.ones(2) @ jnp.stack([valid, likely]).astype(float) > 1.5
        cache = jax.tree.map(lambda new, old: jnp.where(accept, new, old), moved, cache)
        v = jnp.where(accept, v - 2 * pattern[:, None] * sign.astype(v.dtype), v)
        return (v, cache), jnp.stack([accept.sum(), valid.sum()])

    every = _divisor(n_steps, trial.refresh_every or n_steps)

    def block(args: tuple) -> tuple[jax.Array, jax.Array]:
        v, keys = args

        def stretch(v: jax.Array, xs: tuple) -> tuple[jax.Array, jax.Array]:
            (v, _), counts = jax.lax.scan(step, (v, trial.cache(theta, v)), xs)
            return v, counts.sum(0)

        keys = jax.vmap(lambda key: jax.random.split(key, n_steps), out_axes=1)(keys)
        v, counts = jax.lax.scan(stretch, v, jax.tree.map(lambda x: x.reshape(n_steps // every, every, *x.shape[1:]), (chosen, keys)))
        return v, counts.sum(0)

    return jax.lax.map(block, (blocks, keys))


def _ended(blocks: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    accepted, tried = counts.sum(0)
    return _from_blocks(blocks), accepted / jnp.maximum(tried, 1)


def local_ratios(trial: TrialState, theta: jax.Array, visible: jax.Array, patterns: np.ndarray, *, share: bool = False) -> jax.Array:
    """Psi(v')/Psi(v) for every pattern's move away from v, zero where it is void: (n_walkers, K) of visible (n_walkers, V)."""
    if not len(patterns):
        return jnp.zeros((len(visible), 0))
    prepared = trial.moves(theta, patterns)

    def block(v: jax.Array) -> jax.Array:
        sign, valid = jax.vmap(match, (0, None))(jnp.asarray(patterns), v)
        return jnp.where(valid, all_ratios(trial, prepared, trial.cache(theta, v), sign), 0)

    n_devices = jax.local_device_count() if share else 1
    return _from_blocks(_over_blocks(block, _to_blocks(visible, trial.block, n_devices), n_devices))


def local_everything(trial: TrialState, theta: jax.Array, visible: jax.Array, patterns: np.ndarray, *, share: bool = False) -> Everything:
    """ln Psi, the ratios of `local_ratios` and the log-derivatives of configurations (n, V), together where the trial state can."""
    if trial.everything is None:
        ratios = local_ratios(trial, theta, visible, patterns, share=share)
        return Everything(trial.log_amplitude(theta, visible), ratios, trial.log_derivs(theta, visible))
    done = trial.everything(theta, visible, trial.moves(theta, patterns), jnp.asarray(patterns))
    _, valid = jax.vmap(match, (0, None))(jnp.asarray(patterns), visible.T)
    return done._replace(ratios=jnp.where(valid.T, done.ratios, 0))


def _to_blocks(visible: jax.Array, block: int, n_devices: int) -> jax.Array:
    """Configurations (n, V) in blocks (n_blocks, V, n / n_blocks): small ones on a CPU, elsewhere one for each device."""
    n, n_visible = visible.shape
    group = min(block, n)
    size = group if jax.default_backend() == "cpu" else n // _divisor(n // group, n_devices)
    return visible.reshape(n // size, size, n_visible).swapaxes(1, 2)


def _over_blocks(apply: Callable[[Any], Any], blocks: jax.Array, most: int) -> jax.Array:
    """`apply` to every block, one after another on each of at most so many devices, of which as many as divide them take part."""

    def one_by_one(blocks: jax.Array) -> jax.Array:
        return jax.lax.map(apply, blocks)

    n_devices = _divisor(len(blocks), most)
    if n_devices == 1:
        return one_by_one(blocks)
    mesh, spec = Mesh(jax.local_devices()[:n_devices], ("walkers",)), PartitionSpec("walkers")
    return jax.shard_map(one_by_one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(blocks)


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`."""
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)


def _from_blocks(blocks: jax.Array) -> jax.Array:
    return blocks.swapaxes(1, 2).reshape(-1, blocks.shape[1])


def _patterns(moves: list[dict[int, int]], n_visible: int) -> np.ndarray:
    patterns = np.zeros((len(moves), n_visible), np.int8)
    for row, move in zip(patterns, moves, strict=True):
        for unit, value in move.items():
            row[unit] = value
    return patterns

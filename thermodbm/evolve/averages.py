"""Averages over a trial state: sums over all its configurations, or over samples that walkers bring."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermodbm.comm import Comm
from thermodbm.evolve import measurement as measure
from thermodbm.evolve.ansatz import Ansatz
from thermodbm.evolve.enumeration import ExactSum
from thermodbm.evolve.options import SamplingOptions, VariationalOptions
from thermodbm.evolve.step import Cloud, devices_share, from_first_rank, local_energy
from thermodbm.models.operators import diagonal_observables
from thermodbm.network.ansatz.trial import BLOCK, TrialState
from thermodbm.sampling.configurations import random_configurations
from thermodbm.sampling.metropolis import (
    antiparallel_flips,
    hamiltonian_patterns,
    local_ratios,
    metropolis_moves,
    random_neighbours,
    shared_metropolis,
)

MIN_POWER, MIN_COUNT = 1.0, 0.5
"""The evolution draws from |Psi|^power and reweights, so that rare configurations, by which parameters move at high temperature, are
seen; the least power from 1 to 2 is taken at which this share of the samples counts."""
SETTLE = 32
"""Attempted moves per visible unit before samples of another law are used, however few are made between two samples."""


def settling_rounds(n_sweeps: int, settle: int = SETTLE) -> int:
    """Rounds of `n_sweeps` attempted moves per visible unit that make at least `settle`."""
    return -(-settle // n_sweeps)


class Walkers(NamedTuple):
    """What a sampled state carries on; an enumerated one has none."""

    visible: jax.Array  # (n, V) int8, of this rank
    power: float  # they are samples of |Psi|^power
    acceptance: float
    measured: jax.Array | None = None  # (n, V) samples of |Psi|^2, in the midst of a measurement
    tally: measure.Tally | None = None  # of what they gave so far


class Averager(NamedTuple):
    """How averages over |Psi|^2 are taken; with walkers None where all configurations are summed."""

    begin: Callable[[jax.Array, jax.Array], Walkers | None]  # (key, theta)
    draw: Callable[[jax.Array, jax.Array, Walkers | None], tuple[Walkers | None, Cloud]]  # (key, theta, walkers): for one step
    adapt: Callable[[Walkers | None, float], Walkers | None]  # (walkers, effective number of samples of the step)
    observe: Callable[..., tuple[Walkers | None, measure.Averages, float]]  # (key, theta, walkers, beta) -> walkers, averages, share done
    sampled: bool


def enumerated(ansatz: Ansatz, trial: TrialState, configurations: ExactSum) -> Averager:
    """Sums over all configurations."""
    hamiltonian = ansatz.hamiltonian
    e_loc, diagonal = local_energy(hamiltonian, trial), diagonal_observables(hamiltonian)
    cloud = Cloud(configurations.visible, configurations.multiplicity, 0.0)

    @jax.jit
    def values(theta: jax.Array) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        log_weight = 2 * trial.log_amplitude(theta, cloud.visible).real + jnp.log(cloud.multiplicity)
        energies, ratios = e_loc(theta, cloud.visible)
        found = {**measure.energy_observables(hamiltonian, energies, ratios), **configurations.diagonal(diagonal)}
        if ansatz.origin == "analytic":
            found |= measure.kubo_observables(hamiltonian, cloud.visible, ratios)
        return jax.nn.softmax(log_weight), energies, found

    return Averager(
        begin=lambda key, theta: None,
        draw=lambda key, theta, walkers: (None, cloud),
        adapt=lambda walkers, count: None,
        observe=lambda key, theta, walkers, beta: (None, measure.exact_estimates(hamiltonian, beta, *values(theta)), 1.0),
        sampled=False,
    )


def sampled(
    ansatz: Ansatz, trial: TrialState, options: VariationalOptions, sampling: SamplingOptions, n_walkers: int, comm: Comm
) -> Averager:
    """Averages over `n_walkers` walkers of this rank, which follow the state from step to step."""
    hamiltonian, n = ansatz.hamiltonian, ansatz.hamiltonian.n_sites
    e_loc, diagonal = local_energy(hamiltonian, trial, comm), diagonal_observables(hamiltonian)
    variance = measure.variance_observables(hamiltonian, e_loc)
    controls, pair_flips = measure.heat_bath_controls(hamiltonian), antiparallel_flips(n)
    moves = metropolis_moves(hamiltonian, conserve_sz=ansatz.conserves_sz, largest=trial.largest_move)
    n_rounds = -(-sampling.n_samples // (n_walkers * comm.size))
    ones, patterns = jnp.ones(n_walkers), hamiltonian_patterns(hamiltonian)[0]

    n_moves = options.n_sweeps * 2 * n
    walk = shared_metropolis(trial, moves, n_moves)

    def move(key: jax.Array, theta: jax.Array, visible: jax.Array, power: float) -> tuple[jax.Array, jax.Array]:
        return walk(jax.random.fold_in(key, comm.rank), theta, visible, power)

    def settle(key: jax.Array, theta: jax.Array, visible: jax.Array, power: float) -> jax.Array:
        for k in range(settling_rounds(options.n_sweeps)):
            visible, _ = move(jax.random.fold_in(key, k), theta, visible, power)
        return visible

    @jax.jit
    def values(key: jax.Array, theta: jax.Array, visible: jax.Array) -> dict[str, jax.Array]:
        energies, ratios = e_loc(theta, visible)
        zero_mean = controls(visible[:, :n], ratios, local_ratios(trial, theta, visible, pair_flips, share=devices_share(comm)))
        found = measure.energy_observables(hamiltonian, energies, ratios) | diagonal(visible[:, :n])
        if ansatz.origin == "analytic":
            found |= measure.kubo_observables(hamiltonian, visible, ratios)
        return found | variance(jax.random.fold_in(key, comm.rank), theta, visible) | {"controls": zero_mean}

    def begin(key: jax.Array, theta: jax.Array) -> Walkers:
        key_random, key_settle = jax.random.split(key)
        visible = random_configurations(jax.random.fold_in(key_random, comm.rank), n_walkers, n)
        return Walkers(settle(key_settle, theta, visible, MIN_POWER), MIN_POWER, 1.0)

    def draw(key: jax.Array, theta: jax.Array, walkers: Walkers) -> tuple[Walkers, Cloud]:
        key_move, key_near = jax.random.split(key)
        visible, accepted = move(key_move, theta, walkers.visible, walkers.power)
        near = random_neighbours(jax.random.fold_in(key_near, comm.rank), visible, patterns)
        return Walkers(visible, walkers.power, _mean(accepted, comm)), Cloud(near, ones, walkers.power, visible)

    def adapt(walkers: Walkers, count: float) -> Walkers:
        change = -0.05 if count / (n_walkers * comm.size) > MIN_COUNT else 0.1
        return walkers._replace(power=min(2.0, max(MIN_POWER, walkers.power + change)))

    def observe(key: jax.Array, theta: jax.Array, walkers: Walkers, beta: float) -> tuple[Walkers, measure.Averages, float]:
        key_settle, key_move, key_values = jax.random.split(key, 3)
        visible = settle(key_settle, theta, walkers.visible, 2.0) if walkers.measured is None else walkers.measured
        visible, accepted = move(key_move, theta, visible, 2.0)
        found = values(key_values, theta, visible)
        tally = measure.add_to_tally(walkers.tally or measure.empty_tally(found), found)
        averages = measure.walker_estimates(hamiltonian, beta, tally, comm)
        share = float(tally.count) / n_rounds
        if sampling.target_error:  # the same on all ranks, which must agree when to stop
            share = (sampling.target_error / float(from_first_rank(jnp.asarray(averages.estimates["energy"].error), comm))) ** 2
        if share >= 1:
            return Walkers(walkers.visible, walkers.power, walkers.acceptance), averages, 1.0
        return Walkers(walkers.visible, walkers.power, _mean(accepted, comm), visible, tally), averages, share

    return Averager(begin, draw, adapt, observe, sampled=True)


def _mean(x: jax.Array, comm: Comm) -> float:
    return float(comm.sum(x)) / comm.size


def walkers_per_rank(options: VariationalOptions, n_params: int, comm: Comm) -> int:
    """A share of `n_walkers`, in whole blocks."""
    total = options.n_walkers or max(4096, min(16 * n_params, 16384))
    per_rank = -(-total // comm.size)
    return per_rank if per_rank <= BLOCK else -(-per_rank // BLOCK) * BLOCK


def pack(walkers: Walkers | None) -> dict[str, Any]:
    """As nested dicts without what is not there, for a checkpoint."""
    if walkers is None:
        return {}
    tree = {name: x for name, x in walkers._asdict().items() if x is not None}
    return tree | ({"tally": walkers.tally._asdict()} if walkers.tally is not None else {})


def unpack(tree: dict[str, Any]) -> Walkers | None:
    """The walkers of a checkpoint."""
    if not tree:
        return None
    return Walkers(**(tree | ({"tally": measure.Tally(**tree["tally"])} if "tally" in tree else {})))

"""Sampling the rings of one temperature: what is set up, what has been drawn so far, and the point that it makes.

A method says with which numbers of slices rings are made, from what they get their weights, and how their estimates are combined.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from thermodbm.comm import Comm
from thermodbm.estimate.covariance import MEASURED, combined_correlations
from thermodbm.estimate.ensemble import (
    MAX_STRETCHES,
    Chains,
    Ensemble,
    first_chains,
    group_mesh,
    place_groups,
    resize_chains,
    run_chains,
)
from thermodbm.estimate.exchange import exchange_ensemble, layered_ensemble
from thermodbm.estimate.exchange_response import exchange_response
from thermodbm.estimate.imaginary_time import with_imaginary_time
from thermodbm.estimate.ising import ising_ensemble, ising_response
from thermodbm.estimate.levels import SQUARES, Series, add_samples, estimate_level, estimate_scalars, join_ranks, scalar_correlations
from thermodbm.estimate.response import known_response, response_estimates
from thermodbm.estimate.series import SeriesFacts, series_ensemble
from thermodbm.estimate.statistics import Blocks, Estimate
from thermodbm.estimate.trust import Doubt, doubts_of_chains
from thermodbm.estimate.unseen import SINGLE, known_values, least_changes
from thermodbm.estimate.user import Functions, check_observables
from thermodbm.evolve.method import Point
from thermodbm.evolve.options import SamplingOptions
from thermodbm.models import SpinHamiltonian
from thermodbm.models.observables import LOG_PARTITION, SECOND
from thermodbm.models.operators import isotropic
from thermodbm.models.parameters import Parameter, stacked, unstacked
from thermodbm.sampling.cuts import CutFacts
from thermodbm.sampling.exchange_facts import ExchangeFacts
from thermodbm.sampling.ring import IsingFacts

TRUSTED_SIGN = 5.0
"""Average signs smaller than this many of their errors leave ratios <x s>/<s> whose errors are no longer Gaussian."""
CHUNK_SECONDS = 0.5
"""Aim for the duration of one call of `advance`, at SECONDS_PER_SPIN."""
BRIEF_SECONDS = 8.0
"""Of sampling a ring at one temperature, at SECONDS_PER_SPIN: below it its program costs more to compile with care than that brings."""
SECONDS_PER_SPIN = {"cpu": 1e-7, "gpu": 1e-9, "tpu": 1e-9}
MAX_EVERY = 16
"""Most sweeps of a stretch, after each of which pair functions are measured."""

Facts = IsingFacts | ExchangeFacts | SeriesFacts
Combine = Callable[[str, list[Estimate]], Estimate]
"""What all rings say together of an observable, or, with `MOVED` before its name, of its derivatives."""
MOVED = "moved:"


class Level(NamedTuple):
    """One ring at the present temperature."""

    n_slices: int
    chains: Chains
    n_sweeps: int  # made so far, thermalising ones included
    series: Series | None  # of those behind


class Plan(NamedTuple):
    """What a run is made of, from the problem alone: neither cores nor devices enter, so that results do not depend on them."""

    hamiltonian: SpinHamiltonian
    facts: Facts
    sampler: str
    n_together: int  # chains of a group, which share a key
    n_groups: int  # of all ranks
    wanted: tuple[int, ...]  # sweeps of every level to be measured
    n_thermal: tuple[int, ...]  # sweeps of every level before
    observables: Functions = ()  # of a user
    response: tuple[Parameter, ...] = ()  # in which averages are differentiated
    derivatives: str | None = None  # of what: see `derivatives_of`
    open_end: bool = False  # whether sampling may go on until an error is small enough
    n_tau: int | None = None  # parts of beta at which correlations in imaginary time are measured

    @property
    def n_chains(self) -> int:
        """Of all ranks."""
        return self.n_together * self.n_groups

    def cost(self, n_slices: int) -> float:
        """Seconds of a sweep of all chains, roughly."""
        return SECONDS_PER_SPIN.get(jax.default_backend(), 1e-9) * 2 * n_slices * self.hamiltonian.n_sites * self.n_chains

    def brief(self, n_slices: int) -> bool:
        """Whether a ring is sampled for seconds only."""
        return not self.open_end and self.cost(n_slices) * (self.wanted[0] + self.n_thermal[0]) < BRIEF_SECONDS

    def every(self, n_slices: int) -> int:
        """Sweeps of a stretch, a power of two."""
        return 2 ** int(np.clip(np.log2(CHUNK_SECONDS / self.cost(n_slices)), 1, np.log2(MAX_EVERY)))


def group_size(n_sites: int, strings: bool = False) -> int:
    """Chains that are worked on together: enough to fill vectors, few enough that several cores find work. Strings are walked slot by
    slot, and want many."""
    if strings and jax.default_backend() == "cpu":
        return 128
    if jax.default_backend() != "cpu":
        return 4096
    return 32 if n_sites <= 64 else 16 if n_sites <= 256 else 8


def chain_groups(n_sites: int, n_chains: int, n_ranks: int = 1, strings: bool = False) -> tuple[int, int]:
    """Chains of a group, and groups of all ranks: of equal size, as many for each rank, together n_chains or a few more."""
    per_rank = -(-n_chains // n_ranks)
    groups_here = -(-per_rank // group_size(n_sites, strings))
    return -(-per_rank // groups_here), groups_here * n_ranks


def sweeps_of_levels(
    sampling: SamplingOptions, n_chains: int, shares: tuple[float, ...] = (1.0,)
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sweeps that are measured on every ring, and those discarded before; `shares` of the samples belong to each."""
    wanted = tuple(max(4, int(np.ceil(sampling.n_samples * share / n_chains))) for share in shares)
    return wanted, tuple(max(30, w // 10) if sampling.n_thermal is None else sampling.n_thermal for w in wanted)


def ensemble_at(
    facts: Facts, sampler: str, n_slices: int, observables: Functions = (), derivatives: str | None = None, n_tau: int | None = None
) -> Ensemble:
    """The ensemble that belongs to the model; where all layers are alike with observables of a user, the kind of its derivatives, or
    correlations in imaginary time.

    Raises:
        InputError: for a sampler that does not fit.
    """
    exchange = isinstance(facts, ExchangeFacts)
    if isinstance(facts, SeriesFacts):
        return series_ensemble(facts, n_slices, observables, derivatives)
    if derivatives is not None:
        found = exchange_response(facts, sampler, n_slices, derivatives) if exchange else ising_response(facts, sampler, n_slices)
    elif exchange and facts.layered:
        found = layered_ensemble(facts, sampler, n_slices)
    else:
        found = (exchange_ensemble if exchange else ising_ensemble)(facts, sampler, n_slices, observables)
    return with_imaginary_time(found, facts.lattice, 0.5 if exchange else 1.0, n_tau) if n_tau else found


@lru_cache(maxsize=64)
def _compiled(
    facts: Facts, sampler: str, n_slices: int, mesh: Mesh, every: int, measured: tuple[Functions, str | None, int | None], brief: bool
) -> tuple[Ensemble, Any]:
    """An ensemble and its run function, kept so that the next curve of the same structure need not compile again."""
    ensemble = ensemble_at(facts, sampler, n_slices, *measured)
    about = None if measured[0] else (facts, sampler, n_slices, *measured)
    return ensemble, run_chains(ensemble, mesh, every, brief=brief, about=about)


def advance_levels(
    key: jax.Array,
    plan: Plan,
    levels: Mapping[int, Level],
    source: tuple,
    comm: Comm,
    wait: Callable[[int], None] = lambda n_slices: None,
) -> dict[int, Level]:
    """One chunk of work where least is done; the first chunks, which compile, for all levels at once, so that every core has its share.

    Args:
        source: from what the ensemble makes its weights.
        wait: for the program of a number of slices, if others make it.
    """
    done = progress_of(plan, levels)
    now = range(len(done)) if max(done) == 0 else [int(np.argmin(done))]

    def sweep(k: int) -> Level:
        wait(levels[k].n_slices)
        return sweep_level(jax.random.fold_in(key, k), plan, k, levels[k], source, comm)

    with ThreadPoolExecutor(max_workers=len(now)) as pool:
        return {**levels, **dict(zip(now, pool.map(sweep, now), strict=True))}


def plain(level: Any) -> Any:
    """Tuples with names as the dicts of which a state is made."""
    if isinstance(level, tuple):
        level = level._asdict()
    if isinstance(level, dict):
        return {name: plain(value) for name, value in level.items() if value is not None}
    return level


def level_from(tree: Mapping[str, Any]) -> Level:
    """The inverse of `plain`."""
    series = tree.get("series")
    if series is not None:
        parts = ("scalars", "arrays", "response")
        blocks = {part: {name: Blocks(**fields) for name, fields in series.get(part, {}).items()} for part in parts}
        series = Series(**{**series, **blocks})
    return Level(int(tree["n_slices"]), tree["chains"], tree["n_sweeps"], series)


def progress_of(plan: Plan, levels: Mapping[int, Level]) -> list[float]:
    """Fraction done of every level; may exceed one."""
    return [level.n_sweeps / (plan.n_thermal[k] + plan.wanted[k]) for k, level in sorted(levels.items())]


def _groups(plan: Plan, comm: Comm) -> jax.Array:
    """Numbers of the groups of this rank."""
    n_here = plan.n_groups // comm.size
    return jnp.arange(n_here) + comm.rank * n_here


def _runner(plan: Plan, n_slices: int, comm: Comm) -> tuple[Ensemble, Any, Mesh]:
    mesh = group_mesh(plan.n_groups // comm.size)
    measured = (plan.observables, plan.derivatives, plan.n_tau)
    program = plan.facts, plan.sampler, n_slices, mesh, plan.every(n_slices), measured, plan.brief(n_slices)
    return *_compiled(*program), mesh


def start_levels(key: jax.Array, plan: Plan, before: Mapping[int, Level], slices: Sequence[int], comm: Comm) -> dict[int, Level]:
    """Rings of the given numbers of slices; chains begin where those with the nearest number of slices stopped."""
    at_hand = {level.n_slices: level.chains for level in before.values()}
    levels = {}
    for k, n_slices in enumerate(slices):
        ensemble = _runner(plan, n_slices, comm)[0]
        if at_hand:
            nearest = min(at_hand, key=lambda m: abs(np.log(m / n_slices)))
            chains = at_hand[nearest] if nearest == n_slices else resize_chains(ensemble, at_hand[nearest])
        else:
            chains = first_chains(ensemble, jax.random.fold_in(key, k), _groups(plan, comm), plan.n_together)
        levels[k] = Level(n_slices, chains, 0, None)
    return levels


def compile_level(plan: Plan, n_slices: int, source: tuple, comm: Comm) -> None:
    """Make all that `sweep_level` will run at this number of slices, by a call that sweeps nothing."""
    ensemble, run, mesh = _runner(plan, n_slices, comm)
    key, groups = jax.random.key(0), _groups(plan, comm)
    shapes = jax.eval_shape(lambda key: first_chains(ensemble, key, groups, plan.n_together), key)
    chains = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    run(key, source, groups, place_groups(mesh, chains), jnp.asarray(0))


def sweep_level(key: jax.Array, plan: Plan, k: int, level: Level, source: tuple, comm: Comm) -> Level:
    """One chunk of sweeps of one level: half a second's worth, up to the end of thermalisation or of what is wanted."""
    _, run, mesh = _runner(plan, level.n_slices, comm)
    every, n_thermal = plan.every(level.n_slices), plan.n_thermal[k]
    rest = (n_thermal if level.n_sweeps < n_thermal else n_thermal + plan.wanted[k]) - level.n_sweeps
    if rest <= 0:  # a target is not reached yet
        rest = plan.wanted[k] // 4
    affordable = CHUNK_SECONDS / (every * plan.cost(level.n_slices))
    n_stretches = int(np.clip(-(-rest // every), 1, np.clip(affordable, 1, MAX_STRETCHES)))
    place = (_groups(plan, comm), place_groups(mesh, level.chains))
    chains, samples = run(key, source, *place, jnp.asarray(n_stretches))
    measured = level.n_sweeps >= n_thermal
    series = add_samples(level.series, samples, n_stretches) if measured else None
    return Level(level.n_slices, chains, level.n_sweeps + n_stretches * every, series)


def how_far(
    plan: Plan, levels: Mapping[int, Level], beta: float, comm: Comm, target_error: float | None, combine: Combine
) -> tuple[float, str]:
    """Fraction done of the work at this temperature and a few words, by the error of the energy; all ranks get the same."""
    if not all(level.series for level in levels.values()):
        return 0.0, ""

    def energy(level: Level) -> Estimate:
        here = estimate_scalars(level.series, beta, plan.hamiltonian.n_sites, only="energy")["energy"]
        means, errors = np.array(comm.share((float(here.mean), float(here.error)))).T
        return Estimate(means.mean(), np.sqrt(np.sum(errors**2)) / comm.size)

    error = float(combine("energy", [energy(level) for _, level in sorted(levels.items())]).error)
    if not target_error:
        return 1.0, f"error {error:.1e}"
    enough = all(level.n_sweeps > 2 * plan.n_thermal[k] for k, level in levels.items())
    fraction = min(1.0, (target_error / error) ** 2) if error > 0 else 1.0
    return (fraction if enough else min(fraction, 0.99)), f"error {error:.1e}"


def _with_floors(plan: Plan, found: dict[str, Estimate], series: Series, every: int, beta: float) -> dict[str, Estimate]:
    """The estimates with what samples cannot have seen in their errors, and what is known without."""
    sign = abs(float(found["sign"].mean)) if "sign" in found else 1.0
    tau = max(0.5, float(np.nan_to_num(found["energy"].tau_int, nan=0.5, posinf=0.5)))
    independent, changed = series.n_draws * plan.n_chains / (2 * tau), dict(found)
    means, by_turns = {name: each.mean for name, each in found.items()}, isinstance(plan.facts, CutFacts)
    for name, change in least_changes(plan.hamiltonian, beta, means, by_turns=by_turns).items():
        if name in found and sign:
            n_draws = independent / every if SQUARES.get(name, name) in series.arrays else independent
            least = np.hypot(change / (sign * max(n_draws, 1.0)), SINGLE * np.asarray(found[name].mean))
            changed[name] = found[name]._replace(error=np.hypot(found[name].error, least))
    for name, (entries, value) in known_values(plan.hamiltonian, plan.n_tau).items():
        if e := changed.get(name):
            changed[name] = e._replace(mean=np.where(entries, value, e.mean), error=np.where(entries, 0.0, e.error))
    return changed


def point_of(plan: Plan, levels: Mapping[int, Level], beta: float, comm: Comm, combine: Combine) -> Point:
    """Every observable of a temperature with its error, and what is to be thought of it; without the network."""
    ordered = [level for _, level in sorted(levels.items())]
    whole = [join_ranks(comm.share(level.series)) for level in ordered]
    found = [estimate_level(series, beta, plan.hamiltonian.n_sites) for series in whole]
    doubts = doubts_of_chains(found[0])
    found = [_with_floors(plan, e, x, plan.every(level.n_slices), beta) for e, x, level in zip(found, whole, ordered, strict=True)]
    observables = {name: combine(name, [e[name] for e in found]) for name in found[0] if name != "sign"}
    shapes = check_observables(dict(plan.observables), plan.hamiltonian.n_sites)
    if plan.n_tau:
        shapes |= {name: (plan.n_tau // 2 + 1, -1) for name in observables if name.startswith("imaginary_time_")}
    for name, shape in shapes.items():
        observables[name] = Estimate(*(x if x is None else np.reshape(x, shape) for x in observables[name]))
    if isotropic(plan.hamiltonian) and "susceptibility" in observables:
        observables["susceptibility_x"] = observables["susceptibility"]
    n_slices = np.inf if isinstance(plan.facts, SeriesFacts) else ordered[0].n_slices
    diagnostics = {
        "n_slices": n_slices,
        "d_tau": beta / (2 * n_slices),
        "n_samples": sum(series.n_draws for series in whole) * plan.n_chains,
        "average_sign": 1.0,
    }
    if sign := found[0].get("sign"):
        diagnostics |= {"average_sign": float(sign.mean), "average_sign_error": float(sign.error)}
        if not all(abs(e["sign"].mean) > TRUSTED_SIGN * e["sign"].error for e in found):
            doubts |= Doubt.SIGN
    correlations = [scalar_correlations(series, beta, plan.hamiltonian.n_sites, MEASURED) for series in whole]
    diagnostics |= combined_correlations(combine, found, correlations, observables)
    diagnostics |= {"doubts": float(doubts), "trusted": float(not doubts)}
    return Point(observables, diagnostics, {}, _response(plan, whole, observables, beta, combine) if plan.response else {})


def _response(
    plan: Plan, levels: Sequence[Series], observables: Mapping[str, Estimate], beta: float, combine: Combine
) -> dict[str, dict[str, Estimate]]:
    """Derivatives of all scalars."""
    hamiltonian, of_beta = plan.hamiltonian, stacked(plan.response).beta
    found = [response_estimates(series.response, hamiltonian, of_beta, beta) for series in levels]
    response: dict[str, dict[str, Estimate]] = {}
    second: dict[str, Estimate] = {}
    for name in found[0]:
        estimate = combine(MOVED + name, [each[name] for each in found])
        if name == LOG_PARTITION:
            second = {SECOND: Estimate(*(x.reshape((len(of_beta),) * 2) for x in estimate[:2]))}
            continue
        mean, error = (unstacked(plan.response, x) for x in estimate[:2])
        response[name] = {p.name: Estimate(mean[p.name], error[p.name]) for p in plan.response}
    return known_response(hamiltonian, plan.response, response, observables) | ({LOG_PARTITION: second} if second else {})

"""Method I as a thermal method: analytic networks at two or three Trotter steps, sampled in turn, extrapolated to a vanishing step."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, NumericsError
from thermodbm.estimate.covariance import MEASURED, correlation_key, with_correlations
from thermodbm.estimate.extrapolation import TROTTER_PRIOR, extrapolate
from thermodbm.estimate.response import derivatives_of, response_by_scaling
from thermodbm.estimate.series import series_facts, series_slices
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.thermodynamics import join_thermodynamics
from thermodbm.estimate.trust import Doubt
from thermodbm.estimate.user import Functions
from thermodbm.evolve.ahead import Ahead
from thermodbm.evolve.chains import (
    MOVED,
    Level,
    Plan,
    advance_levels,
    chain_groups,
    compile_level,
    ensemble_at,
    how_far,
    level_from,
    plain,
    point_of,
    progress_of,
    start_levels,
    sweeps_of_levels,
)
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import DeterministicOptions, SamplingOptions
from thermodbm.models import SpinHamiltonian
from thermodbm.models.parameters import Parameter, mixed_directions, stacked
from thermodbm.network.trotter import network_record
from thermodbm.network.trotter_step import LEVELS, commutator_scale, default_d_tau, kind_of_gates, slices
from thermodbm.sampling.exchange_facts import exchange_facts
from thermodbm.sampling.ring import ising_facts
from thermodbm.sampling.strings import turns_freely

SERIES = "series"
"""The sampler without a Trotter step."""
SHARES = {True: (0.72, 0.2, 0.08), False: (1.0,)}
"""Of the sweeps; coarse levels are cheap and have small weights."""


def make_plan(
    hamiltonian: SpinHamiltonian,
    options: DeterministicOptions,
    sampling: SamplingOptions,
    n_ranks: int = 1,
    response: Sequence[Parameter] = (),
    second: bool = False,
) -> Plan:
    """The plan for given options."""
    response, by_strings = tuple(response), options.sampler == SERIES
    n_together, n_groups = chain_groups(hamiltonian.n_sites, sampling.n_chains, n_ranks, by_strings)
    wanted, n_thermal = sweeps_of_levels(sampling, n_together * n_groups, SHARES[options.extrapolate and not by_strings])
    chains = n_together, n_groups, wanted, n_thermal
    of_run = {"response": response, "open_end": sampling.target_error is not None, "n_tau": options.n_tau}
    if by_strings:
        check_series(hamiltonian, options, response)
        by = derivatives_of(hamiltonian, response, turns_freely(hamiltonian), second) if response else None
        return Plan(hamiltonian, series_facts(hamiltonian, by), SERIES, *chains, derivatives=by, **of_run)
    if hamiltonian.conserves_sz:
        facts = exchange_facts(hamiltonian)
        by = derivatives_of(hamiltonian, response, facts.by_loops, second) if response else None
        return Plan(hamiltonian, facts, options.sampler or "loop", *chains, derivatives=by, **of_run)
    largest = max(LEVELS[options.extrapolate]) * (options.d_tau or default_d_tau(hamiltonian, sampling.target_error))
    by = derivatives_of(hamiltonian, response, False) if response else None
    return Plan(hamiltonian, ising_facts(hamiltonian, largest), options.sampler or "mixed", *chains, derivatives=by, **of_run)


def check_series(hamiltonian: SpinHamiltonian, options: DeterministicOptions, response: Sequence[Parameter] = ()) -> None:
    """Raises:
    InputError: where sampler = "series" cannot do what is asked for.
    """
    series_facts(hamiltonian)
    hint = "Leave method.sampler out: the layered ring has it."
    for where, found in (("method.d_tau", options.d_tau), ("method.n_tau", options.n_tau)):
        if found is not None:
            raise InputError(where, expected="none with method.sampler = series, which has no layers", found=found, hint=hint)
    if response and not hamiltonian.conserves_sz:
        named = [p.name for p in response]
        raise InputError("response", expected="none of model tfim with method.sampler = series", found=named, hint=hint)


def deterministic_method(
    hamiltonian: SpinHamiltonian,
    options: DeterministicOptions,
    sampling: SamplingOptions,
    comm: Comm = SERIAL,
    betas: Sequence[float] = (),
    observables: Functions = (),
    response: Sequence[Parameter] = (),
    second: bool = False,
) -> ThermalMethod:
    """Sample the analytic network at each temperature; results as in the contract, with extrapolation and its error.

    Programs for the later ones of `betas` are compiled while the present temperature is sampled. The same seed gives the same results, bit
    for bit, whatever the number of devices of a process.

    Raises:
        InputError: for a sampler that does not fit the model.
    """
    plan = make_plan(hamiltonian, options, sampling, comm.size, response, second)._replace(observables=observables)
    directions = stacked(plan.response) if plan.response else None
    mixed = [mixed_directions(hamiltonian, plan.response)] if second else []
    ensemble_at(plan.facts, plan.sampler, 1)  # complains at once

    d_tau = options.d_tau or default_d_tau(hamiltonian, sampling.target_error)

    def source(beta: float) -> tuple[Any, ...]:
        point = hamiltonian, jnp.asarray(beta, float)
        return point if directions is None else (point, *jax.tree.map(jnp.asarray, (directions, (directions.beta,), beta, *mixed)))

    def slices_at(beta: float) -> list[int]:
        if plan.sampler == SERIES:  # of the coldest: one program for all
            return [series_slices(plan.facts, hamiltonian, max([beta, *betas]))]
        return slices(beta, d_tau, options.extrapolate, options.n_tau or 0)

    programs = Ahead(lambda n_slices: compile_level(plan, n_slices, source(1.0), comm))

    def init(key: jax.Array) -> State:
        return {"beta": np.nan, "levels": {}}

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        key_start, key_sweep = jax.random.split(key)
        levels = {int(k): level_from(level) for k, level in state["levels"].items()}
        if state["beta"] != beta:
            levels = start_levels(key_start, plan, levels, slices_at(beta), comm)
        programs.begin((level.n_slices for level in levels.values()), (n for b in sorted(betas) if b > beta for n in slices_at(b)))
        try:
            levels = advance_levels(key_sweep, plan, levels, source(beta), comm, programs.wait)
        except NumericsError as error:
            raise NumericsError(f"{error} At beta = {beta:.6g}.") from None
        state = {"beta": beta, "levels": {str(k): plain(level) for k, level in levels.items()}}
        extrapolated = lambda name, found: _to_zero(hamiltonian, levels, beta, name, found)  # noqa: E731
        combine = extrapolated if plan.sampler != SERIES else lambda name, found: found[0]
        fraction, message, point = min(progress_of(plan, levels)), "", None
        if fraction >= 1 or sampling.target_error:
            fraction, message = how_far(plan, levels, beta, comm, sampling.target_error, combine)
        if fraction >= 1:
            point = point_of(plan, levels, beta, comm, combine)
            if plan.sampler != SERIES:
                point = point._replace(network=network_record(hamiltonian, beta, levels[0].n_slices))
        return state, Info(min(fraction, 1.0), message, point)

    def summarize(points: list[Point], betas: np.ndarray) -> list[Point]:
        return join_temperatures(hamiltonian, points, betas)

    return ThermalMethod(init, advance, summarize=summarize)


def _to_zero(hamiltonian: SpinHamiltonian, levels: Mapping[int, Level], beta: float, name: str, found: list[Estimate]) -> Estimate:
    """The estimate at a vanishing Trotter step."""
    deltas = beta / (2 * np.array([float(level.n_slices) for _, level in sorted(levels.items())]))
    smallness = (deltas[0] * commutator_scale(hamiltonian)) ** 2
    prior = TROTTER_PRIOR[kind_of_gates(hamiltonian)]
    # a derivative is extrapolated as a specific heat is: its second order may cancel
    of = prior.scaled("specific_heat" if name.startswith(MOVED) else name, smallness)
    return extrapolate(found, (deltas / deltas[0]) ** 2, **of)


def _measured(hamiltonian: SpinHamiltonian, points: Sequence[Point]) -> list[str]:
    """What has covariances: without field the magnetisation is known."""
    with_field = bool(np.any(np.asarray(hamiltonian.z_field)))
    return [n for n in MEASURED if all(n in p.observables for p in points) and (n != "magnetization_z" or with_field)]


def join_temperatures(hamiltonian: SpinHamiltonian, points: list[Point], betas: np.ndarray) -> list[Point]:
    """Entropy and free energy by integration from infinite temperature, and the specific heat from all energies together. Temperatures
    whose sign is lost or whose chains disagree do not enter, but are predicted from the others.

    The specific heat of each temperature alone is kept as specific_heat_direct. The covariance of what is joined, between temperatures and
    with what was measured at each of them, goes with it.
    """
    wrong = Doubt.SIGN | Doubt.MIXING
    honest = np.array([not Doubt(int(p.diagnostics["doubts"])) & wrong for p in points])

    def curve(name: str) -> Estimate:
        estimates = [p.observables[name] for p in points]
        mean, error = np.array([e.mean for e in estimates], float), np.array([e.error for e in estimates], float)
        return Estimate(np.where(honest, mean, np.nan), np.where(honest, error, np.nan))

    errors = {name: np.where(honest, [p.observables[name].error for p in points], np.nan) for name in _measured(hamiltonian, points)}

    def correlation(a: str, b: str) -> np.ndarray:
        return np.array([float(p.diagnostics.get(correlation_key(a, b), 0.0)) for p in points])

    both = correlation("energy", "specific_heat")
    joint = join_thermodynamics(hamiltonian, betas, curve("energy"), curve("specific_heat"), both)
    joint = with_correlations(joint, errors, correlation)
    joined = []
    for k, point in enumerate(points):
        estimates = {name: Estimate(e.mean[k], e.error[k]) for name, e in joint.estimates.items()}
        kept = {**point.observables, "specific_heat_direct": point.observables["specific_heat"], **estimates}
        response = response_by_scaling(hamiltonian, point.response, kept, float(betas[k]))
        joined.append(point._replace(observables=kept, response=response, covariance={n: x[k] for n, x in joint.covariance.items()}))
    return joined

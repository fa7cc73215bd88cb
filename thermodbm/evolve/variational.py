"""The variational method: the parameters of a purified neural state follow imaginary time, tau = beta/2, by stochastic reconfiguration."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, NumericsError
from thermodbm.estimate.moments import high_temperature_moments
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import MAX_RESIDUAL, Doubt, doubts_of_chains
from thermodbm.evolve.ansatz import Ansatz, composes, largest_coupling, make_ansatz
from thermodbm.evolve.averages import Averager, Walkers, enumerated, pack, sampled, unpack, walkers_per_rank
from thermodbm.evolve.clock import Clock, at_rest
from thermodbm.evolve.doubling import Joining, Rings, Roots, combined, dense_averages, joining, ring_averages, roots
from thermodbm.evolve.enumeration import all_configurations
from thermodbm.evolve.integrators import TABLEAUS, next_step_size
from thermodbm.evolve.measurement import Averages, with_systematic
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import SamplingOptions, VariationalOptions
from thermodbm.evolve.path import Path, extend, infinite_temperature, unexplained
from thermodbm.evolve.start import distance_from_thermal_state
from thermodbm.evolve.step import Step, evolution_step, from_first_rank, rate_error
from thermodbm.models import SpinHamiltonian
from thermodbm.network.ansatz.trial import TrialState, trial_state

MIN_OVERLAP = 0.3
"""A step after which fewer of the samples still count is taken again with half the size."""
MIN_STEP = 1e-8
"""A step shorter than this share of beta means that the evolution is stuck."""
FROZEN = 1e-3
"""r^2 c below which a large r^2 is of no account: what is left of the specific heat, per site, is all that could be missed."""


class Evolution(NamedTuple):
    """Where the evolution stands."""

    theta: jax.Array  # (P,)
    beta: float
    step: float  # in tau, to be tried next
    clock: Clock  # tells beta from tau
    rate: jax.Array  # (P,) d theta/d tau at the end of the last step; NaN where there is none
    path: Path
    start: float  # distance of the start from the thermal state, of normalised states
    distance: float  # the same at present, with the integrator's errors and chance
    residual: float  # r^2 of the last step
    unsolved: float  # the largest `SRInfo.unsolved` of all steps
    doubts: int  # `Doubt` of the start
    n_steps: int
    n_rejected: int
    walkers: Walkers | None
    roots: Roots  # networks to be joined
    rings: Rings | None  # of joined networks, where they are sampled

    @property
    def off(self) -> tuple[float, float]:
        """Shares by which averages and the variance are off: `off` and `variance_off` of `path.extend`."""
        return 2 * self.distance, np.sqrt(8) * self.start


class Parts(NamedTuple):
    """What the evolution is made of."""

    ansatz: Ansatz
    trial: TrialState
    options: VariationalOptions  # with the defaults of this trial state
    averager: Averager
    step: Callable[..., Step]
    start_rate_error: Callable[..., jax.Array]
    comm: Comm
    beta_0: float
    joining: Joining


def variational_method(
    hamiltonian: SpinHamiltonian,
    options: VariationalOptions,
    sampling: SamplingOptions,
    comm: Comm = SERIAL,
    module: nn.Module | None = None,
    params: dict | None = None,
    betas: Sequence[float] = (),
) -> ThermalMethod:
    """d theta/d tau = -S^-1 F from a small beta_0 through the temperatures, hot to cold.

    The specific heat is beta^2 Var(H)/N; ln Z, and the entropy with it, is N ln 2 less the integral of E along the way. Of a
    magnetisation that is not conserved the susceptibility is the middle of bounds (`estimate.kubo_bounds`).

    The residual r^2 of each step is logged. A state that misses a share of its motion lags behind, and is called by the beta that it has
    come to (`evolve.clock`); what the lag does to averages is in their errors, as is what a distance D of the state from the exact one can
    do, 2 D sqrt(Var). The `systematic_error` of the energy per site is the part of its error that is no matter of the samples at its
    temperature: `Ansatz.lag` times the lag in beta times Var/N, from r^2 taken along (H - E) Psi, where chance in rates averages out, plus
    the largest 2 D sqrt(Var)/N so far. D joins, as independent errors, those of the start, the integrator, and sampled rates,
    sqrt((r^2 - s) Var) each, with the missed share s: the rest of r^2 is chance; of a start that the user gives, what its energy and
    correlations tell. Sampled steps draw from |Psi|^p, move half of the samples by H (`step.cloud_weights`), reweight, and measure r^2 on
    configurations that the rate has not seen.

    Of a result /network holds the parameters and basis_signs: the amplitude in the basis of H is that of the module times
    `models.rotation.rotation_sign`.

    Joined networks (`evolve.doubling`, method.compose) are measured besides; each copy brings the error that its network has.

    Args:
        betas: the inverse temperatures that will be asked for, whose halves or quarters are kept for joining.
        module: any Flax module (..., 2 n_sites) of spins and ancillas +-1 to the complex log-amplitude (...), with parameters that are
            all real, or all complex and holomorphic. It starts at `params`, which describe the state of the Hamiltonian as it is given,
            without a sublattice rotation, at beta_0 over the largest coupling. By default `default_module`, at the analytic state.

    Raises:
        InputError: for a module without parameters, a space too large to enumerate, or options that do not fit together.

    Source: Nomura, Yoshioka, Nori, PRL 127, 060601 (2021), Method II.
    """
    parts = _make_parts(hamiltonian, options, sampling, comm, make_ansatz(hamiltonian, options, module, params), betas)

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        key_start, key_work = jax.random.split(key)
        at = _unpack(state)
        if beta < at.beta * (1 - 1e-12):
            if parts.ansatz.origin == "given" or at.n_steps:
                raise InputError("temperature", expected=f"beta of at least {at.beta:.4g}, where the evolution is", found=beta)
            at = _start(parts, key_start, beta)
        at, info = (_integrate if at.beta < beta * (1 - 1e-12) else _observe)(parts, key_work, at, beta)
        return _pack(at), info

    return ThermalMethod(init=lambda key: _pack(_start(parts, key, parts.beta_0)), advance=advance)


def _make_parts(
    hamiltonian: SpinHamiltonian,
    options: VariationalOptions,
    sampling: SamplingOptions,
    comm: Comm,
    ansatz: Ansatz,
    betas: Sequence[float],
) -> Parts:
    simple = ansatz.hamiltonian
    everything = all_configurations(simple, options, conserve_sz=ansatz.conserves_sz, sites=ansatz.sites)
    shift, tolerance = (ansatz.diag_shift, 1e-4) if everything is None else (1e-8, 3e-5)
    begin = ansatz.beta_0 if everything is None or ansatz.origin == "given" else 0.004
    beta_0 = (options.beta_0 or begin) / largest_coupling(hamiltonian)
    example = ansatz.start(jax.random.key(0), beta_0)
    trial = trial_state(ansatz.module, example)
    options = replace(
        options,
        diag_shift=shift if options.diag_shift is None else options.diag_shift,
        tolerance=options.tolerance or tolerance,
    )
    n_walkers = None
    if everything is None:
        n_walkers = walkers_per_rank(options, ravel_pytree(example)[0].size, comm)
        averager = sampled(ansatz, trial, options, sampling, n_walkers, comm)
    else:
        averager = enumerated(ansatz, trial, everything)
    composed = betas if composes(ansatz, options, hamiltonian) else ()
    joins = joining(simple, trial, composed, options, sampling.n_samples, n_walkers, comm, positive=ansatz.positive)
    step, start_rate_error = evolution_step(simple, trial, options, comm, brief=everything is not None), rate_error(simple, trial, comm)
    return Parts(ansatz, trial, options, averager, step, start_rate_error, comm, beta_0, joins)


def _start(parts: Parts, key: jax.Array, beta: float) -> Evolution:
    key_params, key_walkers, key_draw = jax.random.split(key, 3)
    hamiltonian = parts.ansatz.hamiltonian
    theta = from_first_rank(ravel_pytree(parts.ansatz.start(key_params, beta))[0], parts.comm)
    walkers = parts.averager.begin(key_walkers, theta)
    apart, doubts = _start_error(parts, key_params, key_draw, theta, walkers, beta)
    began = 0.0 if parts.ansatz.origin == "infinite" else float(beta)
    return Evolution(
        theta=theta,
        beta=began,
        step=0.05 * beta / 2,
        clock=at_rest(began),
        rate=np.full(theta.size, np.nan, theta.dtype),
        path=infinite_temperature(high_temperature_moments(hamiltonian)[0], parts.ansatz.lag),
        start=apart,
        distance=apart,
        residual=0.0,
        unsolved=0.0,
        doubts=int(doubts),
        n_steps=0,
        n_rejected=0,
        walkers=walkers,
        roots=roots(parts.joining.betas, parts.joining.copies, beta, theta),
        rings=parts.joining.begin(jax.random.fold_in(key_walkers, parts.comm.rank), hamiltonian.n_sites),
    )


def _start_error(
    parts: Parts, key_params: jax.Array, key_draw: jax.Array, theta: jax.Array, walkers: Walkers | None, beta: float
) -> tuple[float, Doubt]:
    """Distance of the start from the exact state, and whether it is that state at all.

    Of the analytic one: that of its motion with beta from imaginary time, which grows linearly from 0. Of one that the user gives, from
    the energy, its variance and the correlations.
    """
    if parts.ansatz.origin == "infinite":  # it is exact
        return 0.0, Doubt.NONE
    _, cloud = parts.averager.draw(key_draw, theta, walkers)
    if parts.ansatz.origin == "given":
        return distance_from_thermal_state(parts.ansatz.hamiltonian, parts.trial, theta, cloud, beta, parts.comm)
    less, more = (ravel_pytree(parts.ansatz.start(key_params, x * beta))[0] for x in (0.999, 1.001))  # random numbers are the same
    return float(beta / 4 * parts.start_rate_error(theta, (more - less) / (1e-3 * beta), cloud)), Doubt.NONE


def _integrate(parts: Parts, key: jax.Array, at: Evolution, beta: float) -> tuple[Evolution, Info]:
    """One step in imaginary time, or a shorter one to be tried next."""
    options, n = parts.options, parts.ansatz.hamiltonian.n_sites
    limit = options.max_distance / np.sqrt(max(n * at.path.variance, 1e-12))
    h = min(at.step, limit, np.inf if parts.ansatz.origin == "infinite" else 0.35 * at.beta / 2)
    target = at.roots.next_stop(at.beta, beta)
    left = max((target - at.clock.now) / at.clock.pace, MIN_STEP * beta) / 2
    h = left if left <= h else min(h, left / 2) if left < 2 * h else h
    if h < MIN_STEP * beta and left > MIN_STEP * beta:
        raise NumericsError(f"The evolution is stuck at beta = {at.beta:.6g}: steps have shrunk to {h:.1e}.")
    walkers, cloud = parts.averager.draw(key, at.theta, at.walkers)
    done: Step = jax.device_get(parts.step(at.theta, cloud, h, at.rate))
    finite = np.isfinite(done.theta).all() and np.isfinite(done.energy)
    if not (finite and done.overlap > MIN_OVERLAP and done.error <= 2 * options.tolerance):
        at = at._replace(walkers=walkers, n_rejected=at.n_rejected + 1, step=h / 4 if not done.error < np.inf else h / 2)
        return at, Info(0.9 * at.beta / beta, f"beta {at.beta:.4g}, step rejected", None)
    # what r^2 is more than the share that is missed at every step, which the clock has: the rate took chance for the rule
    chance = h**2 * n * done.variance * max(float(done.residual - done.slow), 0.0) if parts.averager.sampled else 0.0
    at = at._replace(distance=float(np.sqrt(at.distance**2 + done.error**2 + chance)))
    energy_error, slow_error, fall_error = (
        float(x) * parts.averager.sampled for x in (done.energy_error, done.slow_error, done.fall_error)
    )
    longer = next_step_size(h, float(done.error), options.tolerance, TABLEAUS[options.integrator].order)
    clock = at.clock.stepped(done.slow, 2 * h)
    at = at._replace(
        theta=done.theta,
        beta=target if h == left else min(target, clock.now),
        clock=clock,
        step=float(max(at.step if h < at.step else 0.0, longer)),
        rate=done.rate if parts.averager.sampled else at.rate,
        path=extend(at.path, n, at.beta, done.energy, energy_error, done.variance, done.slow, slow_error, *at.off, fall_error),
        residual=float(done.residual),
        unsolved=max(at.unsolved, float(done.unsolved)),
        n_steps=at.n_steps + 1,
        walkers=parts.averager.adapt(walkers, done.count),
    )
    return _note(at), Info(0.9 * at.beta / beta, _message(at), None)


def _note(at: Evolution) -> Evolution:
    """With the network kept, if it is one that will be joined."""
    facts = at.path.systematic, at.off[0] + at.path.share, at.residual
    return at._replace(roots=at.roots.noted(at.beta, at.theta, at.path.beta, facts))


def _observe(parts: Parts, key: jax.Array, at: Evolution, beta: float) -> tuple[Evolution, Info]:
    """A share of the measurement; the point, when it is complete."""
    joins = parts.joining
    root = at.roots.of(beta, joins.copies) if at.residual >= joins.needed else None
    if root and joins.round:
        share = joins.share(parts.ansatz.hamiltonian, beta, at.rings, root[1][0], at.path.systematic, parts.comm)
        if share < 1:
            at = at._replace(rings=joins.round(key, root[0], at.rings))
            return at, Info(0.9 + 0.05 * share, f"{joins.copies} networks joined", None)
    walkers, averages, share = parts.averager.observe(key, at.theta, at.walkers, beta)
    at = at._replace(walkers=walkers)
    if share < 1:
        return at, Info(0.95 + 0.05 * share, f"error {float(averages.estimates['energy'].error):.1e}", None)
    n, e, c = parts.ansatz.hamiltonian.n_sites, averages.estimates["energy"], averages.estimates["specific_heat"]
    variance = max(float(c.mean), 0.0) / beta**2
    slow = at.path.slow, at.path.slow_error
    at = at._replace(path=extend(at.path, n, beta, e.mean, e.error, variance, *slow, *at.off, float(c.error) / beta**2))
    at, gap = _note(at), unexplained(at.path)
    observables, residual, joined = _observables(averages, at, beta, gap), at.residual, {}
    systematic = float(np.hypot(at.path.systematic, gap))
    if root:
        simple, (theta, facts) = parts.ansatz.hamiltonian, root
        if joins.round:
            doubled = ring_averages(simple, beta, at.rings, parts.comm)
            at = at._replace(rings=at.rings._replace(count=0, sums={}))
        else:
            doubled = dense_averages(simple, parts.trial, theta, beta, joins.copies)
        observables, residual, joined = combined(Averages(observables, averages.spread), systematic, residual, doubled, facts, joins.copies)
    doubts = Doubt(int(at.doubts)) | doubts_of_chains(averages.estimates)
    surely = min(residual, slow[0] + 2 * slow[1]) if parts.averager.sampled and not joined else residual
    if surely > MAX_RESIDUAL and surely * c.mean > FROZEN:
        doubts |= Doubt.STATE
    diagnostics = {
        **joined,
        "residual": at.residual,
        "systematic_error": systematic,
        "acceptance": walkers.acceptance if walkers else 1.0,
        "parameters": float(at.theta.size),
        "n_steps": float(at.n_steps),
        "n_rejected": float(at.n_rejected),
        "solver_error": at.unsolved,
        "doubts": float(doubts),
        "trusted": float(not doubts),
    }
    leaves = jax.tree_util.tree_leaves_with_path(parts.trial.unravel(at.theta))
    network = {"/".join(k.key for k in keys): np.asarray(x) for keys, x in leaves} | {"basis_signs": parts.ansatz.eta}
    return at, Info(1.0, _message(at), Point(observables, diagnostics, network))


def _observables(averages: Averages, at: Evolution, beta: float, gap: float) -> dict[str, Estimate]:
    """All estimates, with systematic errors, and what follows from ln Z: s = ln Z + beta e, f = -ln Z/beta, per site.

    Args:
        gap: what is `unexplained` about the energy; other averages are off by the same share of their spread, that of the energy taken
            as it was on average along the way.
    """
    path, e = at.path, averages.estimates["energy"]
    n_sites = np.shape(averages.estimates["correlation_zz"].mean)[0]
    gap_share = gap * np.sqrt(n_sites * beta / max(path.fallen, 1e-300)) if gap else 0.0
    # errors of one sign, as r^2 makes them, partly cancel in s: it is off by no more than either of its terms
    entropy_off = np.hypot(max(path.systematic_area, beta * path.systematic), beta * gap)
    chance = np.sqrt(path.log_z_variance)
    return {
        **with_systematic(
            averages,
            np.hypot(at.off[0] + path.share, gap_share),
            np.hypot(path.systematic, gap),
            np.hypot(path.slow, path.slow_error),
            2 * at.start,
        ),
        "entropy": Estimate(np.asarray(path.log_z + beta * e.mean), np.sqrt(chance**2 + (beta * e.error) ** 2 + entropy_off**2)),
        "free_energy": Estimate(
            np.asarray(-path.log_z / beta), np.asarray(np.sqrt(chance**2 + path.systematic_area**2 + (beta * gap / 2) ** 2) / beta)
        ),
    }


def _message(at: Evolution) -> str:
    start = ", the start is not the thermal state" if Doubt.STATE in Doubt(int(at.doubts)) else ""
    return f"beta {at.beta:.4g}, r^2 {at.residual:.1e}{start}"


def _pack(at: Evolution) -> State:
    parts = {name: getattr(at, name)._asdict() for name in ("path", "clock", "roots")}
    return {**at._asdict(), **parts, "walkers": pack(at.walkers), "rings": {} if at.rings is None else at.rings._asdict()}


def _unpack(state: State) -> Evolution:
    parts = {name: kind(**state[name]) for name, kind in (("path", Path), ("clock", Clock), ("roots", Roots))}
    rings = Rings(**state["rings"]) if state["rings"] else None
    return Evolution(**{**state, **parts, "walkers": unpack(state["walkers"]), "rings": rings})

"""The variational method: the parameters of a purified neural state follow imaginary time, tau = beta/2, by stochastic reconfiguration."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, NumericsError
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.thermodynamics import high_temperature_moments
from thermodbm.evolve import measurement as measure
from thermodbm.evolve.enumeration import all_configurations
from thermodbm.evolve.integrators import TABLEAUS, next_step_size
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import SamplingOptions, VariationalOptions
from thermodbm.evolve.path import INFINITE_TEMPERATURE, extend
from thermodbm.evolve.start import high_temperature_couplings, pair_start_params, remove_signs, rotated_couplings, start_params
from thermodbm.evolve.step import evolution_step, local_energy, rate_error
from thermodbm.models import SpinHamiltonian
from thermodbm.network.ansatz import PurifiedDBM
from thermodbm.network.composition import Product, Superposition
from thermodbm.network.permanent import PairPermanent
from thermodbm.network.symmetry import spin_flip_symmetric, symmetry_group
from thermodbm.network.trial import trial_state
from thermodbm.sampling.configurations import random_configurations
from thermodbm.sampling.metropolis import BLOCK, antiparallel_flips, local_ratios, metropolis, metropolis_moves

MIN_OVERLAP = 0.3
"""A step after which fewer of the samples still count is taken again with half the size."""
MIN_POWER, MIN_COUNT = 1.0, 0.5
"""The evolution draws from |Psi|^power and reweights, so that rare configurations, by which parameters move at high temperature, are
seen; the least power from 1 to 2 is taken at which this share of the samples counts."""
N_SETTLE = 8
"""Rounds of `n_sweeps` before samples of another law are used."""
MAX_PAIRED = 24
"""Sites up to which permanents, whose cost doubles with every two sites, are offered."""
PAIRED_BY_DEFAULT = range(10, 17)
"""Numbers of sites for which they are the default: fewer need no better trial state, more take long."""
MIN_STEP = 1e-8
"""A step shorter than this share of beta means that the evolution is stuck."""


def default_module(hamiltonian: SpinHamiltonian, options: VariationalOptions) -> nn.Module:
    """The trial state that `options` ask for, with the symmetries of the couplings.

    Raises:
        InputError: as `check_ansatz`.
    """
    n, paired = hamiltonian.n_sites, hamiltonian.conserves_sz and options.start == "trotter"
    ansatz = options.ansatz
    if ansatz == "auto":
        ansatz = "pairs" if paired and n in PAIRED_BY_DEFAULT else "rbm"
    exchange = options.exchange and options.start == "trotter"
    group = symmetry_group(hamiltonian, translations=options.translations, point_group=options.point_group, exchange=exchange)
    n_deep = options.layers if ansatz == "dbm" else 0
    per_filter = (n_deep + 1) * len(group.perm)
    fours = 0 if ansatz == "jastrow" else -(-options.alpha * 2 * n // (4 * per_filter))
    even = spin_flip_symmetric(hamiltonian)
    network = PurifiedDBM(group, 4 * fours, n_deep + 1, n_deep, even=even)
    if ansatz != "pairs":
        return network
    check_ansatz(hamiltonian, options)
    return Superposition((Product((PairPermanent(group), PurifiedDBM(group, 0, even=even))), network))


def check_ansatz(hamiltonian: SpinHamiltonian, options: VariationalOptions) -> None:
    """Complain of a trial state that does not fit the model.

    Raises:
        InputError: for pairs of defects where the magnetisation of spins and ancillas is not conserved, or of too many sites.
    """
    paired = hamiltonian.conserves_sz and options.start == "trotter" and 2 <= hamiltonian.n_sites <= MAX_PAIRED
    if options.ansatz == "pairs" and not paired:
        expected = f"2 to {MAX_PAIRED} sites, a model that conserves the magnetisation, and start = trotter, for ansatz = pairs"
        found = f"{hamiltonian.n_sites} sites, {hamiltonian.model}, start = {options.start}"
        raise InputError("method.ansatz", expected=expected, found=found)


def largest_coupling(hamiltonian: SpinHamiltonian) -> float:
    """The largest coupling or field in the units of the model's own convention."""
    leaves = (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field)
    exchange = 4.0 if hamiltonian.conserves_sz else 1.0
    largest = max(float(jnp.max(jnp.abs(x), initial=0.0)) * f for x, f in zip(leaves, (exchange, exchange, 1.0, 1.0), strict=True))
    return largest or 1.0


def variational_method(
    hamiltonian: SpinHamiltonian,
    options: VariationalOptions,
    sampling: SamplingOptions,
    comm: Comm = SERIAL,
    module: nn.Module | None = None,
    params: dict | None = None,
) -> ThermalMethod:
    """d theta/d tau = -S^-1 F from a small beta_0 through the temperatures, hot to cold.

    The specific heat is beta^2 Var(e_loc)/N; ln Z, and the entropy with it, is N ln 2 less the integral of E along the way. The
    susceptibility is given where the magnetisation is conserved: no equal-time average is the Kubo response of other models.

    The residual r^2 of each step is logged. The `systematic_error` of the energy per site is its effect, the integral of Var r^2/N over
    beta, plus 2 D sqrt(Var)/N, the most by which states a small distance D apart differ. D joins, as independent errors, those of the
    analytic start, of the integrator, and of sampled rates, r sqrt(Var) each; it cannot know of a start that the user gives. Sampled
    steps draw from |Psi|^p and reweight, and measure r^2 on configurations that the rate has not seen.

    Args:
        module: any Flax module (..., 2 n_sites) of spins and ancillas +-1 to the complex log-amplitude (...), with parameters that are
            all real, or all complex and holomorphic. It starts at `params`, which describe the state at beta_0 over the largest
            coupling. By default `default_module`, at the analytic state.

    Raises:
        InputError: for a module without parameters, or a space too large to enumerate.

    Source: Nomura, Yoshioka, Nori, PRL 127, 060601 (2021), Method II.
    """
    if (module is None) != (params is None):
        raise InputError("module", expected="a module together with the parameters it starts from", found="only one of the two")
    n, custom = hamiltonian.n_sites, module is not None
    rotated = options.start == "rotated" and not custom
    conserve_sz = hamiltonian.conserves_sz and not rotated
    simple = remove_signs(hamiltonian)
    scale = largest_coupling(hamiltonian)
    positive = not rotated and bool(np.all(np.asarray(simple.xy) <= 0)) and bool(np.all(np.asarray(simple.x_field) >= 0))
    module = module or default_module(simple, options)

    def initial_params(key: jax.Array, beta: float) -> dict:
        if isinstance(module, Superposition):
            return pair_start_params(key, module, simple, beta, options.noise, positive=positive)
        couplings = rotated_couplings(simple) if rotated else high_temperature_couplings(simple, beta)
        return start_params(key, module, couplings, options.noise, positive=positive)

    example = params or initial_params(jax.random.key(0), options.beta_0 / scale)
    trial, flat = trial_state(module, example), ravel_pytree(example)[0]
    n_params = flat.size
    exact_sum = all_configurations(simple, options, conserve_sz=conserve_sz, symmetric=not custom)
    sampled = exact_sum is None
    paired = isinstance(module, Superposition) and not custom
    shift = (1e-4 if paired else 1e-6) if sampled and conserve_sz else 1e-7
    options = replace(
        options,
        diag_shift=shift if options.diag_shift is None else options.diag_shift,
        tolerance=options.tolerance or (1e-4 if sampled else 3e-5),
    )
    beta_0 = options.beta_0 / scale
    n_walkers = _walkers_per_rank(options, n_params, comm)
    ones = jnp.ones(n_walkers)
    n_rounds = -(-sampling.n_samples // (n_walkers * comm.size))

    step = evolution_step(simple, trial, options, comm)
    start_rate_error = rate_error(simple, trial, comm)
    e_loc = local_energy(simple, trial)
    diagonal = measure.diagonal_observables(simple)
    controls, pair_flips = measure.heat_bath_controls(simple), antiparallel_flips(n)
    moves = metropolis_moves(simple, conserve_sz=conserve_sz)

    @jax.jit
    def move(key: jax.Array, theta: jax.Array, walkers: jax.Array, power: float) -> tuple[jax.Array, jax.Array]:
        n_moves = options.n_sweeps * 2 * n
        walkers, accepted = metropolis(jax.random.fold_in(key, comm.rank), trial, theta, walkers, moves, n_moves, power)
        return walkers, comm.sum(accepted) / comm.size

    def settle(key: jax.Array, theta: jax.Array, walkers: jax.Array, power: float) -> jax.Array:
        for k in range(N_SETTLE):
            walkers, _ = move(jax.random.fold_in(key, k), theta, walkers, power)
        return walkers

    @jax.jit
    def values(theta: jax.Array, walkers: jax.Array) -> dict[str, jax.Array]:
        energies, ratios = e_loc(theta, walkers)
        zero_mean = controls(walkers[:, :n], ratios, local_ratios(trial, theta, walkers, pair_flips))
        return {**measure.energy_observables(simple, energies, ratios), **diagonal(walkers[:, :n]), "controls": zero_mean}

    @jax.jit
    def exact_values(theta: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        log_weight = 2 * trial.log_amplitude(theta, exact_sum.visible).real + jnp.log(exact_sum.multiplicity)
        energies, ratios = e_loc(theta, exact_sum.visible)
        return jax.nn.softmax(log_weight), {**measure.energy_observables(simple, energies, ratios), **exact_sum.diagonal(diagonal)}

    def first_walkers(key: jax.Array, theta: jax.Array) -> jax.Array:
        walkers = random_configurations(jax.random.fold_in(jax.random.fold_in(key, 1), comm.rank), n_walkers, n)
        return settle(jax.random.fold_in(key, 2), theta, walkers, MIN_POWER)

    def start_error(key: jax.Array, beta: float, walkers: jax.Array | None) -> float:
        """Distance of the start from the exact state: that of its motion with beta from imaginary time, which grows linearly from 0."""
        if custom or rotated:  # nothing is known of the start, or it is exact
            return 0.0
        theta, less, more = (ravel_pytree(initial_params(jax.random.fold_in(key, 0), x * beta))[0] for x in (1.0, 0.999, 1.001))
        if sampled:
            visible, log_weight = walkers, -MIN_POWER * trial.log_amplitude(theta, walkers).real
        else:
            visible, log_weight = exact_sum.visible, jnp.log(exact_sum.multiplicity)
        return float(beta / 4 * start_rate_error(theta, (more - less) / (1e-3 * beta), visible, log_weight))

    def start_at(key: jax.Array, beta: float) -> State:
        theta = ravel_pytree(params or initial_params(jax.random.fold_in(key, 0), beta))[0]
        walkers = first_walkers(key, theta) if sampled else None
        state = {
            "theta": theta,
            "beta": 0.0 if rotated else beta,
            "step": 0.35 * beta / 2,
            "path": dict(INFINITE_TEMPERATURE, variance=high_temperature_moments(hamiltonian)[0]),
            "rate": np.full(n_params, np.nan, flat.dtype),
            "distance": start_error(key, beta, walkers),
            "residual": 0.0,
            "acceptance": 1.0,
            "n_steps": 0,
            "n_rejected": 0,
        }
        if sampled:
            state |= {"walkers": walkers, "power": MIN_POWER}
        return state

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        if beta < state["beta"] * (1 - 1e-12):
            if custom or state["n_steps"]:
                raise InputError("temperature", expected=f"beta of at least {state['beta']:.4g}, where the evolution is", found=beta)
            state = start_at(key, beta)
        if state["beta"] < beta * (1 - 1e-12):
            return integrate(key, state, beta)
        return (observe_sampled if sampled else observe_exactly)(key, state, beta)

    def integrate(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        state, at = dict(state), state["beta"]
        if sampled:
            state["walkers"], accepted = move(key, state["theta"], state["walkers"], state["power"])
            state["acceptance"] = float(accepted)
        limit = options.max_distance / np.sqrt(max(n * state["path"]["variance"], 1e-12))
        h = min(state["step"], limit, np.inf if rotated else 0.35 * at / 2)
        rest = (beta - at) / 2
        h = rest if rest <= h else min(h, rest / 2) if rest < 2 * h else h
        if h < MIN_STEP * beta and rest > MIN_STEP * beta:
            raise NumericsError(f"The evolution is stuck at beta = {at:.6g}: steps have shrunk to {h:.1e}.")
        configurations = (state["walkers"], h, state["power"], ones) if sampled else (exact_sum.visible, h, 0.0, exact_sum.multiplicity)
        done = jax.device_get(step(state["theta"], *configurations, state["rate"]))
        finite = np.isfinite(done.theta).all() and np.isfinite(done.energy)
        good = finite and done.overlap > MIN_OVERLAP and done.error <= 2 * options.tolerance
        if not good:
            state |= {"n_rejected": state["n_rejected"] + 1, "step": h / 4 if not done.error < np.inf else h / 2}
            return state, Info(0.9 * at / beta, f"beta {at:.4g}, step rejected", None)
        tableau = TABLEAUS[options.integrator]
        missed = n * done.variance * done.residual if sampled else 0.0
        if sampled:
            less = done.count / (n_walkers * comm.size) > MIN_COUNT
            state["power"] = min(2.0, max(MIN_POWER, state["power"] + (-0.05 if less else 0.1)))
        state |= {
            "theta": done.theta,
            "rate": done.rate if sampled else state["rate"],
            "distance": float(np.sqrt(state["distance"] ** 2 + done.error**2 + h**2 * missed)),
            "beta": beta if h == rest else at + 2 * h,
            "step": max(
                state["step"] if h < state["step"] else 0.0, next_step_size(h, float(done.error), options.tolerance, tableau.order)
            ),
            "path": extend(state["path"], at, done.energy, done.energy_error if sampled else 0.0, done.variance, done.residual),
            "residual": float(done.residual),
            "n_steps": state["n_steps"] + 1,
        }
        return state, Info(0.9 * state["beta"] / beta, f"beta {state['beta']:.4g}, r^2 {state['residual']:.1e}", None)

    def observe_exactly(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        return finish(state, beta, measure.exact_estimates(simple, beta, *exact_values(state["theta"]), state["distance"]))

    def observe_sampled(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        state = dict(state)
        samples = state.pop("samples") if "samples" in state else settle(jax.random.fold_in(key, 0), state["theta"], state["walkers"], 2.0)
        samples, accepted = move(jax.random.fold_in(key, N_SETTLE), state["theta"], samples, 2.0)
        found = values(state["theta"], samples)
        tally = measure.add_to_tally(measure.Tally(**state.pop("tally")) if "tally" in state else measure.empty_tally(found), found)
        estimates = measure.walker_estimates(simple, beta, tally, comm, state["distance"])
        error = float(estimates["energy"].error)
        done = error <= sampling.target_error if sampling.target_error else tally.count >= n_rounds
        if done:
            return finish(state, beta, estimates)
        state |= {"tally": tally._asdict(), "samples": samples, "acceptance": float(accepted)}
        share = (sampling.target_error / error) ** 2 if sampling.target_error else int(tally.count) / n_rounds
        return state, Info(0.9 + 0.1 * share, f"error {error:.1e}", None)

    def finish(state: State, beta: float, estimates: dict[str, Estimate]) -> tuple[State, Info]:
        e, c = estimates["energy"], estimates["specific_heat"]
        path = extend(state["path"], beta, e.mean, e.error, c.mean / beta**2, state["residual"])
        systematic = path["systematic"] + 2 * state["distance"] * np.sqrt(path["variance"] / n)
        log_z, log_z_error = path["log_z"], np.hypot(np.sqrt(path["log_z_variance"]), beta * systematic)
        observables = {
            **estimates,
            "entropy": Estimate(log_z + beta * e.mean, np.hypot(log_z_error, beta * e.error)),
            "free_energy": Estimate(np.asarray(-log_z / beta), np.asarray(log_z_error / beta)),
        }
        diagnostics = {
            "residual": state["residual"],
            "systematic_error": systematic,
            "acceptance": state["acceptance"],
            "parameters": float(n_params),
            "n_steps": float(state["n_steps"]),
            "n_rejected": float(state["n_rejected"]),
        }
        network = {
            "/".join(k.key for k in keys): np.asarray(x) for keys, x in jax.tree_util.tree_leaves_with_path(trial.unravel(state["theta"]))
        }
        return {**state, "path": path}, Info(1.0, f"r^2 {state['residual']:.1e}", Point(observables, diagnostics, network))

    return ThermalMethod(init=lambda key: start_at(key, beta_0), advance=advance)


def _walkers_per_rank(options: VariationalOptions, n_params: int, comm: Comm) -> int:
    total = options.n_walkers or max(4096, min(16 * n_params, 16384))
    per_rank = -(-total // comm.size)
    return per_rank if per_rank <= BLOCK else -(-per_rank // BLOCK) * BLOCK

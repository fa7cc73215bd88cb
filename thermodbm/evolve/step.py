"""One integration step of the parameters in imaginary time, on given configurations, and the error of a rate."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermodbm.comm import SERIAL, Comm
from thermodbm.evolve.integrators import TABLEAUS, runge_kutta_step
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.sr import SRInfo, center, choose_solver, direction_by_kernel, metric_norm, residual, sr_direction
from thermodbm.models import SpinHamiltonian
from thermodbm.network.trial import TrialState
from thermodbm.sampling.metropolis import hamiltonian_patterns, local_ratios


class Step(NamedTuple):
    """One integration step; what is known at its beginning, all per site."""

    theta: jax.Array  # (P,) at its end
    error: jax.Array  # estimated error of theta, as a distance of normalised states
    energy: jax.Array
    energy_error: jax.Array
    variance: jax.Array  # Var(H)/N = -de/dbeta of the exact evolution
    residual: jax.Array  # r^2 of the rate that the last step ended with, on configurations that it has not seen
    rate: jax.Array  # (P,) d theta/d tau of the last stage, for the next step to try
    count: jax.Array  # effective number of samples, of all ranks
    overlap: jax.Array  # share of them that still count in the last stage


def local_energy(hamiltonian: SpinHamiltonian, trial: TrialState) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """(theta, visible (n, V)) -> total e_loc (n,) = <v|H (x) 1|Psi>/<v|Psi>, and the ratios (n, K) of `hamiltonian_patterns`."""
    patterns, elements = hamiltonian_patterns(hamiltonian)

    def e_loc(theta: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
        ratios = local_ratios(trial, theta, visible, patterns)
        return hamiltonian.diagonal_energy(visible[:, : hamiltonian.n_sites]) + ratios @ elements, ratios

    return e_loc


def evolution_step(hamiltonian: SpinHamiltonian, trial: TrialState, options: VariationalOptions, comm: Comm) -> Callable[..., Step]:
    """A jitted function (theta, visible (n, V), h, power, multiplicity (n,), rate (P,)) -> `Step` of size h in tau.

    All stages are evaluated on the same configurations, reweighted to |Psi|^2, so that the error of the step is seen through the noise.
    The configurations are samples of |Psi(theta)|^power, each counted so many times; all there are have power 0. The given rate is that
    of the last stage of the step before, which the first-same-as-last rule evaluates at theta: its residual on new samples tells what
    the parameters miss, and what they took for the rule that was chance. NaN where there is none.
    """
    e_loc, n = local_energy(hamiltonian, trial), hamiltonian.n_sites

    def step(theta: jax.Array, visible: jax.Array, h: jax.Array, power: jax.Array, multiplicity: jax.Array, previous: jax.Array) -> Step:
        def log_modulus(theta: jax.Array) -> jax.Array:
            return trial.log_amplitude(theta, visible).real

        log_density = power * log_modulus(theta) - jnp.log(multiplicity)
        log_density += common_maximum(2 * log_modulus(theta) - log_density, comm)

        def rate(theta: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            weights = jnp.exp(2 * log_modulus(theta) - log_density)
            direction, info = natural_direction(trial, theta, visible, e_loc(theta, visible)[0], weights, options, comm)
            return -direction, (-direction, info.n_eff)

        new, error, (rates, counts) = runge_kutta_step(TABLEAUS[options.integrator], rate, theta, h)
        weights = jnp.exp(2 * log_modulus(theta) - log_density)
        derivs, real_params = trial.log_derivs(theta, visible), not jnp.iscomplexobj(theta)
        system, first = center(derivs, e_loc(theta, visible)[0], weights, comm, real_params=real_params)
        known = jnp.where(jnp.isfinite(previous).all(), previous, rates[0])
        return Step(
            theta=new,
            error=metric_norm(system, error, comm),
            energy=first.energy / n,
            energy_error=jnp.sqrt(first.variance / first.n_eff) / n,
            variance=first.variance / n,
            residual=jnp.minimum(residual(system, -known, first.variance, comm), 1.0),
            rate=rates[-1],
            count=first.n_eff,
            overlap=counts[-1] / first.n_eff,
        )

    return jax.jit(step)


def natural_direction(
    trial: TrialState,
    theta: jax.Array,
    visible: jax.Array,
    energies: jax.Array,
    weights: jax.Array,
    options: VariationalOptions,
    comm: Comm = SERIAL,
) -> tuple[jax.Array, SRInfo]:
    """S^-1 F of a trial state from configurations (n, V), their local energies and weights (n,): by its kernel O O* where it has one, and
    all samples are here and fewer than the parameters, else by its log-derivatives O."""
    if trial.kernel is not None and comm.size == 1 and choose_solver(options, len(visible), len(theta), comm) == "minsr":
        _, pull_back = jax.vjp(lambda t: trial.log_amplitude(t, visible), theta)
        kernel = trial.kernel(theta, visible)
        return direction_by_kernel(kernel, lambda x: pull_back(x)[0], len(theta), energies, options, weights)
    derivs = trial.log_derivs(theta, visible)
    return sr_direction(derivs, energies, options, comm, weights=weights, real_params=not jnp.iscomplexobj(theta))


def common_maximum(log_weight: jax.Array, comm: Comm) -> jax.Array:
    """A number that all ranks agree on and that keeps the exponential of what is left from overflow."""
    return comm.sum(jnp.max(log_weight)) / comm.size


def rate_error(hamiltonian: SpinHamiltonian, trial: TrialState, comm: Comm) -> Callable[..., jax.Array]:
    """A jitted function (theta, rate, visible, log_weight) -> |d Psi/d tau + (H - E) Psi| for d theta/d tau = rate and normalised Psi.

    log_weight (n,) is that by which |Psi|^2 is reweighted: minus the logarithm of the density that the configurations were drawn from.
    """
    e_loc = local_energy(hamiltonian, trial)

    @jax.jit
    def norm(theta: jax.Array, rate: jax.Array, visible: jax.Array, log_weight: jax.Array) -> jax.Array:
        log_weight = log_weight + 2 * trial.log_amplitude(theta, visible).real
        weights = jnp.exp(log_weight - common_maximum(log_weight, comm))
        system, info = center(trial.log_derivs(theta, visible), e_loc(theta, visible)[0], weights, comm)
        return jnp.sqrt(residual(system, -rate, info.variance, comm) * info.variance)

    return norm

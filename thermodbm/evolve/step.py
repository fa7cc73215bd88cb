"""One integration step of the parameters in imaginary time, on given configurations, and the error of a rate."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermodbm import compilation
from thermodbm.comm import SERIAL, Comm
from thermodbm.evolve.integrators import TABLEAUS, runge_kutta_step
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.sr import SRInfo, choose_solver, direction_by_kernel, norm, sr_direction, tangent
from thermodbm.models import SpinHamiltonian
from thermodbm.network.ansatz.trial import TrialState
from thermodbm.sampling.metropolis import hamiltonian_patterns, local_everything, local_ratios, log_neighbour_weights


class Cloud(NamedTuple):
    """Configurations to average over: samples of |Psi|^power, each counted so many times; all that there are have power 0."""

    visible: jax.Array  # (n, V), of this rank
    multiplicity: jax.Array  # (n,)
    power: float
    drawn: jax.Array | None = None  # (n, V) samples of |Psi|^power, if `visible` are random neighbours of these by moves of H, or they


class Step(NamedTuple):
    """One integration step; what is known at its beginning, all per site."""

    theta: jax.Array  # (P,) at its end
    error: jax.Array  # estimated error of theta, as a distance of normalised states
    energy: jax.Array
    energy_error: jax.Array
    variance: jax.Array  # Var(H)/N = -de/dbeta of the exact evolution
    residual: jax.Array  # r^2 of the rate that the last step ended with, on configurations that it has not seen
    slow: jax.Array  # of the same rate and configurations, the share by which the energy falls slower than Var(H) says: r^2 but for chance
    slow_error: jax.Array  # statistical
    fall_error: jax.Array  # statistical, of Var(H)/N (1 - slow)
    rate: jax.Array  # (P,) d theta/d tau of the last stage, for the next step to try
    count: jax.Array  # effective number of samples, of all ranks
    overlap: jax.Array  # share of them that still count in the last stage
    unsolved: jax.Array  # the largest `SRInfo.unsolved` of its stages


class _Stage(NamedTuple):
    rate: jax.Array
    energies: jax.Array  # (n,)
    weights: jax.Array  # (n,)
    info: SRInfo


def devices_share(comm: Comm) -> bool:
    """Whether all devices of this process take part in what walkers do.

    Not among several ranks, whose sums stand in the same programs. Nor on CPUs: the sums over devices that such a program needs there end
    the process when a busy machine holds one of its threads back for 40 seconds, and matrix products use all cores anyway.
    """
    return comm.size == 1 and jax.default_backend() != "cpu"


def local_energy(
    hamiltonian: SpinHamiltonian, trial: TrialState, comm: Comm = SERIAL
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """(theta, visible (n, V)) -> total e_loc (n,) = <v|H (x) 1|Psi>/<v|Psi>, and the ratios (n, K) of `hamiltonian_patterns`."""
    patterns, elements = hamiltonian_patterns(hamiltonian)

    def e_loc(theta: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
        ratios = local_ratios(trial, theta, visible, patterns, share=devices_share(comm))
        return hamiltonian.diagonal_energy(visible[:, : hamiltonian.n_sites]) + ratios @ elements, ratios

    return e_loc


def evolution_step(
    hamiltonian: SpinHamiltonian, trial: TrialState, options: VariationalOptions, comm: Comm, *, brief: bool = False
) -> Callable[..., Step]:
    """A jitted function (theta, `Cloud`, h, rate (P,)) -> `Step` of size h in tau, the same on all ranks.

    All stages are evaluated on the same configurations, reweighted to |Psi|^2, so that the error of the step is seen through the noise.
    The given rate is that of the last stage of the step before, which the first-same-as-last rule evaluates at theta: its residual on
    new samples tells what the parameters miss, and what they took for the rule that was chance. NaN where there is none.

    Args:
        brief: compile for runs of seconds, see `compilation`.
    """
    n, spins = hamiltonian.n_sites, slice(hamiltonian.n_sites)
    e_loc, (patterns, elements) = local_energy(hamiltonian, trial, comm), hamiltonian_patterns(hamiltonian)
    log_weight = cloud_weights(hamiltonian, trial, comm)

    def step(theta: jax.Array, cloud: Cloud, h: jax.Array, previous: jax.Array) -> Step:
        visible = cloud.visible

        def log_modulus(theta: jax.Array) -> jax.Array:
            return trial.log_amplitude(theta, visible).real

        log_density = 2 * log_modulus(theta) - log_weight(theta, cloud)
        log_density += common_maximum(2 * log_modulus(theta) - log_density, comm)

        def rate(theta: jax.Array) -> tuple[jax.Array, _Stage]:
            if trial.kernel is not None:
                weights = jnp.exp(2 * log_modulus(theta) - log_density)
                energies = e_loc(theta, visible)[0]
                direction, info = natural_direction(trial, theta, visible, energies, weights, options, comm)
                return -direction, _Stage(-direction, energies, weights, info)
            done = local_everything(trial, theta, visible, patterns, share=devices_share(comm))
            weights = jnp.exp(2 * done.log_psi.real - log_density)
            energies = hamiltonian.diagonal_energy(visible[:, spins]) + done.ratios @ elements
            real_params = not jnp.iscomplexobj(theta)
            direction, info = sr_direction(done.log_derivs, energies, options, comm, weights=weights, real_params=real_params)
            return -direction, _Stage(-direction, energies, weights, info)

        new, error, stages = runge_kutta_step(TABLEAUS[options.integrator], rate, theta, h)
        first, last = (jax.tree.map(lambda x, k=k: x[k], stages) for k in (0, -1))
        known = jnp.where(jnp.isfinite(previous).all(), previous, first.rate)
        moved = tangent(lambda t: trial.log_amplitude(t, visible), theta, first.weights, comm)
        squared, along, along_error, fall_error = _mismatch(moved(known), first.energies, first.weights, comm)
        variance = jnp.maximum(first.info.variance, 1e-30)
        done = Step(
            theta=new,
            error=_apart(trial.log_amplitude(new, visible), trial.log_amplitude(new - error, visible), log_density, comm),
            energy=first.info.energy / n,
            energy_error=jnp.sqrt(first.info.variance / first.info.n_eff) / n,
            variance=first.info.variance / n,
            residual=jnp.minimum(squared / variance, 1),
            slow=along / variance,
            slow_error=along_error / variance,
            fall_error=fall_error / n,
            rate=last.rate,
            count=first.info.n_eff,
            overlap=last.info.n_eff / first.info.n_eff,
            unsolved=stages.info.unsolved.max(),
        )
        return from_first_rank(done, comm)

    return jax.jit(step, compiler_options=compilation.brief() if brief else None)


def _apart(log_psi: jax.Array, other: jax.Array, log_density: jax.Array, comm: Comm) -> jax.Array:
    """Distance of two normalised states, known on samples of a density (n,): the tangent of the angle between them.

    Not to first order in the parameters: along some of them Psi hardly moves, and these move far.
    """
    weights = jnp.exp(2 * log_psi.real - log_density)
    p = weights / comm.sum(weights.sum())
    change = jnp.exp(other - log_psi - comm.sum(p @ (other - log_psi)))
    mean = comm.sum(p @ change)
    return norm(jnp.sqrt(p) * (change - mean), comm) / jnp.abs(mean)


def _mismatch(moved: jax.Array, energies: jax.Array, weights: jax.Array, comm: Comm) -> tuple[jax.Array, ...]:
    """|x|^2, Re <x|(H - E) Psi>, its statistical error, and that of <(H - E)^2> less it, of x = d Psi/d tau + (H - E) Psi, normalised.

    Of the best rate that there is the first two are the same. Chance in a rate always adds to the first; to the second it adds as often
    as it takes.

    Args:
        moved: d ln Psi/d tau as `tangent` gives it, (n,).
        energies: total local energies (n,).
    """
    p = weights / comm.sum(weights.sum())
    fall = jnp.sqrt(p) * (energies - comm.sum(p @ energies))
    off = fall + moved

    def mean_and_error(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        terms = (x.conj() * fall).real
        mean = comm.sum(terms.sum())
        return mean, norm(terms - p * mean, comm)

    return norm(off, comm) ** 2, *mean_and_error(off), mean_and_error(moved)[1]


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


def from_first_rank(tree: Any, comm: Comm) -> Any:
    """What rank 0 holds, on all ranks: libraries may round differently on different machines, and paths of the parameters diverge."""
    return tree if comm.size == 1 else comm.sum(jax.tree.map(lambda x: x if comm.rank == 0 else jnp.zeros_like(x), tree))


def rate_error(hamiltonian: SpinHamiltonian, trial: TrialState, comm: Comm) -> Callable[..., jax.Array]:
    """A jitted function (theta, rate, `Cloud`) -> |x| of x = d Psi/d tau + (H - E) Psi, for d theta/d tau = rate and normalised Psi."""
    e_loc, log_weight = local_energy(hamiltonian, trial, comm), cloud_weights(hamiltonian, trial, comm)

    @partial(jax.jit, compiler_options=compilation.brief())
    def error(theta: jax.Array, rate: jax.Array, cloud: Cloud) -> jax.Array:
        weights = reweight(log_weight(theta, cloud), comm)
        moved = tangent(lambda t: trial.log_amplitude(t, cloud.visible), theta, weights, comm)(rate)
        return jnp.sqrt(_mismatch(moved, e_loc(theta, cloud.visible)[0], weights, comm)[0])

    return error


def cloud_weights(hamiltonian: SpinHamiltonian, trial: TrialState, comm: Comm) -> Callable[[jax.Array, Cloud], jax.Array]:
    """A function (theta, cloud) -> ln of weights (n,), of any norm, by which averages over the cloud are averages in |Psi|^2.

    Samples of |Psi|^2 alone do not see what happens next to a node, where Psi is small but (H - E) Psi is not: half of them are moved by H.
    """
    patterns = hamiltonian_patterns(hamiltonian)[0]

    def log_weight(theta: jax.Array, cloud: Cloud) -> jax.Array:
        drawn = cloud.visible if cloud.drawn is None else cloud.drawn
        found = (2 - cloud.power) * trial.log_amplitude(theta, drawn).real + jnp.log(cloud.multiplicity)
        if cloud.drawn is None:
            return found
        ratios = local_ratios(trial, theta, cloud.visible, patterns, share=devices_share(comm))
        return found + log_neighbour_weights(patterns, cloud.visible, ratios)

    return log_weight


def reweight(log_weight: jax.Array, comm: Comm) -> jax.Array:
    """Weights of no overflow."""
    return jnp.exp(log_weight - common_maximum(log_weight, comm))

"""Training of layered networks without sampling: couplings of few layers whose state is nearest to the thermal one.

The infidelity I = 1 - Tr(A R)^2/(Tr A^2 Tr R^2), R = exp(-beta H/2), is minimised over the logarithms theta of the free couplings. All that
is asked of a network is -ln(1 - I)/N and its gradient without rounding errors: the Hessian, and the derivative of the gradient by
beta, are differences of gradients of fourth order, exact to 1e-9, which spares the compilation of second derivatives.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.compilation import LIGHT
from thermodbm.errors import InputError
from thermodbm.exact.layered_ring import Modes, Momenta, log_fidelity, momenta, network_modes, thermal_modes

STEP = 0.01
"""Of differences, in the logarithms of couplings and of beta."""
FLOOR = 1e-10
"""Eigenvalues of the Hessian below this part of the largest are rounding errors, and along them the state does not change."""

TOGETHER = 8
"""Numbers of layers are filled up to multiples of this."""
LAYERS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of layers that are tried in turn."""

ROUNDING = 1e-15
"""Of the infidelity per site."""


class Layout(NamedTuple):
    """Free couplings of a network: K = scale exp(theta[index]), and where the scale is 0 the coupling is absent."""

    scale_K: np.ndarray  # (layers of K, classes)
    scale_g: np.ndarray  # (layers of g, classes)
    index_K: np.ndarray  # like scale_K, into theta
    index_g: np.ndarray


class Problem(NamedTuple):
    """A network of layers to be trained, and its `Layout`."""

    n_sites: int
    rate_K: np.ndarray  # (layers of K, classes): Trotter couplings at beta = 1
    rate_g: np.ndarray  # (layers of g, classes)
    scale_K: np.ndarray  # like rate_K
    scale_g: np.ndarray
    index_K: np.ndarray  # like rate_K, into theta
    index_g: np.ndarray
    value_and_grad: Callable[[np.ndarray, Any], tuple[jax.Array, jax.Array]]  # (theta, target) -> -ln(1 - I)/N, gradient
    target: Callable[[float], Any]  # beta -> what value_and_grad asks for
    curvature: Callable[[np.ndarray], np.ndarray] | None = None  # theta -> second derivatives where A is R; by differences without it
    drift: Callable[[Any], Any] | None = None  # target -> its derivative in beta; by differences without it


class Trained(NamedTuple):
    """A trained network at one temperature. Tfim: K are the exponents of sz sz of classes of bonds, g those of sx of classes of sites.
    Exchange: exp(-K sz sz - g (sx sx + sy sy)), a row a layer of gates, zero for the classes that are not in it."""

    beta: float
    K: np.ndarray  # from the ancillas to the spins
    g: np.ndarray
    K_beta: np.ndarray  # d/dbeta along the trained networks
    g_beta: np.ndarray
    infidelity: float  # per site, -ln(1 - I)/N
    converged: bool
    n_steps: int


def free_parameters(rate_K: np.ndarray, rate_g: np.ndarray, palindromic: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the free parameters of all couplings: those that are not zero, mirror images counted once."""
    labels = np.arange(rate_K.size).reshape(rate_K.shape), rate_K.size + np.arange(rate_g.size).reshape(rate_g.shape)
    if palindromic:
        labels = tuple(np.minimum(label, label[::-1]) for label in labels)
    present = np.concatenate([label[rate != 0] for label, rate in zip(labels, (rate_K, rate_g), strict=True)])
    known = np.unique(present)
    return tuple(np.where(rate != 0, np.searchsorted(known, label), 0) for label, rate in zip(labels, (rate_K, rate_g), strict=True))


def couplings_of(theta: jax.Array, problem: Problem | Layout) -> tuple[jax.Array, jax.Array]:
    """K and g."""
    K, g = (scale * np.exp(theta[index]) for scale, index in _halves(problem))
    return K, g


def parameters_of(problem: Problem | Layout, K: np.ndarray, g: np.ndarray) -> np.ndarray:
    """theta of given couplings; mirror images are averaged."""
    n_free = 1 + max(index[scale != 0].max(initial=-1) for scale, index in _halves(problem))
    total, count = np.zeros(n_free), np.zeros(n_free)
    for value, (scale, index) in zip((K, g), _halves(problem), strict=True):
        there = scale != 0
        np.add.at(total, index[there], np.log(np.maximum(np.abs(value[there] / scale[there]), 1e-12)))
        np.add.at(count, index[there], 1)
    return total / count


def ring_problem(n_sites: int, J: float, gamma: float, n_layers: int, palindromic: bool = True) -> Problem:
    """A uniform tfim ring of any length, by free fermions; compiled once for up to 64 sites and `TOGETHER` layers, and so on.

    Raises:
        InputError: for fewer than three sites, no layers, or J or gamma zero.
    """
    if n_sites < 3:
        raise InputError("n_sites", expected="at least 3", found=n_sites)
    if n_layers < 1:
        raise InputError("layers", expected="a positive integer", found=n_layers)
    if not (J and gamma):
        raise InputError("model", expected="J and gamma that are not zero", found=f"J = {J}, gamma = {gamma}")
    rate_K, rate_g = ising_trotter(np.array([J]), np.array([gamma]), n_layers)
    index_K, index_g = free_parameters(rate_K, rate_g, palindromic)
    empty = -n_layers % TOGETHER  # layers of couplings zero, so that few numbers of layers must be compiled
    rest = (np.sign(rate_K), np.sign(rate_g), index_K, index_g)
    layout = [np.pad(x[:, 0], (0, empty)) for x in rest]
    size, ks = 2 * (n_layers + empty) + 1, momenta(n_sites, -(-n_sites // 64) * 32)

    def value_and_grad(theta: np.ndarray, target: Any) -> tuple[jax.Array, np.ndarray]:
        value, gradient = _ring_loss(ks, np.pad(theta, (0, size - len(theta))), layout, target)
        return value, np.asarray(gradient)[: len(theta)]

    return Problem(n_sites, rate_K, rate_g, *rest, value_and_grad, lambda beta: _ring_target(ks, float(J), float(gamma), float(beta)))


def ising_trotter(J: np.ndarray, gamma: np.ndarray, n_layers: int) -> tuple[np.ndarray, np.ndarray]:
    """K (L + 1, classes) and g (L, classes) at beta = 1 of the symmetric Trotter product of L slices."""
    half = np.r_[0.5, np.ones(n_layers - 1), 0.5] / (2 * n_layers)
    return np.outer(half, J), np.outer(np.full(n_layers, 0.5 / n_layers), gamma)


def _halves(problem: Problem | Layout) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return (problem.scale_K, problem.index_K), (problem.scale_g, problem.index_g)


def _ring_infidelity(ks: Momenta, theta: jax.Array, layout: list[np.ndarray], target: Modes) -> jax.Array:
    scale_K, scale_g, index_K, index_g = layout
    modes = network_modes(ks, scale_K * jnp.exp(theta[index_K]), scale_g * jnp.exp(theta[index_g]))
    return -log_fidelity(ks, modes, target) / ks.n_sites


_ring_loss = jax.jit(jax.value_and_grad(_ring_infidelity, 1), compiler_options=LIGHT)
_ring_target = jax.jit(thermal_modes, compiler_options=LIGHT)


class Minimum(NamedTuple):
    """Where a descent ended."""

    theta: np.ndarray
    value: float
    converged: bool
    n_steps: int


Gradient = Callable[[np.ndarray], tuple[float, np.ndarray]]


def differences(gradient: Callable[[float], np.ndarray]) -> np.ndarray:
    """The derivative at 0, of fourth order in `STEP`."""
    near, far = gradient(STEP) - gradient(-STEP), gradient(2 * STEP) - gradient(-2 * STEP)
    return (8 * near - far) / (12 * STEP)


def hessian(value_and_grad: Gradient, theta: np.ndarray) -> np.ndarray:
    """Second derivatives from gradients."""
    rows = np.array([differences(lambda x, e=e: value_and_grad(theta + x * e)[1]) for e in np.eye(len(theta))])
    return (rows + rows.T) / 2


def minimise(
    value_and_grad: Gradient,
    theta: np.ndarray,
    tolerance: float = 1e-6,
    max_steps: int = 80,
    curvature: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Minimum:
    """Damped Newton steps (Gauss-Newton with a `curvature`) until the decrease to come is less than `tolerance` of the value, or lost in
    rounding errors.

    Steps that lead uphill, below zero (nothing but rounding errors does) or to what is no number are shortened; the end is never worse
    than the beginning. Cold frustrated rings (odd, J < 0) have a direction along which couplings grow without end until precision is
    lost: there it stops, not converged.
    """
    value, gradient = value_and_grad(theta)
    damping = 1e-3
    for step in range(max_steps):
        matrix = curvature(theta) if curvature else hessian(value_and_grad, theta)
        if not np.isfinite(matrix).all():
            return Minimum(theta, value, False, step)
        stiffness, axes = np.linalg.eigh(matrix)
        stiffness = np.abs(stiffness) + FLOOR * np.abs(stiffness).max() + 1e-300
        slope = axes.T @ gradient
        decrease = np.sum(slope**2 / stiffness) / 2
        if decrease < tolerance * value + 1e-19:
            return Minimum(theta, value, True, step)
        for _ in range(14):
            move = -axes @ (slope / (stiffness + damping * stiffness.max()))
            move /= max(1.0, np.abs(move).max())
            new_value, new_gradient = value_and_grad(theta + move)
            if np.isfinite(new_gradient).all() and -ROUNDING < new_value < value:
                break
            damping = max(damping * 10, 1e-9)
        else:
            return Minimum(theta, value, bool(decrease < 1e-3 * value + ROUNDING), step)
        predicted = -(gradient @ move + move @ matrix @ move / 2)
        good = value - new_value > 0.5 * predicted
        damping = damping / 20 if good else damping
        theta, value, gradient = theta + move, new_value, new_gradient
    return Minimum(theta, value, False, max_steps)


def train(problem: Problem, beta: float, starts: Sequence[np.ndarray] = (), tolerance: float = 1e-6) -> Trained:
    """The network nearest to the thermal state at beta.

    Args:
        starts: theta to begin from; the best of these and of the Trotter product is taken.

    Raises:
        InputError: for a beta that is not positive.
    """
    if not (np.isfinite(beta) and beta > 0):
        raise InputError("beta", expected="a finite number > 0", found=beta)

    here = gradient_at(problem, problem.target(beta))
    trotter = parameters_of(problem, beta * problem.rate_K, beta * problem.rate_g)
    values = [here(theta)[0] for theta in (trotter, *starts)]
    best = int(np.nanargmin([v if np.isfinite(v) else np.inf for v in values]))
    found = minimise(here, (trotter, *starts)[best], tolerance, curvature=problem.curvature)
    slope = motion(problem, beta, found.theta)
    K, g = couplings_of(found.theta, problem)
    return Trained(
        beta, K, g, K * slope[problem.index_K], g * slope[problem.index_g], max(found.value, 0.0), found.converged, found.n_steps
    )


def gradient_at(problem: Problem, target: Any) -> Gradient:
    """What is minimised for a target."""

    def value_and_grad(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = problem.value_and_grad(theta, target)
        return float(value), np.asarray(gradient, float)

    return value_and_grad


def motion(problem: Problem, beta: float, theta: np.ndarray) -> np.ndarray:
    """d theta/d beta of the minimum at theta."""
    target = problem.target(beta)
    drift = problem.drift and beta * problem.drift(target)
    warmer = (lambda x: target + x * drift) if problem.drift else lambda x: problem.target(beta * np.exp(x))
    cross = differences(lambda x: gradient_at(problem, warmer(x))(theta)[1]) / beta
    return followed(hessian(gradient_at(problem, target), theta), cross)


def followed(matrix: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """How a minimum of second derivatives `matrix` moves if its gradient moves by `cross`; not along directions that do not change it."""
    stiffness, axes = np.linalg.eigh(matrix)
    floor = FLOOR * np.abs(stiffness).max()
    return -axes @ ((axes.T @ cross) * stiffness / (stiffness**2 + floor**2 + 1e-300))


def sweep(problem: Problem, betas: Sequence[float], start: np.ndarray | None = None, tolerance: float = 1e-6) -> Iterator[Trained]:
    """Networks at all betas from the hottest on, each beginning from where its neighbour leads; `start` is a theta for the hottest."""
    starts = [] if start is None else [start]
    last: tuple[float, np.ndarray, np.ndarray] | None = None
    for beta in sorted(set(map(float, betas))):
        if last is not None:
            old, theta, slope = last
            starts = [theta, theta + np.clip(slope * old * np.log(beta / old), -1, 1)]
        yield (trained := train(problem, beta, starts, tolerance))
        theta = parameters_of(problem, trained.K, trained.g)
        slope = np.zeros(len(theta))
        for value, change, (rate, index) in zip((trained.K, trained.g), (trained.K_beta, trained.g_beta), _halves(problem), strict=True):
            there = rate != 0
            slope[index[there]] = change[there] / value[there]
        last = beta, theta, slope


def train_sweep(problem: Problem, betas: Sequence[float], tolerance: float = 1e-6) -> list[Trained]:
    """Networks at all betas, in the order given."""
    done = {trained.beta: trained for trained in sweep(problem, betas, None, tolerance)}
    return [done[float(beta)] for beta in betas]


def train_fewest(
    problem_of: Callable[[int], Problem], betas: Sequence[float], target_error: float, layers: Sequence[int] = LAYERS
) -> tuple[Problem, list[Trained]]:
    """The fewest layers whose `expected_error` is at most target_error at every beta, or the most allowed; each number of layers begins
    from the couplings of the one before, and is given up at the first beta that misses.
    """
    start = None
    for number in layers:
        problem, found = problem_of(number), []
        if start is not None:
            start = transfer(*start, problem)
        for trained in sweep(problem, betas, start):
            found.append(trained)
            if number != layers[-1] and expected_error(trained) > target_error:
                break
        start = problem, found[0].K, found[0].g
        if len(found) == len(set(map(float, betas))) and (number == layers[-1] or expected_error(found[-1]) <= target_error):
            break
    done = {trained.beta: trained for trained in found}
    return problem, [done[float(beta)] for beta in betas]


def expected_error(trained: Trained) -> float:
    """Of the order parameter or staggered structure factor per site: the root of the infidelity per site.

    Measured with 2 to 12 layers at beta from .5 to 8: their errors are .05 to 1.1 times this number; that of the energy is .1 to 20 times
    its square, and that of -beta^2 de/dbeta 1 to 50 times its square.
    """
    return float(np.sqrt(trained.infidelity))


def transfer(old: Problem, K: np.ndarray, g: np.ndarray, new: Problem) -> np.ndarray:
    """theta of another number of layers: the ratio to the Trotter couplings is a function of the relative position, class by class."""
    result = []
    for value, rate, new_rate in ((K, old.rate_K, new.rate_K), (g, old.rate_g, new.rate_g)):
        moved = np.zeros_like(new_rate)
        for c in range(rate.shape[1]):
            here, there = np.flatnonzero(rate[:, c]), np.flatnonzero(new_rate[:, c])
            if len(here) and len(there):
                ratio = np.interp((there + 0.5) / len(new_rate), (here + 0.5) / len(rate), value[here, c] / rate[here, c])
                moved[there, c] = new_rate[there, c] * ratio
                moved[there, c] *= value[here, c].sum() / moved[there, c].sum()
        result.append(moved)
    return parameters_of(new, *result)

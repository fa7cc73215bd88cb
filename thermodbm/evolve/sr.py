"""Stochastic reconfiguration: the change of parameters that follows (H - <H>) |Psi> best within the trial states.

    direction = S^-1 F,   S = <O* O> - <O*><O>,   F = <O* e_loc> - <O*><e_loc>,   O_k = d ln Psi / d theta_k

Imaginary time is then d theta/d tau = -direction. With real parameters S and F are replaced by their real parts. Sources: Sorella, PRL 80,
4558 (1998); Chen and Heyl, Nat. Phys. 20, 1476 (2024) for the form with a matrix as large as the number of samples.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import cho_factor, cho_solve
from jax.scipy.sparse.linalg import cg

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError
from thermodbm.evolve.options import VariationalOptions
from thermodbm.network.ansatz.rbm import gram

CG_TOLERANCE, CG_ITERATIONS = 1e-6, 1000
"""Where conjugate gradients stop; `SRInfo.unsolved` tells whether they came that far."""


class SRInfo(NamedTuple):
    """What else is known from the same averages."""

    energy: jax.Array  # <H>, total
    variance: jax.Array  # <|e_loc - <H>|^2>, total
    residual: jax.Array  # r^2, the share of the variance that the parameters cannot follow, 0 to 1
    n_eff: jax.Array  # effective number of samples, (sum w)^2 / sum w^2
    unsolved: jax.Array  # |S x - F| / |F| that conjugate gradients stopped at, with the shift in S; 0 for other solvers


class Centered(NamedTuple):
    """Log-derivatives and local energies less their means, times the root of each sample's weight: S = O* O, F = O* e."""

    log_derivs: jax.Array  # (n, P), or (2n, P) real: real and imaginary parts
    e_loc: jax.Array  # (n,), or (2n,)


def center(
    log_derivs: jax.Array, e_loc: jax.Array, weights: jax.Array, comm: Comm = SERIAL, *, real_params: bool = False
) -> tuple[Centered, SRInfo]:
    """Subtract weighted means over the samples of all ranks.

    Args:
        log_derivs: O_k, (n, P), of this rank's samples.
        e_loc: total local energies (n,).
        weights: weights of the samples (n,), of any norm.
    """
    sums = comm.sum((weights.sum(), (weights**2).sum(), weights @ log_derivs, weights @ e_loc))
    norm, squares, mean_derivs, mean_e = sums
    root = jnp.sqrt(weights / norm)
    derivs = root[:, None] * (log_derivs - mean_derivs / norm)
    e = root * (e_loc - mean_e / norm)
    variance = comm.sum(jnp.sum(jnp.abs(e) ** 2))
    if real_params:
        derivs, e = jnp.concatenate([derivs.real, derivs.imag]), jnp.concatenate([e.real, e.imag])
    return Centered(derivs, e), SRInfo((mean_e / norm).real, variance, jnp.ones(()), norm**2 / squares, jnp.zeros(()))


def sr_direction(
    log_derivs: jax.Array,
    e_loc: jax.Array,
    options: VariationalOptions,
    comm: Comm = SERIAL,
    *,
    weights: jax.Array | None = None,
    real_params: bool = False,
) -> tuple[jax.Array, SRInfo]:
    """S^-1 F from log-derivatives (n, P) and total local energies (n,), of samples with the given weights (n,), equal by default.

    Returns:
        direction (P,), which imaginary time follows downhill: d theta/d tau = -direction; and `SRInfo`.
    """
    weights = jnp.ones(len(e_loc)) if weights is None else weights
    centered, info = center(log_derivs, e_loc, weights, comm, real_params=real_params)
    direction, unsolved = _solve(centered, options, comm)
    return direction, info._replace(residual=residual(centered, direction, info.variance, comm), unsolved=unsolved)


def _solve(centered: Centered, options: VariationalOptions, comm: Comm) -> tuple[jax.Array, jax.Array]:
    """S^-1 F, regularised in units in which the diagonal of S is one; `VariationalOptions.solver` says how. And `SRInfo.unsolved`."""
    derivs, e = centered
    if choose_solver(options, *derivs.shape, comm) == "minsr":
        return _min_sr(derivs, e, options, comm), jnp.zeros(())
    return precondition(derivs, comm.sum(derivs.conj().T @ e), options, comm)


def precondition(derivs: jax.Array, force: jax.Array, options: VariationalOptions, comm: Comm = SERIAL) -> tuple[jax.Array, jax.Array]:
    """S^-1 force for any force (P,), with S = O* O of centred log-derivatives (n, P); and `SRInfo.unsolved`."""
    scale = _scale(derivs, comm)
    scaled, force = derivs * scale, force * scale
    kind = choose_solver(options, *derivs.shape, comm)
    if kind in ("cg", "minsr"):  # the latter needs a force of the form O* e
        apply = lambda x: comm.sum(scaled.conj().T @ (scaled @ x)) + _shift(options) * x  # noqa: E731
        x, _ = cg(apply, force, tol=CG_TOLERANCE, maxiter=CG_ITERATIONS)
        return scale * x, jnp.linalg.norm(apply(x) - force) / jnp.maximum(jnp.linalg.norm(force), 1e-300)
    qgt = comm.sum(gram(scaled.conj().T))
    if kind == "cholesky":
        return scale * cho_solve(cho_factor(qgt + _shift(options) * jnp.eye(len(force)), lower=True), force), jnp.zeros(())
    values, vectors = jnp.linalg.eigh(qgt)
    inverse = jnp.where(values > options.cutoff * values[-1], 1 / jnp.maximum(values, 1e-300), 0)
    return scale * (vectors @ (inverse * (vectors.conj().T @ force))), jnp.zeros(())


def _scale(derivs: jax.Array, comm: Comm) -> jax.Array:
    """1 / sqrt(S_kk), with a floor that keeps parameters on which Psi does not (yet) depend from being blown up."""
    diagonal = comm.sum(jnp.sum(jnp.abs(derivs) ** 2, axis=0))
    return 1 / jnp.sqrt(diagonal + 1e-14 * jnp.max(diagonal) + 1e-30)


def _shift(options: VariationalOptions) -> float:
    return options.cutoff if options.diag_shift is None else options.diag_shift


def check_solver(options: VariationalOptions) -> None:
    """Complain of a solver that cannot do without a shift: S is singular wherever two parameters have the same effect.

    Raises:
        InputError: for cholesky or minsr with diag_shift = 0.
    """
    if options.diag_shift == 0 and options.solver in ("cholesky", "minsr"):
        raise InputError(
            "method.diag_shift",
            expected=f"a positive number for solver = {options.solver}",
            found=0,
            hint="Without a shift use pinv or cg.",
        )


def choose_solver(options: VariationalOptions, n: int, n_params: int, comm: Comm) -> str:
    """The solver for n samples on each rank; see `VariationalOptions.solver`.

    Raises:
        InputError: as `check_solver`.
    """
    check_solver(options)
    if options.solver != "auto":
        return options.solver
    if n * comm.size < n_params and options.diag_shift != 0:
        return "minsr"
    if n_params > 8192:
        return "cg"
    return "cholesky" if options.diag_shift else "pinv"


def _min_sr(derivs: jax.Array, e: jax.Array, options: VariationalOptions, comm: Comm) -> jax.Array:
    """O* (O O* + shift)^-1 e, with the samples of all ranks gathered by a sum of zero-padded arrays."""
    if comm.size > 1:
        n = len(e)
        everyone = (jnp.zeros((comm.size * n, *x.shape[1:]), x.dtype) for x in (derivs, e))
        derivs, e = comm.sum(
            tuple(jax.lax.dynamic_update_slice_in_dim(zeros, x, comm.rank * n, 0) for zeros, x in zip(everyone, (derivs, e), strict=True))
        )
    left, _ = _solve_kernel(gram(derivs), e, derivs.shape[1], options)
    return (left.conj() @ derivs).conj()


def _solve_kernel(kernel: jax.Array, e: jax.Array, n_params: int, options: VariationalOptions) -> tuple[jax.Array, jax.Array]:
    """(O O* + shift)^-1 e and the shift, which is in units of the mean diagonal element of S."""
    shift = _shift(options) * jnp.trace(kernel).real / n_params + 1e-30
    # LAPACK wants columns: the transpose, which is the conjugate, is in that order already
    transposed = (kernel + shift * jnp.eye(len(e))).T
    return cho_solve(cho_factor(transposed, lower=True), e.conj()).conj(), shift


def direction_by_kernel(
    kernel: jax.Array,
    pull_back: Callable[[jax.Array], jax.Array],
    n_params: int,
    e_loc: jax.Array,
    options: VariationalOptions,
    weights: jax.Array,
) -> tuple[jax.Array, SRInfo]:
    """What `sr_direction` gives with solver = "minsr" for complex parameters, without the log-derivatives O.

    Args:
        kernel: O O*, (n, n).
        pull_back: x (n,) -> sum_s x_s O_s (P,).
    """
    p = weights / weights.sum()
    root = jnp.sqrt(p)
    mean_e = p @ e_loc
    e = root * (e_loc - mean_e)
    mean = jax.lax.complex(kernel.real @ p, kernel.imag @ p)
    centered = root[:, None] * root * (kernel - mean[:, None] - mean.conj() + p @ mean)
    left, shift = _solve_kernel(centered, e, n_params, options)
    x = (root * left).conj()
    direction = pull_back(x - p * x.sum()).conj()
    variance = jnp.sum(jnp.abs(e) ** 2)
    rest = shift**2 * jnp.sum(jnp.abs(left) ** 2)  # e - O direction = shift left
    return direction, SRInfo(mean_e.real, variance, rest / jnp.maximum(variance, 1e-30), 1 / jnp.sum(p**2), jnp.zeros(()))


def residual(centered: Centered, direction: jax.Array, variance: jax.Array, comm: Comm = SERIAL) -> jax.Array:
    """r^2 = |e - O direction|^2 / |e|^2 = 1 - F* S^-1 F / Var for an exact solve: the energy falls as dE/d beta = -Var (1 - r^2)."""
    rest = centered.e_loc - centered.log_derivs @ direction
    return comm.sum(jnp.sum(jnp.abs(rest) ** 2)) / jnp.maximum(variance, 1e-30)


def tangent(
    log_amplitude: Callable[[jax.Array], jax.Array], theta: jax.Array, weights: jax.Array, comm: Comm = SERIAL
) -> Callable[[jax.Array], jax.Array]:
    """change (P,) -> root of the weight times O change less its mean, (n,): how Psi moves with the parameters, without building O.

    Args:
        log_amplitude: theta -> ln Psi (n,) of this rank's samples.
        weights: of the samples (n,), of any norm.
    """
    p = weights / comm.sum(weights.sum())
    _, push = jax.linearize(log_amplitude, theta)

    def moved(change: jax.Array) -> jax.Array:
        x = push(change)
        return jnp.sqrt(p) * (x - comm.sum(p @ x))

    return moved


def norm(moved: jax.Array, comm: Comm = SERIAL) -> jax.Array:
    """Root of the sum of squares over all ranks; of what `tangent` gives sqrt(change* S change), how far the normalised state moves."""
    return jnp.sqrt(comm.sum(jnp.sum(jnp.abs(moved) ** 2)))


def scale_by_sr(options: VariationalOptions, comm: Comm = SERIAL) -> optax.GradientTransformationExtraArgs:
    """SR for optax: turns a force F (the flat gradient with respect to conj theta) into S^-1 F.

    Its update takes the extra argument `log_derivs`, (n, P) of equally weighted samples, and passes through `optax.chain`:

    >>> descent = optax.chain(scale_by_sr(VariationalOptions()), optax.clip_by_global_norm(1.0), optax.scale(-0.05))
    """

    def update(updates: jax.Array, state: optax.EmptyState, params: object = None, *, log_derivs: jax.Array, **_: object) -> tuple:
        n = len(log_derivs)
        centered, _ = center(log_derivs, jnp.zeros(n), jnp.ones(n), comm, real_params=not jnp.iscomplexobj(updates))
        return precondition(centered.log_derivs, updates, options, comm)[0], state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

"""Extrapolation of Trotterised estimates to a vanishing step, with the error that extrapolation itself makes.

Symmetric splitting leaves x(delta) = x_0 + A u + B u^2 + ..., u = (delta/delta_fine)^2. A least-squares fit to the levels u = 1, 4, 16 weighs
them by their statistical errors; how much B may matter is a prior width, so that the error bar grows where it is not determined.
"""

from collections.abc import Sequence

import numpy as np

from thermodbm.estimate.statistics import Estimate


def extrapolate(levels: Sequence[Estimate], u: np.ndarray, curvature: float) -> Estimate:
    """Extrapolated value at u = 0 with its error, elementwise for arrays.

    Args:
        levels: estimates at steps of u = (delta/delta_fine)^2, the finest first.
        u: (n_levels,), u[0] = 1.
        curvature: prior width of |B/A|, the ratio of the fourth-order to the second-order error at the finest step; infinite where the
            second order may cancel (the energy at low temperature). What the last, not fitted, order may add is estimated from the
            change between the extrapolation without and with B and added to the error.

    One level is handed back as it is. tau_int, r_hat and n_eff are the finest level's.
    """
    finest = levels[0]
    if len(levels) == 1:
        return finest
    means = np.stack([np.asarray(e.mean, float) for e in levels])
    errors = np.stack([np.asarray(e.error, float) for e in levels])
    scale = np.max(np.abs(means), axis=0)
    errors = np.maximum(errors, 1e-12 * np.where(scale > 0, scale, 1.0))  # exact levels are weighed alike
    shape = means.shape[1:]
    means, errors = means.reshape(len(u), -1), errors.reshape(len(u), -1)
    mean, error = np.empty(means.shape[1]), np.empty(means.shape[1])
    for k, (x, sigma) in enumerate(zip(means.T, errors.T, strict=True)):
        linear, slope, slope_error = _fit(x, sigma, u, np.inf if len(u) < 3 else 0.0)[:3]
        if len(u) < 3:  # two levels: exact in A; B is known to its prior alone
            width = min(curvature, 0.25) * np.hypot(slope, slope_error)
            mean[k], error[k] = linear, np.hypot(_linear_error(sigma, u), width * u[1])
            continue
        full = _fit(x, sigma, u, curvature * np.hypot(slope, slope_error))
        two_level = x[0] - (x[1] - x[0]) / (u[1] - 1)
        left_over = 0.3 * abs(full[0] - two_level) if np.isinf(curvature) else 0.0
        mean[k], error[k] = full[0], np.hypot(full[3], left_over)
    return Estimate(mean.reshape(shape), error.reshape(shape), finest.tau_int, finest.r_hat, finest.n_eff)


def _fit(x: np.ndarray, sigma: np.ndarray, u: np.ndarray, width: float) -> tuple[float, float, float, float]:
    """Least squares of x = x_0 + A u + B u^2 with B ~ normal(0, width): x_0, A, error of A, error of x_0."""
    design = np.stack([np.ones_like(u), u, u**2], -1)
    if width == 0 or len(u) < 3:
        design = design[:, :2]
    precision = design.T @ (design / sigma[:, None] ** 2)
    if design.shape[1] == 3 and np.isfinite(width):
        precision[2, 2] += width**-2
    covariance = np.linalg.inv(precision)
    x_0, slope, *_ = covariance @ (design.T @ (x / sigma**2))
    return x_0, slope, np.sqrt(covariance[1, 1]), np.sqrt(covariance[0, 0])


def _linear_error(sigma: np.ndarray, u: np.ndarray) -> float:
    return float(np.hypot(u[1] * sigma[0], sigma[1]) / (u[1] - 1))

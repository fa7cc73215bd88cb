"""Extrapolation of Trotterised estimates to a vanishing step, with the error that extrapolation itself makes.

Symmetric splitting leaves x(delta) = x_0 + A u + B u^2 + ..., u = (delta/delta_fine)^2. A least-squares fit to the levels u = 1, 4, 16
weighs them by their statistical errors; what B may be is a prior, so that the error bar grows where it is not determined.
"""

from collections.abc import Sequence

import numpy as np

from thermodbm.estimate.statistics import Estimate


def extrapolate(levels: Sequence[Estimate], u: np.ndarray, curvature: tuple[float, float], left_over: float | None = None) -> Estimate:
    """Extrapolated value at u = 0 with its error, elementwise for arrays.

    Args:
        levels: estimates at steps of u = (delta/delta_fine)^2, the finest first.
        u: (n_levels,), u[0] = 1.
        curvature: prior mean and width of B/A.
        left_over: given for quantities whose A may cancel (the energy at low temperature), so that B/A has no scale: B is then fitted
            freely if there are three levels, and this fraction of what B changed goes into the error, for the next order.

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
        slope = (x[1] - x[0]) / (u[1] - 1)  # of the two finest levels, where the fourth order weighs least
        typical = np.hypot(slope, np.hypot(sigma[0], sigma[1]) / (u[1] - 1))
        prior = (curvature[0], curvature[1] * typical) if left_over is None else (0.0, np.inf)
        if len(u) < 3:
            mean[k], statistical = x[0] - slope, np.hypot(u[1] * sigma[0], sigma[1]) / (u[1] - 1)
            error[k] = np.hypot(statistical, abs(slope) if left_over is not None else u[1] * typical * np.hypot(*curvature))
            continue
        mean[k], statistical = _fit(x, sigma, u, *prior)
        error[k] = np.hypot(statistical, (left_over or 0.0) * abs(mean[k] - (x[0] - slope)))
    return Estimate(mean.reshape(shape), error.reshape(shape), finest.tau_int, finest.r_hat, finest.n_eff)


def _fit(x: np.ndarray, sigma: np.ndarray, u: np.ndarray, ratio: float, width: float) -> tuple[float, float]:
    """Least squares of x = x_0 + A (u + ratio u^2) + B u^2 with B ~ normal(0, width): x_0 and its error."""
    design = np.stack([np.ones_like(u), u + ratio * u**2, u**2], -1) / sigma[:, None]
    precision = design.T @ design
    precision[2, 2] += width**-2 if width > 0 else np.inf
    if np.isinf(precision[2, 2]):
        precision, design = precision[:2, :2], design[:, :2]
    covariance = np.linalg.inv(precision)
    return (covariance @ (design.T @ (x / sigma)))[0], np.sqrt(covariance[0, 0])

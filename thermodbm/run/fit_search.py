"""How a fit moves parameters, what it makes small, and how far each of them can go."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from thermodbm.run.fit_errors import whitened
from thermodbm.run.fit_model import POSITIVE, FitModel
from thermodbm.run.sections import FitSection

FAR = 30.0
"""Standard deviations beyond which the end of an interval is not looked for."""


class Scale:
    """Parameters as the optimiser moves them: logarithms of what is positive, all else in units of its size."""

    def __init__(self, names: Sequence[str], section: FitSection, couplings: Mapping[str, Any]):
        given = [section.parameters[n] for n in names]
        self.log = np.array(
            [
                p.start > 0 and (not p.bounds or p.bounds[0] >= 0) and (n in couplings or n in POSITIVE)
                for n, p in zip(names, given, strict=True)
            ]
        )
        self.start = np.array([p.start for p in given])
        bounds = [p.bounds or (-np.inf, np.inf) for p in given]
        self.lower, self.upper = (self.to_x(np.array(side, float)) for side in zip(*bounds, strict=True))

    def to_x(self, theta: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.log, np.log(np.where(self.log, np.maximum(theta, 0), 1.0)), theta)

    def to_theta(self, x: np.ndarray) -> np.ndarray:
        return np.where(self.log, np.exp(np.where(self.log, np.minimum(x, 500.0), 0.0)), x)

    def within(self, lower: np.ndarray, upper: np.ndarray) -> "Scale":
        """The same with narrower bounds, in x."""
        narrow = copy(self)
        narrow.lower, narrow.upper = np.maximum(self.lower, lower), np.minimum(self.upper, upper)
        return narrow

    def slope(self, theta: np.ndarray) -> np.ndarray:
        """d theta / dx."""
        return np.where(self.log, theta, 1.0)


class Residuals:
    """Deviations from data and priors in units of their errors, and their derivatives."""

    def __init__(self, model: FitModel, section: FitSection, slack: float = 0.0):
        """`slack` is the part of the largest value of each quantity by which the model is off, everywhere, beside what it knows of."""
        self.model = model
        self.value = np.concatenate([p.value for p in model.points])
        given = np.concatenate([p.error for p in model.points])
        size = np.concatenate([np.full(len(p.value), 0.01 * np.abs(p.value).max() or 1.0) for p in model.points])
        self.weighted = bool(np.isfinite(given).all())
        self.error = np.hypot(np.where(np.isfinite(given), given, size), 100 * slack * size)
        priors = [(j, *section.parameters[n].prior) for j, n in enumerate(model.names) if section.parameters[n].prior]
        self.priors = [np.array(column) for column in zip(*priors, strict=True)] if priors else None
        self.at: tuple[np.ndarray, Any] | None = None

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals (n,), Jacobian (n, n_parameters), model values (n_points,); the last point is kept."""
        if self.at is None or not np.array_equal(self.at[0], theta):
            self.at = theta.copy(), self.weighed(theta, 1.0)
        return self.at[1]

    def weighed(self, theta: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same with the covariance of the model times a factor, as more or fewer samples would have it."""
        values, covariance, slopes = self.model.predict(theta, self.model.curves(theta))
        rows, jacobian = whitened(factor * covariance + np.diag(self.error**2), values - self.value, slopes)
        if self.priors is not None:
            index, mean, sigma = self.priors
            rows = np.concatenate([rows, (theta[index.astype(int)] - mean) / sigma])
            jacobian = np.concatenate([jacobian, np.eye(len(theta))[index.astype(int)] / sigma[:, None]])
        return rows, jacobian, values


def minimise(residuals: Residuals, scale: Scale, theta: np.ndarray, tolerance: float, most: int, held: int | None = None) -> Any:
    """Least squares from `theta`, all parameters free but the one `held`; a result of scipy whose x are all parameters."""
    from scipy.optimize import least_squares

    inside = np.clip(scale.to_x(theta), scale.lower + 1e-9, scale.upper - 1e-9)
    free = np.array([j != held for j in range(len(theta))])

    def whole(x: np.ndarray) -> np.ndarray:
        at = scale.to_x(theta)
        at[free] = x
        return at

    end = least_squares(
        lambda x: residuals.evaluate(scale.to_theta(whole(x)))[0],
        inside[free],
        jac=lambda x: (residuals.evaluate(scale.to_theta(whole(x)))[1] * scale.slope(scale.to_theta(whole(x))))[:, free],
        bounds=(scale.lower[free], scale.upper[free]),
        x_scale="jac",
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
        max_nfev=most,
    )
    end.x = whole(end.x)
    return end


def profile(
    residuals: Residuals, scale: Scale, theta: np.ndarray, errors: np.ndarray, unit: float, tolerance: float
) -> list[tuple[float, float]]:
    """Of each parameter the interval in which chi^2, smallest in all others, is within `unit` of its minimum at `theta`.

    The root of the rise of chi^2 is nearly linear in the parameter: an end is found by the rule of three, in the
    coordinates of the optimiser, so that what is positive stays so. An end that is further than `FAR` errors is infinite (or zero, below
    what is positive); one beyond a bound is the bound.
    """
    least = float(np.sum(residuals.evaluate(theta)[0] ** 2))
    centre, sigma = scale.to_x(theta), errors / scale.slope(theta)

    def end(j: int, side: int) -> float:
        bound, step, x = (scale.upper, scale.lower)[side < 0][j], sigma[j], centre.copy()
        for _ in range(12):
            if not step < FAR * sigma[j]:
                return 0.0 if side < 0 and scale.log[j] else side * np.inf
            x[j] = centre[j] + side * step
            if side * (x[j] - bound) >= 0:
                x[j], step = bound, abs(bound - centre[j])
            at = scale.to_theta(x)
            if not step > 0:
                break
            if len(x) > 1:
                found = minimise(residuals, scale, at, tolerance, 30, held=j)
                x, chi2 = found.x, 2 * found.cost
            else:
                chi2 = float(np.sum(residuals.evaluate(at)[0] ** 2))
            rise = np.sqrt(max(chi2 - least, 0.0) / unit)
            if abs(rise - 1) < 0.01 or (x[j] == bound and rise < 1):
                break
            step *= float(np.clip(1 / max(rise, 1e-3), 0.2, 5.0))
        return float(at[j])

    return [(end(j, -1), end(j, 1)) for j in range(len(theta))]

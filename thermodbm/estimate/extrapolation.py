"""Extrapolation of Trotterised estimates to a vanishing step, with the error that extrapolation itself makes.

Symmetric splitting leaves x(delta) = x_0 + A u + B u^2 + ..., u = (delta/delta_fine)^2. A least-squares fit to the levels u = 1, 4, 16
weighs them by their statistical errors; what B may be is a prior, so that the error bar grows where it is not determined.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thermodbm.estimate.statistics import Estimate

SCATTER = 0.25
"""A level that scatters less than this times the widest one saw too little: levels differ in their numbers of sweeps by no more."""


class TrotterPrior(NamedTuple):
    """What is known of the orders of the Trotter error, in units of powers of s = (d_tau kappa)^2, kappa the commutator scale."""

    curvature: tuple[float, float]  # fourth over second order, typical value and width
    left_over: dict[str, float]  # sixth order over the fourth-order correction, by observable, of those whose second order may cancel
    fourth: dict[str, float]  # of those: width of the fourth order over the largest value, in units of s^2; any fourth order if not named

    def scaled(self, name: str, smallness: float) -> dict[str, tuple[float, float] | float | None]:
        """Keywords of `extrapolate` for an observable, at smallness = (d_tau kappa)^2 of the finest level."""
        left_over, fourth = self.left_over.get(name), self.fourth.get(name)
        return {
            "curvature": (self.curvature[0] * smallness, self.curvature[1] * smallness),
            "left_over": None if left_over is None else left_over * smallness,
            "fourth": None if fourth is None else fourth * smallness**2,
        }


_IN_TIME = ("imaginary_time_correlation_zz", "imaginary_time_structure_factor_zz", "static_susceptibility_zz")
_OF_THE_SPINS = ("energy", "correlation_zz", "structure_factor_zz", "staggered_structure_factor", *_IN_TIME)
_OF_EXCITATIONS = ("susceptibility", "susceptibility_x", "magnetization_z", "magnetization_z_squared")
TROTTER_PRIOR = {
    "ising": TrotterPrior((-0.1, 0.2), {"energy": 10.0, "specific_heat": 20.0}, {}),
    "exchange": TrotterPrior(
        (-0.1, 0.2), {**dict.fromkeys(_OF_THE_SPINS + _OF_EXCITATIONS, 10.0), "specific_heat": 20.0}, dict.fromkeys(_OF_THE_SPINS, 0.2)
    ),
}
"""Ising: by benchmarks/tfim_trotter.py the fourth order over the second is -0.37 to 0.28 in m_x, m_z^2, its average over layers and pair
functions of rings, 3x3 tori and random graphs at default steps, both signs of the coupling; where the second order nearly cancels (1e-3 of
the value or less) it was anything from -1.8 to 1.2; both are small. In imaginary time, of static susceptibilities and
of the Binder ratio, by hand on rings of 4 to 6 and random graphs, it is -0.5 to 0.3 in 90 of 100 entries, and less than 0.15 of the value
where it is more. The sixth order is 4 to
11 of the energy and 6 to 18 of the specific heat, which are stationary at low temperature: their second order cancels.

Exchange: by benchmarks/exchange_trotter.py the second order of each observable cancels somewhere. The fourth order of the energy and of
pair functions is at most 0.08 of their largest value, 0.22 in imaginary time (95 of 100: 0.06), 0.46 of static susceptibilities (0.11);
that of what only excitations have (c, chi, m_z) is up to 40 where they are few, and is always fitted."""


def extrapolate(
    levels: Sequence[Estimate],
    u: np.ndarray,
    curvature: tuple[float, float],
    left_over: float | None = None,
    fourth: float | None = None,
) -> Estimate:
    """Extrapolated value at u = 0 with its error, elementwise for arrays; not a number, with an infinite error, where a level is not.

    Args:
        levels: estimates at steps of u = (delta/delta_fine)^2, the finest first.
        u: (n_levels,), u[0] = 1.
        curvature: prior mean and width of B/A.
        left_over: given for quantities whose A may cancel (the energy at low temperature), so that B/A has no scale: B is then fitted
            freely if there are three levels, and this fraction of what B changed goes into the error, for the next order.
        fourth: with left_over, prior width of B over the largest value of the array.

    One level is handed back as it is. tau_int, r_hat and n_eff are the finest level's.
    """
    finest = levels[0]
    if len(levels) == 1:
        return finest
    means = np.stack([np.asarray(e.mean, float) for e in levels])
    errors = np.stack([np.asarray(e.error, float) for e in levels])
    shape = means.shape[1:]
    means, errors = means.reshape(len(u), -1), errors.reshape(len(u), -1)
    numbers, known = np.isfinite(means).all(0), np.isfinite(errors).all(0)
    x, sigma = np.where(numbers, means, 0.0), _floored(np.where(numbers, means, 0.0), np.where(known, errors, 1.0))

    slope = (x[1] - x[0]) / (u[1] - 1)  # of the two finest levels, where the fourth order weighs least
    typical = np.hypot(slope, np.hypot(sigma[0], sigma[1]) / (u[1] - 1))
    if len(u) < 3:
        mean, statistical = x[0] - slope, np.hypot(u[1] * sigma[0], sigma[1]) / (u[1] - 1)
        error = np.hypot(statistical, np.abs(slope) if left_over is not None else u[1] * typical * np.hypot(*curvature))
    else:
        if left_over is None:
            ratio, width = curvature[0], curvature[1] * typical
        else:
            ratio, width = 0.0, None if fourth is None else np.full_like(typical, fourth * np.max(np.abs(x), initial=0.0))
        mean, statistical = _fit(x, sigma, u, ratio, width)
        error = np.hypot(statistical, (left_over or 0.0) * np.abs(mean - (x[0] - slope)))
    mean = np.where(numbers, np.where(known, mean, x[0]), np.nan)
    error = np.where(numbers & known, error, np.inf)
    fixed = numbers & (errors == 0).all(0) & (means == means[0]).all(0)  # by a symmetry, say
    mean, error = np.where(fixed, means[0], mean), np.where(fixed, 0.0, error)
    return Estimate(mean.reshape(shape), error.reshape(shape), finest.tau_int, finest.r_hat, finest.n_eff)


def _floored(x: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Scatter of the levels, (n_levels, n), that no level owes to having seen nothing.

    A coarse level has fewer sweeps than the finer ones, so it does not scatter less; exact levels are weighed alike.
    """
    scale = np.max(np.abs(x), axis=0)
    least = np.maximum(SCATTER * sigma.max(0), 1e-12 * np.where(scale > 0, scale, 1.0))
    return np.maximum(np.maximum.accumulate(sigma, axis=0), least)


def _fit(x: np.ndarray, sigma: np.ndarray, u: np.ndarray, ratio: float, width: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of x = x_0 + A (u + ratio u^2) + B u^2 with B ~ normal(0, width), or any B: x_0 and its error, (n,) each.

    The unknowns are x_0, A and B / width, all in units of the smallest scatter; a generalised inverse lets none of them be singular.
    """
    unit = sigma.min(0)
    weights = (unit / sigma).T  # (n, n_levels), at most 1
    spread = np.ones_like(unit) if width is None else width / unit
    columns = np.broadcast_to(np.stack([np.ones_like(u), u + ratio * u**2, u**2], -1), (len(unit), len(u), 3))
    columns = columns * weights[..., None] * np.stack([np.ones_like(unit), np.ones_like(unit), spread], -1)[:, None, :]
    prior = np.broadcast_to([0.0, 0.0, 0.0 if width is None else 1.0], (len(unit), 1, 3))
    design = np.concatenate([columns, prior], 1)
    size = np.sqrt(np.sum(design**2, 1, keepdims=True))
    size = np.where(size > 0, size, 1.0)
    inverse = np.linalg.pinv(design / size, rcond=1e-13)[:, 0] / size[:, :, 0]  # the row that yields x_0
    return np.sum(inverse[:, :-1] * weights * x.T, 1), unit * np.sqrt(np.sum(inverse**2, 1))

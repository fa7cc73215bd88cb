"""Derivatives of sampled curves, made smooth in temperature: what a fit moves by.

A derivative of a specific heat is a third cumulant, whose noise at one temperature may exceed the derivative itself; squared in a
least-squares step, that noise makes steps too short and errors too small. But free energy, energy, entropy and specific heat are one
function

    F(x) = d(free energy)/dlambda,  x = ln T:     de = F - F',    ds = -F'/T,    dc = (F' - F'')/T

so that all temperatures and all of them together are the data of one Gaussian process; what is known of a smaller magnet is its mean.
Other quantities are smooth functions of x, each by itself.
"""

from collections.abc import Mapping

import numpy as np

ENERGETIC = ("free_energy", "energy", "entropy", "specific_heat")
LENGTHS = (0.35, 0.6, 1.0, 1.7)
"""In ln T, of the Gaussian covariance."""
AMPLITUDES = np.geomspace(3e-3, 3.0, 7)
"""In units of the largest derivative."""
FLOOR = 1e-4
"""Least error of a datum in the same units: no function is known better than smoothness is."""

Slopes = Mapping[str, np.ndarray]
"""Quantity -> derivative in one parameter, (n_T,)."""


def smooth_slopes(T: np.ndarray, slopes: Slopes, errors: Slopes, mean: Slopes) -> dict[str, np.ndarray]:
    """The derivatives at all temperatures given those that were sampled, with their errors, and the mean of what is expected (0 where it
    has none)."""
    joint = [n for n in ENERGETIC if n in slopes]
    groups = [joint] * bool(joint) + [[n] for n in slopes if n not in ENERGETIC]
    found: dict[str, np.ndarray] = {}
    for names in groups:
        expected = np.concatenate([mean.get(n, np.zeros(len(T))) for n in names])
        sampled, error = (np.concatenate([of[n] for n in names]) for of in (slopes, errors))
        apart = _regressed(_operators(T, names), np.log(T), sampled - expected, error, np.abs(expected))
        found |= dict(zip(names, np.split(expected + apart, len(names)), strict=True))
    return found


def _operators(T: np.ndarray, names: list[str]) -> np.ndarray:
    """Coefficients of F, F' and F'' in every datum, (n_data, 3)."""
    one, zero = np.ones(len(T)), np.zeros(len(T))
    of = {"free_energy": (one, zero, zero), "energy": (one, -one, zero)}
    of |= {"entropy": (zero, -1 / T, zero), "specific_heat": (zero, 1 / T, -1 / T)}
    return np.concatenate([np.stack(of.get(n, (one, zero, zero)), 1) for n in names])


def _regressed(operators: np.ndarray, x: np.ndarray, y: np.ndarray, error: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Values of all data by the covariance that makes them most likely; those that are not numbers are predicted."""
    known = np.isfinite(y) & np.isfinite(error)
    scale = float(max(np.max(np.abs(y[known]), initial=0.0), np.max(expected[np.isfinite(expected)], initial=0.0)))
    if not known.any() or scale == 0:
        return np.zeros(len(y))
    noise = np.diag(np.hypot(error[known], FLOOR * scale) ** 2)
    places = np.tile(x, len(y) // len(x))
    best = (-np.inf, np.zeros(len(y)))
    for length in LENGTHS:
        kernel = _kernel(operators, places, length)
        inner = kernel[np.ix_(known, known)]
        for amplitude in AMPLITUDES * scale:
            lower = np.linalg.cholesky(amplitude**2 * inner + noise)
            white = np.linalg.solve(lower, y[known])
            likelihood = -0.5 * white @ white - np.log(np.diag(lower)).sum()
            if likelihood > best[0]:
                best = likelihood, amplitude**2 * kernel[:, known] @ np.linalg.solve(lower.T, white)
    return best[1]


def _kernel(operators: np.ndarray, x: np.ndarray, length: float) -> np.ndarray:
    """Covariances of linear functionals of a function whose covariance is exp(-(x - y)^2 / 2 length^2), by Hermite polynomials."""
    d = (x[:, None] - x) / length
    hermite = [np.ones_like(d), d, d**2 - 1, d**3 - 3 * d, d**4 - 6 * d**2 + 3]
    total = sum(
        np.outer(operators[:, a], operators[:, b]) * (-1) ** a * length ** -(a + b) * hermite[a + b] for a in range(3) for b in range(3)
    )
    return total * np.exp(-(d**2) / 2)

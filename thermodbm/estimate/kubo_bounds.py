"""The Kubo susceptibility between bounds that equal-time averages of a purified state set.

For hermitian M and real H the correlation C(tau) = <M(tau) M> - <M>^2 is a sum of cosh(w (beta/2 - tau)) over w >= 0 with weights that are
not negative. With y = beta w/2 and the weights at tau = 0 as a distribution of y,

    C'(0) = -<[M, [H, M]]>/2 gives <y tanh y>,   C(beta/2)/C(0) = <1/cosh y>,   int_0^beta C dtau = beta C(0) <tanh(y)/y>,

and C(beta/2) is the correlation of M on the spins with M on the ancillas. The largest and the smallest value that the last average can have
are those of two distributions: one level above a static part (y = 0), and one level beside a remainder at infinite y.
Source: Karlin and Studden, Tchebycheff Systems (1966), chapters 2 and 3; Falk and Bruch, Phys. Rev. 180, 442 (1969) with one moment less.
"""

import numpy as np
from scipy.optimize import brentq

MAX_LEVEL = 1e4
"""Largest y that is looked for."""
PRECISION = 1e-10
"""C(beta/2)/C(0) below this is no more than rounding: it may be anything from 0 to it."""


def kubo_bounds(square: float, slope: float, halfway: float, beta: float) -> tuple[float, float]:
    """Two bounds of int_0^beta C dtau, in no order; what noise has made impossible counts as the nearest that is possible.

    Args:
        square: C(0).
        slope: -C'(0).
        halfway: C(beta/2).

    >>> x = 0.7  # a spin in a transverse field gamma = 1 at beta = 2 x has one level
    >>> low, high = kubo_bounds(1.0, 2 * np.tanh(2 * x), 1 / np.cosh(2 * x), 2 * x)
    >>> bool(np.allclose([low, high], np.tanh(2 * x)))
    True
    """
    if square <= 0:
        return 0.0, 0.0
    s = min(halfway / square, 1.0)
    if s < PRECISION * (1 - 1e-9):
        return 0.0, max(kubo_bounds(square, slope, PRECISION * square, beta))
    if s == 1.0:
        return beta * square, beta * square
    single = _flatness(float(np.arccosh(1 / s)))
    rise = beta * slope / (2 * square) / (1 - s)  # y tanh y / (1 - 1/cosh y) of the level above a static part
    if rise <= _rise(0.0):
        return beta * square * single, beta * square * single
    level = brentq(lambda y: _rise(y) - rise, 0.0, min(rise + 2.0, MAX_LEVEL)) if rise < MAX_LEVEL else MAX_LEVEL
    static = min(max(1 - (1 - s) / -np.expm1(-_log_cosh(level)), 0.0), 1.0)
    return beta * square * single, beta * square * (static + (1 - static) * _flatness(level))


def kubo_gradient(square: float, slope: float, halfway: float, beta: float) -> np.ndarray:
    """Of the middle of the bounds in the three averages, (3,), by central differences."""
    here = np.array([square, slope, halfway])
    steps = 1e-4 * np.maximum(np.abs(here), 1e-9)
    middle = lambda x: np.mean(kubo_bounds(*x, beta))  # noqa: E731
    return np.array([(middle(here + d) - middle(here - d)) / (2 * h) for d, h in zip(np.diag(steps), steps, strict=True)])


def _flatness(y: float) -> float:
    return float(np.tanh(y) / y) if y > 1e-6 else 1.0


def _log_cosh(y: float) -> float:
    return float(np.logaddexp(y, -y) - np.log(2))


def _rise(y: float) -> float:
    """y tanh y / (1 - 1/cosh y), which grows from 2."""
    return 2.0 if y < 1e-4 else float(y * np.tanh(y) / -np.expm1(-_log_cosh(y)))

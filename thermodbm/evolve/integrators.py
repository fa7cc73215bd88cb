"""Explicit Runge-Kutta steps for d theta/d tau = rate(theta), each with an estimate of its error."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Tableau(NamedTuple):
    """Butcher tableau: stage k is evaluated at theta + h sum_j a[k][j] k_j; the step is h sum_j b[j] k_j."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None  # b less the weights of the embedded formula; None: fixed steps
    order: int


HEUN = Tableau(a=((), (1.0,)), b=(1 / 2, 1 / 2), error=(-1 / 2, 1 / 2), order=2)
"""Trapezoidal rule with an Euler predictor; the error estimate is that of the predictor."""

BOGACKI_SHAMPINE = Tableau(
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    order=3,
)
"""Third order with an embedded second. Source: Bogacki and Shampine, Appl. Math. Lett. 2, 321 (1989)."""

RK4 = Tableau(a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), error=None, order=4)
"""The classical fourth-order rule."""

TABLEAUS = {"heun": HEUN, "bs3": BOGACKI_SHAMPINE, "rk4": RK4}


def runge_kutta_step(
    tableau: Tableau, rate: Callable[[jax.Array], tuple[jax.Array, Any]], theta: jax.Array, h: jax.Array
) -> tuple[jax.Array, jax.Array, Any]:
    """One step of size h.

    Args:
        rate: theta -> (d theta/d tau, anything else). It is traced once, whatever the number of stages.

    Returns:
        theta at the end of the step; the estimated error of it, a vector (zero for a fixed-step rule); what `rate` gave besides, with
        a leading axis for the stages.
    """
    n_stages = len(tableau.b)
    rows = np.array([row + (0.0,) * (n_stages - len(row)) for row in tableau.a])

    def stage(stages: jax.Array, index_and_row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        index, row = index_and_row
        k, other = rate(theta + h * (row @ stages))
        return stages.at[index].set(k), other

    stages, others = jax.lax.scan(stage, jnp.zeros((n_stages, *theta.shape), theta.dtype), (np.arange(n_stages), rows))
    error = jnp.zeros_like(theta) if tableau.error is None else h * (np.array(tableau.error) @ stages)
    return theta + h * (np.array(tableau.b) @ stages), error, others


def next_step_size(h: float, error: float, tolerance: float, order: int) -> float:
    """Step size that should give an error of `tolerance`, with the usual safety factor and at most tripled or cut to a fifth."""
    if error <= 0:
        return 3 * h
    return h * min(3.0, max(0.2, 0.9 * (tolerance / error) ** (1 / order)))

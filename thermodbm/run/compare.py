"""Two curves of one model, temperature by temperature, in units of their combined errors."""

import tomllib
from dataclasses import dataclass

import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.run.results import ThermalCurve

ROUNDING = 1e-7
"""Relative size of rounding errors, single precision where samplers use it: two exact results need not agree further than this."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Deviations of one observable at the temperatures that both curves have finished."""

    temperature: np.ndarray  # (n_common,)
    a: np.ndarray  # (n_common, ...)
    b: np.ndarray
    error: np.ndarray  # sqrt(error_a^2 + error_b^2), systematic errors included
    pull: np.ndarray  # (a - b) / error

    @property
    def max_pull(self) -> float:
        """Largest deviation in units of the combined error."""
        return float(np.abs(self.pull).max())

    @property
    def chi2_per_n(self) -> float:
        """Mean squared deviation in units of the combined error: about 1 where the errors are honest and independent."""
        return float(np.mean(self.pull**2))


def compare(a: ThermalCurve, b: ThermalCurve) -> dict[str, Comparison]:
    """Compare every observable that both curves have, where their temperatures agree to a relative 1e-9.

    Raises:
        InputError: if they have no finished temperature or no observable in common.
    """
    here, there = np.nonzero(np.isclose(a.temperature[:, None], b.temperature, rtol=1e-9, atol=0) & a.done[:, None] & b.done)
    if not len(here):
        raise InputError(
            "temperature",
            expected="two curves with finished temperatures in common",
            found=f"{_span(a)} in the first and {_span(b)} in the second",
        )
    comparisons = {
        name: found
        for name in a.observables
        if name in b.observables and (found := _compare(a.temperature[here], a.observables[name], here, b.observables[name], there))
    }
    if not comparisons:
        names = f"{', '.join(a.observables)} in the first and {', '.join(b.observables)} in the second"
        raise InputError("observables", expected="two curves with observables in common", found=names)
    return comparisons


def _compare(temperature: np.ndarray, a: Estimate, here: np.ndarray, b: Estimate, there: np.ndarray) -> Comparison | None:
    """None if the observable has different shapes in the two curves, or no temperature where both know it."""
    if a.mean.shape[1:] != b.mean.shape[1:]:
        return None
    values = np.array([a.mean[here], a.error[here], b.mean[there], b.error[there]])
    known = np.isfinite(values).all(axis=(0, *range(2, values.ndim)))
    if not known.any():
        return None
    x, dx, y, dy = values[:, known]
    error = np.hypot(dx, dy)
    floor = np.maximum(ROUNDING * np.maximum(np.abs(x), np.abs(y)), np.finfo(float).tiny)
    return Comparison(temperature[known], x, y, error, (x - y) / np.maximum(error, floor))


def same_model(a: ThermalCurve, b: ThermalCurve) -> bool:
    """Whether both configs name the same lattice and model."""
    x, y = tomllib.loads(a.config), tomllib.loads(b.config)
    return all(x.get(table) == y.get(table) for table in ("lattice", "model"))


def _span(curve: ThermalCurve) -> str:
    finished = curve.temperature[curve.done]
    return f"{len(finished)} from {finished.min():.6g} to {finished.max():.6g}" if len(finished) else "none"

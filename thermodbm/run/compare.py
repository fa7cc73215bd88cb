"""Two curves of one model, temperature by temperature, in units of their combined errors."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.models.names import flat
from thermodbm.run.results import ThermalCurve

ROUNDING = 1e-7
"""Relative size of rounding errors, single precision where samplers use it: two exact results need not agree further than this."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Deviations of one observable at the temperatures, and values of a scan, that both curves have finished."""

    temperature: np.ndarray  # (n_common,)
    a: np.ndarray  # (n_common, ...)
    b: np.ndarray
    error: np.ndarray  # sqrt(error_a^2 + error_b^2), systematic errors included
    pull: np.ndarray  # (a - b) / error
    scan: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> (n_common,)

    @property
    def points(self) -> list[tuple[float, ...]]:
        """What is scanned and the temperature of every point, (n_common,)."""
        return list(zip(*(x.tolist() for x in (*self.scan.values(), self.temperature)), strict=True))

    @property
    def max_pull(self) -> float:
        """Largest deviation in units of the combined error."""
        return float(np.abs(self.pull).max())

    @property
    def chi2_per_n(self) -> float:
        """Mean squared deviation in units of the combined error: about 1 where the errors are honest and independent."""
        return float(np.mean(self.pull**2))


def compare(a: ThermalCurve, b: ThermalCurve) -> dict[str, Comparison]:
    """Compare every observable that both curves have, where their temperatures (and values of a scan) agree to a relative 1e-9.

    A scan meets a curve of one value of what is scanned at that value.

    Raises:
        InputError: if they have no finished temperature or no observable in common.
    """
    alike = np.isclose(a.temperature[:, None], b.temperature, rtol=1e-9, atol=0) & a.done[:, None] & b.done
    scan = {}
    for name in dict.fromkeys([*a.scan, *b.scan]):
        scan[name], other = _values(a, name), _values(b, name)
        alike &= np.isclose(scan[name][:, None], other, rtol=1e-9, atol=1e-12)
    here, there = np.nonzero(alike)
    if not len(here):
        raise InputError(
            "temperature",
            expected="two curves with finished temperatures in common",
            found=f"{_span(a)} in the first and {_span(b)} in the second",
        )
    points = a.temperature[here], {name: values[here] for name, values in scan.items()}
    comparisons = {
        name: found
        for name in a.observables
        if name in b.observables and (found := _compare(points, a.observables[name], here, b.observables[name], there))
    }
    if not comparisons:
        names = f"{', '.join(a.observables)} in the first and {', '.join(b.observables)} in the second"
        raise InputError("observables", expected="two curves with observables in common", found=names)
    return comparisons


def _values(curve: ThermalCurve, name: str) -> np.ndarray:
    """Of a field or coupling at all points: as it was scanned, or the number that it has in the model."""
    if name in curve.scan:
        return curve.scan[name]
    model = tomllib.loads(curve.config).get("model", {})
    value = flat(model, (), ()).get(name, model.get(name.partition(".")[0]))
    if curve.scan or not isinstance(value, float | int):
        found = f"a scan of {', '.join(curve.scan)}" if curve.scan else "a list of them"
        raise InputError("scan", expected=f"one value of {name} in each file, or scans of it", found=found)
    return np.full(len(curve.beta), float(value))


def _compare(
    points: tuple[np.ndarray, dict[str, np.ndarray]], a: Estimate, here: np.ndarray, b: Estimate, there: np.ndarray
) -> Comparison | None:
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
    temperature, scan = points
    pull = (x - y) / np.maximum(error, floor)
    return Comparison(temperature[known], x, y, error, pull, {name: values[known] for name, values in scan.items()})


def same_model(a: ThermalCurve, b: ThermalCurve) -> bool:
    """Whether both configs name the same lattice and model, apart from what is scanned."""
    x, y = tomllib.loads(a.config), tomllib.loads(b.config)
    models = [{k: v for k, v in flat(tables.get("model", {}), (), ()).items() if k not in {*a.scan, *b.scan}} for tables in (x, y)]
    return x.get("lattice") == y.get("lattice") and models[0] == models[1]


def _span(curve: ThermalCurve) -> str:
    finished = curve.temperature[curve.done]
    return f"{len(finished)} from {finished.min():.6g} to {finished.max():.6g}" if len(finished) else "none"

"""From finished temperatures to a curve: what is known beforehand, and estimates that join all temperatures of one magnet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from thermodbm.estimate.statistics import Estimate, exact
from thermodbm.evolve.method import Point, ThermalMethod
from thermodbm.exact.infinite_temperature import infinite_temperature
from thermodbm.models.observables import LOG_PARTITION
from thermodbm.models.parameters import BETA
from thermodbm.run.checkpoint import Checkpoint
from thermodbm.run.config import RunConfig
from thermodbm.run.results import ThermalCurve

Joined = dict[int, dict[int, Point]]
"""Sweep -> temperature -> point, of sweeps that are finished: they are joined once."""


def known_points(config: RunConfig) -> dict[int, Point]:
    """Infinite temperature, where it is asked for: no method need visit it."""
    found = {}
    for number, part in enumerate(config.sweeps):
        n_tau = getattr(part.method, "n_tau", None)
        observables = {name: exact(values) for name, values in infinite_temperature(part.hamiltonian, n_tau).items()}
        for index in np.flatnonzero(part.betas == 0):
            found[number * len(part.betas) + int(index)] = Point(observables, {"wall_time_s": 0.0}, {})
    return found


def next_point(config: RunConfig, method_of: Callable[[int], ThermalMethod], points: Mapping[int, Point]) -> tuple[int, int, bool]:
    """Which sweep and which of all temperatures come next, and whether that begins the sweep."""
    n = len(config.sweeps[0].betas)
    number = next(number for number in range(len(config.sweeps)) if any(number * n + k not in points for k in range(n)))
    betas = config.sweeps[number].betas
    order = [number * n + int(k) for k in method_of(number).order(betas)]
    begins = not any(index in points and betas[index - number * n] > 0 for index in order)
    return number, next(index for index in order if index not in points), begins


def curve_of(config: RunConfig, method_of: Callable[[int], ThermalMethod], at: Checkpoint, joined: Joined) -> ThermalCurve:
    """The curve so far, with the estimates that join several temperatures of a sweep; never those of different couplings."""
    n, points = len(config.sweeps[0].betas), {}
    for number, part in enumerate(config.sweeps):
        here = {k: at.points[number * n + k] for k in range(n) if number * n + k in at.points}
        of_sweep = joined.get(number) or (_joined(part, method_of, number, here) if here else {})
        if len(here) == n:
            joined[number] = of_sweep
        points |= {number * n + k: point for k, point in of_sweep.items()}
    return ThermalCurve(
        temperature=config.temperatures,
        beta=config.betas,
        **collect([points.get(k) for k in range(len(config.betas))]),
        method=config.method_kind,
        config=config.text,
        seed=config.sampling.seed,
        finished=len(at.points) == len(config.betas),
        wall_time=at.seconds,
        scan=config.scan,
    )


def _joined(config: RunConfig, method_of: Callable[[int], ThermalMethod], number: int, points: Mapping[int, Point]) -> dict[int, Point]:
    """The points of one sweep as its method has them, all temperatures together."""
    visited = sorted((i for i in points if config.betas[i] > 0), key=lambda index: config.betas[index])
    joined = method_of(number).summarize([points[i] for i in visited], config.betas[visited]) if visited else []
    by_index = {
        index: point._replace(covariance=_placed(config, visited, point.covariance)) for index, point in zip(visited, joined, strict=True)
    }
    measured = {name for point in joined for name in point.observables}
    slopes = {p.name: exact(np.zeros(p.shape)) for p in config.response if p.name != BETA}  # nothing depends on couplings there
    differentiated = dict.fromkeys(name for point in joined for name in point.response if name != LOG_PARTITION)
    for index, point in points.items():
        if config.betas[index] == 0:  # known, but of what the method does not measure nothing is said
            kept = {name: e for name, e in point.observables.items() if name in measured or not measured}
            nothing = {name: np.zeros(len(config.betas)) for point in joined for name in point.covariance}
            by_index[index] = point._replace(observables=kept, response=dict.fromkeys(differentiated, slopes), covariance=nothing)
    return by_index


def _placed(config: RunConfig, visited: Sequence[int], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of covariances with all temperatures of a sweep, (n,): 0 at infinite temperature, NaN where one is not finished."""
    found = {name: np.where(config.betas == 0, 0.0, np.nan) for name in rows}
    for name, row in rows.items():
        found[name][list(visited)] = row
    return found


def collect(points: "Sequence[Point | None]") -> dict[str, Any]:
    """The `observables`, `diagnostics` and `network` of a curve from its points, None where a temperature is not finished."""

    def union(tables: list[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
        names = dict.fromkeys(name for table in tables if table for name in table)
        return {name: [(table or {}).get(name) for table in tables] for name in names}

    def joined(tables: list[Mapping[str, Estimate] | None]) -> dict[str, Estimate]:
        columns = union(tables)
        return {n: Estimate(*(_stack([e and getattr(e, f) for e in column]) for f in Estimate._fields)) for n, column in columns.items()}

    differentiated = dict.fromkeys(name for p in points if p for name in p.response)
    return {
        "observables": joined([p and p.observables for p in points]),
        "response": {name: joined([p and p.response.get(name) for p in points]) for name in differentiated},
        "diagnostics": {name: _stack(column) for name, column in union([p and p.diagnostics for p in points]).items()},
        "covariance": _tree({name: _stack(column) for name, column in union([p and p.covariance for p in points]).items()}),
        "network": tuple({n: np.asarray(w) for n, w in p.network.items()} if p else {} for p in points),
        "series": tuple(dict(p.series) if p else {} for p in points) if any(p and p.series for p in points) else (),
    }


def _tree(blocks: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """ "a/b" as a -> b."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, block in blocks.items():
        a, b = name.split("/")
        found.setdefault(a, {})[b] = block
    return found


def _stack(values: list[Any]) -> np.ndarray | None:
    """Arrays of one rank as one array with a leading axis; NaN where one is missing (None) or shorter; None if all are missing."""
    arrays = [None if v is None else np.asarray(v, float) for v in values]
    shapes = [a.shape for a in arrays if a is not None]
    if not shapes:
        return None
    full = np.full((len(arrays), *np.max(shapes, axis=0).astype(int)), np.nan)
    for t, array in enumerate(arrays):
        if array is not None:
            full[(t, *(slice(n) for n in array.shape))] = array
    return full

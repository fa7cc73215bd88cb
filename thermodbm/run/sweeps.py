"""A curve with a scan as the curves of its values, and some points of a curve by themselves."""

import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tomli_w

from thermodbm.models.names import flat, nested

if TYPE_CHECKING:
    from thermodbm.run.results import ThermalCurve


def split(curve: "ThermalCurve") -> list["ThermalCurve"]:
    """The curves of the values of a scan, each as if it had been run by itself; the curve alone where there is no scan."""
    if not curve.scan:
        return [curve]
    ((name, values),) = curve.scan.items()
    tables = tomllib.loads(curve.config)
    del tables["scan"]
    found = []
    for value in dict.fromkeys(values.tolist()):
        here = np.flatnonzero(values == value)
        model = nested({**flat(tables["model"], (), ()), name: value})
        found.append(replace(points_of(curve, here), scan={}, config=tomli_w.dumps({**tables, "model": model})))
    return found


def points_of(curve: "ThermalCurve", here: np.ndarray) -> "ThermalCurve":
    """Some points of a curve, by their numbers."""
    at = lambda estimate: type(estimate)(*(None if x is None else x[here] for x in estimate))  # noqa: E731
    return replace(
        curve,
        temperature=curve.temperature[here],
        beta=curve.beta[here],
        observables={name: at(estimate) for name, estimate in curve.observables.items()},
        response={name: {p: at(estimate) for p, estimate in of.items()} for name, of in curve.response.items()},
        diagnostics={name: values[here] for name, values in curve.diagnostics.items()},
        covariance={name: {b: block[here] for b, block in of.items()} for name, of in curve.covariance.items()},
        network=tuple(curve.network[k] for k in here),
        series=tuple(curve.series[k] for k in here) if curve.series else (),
        scan={name: values[here] for name, values in curve.scan.items()},
    )

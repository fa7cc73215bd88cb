"""Curves as the tables of other programs: columns of numbers, and datasets of xarray."""

from typing import TYPE_CHECKING, Any

import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.models.observables import LOG_PARTITION, OBSERVABLES

if TYPE_CHECKING:
    import xarray

    from thermodbm.run.results import ThermalCurve

UNITS = {1: "J", 0: "1", -1: "1/J"}
"""Of an observable, by its power of the coupling J; k_B = 1."""
_QUALITY = ("tau_int", "r_hat", "n_eff")


def scalar_columns(curve: "ThermalCurve") -> dict[str, np.ndarray]:
    """temperature, beta, what is scanned, then every scalar observable and its error in the order of the registry and others behind, then
    diagnostics by name: the same columns in the same order for all files of a method."""
    order = {name: k for k, name in enumerate(OBSERVABLES)}
    names = sorted(curve.observables, key=lambda name: (order.get(name, len(order)), name if name not in order else ""))
    columns = {"temperature": curve.temperature, "beta": curve.beta, **curve.scan}
    for name in names:
        columns |= {name: curve.observables[name].mean, f"{name}_error": curve.observables[name].error}
    columns |= dict(sorted(curve.diagnostics.items()))
    return {name: np.asarray(values) for name, values in columns.items() if np.ndim(values) == 1}


def as_xarray(curve: "ThermalCurve") -> "xarray.Dataset":
    """See `ThermalCurve.to_xarray`."""
    import xarray

    lattice = curve.hamiltonian.lattice
    sizes = {"site": lattice.n_sites, "wavevector": 0 if lattice.wavevectors is None else len(lattice.wavevectors)}
    in_time = [np.shape(e.mean)[1] for name, e in curve.observables.items() if name in OBSERVABLES and "tau" in OBSERVABLES[name].dims]
    sizes["tau"] = in_time[0] if in_time else 0
    variables: dict[str, Any] = {}
    for name, values in curve.diagnostics.items():
        axes = [f"{name}_{k + 1}" for k in range(np.ndim(values) - 1)]
        variables[name] = (("temperature", *axes), values, {"role": "diagnostic"})
    for name, estimate in curve.observables.items():
        known, shape = OBSERVABLES.get(name), np.shape(estimate.mean)[1:]
        axes = known.dims if known and shape == tuple(sizes[d] for d in known.dims) else [f"{name}_{k + 1}" for k in range(len(shape))]
        about = {"long_name": known.doc, "units": UNITS[known.unit]} if known else {}
        variables[name] = (("temperature", *axes), estimate.mean, {**about, "role": "observable"})
        units = {"units": about["units"]} if known else {}
        variables[f"{name}_error"] = (("temperature", *axes), estimate.error, {**units, "long_name": f"one standard deviation of {name}"})
        for field in _QUALITY:
            if (values := getattr(estimate, field)) is not None:
                variables[f"{name}_{field}"] = (("temperature", *axes), values)
    for (name, parameter), estimate in curve.derivatives.items():
        if name == LOG_PARTITION:
            axes = ("temperature", "parameter", "other_parameter")
            variables["d2_log_partition"] = (axes, estimate.mean, {"long_name": "second derivatives of ln Z, per site"})
            variables["d2_log_partition_error"] = (axes, estimate.error)
            continue
        axes = [f"{parameter}_{k + 1}" for k in range(np.ndim(estimate.mean) - 1)]
        variables[f"d_{name}_d_{parameter}"] = (("temperature", *axes), estimate.mean, {"role": "derivative"})
        variables[f"d_{name}_d_{parameter}_error"] = (("temperature", *axes), estimate.error)
    coordinates = {
        "temperature": ("temperature", curve.temperature, {"units": "J"}),
        "beta": ("temperature", curve.beta, {"units": "1/J"}),
        "distance": ("site", lattice.distances),
        **{name: ("temperature", values, {"role": "scan"}) for name, values in curve.scan.items()},
    }
    if LOG_PARTITION in curve.response:
        coordinates |= {axis: (axis, curve.parameters) for axis in ("parameter", "other_parameter")}
    if in_time:
        coordinates["tau"] = ("tau", np.linspace(0.0, 0.5, in_time[0]), {"units": "beta", "long_name": "imaginary time"})
    if lattice.wavevectors is not None:
        coordinates["momentum"] = (("wavevector", "component"), lattice.wavevectors)
    attributes = {"method": curve.method, "seed": curve.seed, "finished": int(curve.finished), "config": curve.config}
    return xarray.Dataset(variables, coordinates, {**attributes, "wall_time_s": float(curve.wall_time)})


def as_arviz(curve: "ThermalCurve", T: float) -> "xarray.DataTree":
    """See `ThermalCurve.to_arviz`."""
    t = curve.index_of(T)
    if not (curve.series and curve.series[t]):
        hint = "Run it with [output] series = true, or thermal_curve(..., series=True)."
        raise InputError("series", expected="the series of a sampled curve", found="none", hint=hint)
    try:
        from arviz_base import from_dict
    except ImportError:
        raise InputError("to_arviz", expected="the package arviz-base", found="none", hint='pip install "thermodbm[arviz]"') from None
    series = dict(curve.series[t])
    length = int(series.pop("length"))
    tree = from_dict({"posterior": {name: np.asarray(values).T for name, values in series.items()}})
    tree["posterior"].attrs.update(length=length, temperature=float(curve.temperature[t]), method=curve.method)
    return tree


def from_xarray(dataset: "xarray.Dataset") -> dict[str, Any]:
    """The fields of the curve that `as_xarray` made this of, without its network."""
    by_role = lambda role: [name for name, x in dataset.data_vars.items() if x.attrs.get("role") == role]  # noqa: E731
    try:
        observables = {}
        for name in by_role("observable"):
            fields = {field: dataset[f"{name}_{field}"].values for field in _QUALITY if f"{name}_{field}" in dataset}
            observables[name] = Estimate(dataset[name].values, dataset[f"{name}_error"].values, **fields)
        return {
            "temperature": dataset["temperature"].values,
            "beta": dataset["beta"].values,
            "observables": observables,
            "diagnostics": {name: dataset[name].values for name in by_role("diagnostic")},
            "network": tuple({} for _ in range(dataset.sizes["temperature"])),
            "method": str(dataset.attrs["method"]),
            "config": str(dataset.attrs["config"]),
            "seed": int(dataset.attrs["seed"]),
            "finished": bool(dataset.attrs["finished"]),
            "wall_time": float(dataset.attrs["wall_time_s"]),
            "scan": {name: x.values for name, x in dataset.coords.items() if x.attrs.get("role") == "scan"},
        }
    except KeyError as error:
        raise InputError("dataset", expected="one that ThermalCurve.to_xarray made", found=f"none of {error}") from None

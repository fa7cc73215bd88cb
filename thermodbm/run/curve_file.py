"""The HDF5 file of a curve: what is written where, and read back."""

import tomllib
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.run.hdf5 import Tree, flatten, read_array, read_fit, read_tree, write_file, write_fit, write_tree

if TYPE_CHECKING:
    from thermodbm.run.results import ThermalCurve

FORMAT_VERSION = 1


def program_version() -> str:
    """Version of thermodbm, or "unknown" where it is run without being installed."""
    try:
        return version("thermodbm")
    except PackageNotFoundError:
        return "unknown"


def write_curve(curve: "ThermalCurve", path: Path, checkpoint: Tree | None = None) -> None:
    """Write a curve over whatever stands there.

    Args:
        checkpoint: what `run.checkpoint` needs to go on with an unfinished run.

    Raises:
        InputError: if the file cannot be written.
    """
    write_file(path, partial(_write, curve, checkpoint))


def _write(curve: "ThermalCurve", checkpoint: Tree | None, file: h5py.File) -> None:
    file.attrs.update(
        format_version=FORMAT_VERSION,
        thermodbm_version=program_version(),
        method=curve.method,
        config=curve.config,
        seed=curve.seed,
        finished=int(curve.finished),
        error_includes_systematic=1,
        wall_time_s=float(curve.wall_time),
    )
    if curve.more_seeds:
        file.attrs["seeds"] = np.array(curve.seeds, np.int64)
    file["temperature"], file["beta"] = curve.temperature, curve.beta
    for name, values in curve.scan.items():
        file[f"scan/{name}"] = values
    for group in ("observables", "diagnostics", "network"):
        file.create_group(group, track_order=True)
    for name, estimate in curve.observables.items():
        for part, values in estimate._asdict().items():
            if values is not None:
                file[f"observables/{name}/{part}"] = values
    for (name, parameter), estimate in curve.derivatives.items():
        file[f"response/{name}/{parameter}/mean"], file[f"response/{name}/{parameter}/error"] = estimate.mean, estimate.error
    for name, blocks in curve.covariance.items():
        for other, values in blocks.items():
            file[f"covariance/{name}/{other}"] = values
    for name, values in curve.diagnostics.items():
        file[f"diagnostics/{name}"] = values
    for t, weights in enumerate(curve.network):
        for name, values in weights.items():
            file[f"network/{t:04d}/{name}"] = values
    for t, series in enumerate(curve.series):
        for name, values in series.items():
            file[f"series/{t:04d}/{name}"] = values
    if curve.fit is not None:
        write_fit(file.create_group("fit", track_order=True), curve.fit)
    if checkpoint is not None:
        write_tree(file.create_group("checkpoint", track_order=True), checkpoint)


def read_fields(file: h5py.File, size: int) -> dict[str, Any]:
    """The fields of the curve that `write_curve` wrote; raises anything where the layout is not that of the contract."""

    def array(dataset: h5py.Dataset, leading: int) -> np.ndarray:
        values = read_array(dataset, size)
        if values.dtype.kind not in "fiu" or values.shape[:1] != (leading,):
            raise ValueError(f"{dataset.name} should hold {leading} temperatures of numbers")
        return values.astype(float, copy=False)

    attributes = file.attrs
    if (found := int(attributes["format_version"])) > FORMAT_VERSION:
        expected, hint = f"a file of format version {FORMAT_VERSION} or older", "Update thermodbm to read it."
        by = f" (written by thermodbm {attributes.get('thermodbm_version', 'of unknown version')})"
        raise InputError("format_version", expected=expected, found=f"version {found}{by}", hint=hint)
    if found < 1:
        raise ValueError(f"format version {found}")
    tomllib.loads(config := str(attributes["config"]))
    n = len(read_array(file["temperature"], size))
    observables = {}
    for name, group in file["observables"].items():
        estimate = Estimate(**{part: array(values, n) for part, values in group.items()})
        if estimate.mean.shape != estimate.error.shape:
            raise ValueError(f"{name} has means and errors of different shapes")
        observables[name] = estimate
    response = {
        name: {parameter: Estimate(array(fields["mean"], n), array(fields["error"], n)) for parameter, fields in of.items()}
        for name, of in file.get("response", {}).items()
    }
    diagnostics = {name: array(values, n) for name, values in file["diagnostics"].items()}
    if "error_includes_systematic" not in attributes and {"energy", "systematic_error"} <= {*observables, *diagnostics}:
        energy = observables["energy"]  # older versions told the systematic error apart
        observables["energy"] = energy._replace(error=np.hypot(energy.error, diagnostics["systematic_error"]))
    network = [read_tree(file["network"][f"{t:04d}"], size) if f"{t:04d}" in file["network"] else {} for t in range(n)]
    return dict(
        temperature=array(file["temperature"], n),
        beta=array(file["beta"], n),
        observables=observables,
        diagnostics=diagnostics,
        network=tuple(flatten(weights) for weights in network),
        method=str(attributes["method"]),
        config=config,
        seed=int(attributes["seed"]),
        more_seeds=tuple(map(int, attributes.get("seeds", ())))[1:],
        finished=bool(attributes["finished"]),
        wall_time=float(attributes["wall_time_s"]),
        response=response,
        covariance={name: {b: array(block, n) for b, block in of.items()} for name, of in file.get("covariance", {}).items()},
        series=tuple(read_tree(file["series"][f"{t:04d}"], size) if f"{t:04d}" in file["series"] else {} for t in range(n))
        if "series" in file
        else (),
        fit=read_fit(file["fit"], size) if "fit" in file else None,
        scan={name: array(values, n) for name, values in file.get("scan", {}).items()},
    )

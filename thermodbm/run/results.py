"""`ThermalCurve`: what a run yields, in memory, in an HDF5 file and as a table."""

import html
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from uncertainties import ufloat

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import MAX_R_HAT, Doubt
from thermodbm.models.observables import OBSERVABLES, Observable
from thermodbm.run.hdf5 import Tree, flatten, read_array, read_file, read_fit, read_tree, write_file, write_fit, write_tree

if TYPE_CHECKING:
    import pandas
    import xarray

    from thermodbm.evolve.method import Point
    from thermodbm.models import SpinHamiltonian

FORMAT_VERSION = 1


def program_version() -> str:
    """Version of thermodbm, or "unknown" where it is run without being installed."""
    try:
        return version("thermodbm")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, eq=False)
class ThermalCurve:
    """Thermal expectation values against temperature, with errors of one standard deviation.

    Arrays run over temperatures in the order asked for; what is not finished is NaN. k_B = 1, and all observables are per site.
    """

    temperature: np.ndarray  # (n_T,)
    beta: np.ndarray  # (n_T,)
    observables: Mapping[str, Estimate]  # name -> mean (n_T, ...), error (n_T, ...), ...
    diagnostics: Mapping[str, np.ndarray]  # name -> (n_T, ...)
    network: Sequence[Mapping[str, np.ndarray]]  # (n_T,) of named weights, empty where there are none
    method: str
    config: str  # resolved TOML
    seed: int = 0
    finished: bool = True
    wall_time: float = 0.0  # seconds
    response: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # observable -> parameter -> derivative (n_T, ...)

    series: Sequence[Mapping[str, np.ndarray]] = ()  # (n_T,) of (n, n_chains), where they were kept
    fit: Tree | None = None  # of `thermodbm fit`: what was fitted to which data

    @property
    def hamiltonian(self) -> "SpinHamiltonian":
        """The Hamiltonian, rebuilt from `config`."""
        from thermodbm.run.config import parse_config  # imports JAX, which a table can do without

        return parse_config(tomllib.loads(self.config)).hamiltonian

    @property
    def derivatives(self) -> dict[tuple[str, str], Estimate]:
        """The response, by observable and parameter."""
        return {(name, parameter): estimate for name, of in self.response.items() for parameter, estimate in of.items()}

    @property
    def done(self) -> np.ndarray:
        """Which temperatures are finished, bool (n_T,); one of which nothing could be said is finished, too."""
        if "wall_time_s" in self.diagnostics:
            return np.isfinite(self.diagnostics["wall_time_s"])
        if "energy" not in self.observables:
            return np.zeros(len(self.beta), bool)
        return np.isfinite(self.observables["energy"].mean)

    def index_of(self, T: float) -> int:
        """Where a temperature stands in the curve.

        Raises:
            InputError: for one that is not in it.
        """
        same = np.flatnonzero(np.isclose(self.temperature, T, rtol=1e-9, atol=0.0)) if np.isscalar(T) else []
        if len(same) != 1:
            raise InputError("T", expected=f"one of {', '.join(f'{x:g}' for x in self.temperature)}", found=T)
        return int(same[0])

    @property
    def doubts(self) -> list[Doubt]:
        """Reasons not to trust each temperature, (n_T,). Files of older versions tell them by `trusted` (the sign) and r_hat."""
        if "doubts" in self.diagnostics:
            return [Doubt(int(flags)) if np.isfinite(flags) else Doubt.NONE for flags in self.diagnostics["doubts"]]
        sign = self.diagnostics.get("trusted", np.ones(len(self.beta))) == 0
        mixing = np.zeros(len(self.beta), bool)
        for estimate in self.observables.values():
            if estimate.r_hat is not None:
                mixing |= np.any(estimate.r_hat.reshape(len(mixing), -1) > MAX_R_HAT, axis=1)
        return [Doubt(Doubt.SIGN * int(s) + Doubt.MIXING * int(m)) for s, m in zip(sign, mixing, strict=True)]

    @property
    def trusted(self) -> np.ndarray:
        """Which temperatures nothing speaks against, bool (n_T,); those that are not finished are among them."""
        if {"doubts", "trusted"} <= set(self.diagnostics):
            return self.diagnostics["trusted"] != 0
        return np.array([doubt == Doubt.NONE for doubt in self.doubts], bool)

    def warnings(self) -> list[str]:
        """A sentence for every reason not to trust some temperatures, which it names."""
        concerned: dict[str, list[str]] = {}
        for T, doubt in zip(self.temperature, self.doubts, strict=True):
            for sentence in doubt.sentences():
                concerned.setdefault(sentence, []).append(f"{T:.4g}")
        return [f"T = {', '.join(temperatures)}: {sentence}" for sentence, temperatures in concerned.items()]

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the curve to an HDF5 file, atomically: a reader, or a kill at any moment, finds the old file or the new one.

        Args:
            force: overwrite what stands there already.

        Raises:
            InputError: if something stands there, or the file cannot be written.
        """
        if not force and Path(path).exists():
            hint = "Choose another name, or overwrite it with force=True."
            raise InputError("path", expected="a new file", found=f"{path}, which exists", hint=hint)
        write_curve(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "ThermalCurve":
        """Read a curve from an HDF5 file.

        Raises:
            InputError: if the file is missing, truncated, corrupt, or no result of thermodbm.
        """
        return read_file(Path(path), read_curve)

    def plot(self, *others: "ThermalCurve", **options: Any) -> np.ndarray:
        """Energy, specific heat, entropy, ... against temperature, with other curves laid over; matplotlib axes, one per observable.

        The options are those of `thermodbm.plotting.plot_curves`.
        """
        from thermodbm.plotting import plot_curves

        return plot_curves([self, *others], **options)

    def to_xarray(self) -> "xarray.Dataset":
        """Each observable as a variable `name` and its error as `name_error`, over `temperature`, with units, and all diagnostics.

        Correlations run over `site` with the coordinate `distance` from site 0, structure factors over `wavevector` with the coordinate
        `momentum`, in Cartesian components. `to_netcdf` writes it, and `from_xarray` makes a curve of it again, but for the network.
        """
        from thermodbm.run.export import as_xarray

        return as_xarray(self)

    @classmethod
    def from_xarray(cls, dataset: "xarray.Dataset") -> "ThermalCurve":
        """The inverse of `to_xarray`, also after netCDF.

        Raises:
            InputError: for a dataset that is none of a curve.
        """
        from thermodbm.run.export import from_xarray

        return cls(**from_xarray(dataset))

    def to_arviz(self, T: float) -> "xarray.DataTree":
        """The series of the chains at one temperature, as the posterior of ArviZ: each a variable over `chain` and `draw`, where a draw is
        the average of `length` sweeps (an attribute); with a sign problem, multiplied by the variable `sign`.

        Raises:
            InputError: where they were not kept ([output] series = true, or thermal_curve(..., series=True)), and for another T.
        """
        from thermodbm.run.export import as_arviz

        return as_arviz(self, T)

    def to_pandas(self) -> "pandas.DataFrame":
        """A row per temperature, which is the index: scalar observables with errors and scalar diagnostics, as `show --csv` has them."""
        import pandas

        from thermodbm.run.export import scalar_columns

        return pandas.DataFrame(scalar_columns(self)).set_index("temperature")

    def table(self) -> list[list[str]]:
        """Rows of text, headings first: temperature, every scalar observable as 1.2345(6), and what limits their trust."""
        scalars = {name: e for name, e in self.observables.items() if np.ndim(e.mean) == 1}
        good = {"average_sign": 1.0, "systematic_error": 0.0}
        limits = {
            n: self.diagnostics[n]
            for n, value in good.items()
            if n in self.diagnostics and np.nanmax(np.abs(self.diagnostics[n] - value), initial=0.0)
        }
        doubts = self.doubts
        doubtful = any(doubts)
        rows = [["T", *scalars, *limits, *(["doubts"] if doubtful else [])]]
        for t, temperature in enumerate(self.temperature):
            estimates = [shorthand(e.mean[t], e.error[t]) for e in scalars.values()]
            words = ["+".join(doubt.name.lower() for doubt in doubts[t]) or "-"] if doubtful else []
            rows.append([f"{temperature:.6g}", *estimates, *(f"{values[t]:.3g}" for values in limits.values()), *words])
        return rows

    def __repr__(self) -> str:
        state = "" if self.finished else f", {self.done.sum()} of them finished"
        span = f"T = {self.temperature.min():.4g} to {self.temperature.max():.4g}"
        return f"ThermalCurve({self.method}, {len(self.beta)} temperatures{state}, {span}: {', '.join(self.observables)})"

    def _repr_html_(self) -> str:
        head, *rows = [[html.escape(cell) for cell in row] for row in self.table()]
        lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{cell}</td>" for cell in row) for row in rows)]
        caption = html.escape(f"{self.method} method, k_B = 1, per site" + ("" if self.finished else ", unfinished"))
        warnings = "".join(f"<p>{html.escape(text)}</p>" for text in self.warnings())
        return f"<table><caption>{caption}</caption>" + "".join(f"<tr>{line}</tr>" for line in lines) + f"</table>{warnings}"


def _attribute(observable: Observable) -> property:
    def get(curve: ThermalCurve) -> Estimate:
        if observable.name not in curve.observables:
            raise AttributeError(f"this curve has no {observable.name}; it has {', '.join(curve.observables) or 'no observables yet'}")
        return curve.observables[observable.name]

    return property(get, doc=observable.doc)


for _observable in OBSERVABLES.values():
    setattr(ThermalCurve, _observable.name, _attribute(_observable))


VANISHING, ROUNDING = 1e-10, 1e-14
"""What is smaller is zero by symmetry: as a sampled value with its error, and as an exact value."""


def vanishes(estimate: Estimate) -> bool:
    """Whether an observable is zero by symmetry at all finished temperatures."""
    sizes = np.abs(estimate.mean[np.isfinite(estimate.mean)]), estimate.error[np.isfinite(estimate.error)]
    return all(np.max(x, initial=0.0) < VANISHING for x in sizes)


def shorthand(mean: float, error: float) -> str:
    """A number with its error in the last digit.

    >>> shorthand(-1.271441, 0.00023), shorthand(0.5, 0.0), shorthand(float("nan"), float("nan"))
    ('-1.2714(2)', '0.5', '-')
    """
    if np.isinf(mean):
        return f"{mean}"
    if np.isnan(mean):
        return "-"
    if max(abs(mean), error) < (VANISHING if error else ROUNDING):
        return "0"
    if not 0 <= error < np.inf:
        return f"{mean:.4g}(?)"
    if error <= max(1e-12 * abs(mean), 1e-280):  # as good as exact, and beyond what can be written with all its digits
        return f"{mean:.10g}"
    return f"{ufloat(mean, error):.1uS}"


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
        "network": tuple({n: np.asarray(w) for n, w in p.network.items()} if p else {} for p in points),
        "series": tuple(dict(p.series) if p else {} for p in points) if any(p and p.series for p in points) else (),
    }


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


def write_curve(curve: ThermalCurve, path: Path, checkpoint: Tree | None = None) -> None:
    """Write a curve over whatever stands there.

    Args:
        checkpoint: what `run.checkpoint` needs to go on with an unfinished run.

    Raises:
        InputError: if the file cannot be written.
    """
    write_file(path, partial(_write, curve, checkpoint))


def _write(curve: ThermalCurve, checkpoint: Tree | None, file: h5py.File) -> None:
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
    file["temperature"], file["beta"] = curve.temperature, curve.beta
    for group in ("observables", "diagnostics", "network"):
        file.create_group(group, track_order=True)
    for name, estimate in curve.observables.items():
        for part, values in estimate._asdict().items():
            if values is not None:
                file[f"observables/{name}/{part}"] = values
    for (name, parameter), estimate in curve.derivatives.items():
        file[f"response/{name}/{parameter}/mean"], file[f"response/{name}/{parameter}/error"] = estimate.mean, estimate.error
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


def read_curve(file: h5py.File, size: int) -> ThermalCurve:
    """The inverse of `_write`; raises anything where the layout is not that of the contract."""

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
    return ThermalCurve(
        temperature=array(file["temperature"], n),
        beta=array(file["beta"], n),
        observables=observables,
        diagnostics=diagnostics,
        network=tuple(flatten(weights) for weights in network),
        method=str(attributes["method"]),
        config=config,
        seed=int(attributes["seed"]),
        finished=bool(attributes["finished"]),
        wall_time=float(attributes["wall_time_s"]),
        response=response,
        series=tuple(read_tree(file["series"][f"{t:04d}"], size) if f"{t:04d}" in file["series"] else {} for t in range(n))
        if "series" in file
        else (),
        fit=read_fit(file["fit"], size) if "fit" in file else None,
    )

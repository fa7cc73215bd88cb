"""`ThermalCurve`: what a run yields, in memory, in an HDF5 file and as a table."""

import html
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from flax.traverse_util import flatten_dict
from uncertainties import ufloat

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.method import Point
from thermodbm.models import SpinHamiltonian
from thermodbm.run.config import parse_config
from thermodbm.run.hdf5 import Tree, read_array, read_file, read_tree, write_file, write_tree

if TYPE_CHECKING:
    import xarray

FORMAT_VERSION = 1


def program_version() -> str:
    """Version of thermodbm, or "unknown" where it is run without being installed."""
    try:
        return version("thermodbm")
    except PackageNotFoundError:
        return "unknown"


def _observable(name: str, doc: str) -> property:
    def get(curve: "ThermalCurve") -> Estimate:
        if name not in curve.observables:
            raise AttributeError(f"this curve has no {name}; it has {', '.join(curve.observables) or 'no observables yet'}")
        return curve.observables[name]

    return property(get, doc=doc)


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

    energy = _observable("energy", "Energy <H>/N.")
    specific_heat = _observable("specific_heat", "Specific heat beta^2 (<H^2> - <H>^2)/N.")
    entropy = _observable("entropy", "Entropy per site, ln 2 at infinite temperature.")
    free_energy = _observable("free_energy", "Free energy -ln Z/(beta N).")
    susceptibility = _observable("susceptibility", "Response of the magnetisation along z to a field along z, per site.")
    order_parameter_squared = _observable("order_parameter_squared", "<m_z^2>, m_z = sum_i sz_i / N (Ising models).")
    magnetization_x = _observable("magnetization_x", "<sum_i sx_i>/N (Ising models).")
    magnetization_z = _observable("magnetization_z", "Magnetisation along z per site.")
    correlation_zz = _observable("correlation_zz", "zz correlation with site 0, averaged over translations, (n_T, n_sites).")
    structure_factor_zz = _observable("structure_factor_zz", "Static zz structure factor at the wavevectors of the lattice.")

    @property
    def hamiltonian(self) -> SpinHamiltonian:
        """The Hamiltonian, rebuilt from `config`."""
        return parse_config(tomllib.loads(self.config)).hamiltonian

    @property
    def done(self) -> np.ndarray:
        """Which temperatures are finished, bool (n_T,)."""
        if "energy" not in self.observables:
            return np.zeros(len(self.beta), bool)
        return np.isfinite(self.energy.mean)

    def save(self, path: str | Path, checkpoint: Tree | None = None) -> None:
        """Write the curve to an HDF5 file, atomically: a reader, or a kill at any moment, finds the old file or the new one.

        Args:
            checkpoint: what `run.checkpoint` needs to go on with an unfinished run.

        Raises:
            InputError: if the file cannot be written.
        """
        write_file(Path(path), partial(_write, self, checkpoint))

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
        """Each observable as a variable `name` and its error as `name_error`, over the coordinate `temperature`."""
        import xarray

        variables = {}
        for name, estimate in self.observables.items():
            dims = ("temperature", *(f"{name}_{axis}" for axis in range(1, np.ndim(estimate.mean))))
            variables[name] = (dims, estimate.mean)
            variables[f"{name}_error"] = (dims, estimate.error)
        attributes = {"method": self.method, "seed": self.seed, "finished": int(self.finished), "config": self.config}
        return xarray.Dataset(variables, {"temperature": self.temperature, "beta": ("temperature", self.beta)}, attributes)

    def table(self) -> list[list[str]]:
        """Rows of text, headings first: temperature, every scalar observable as 1.2345(6), and what limits their trust."""
        scalars = {name: e for name, e in self.observables.items() if np.ndim(e.mean) == 1}
        good = {"average_sign": 1.0, "trusted": 1.0, "systematic_error": 0.0}
        doubts = {
            n: self.diagnostics[n] for n, value in good.items() if n in self.diagnostics and np.nanmax(np.abs(self.diagnostics[n] - value))
        }
        rows = [["T", *scalars, *doubts]]
        for t, temperature in enumerate(self.temperature):
            estimates = [shorthand(e.mean[t], e.error[t]) for e in scalars.values()]
            rows.append([f"{temperature:.6g}", *estimates, *(f"{values[t]:.3g}" for values in doubts.values())])
        return rows

    def __repr__(self) -> str:
        state = "" if self.finished else f", {self.done.sum()} of them finished"
        span = f"T = {self.temperature.min():.4g} to {self.temperature.max():.4g}"
        return f"ThermalCurve({self.method}, {len(self.beta)} temperatures{state}, {span}: {', '.join(self.observables)})"

    def _repr_html_(self) -> str:
        head, *rows = [[html.escape(cell) for cell in row] for row in self.table()]
        lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{cell}</td>" for cell in row) for row in rows)]
        caption = html.escape(f"{self.method} method, k_B = 1, per site" + ("" if self.finished else ", unfinished"))
        return f"<table><caption>{caption}</caption>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def shorthand(mean: float, error: float) -> str:
    """A number with its error in the last digit.

    >>> shorthand(-1.271441, 0.00023), shorthand(0.5, 0.0), shorthand(float("nan"), float("nan"))
    ('-1.2714(2)', '0.5', '-')
    """
    if not np.isfinite(mean):
        return "-"
    if not 0 <= error < np.inf:
        return f"{mean:.4g}(?)"
    if error <= max(1e-12 * abs(mean), 1e-280):  # as good as exact, and beyond what can be written with all its digits
        return f"{mean:.10g}"
    return f"{ufloat(mean, error):.1uS}"


def collect(points: Sequence[Point | None]) -> dict[str, Any]:
    """The `observables`, `diagnostics` and `network` of a curve from its points, None where a temperature is not finished."""

    def union(tables: list[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
        names = dict.fromkeys(name for table in tables if table for name in table)
        return {name: [(table or {}).get(name) for table in tables] for name in names}

    estimates = union([p and p.observables for p in points])
    return {
        "observables": {
            name: Estimate(*(_stack([e and getattr(e, field) for e in column]) for field in Estimate._fields))
            for name, column in estimates.items()
        },
        "diagnostics": {name: _stack(column) for name, column in union([p and p.diagnostics for p in points]).items()},
        "network": tuple({n: np.asarray(w) for n, w in p.network.items()} if p else {} for p in points),
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


def _write(curve: ThermalCurve, checkpoint: Tree | None, file: h5py.File) -> None:
    file.attrs.update(
        format_version=FORMAT_VERSION,
        thermodbm_version=program_version(),
        method=curve.method,
        config=curve.config,
        seed=curve.seed,
        finished=int(curve.finished),
        wall_time_s=float(curve.wall_time),
    )
    file["temperature"], file["beta"] = curve.temperature, curve.beta
    for group in ("observables", "diagnostics", "network"):
        file.create_group(group, track_order=True)
    for name, estimate in curve.observables.items():
        for field, values in estimate._asdict().items():
            if values is not None:
                file[f"observables/{name}/{field}"] = values
    for name, values in curve.diagnostics.items():
        file[f"diagnostics/{name}"] = values
    for t, weights in enumerate(curve.network):
        for name, values in weights.items():
            file[f"network/{t:04d}/{name}"] = values
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
    if (found := int(attributes["format_version"])) != FORMAT_VERSION:
        raise ValueError(f"format version {found}; this program reads {FORMAT_VERSION}")
    tomllib.loads(config := str(attributes["config"]))
    n = len(read_array(file["temperature"], size))
    observables = {}
    for name, group in file["observables"].items():
        estimate = Estimate(**{field: array(values, n) for field, values in group.items()})
        if estimate.mean.shape != estimate.error.shape:
            raise ValueError(f"{name} has means and errors of different shapes")
        observables[name] = estimate
    network = [read_tree(file["network"][f"{t:04d}"], size) if f"{t:04d}" in file["network"] else {} for t in range(n)]
    return ThermalCurve(
        temperature=array(file["temperature"], n),
        beta=array(file["beta"], n),
        observables=observables,
        diagnostics={name: array(values, n) for name, values in file["diagnostics"].items()},
        network=tuple(flatten_dict(weights, sep="/") for weights in network),
        method=str(attributes["method"]),
        config=config,
        seed=int(attributes["seed"]),
        finished=bool(attributes["finished"]),
        wall_time=float(attributes["wall_time_s"]),
    )


def check_output(path: Path, force: bool = False) -> None:
    """Refuse an output that cannot be written, or that would destroy something.

    Raises:
        InputError: if `path` holds a run that has begun (without `force`), is any other file (always), or cannot be written.
    """
    where = "output.file"
    try:
        occupied = path.exists() and path.stat().st_size > 0
        parent = next(p for p in path.absolute().parents if p.exists())
    except (OSError, ValueError) as error:
        raise InputError(where, expected="the name of a file", found=str(error)) from None
    if path.is_dir():
        raise InputError(where, expected="a file", found=f"the directory {path}")
    try:
        tempfile.TemporaryFile(dir=parent).close()  # permissions alone do not tell of read-only and other odd file systems
    except OSError as error:
        raise InputError(where, expected="a file that can be written", found=f"{path} ({error.strerror} in {parent})") from None
    if not occupied:
        return
    try:
        curve = ThermalCurve.load(path)
        begun = read_file(path, lambda file, size: "checkpoint" in file and bool(file["checkpoint/chunk"][()] > 0))
    except InputError:
        hint = "Only results of thermodbm are overwritten; remove the file or choose another name."
        raise InputError(where, expected="a new file", found=f"{path}, which is no intact result", hint=hint) from None
    if not force and (curve.done.any() or begun):
        state, hint = ("a finished run", "") if curve.finished else ("an unfinished run", "Go on with `thermodbm resume`, or ")
        hint = hint + ("o" if hint else "O") + "verwrite it with --force."
        raise InputError(where, expected="a new file", found=f"{path}, which holds {state}", hint=hint)

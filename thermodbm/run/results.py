"""`ThermalCurve`: what a run yields, in memory, in an HDF5 file and as a table."""

import html
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import MAX_R_HAT, Doubt
from thermodbm.models.observables import LOG_PARTITION, OBSERVABLES, SECOND, Observable
from thermodbm.run.curve_file import read_fields, write_curve
from thermodbm.run.hdf5 import Tree, read_file
from thermodbm.run.shorthand import shorthand
from thermodbm.run.sweeps import split

if TYPE_CHECKING:
    import pandas
    import xarray

    from thermodbm.models import SpinHamiltonian


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
    # of what is joined from all temperatures: a -> b -> (n_T, n), a at each point with b at all temperatures of the same value of a scan
    covariance: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    more_seeds: tuple[int, ...] = ()  # of what was added to the curve later
    scan: Mapping[str, np.ndarray] = field(default_factory=dict)  # name of a field or coupling -> its value at each point (n_T,)

    @property
    def hamiltonian(self) -> "SpinHamiltonian":
        """The Hamiltonian, rebuilt from `config`; of a scan that of its first value (`sweeps` has all)."""
        from thermodbm.run.config import parse_config  # imports JAX, which a table can do without

        return parse_config(tomllib.loads(self.config)).hamiltonian

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that its samples have come from."""
        return (self.seed, *self.more_seeds)

    @property
    def sweeps(self) -> "list[ThermalCurve]":
        """The curves of the values of a scan, each as if it had been run by itself; the curve alone where there is no scan."""
        return split(self)

    @property
    def derivatives(self) -> dict[tuple[str, str], Estimate]:
        """The response, by observable and parameter."""
        return {(name, parameter): estimate for name, of in self.response.items() for parameter, estimate in of.items()}

    @property
    def parameters(self) -> list[str]:
        """Names of all that the response is in, one after the other: "J.each[0]" and so on of each bond."""
        from thermodbm.models.parameters import labels
        from thermodbm.run.config import parse_config

        return labels(parse_config(tomllib.loads(self.config)).response)

    @property
    def log_partition_hessian(self) -> Estimate:
        """d^2 ln Z / d lambda_a d lambda_b / N of all `parameters`, (n_T, K, K), where asked for."""
        if LOG_PARTITION not in self.response:
            raise AttributeError("this curve has no second derivatives of ln Z: ask for them by [response] second = true")
        return self.response[LOG_PARTITION][SECOND]

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
            InputError: for one that is not in it, or in it at several values of a scan.
        """
        same = np.flatnonzero(np.isclose(self.temperature, T, rtol=1e-9, atol=0.0)) if np.isscalar(T) else []
        if len(same) > 1:
            hint = "Take the curve of one value of the scan: curve.sweeps[k]."
            raise InputError(
                "T", expected="a temperature that stands there once", found=f"{T:g} at {len(same)} values of a scan", hint=hint
            )
        if len(same) == 0:
            raise InputError("T", expected=f"one of {', '.join(f'{x:g}' for x in dict.fromkeys(self.temperature))}", found=T)
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
        at = [" ".join(f"{name} = {values[t]:.4g}," for name, values in self.scan.items()) for t in range(len(self.beta))]
        for where, T, doubt in zip(at, self.temperature, self.doubts, strict=True):
            for sentence in doubt.sentences():
                concerned.setdefault(sentence, []).append(f"({where} T = {T:.4g})" if where else f"{T:.4g}")
        head = "At" if self.scan else "T ="
        return [f"{head} {', '.join(points)}: {sentence}" for sentence, points in concerned.items()]

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
        return read_file(Path(path), lambda file, size: cls(**read_fields(file, size)))

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
        rows = [[*self.scan, "T", *scalars, *limits, *(["doubts"] if doubtful else [])]]
        for t, temperature in enumerate(self.temperature):
            estimates = [shorthand(e.mean[t], e.error[t]) for e in scalars.values()]
            words = ["+".join(doubt.name.lower() for doubt in doubts[t]) or "-"] if doubtful else []
            rows.append(
                [
                    *(f"{x[t]:.6g}" for x in self.scan.values()),
                    f"{temperature:.6g}",
                    *estimates,
                    *(f"{values[t]:.3g}" for values in limits.values()),
                    *words,
                ]
            )
        return rows

    def __repr__(self) -> str:
        state = "" if self.finished else f", {self.done.sum()} of them finished"
        span = f"T = {self.temperature.min():.4g} to {self.temperature.max():.4g}"
        scan = "".join(f", {name} = {values.min():.4g} to {values.max():.4g}" for name, values in self.scan.items())
        points = "points" if self.scan else "temperatures"
        return f"ThermalCurve({self.method}, {len(self.beta)} {points}{state}, {span}{scan}: {', '.join(self.observables)})"

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

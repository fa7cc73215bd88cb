"""Couplings from measured curves: weighted least squares with derivatives from the response, from starts that may be far away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermodbm.errors import InputError
from thermodbm.evolve.options import ExactOptions, SamplingOptions
from thermodbm.models.names import flat
from thermodbm.models.parameters import BETA, group_names, parameter_names
from thermodbm.run.config import RunConfig, parse_config, read_tables
from thermodbm.run.fit_data import Points, read_points
from thermodbm.run.fit_errors import parameter_errors
from thermodbm.run.fit_model import BACKGROUND, POSITIVE, FitModel, is_ratio, source_of
from thermodbm.run.fit_search import Residuals, Scale, minimise, profile
from thermodbm.run.fit_units import resolved, scales
from thermodbm.run.sections import MODELS, FitSection

if TYPE_CHECKING:
    from thermodbm.run.results import ThermalCurve

SCAN = np.geomspace(0.15, 7.0, 17)
"""Factors by which all couplings together are moved to look for a start."""
RATIOS = (1.0, 0.35, 2.8)
"""Factors by which each further coupling is moved beside the first."""
N_STARTS = 2
MAX_EVALUATIONS, MAX_COARSE, MAX_FINE = 60, 10, 8
FEWER = 8
"""By so much samples are fewer while a fit is on its way; the errors of its curves are in the weights there as well."""
BAD_FIT = 9.0
"""Reduced chi^2 beyond which the model is said not to describe the data."""


@dataclass(frozen=True, eq=False)
class FitResult:
    """Parameters with their covariance, and how the fitted curves meet the data."""

    names: tuple[str, ...]
    values: np.ndarray  # (n,), in the units of the config
    errors: np.ndarray  # (n,), one standard deviation
    covariance: np.ndarray  # (n, n)
    chi2_reduced: float
    n_points: int
    converged: bool
    message: str
    degenerate: tuple[str, ...]  # combinations of parameters that the data do not determine
    data: tuple[Mapping[str, Any], ...]  # per file and quantity: quantity, file, temperature, field, value, error, model
    units: Mapping[str, str]  # of the data
    curve: "ThermalCurve"  # of the fitted magnet at all temperatures, k_B = 1, with `fit` in it
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of each parameter by its profile, where that is asked for

    @property
    def parameters(self) -> dict[str, tuple[float, float]]:
        """name -> (value, error)."""
        return {n: (float(v), float(e)) for n, v, e in zip(self.names, self.values, self.errors, strict=True)}

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the curve and /fit to an HDF5 file.

        Raises:
            InputError: as `ThermalCurve.save`.
        """
        self.curve.save(path, force)

    def plot(self) -> Any:
        """Data, fitted curves and residuals; a matplotlib figure."""
        from thermodbm.plotting import plot_fit

        return plot_fit(fit_tree(self))

    def __repr__(self) -> str:
        from thermodbm.run.shorthand import shorthand

        values = ", ".join(f"{n} = {shorthand(v, e)}" for n, (v, e) in self.parameters.items())
        return f"FitResult({values}; reduced chi^2 {self.chi2_reduced:.3g} of {self.n_points} points; {self.message})"


def fit(data: str | Path | Sequence[str | Path], config: str | Path | Mapping[str, Any], settings: Sequence[str] = ()) -> FitResult:
    """Couplings, and what else [fit.parameters] names, from measured curves.

    Args:
        data: CSV files with columns temperature (field) and any of specific_heat, susceptibility, energy, entropy, magnetization, with
            `_error` beside them or without.
        config: a TOML file, or its nested tables, with [lattice], [model], [method] and [fit].

    Raises:
        InputError: for bad data or a bad config, with file, line and remedy.
    """
    from thermodbm.run.runner import start_jax

    start_jax()
    files = [data] if isinstance(data, str | Path) else list(data)
    tables = dict(config) if isinstance(config, Mapping) else read_tables(Path(config), settings)
    points = read_points(files)
    if "temperature" not in tables:
        known = np.unique(np.concatenate([p.temperature for p in points]))
        known = known[np.isfinite(known)]
        if not len(known):
            raise InputError("temperature", expected="a column temperature, or [temperature] T = [...] of the measurement", found="neither")
        tables["temperature"] = {"T": known.tolist()}
    resolved_config = parse_config(tables)
    model, section = _model(resolved_config, points)
    return _solve(model, section, resolved_config)


def _model(config: RunConfig, points: list[Points]) -> tuple[FitModel, FitSection]:
    section = config.fit
    if config.scan:
        raise InputError("scan", expected="no [scan] in a fit, which takes fields from the data", found="[scan]")
    if section is None:
        raise InputError("fit", expected="a section [fit.parameters] with a start for each parameter", found="none")
    given = {n: v for n, v in config.sections["model"].items() if n != "kind"}
    couplings = flat(given, config.hamiltonian.lattice.groups, list(section.parameters))
    named = (*parameter_names(config.hamiltonian), *group_names(config.hamiltonian))
    allowed = [*(n for n in named if n != BETA), *BACKGROUND]
    for where, names in (("parameters", section.parameters), ("fixed", section.fixed)):
        for name in names:
            if name not in (allowed if where == "parameters" else BACKGROUND):
                choices = ", ".join(allowed if where == "parameters" else BACKGROUND)
                raise InputError(f"fit.{where}", expected=f"parameters among {choices}", found=name)
    with_field = any(np.isfinite(p.field).any() for p in points)
    if with_field and "h" in section.parameters:
        raise InputError("fit.parameters.h", expected="no h where the data have a column field", found="both")
    for name, p in section.parameters.items():
        if p.bounds and not p.bounds[0] <= p.start <= p.bounds[1]:
            raise InputError(f"fit.parameters.{name}.start", expected=f"a start within {list(p.bounds)}", found=p.start)
        if name not in couplings and name in given:
            parts = ", ".join(n for n in couplings if n.startswith(f"{name}."))
            raise InputError(f"fit.parameters.{name}", expected=f"some of {parts}, as {name} is given by groups of bonds", found=name)
        if name in allowed and name not in BACKGROUND and np.ndim(couplings.get(name, [])):
            raise InputError(f"model.{name}", expected="one number for a coupling that is fitted", found="a list")
    if any(np.isnan(p.temperature).any() for p in points):
        if len(config.temperatures) != 1:
            raise InputError("temperature", expected="one temperature for data without a column temperature", found="several")
        points = [p._replace(temperature=np.where(np.isnan(p.temperature), config.temperatures[0], p.temperature)) for p in points]
    n_points, n_parameters = sum(len(p.value) for p in points), len(section.parameters)
    if n_points < n_parameters:
        hint = "Fix some of them, or measure more."
        raise InputError(
            points[0].file, expected=f"at least {n_parameters} points for {n_parameters} parameters", found=f"{n_points}", hint=hint
        )
    units = resolved(section.units.model_dump())
    if (units["temperature"] == "J") != (units["coupling"] == "J"):
        hint = 'Reduced couplings go with temperature = "J".'
        raise InputError("fit.units.coupling", expected="a unit that matches that of temperature", found=units["coupling"], hint=hint)
    lattice, make = config.hamiltonian.lattice, MODELS[config.sections["model"]["kind"]]
    source = source_of(config.method, config.sampling)
    of_units = scales(config.hamiltonian, units)
    return FitModel(make, lattice, couplings, of_units, points, tuple(section.parameters), section.fixed, source), section


def _starts(model: FitModel, section: FitSection, scale: Scale) -> list[np.ndarray]:
    """Where to begin: the best end of the start itself and of a scan of all couplings in scale and of their ratios on a small magnet."""
    small = model.stand_in()
    moving = [j for j, n in enumerate(model.names) if n in model.couplings and scale.log[j] and n != "h"]
    if small is None or not moving:
        return [scale.start]
    residuals, found = Residuals(small, section), []
    lower, upper = scale.to_theta(scale.lower), scale.to_theta(scale.upper)
    for ratios in product(*[RATIOS] * (min(len(moving), 3) - 1)):
        for factor in SCAN:
            theta = scale.start.copy()
            for j, ratio in zip(moving, (1.0, *ratios, *[1.0] * len(moving)), strict=False):
                theta[j] *= ratio if is_ratio(model.names[j]) else factor * ratio
            theta = np.clip(theta, lower, upper)
            theta = _backgrounds(small, residuals, theta, lower, upper)
            found.append((float(np.sum(_only_values(small, residuals, theta) ** 2)), theta))
    found.sort(key=lambda each: each[0])
    best = [theta for _, theta in found[:N_STARTS]] + [scale.start]
    ends = [minimise(residuals, scale, theta, 1e-5, MAX_EVALUATIONS // 2) for theta in best]
    ends.sort(key=lambda end: end.cost)
    return [scale.to_theta(ends[0].x)]


def _fewer(sampling: SamplingOptions) -> SamplingOptions:
    target = sampling.target_error and sampling.target_error * FEWER**0.5
    return replace(sampling, n_samples=max(sampling.n_samples // FEWER, sampling.n_chains), target_error=target)


def _only_values(model: FitModel, residuals: Residuals, theta: np.ndarray, curves: Any = None) -> np.ndarray:
    return (model.predict(theta, curves or model.curves(theta, slopes=False))[0] - residuals.value) / residuals.error


def _backgrounds(model: FitModel, residuals: Residuals, theta: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """With g, scale and backgrounds that fit best at given couplings, by two steps of Gauss and Newton."""
    free = [j for j, n in enumerate(model.names) if n in BACKGROUND]
    if not free:
        return theta
    curves, theta = model.curves(theta, slopes=False), theta.copy()
    for _ in range(3):
        values, _, slopes = model.predict(theta, curves)
        jacobian = slopes[:, free] / residuals.error[:, None]
        size = np.sqrt(np.sum(jacobian**2, 0)) + 1e-300
        step = np.linalg.lstsq(jacobian / size, (residuals.value - values) / residuals.error, rcond=1e-10)[0] / size
        moved = theta[free] + step
        positive = np.array([model.names[j] in POSITIVE for j in free])
        moved = np.where(positive, np.clip(moved, theta[free] / 3, theta[free] * 3), moved)
        theta[free] = np.clip(moved, lower[free], upper[free])
    return theta


def _solve(model: FitModel, section: FitSection, config: RunConfig) -> FitResult:
    scale, residuals = Scale(model.names, section, model.couplings), Residuals(model, section)
    exact = isinstance(config.method, ExactOptions)
    tolerance, starts = 1e-9 if exact else 3e-3, _starts(model, section, scale)
    if not exact:  # most of the way with few samples
        coarse = Residuals(replace(model, source=source_of(config.method, _fewer(config.sampling))), section)
        starts = [scale.to_theta(minimise(coarse, scale, start, 10 * tolerance, MAX_COARSE).x) for start in starts]
    ends = [minimise(residuals, scale, start, tolerance, MAX_EVALUATIONS if exact else MAX_FINE) for start in starts]
    end = min(ends, key=lambda each: each.cost)
    theta = scale.to_theta(end.x)
    rows, jacobian, values = residuals.evaluate(theta)
    n_free = max(len(rows) - len(theta), 1)
    chi2 = float(np.sum(rows**2)) / n_free
    unit = 1.0 if residuals.weighted else chi2
    covariance, degenerate = parameter_errors(jacobian, theta, model.names, scale.log, unit)
    converged = end.status > 0
    at_bound = [n for n, side in zip(model.names, end.active_mask, strict=True) if side]
    remarks = [f"converged in {end.nfev} evaluations" if converged else f"did not converge in {end.nfev} evaluations"]
    if at_bound:
        remarks.append(f"{', '.join(at_bound)} at a bound")
    if residuals.weighted and chi2 > BAD_FIT:
        remarks.append("the model does not describe the data within their errors")
    if not residuals.weighted:
        remarks.append("data without errors: those of the parameters are from the scatter")
    if degenerate:
        remarks.append("not determined: " + "; ".join(degenerate))
    intervals = profile(residuals, scale, theta, np.sqrt(np.diag(covariance)), unit, tolerance) if section.profile else []
    result = FitResult(
        tuple(model.names), theta, np.sqrt(np.diag(covariance)), covariance, chi2, len(residuals.value), converged, "; ".join(remarks),
        tuple(degenerate), _data(model, residuals, values), resolved(section.units.model_dump()), _curve(config, model, theta),
        dict(zip(model.names, intervals, strict=False)),
    )  # fmt: skip
    return replace(result, curve=replace(result.curve, fit=fit_tree(result)))


def _data(model: FitModel, residuals: Residuals, values: np.ndarray) -> tuple[Mapping[str, Any], ...]:
    found, at = [], 0
    for p in model.points:
        part = slice(at, at + len(p.value))
        columns = {"temperature": p.temperature, "field": p.field, "value": p.value, "error": residuals.error[part], "model": values[part]}
        found.append({"quantity": p.quantity, "file": p.file, **columns})
        at = part.stop
    return tuple(found)


def _curve(config: RunConfig, model: FitModel, theta: np.ndarray) -> "ThermalCurve":
    """The fitted magnet without field (or with that of [model]) at all temperatures of the data."""
    from thermodbm.run.api import thermal_curve

    temperatures = np.unique(np.concatenate([p.temperature for p in model.points]))
    fields = {f for p in model.points for f in p.field.tolist() if np.isfinite(f)}
    field = min(fields, key=abs) if fields else np.nan
    return thermal_curve(model.hamiltonian(theta, field), T=temperatures, method=config.method, sampling=config.sampling, progress=False)


def fit_tree(result: FitResult) -> dict[str, Any]:
    """What stands under /fit, and what `show --json` prints as "fit"."""
    data = {f"{k:02d}_{d['quantity']}": dict(d) for k, d in enumerate(result.data)}

    def ends(name: str) -> dict[str, float]:
        return dict(zip(("low", "high"), result.intervals[name], strict=True)) if name in result.intervals else {}

    return {
        "parameters": {n: {"mean": v, "error": e, **ends(n)} for n, (v, e) in result.parameters.items()},
        "covariance": result.covariance,
        "chi2_reduced": result.chi2_reduced,
        "n_points": result.n_points,
        "converged": bool(result.converged),
        "message": result.message,
        "degenerate": "; ".join(result.degenerate),
        "units": dict(result.units),
        "data": data,
    }

"""Couplings from measured curves: weighted least squares with derivatives from the response, from starts that may be far away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.evolve.options import (
    DeterministicOptions,
    ExactOptions,
    MethodOptions,
    SamplingOptions,
    VariationalOptions,
)
from thermodbm.models.names import flat
from thermodbm.models.parameters import BETA, group_names, parameter_names
from thermodbm.network.trotter_step import default_d_tau
from thermodbm.run.config import RunConfig, parse_config, read_tables
from thermodbm.run.fit_data import Points, read_points
from thermodbm.run.fit_errors import parameter_errors
from thermodbm.run.fit_model import BACKGROUND, POSITIVE, FitModel, is_ratio, source_of, with_step
from thermodbm.run.fit_sampled import FIRST, Problem, fewer, solve_sampled
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
STAND_IN_ERROR = 0.05
"""Of the largest value of each quantity: how far a small magnet is taken to be off."""
MAX_EVALUATIONS, EXACT_TOLERANCE = 60, 1e-9
AT_BOUND = 1e-6
"""In the optimiser's coordinates."""
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


def _starts(model: FitModel, section: FitSection, scale: Scale, small: FitModel | None) -> list[np.ndarray]:
    """Where to begin: the ends, best first, of the start itself and of a scan of all couplings in scale and of their ratios on a small
    magnet. One that is smaller than what is fitted is not believed to a few percent, and the ratios of the start itself come last: a small
    magnet may tell apart what a large one does not, as Ising chains whose J and gamma are exchanged."""
    moving = [j for j, n in enumerate(model.names) if n in model.couplings and scale.log[j] and n != "h"]
    if small is None or not moving:
        return [scale.start]
    slack = STAND_IN_ERROR if small.lattice.n_sites < model.lattice.n_sites else 0.0
    residuals, found = Residuals(small, section, slack), {}
    lower, upper = scale.to_theta(scale.lower), scale.to_theta(scale.upper)
    for ratios in product(*[RATIOS] * (min(len(moving), 3) - 1)):
        for factor in SCAN:
            theta = scale.start.copy()
            for j, ratio in zip(moving, (1.0, *ratios, *[1.0] * len(moving)), strict=False):
                theta[j] *= ratio if is_ratio(model.names[j]) else factor * ratio
            theta = np.clip(theta, lower, upper)
            theta = _backgrounds(small, residuals, theta, lower, upper)
            chi2 = float(np.sum(_only_values(small, residuals, theta) ** 2))
            if ratios not in found or chi2 < found[ratios][0]:
                found[ratios] = chi2, theta
    best = [theta for _, theta in sorted(found.values(), key=lambda each: each[0])[:N_STARTS]] + [scale.start]
    ends = [minimise(residuals, scale, theta, 1e-5, MAX_EVALUATIONS // 2) for theta in best]
    ends.sort(key=lambda end: end.cost)
    return [*(scale.to_theta(end.x) for end in ends), *(theta for ratios, (_, theta) in found.items() if set(ratios) <= {1.0})]


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


class _Outcome(NamedTuple):
    """Where the optimiser stopped."""

    theta: np.ndarray
    residuals: Residuals
    converged: bool
    remark: str
    method: MethodOptions  # of the curve there
    sampling: SamplingOptions
    others: Sequence[str] = ()  # ends that fit as well


def _exact_outcome(model: FitModel, section: FitSection, config: RunConfig, scale: Scale) -> _Outcome:
    residuals = Residuals(model, section)
    found = minimise(residuals, scale, _starts(model, section, scale, model.stand_in())[0], EXACT_TOLERANCE, MAX_EVALUATIONS)
    converged = found.status > 0
    remark = f"{'converged' if converged else 'did not converge'} in {found.nfev} evaluations"
    return _Outcome(scale.to_theta(found.x), residuals, converged, remark, config.method, config.sampling)


def _sampled_outcome(model: FitModel, section: FitSection, config: RunConfig, scale: Scale) -> _Outcome:
    small, steps, method = model.stand_in(), [], config.method
    if small is None and isinstance(method, VariationalOptions):
        kind = config.sections["method"]["kind"]
        hint = "It has no derivatives, and there is no smaller magnet of the same kind to take them from."
        raise InputError("method.kind", expected="exact, typical or deterministic for a fit of this magnet", found=kind, hint=hint)
    sources = lambda share: source_of(method, fewer(config.sampling, share), steps)  # noqa: E731
    sampled = isinstance(method, DeterministicOptions)  # the others spend most of their time before they sample
    problem = Problem(model, sources, section, scale, small, FIRST if sampled else 1.0)
    end, others = solve_sampled(problem, _starts(model, section, scale, small))
    if sampled:
        wanted = default_d_tau(model.hamiltonian(end.theta, np.nan), config.sampling.target_error)
        method = with_step(method, steps, wanted)
    remark = f"{'converged' if end.converged else 'did not converge'} with {end.n_curves} curves"
    told = [", ".join(f"{n} = {t:.4g}" for n, t in zip(model.names, other.theta, strict=True)) for other in others]
    sampling = fewer(config.sampling, end.share)
    return _Outcome(end.theta, end.residuals, end.converged, remark, method, sampling, told)


def _solve(model: FitModel, section: FitSection, config: RunConfig) -> FitResult:
    scale = Scale(model.names, section, model.couplings)
    end = (_exact_outcome if isinstance(config.method, ExactOptions) else _sampled_outcome)(model, section, config, scale)
    theta, residuals = end.theta, end.residuals
    rows, jacobian, values = residuals.evaluate(theta)
    chi2 = float(np.sum(rows**2)) / max(len(rows) - len(theta), 1)
    unit = 1.0 if residuals.weighted else chi2
    covariance, degenerate = parameter_errors(jacobian, theta, model.names, scale.log, unit)
    errors = np.sqrt(np.diag(covariance))
    intervals = profile(residuals, scale, theta, errors, unit, EXACT_TOLERANCE) if section.profile else []
    result = FitResult(
        tuple(model.names), theta, errors, covariance, chi2, len(residuals.value), end.converged,
        _remarks(model, scale, end, chi2, degenerate), tuple(degenerate), _data(model, residuals, values),
        resolved(section.units.model_dump()), _curve(model, end), dict(zip(model.names, intervals, strict=False)),
    )  # fmt: skip
    return replace(result, curve=replace(result.curve, fit=fit_tree(result)))


def _remarks(model: FitModel, scale: Scale, end: _Outcome, chi2: float, degenerate: Sequence[str]) -> str:
    """What is to be said of a fit."""
    remarks, x = [end.remark], scale.to_x(end.theta)
    if at_bound := [n for n, near in zip(model.names, np.minimum(x - scale.lower, scale.upper - x) < AT_BOUND, strict=True) if near]:
        remarks.append(f"{', '.join(at_bound)} at a bound")
    if end.residuals.weighted and chi2 > BAD_FIT:
        remarks.append("the model does not describe the data within their errors")
    if not end.residuals.weighted:
        remarks.append("data without errors: those of the parameters are from the scatter")
    if degenerate:
        remarks.append("not determined: " + "; ".join(degenerate))
    remarks.extend(f"{other} fits as well" for other in end.others)
    return "; ".join(remarks)


def _data(model: FitModel, residuals: Residuals, values: np.ndarray) -> tuple[Mapping[str, Any], ...]:
    found, at = [], 0
    for p in model.points:
        part = slice(at, at + len(p.value))
        columns = {"temperature": p.temperature, "field": p.field, "value": p.value, "error": residuals.error[part], "model": values[part]}
        found.append({"quantity": p.quantity, "file": p.file, **columns})
        at = part.stop
    return tuple(found)


def _curve(model: FitModel, end: _Outcome) -> "ThermalCurve":
    """The fitted magnet without field (or with that of [model]) at all temperatures of the data; if it is sampled, with derivatives, whose
    programs are those of the fit."""
    from thermodbm.run.api import thermal_curve

    temperatures = np.unique(np.concatenate([p.temperature for p in model.points]))
    fields = {f for p in model.points for f in p.field.tolist() if np.isfinite(f)}
    field = min(fields, key=abs) if fields else np.nan
    moved = [n for n in model.names if n in model.couplings] if isinstance(end.method, DeterministicOptions) else []
    return thermal_curve(
        model.hamiltonian(end.theta, field), T=temperatures, method=end.method, sampling=end.sampling, response=moved, progress=False
    )


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

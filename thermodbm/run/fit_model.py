"""What a fit compares with the data: curves of a magnet whose couplings are fitted, in the units and with the backgrounds of the data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import quad

from thermodbm.errors import InputError
from thermodbm.evolve.options import DeterministicOptions, ExactOptions, MethodOptions, SamplingOptions, VariationalOptions
from thermodbm.exact import exact_solver
from thermodbm.exact.response import response_solver
from thermodbm.models import Lattice, SpinHamiltonian, make_lattice
from thermodbm.models.names import nested
from thermodbm.models.parameters import parameters
from thermodbm.network.trotter_step import default_d_tau
from thermodbm.run.fit_data import Points
from thermodbm.run.fit_units import Scales

BACKGROUND = {"g": 2.0, "scale": 1.0, "chi_0": 0.0, "curie": 0.0, "phonon_3": 0.0, "debye": 0.0, "debye_T": 300.0}
"""Parameters beside the couplings, and their values where they are not fitted."""
POSITIVE = ("g", "scale", "debye_T")
"""Those of them that are."""
TOO_COARSE, TOO_FINE = 1.1, 1.6
"""A Trotter step serves other couplings up to such factors; extrapolation and its error are of the step that was made."""
STAND_IN_SITES = 10
"""Most sites of the smaller magnet on which starts are looked for."""
OBSERVABLE = {"magnetization": "magnetization_z"}

Couplings = dict[str, Any]


class Curve(NamedTuple):
    """Model averages per site at the temperatures of one field, k_B = 1."""

    values: Mapping[str, np.ndarray]  # observable -> (n_T,)
    errors: Mapping[str, np.ndarray]  # (n_T,)
    slopes: Mapping[str, Mapping[str, np.ndarray]]  # observable -> coupling -> (n_T,); of a sampled curve, of all that it has
    slope_errors: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({})  # of a sampled curve
    covariance: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({})  # of observables and temperatures, (n_T, n_T), as of a curve

    def of(self, a: str, b: str) -> np.ndarray:
        """Covariance of the errors of two observables between all temperatures, (n_T, n_T); where nothing is known they are independent."""
        if b in self.covariance.get(a, {}):
            return self.covariance[a][b]
        if a in self.covariance.get(b, {}):
            return self.covariance[b][a].T
        return np.diag(self.errors[a] ** 2) if a == b else np.zeros((len(self.errors[a]),) * 2)


Source = Callable[[SpinHamiltonian, np.ndarray, Sequence[str], Sequence[str]], Curve]
"""(magnet, betas, observables, parameters) -> curve."""


@dataclass(frozen=True, eq=False)
class FitModel:
    """Predictions for all points, and their derivatives in all fitted parameters."""

    make: Callable[..., SpinHamiltonian]  # of the lattice and couplings
    lattice: Lattice
    couplings: Couplings  # of [model] in the unit of couplings: by name, or "J.leg" of a group of bonds
    scales: Scales
    points: Sequence[Points]  # every field and temperature known
    names: Sequence[str]  # of all fitted parameters
    fixed: Mapping[str, float]  # backgrounds that are not fitted
    source: Source

    def hamiltonian(self, theta: np.ndarray, field: float) -> SpinHamiltonian:
        """In kelvin. A field that is not a number stands for h of [model]."""
        values = {**self.couplings, **{n: t for n, t in zip(self.names, theta, strict=True) if n in self.couplings}}
        scaled = nested({n: v if is_ratio(n) else np.asarray(v, float) * self.scales.coupling for n, v in values.items()})
        if np.isfinite(field):
            scaled["h"] = self.background(theta)["g"] * self.scales.field * field
        return self.make(self.lattice, **scaled)

    def background(self, theta: np.ndarray) -> dict[str, float]:
        """All of `BACKGROUND`."""
        return {**BACKGROUND, **self.fixed, **{n: float(t) for n, t in zip(self.names, theta, strict=True) if n in BACKGROUND}}

    def curves(self, theta: np.ndarray, slopes: bool = True, more: Sequence[str] = ()) -> dict[float | None, tuple[np.ndarray, Curve]]:
        """Of every field: its temperatures, and what the model has there; of `more` observables than the data are of."""
        wanted: dict[float | None, tuple[set[float], set[str]]] = {}
        for p in self.points:
            for field in set(map(_key, p.field)):
                temperatures, names = wanted.setdefault(field, (set(), set()))
                temperatures.update(p.temperature[[_key(f) == field for f in p.field]].tolist())
                names.add(OBSERVABLE.get(p.quantity, p.quantity))
        found = {}
        for field, (temperatures, names) in wanted.items():
            T = np.array(sorted(temperatures))
            moving = [n for n in self.names if n in self.couplings] if slopes else []
            if slopes and "g" in self.names and field is not None:
                moving.append("h")
            magnet = self.hamiltonian(theta, np.nan if field is None else field)
            found[field] = T, self.source(magnet, 1 / T, sorted({*names, *more}), list(dict.fromkeys(moving)))
        return found

    def predict(
        self, theta: np.ndarray, curves: Mapping[float | None, tuple[np.ndarray, Curve]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (n_points,) in the units of the data, the covariance of their errors (n_points, n_points), and derivatives
        (n_points, n_parameters) where curves have slopes."""
        rows = [self._point(theta, p, k, *curves[_key(p.field[k])]) for p in self.points for k in range(len(p.value))]
        values, factors, slopes = zip(*rows, strict=True)
        return np.array(values), self._covariance(np.array(factors), curves), np.array(slopes)

    def _covariance(self, factors: np.ndarray, curves: Mapping[float | None, tuple[np.ndarray, Curve]]) -> np.ndarray:
        """Of all points, from that of the curve of each field: curves of different fields are independent."""
        fields = [_key(f) for p in self.points for f in p.field]
        names = np.array([OBSERVABLE.get(p.quantity, p.quantity) for p in self.points for _ in p.field])
        temperatures = np.concatenate([p.temperature for p in self.points])
        whole = np.zeros((len(names), len(names)))
        for field, (T, curve) in curves.items():
            here = np.array([f == field for f in fields])
            at = np.argmin(np.abs(temperatures[:, None] - T), axis=1)
            for a, b in product(set(names[here]), repeat=2):
                rows, columns = np.flatnonzero(here & (names == a)), np.flatnonzero(here & (names == b))
                whole[np.ix_(rows, columns)] = curve.of(a, b)[np.ix_(at[rows], at[columns])]
        return whole * factors * factors[:, None]

    def _point(self, theta: np.ndarray, p: Points, k: int, T: np.ndarray, curve: Curve) -> tuple[float, float, np.ndarray]:
        b, s, t = self.background(theta), self.scales, float(p.temperature[k])
        at, name = int(np.argmin(np.abs(T - t))), OBSERVABLE.get(p.quantity, p.quantity)
        g_power = {"susceptibility": 0 if s.reduced else 2, "magnetization": 1}.get(p.quantity, 0)
        unit = {
            "susceptibility": s.susceptibility,
            "magnetization": s.magnetization,
            "energy": 1 / s.coupling,
        }.get(p.quantity, s.specific_heat)
        factor = b["scale"] * unit * b["g"] ** g_power
        x = float(curve.values[name][at])
        extra = {
            "susceptibility": {"chi_0": 1.0, "curie": 1 / t},
            "specific_heat": {"phonon_3": t**3},
            "entropy": {"phonon_3": t**3 / 3},
        }.get(p.quantity, {})
        slopes = np.zeros(len(self.names))
        moved = {n: float(of[at]) for n, of in curve.slopes.get(name, {}).items()}
        for j, n in enumerate(self.names):
            if n in self.couplings:
                slopes[j] = factor * moved.get(n, 0.0) * (1.0 if is_ratio(n) else s.coupling)
            elif n == "scale":
                slopes[j] = factor * x / b["scale"]
            elif n == "g":
                through_field = moved.get("h", 0.0) * s.field * p.field[k] if np.isfinite(p.field[k]) else 0.0
                slopes[j] = factor * (g_power * x / b["g"] + through_field)
            else:
                slopes[j] = extra.get(n, 0.0)
        value = factor * x + sum(b[n] * slope for n, slope in extra.items())
        if p.quantity in ("specific_heat", "entropy") and (b["debye"] or "debye" in self.names):
            phonons, softening = (unit * y for y in debye(p.quantity, b["debye_T"] / t))
            for n, slope in (("debye", phonons), ("debye_T", b["debye"] * softening / t)):
                slopes += slope * np.array([n == name for name in self.names])
            value += b["debye"] * phonons
        return value, factor, slopes

    def stand_in(self) -> "FitModel | None":
        """The same on a lattice small enough to be diagonalised at once, with exact curves; None where there is no such."""
        if self.lattice.kind == "graph" or any(np.ndim(v) for v in self.couplings.values()):
            return self if self.lattice.n_sites <= STAND_IN_SITES else None
        extent, of_cell = list(self.lattice.size), self.lattice.n_sites // int(np.prod(self.lattice.size))
        while np.prod(extent) * of_cell > STAND_IN_SITES and max(extent) > 2:
            largest = int(np.argmax(extent))
            extent[largest] -= 2 if extent[largest] % 2 == 0 or extent[largest] > 5 else 1
        if np.prod(extent) * of_cell > STAND_IN_SITES + 2:
            return None
        lattice = make_lattice(self.lattice.kind, tuple(extent), self.lattice.periodic[: len(extent)])
        try:
            small = replace(self, lattice=lattice, source=exact_source())
            small.hamiltonian(np.ones(len(self.names)), np.nan)
        except InputError:
            return None
        return small


def debye(quantity: str, x: float) -> tuple[float, float]:
    """Specific heat or entropy of a vibrating atom over k_B, and its derivative in x = debye_T/T.

        D(x) = 3/x^3 int_0^x t^3/(e^t - 1) dt,   c = 3 (4 D - 3x/(e^x - 1)),   s = 4 D - 3 ln(1 - e^-x),   ds/dx = -c/x

    Source: Debye, Ann. Phys. 344, 789 (1912).
    """
    integral = quad(lambda t: t**3 / np.expm1(t) if t else 0.0, 0, min(x, 200.0))[0]
    D, bose = 3 / x**3 * integral, 1 / np.expm1(min(x, 700.0))
    c = 3 * (4 * D - 3 * x * bose)
    if quantity == "entropy":
        return 4 * D - 3 * np.log(-np.expm1(-x)), -c / x
    return c, 3 * (4 * (3 * bose - 3 * D / x) - 3 * bose + 3 * x * bose * (1 + bose))


def is_ratio(name: str) -> bool:
    """Whether a coupling has no unit: delta, or that of a group of bonds."""
    return name.partition(".")[0] == "delta"


def _key(field: float) -> float | None:
    return float(field) if np.isfinite(field) else None


def exact_source() -> Source:
    """Exact curves. Magnets are diagonalised in units of their largest coupling, and kept: a change of scale costs nothing."""
    kept: dict[tuple, Any] = {}

    def curve(magnet: SpinHamiltonian, betas: np.ndarray, observables: Sequence[str], names: Sequence[str]) -> Curve:
        leaves = {n: np.asarray(getattr(magnet, n), float) for n in ("zz", "xy", "x_field", "z_field")}
        unit = max(float(np.abs(x).max(initial=0.0)) for x in leaves.values()) or 1.0
        scaled = replace(magnet, **{n: x / unit for n, x in leaves.items()})
        key = (tuple(names), *(tuple(np.round(x / unit, 13).tolist()) for x in leaves.values()))
        if key not in kept:
            if len(kept) > 32:
                kept.clear()
            slopes = response_solver(scaled, parameters(scaled, names), observables) if names else None
            kept[key] = exact_solver(scaled), slopes
        solver, slopes = kept[key]
        power = {"energy": 1, "free_energy": 1, "susceptibility": -1}
        values = solver(betas * unit)
        _check_known(values, observables, "exact")
        found = {n: values[n] * unit ** power.get(n, 0) for n in observables}
        moved = slopes(betas * unit) if slopes else {}
        of = {n: {p: x * unit ** (power.get(n, 0) - (not is_ratio(p))) for p, x in moved[n].items()} for n in observables if n in moved}
        return Curve(found, {n: np.zeros(len(betas)) for n in observables}, of)

    return curve


def sampled_source(options: MethodOptions, sampling: SamplingOptions, steps: list[float] | None = None) -> Source:
    """Curves with derivatives and errors, of sampled rings or random vectors; the same seed at every call.

    Args:
        steps: Trotter steps of earlier calls, to which new ones are added. One that is about as fine as the couplings ask for serves
            again: programs belong to numbers of slices, and couplings that move a little must not compile new ones.
    """
    from thermodbm.run.api import thermal_curve

    used = [] if steps is None else steps

    def curve(magnet: SpinHamiltonian, betas: np.ndarray, observables: Sequence[str], names: Sequence[str]) -> Curve:
        method = options
        if isinstance(options, DeterministicOptions):
            method = with_step(options, used, default_d_tau(magnet, sampling.target_error))
        found = thermal_curve(magnet, beta=betas, method=method, sampling=sampling, response=list(names), progress=False)
        values, errors = _sampled_values(found, observables)
        slopes = {n: {p: e.mean for p, e in of.items()} for n, of in found.response.items()}
        slope_errors = {n: {p: e.error for p, e in of.items()} for n, of in found.response.items()}
        return Curve(values, errors, slopes, slope_errors, found.covariance)

    return curve


def plain_source(options: VariationalOptions, sampling: SamplingOptions) -> Source:
    """Curves of a method without derivatives; the same seed at every call."""
    from thermodbm.run.api import thermal_curve

    def curve(magnet: SpinHamiltonian, betas: np.ndarray, observables: Sequence[str], names: Sequence[str]) -> Curve:
        found = thermal_curve(magnet, beta=betas, method=options, sampling=sampling, progress=False)
        return Curve(*_sampled_values(found, observables), {}, {})

    return curve


def step_like(used: list[float], wanted: float) -> float:
    """One of the Trotter steps in use, if it is at most a little coarser than what is wanted and not much finer; else a new one, a little
    finer, which is put to them."""
    for step in used:
        if wanted / TOO_FINE < step < wanted * TOO_COARSE:
            return step
    used.append(wanted / TOO_COARSE)
    return used[-1]


def with_step(options: DeterministicOptions, used: list[float], wanted: float) -> DeterministicOptions:
    """With one of the Trotter steps in use, where there are steps and none is given."""
    return options if options.d_tau or options.sampler == "series" else replace(options, d_tau=step_like(used, wanted))


def source_of(options: MethodOptions, sampling: SamplingOptions, steps: list[float] | None = None) -> Source:
    """Of the method of a config."""
    if isinstance(options, ExactOptions):
        return exact_source()
    if isinstance(options, VariationalOptions):
        return plain_source(options, sampling)
    return sampled_source(options, sampling, steps)


def _sampled_values(found: Any, observables: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Means and errors of a curve, which must have all that is asked for."""
    _check_known(found.observables, observables, found.method)
    return {n: found.observables[n].mean for n in observables}, {n: found.observables[n].error for n in observables}


def _check_known(values: Mapping[str, Any], observables: Sequence[str], method: str) -> None:
    for name in observables:
        if name not in values:
            hint = 'Exact Ising rings of more than 12 sites have no susceptibility: use fewer sites or method.kind = "deterministic".'
            raise InputError("data", expected=f"quantities that method.kind = {method} has for this magnet", found=name, hint=hint)

"""Fits of sampled curves: few curves, each of which serves as long as couplings stay near, and no step that follows noise.

A curve is sampled at some couplings, with its derivatives (made smooth, `run.fit_slopes`). Near them the model is that curve plus its
derivatives times the distance; what is not linear is taken from a small magnet of the same kind that is diagonalised:

    y(theta) = y_small(theta) + (y - y_small)(theta_0) + (dy - dy_small)(theta_0) (theta - theta_0)

That is a smooth function without noise of its own, so any optimiser ends on it; and all of it is made of the same random numbers. A
new curve is sampled where it ends, until the step is so short that its square, which is what the linear part leaves, is small
against the errors. First curves are short; then there are as many samples as errors of parameters profit from, given those of the data.

Of a method without derivatives the small magnet gives all of them, as the curve's shape is much the same: steps then miss by a part of
themselves, and have to be shorter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import NamedTuple, TypeVar

import numpy as np

from thermodbm.evolve.options import SamplingOptions
from thermodbm.run.fit_model import Curve, FitModel, Source, is_ratio
from thermodbm.run.fit_search import Residuals, Scale, minimise
from thermodbm.run.fit_slopes import ENERGETIC, smooth_slopes
from thermodbm.run.sections import FitSection

FIRST = 1 / 8
"""Of all samples, in the first curves."""
ENOUGH = 1.15
"""Errors of parameters over those of data alone, from which on more samples are not worth their time."""
LEAP = 0.4
"""Most that a coupling moves from one curve to the next, in its logarithm."""
LEFT_OVER, HALF, FIFTH = 0.1, 0.5, 0.2
"""A step is short if its square is at most LEFT_OVER errors, or the step itself HALF an error, of couplings that are hardly determined;
with derivatives of a small magnet alone, whose steps miss by a part of themselves, a FIFTH."""
MAX_ROUNDS = 10
RIVAL = 30.0
"""Ends of first curves whose chi^2 is larger than the least by more than this are given up: it has the noise of these curves."""
AS_GOOD = 10.0
"""Ends whose chi^2 is larger than the least by at most this are told, for the same reason."""
APART = 0.1
"""Distance in the logarithms of couplings beyond which ends are different."""
TOLERANCE = 1e-8

Curves = Mapping[float | None, tuple[np.ndarray, Curve]]


@dataclass(frozen=True, eq=False)
class LocalModel(FitModel):
    """A fit's model near the couplings at which curves were sampled."""

    theta: np.ndarray = None  # of the curves
    sampled: Curves = None  # with smooth derivatives
    small: FitModel | None = None
    small_curves: Curves | None = None  # at theta

    @property
    def has_slopes(self) -> bool:
        """Whether the curves have derivatives of their own, and not those of the small magnet alone."""
        return all(curve.slopes for _, curve in self.sampled.values())

    def curves(self, theta: np.ndarray, slopes: bool = True, more: Sequence[str] = ()) -> dict[float | None, tuple[np.ndarray, Curve]]:
        """As of `FitModel`, but always with derivatives and never of more."""
        near = self.small.curves(theta) if self.small else None
        return {field: (T, self._moved(theta, field, curve, near)) for field, (T, curve) in self.sampled.items()}

    def _moved(self, theta: np.ndarray, field: float | None, curve: Curve, near: Curves | None) -> Curve:
        shift, values, slopes = self._shift(theta, field), {}, {}
        for name, value in curve.values.items():
            rest = dict(curve.slopes.get(name, {}))
            moved: Mapping[str, np.ndarray | float] = dict.fromkeys(rest, 0.0)
            if near is not None:
                here, there = near[field][1], self.small_curves[field][1]
                value = value - there.values[name] + here.values[name]
                moved = here.slopes.get(name, {})
                rest = {n: rest[n] - there.slopes[name][n] if n in rest else np.zeros(len(value)) for n in moved}
            values[name] = value + sum(x * shift[n] for n, x in rest.items())
            slopes[name] = {n: x + moved[n] for n, x in rest.items()}
        return curve._replace(values=values, slopes=slopes)

    def _shift(self, theta: np.ndarray, field: float | None) -> dict[str, float]:
        """By how much every coupling of the Hamiltonian is away from that of the curves; a field along z with g."""
        away = {n: float(t - t_0) for n, t, t_0 in zip(self.names, theta, self.theta, strict=True)}
        shift = {n: x * (1.0 if is_ratio(n) else self.scales.coupling) for n, x in away.items() if n in self.couplings}
        if field is not None:
            shift["h"] = away.get("g", 0.0) * self.scales.field * field
        return shift


class Problem(NamedTuple):
    """What is fitted, and with what."""

    model: FitModel
    sources: Callable[[float], Source]  # of curves with a share of the samples
    section: FitSection
    scale: Scale
    small: FitModel | None
    first: float = FIRST  # share of the samples of first curves


class End(NamedTuple):
    """Where a curve and the step from it led."""

    theta: np.ndarray
    residuals: Residuals  # of the model near the curve
    chi2: float
    step: np.ndarray  # in the optimiser's coordinates, from the couplings of the curve; 0 of what does not move the magnet
    short: np.ndarray  # most that a step may be
    share: float  # of the samples, of the curve
    worth: float  # the share that pays
    n_curves: int

    @property
    def converged(self) -> bool:
        """Whether no further curve is needed."""
        return bool(np.all(self.step <= self.short)) and self.worth <= self.share


def local_model(model: FitModel, theta: np.ndarray, small: FitModel | None) -> LocalModel:
    """Curves of the model's source at theta, and what follows from them nearby."""
    small_curves = small.curves(theta, more=ENERGETIC) if small else None
    sampled = {field: (T, _smooth(T, curve, small_curves and small_curves[field][1])) for field, (T, curve) in model.curves(theta).items()}
    given = {f.name: getattr(model, f.name) for f in fields(FitModel)}
    return LocalModel(**given, theta=theta.copy(), sampled=sampled, small=small, small_curves=small_curves)


def _smooth(T: np.ndarray, curve: Curve, expected: Curve | None) -> Curve:
    names = dict.fromkeys(p for of in curve.slopes.values() for p in of)
    wanted = [n for n in curve.slopes if n in (*curve.values, *ENERGETIC)]
    found: dict[str, dict[str, np.ndarray]] = {n: {} for n in wanted}
    for p in names:
        raw, errors = ({n: of[n][p] for n in wanted} for of in (curve.slopes, curve.slope_errors))
        mean = {n: expected.slopes[n][p] for n in wanted if expected and p in expected.slopes.get(n, {})}
        for n, x in smooth_slopes(T, raw, errors, mean).items():
            found[n][p] = x
    return curve._replace(slopes=found)


def fewer(sampling: SamplingOptions, share: float) -> SamplingOptions:
    """A share of the samples."""
    target = sampling.target_error and sampling.target_error * share**-0.5
    return replace(sampling, n_samples=max(round(sampling.n_samples * share), sampling.n_chains), target_error=target)


def solve_sampled(problem: Problem, starts: Sequence[np.ndarray]) -> tuple[End, list[End]]:
    """The best end of all starts, and others that the data do not tell from it; of these the nearest to the start of the config is best."""
    scale, firsts = problem.scale, []
    for theta in _distinct(problem, starts, lambda start: start):
        end = _round(problem, theta, problem.first, 0)
        while np.max(end.step) > 0.9 * LEAP and end.n_curves < MAX_ROUNDS // 2:
            end = _round(problem, end.theta, problem.first, end.n_curves)
        firsts.append(end)
    firsts.sort(key=attrgetter("chi2"))
    n_curves = sum(end.n_curves for end in firsts)
    begun = [end for end in _distinct(problem, firsts, lambda end: end.theta) if end.chi2 < firsts[0].chi2 + RIVAL]
    ends = sorted((_finished(problem, end) for end in begun), key=attrgetter("chi2"))
    n_curves += sum(end.n_curves - before.n_curves for end, before in zip(ends, begun, strict=True))
    as_good = [end for end in _distinct(problem, ends, lambda end: end.theta) if end.chi2 < ends[0].chi2 + AS_GOOD]
    start = scale.to_x(scale.start)
    best = min(as_good, key=lambda end: float(np.linalg.norm((scale.to_x(end.theta) - start) / _sizes(problem, end.theta))))
    return best._replace(n_curves=n_curves), [end for end in as_good if end is not best]


Found = TypeVar("Found")


def _distinct(problem: Problem, found: Sequence[Found], place: Callable[[Found], np.ndarray]) -> list[Found]:
    """Those that are not at the couplings of an earlier one."""
    kept: list[Found] = []
    for each in found:
        x, size = problem.scale.to_x(place(each)), _sizes(problem, place(each))
        if all(np.max(np.abs(x - problem.scale.to_x(place(other))) / size) > APART for other in kept):
            kept.append(each)
    return kept


def _sizes(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """What distances in the optimiser's coordinates are compared with: 1 of a logarithm, else the parameter itself; no distance counts of
    backgrounds, in which the model is exact at any distance from a curve."""
    scale = problem.scale
    moving = np.array([n in problem.model.couplings or n == "g" for n in problem.model.names])
    return np.where(moving, np.where(scale.log, 1.0, np.maximum(np.abs(theta), np.abs(scale.start)) + 1e-300), np.inf)


def _finished(problem: Problem, end: End) -> End:
    """Further curves and steps, with as many samples as pay from where the next step will be short."""
    while not end.converged and end.n_curves < MAX_ROUNDS:
        share = end.worth if np.all(end.step**2 <= end.short) else end.share
        end = _round(problem, end.theta, share, end.n_curves)
    return end


def _round(problem: Problem, theta: np.ndarray, share: float, n_curves: int) -> End:
    """A curve at theta and the step from it."""
    scale, model = problem.scale, problem.model
    residuals = Residuals(local_model(replace(model, source=problem.sources(share)), theta, problem.small), problem.section)
    x, size = scale.to_x(theta), _sizes(problem, theta)
    found = minimise(residuals, scale.within(x - LEAP * size, x + LEAP * size), theta, TOLERANCE, 200)
    end = scale.to_theta(found.x)
    error = _spread(residuals.evaluate(end)[1] * scale.slope(end)) / size
    short = np.maximum(np.sqrt(LEFT_OVER * error), HALF * error) if residuals.model.has_slopes else FIFTH * error
    return End(
        end, residuals, 2 * float(found.cost), np.abs(found.x - x) / size, short,
        share, _worth(residuals, end, share), n_curves + 1,
    )  # fmt: skip


def _spread(jacobian: np.ndarray) -> np.ndarray:
    """Standard deviations of parameters, (n_parameters,); large where the data say nothing."""
    size = np.maximum(np.sqrt(np.sum(jacobian**2, 0)), 1e-300)
    _, singular, ways = np.linalg.svd(jacobian / size, full_matrices=False)
    return np.sqrt(np.sum((ways.T / np.maximum(singular, 1e-8)) ** 2, 1)) / size


def _worth(residuals: Residuals, theta: np.ndarray, share: float) -> float:
    """The share of the samples, doubled until errors of parameters are near those that they had without errors of the model."""
    alone = _spread(residuals.weighed(theta, 1e-9)[1])
    worth = share
    while worth < 1 and np.max(_spread(residuals.weighed(theta, share / worth)[1]) / alone) > ENOUGH:
        worth = min(2 * worth, 1.0)
    return worth

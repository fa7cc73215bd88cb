"""Files joined to one: curves of different seeds averaged, temperatures added.

Averages are weighted by the numbers of samples of each temperature, which do not know of the noise: x = sum_i n_i x_i / sum_i n_i, with
sigma^2 = sum_i n_i^2 sigma_i^2 / (sum_i n_i)^2, is the average by inverse variances where errors go by the numbers of samples, and has no
bias where an error follows its value. What joins several temperatures (entropy, free energy, specific heat) is made anew from the averages.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from thermodbm.errors import InputError
from thermodbm.estimate.covariance import DIRECT, MEASURED, correlation_key
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.method import Point, ThermalMethod
from thermodbm.models.observables import OBSERVABLES
from thermodbm.run.checkpoint import Checkpoint
from thermodbm.run.collect import curve_of
from thermodbm.run.config import RunConfig, parse_config
from thermodbm.run.hdf5 import flatten
from thermodbm.run.results import ThermalCurve
from thermodbm.run.runner import make_method

JOINT = ("entropy", "free_energy", "specific_heat")
"""What is known from all temperatures together."""
MAY_DIFFER = ("sampling/seed", "sampling/n_samples", "output/")
DISAGREE = 1e-4
"""Probability of a chi^2 of the energies below which files are said to disagree at a temperature."""
REFUSED = {
    "exact": "Exact curves have no errors that would shrink.",
    "learned": "The error of its networks is the same for all seeds.",
    "variational": "What its trial state misses is the same for all seeds.",
}


class Agreement(NamedTuple):
    """How far files of different seeds scatter about their average, of one observable."""

    chi2: float
    n: int  # degrees of freedom
    p: float  # probability of such a chi^2 or a larger one


def merge(curves: Sequence[ThermalCurve], names: Sequence[str] = ()) -> tuple[ThermalCurve, dict[str, Agreement]]:
    """The average of curves that differ in their seeds (and numbers of samples) alone, and how well they agree.

    Errors are taken to be independent. What extrapolation in the Trotter step may have missed is not: it does not shrink with the number of
    files. Series of chains are not kept.

    Args:
        names: of the files, for complaints.

    Raises:
        InputError: for fewer than two curves, unfinished ones, the same seed twice, other configs (naming the key that differs) and methods
            whose errors do not shrink.
    """
    names = names or [f"curve {k}" for k in range(1, len(curves) + 1)]
    _check(curves, names)
    n = [np.nan_to_num(c.diagnostics.get("n_samples", np.ones(len(c.beta))), nan=1.0) for c in curves]
    observables = _averages([c.observables for c in curves], n)
    response = {
        name: _averages([c.response[name] for c in curves], n) for name in curves[0].response if all(name in c.response for c in curves)
    }
    agreement = {
        name: _agreement([c.observables[name] for c in curves])[0]
        for name, e in observables.items()
        if np.ndim(e.mean) == 1 and not (name in JOINT and "specific_heat_direct" in observables) and np.any(e.error > 0)
    }
    diagnostics = {name: values for name, values in curves[0].diagnostics.items() if all(name in c.diagnostics for c in curves)}
    for name, add in (("wall_time_s", np.sum), ("n_samples", np.sum), ("average_sign", np.mean)):
        if name in diagnostics:
            diagnostics[name] = add([c.diagnostics[name] for c in curves], axis=0)
    if "average_sign_error" in diagnostics:
        diagnostics["average_sign_error"] = np.sqrt(np.sum([c.diagnostics["average_sign_error"] ** 2 for c in curves], 0)) / len(curves)
    diagnostics |= _correlations(curves, n, observables)
    doubts = np.bitwise_or.reduce([[int(d) for d in c.doubts] for c in curves])
    doubts |= np.where(_agreement([c.observables["energy"] for c in curves])[1] < DISAGREE, int(Doubt.MIXING), 0)
    diagnostics |= {"doubts": doubts.astype(float), "trusted": (doubts == 0).astype(float)}
    tables = tomllib.loads(curves[0].config)
    if "n_samples" in tables.get("sampling", {}):
        tables["sampling"]["n_samples"] = sum(tomllib.loads(c.config)["sampling"]["n_samples"] for c in curves)
    points = [_point(observables, response, diagnostics, curves[0].network, k) for k in range(len(curves[0].beta))]
    return _rejoined(tables, dict(enumerate(points)), curves), agreement


def with_temperatures(curve: ThermalCurve, more: ThermalCurve) -> ThermalCurve:
    """A curve with the temperatures of another one of the same magnet behind its own; both finished."""
    tables, added = tomllib.loads(curve.config), tomllib.loads(more.config)
    ((kind, old),), (new,) = tables["temperature"].items(), added["temperature"].values()
    tables["temperature"] = {kind: [*old, *new]}
    points, n, m = {}, len(old), len(new)
    for source, size, offset in ((curve, n, 0), (more, m, n)):
        for k in range(len(source.beta)):
            at = k // size * (n + m) + offset + k % size
            points[at] = _point(source.observables, source.response, source.diagnostics, source.network, k)
            if source.series:
                points[at] = points[at]._replace(series=source.series[k])
    return _rejoined(tables, points, [curve, more])


def fresh_seed(curve: ThermalCurve, purpose: str) -> int:
    """A seed that the samples of a curve have not come from, always the same for the same purpose."""
    return int.from_bytes(hashlib.sha256(f"{sorted(curve.seeds)} {purpose}".encode()).digest()[:4], "big")


def _rejoined(tables: dict[str, Any], points: dict[int, Point], curves: Sequence[ThermalCurve]) -> ThermalCurve:
    """A finished curve of points each on its own, with what joins temperatures."""
    tables.get("output", {}).pop("file", None)
    config = parse_config(tables)

    def method_of(number: int) -> ThermalMethod:
        part: RunConfig = config.sweeps[number]
        return make_method(part.hamiltonian, part.method, part.sampling, betas=part.betas, response=part.response, second=part.second)

    seeds = tuple(dict.fromkeys(seed for c in curves for seed in c.seeds))
    joined = curve_of(config, method_of, Checkpoint(points, 0, {}, sum(c.wall_time for c in curves), 0.0), {})
    return replace(joined, more_seeds=seeds[1:])


def _point(
    observables: Mapping[str, Estimate],
    response: Mapping[str, Mapping[str, Estimate]],
    diagnostics: Mapping[str, np.ndarray],
    network: Sequence[Mapping[str, np.ndarray]],
    k: int,
) -> Point:
    """One temperature as it was before all were joined: the specific heat is its own again."""
    at = lambda e: Estimate(*(None if x is None else x[k] for x in e))  # noqa: E731
    found = {name: at(e) for name, e in observables.items() if np.isfinite(e.mean[k]).any() or name == "energy"}
    if "specific_heat_direct" in found:
        found["specific_heat"] = found.pop("specific_heat_direct")
    derivatives = {name: {p: at(e) for p, e in of.items()} for name, of in response.items()}
    return Point(found, {name: values[k] for name, values in diagnostics.items()}, network[k], derivatives)


def _averages(tables: Sequence[Mapping[str, Estimate]], n: Sequence[np.ndarray]) -> dict[str, Estimate]:
    """By name, of those that all have; entries that one file does not know are those of the others."""
    found = {}
    for name, first in tables[0].items():
        if all(name in table and table[name].mean.shape == first.mean.shape for table in tables):
            found[name] = _average([table[name] for table in tables], n)
    return found


def _correlations(curves: Sequence[ThermalCurve], n: Sequence[np.ndarray], averages: Mapping[str, Estimate]) -> dict[str, np.ndarray]:
    """Correlations of the errors of two averages at each temperature: sum_i n_i^2 rho_i sigma_i sigma'_i / (sigma sigma' (sum_i n_i)^2)."""
    weights, found = np.stack(n) / np.sum(n, axis=0), {}
    for a, b in combinations(MEASURED, 2):
        key, (x, y) = correlation_key(a, b), (DIRECT if name == "specific_heat" and DIRECT in averages else name for name in (a, b))
        if not (all(key in c.diagnostics for c in curves) and x in averages and y in averages):
            continue
        shared = sum(
            w**2 * c.diagnostics[key] * c.observables[x].error * c.observables[y].error for w, c in zip(weights, curves, strict=True)
        )
        errors = averages[x].error * averages[y].error
        known = np.isfinite(shared) & np.isfinite(errors) & (errors > 0)
        found[key] = np.clip(np.divide(shared, errors, out=np.zeros_like(errors), where=known), -1, 1)
    return found


def _average(estimates: Sequence[Estimate], n: Sequence[np.ndarray]) -> Estimate:
    mean, error = np.stack([e.mean for e in estimates]), np.stack([e.error for e in estimates])
    known = np.isfinite(mean) & np.isfinite(error)
    known |= ~known.any(0)  # what nobody knows stays unknown
    w = np.stack(n).reshape(len(n), -1, *(1,) * (mean.ndim - 2)) * known
    w = w / w.sum(0)
    x = np.sum(np.where(known, mean, 0.0) * w, 0)
    sigma = np.sqrt(np.sum(np.where(known, error, 0.0) ** 2 * w**2, 0))
    if any(e.n_eff is None or e.tau_int is None for e in estimates):
        return Estimate(x, sigma)
    n_eff = np.sum([e.n_eff for e in estimates], axis=0)
    draws = np.sum([2 * e.tau_int * e.n_eff for e in estimates], axis=0)
    r_hat = None if any(e.r_hat is None for e in estimates) else np.max([e.r_hat for e in estimates], axis=0)
    return Estimate(x, sigma, draws / (2 * n_eff), r_hat, n_eff)


def _agreement(estimates: Sequence[Estimate]) -> tuple[Agreement, np.ndarray]:
    """Of all temperatures, and the probability at each of them, (n_T,): chi^2 = sum_i (x_i - x)^2 / sigma_i^2 about the average by inverse
    variances, of k - 1 degrees of freedom."""
    mean, error = np.stack([e.mean for e in estimates]), np.stack([e.error for e in estimates])
    known = (np.isfinite(mean) & np.isfinite(error) & (error > 0)).all(0)
    w = np.where(known, error, 1.0) ** -2
    x = np.where(known, mean, 0.0)
    square = np.sum(w * (x - np.sum(w * x, 0) / np.sum(w, 0)) ** 2, 0)
    each = np.where(known, chi2.sf(square, len(estimates) - 1), 1.0)
    n = int(known.sum()) * (len(estimates) - 1)
    total = float(square.sum())
    return Agreement(total, n, float(chi2.sf(total, n)) if n else 1.0), each


def _check(curves: Sequence[ThermalCurve], names: Sequence[str]) -> None:
    if len(curves) < 2:
        raise InputError("merge", expected="at least two files", found=len(curves))
    for curve, name in zip(curves, names, strict=True):
        if not curve.finished:
            raise InputError(name, expected="a finished run", found="an unfinished one", hint=f"Finish it: `thermodbm resume {name}`.")
        if curve.method in REFUSED:
            hint = REFUSED[curve.method]
            raise InputError(name, expected="results of method.kind = deterministic or typical", found=curve.method, hint=hint)
    first, *others = ({k: v for k, v in flatten(tomllib.loads(c.config)).items() if not k.startswith(MAY_DIFFER)} for c in curves)
    for other, name in zip(others, names[1:], strict=True):
        for key in dict.fromkeys([*first, *other]):
            if first.get(key) != other.get(key):
                found = f"{first.get(key, 'nothing')} in {names[0]} and {other.get(key, 'nothing')} in {name}"
                raise InputError(key.replace("/", "."), expected="the same in all files", found=found)
    seen: dict[int, str] = {}
    for curve, name in zip(curves, names, strict=True):
        for seed in curve.seeds:
            if seed in seen:
                hint = "Samples of one seed are the same samples."
                raise InputError("sampling.seed", expected="seeds that differ", found=f"{seed} in {seen[seed]} and {name}", hint=hint)
            seen[seed] = name


def part_config(curve: ThermalCurve, temperatures: Sequence[float], samples: int | None, output: str) -> RunConfig:
    """What is to be run to add temperatures, or samples, to a finished curve.

    Raises:
        InputError: for neither or both, temperatures that are there already, and samples where there are none.
    """
    if bool(temperatures) == (samples is not None):
        raise InputError("extend", expected="either --T or --samples", found="both" if temperatures else "neither")
    tables = tomllib.loads(curve.config)
    if unknown := sorted(set(curve.observables) - set(OBSERVABLES)):
        raise InputError("extend", expected="a run without observables of one's own", found=", ".join(unknown))
    if temperatures:
        for T in temperatures:
            if np.isclose(curve.temperature, T, rtol=1e-9, atol=0).any():
                raise InputError("--T", expected="temperatures that the file does not have", found=T)
        inverse = [1 / T if T else float("inf") for T in temperatures]
        tables["temperature"] = {"T": list(temperatures)} if "T" in tables["temperature"] else {"beta": inverse}
        purpose = f"T {list(temperatures)}"
    else:
        if curve.method != "deterministic":
            raise InputError("--samples", expected="a result of method.kind = deterministic", found=curve.method)
        tables["sampling"]["n_samples"] = samples
        tables["sampling"].pop("target_error", None)
        purpose = f"samples {samples}"
    tables.setdefault("sampling", {})["seed"] = fresh_seed(curve, purpose)
    tables.setdefault("output", {})["file"] = output
    return parse_config(tables)

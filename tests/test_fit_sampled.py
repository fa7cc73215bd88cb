"""Fits of sampled curves: few curves, no step that follows noise, and derivatives that all temperatures agree on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

import thermodbm as tb
from thermodbm.evolve.options import SamplingOptions
from thermodbm.exact import exact_curve
from thermodbm.exact.response import response_solver
from thermodbm.models.parameters import parameters
from thermodbm.run.config import parse_config
from thermodbm.run.fit import _model
from thermodbm.run.fit_data import Points
from thermodbm.run.fit_model import Curve, exact_source, step_like
from thermodbm.run.fit_sampled import Problem, fewer, local_model, solve_sampled
from thermodbm.run.fit_search import Scale
from thermodbm.run.fit_slopes import ENERGETIC, smooth_slopes

RING, T = tb.make_lattice("chain", 12), np.geomspace(0.2, 3.0, 16)
TRUTH = {"J": 1.0, "gamma": 0.8}
NAMES = ["free_energy", "energy", "entropy", "specific_heat"]


@pytest.fixture(scope="module")
def clean():
    """Curves and derivatives of the Ising ring at the true couplings."""
    magnet = tb.transverse_field_ising(RING, **TRUTH)
    return exact_curve(magnet, 1 / T), response_solver(magnet, parameters(magnet, list(TRUTH)), NAMES)(1 / T)


def noisy_source(rng, error=0.004):
    """Exact curves with noise as that of samples: derivatives of the specific heat are lost in it."""
    exact = exact_source()
    width = {"free_energy": 0.1, "energy": 1.0, "entropy": 1.0, "specific_heat": 40.0}

    def sources(share):
        sigma = error * share**-0.5

        def curve(magnet, betas, observables, names):
            found = exact(magnet, betas, NAMES, names)
            values = {n: found.values[n] + sigma * rng.normal(size=len(betas)) for n in observables}
            errors = {n: np.full(len(betas), sigma) for n in observables}
            slope_errors = {n: {p: np.full(len(betas), sigma * width[n]) for p in names} for n in NAMES}
            slopes = {n: {p: found.slopes[n][p] + slope_errors[n][p] * rng.normal(size=len(betas)) for p in names} for n in NAMES}
            sources.curves.append(share)
            return Curve(values, errors, slopes, slope_errors)

        return curve

    sources.curves = []
    return sources


def problem_of(curve, rng, sources, start):
    """A fit to the specific heat and the energy with 1% of noise."""
    tables = {"lattice": {"kind": "chain", "extent": [12]}, "model": {"kind": "tfim"}, "temperature": {"T": [1.0]}}
    tables |= {
        "method": {"kind": "exact"},
        "fit": {"parameters": {n: {"start": x} for n, x in start.items()}, "units": {"temperature": "J"}},
    }
    nowhere = np.full(len(T), np.nan)
    points = [
        Points("made up", name, T, nowhere, curve[name] * (1 + 0.01 * rng.normal(size=len(T))), 0.01 * np.abs(curve[name]))
        for name in ("specific_heat", "energy")
    ]
    model, section = _model(parse_config(tables), points)
    small = replace(model, lattice=tb.make_lattice("chain", 6), source=exact_source())
    return Problem(model, sources, section, Scale(model.names, section, model.couplings), small)


def test_few_curves_lead_to_couplings_within_their_errors(clean):
    """Starts are off by 15%. Errors hold the noise of the model; pulls have a width of one, and chi^2 follows its distribution."""
    pulls, chi2 = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sources = noisy_source(rng)
        start = {n: x * np.exp(0.15 * rng.normal()) for n, x in TRUTH.items()}
        end, _ = solve_sampled(problem_of(clean[0], rng, sources, start), [np.array(list(start.values()))])
        assert end.converged and len(sources.curves) == end.n_curves <= 5
        assert sources.curves[0] == 1 / 8
        jacobian = end.residuals.evaluate(end.theta)[1]
        pulls.append((end.theta - list(TRUTH.values())) / np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian))))
        chi2.append(end.chi2)
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.8
    assert kstest(chi2, "chi2", args=(2 * len(T) - 2,)).pvalue > 1e-3


def test_samples_grow_only_as_far_as_they_pay(clean):
    """Where the first curves are far better than the data, there are no others than first ones."""
    rng = np.random.default_rng(3)
    sources = noisy_source(rng, error=1e-5)
    end, others = solve_sampled(problem_of(clean[0], rng, sources, TRUTH), [np.array([1.05, 0.76])])
    assert end.converged and set(sources.curves) == {1 / 8} and not others


def test_ends_that_are_as_good_are_told(clean):
    """Energy and specific heat hardly change when J and gamma are exchanged; the end near the start of the config is given."""
    rng = np.random.default_rng(4)
    warm = T > 0.8
    curve = {name: np.where(warm, clean[0][name], np.nan) for name in ("energy", "specific_heat")}
    problem = problem_of(curve, rng, noisy_source(rng), TRUTH)
    kept = [p._replace(**{f: getattr(p, f)[warm] for f in ("temperature", "field", "value", "error")}) for p in problem.model.points]
    object.__setattr__(problem.model, "points", kept)
    object.__setattr__(problem.small, "points", kept)
    end, others = solve_sampled(problem, [np.array([0.8, 1.0]), np.array([1.0, 0.8])])
    assert end.theta[0] > end.theta[1] and len(others) == 1 and others[0].theta[0] < others[0].theta[1]


def test_the_model_near_a_curve_is_the_curve_and_its_derivatives(clean):
    """There it has the values that were sampled; with exact curves, derivatives at a distance are differences of it."""
    rng = np.random.default_rng(5)
    problem = problem_of(clean[0], rng, noisy_source(rng, error=1e-9), TRUTH)
    theta = np.array([1.1, 0.7])
    sampled = replace(problem.model, source=problem.sources(1.0))
    for small in (problem.small, None):
        model = local_model(sampled, theta, small)
        values = model.predict(theta, model.curves(theta))[0]
        exact = problem.model.predict(theta, problem.model.curves(theta))[0]
        np.testing.assert_allclose(values, exact, rtol=1e-6)
        away = theta * [1.05, 0.97]
        slopes = model.predict(away, model.curves(away))[2]
        for j in range(2):
            step = 1e-5 * np.eye(2)[j]
            up, down = (model.predict(t, model.curves(t))[0] for t in (away + step, away - step))
            np.testing.assert_allclose(slopes[:, j], (up - down) / 2e-5, rtol=1e-4, atol=1e-6)


def test_a_small_magnet_has_the_derivatives_that_a_method_lacks(clean):
    """Curves without derivatives lead to where those with exact ones do, to a part of an error."""
    ends = []
    for has_slopes in (True, False):
        rng = np.random.default_rng(6)
        problem = problem_of(clean[0], rng, noisy_source(rng, error=1e-9), TRUTH)
        exact = problem.sources(1.0)

        def curve(*asked, exact=exact):
            return exact(*asked)._replace(slopes={})

        small = replace(problem.small, lattice=tb.make_lattice("chain", 10))
        problem = problem._replace(first=1.0, small=small, sources=lambda share, curve=exact if has_slopes else curve: curve)
        ends.append(solve_sampled(problem, [np.array([1.2, 0.7])])[0])
    errors = [np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian))) for jacobian in (e.residuals.evaluate(e.theta)[1] for e in ends)]
    assert ends[1].converged and not ends[1].residuals.model.has_slopes
    assert np.max(np.abs(ends[1].theta - ends[0].theta) / errors[0]) < 0.8  # of 12 sites by the derivatives of 10
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.3)


def test_derivatives_of_all_temperatures_together(clean):
    """They are several times nearer to the exact ones than those of each temperature, with a smaller magnet as a guide or without."""
    rng, exact = np.random.default_rng(1), clean[1]
    small = tb.transverse_field_ising(tb.make_lattice("chain", 8), **TRUTH)
    guide = response_solver(small, parameters(small, list(TRUTH)), NAMES)(1 / T)
    width = {"free_energy": 1e-3, "energy": 1e-2, "entropy": 1e-2, "specific_heat": 0.3}
    for p in TRUTH:
        slopes = {n: exact[n][p] + width[n] * rng.normal(size=len(T)) for n in ENERGETIC}
        errors = {n: np.full(len(T), width[n]) for n in ENERGETIC}
        slopes["specific_heat"][3], errors["specific_heat"][3] = np.nan, np.inf
        for mean, gain in (({n: guide[n][p] for n in ENERGETIC}, 6.0), ({}, 3.0)):
            found = smooth_slopes(T, slopes, errors, mean)
            for name in ("energy", "specific_heat"):
                off = np.sqrt(np.mean((found[name] - exact[name][p]) ** 2))
                assert off < width[name] / (gain if name == "specific_heat" else 1.5), (p, name)


def test_trotter_steps_serve_again():
    used = []
    first = step_like(used, 0.1)
    assert first < 0.1 and step_like(used, 0.097) == first and step_like(used, 0.12) == first and used == [first]
    assert step_like(used, 0.05) < 0.05 and len(used) == 2


def test_fewer_samples():
    assert fewer(SamplingOptions(n_samples=8000), 1 / 8).n_samples == 1000
    assert fewer(SamplingOptions(target_error=1e-3), 0.25).target_error == pytest.approx(2e-3)


def test_magnetisation_curves_and_backgrounds_by_sampled_rings(tmp_path):
    """J, g and chi_0 of six spins from magnetisations in three fields and a susceptibility, with the intervals of their profiles."""
    ring, truth = tb.make_lattice("chain", 6), {"J": 5.0, "g": 2.1, "chi_0": 0.02}
    fields, temperatures = np.array([2.0, 5.0, 9.0]), np.array([3.0, 6.0, 12.0])
    rng, rows = np.random.default_rng(7), ["temperature,field,magnetization,magnetization_error"]
    for h in fields:
        m = truth["g"] * exact_curve(tb.heisenberg(ring, J=truth["J"], h=0.67171 * truth["g"] * h), 1 / temperatures)["magnetization_z"]
        rows += [f"{t},{h},{x * (1 + 0.01 * rng.normal()):.8g},{0.01 * x:.8g}" for t, x in zip(temperatures, m, strict=True)]
    chi = 0.37515 * truth["g"] ** 2 * exact_curve(tb.heisenberg(ring, J=truth["J"]), 1 / temperatures)["susceptibility"] + truth["chi_0"]
    plain = ["temperature,susceptibility,susceptibility_error"]
    plain += [f"{t},{x * (1 + 0.01 * rng.normal()):.8g},{0.01 * x:.8g}" for t, x in zip(temperatures, chi, strict=True)]
    files = [tmp_path / "m.csv", tmp_path / "chi.csv"]
    for file, lines in zip(files, (rows, plain), strict=True):
        file.write_text("\n".join(lines) + "\n")
    starts = {"J": {"start": 8.0}, "g": {"start": 2.0}, "chi_0": {"start": 0.0}}
    config = {"lattice": {"kind": "chain", "extent": [6]}, "model": {"kind": "heisenberg"}, "sampling": {"n_samples": 4000}}
    found = tb.fit(files, config | {"method": {"kind": "deterministic"}, "fit": {"parameters": starts, "profile": True}})
    assert found.converged and found.chi2_reduced < 3
    for name, (value, error) in found.parameters.items():
        assert abs(value - truth[name]) < 4.5 * error < 0.2 * max(truth[name], 1.0), name
        assert found.intervals[name][0] < value < found.intervals[name][1]
    assert set(found.curve.response["susceptibility"]) == {"J"}

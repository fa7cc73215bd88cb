"""Covariances between quantities of one run: of one temperature, through the extrapolation, and through curves that join temperatures."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kstest

import thermodbm as tb
from thermodbm.estimate.covariance import MEASURED, combined_correlations, correlation_key, with_correlations
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.thermodynamics import join_thermodynamics
from thermodbm.exact import exact_curve
from thermodbm.exact.response import response_solver
from thermodbm.models.parameters import parameters


def test_correlations_go_through_the_combination_of_levels():
    """Of two levels with weights 2 and -1 they are what sums of normal numbers have; what a combination adds to an error is independent."""
    combine = lambda name, found: Estimate(2 * found[0].mean - found[1].mean, np.nan)  # noqa: E731
    sigma = {"energy": (0.1, 0.3), "specific_heat": (1.0, 2.0), "susceptibility": (0.5, 0.5)}
    levels = [{name: Estimate(np.asarray(1.0), np.asarray(s[k])) for name, s in sigma.items()} for k in range(2)]
    rho = [np.eye(4) + r * (1 - np.eye(4)) for r in (0.6, -0.4)]
    errors = {name: np.hypot(2 * s[0], s[1]) for name, s in sigma.items()}
    observables = {name: Estimate(np.asarray(1.0), np.asarray(errors[name] * (2 if name == "energy" else 1))) for name in sigma}
    found = combined_correlations(combine, levels, rho, observables)
    for a, b in combinations(sigma, 2):
        expected = (4 * 0.6 * sigma[a][0] * sigma[b][0] - 0.4 * sigma[a][1] * sigma[b][1]) / (errors[a] * errors[b])
        assert found[correlation_key(a, b)] == pytest.approx(expected / (2 if a == "energy" else 1), abs=1e-6)
    lost = {**observables, "energy": Estimate(np.asarray(1.0), np.asarray(np.inf))}
    assert combined_correlations(combine, levels, rho, lost)["correlation_energy_susceptibility"] == 0


def test_joint_estimates_of_correlated_data():
    """Their covariances are those of estimates made of many draws of correlated energies, specific heats and susceptibilities."""
    magnet, betas = tb.heisenberg(tb.make_lattice("chain", 8)), 1 / np.array([2.0, 0.5, 1.0, 0.7])
    truth, rng, n = exact_curve(magnet, betas), np.random.default_rng(2), 4
    errors = {"energy": np.full(n, 3e-3), "specific_heat": np.full(n, 4e-3), "susceptibility": np.full(n, 1e-3)}
    rho = {("energy", "specific_heat"): 0.7, ("energy", "susceptibility"): -0.6, ("specific_heat", "susceptibility"): -0.2}
    matrix = np.array([[1, 0.7, -0.6], [0.7, 1, -0.2], [-0.6, -0.2, 1]])
    energy, heat = (Estimate(truth[name], errors[name]) for name in ("energy", "specific_heat"))
    joint = join_thermodynamics(magnet, betas, energy, heat, rho["energy", "specific_heat"])
    joint = with_correlations(joint, errors, lambda a, b: np.full(n, rho[a, b]))
    follows = joint.follows["specific_heat"]
    draws = (np.linalg.cholesky(matrix) @ rng.normal(size=(100_000, n, 3, 1)))[..., 0] * [3e-3, 4e-3, 1e-3]
    moved = draws[..., 0] @ follows[0].T + draws[..., 1] @ follows[1].T
    with_chi = np.einsum("di,dj->ij", draws[..., 2], moved) / len(draws)
    np.testing.assert_allclose(joint.covariance["susceptibility/specific_heat"], with_chi, atol=0.1 * np.abs(with_chi).max())
    np.testing.assert_allclose(np.diag(joint.covariance["specific_heat_direct/susceptibility"]), -0.2 * 4e-3 * 1e-3)
    np.testing.assert_allclose(np.diag(joint.covariance["specific_heat/specific_heat"]), joint.estimates["specific_heat"].error ** 2)
    parts = {**joint.covariance, "energy/energy": np.diag(errors["energy"] ** 2), "susceptibility/susceptibility": np.eye(n) * 1e-6}
    names = ("energy", "susceptibility", "specific_heat", "entropy")
    whole = np.block([[parts[f"{a}/{b}"] if f"{a}/{b}" in parts else parts[f"{b}/{a}"].T for b in names] for a in names])
    assert np.linalg.eigvalsh(whole).min() > -1e-3 * np.linalg.eigvalsh(whole).max()
    moved = [energy._replace(mean=energy.mean + s * (np.arange(n) == 2)) for s in (1e-5, -1e-5)]
    small = [join_thermodynamics(magnet, betas, e, heat, 0.7) for e in moved]
    slope = (small[0].estimates["entropy"].mean - small[1].estimates["entropy"].mean) / 2e-5
    np.testing.assert_allclose(
        joint.follows["entropy"][0][:, 2], slope, atol=0.25 * np.abs(slope).max()
    )  # whose weights of covariances move, too


@pytest.mark.parametrize("kind", ["tfim", "heisenberg"])
def test_chi_squared_of_fits_to_several_quantities_of_one_run(kind):
    """Of 40 seeds, on rings of six sites: energies and susceptibilities of a temperature are as correlated over the seeds as each run says,
    and chi^2, least in one coupling, of energy, susceptibility and specific heat against data with noise follows its distribution."""
    ring, T = tb.make_lattice("chain", 6), np.array([0.5, 0.8, 1.3])
    magnet = {"tfim": tb.transverse_field_ising, "heisenberg": tb.heisenberg}[kind](ring)
    names, rng = ("energy", "susceptibility", "specific_heat"), np.random.default_rng(4)
    exact = exact_curve(magnet, 1 / T)
    slopes = response_solver(magnet, parameters(magnet, ["J"]), list(names))(1 / T)
    truth, slope = (np.concatenate([of(name) for name in names]) for of in (exact.__getitem__, lambda name: slopes[name]["J"]))
    chi2, told, seen = [], [], []
    for seed in range(1, 41):
        curve = tb.thermal_curve(magnet, T=T, sampling={"n_samples": 2000, "seed": seed}, progress=False)
        of = {f"{a}/{b}": x for a, row in curve.covariance.items() for b, x in row.items()}
        of |= {f"{a}/{a}": np.diag(curve.observables[a].error ** 2) for a in names[:2]}
        whole = np.block([[of[f"{a}/{b}"] if f"{a}/{b}" in of else of[f"{b}/{a}"].T for b in names] for a in names])
        noise = 0.003 * np.abs(truth)
        off = np.concatenate([curve.observables[name].mean for name in names]) - truth + noise * rng.normal(size=len(truth))
        white = np.linalg.cholesky(whole + np.diag(noise**2))
        y, g = np.linalg.solve(white, off), np.linalg.solve(white, slope)
        chi2.append(y @ y - (g @ y) ** 2 / (g @ g))
        pulls = [(curve.observables[name].mean - exact[name]) / curve.observables[name].error for name in names[:2]]
        seen.append(pulls[0] * pulls[1])
        told.append(curve.diagnostics["correlation_energy_susceptibility"])
    assert kstest(chi2, "chi2", args=(len(truth) - 1,)).pvalue > 1e-3
    assert abs(np.mean(told)) > 0.2  # there is something to be told
    assert np.mean(seen) == pytest.approx(np.mean(told), abs=4 / np.sqrt(120))
    assert np.mean(told) * np.mean(seen) > 0 and set(curve.diagnostics) >= {correlation_key(*names[:2])} and names[0] in MEASURED

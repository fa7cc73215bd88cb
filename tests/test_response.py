"""Exact derivatives of thermal averages against differences of exact curves, and derivatives as a part of curves and files."""

import numpy as np
import pytest

import thermodbm as tb
from thermodbm.errors import InputError
from thermodbm.exact import exact_curve
from thermodbm.exact.response import response_solver
from thermodbm.exact.second_response import second_derivatives
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.models.parameters import parameter_names, parameters
from thermodbm.run.tables import as_dict

RANDOM = np.random.default_rng(7)
RING, BRANCHED = make_lattice("chain", 6), graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)])
BETAS, STEP = np.array([0.4, 2.0]), 1e-3
SIGNS = RANDOM.normal(size=5)
MAGNETS = {
    "Ising ring": (transverse_field_ising, RING, {"J": 1.0, "gamma": 0.7, "h": 0.0}),
    "antiferromagnet in fields": (transverse_field_ising, RING, {"J": -1.0, "gamma": 0.7, "h": 0.3}),
    "bonds of both signs": (transverse_field_ising, BRANCHED, {"J": SIGNS, "gamma": RANDOM.normal(size=5), "h": 0.0}),
    "free fermions": (transverse_field_ising, make_lattice("chain", 13), {"J": -1.0, "gamma": 0.8}),
    "two-site cells": (transverse_field_ising, make_lattice("honeycomb", (2, 2)), {"J": 1.0, "gamma": 0.8}),
    "degenerate levels": (heisenberg, RING, {"J": 1.0, "h": 0.0}),
    "ferromagnet in a field": (heisenberg, make_lattice("square", (4, 2)), {"J": -1.0, "h": 0.3}),
    "easy plane": (xxz, RING, {"J": 1.0, "delta": 0.5, "h": 0.0}),
    "random exchange in a field": (xxz, BRANCHED, {"J": SIGNS, "delta": 0.7, "h": 0.4}),
    "frustrated": (j1j2, make_lattice("chain", 8), {"J1": 1.0, "J2": 0.5, "h": 0.0}),
}


def differences(curve):
    """d/dx of curve(x), a dict of arrays, at 0: to fourth order in STEP."""
    a, b, c, d = (curve(k * STEP) for k in (-2, -1, 1, 2))
    return {name: (a[name] - 8 * b[name] + 8 * c[name] - d[name]) / (12 * STEP) for name in a}


@pytest.mark.parametrize("name", MAGNETS)
def test_derivatives_of_all_scalars_in_all_parameters(name):
    make, lattice, couplings = MAGNETS[name]
    magnet = make(lattice, **couplings)
    names = [p for p in parameter_names(magnet) if p in couplings] + ["beta"]
    found = response_solver(magnet, parameters(magnet, names))(BETAS)
    assert {"free_energy", "energy", "entropy", "specific_heat"} <= set(found)
    if name != "free fermions":
        assert {"susceptibility", "magnetization_z"} <= set(found)
    for p in names:

        def curve(x, p=p):
            if p == "beta":
                return exact_curve(magnet, BETAS + x)
            return exact_curve(make(lattice, **{**couplings, p: couplings[p] + x}), BETAS)

        expected = differences(curve)
        for observable in found:
            np.testing.assert_allclose(found[observable][p], expected[observable], rtol=1e-6, atol=2e-7, err_msg=f"{observable}/{p}")


@pytest.mark.parametrize("name", ["bonds of both signs", "free fermions", "random exchange in a field", "two-site cells"])
def test_derivatives_in_one_bond_and_one_site(name):
    """One bond of a lattice with translations moves averages over it, as all observables are; the sum over all is the common derivative."""
    make, lattice, couplings = MAGNETS[name]
    magnet, bond = make(lattice, **couplings), 1
    names = list(couplings)[:2]
    found = response_solver(magnet, parameters(magnet, [*names, *(f"{p}.each" for p in names)]))(BETAS)
    for p in names:
        for observable in found:
            np.testing.assert_allclose(found[observable][f"{p}.each"].sum(1), found[observable][p], atol=1e-9)
    if lattice.n_sites > 12:
        return
    size = len(lattice.bonds())

    def curve(x):
        bonds = np.broadcast_to(couplings["J"], size) + x * (np.arange(size) == bond)
        return exact_curve(make(lattice, **{**couplings, "J": bonds}), BETAS)

    expected = differences(curve)
    for observable in found:
        np.testing.assert_allclose(found[observable]["J.each"][:, bond], expected[observable], rtol=1e-6, atol=2e-7, err_msg=observable)


def test_a_curve_and_its_file_hold_the_response(tmp_path):
    magnet = xxz(RING, delta=0.5)
    curve = tb.thermal_curve(magnet, T=[0.5, np.inf], method="exact", response=["J", "beta", "J.each"], progress=False)
    expected = response_solver(magnet, parameters(magnet, ["J"]))(np.array([2.0]))
    assert curve.response["specific_heat"]["J"].mean[0] == pytest.approx(expected["specific_heat"]["J"][0], rel=1e-12)
    assert curve.response["energy"]["J"].mean[1] == 0  # nothing depends on couplings at infinite temperature
    assert curve.response["energy"]["J.each"].mean.shape == (2, 6)
    curve.save(tmp_path / "curve.h5")
    loaded = tb.ThermalCurve.load(tmp_path / "curve.h5")
    assert loaded.derivatives.keys() == curve.derivatives.keys()
    for key, estimate in loaded.derivatives.items():
        np.testing.assert_array_equal(estimate.mean, curve.derivatives[key].mean)
    assert as_dict(loaded)["response"]["energy"]["J"]["mean"][0] == curve.response["energy"]["J"].mean[0]
    assert loaded.to_xarray()["d_energy_d_J"].dims == ("temperature",)
    assert "response" not in as_dict(tb.thermal_curve(magnet, T=[0.5], method="exact", progress=False))["config"]


SECOND = {
    "Ising in a field": (
        transverse_field_ising,
        BRANCHED,
        {"J": SIGNS, "gamma": 0.8, "h": 0.3},
        ["J", "gamma", "h", "beta"],
    ),
    "ring": (transverse_field_ising, RING, {"J": -1.0, "gamma": 0.7}, ["J", "gamma", "beta"]),
    "free fermions": (transverse_field_ising, make_lattice("chain", 13), {"J": 1.0, "gamma": 0.7}, ["J", "gamma", "beta"]),
    "product of couplings": (xxz, BRANCHED, {"J": SIGNS, "delta": 0.7, "h": 0.4}, ["J", "delta", "h", "beta"]),
    "frustrated": (j1j2, RING, {"J1": 1.0, "J2": 0.4}, ["J1", "J2"]),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_of_the_partition_function(name):
    """Against differences of fourth order of ln Z."""
    make, lattice, couplings, names = SECOND[name]
    magnet, beta, n = make(lattice, **couplings), 1.3, lattice.n_sites
    found = second_derivatives(magnet, parameters(magnet, names))(beta)

    def log_z(x):
        moved, b = {p: np.asarray(v) + x.get(p, 0.0) for p, v in couplings.items()}, beta + x.get("beta", 0.0)
        return -b * exact_curve(make(lattice, **moved), np.array([b]))["free_energy"][0]

    step = 1e-2
    for i, j in zip(*np.triu_indices(len(names)), strict=True):

        def mixed(size, a=names[i], b=names[j]):
            at = lambda u, v: log_z({a: u * size, b: v * size} if a != b else {a: (u + v) * size})  # noqa: E731
            return (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * size**2)

        expected = (4 * mixed(step / 2) - mixed(step)) / 3
        np.testing.assert_allclose(found[[i, j], [j, i]], expected, rtol=1e-5, atol=1e-5, err_msg=f"{names[i]}, {names[j]}")
    if (lattice is BRANCHED) and "gamma" in couplings:
        each = second_derivatives(magnet, parameters(magnet, ["J.each", "h"]))(beta)
        np.testing.assert_allclose(each[:5, :5].sum(), found[0, 0], rtol=1e-10)
        np.testing.assert_allclose(each[:5, 5].sum(), found[0, 2], rtol=1e-10)
    if "beta" in names:
        heat = exact_curve(magnet, np.array([beta]))["specific_heat"][0]
        np.testing.assert_allclose(found[-1, -1], heat / beta**2, rtol=1e-9)
    assert n * np.abs(found - found.T).max() < 1e-9


def test_second_derivatives_stand_in_curve_file_and_dataset(tmp_path):
    curve = tb.thermal_curve(xxz(RING), T=[0.5, np.inf], method="exact", response=["J", "h.each"], second=True, progress=False)
    curve.save(tmp_path / "curve.h5")
    loaded = tb.ThermalCurve.load(tmp_path / "curve.h5")
    assert loaded.log_partition_hessian.mean.shape == (2, 7, 7) and loaded.parameters[:2] == ["J", "h.each[0]"]
    dataset = loaded.to_xarray()["d2_log_partition"]
    assert dataset.dims == ("temperature", "parameter", "other_parameter")
    uniform = dataset.sel(temperature=0.5).values[1:, 1:].sum()
    assert uniform == pytest.approx(2.0 * curve.susceptibility.mean[0], rel=1e-10)  # beta chi
    plain = tb.thermal_curve(xxz(RING), T=[0.5], method="exact", response=["J"], progress=False)
    assert "second" not in plain.config and "log_partition" not in plain.response
    with pytest.raises(AttributeError, match="second = true"):
        plain.log_partition_hessian  # noqa: B018
    with pytest.raises(InputError, match="names of parameters"):
        tb.thermal_curve(xxz(RING), T=[0.5], method="exact", second=True, progress=False)
    with pytest.raises(InputError, match="at most 12 sites"):
        tb.thermal_curve(xxz(make_lattice("chain", 13)), T=[0.5], method="exact", response=["J"], second=True, progress=False)


@pytest.mark.parametrize(
    ("asked", "method", "message"),
    [
        (["Q"], "exact", "one of J, h, beta"),
        (["J", "J"], "exact", "J more than once"),
        (["beta.each"], "exact", "one of J, h, beta"),
        (["J"], "variational", "its whole evolution"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(asked, method, message):
    with pytest.raises(InputError, match=message):
        tb.response(heisenberg(RING), parameters=asked, T=1.0, method=method, progress=False)


SAMPLED = {
    "loops": (heisenberg(RING), ["J", "h", "beta"]),
    "turned from the isotropic point": (xxz(RING), ["J", "delta"]),
    "worldlines": (tb.transverse_field_ising(BRANCHED, SIGNS, RANDOM.uniform(0.5, 1.0, 5), 0.3), ["J", "gamma", "h", "J.each"]),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_derivatives_agree_with_exact_ones(name):
    """Within 4.5 error bars, each; the mean square pull is below 1 + 5 sigma of as many as there are independent temperatures."""
    magnet, names = SAMPLED[name]
    T = [0.6, 2.0]
    exact = tb.response(magnet, T=T, method="exact", parameters=names, progress=False)
    sampling = {"n_samples": 8000, "n_chains": 32, "seed": 3}
    found = tb.response(magnet, T=T, parameters=names, sampling=sampling, progress=False)
    assert {"free_energy", "energy", "entropy", "specific_heat", "susceptibility", "magnetization_z"} <= set(found)
    squares = []
    for observable in found:
        for p in names:
            estimate, expected = found[observable][p], exact[observable][p].mean
            pulls = np.abs(estimate.mean - expected) / np.maximum(estimate.error, 1e-9)
            np.testing.assert_array_less(pulls, 4.5, err_msg=f"{observable}/{p}")
            squares.append(np.mean(pulls**2))
            assert np.all(estimate.error < 0.6 * np.maximum(np.abs(expected).max(), 0.5)), (observable, p)
    assert np.mean(squares) < 1 + 5 / np.sqrt(len(squares))


def test_a_coupling_that_is_zero_is_refused_where_samples_cannot_know_it():
    with pytest.raises(InputError, match="nowhere zero"):
        tb.response(transverse_field_ising(RING, gamma=0.0), parameters=["gamma"], T=1.0, progress=False)


SAMPLED_TWICE = {
    "graphs": (xxz(RING, delta=0.5), ["J", "delta"]),
    "worldlines with a sign": (j1j2(RING, 1.0, 0.4), ["J1", "h"]),
    "Ising": (tb.transverse_field_ising(BRANCHED, SIGNS, RANDOM.uniform(0.5, 1.0, 5), 0.3), ["J", "gamma", "h", "beta"]),
}


@pytest.mark.parametrize("name", SAMPLED_TWICE)
def test_sampled_second_derivatives_agree_with_exact_ones(name):
    """Within 4.5 error bars, each."""
    magnet, names = SAMPLED_TWICE[name]
    options = {
        "method": {"kind": "deterministic", "extrapolate": False, "d_tau": 0.03},
        "sampling": {"n_samples": 16_000, "n_chains": 32, "seed": 3},
    }
    found = tb.thermal_curve(magnet, T=[0.8], response=names, second=True, progress=False, **options).log_partition_hessian
    expected = second_derivatives(magnet, parameters(magnet, names))(1 / 0.8)
    np.testing.assert_array_less(np.abs(found.mean[0] - expected), 4.5 * found.error[0])
    assert np.all(found.error[0] < 0.2 * np.abs(expected).max()) and np.all(found.error[0] > 0)

"""Scans of a field or coupling in one run and one file, against curves of each value by itself."""

import json
import tomllib

import h5py
import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import thermodbm as tb
from thermodbm.cli import app
from thermodbm.comm import SERIAL
from thermodbm.errors import InputError, Interrupted
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve import chains
from thermodbm.evolve.method import Info, Point, ThermalMethod
from thermodbm.exact import exact_curve
from thermodbm.plotting import plot_curves
from thermodbm.run import runner
from thermodbm.run.checkpoint import load_checkpoint
from thermodbm.run.compare import compare, same_model
from thermodbm.run.config import parse_config
from thermodbm.run.tables import as_csv

RING = tb.make_lattice("chain", 6)
FIELDS, T = [0.5, 0.0, 2.0], [0.4, 1.5]
BASE = {"lattice": {"kind": "chain", "extent": [6]}, "model": {"kind": "xxz", "delta": 0.5}, "method": {"kind": "exact"}}
BASE |= {"temperature": {"T": T}, "scan": {"h": FIELDS}}


@pytest.fixture(scope="module")
def scan():
    return tb.thermal_curve(tb.xxz(RING, delta=0.5), T=T, scan={"h": FIELDS}, method="exact", response=["h"], progress=False)


@pytest.mark.parametrize(
    ("magnet", "name", "values"),
    [
        (tb.xxz(RING, delta=0.5), "h", FIELDS),
        (tb.transverse_field_ising(RING, gamma=0.7), "h", [-0.3, 0.3]),
        (tb.transverse_field_ising(RING, h=0.1), "gamma", [0.5, 1.0]),
        (tb.heisenberg(tb.make_lattice("ladder", 3), J={"leg": 1.0, "rung": 0.5}), "J.rung", [-0.5, 0.0]),
        (tb.heisenberg(tb.make_lattice("ladder", 3), J=0.8), "J.leg", [1.0, 2.0]),
    ],
)
def test_every_value_has_its_exact_curve(magnet, name, values):
    curve = tb.thermal_curve(magnet, T=T, scan={name: values}, method="exact", progress=False)
    np.testing.assert_array_equal(curve.scan[name], np.repeat(values, 2))
    np.testing.assert_array_equal(curve.temperature, np.tile(T, len(values)))
    make = {"xxz": tb.xxz, "tfim": tb.transverse_field_ising, "heisenberg": tb.heisenberg}[magnet.model]
    model = {k: v for k, v in tomllib.loads(curve.config)["model"].items() if k != "kind"}
    base, _, group = name.partition(".")
    for value, part in zip(values, curve.sweeps, strict=True):
        couplings = {**model, base: {**model.get(base, {}), group: value} if group else value}
        expected = exact_curve(make(magnet.lattice, **couplings), 1 / np.array(T))
        for observable in ("energy", "magnetization_z", "susceptibility", "entropy"):
            np.testing.assert_allclose(part.observables[observable].mean, expected[observable], atol=1e-10)
            np.testing.assert_allclose(curve.observables[observable].mean[curve.scan[name] == value], expected[observable], atol=1e-10)
        np.testing.assert_allclose(part.hamiltonian.z_field, make(magnet.lattice, **couplings).z_field)


@pytest.mark.parametrize(
    ("magnet", "name", "values"),
    [(tb.xxz(RING, delta=0.5), "h", [0.4, 1.2]), (tb.transverse_field_ising(RING, gamma=0.8), "h", [0.2, 0.5])],
    ids=["xxz", "tfim"],
)
def test_sampled_magnetisation_curves(magnet, name, values):
    """Within 4.5 error bars of exact ones; the second value compiles nothing that the first has not."""
    options = {"T": [0.8, 2.0], "progress": False}
    exact = tb.thermal_curve(magnet, scan={name: values}, method="exact", **options)
    method, sampling = {"kind": "deterministic", "d_tau": 0.1}, {"n_samples": 6000, "n_chains": 32, "seed": 2}
    found = tb.thermal_curve(magnet, scan={name: values}, method=method, sampling=sampling, **options)
    misses = chains._compiled.cache_info().misses
    for comparison in compare(found, exact).values():
        assert comparison.pull.shape[0] == 4 and comparison.max_pull < 4.5
    assert compare(found, exact)["magnetization_z"].error.max() < 0.05
    tb.thermal_curve(magnet, scan={name: [0.3, 0.9]}, method=method, sampling=sampling, **options)
    assert chains._compiled.cache_info().misses == misses


def test_file_table_and_exports(scan, tmp_path):
    scan.save(tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as file:
        np.testing.assert_array_equal(file["scan/h"][:], np.repeat(FIELDS, 2))
        assert file["temperature"].shape == file["observables/energy/mean"].shape == (6,)
        assert "h" not in tomllib.loads(file.attrs["config"])["model"]
    loaded = tb.ThermalCurve.load(tmp_path / "scan.h5")
    np.testing.assert_array_equal(loaded.scan["h"], scan.scan["h"])
    assert [row[0] for row in scan.table()] == ["h", "0.5", "0.5", "0", "0", "2", "2"]
    assert as_csv(scan).splitlines()[0].startswith("temperature,beta,h,energy")
    shown = json.loads(CliRunner().invoke(app, ["show", str(tmp_path / "scan.h5"), "--json"]).stdout)
    assert shown["scan"]["h"] == scan.scan["h"].tolist()
    dataset = scan.to_xarray()
    assert dataset["h"].dims == ("temperature",)
    np.testing.assert_array_equal(tb.ThermalCurve.from_xarray(dataset).scan["h"], scan.scan["h"])
    assert parse_config(tomllib.loads(scan.config)).text == scan.config
    assert "h = 0 to 2" in repr(scan) and "at each" not in repr(scan.sweeps[0])
    np.testing.assert_allclose(scan.response["energy"]["h"].mean[2:4], 0, atol=1e-12)


def test_comparisons_meet_at_the_same_value(scan):
    plain = tb.thermal_curve(tb.xxz(RING, delta=0.5, h=0.5), T=T, method="exact", progress=False)
    found = compare(scan, plain)
    assert len(found["energy"].pull) == 2 and found["energy"].scan["h"].tolist() == [0.5, 0.5] and same_model(scan, plain)
    assert found["energy"].max_pull < 1
    assert len(compare(scan, scan)["energy"].pull) == 6
    other = tb.thermal_curve(tb.xxz(RING, h=0.5), T=T, scan={"delta": [0.2, 0.5]}, method="exact", progress=False)
    with pytest.raises(InputError, match="one value of h in each file"):
        compare(scan, other)


def test_figures_have_what_is_scanned_on_their_axis(scan):
    axes = plot_curves([scan], observables=["magnetization_z", "energy"])
    assert axes[0].get_xlabel() == "h$\\,/\\,J$"
    texts = [t.get_text() for t in axes[0].figure.legends[0].get_texts()]
    assert {"exact, T = 0.4", "exact, T = 1.5", "exact solution"} == set(texts)
    plain = tb.thermal_curve(tb.xxz(RING), T=T, method="exact", progress=False)
    with pytest.raises(InputError, match="scans of one field"):
        plot_curves([scan, plain])


def random_method(hamiltonian, *arguments):
    """Two chunks a temperature; noise of the key, carried along; joins the energies of what it is shown."""

    def advance(key, state, beta):
        state = {"n": state["n"] + 1, "x": state["x"] + jax.random.normal(key)}
        estimate = Estimate(np.array(float(state["x"]) + 100 * hamiltonian.z_field[0]), np.array(0.1))
        return state, Info(0.5, "", Point({"energy": estimate}, {}, {}) if state["n"] % 2 == 0 else None)

    def summarize(points, betas):
        total = sum(p.observables["energy"].mean for p in points)
        return [p._replace(observables={"energy": Estimate(p.observables["energy"].mean + total, np.array(0.1))}) for p in points]

    return ThermalMethod(lambda key: {"n": 0, "x": jax.random.normal(key)}, advance, summarize=summarize)


def test_a_scan_goes_on_in_its_middle(tmp_path, monkeypatch):
    """Stopped after every third chunk it ends with the same numbers; temperatures of different values are never joined."""
    monkeypatch.setattr(runner, "make_method", random_method)
    tables = {**BASE, "temperature": {"T": [0.4, np.inf, 1.5]}, "method": {"kind": "exact"}}
    whole = runner.run(parse_config(tables))
    assert np.abs(whole.energy.mean[:3][[0, 2]]).max() < 3 * 100 * 0.25 + 20  # 100 h/2 three times, and some noise
    assert np.abs(whole.energy.mean[3:6][[0, 2]]).max() < 20
    assert len(np.unique(whole.energy.mean)) == 7  # six that differ, and 0 at infinite temperature
    config, begin, n_stops = parse_config({**tables, "output": {"file": str(tmp_path / "c.h5")}}), None, 0
    while True:
        left = iter(range(3))
        try:
            found = runner.run(config, begin=begin, stop=lambda left=left: next(left, None) is None)
            break
        except Interrupted:
            n_stops += 1
            config, begin = load_checkpoint(tmp_path / "c.h5", SERIAL)
    assert n_stops >= 2
    np.testing.assert_array_equal(found.energy.mean, whole.energy.mean)
    loaded = tb.ThermalCurve.load(tmp_path / "c.h5")
    assert loaded.finished
    np.testing.assert_array_equal(loaded.energy.mean, whole.energy.mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scan": {"h": 0.5}}, r"scan\.h: expected a list"),
        ({"scan": {}}, "scan: expected one name"),
        ({"scan": {"h": [0.0], "delta": [1.0]}}, "found 2 names"),
        ({"scan": {"h": [0.5, 0.5]}}, "each value once"),
        ({"scan": {"h": [0.5, float("nan")]}}, "finite"),
        ({"scan": {"beta": [0.5]}}, "one of J, delta, h, J.leg, delta.leg"),
        ({"scan": {"h": {"start": 0.0, "stop": 1.0}}}, "start, stop, num"),
        ({"scan": {"delta": [0.5]}}, r"delta in \[scan\] or in \[model\]"),
        ({"scan": {"J.leg": [0.5]}, "model": {"kind": "xxz", "J": [1.0] * 6}}, "found a list"),
        ({"scan": {"h": [float(k) for k in range(6000)]}}, "at most 10000"),
    ],
)
def test_scans_that_are_none_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        parse_config({**BASE, **change})


def test_a_range_and_a_table_in_a_table_are_scans():
    config = parse_config({**BASE, "scan": {"J": {"leg": {"start": 0.5, "stop": 1.5, "num": 3}}}})
    np.testing.assert_allclose(config.scan["J.leg"], [0.5, 0.5, 1.0, 1.0, 1.5, 1.5])
    assert parse_config(tomllib.loads(config.text)).text == config.text

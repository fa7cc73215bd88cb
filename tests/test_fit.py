"""Couplings from measured curves: what comes back from curves that are known, and what is said of bad data."""

import json

import numpy as np
import pytest
from scipy.integrate import trapezoid
from typer.testing import CliRunner

import thermodbm as tb
from thermodbm.cli import app, main
from thermodbm.errors import InputError
from thermodbm.exact import exact_curve
from thermodbm.run.config import parse_config
from thermodbm.run.fit import _model, fit_tree
from thermodbm.run.fit_data import read_points
from thermodbm.run.fit_model import debye
from thermodbm.run.fit_search import Residuals
from thermodbm.run.fit_units import kelvin_per, resolved, scales
from thermodbm.run.tables import fit_text

RING = tb.make_lattice("chain", 6)
HEAD = "temperature,susceptibility,susceptibility_error\n"


def config(kind="heisenberg", parameters=None, units=None, **fit):
    return {
        "lattice": {"kind": "chain", "extent": [6]},
        "model": {"kind": kind},
        "method": {"kind": "exact"},
        "fit": {"parameters": parameters or {"J": {"start": 3.0}}, "units": units or {}, **fit},
    }


def write(path, columns):
    rows = [",".join(columns), *(",".join(f"{x:.12g}" for x in row) for row in zip(*columns.values(), strict=True))]
    path.write_text("# made up\n" + "\n".join(rows) + "\n")
    return path


def test_a_compound_in_physical_units_with_backgrounds(tmp_path):
    """J = 10.3 K, g = 2.1, a Curie tail and phonons, from a start that is off by a factor of three; noise of 1e-4 moves nothing by 1%."""
    T = np.linspace(2.0, 30.0, 15)
    curve = exact_curve(tb.heisenberg(RING, J=10.3), 1 / T)
    chi = 0.3751481 * 2.1**2 * curve["susceptibility"] + 0.002 / T
    c = 8.314463 * curve["specific_heat"] + 3e-4 * T**3
    noise = np.random.default_rng(2).normal(size=(2, len(T)))
    files = [
        write(tmp_path / f"{name}.csv", {"temperature": T, name: x * (1 + 1e-4 * n), f"{name}_error": 1e-4 * x})
        for name, x, n in (("susceptibility", chi, noise[0]), ("specific_heat", c, noise[1]))
    ]
    starts = {n: {"start": x} for n, x in {"J": 3.5, "g": 2.0, "curie": 0.0, "phonon_3": 0.0}.items()}
    found = tb.fit(files, config(parameters=starts))
    assert found.converged and not found.degenerate
    for name, truth in {"J": 10.3, "g": 2.1, "curie": 0.002, "phonon_3": 3e-4}.items():
        value, error = found.parameters[name]
        assert abs(value - truth) < 4 * error < 0.1 * truth, name
    assert 0.4 < found.chi2_reduced < 1.8 and found.n_points == 30
    assert found.covariance.shape == (4, 4)
    np.testing.assert_allclose(found.data[0]["model"], chi, rtol=1e-3)


def test_derivatives_of_predictions_are_differences(tmp_path):
    """Of every quantity and parameter, fields included."""
    columns = {"temperature": [2.0, 5.0], "field": [3.0, 5.0], "susceptibility": [1.0, 1.0], "magnetization": [1.0, 1.0]}
    columns |= {"specific_heat": [1.0, 1.0], "energy": [1.0, 1.0], "entropy": [1.0, 1.0]}
    starts = {"J": 4.0, "delta": 0.7, "g": 2.2, "scale": 0.9, "chi_0": 0.1, "curie": 0.2, "phonon_3": 1e-3, "debye": 2.0, "debye_T": 31.0}
    units = {"coupling": "1/cm", "susceptibility": "m^3/mol", "magnetization": "emu/mol", "specific_heat": "R"}
    tables = config("xxz", {n: {"start": x} for n, x in starts.items()}, units) | {"temperature": {"T": [1.0]}}
    model, _ = _model(parse_config(tables), read_points([write(tmp_path / "all.csv", columns)]))
    theta = np.array(list(starts.values()))
    slopes = model.predict(theta, model.curves(theta))[2]
    for j in range(len(theta)):
        step = 1e-4 * theta[j] * np.eye(len(theta))[j]
        up, down = (model.predict(t, model.curves(t, slopes=False))[0] for t in (theta + step, theta - step))
        np.testing.assert_allclose(slopes[:, j], (up - down) / (2 * step[j]), rtol=1e-5, atol=1e-9, err_msg=list(starts)[j])


def test_debye_phonons_between_their_limits():
    """c = 12 pi^4/5 (T/debye_T)^3 cold and 3 (1 - x^2/20) hot; s is the integral of c/T."""
    assert debye("specific_heat", 50.0)[0] == pytest.approx(12 * np.pi**4 / 5 / 50**3, rel=1e-6)
    assert debye("specific_heat", 0.1)[0] == pytest.approx(3 * (1 - 0.01 / 20), rel=1e-6)
    x = np.linspace(2.0, 40.0, 2001)
    integral = trapezoid([debye("specific_heat", y)[0] / y for y in x], x)
    assert debye("entropy", 2.0)[0] - debye("entropy", 40.0)[0] == pytest.approx(integral, rel=1e-4)
    assert np.isfinite(debye("entropy", 1e4)).all()


def test_profile_intervals(tmp_path):
    """Where the model is linear in a parameter they are one error to either side; everywhere chi^2 at their ends has risen by one."""
    T, rng = np.geomspace(1.0, 12.0, 12), np.random.default_rng(1)
    chi = 0.3751481 * 4 * exact_curve(tb.heisenberg(RING, J=4.0), 1 / T)["susceptibility"] + 0.01 / T
    data = write(
        tmp_path / "chi.csv",
        {"temperature": T, "susceptibility": chi * (1 + 0.03 * rng.normal(size=12)), "susceptibility_error": 0.03 * chi},
    )
    tables = config(parameters={"J": {"start": 3.0}, "curie": {"start": 0.0}})
    tables["fit"]["profile"] = True
    found = tb.fit(data, tables)
    for name, (low, high) in found.intervals.items():
        value, error = found.parameters[name]
        assert low < value < high and high - low == pytest.approx(2 * error, rel=0.2)
    model, section = _model(parse_config({**tables, "temperature": {"T": T.tolist()}}), read_points([data]))
    residuals = Residuals(model, section)
    J = found.intervals["J"][1]
    others = np.linspace(*(found.parameters["curie"][0] + 4 * x * found.parameters["curie"][1] for x in (-1, 1)), 81)
    least = [np.sum(residuals.evaluate(np.array(at))[0] ** 2) for at in ([J, c] for c in others)]
    assert min(least) - 1 == pytest.approx(np.sum(residuals.evaluate(found.values)[0] ** 2), abs=0.05)
    assert "chi^2 rises by 1" in fit_text(fit_tree(found))


def test_units_are_those_of_the_tables():
    assert kelvin_per("meV") == pytest.approx(11.604518, rel=1e-6)
    assert kelvin_per("1/cm") == pytest.approx(1.4387769, rel=1e-6)
    found = scales(tb.heisenberg(RING), resolved({}))
    assert found.susceptibility == pytest.approx(0.3751481, rel=1e-4)  # emu K/mol of g = 1, S_z^2 = 1: Curie's 0.375 for g = 2, S = 1/2
    assert found.field == pytest.approx(0.6717138, rel=1e-6)  # mu_B/k_B, K/T
    assert found.specific_heat == pytest.approx(8.314463, rel=1e-6)
    si = scales(tb.heisenberg(RING), resolved({"susceptibility": "m^3/mol", "magnetization": "emu/mol"}))
    assert si.susceptibility / found.susceptibility == pytest.approx(4e-6 * np.pi, rel=1e-9)
    assert si.magnetization == pytest.approx(5584.94, rel=1e-5)
    assert resolved({"temperature": "J"})["susceptibility"] == "reduced"


def test_what_data_do_not_determine_is_named(tmp_path):
    """A susceptibility far above J knows the Curie constant alone: J and the scale of the data cannot both be told."""
    T = np.linspace(200.0, 300.0, 6)
    chi = 0.3751481 * 4 * exact_curve(tb.heisenberg(RING, J=0.5), 1 / T)["susceptibility"]
    data = write(tmp_path / "hot.csv", {"temperature": T, "susceptibility": chi, "susceptibility_error": 0.01 * chi})
    found = tb.fit(data, config(parameters={"J": {"start": 0.5}, "g": {"start": 2.0}}))
    assert any("J" in way for way in found.degenerate) and "not determined" in found.message
    kept = tb.fit(data, config(parameters={"J": {"start": 0.5, "prior": [0.5, 0.05]}, "g": {"start": 2.0}}))
    assert not kept.degenerate and kept.parameters["J"][1] < 0.06


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("susceptibility\n1.0\n", "line 1: expected a column temperature"),
        ("temperature,chi\n1.0,2.0\n", "line 1: expected columns among"),
        ("temperature,magnetization_error\n1.0,2.0\n", "line 1: expected the column magnetization"),
        (HEAD + "1.0,0.1,0.01\n# twice\n1.0,0.2,0.01\n", "line 4: expected each temperature once, found 1 again, first in line 2"),
        (HEAD + "1.0,0.1,-0.01\n", "line 2: expected a positive susceptibility_error"),
        (HEAD + "1.0,high,0.01\n", "line 2: expected a number for susceptibility, found 'high'"),
        (HEAD + "1,5,0.1,0.01\n", "line 2: expected 3 values.*Decimals need a point"),
        (HEAD + '"1,5",0.1,0.01\n', "line 2: expected a number for temperature.*Decimals need a point"),
        ("temperature;susceptibility\n1,5;0,1\n", "line 1: expected columns separated by commas"),
        (HEAD + "-1.0,0.1,0.01\n", "line 2: expected temperatures above 0"),
        (HEAD + "1.0,0.1,\n", "line 2: expected a susceptibility_error beside"),
        (HEAD, "expected rows of numbers"),
        ("", "found an empty file"),
    ],
)
def test_bad_data_are_refused_with_line_and_remedy(tmp_path, text, message):
    data = tmp_path / "bad.csv"
    data.write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        read_points([data])
    assert "bad.csv" in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"parameters": {"J": {"start": 1.0}, "g": {"start": 2.0}, "chi_0": {"start": 0.0}}},
            "at least 3 points for 3 parameters, found 2",
        ),
        ({"parameters": {"K": {"start": 1.0}}}, "parameters among J, h, J.leg, g"),
        ({"units": {"temperature": "C"}}, "fit.units.temperature"),
        ({"units": {"temperature": "J", "coupling": "meV"}}, "a unit that matches"),
        ({"parameters": {"J": {"start": 1.0, "bound": [0, 1]}}}, "Did you mean 'bounds'"),
        ({"parameters": {"J": {"start": 1.0, "bounds": [2.0, 3.0]}}}, "a start within"),
    ],
)
def test_bad_configs_are_refused(tmp_path, change, message):
    data = tmp_path / "two.csv"
    data.write_text(HEAD + "1.0,0.1,0.01\n2.0,0.1,0.01\n")
    with pytest.raises(InputError, match=message):
        tb.fit(data, config(**change))


def test_a_method_without_derivatives_needs_a_smaller_magnet(tmp_path):
    data = tmp_path / "two.csv"
    data.write_text(HEAD + "1.0,0.1,0.01\n2.0,0.1,0.01\n")
    ring = {"kind": "graph", "n_sites": 12, "edges": [[i, (i + 1) % 12] for i in range(12)]}
    with pytest.raises(InputError, match="exact, typical or deterministic for a fit of this magnet, found variational"):
        tb.fit(data, {**config(), "lattice": ring, "method": {"kind": "variational"}})


def test_the_command_line_writes_a_file_that_shows_the_fit(tmp_path, capsys):
    import tomli_w

    T = np.linspace(1.0, 6.0, 8)
    heat = exact_curve(tb.heisenberg(RING, J=2.0), 1 / T)["specific_heat"]
    data = write(tmp_path / "heat.csv", {"temperature": T, "specific_heat": heat})
    (tmp_path / "fit.toml").write_text(tomli_w.dumps(config(units={"specific_heat": "R"})))
    arguments = ["fit", str(data), str(tmp_path / "fit.toml"), "-o", str(tmp_path / "fit.h5"), "--plot", str(tmp_path / "fit.png")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "fit.png").stat().st_size > 1000
    shown = json.loads(CliRunner().invoke(app, ["show", str(tmp_path / "fit.h5"), "--json"]).stdout)
    assert shown["fit"]["parameters"]["J"]["mean"] == pytest.approx(2.0, rel=1e-4)
    assert shown["fit"]["n_points"] == 8 and shown["observables"]["specific_heat"]["mean"] == pytest.approx(heat.tolist(), rel=1e-4)
    data.write_text("temperature;specific_heat\n")
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--force"])
    assert end.value.code == 2 and "heat.csv" in capsys.readouterr().err


def test_chi_squared_follows_its_distribution_where_errors_of_the_model_are_correlated(tmp_path):
    """Residuals at the true couplings, of data with noise and of curves whose errors are those of a random covariance between temperatures
    and two observables: chi^2 of 300 of them has its mean and its variance; with errors alone it has not."""
    from scipy.stats import kstest

    from thermodbm.run.fit import _model
    from thermodbm.run.fit_model import Curve
    from thermodbm.run.fit_search import Residuals

    rng, T = np.random.default_rng(8), np.array([2.0, 3.0, 5.0, 8.0])
    names, root = ("specific_heat", "entropy"), rng.normal(size=(8, 3)) * 0.02  # of rank three: strongly correlated
    whole = root @ root.T + 1e-6 * np.eye(8)
    blocks = {a: {b: whole[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for j, b in enumerate(names)} for i, a in enumerate(names)}
    exact = exact_curve(tb.heisenberg(RING, J=4.0), 1 / T)
    data = {"temperature": T}
    for name in names:
        data |= {name: exact[name], f"{name}_error": np.full(4, 0.01)}
    tables = config(units={"specific_heat": "R"}, parameters={"J": {"start": 4.0}})
    model, section = _model(parse_config(tables | {"temperature": {"T": [1.0]}}), read_points([write(tmp_path / "a.csv", data)]))
    (chi2, naive), exact_points = ([], []), model.points
    for _ in range(300):
        noise = np.linalg.cholesky(whole) @ rng.normal(size=8)
        values = {name: exact[name] + noise[4 * i : 4 * i + 4] for i, name in enumerate(names)}
        errors = {name: np.sqrt(np.diag(blocks[name][name])) for name in names}
        slopes = {name: {"J": np.zeros(4)} for name in names}
        measured = [p._replace(value=p.value + 0.01 * rng.normal(size=4)) for p in exact_points]
        for found, covariance in ((chi2, blocks), (naive, {})):
            curve = Curve(values, errors, slopes, {}, covariance)
            object.__setattr__(model, "source", lambda *arguments, curve=curve: curve)
            object.__setattr__(model, "points", measured)
            found.append(np.sum(Residuals(model, section).evaluate(np.array([4.0]))[0] ** 2))
    assert kstest(chi2, "chi2", args=(8,)).pvalue > 1e-3
    assert kstest(naive, "chi2", args=(8,)).pvalue < 1e-6

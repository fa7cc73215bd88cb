"""Results of several seeds averaged, and temperatures and samples added to a finished file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import thermodbm as tb
from thermodbm.cli import app
from thermodbm.comm import SERIAL
from thermodbm.errors import InputError, Interrupted
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.deterministic import join_temperatures
from thermodbm.evolve.method import Info, Point, ThermalMethod
from thermodbm.exact import exact_curve
from thermodbm.run import combine, runner
from thermodbm.run.checkpoint import load_checkpoint
from thermodbm.run.combine import merge
from thermodbm.run.config import parse_config
from thermodbm.run.extend import extend_file

T = [0.5, 1.0, 2.0]
TABLES = {"lattice": {"kind": "chain", "extent": [6]}, "model": {"kind": "heisenberg"}, "temperature": {"T": T}}


def noisy_method(hamiltonian, options, sampling, comm=SERIAL, betas=(), observables=None, response=(), second=False):
    """What the deterministic method might find: exact values and noise of errors that go by the number of samples; two chunks each."""
    exact = exact_curve(hamiltonian, np.asarray(betas, float)[np.asarray(betas) > 0])
    order = [b for b in betas if b > 0]

    def advance(key, state, beta):
        state = {"n": state["n"] + 1}
        if state["n"] % 2:
            return state, Info(0.5, "", None)
        rng, k = np.random.default_rng([sampling.seed, int(1000 * beta)]), order.index(beta)
        sigma = 0.3 / np.sqrt(sampling.n_samples)
        number = lambda x: Estimate(np.asarray(x + sigma * rng.normal()), np.asarray(sigma), np.array(1.0), np.array(1.0), np.array(50.0))  # noqa: E731
        found = {name: number(exact[name][k]) for name in ("energy", "specific_heat", "susceptibility")}
        pairs = exact["correlation_zz"][k]
        found["correlation_zz"] = Estimate(pairs + sigma * rng.normal(size=pairs.shape), np.full(pairs.shape, sigma))
        return state, Info(1.0, "", Point(found, {"doubts": 0.0, "trusted": 1.0, "n_samples": float(sampling.n_samples)}, {}))

    def summarize(points, visited):
        return join_temperatures(hamiltonian, points, visited)

    return ThermalMethod(lambda key: {"n": 0}, advance, summarize=summarize)


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    monkeypatch.setattr(runner, "make_method", noisy_method)
    monkeypatch.setattr(combine, "make_method", noisy_method)


def made(seed, n_samples=1000, **tables):
    return runner.run(parse_config({**TABLES, "sampling": {"seed": seed, "n_samples": n_samples}, **tables}))


def test_merged_curves_are_averages_by_samples():
    few, many = made(1), made(2, 3000)
    found, agreement = merge([few, many])
    for name in ("energy", "susceptibility", "specific_heat_direct", "correlation_zz"):
        a, b, c = few.observables[name], many.observables[name], found.observables[name]
        np.testing.assert_allclose(c.mean, (a.mean + 3 * b.mean) / 4, rtol=1e-12)
        np.testing.assert_allclose(c.error, np.hypot(a.error, 3 * b.error) / 4, rtol=1e-12)
        np.testing.assert_allclose(c.error, (a.error**-2.0 + b.error**-2.0) ** -0.5, rtol=1e-12)  # by inverse variances, as errors go so
    assert found.seeds == (1, 2) and found.finished and "n_samples = 4000" in found.config
    np.testing.assert_array_equal(found.energy.n_eff, 100)
    np.testing.assert_array_equal(found.diagnostics["n_samples"], 4000)
    assert found.entropy.error[0] < few.entropy.error[0]
    np.testing.assert_allclose(np.diag(found.covariance["entropy"]["entropy"]), found.entropy.error**2)
    again = np.mean([made(seed, 4000).entropy.error for seed in range(1, 9)], axis=0)  # what joins temperatures is made anew
    np.testing.assert_allclose(found.entropy.error, again, rtol=0.3)
    assert set(agreement) == {"energy", "susceptibility", "specific_heat_direct"}
    a, b = few.energy, many.energy
    expected = np.sum((a.mean - b.mean) ** 2 / (a.error**2 + b.error**2))
    assert agreement["energy"].chi2 == pytest.approx(expected) and agreement["energy"].n == 3 and agreement["energy"].p > 1e-4


def test_correlations_are_those_of_the_averages():
    """Of three files, the one of most samples counts most; the covariance of the average is that of independent files."""
    key, curves = "correlation_energy_susceptibility", [made(seed, n) for seed, n in ((1, 1000), (2, 3000), (3, 500))]
    rho = [np.array([0.5, 0.2, -0.1]), np.array([0.3, -0.4, 0.9]), np.array([np.nan, 0.0, 0.1])]
    curves = [replace(c, diagnostics={**c.diagnostics, key: r}) for c, r in zip(curves, rho, strict=True)]
    merged, _ = merge(curves)
    w = np.array([1000, 3000, 500]) / 4500
    shared = sum(a**2 * r * c.energy.error * c.susceptibility.error for a, r, c in zip(w, rho, curves, strict=True))
    expected = np.nan_to_num(shared / (merged.energy.error * merged.susceptibility.error))
    np.testing.assert_allclose(merged.diagnostics[key], expected, rtol=1e-12)
    assert key not in merge([*curves[:2], replace(curves[2], diagnostics={"doubts": np.zeros(3)})])[0].diagnostics


def test_averages_have_no_bias_where_errors_follow_values():
    """Exponential numbers as averages of few rare events, whose errors are as large as they: inverse variances would favour small ones."""
    rng = np.random.default_rng(3)
    x = rng.exponential(size=(3, 20_000))
    found = combine._average([Estimate(row, row) for row in x], [np.ones(20_000)] * 3)
    assert abs(found.mean.mean() - 1) < 5 * found.mean.std() / np.sqrt(20_000)
    inverse = np.sum(1 / x, 0) / np.sum(x**-2, 0)
    assert inverse.mean() < 0.7  # what this guards against


def test_agreement_follows_chi_squared():
    """Of files that agree every probability is as likely; of files that do not it is small."""
    rng = np.random.default_rng(4)
    sigma = np.array([[0.1], [0.2], [0.4]])
    files = [Estimate(sigma[k] * rng.normal(size=4000), np.full(4000, sigma[k, 0])) for k in range(3)]
    total, each = combine._agreement(files)
    assert total.n == 8000 and abs(total.chi2 - 8000) < 5 * np.sqrt(2 * 8000)
    assert np.abs(np.histogram(each, 10, (0, 1))[0] - 400).max() < 5 * np.sqrt(400)
    moved = [files[0], files[1]._replace(mean=files[1].mean + 2.0), files[2]]
    assert combine._agreement(moved)[0].p < 1e-10


def test_files_that_disagree_are_marked():
    a, b = made(1), made(2)
    wrong = b.observables["energy"]._replace(mean=b.energy.mean + np.array([0.0, 0.3, 0.0]))
    found, agreement = merge([a, tb.ThermalCurve(**{**vars(b), "observables": {**b.observables, "energy": wrong}})])
    assert agreement["energy"].p < 1e-6 and found.trusted.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: made(1), r"sampling\.seed: expected seeds that differ, found 1 in curve 1 and curve 2"),
        (
            lambda: made(2, model={"kind": "heisenberg", "J": 2.0}),
            r"model\.J: expected the same in all files, found 1\.0 in curve 1 and 2\.0",
        ),
        (lambda: made(2, temperature={"T": T[:2]}), r"temperature\.T: expected the same"),
        (lambda: merge([made(1), made(2)])[0], "seeds that differ"),
        (lambda: made(2, method={"kind": "exact"}), "deterministic or typical, found exact"),
    ],
)
def test_what_does_not_belong_together_is_refused(other, message):
    with pytest.raises(InputError, match=message):
        merge([made(1), other()])


def test_scans_are_merged_value_by_value():
    scans = [made(seed, scan={"h": [0.0, 0.8]}) for seed in (1, 2)]
    found, _ = merge(scans)
    for k, part in enumerate(found.sweeps):
        np.testing.assert_allclose(part.energy.mean, np.mean([s.sweeps[k].energy.mean for s in scans], 0))
    alone, _ = merge([made(seed, model={"kind": "heisenberg", "h": 0.8}) for seed in (1, 2)])
    np.testing.assert_allclose(found.sweeps[1].entropy.mean, alone.entropy.mean, rtol=1e-12)


def call(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_merging_by_the_command_line(tmp_path):
    files = [tmp_path / f"{seed}.h5" for seed in (1, 2, 3)]
    for seed, file in enumerate(files, start=1):
        made(seed).save(file)
    text = call("merge", *files, "-o", tmp_path / "all.h5")
    assert "energy" in text and "degrees of freedom" in text
    assert json.loads(call("show", tmp_path / "all.h5", "--json"))["seeds"] == [1, 2, 3]
    assert CliRunner().invoke(app, ["merge", str(files[0]), str(files[1]), "-o", str(tmp_path / "all.h5")]).exception is not None
    with pytest.raises(InputError, match="seeds that differ"):
        merge([tb.ThermalCurve.load(tmp_path / "all.h5"), tb.ThermalCurve.load(files[2])])


@pytest.mark.parametrize("scan", [None, {"h": [0.0, 0.8]}], ids=["plain", "scan"])
def test_temperatures_are_added_in_place(tmp_path, scan):
    path, extra = tmp_path / "a.h5", {"scan": scan} if scan else {}
    old = made(1, **extra)
    old.save(path)
    call("extend", path, "--T", "0.7,4.0", "--T", "inf", "--quiet")
    new = tb.ThermalCurve.load(path)
    assert list(tmp_path.iterdir()) == [path]
    n = 2 if scan else 1
    np.testing.assert_allclose(new.temperature, [*T, 0.7, 4.0, np.inf] * n)
    kept = np.isin(new.temperature, T)
    np.testing.assert_array_equal(new.energy.mean[kept], old.energy.mean)
    assert new.finished and len(new.seeds) == 2 and new.done.all()
    hottest = new.temperature == np.inf
    np.testing.assert_allclose(new.entropy.mean[hottest], np.log(2))
    assert new.covariance["energy"]["entropy"].shape == (6 * n, 6)
    for part, before in zip(new.sweeps, old.sweeps, strict=True):  # and what joins temperatures knows of all
        np.testing.assert_allclose(np.diag(part.covariance["entropy"]["entropy"]), part.entropy.error**2, atol=1e-12)
        assert np.all(part.covariance["specific_heat"]["specific_heat"][:, 5] == 0)  # infinite temperature
        truth = exact_curve(part.hamiltonian, 1 / part.temperature[:5])
        assert np.all(np.abs(part.entropy.mean[:5] - truth["entropy"]) < 5 * part.entropy.error[:5])
        assert part.entropy.error[0] < before.entropy.error[0]
    with pytest.raises(InputError, match=r"does not have, found 0\.7"):
        combine.part_config(new, [0.7], None, "x.h5")


def test_samples_are_added_and_the_old_file_stays_where_asked(tmp_path):
    path = tmp_path / "a.h5"
    old = made(1)
    old.save(path)
    before = path.read_bytes()
    call("extend", path, "--samples", 3000, "-o", tmp_path / "b.h5", "--quiet")
    assert path.read_bytes() == before
    new = tb.ThermalCurve.load(tmp_path / "b.h5")
    np.testing.assert_allclose(new.energy.error, old.energy.error / 2)
    np.testing.assert_array_equal(new.diagnostics["n_samples"], 4000)
    call("extend", tmp_path / "b.h5", "--samples", 4000, "--quiet")
    assert len(tb.ThermalCurve.load(tmp_path / "b.h5").seeds) == 3


def test_an_extension_that_was_stopped_goes_on(tmp_path):
    path, part = tmp_path / "a.h5", tmp_path / "a.more.h5"
    made(1).save(path)
    before, left = path.read_bytes(), iter(range(2))

    def run(config, comm, begin):
        runner.run(config, comm, begin=begin, stop=lambda: next(left, None) is None)

    with pytest.raises(Interrupted):
        extend_file(path, [0.7, 4.0], None, path, False, SERIAL, run)
    assert path.read_bytes() == before and load_checkpoint(part, SERIAL)[1] is not None
    with pytest.raises(InputError, match="another one, which was stopped"):
        extend_file(path, [0.6], None, path, False, SERIAL, run)
    left = iter(range(100))
    extend_file(path, [0.7, 4.0], None, path, False, SERIAL, run)
    assert not part.exists() and len(tb.ThermalCurve.load(path).temperature) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], None), "either --T or --samples, found neither"),
        (([3.0], 10), "found both"),
        (([1.0], None), "does not have"),
        (([-1.0], None), r"temperature\.T"),
    ],
)
def test_extensions_that_are_none_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        combine.part_config(made(1), *arguments, "x.h5")

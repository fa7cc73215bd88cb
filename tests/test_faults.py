"""What goes wrong on real machines: a clear message, the right exit status, and every finished temperature still there."""

import resource
from pathlib import Path

import jax
import numpy as np
import pytest

from thermodbm import ThermalCurve, cli
from thermodbm.errors import NumericsError
from thermodbm.estimate.statistics import exact
from thermodbm.evolve import chains as chains_of_rings
from thermodbm.evolve.method import Info, Point, ThermalMethod
from thermodbm.run import runner

CONFIG = """
lattice = { kind = "chain", extent = [4] }
model.kind = "tfim"
temperature.T = [1.0, 0.5, 2.0]
output.checkpoint_every = 1e-9
"""


def method(at_second=lambda: None, weights=lambda chunk: 1):
    """Two chunks a temperature; something happens in the first chunk of the second."""

    def advance(key, state, beta):
        n = state["n"] + 1
        if n == 3:
            at_second()
        network = {"W": np.zeros(weights(n))}
        return {"n": n}, Info(0.5, "", Point({"energy": exact(beta)}, {}, network) if n % 2 == 0 else None)

    return ThermalMethod(lambda key: {"n": 0}, advance)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command line with a method in a fresh directory; gives status and standard error."""
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(CONFIG)

    def call(*arguments, method=None):
        if method is not None:
            monkeypatch.setattr(runner, "make_method", lambda *arguments: method)
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments])
        err = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in err
        return caught.value.code or 0, err

    return call


def raising(error):
    def fail():
        raise error

    return fail


FAILURES = [
    (NumericsError("A chain gave a value that is not finite."), 3, "not finite"),
    (MemoryError(), 3, "Out of memory"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1000 bytes."), 3, "RESOURCE_EXHAUSTED"),
]


@pytest.mark.parametrize(("error", "status", "text"), FAILURES, ids=["NaN", "memory", "device"])
def test_a_failure_keeps_what_is_finished_and_resume_tries_again(call, error, status, text):
    found, err = call("run", "c.toml", method=method(raising(error)))
    assert found == status and text in err
    curve = ThermalCurve.load("c.h5")
    assert curve.done.tolist() == [False, False, True] and not curve.finished
    assert call("resume", "c.h5")[0] == status
    assert call("resume", "c.h5", method=method())[0] == 0
    assert ThermalCurve.load("c.h5").energy.mean.tolist() == [1.0, 2.0, 0.5]


def test_a_real_chain_that_becomes_nan_ends_with_status_3(call, monkeypatch):
    """Values of the second temperature, beta = 1, are poisoned on their way out of the sampler."""
    run_chains = chains_of_rings.run_chains

    def poisoned(*arguments, **options):
        run = run_chains(*arguments, **options)

        def sweep(key, source, *place):
            chains, samples = run(key, source, *place)
            energy = np.where(source[1] == 1, np.nan, samples.values["energy"])
            return chains, samples._replace(values={**samples.values, "energy": energy})

        return sweep

    monkeypatch.setattr(chains_of_rings, "run_chains", poisoned)
    monkeypatch.setattr(chains_of_rings, "_compiled", chains_of_rings._compiled.__wrapped__)  # nothing is kept
    settings = ('method={kind="deterministic", sampler="gibbs", extrapolate=false}', "sampling={n_chains=2, n_samples=200}")
    status, err = call("run", "c.toml", "--set", settings[0], "--set", settings[1])
    assert status == 3 and "not finite. At beta = 1." in err
    assert ThermalCurve.load("c.h5").done.tolist() == [False, False, True]


@pytest.fixture
def disk():
    """Sets the number of bytes that a file may have, as a full disk or a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_from_the_start_ends_with_status_2(call, disk):
    disk(1000)
    status, err = call("run", "c.toml", method=method())
    assert status == 2 and "output.file: expected a file that can be written" in err
    assert [p.name for p in Path().iterdir()] == ["c.toml"]


def test_a_disk_that_fills_up_keeps_what_is_finished(call, disk):
    disk(200_000)
    status, err = call("run", "c.toml", method=method(weights=lambda n: 100_000 if n > 2 else 1))
    assert status == 2 and "File too large" in err and "as it was before" in err
    assert ThermalCurve.load("c.h5").done.tolist() == [False, False, True]
    assert sorted(p.name for p in Path().iterdir()) == ["c.h5", "c.toml"]
    disk(10_000_000)
    assert call("resume", "c.h5", method=method())[0] == 0
    assert ThermalCurve.load("c.h5").finished


def test_a_truncated_or_overwritten_file_is_refused(call):
    call("run", "c.toml", method=method(raising(MemoryError())))
    content = Path("c.h5").read_bytes()
    for k in range(10):
        Path("c.h5").write_bytes(content[: len(content) * k // 10])
        for command in ("resume", "show"):
            status, err = call(command, "c.h5")
            assert status == 2 and "c.h5" in err
    Path("c.h5").write_text("my thesis")
    assert call("resume", "c.h5")[0] == 2 and Path("c.h5").read_text() == "my thesis"
    assert call("resume", "none.h5")[0] == 2
    assert call("resume", ".")[0] == 2


def test_a_run_of_another_version_is_refused(call, monkeypatch):
    call("run", "c.toml", method=method(raising(MemoryError())))
    before = Path("c.h5").read_bytes()
    monkeypatch.setattr("thermodbm.run.checkpoint.program_version", lambda: "99.0")
    status, err = call("resume", "c.h5")
    assert status == 2 and "99.0" in err and "--force" in err and Path("c.h5").read_bytes() == before

"""The command line: exit statuses, what goes to which stream, and no traceback whatever is thrown at it."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thermodbm import ThermalCurve, cli
from thermodbm.errors import NumericsError
from thermodbm.run import curve_file, runner

CONFIG = """
[lattice]
kind = "chain"
extent = [6]
[model]
kind = "tfim"
[method]
kind = "exact"
[temperature]
T = [0.5, 1.0]
[output]
file = "out/ring.h5"
"""


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command line in a fresh directory with a config in it; gives status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring.toml").write_text(CONFIG)

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code or 0, out, err

    return call


def test_run_show_compare_plot(call, tmp_path):
    status, out, err = call("run", "ring.toml")
    assert status == 0 and out == "" and "[2/2] T = 0.5  energy" in err and "out/ring.h5" in err
    assert call("run", "ring.toml", "-o", "b.h5", "--quiet", "--set", "temperature.T=[1.0, 2.0]") == (0, "", "")
    status, out, _ = call("show", "out/ring.h5")
    assert status == 0 and out.startswith("exact method, finished") and "-1.2" in out
    status, out, _ = call("compare", "out/ring.h5", "b.h5")
    assert status == 0 and "Note" not in out and "chi^2/n" in out
    status, _, err = call("plot", "out/ring.h5", "b.h5")
    assert status == 0 and (tmp_path / "out" / "ring.png").stat().st_size > 10_000
    assert call("plot", "out/ring.h5", "-o", "fig.pdf")[0] == 0 and (tmp_path / "fig.pdf").exists()


def test_json_and_csv_hold_the_numbers_of_the_file(call, tmp_path):
    call("run", "ring.toml", "-o", "a.h5")
    curve = ThermalCurve.load(tmp_path / "a.h5")
    table = json.loads(call("show", "a.h5", "--json")[1])
    assert table["temperature"] == [0.5, 1.0] and table["finished"] == 1 and table["method"] == "exact"
    assert table["observables"]["energy"]["mean"] == curve.energy.mean.tolist()
    assert np.shape(table["observables"]["correlation_zz"]["mean"]) == (2, 6)
    rows = list(csv.DictReader(io.StringIO(call("show", "a.h5", "--csv")[1])))
    assert [float(row["energy"]) for row in rows] == curve.energy.mean.tolist()
    assert [float(row["energy_error"]) for row in rows] == [0, 0]
    pulls = json.loads(call("compare", "a.h5", "a.h5", "--json")[1])
    assert pulls["same_model"] and pulls["summary"]["energy"] == {"n": 2, "max_pull": 0, "chi2_per_n": 0, "max_difference": 0}


def test_nan_is_null_in_json_and_empty_in_csv(call, tmp_path):
    call("run", "ring.toml", "-o", "a.h5")
    curve = ThermalCurve.load(tmp_path / "a.h5")
    curve.energy.mean[0] = curve.energy.error[0] = np.nan
    curve.save(tmp_path / "a.h5", force=True)
    assert json.loads(call("show", "a.h5", "--json")[1])["observables"]["energy"]["mean"][0] is None
    assert next(csv.DictReader(io.StringIO(call("show", "a.h5", "--csv")[1])))["energy"] == ""
    assert "  -  " in call("show", "a.h5")[1]


def test_show_warns_of_chains_that_disagree_and_gives_the_average_sign(call, tmp_path):
    call("run", "ring.toml", "-o", "a.h5")
    curve = ThermalCurve.load(tmp_path / "a.h5")
    assert "disagree" not in call("show", "a.h5")[1]
    energy = curve.energy._replace(r_hat=np.array([1.01, 1.3]))
    replace(curve, observables={"energy": energy}, diagnostics={"average_sign": np.array([0.123, 0.9])}).save(tmp_path / "a.h5", force=True)
    out = call("show", "a.h5")[1]
    assert "T = 1: The Markov chains disagree" in out and "mixing" in out and "average_sign" in out and "0.123" in out


def test_validate_prints_a_config_that_is_itself_valid_and_runs_nothing(call, tmp_path):
    deterministic = ("--set", "method.kind=deterministic")
    status, out, err = call("validate", "ring.toml", *deterministic)
    assert status == 0 and err == "" and "n_samples = 20000" in out and "6 sites" in out and "slices" in out
    (tmp_path / "resolved.toml").write_text(out)
    assert call("validate", "resolved.toml")[:2] == (0, out)
    assert sorted(os.listdir(tmp_path)) == ["resolved.toml", "ring.toml"]


@pytest.mark.parametrize("command", ["--help", "-h", "--version", "show -h", "show a.h5", "show none.h5"])
def test_what_needs_no_jax_does_not_wait_for_it(call, tmp_path, command):
    call("run", "ring.toml", "-o", "a.h5")
    process = python("-X", "importtime", "-m", "thermodbm", *command.split(), cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == (2 if "none" in command else 0) and (out or "none" in command)
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
    assert "typer" in imported and not imported & {"jax", "flax", "xarray", "scipy", "matplotlib", "networkx", "optax"}


def test_version(call):
    status, out, _ = call("--version")
    assert status == 0 and out == f"thermodbm {curve_file.program_version()}\n"


def test_a_run_without_a_finished_temperature_is_not_plotted(call, tmp_path):
    call("run", "ring.toml", "-o", "a.h5")
    curve = ThermalCurve.load(tmp_path / "a.h5")
    replace(curve, observables={}, diagnostics={}, network=({}, {}), finished=False).save(tmp_path / "b.h5")
    status, _, err = call("plot", "a.h5", "b.h5")
    assert status == 2 and "b.h5: expected a run with a finished temperature" in " ".join(err.split()) and "--output" not in err


def test_the_default_output_stands_beside_the_config(call, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "ring.toml").write_text(CONFIG.partition("[output]")[0])
    assert call("run", "there/ring.toml", "--quiet")[0] == 0
    assert sorted(os.listdir(tmp_path / "there")) == ["ring.h5", "ring.toml"] and sorted(os.listdir(tmp_path)) == ["ring.toml", "there"]


def test_infinite_temperature_through_config_and_command_line(call, tmp_path):
    assert call("run", "ring.toml", "-o", "a.h5", "--quiet", "--set", "temperature.T=[inf, 1.0]")[0] == 0
    row = next(line for line in call("show", "a.h5")[1].splitlines() if line.startswith("inf"))
    assert row.split()[:5] == ["inf", "0", "0", "0.6931471806", "-inf"]
    assert call("plot", "a.h5")[0] == 0
    assert json.loads(call("show", "a.h5", "--json")[1])["beta"] == [0.0, 1.0]
    assert call("run", "ring.toml", "-o", "b.h5", "--quiet", "--set", "temperature={beta=[0.0]}")[0] == 0
    assert "trained by free fermions" in call("validate", "ring.toml", "--set", "method.kind=learned")[1]
    assert "Polished by 4000 samples" in call("validate", "ring.toml", "--set", "method={kind='learned', polish=4000}")[1]
    assert "T = inf: known" in call("validate", "ring.toml", "--set", "temperature.T=[inf]", "--set", "method.kind=deterministic")[1]


ALARM = """
import os, sys
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
if sys.argv[1] == "entry point":
    from thermodbm import cli
    try:
        cli.main(["--version"])
    except SystemExit:
        pass
import jax, numpy as np
jax.config.update("jax_enable_compilation_cache", False)
numbers = np.ones((120, 120), np.float32)
@jax.jit
def slow():  # folded when it is compiled, which takes seconds: an alarm
    return jax.lax.reduce_window(jax.numpy.asarray(numbers), 0.0, jax.lax.add, (31, 31), (1, 1), "SAME")
slow()
"""


def test_alarms_of_the_compiler_are_kept_out_of_sight(tmp_path):
    _, err = python("-c", ALARM, "entry point", cwd=tmp_path).communicate(timeout=300)
    assert err == ""
    _, err = python("-c", ALARM, "alone", cwd=tmp_path).communicate(timeout=300)
    assert "Constant folding" in err  # there is something to be kept out of sight


def test_doctor(call):
    status, out, _ = call("doctor")
    assert status == 0 and "float64" in out and "jaxlib" in out and "cpu" in out.lower() and "MPI ranks" in out


BAD = [
    (["run", "none.toml"], "none.toml"),
    (["run", "."], "TOML"),
    (["run", "ring.toml", "--set", "lattice.extnt=[4]"], "lattice.extnt"),
    (["run", "ring.toml", "--set", "temperature.T=[]"], "temperature.T"),
    (["run", "ring.toml", "--set", "model.J=nan"], "model.J"),
    (["run", "ring.toml", "--set", "lattice.extent=[1000000000]"], "lattice.extent"),
    (["run", "ring.toml", "-o", "ring.toml", "--force"], "output.file"),
    (["run", "ring.toml", "-o", "/proc/none/a.h5"], "output.file"),
    (["run", "ring.toml", "-o", "."], "output.file"),
    (["run", "ring.toml", "--nope"], "--nope"),
    (["run"], "CONFIG.toml"),
    (["nope"], "nope"),
    (["show", "ring.toml"], "ring.toml"),
    (["show", "none.h5"], "none.h5"),
    (["compare", "none.h5", "none.h5"], "none.h5"),
    (["plot", "none.h5"], "none.h5"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_ends_with_status_2_and_changes_nothing(call, tmp_path, arguments, text):
    status, out, err = call(*arguments)
    assert status == 2 and out == "" and text in err
    assert os.listdir(tmp_path) == ["ring.toml"] and (tmp_path / "ring.toml").read_text() == CONFIG
    if arguments[0] == "run" and len(arguments) > 2 and "--nope" not in arguments:
        assert call("validate", *arguments[1:])[0] == 2


def test_a_finished_output_needs_force(call, tmp_path):
    call("run", "ring.toml")
    before = (tmp_path / "out/ring.h5").read_bytes()
    status, _, err = call("run", "ring.toml")
    assert status == 2 and "--force" in err
    status, out, err = call("validate", "ring.toml")  # says so, and all the rest
    assert status == 0 and err == "" and "`run` will refuse it. Overwrite it with --force." in out
    assert "seed = 1" in out and "6 sites" in out
    assert "refuse" not in call("validate", "ring.toml", "--force")[1]
    assert (tmp_path / "out/ring.h5").read_bytes() == before
    assert call("run", "ring.toml", "--force", "--set", "sampling.seed=9")[0] == 0
    assert ThermalCurve.load(tmp_path / "out/ring.h5").seed == 9


def test_more_bad_input_about_results(call):
    call("run", "ring.toml", "-o", "a.h5")
    call("run", "ring.toml", "-o", "b.h5", "--set", "temperature.T=[3.0]")
    assert call("compare", "a.h5", "b.h5")[0] == 2
    assert call("show", "a.h5", "--json", "--csv")[0] == 2
    status, _, err = call("plot", "a.h5", "-o", "fig.nonsense")
    assert status == 2 and "nonsense" in err
    assert call("run", "ring.toml", "-o", "c.h5", "--set", "lattice.extent=[40]", "--set", "model.h=0.1")[0] == 2


@pytest.mark.parametrize(("error", "status"), [(NumericsError("all is NaN"), 3), (MemoryError(), 3)])
def test_failing_numerics_end_with_status_3(call, monkeypatch, error, status):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(runner, "run", fail)
    assert call("run", "ring.toml")[0] == status


def python(*arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=environment)


def test_a_closed_pipe_gives_no_traceback(call, tmp_path):
    call("run", "ring.toml", "-o", "a.h5", "--set", "temperature.T={start=0.1, stop=1.0, num=80}", "--set", "lattice.extent=[10]")
    process = python("-m", "thermodbm", "show", "a.h5", "--json", cwd=tmp_path)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(300) == 0


def test_importing_starts_no_device_and_changes_no_setting(tmp_path):
    code = """
import jax, thermodbm
assert not jax.config.jax_enable_x64
h = thermodbm.transverse_field_ising(thermodbm.make_lattice("chain", 4), J=0.1)
curve = thermodbm.thermal_curve(h, T=1.0, method="exact", progress=False)
assert curve.hamiltonian.zz[0] == -0.1, curve.hamiltonian.zz
import os
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
assert jax.config.jax_enable_x64 and (jax.default_backend() != "cpu" or len(jax.devices()) == cores)
"""
    out, err = python("-c", code, cwd=tmp_path).communicate(timeout=300)
    assert (out, err) == ("", "")

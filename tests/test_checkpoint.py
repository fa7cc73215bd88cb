"""A run that was stopped anywhere goes on bit for bit, and a checkpoint that does not belong is refused."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermodbm import InputError, ThermalCurve, cli
from thermodbm.comm import SERIAL
from thermodbm.errors import Interrupted
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.method import Info, Point, ThermalMethod
from thermodbm.run import checkpoint, runner, signals
from thermodbm.run.checkpoint import load_checkpoint
from thermodbm.run.config import parse_config
from thermodbm.run.hdf5 import fingerprint, read_file, read_tree, write_file, write_tree
from thermodbm.run.output import check_output

BASE = {"lattice": {"kind": "chain", "extent": [4]}, "model": {"kind": "tfim"}, "temperature": {"T": [1.0, 0.5, 2.0]}}
METHODS = {
    "deterministic": {
        "method": {"kind": "deterministic", "sampler": "gibbs", "extrapolate": False},
        "sampling": {"n_chains": 2, "n_samples": 3000},
    },
    "sampled": {
        "method": {"kind": "variational", "enumerate": False, "alpha": 1, "n_walkers": 32},
        "sampling": {"n_samples": 200},
    },
    "enumerated": {"method": {"kind": "variational", "alpha": 1}},
    "joined": {
        "lattice": {"kind": "graph", "n_sites": 3, "edges": [[0, 1], [1, 2], [0, 2]]},
        "model": {"kind": "heisenberg"},
        "method": {"kind": "variational", "enumerate": False, "ansatz": "jastrow", "n_walkers": 32, "compose": True},
        "sampling": {"n_samples": 128},
    },
    "learned": {"method": {"kind": "learned", "layers": 2, "cache": False}, "sampling": {"n_chains": 8, "n_samples": 20_000}},
}


def config(path, **tables):
    return parse_config({**BASE, **tables, "output": {"file": str(path), "checkpoint_every": 1e9}})


def random_walk(at_chunk=lambda chunk: None):
    """A method whose result depends on all its keys, with a state of every kind; five chunks a temperature."""

    def advance(key, state, beta):
        at_chunk(int(state["n"]))
        assert isinstance(state["nested"]["x"], jax.Array)
        x = state["nested"]["x"] + jax.random.normal(key, (3,))
        state = {"n": state["n"] + 1, "half": 0.5, "flag": True, "nested": {"x": x, "empty": {}, "spins": np.int8([1, -1])}}
        point = None
        if state["n"] % 5 == 0:
            point = Point(
                {"energy": Estimate(np.asarray(x[0]), np.asarray(0.1))}, {"x": np.asarray(x)}, {"a/b": np.ones(2), "c": np.ones(1)}
            )
        return state, Info(0.5, "", point)

    def summarize(points, betas):  # must see each temperature as it was, whatever was joined before
        total = sum(p.observables["energy"].mean for p in points)
        return [
            p._replace(observables={"energy": p.observables["energy"]._replace(mean=p.observables["energy"].mean + total)}) for p in points
        ]

    return ThermalMethod(lambda key: {"n": 0, "nested": {"x": jnp.zeros(3)}}, advance, summarize=summarize)


def arrays(path):
    """All that is in a result file and does not depend on the clock."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None)
        found["attributes"] = {name: value for name, value in file.attrs.items() if name != "wall_time_s"}
    return {name: values for name, values in found.items() if not name.endswith("wall_time_s")}


class StopAfter:
    """Says stop after some chunks."""

    def __init__(self, chunks):
        self.left = chunks

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("name", [*METHODS, "random walk"])
def test_a_stopped_run_ends_with_the_same_arrays(tmp_path, monkeypatch, name):
    whole = config(tmp_path / "c.h5", **METHODS.get(name, {}))
    method = (
        random_walk() if name == "random walk" else runner.make_method(whole.hamiltonian, whole.method, whole.sampling, SERIAL, whole.betas)
    )
    monkeypatch.setattr(runner, "make_method", lambda *arguments: method)  # the same functions for all runs: they are compiled once
    runner.run(whole)
    expected = arrays(whole.output)
    begin, here, n_stops, rng = None, whole, 0, random.Random(1)
    while True:
        try:
            runner.run(here, begin=begin, stop=StopAfter(rng.randrange(2, 8)))
            break
        except Interrupted as stopped:
            assert "thermodbm resume" in str(stopped)
            n_stops += 1
            here, begin = load_checkpoint(whole.output, SERIAL)
    assert n_stops >= 2
    assert arrays(whole.output) == expected and not any(name.startswith("checkpoint") for name in expected)
    assert load_checkpoint(whole.output, SERIAL)[1] is None


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The file of a run that was stopped after its seventh chunk."""
    monkeypatch.setattr(runner, "make_method", lambda *arguments: random_walk())
    with pytest.raises(Interrupted):
        runner.run(config(tmp_path / "c.h5"), stop=StopAfter(6))
    return tmp_path / "c.h5"


def test_checkpoints_are_written_in_time(tmp_path, monkeypatch):
    seen = []
    path = tmp_path / "c.h5"
    monkeypatch.setattr(runner, "make_method", lambda *arguments: random_walk(lambda n: seen.append(_chunk(path))))
    runner.run(parse_config({**BASE, "output": {"file": str(path), "checkpoint_every": 1e-9}}))
    assert seen == [0, 1, 2, 3, 4] * 3
    seen.clear()
    runner.run(config(path))
    assert seen == [0] * 15  # between temperatures only


def _chunk(path):
    with h5py.File(path) as file:
        return file["checkpoint/chunk"][()]


def test_an_unfinished_file_can_be_read_and_is_not_overwritten(stopped):
    curve = ThermalCurve.load(stopped)
    assert curve.done.tolist() == [False, False, True] and not curve.finished
    np.testing.assert_array_equal(curve.network[2]["a/b"], np.ones(2))
    with pytest.raises(InputError, match=r"unfinished run.*resume"):
        check_output(stopped)


def test_a_run_that_has_only_begun_is_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "make_method", lambda *arguments: random_walk())
    with pytest.raises(Interrupted):
        runner.run(config(tmp_path / "c.h5"), stop=StopAfter(1))
    assert not ThermalCurve.load(tmp_path / "c.h5").done.any()
    with pytest.raises(InputError, match=r"unfinished run.*resume"):
        check_output(tmp_path / "c.h5")


def test_time_adds_up(stopped):
    before = ThermalCurve.load(stopped).wall_time
    here, begin = load_checkpoint(stopped, SERIAL)
    assert begin.seconds == before > begin.seconds_here > 0
    assert runner.run(here, begin=begin._replace(seconds=1000.0)).wall_time > 1000


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file, name, value):
    marks = dict(file[name].attrs)
    del file[name]
    file[name] = value
    file[name].attrs.update(marks)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: replace(f, "checkpoint/chunk", 3),
        lambda f: f["checkpoint/states/00000/nested/x/jax"].write_direct(np.zeros(3)),
        lambda f: f.pop("checkpoint/states/00000"),
        lambda f: f.pop("checkpoint/sha256"),
        lambda f: f["checkpoint"].move("points/00002", "points/00001"),
        lambda f: f.create_dataset("checkpoint/states/00000/huge", (10**9, 10**9), float),
        lambda f: f.attrs.update(config="[lattice"),
    ],
)
def test_a_damaged_checkpoint_is_refused(stopped, change):
    edit(stopped, change)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(stopped, SERIAL)


def test_a_checkpoint_of_another_run_is_refused(stopped, monkeypatch):
    with pytest.raises(InputError, match="2 rank"):
        load_checkpoint(*_rewritten(stopped, n_ranks=2))
    with pytest.raises(InputError, match=r"0\.0\.1.*--force"):
        load_checkpoint(*_rewritten(stopped, n_ranks=1, thermodbm_version="0.0.1"))
    edit(stopped, lambda f: f.attrs.update(config=f.attrs["config"].replace("seed = 1", "seed = 2")))
    with pytest.raises(InputError, match="config"):
        load_checkpoint(*_rewritten(stopped, thermodbm_version=checkpoint.program_version()))


def _rewritten(path, **changes):
    """As another program, or another number of ranks, would have written it."""

    def rewrite(file):
        tree = read_tree(file["checkpoint"], 10**6) | changes
        tree.pop("sha256")
        del file["checkpoint"]
        write_tree(file.create_group("checkpoint"), {**tree, "sha256": fingerprint(tree)})

    edit(path, rewrite)
    return path, SERIAL


def test_a_run_with_a_method_from_python_has_no_checkpoint(tmp_path):
    with pytest.raises(Interrupted):
        runner.run(config(tmp_path / "c.h5"), method=random_walk(), stop=StopAfter(6))
    with pytest.raises(InputError, match="ansatz of its own"):
        load_checkpoint(tmp_path / "c.h5", SERIAL)


def test_what_a_killed_writer_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "make_method", lambda *arguments: random_walk())
    (tmp_path / ".c.h5.123.tmp").write_text("half")
    (tmp_path / ".d.h5.123.tmp").write_text("of another run")
    runner.run(config(tmp_path / "c.h5"))
    assert sorted(os.listdir(tmp_path)) == [".d.h5.123.tmp", "c.h5"]


def test_trees_come_back_as_they_were(tmp_path):
    numbers = {"int": 3, "float": 0.1, "nan": float("nan"), "true": True, "text": "beta ß", "numpy": np.float64(2)}
    arrays = {name: np.ones(2, name) for name in ("int8", "uint32", "int64", "float32", "float64", "complex128", "bool")}
    tree = {"z": numbers, "a": {"empty": {}, "none": np.zeros((0, 3))}, "arrays": arrays}
    write_file(tmp_path / "t.h5", lambda file: write_tree(file.create_group("t", track_order=True), tree))
    again = read_file(tmp_path / "t.h5", lambda file, size: read_tree(file["t"], size))
    assert list(again) == ["z", "a", "arrays"] and list(again["z"]) == list(numbers) and again["a"]["empty"] == {}
    for name, value in numbers.items():
        assert type(again["z"][name]) is type(value) and (again["z"][name] == value or value != value)
    for name, value in arrays.items():
        assert again["arrays"][name].dtype == value.dtype and (again["arrays"][name] == value).all()
    assert fingerprint(again) == fingerprint(tree) != fingerprint({**tree, "z": {}})


@pytest.mark.parametrize("value", [None, [1.0], (1, 2), np.array(["a"]), object(), jnp.ones(2)])
def test_nothing_else_is_written(tmp_path, value):
    with pytest.raises(TypeError):
        write_file(tmp_path / "t.h5", lambda file: write_tree(file, {"x": value}))
    assert not os.listdir(tmp_path)


TOML = """
lattice = { kind = "chain", extent = [4] }
model.kind = "tfim"
temperature.T = [1.0, 0.5, 2.0]
"""


def call(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return caught.value.code or 0


@pytest.mark.parametrize("name", signals.SIGNALS)
def test_a_signal_ends_with_status_75_and_resume_goes_on(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(TOML)
    monkeypatch.setattr(runner, "make_method", lambda *arguments: random_walk())
    assert call("run", "c.toml", "-o", "whole.h5") == 0
    number, signals_left = getattr(signal, name), [3, 9]

    def raise_signal(chunk):
        if chunk in signals_left:
            signals_left.remove(chunk)
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    monkeypatch.setattr(runner, "make_method", lambda *arguments: random_walk(raise_signal))
    assert call("run", "c.toml", "-o", "c.h5") == 75
    assert "resume c.h5" in " ".join(capsys.readouterr().err.split())
    assert call("resume", "c.h5") == 75  # after the last chunk of a temperature
    assert "[2/3]" in capsys.readouterr().err
    assert call("resume", "c.h5") == 0
    assert signal.getsignal(number) is handler
    mine, theirs = arrays(tmp_path / "c.h5"), arrays(tmp_path / "whole.h5")
    assert {**mine, "attributes": None} == {**theirs, "attributes": None}
    before = Path("c.h5").read_bytes()
    assert call("resume", "c.h5") == 0 and "nothing left to do" in capsys.readouterr().err
    assert Path("c.h5").read_bytes() == before


def test_killed_processes_leave_files_that_can_be_resumed(tmp_path):
    (tmp_path / "c.toml").write_text(
        TOML
        + """
method = { kind = "deterministic", sampler = "gibbs", extrapolate = false }
sampling = { n_chains = 2, n_samples = 20000 }
output.checkpoint_every = 0.01
"""
    )
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | cache | {"PYTHONPATH": str(Path(cli.__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"}

    def start(*arguments):
        return subprocess.Popen([sys.executable, "-m", "thermodbm", *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)

    def wait_for(n_chunks, process):
        path = tmp_path / "c.h5"
        seen = set()
        while len(seen) < n_chunks and process.poll() is None:
            if path.exists():
                seen.add(path.stat().st_mtime_ns)
            time.sleep(0.01)

    process = start("run", "c.toml", "-o", "c.h5")
    for n_chunks in (5, 7):
        wait_for(n_chunks, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
        process = start("resume", "c.h5")
    assert b"Written" in process.communicate()[1] and process.returncode == 0
    assert start("run", "c.toml", "-o", "whole.h5").wait() == 0
    mine, theirs = arrays(tmp_path / "c.h5"), arrays(tmp_path / "whole.h5")
    assert {**mine, "attributes": None} == {**theirs, "attributes": None}

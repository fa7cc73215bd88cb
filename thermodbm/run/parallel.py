"""Several processes under mpirun or srun: sums over ranks inside jit and each rank's share of the machine."""

import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from thermodbm.comm import Comm
from thermodbm.errors import InputError
from thermodbm.run.launch import launched


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

"""Run by mpirun from test_parallel.py, so that MPI and JAX start once: every check on two ranks, its findings as JSON from rank 0.

Ranks have unequal numbers of devices, as on hosts whose cores do not divide evenly: they must go through the same chunks all the same.
"""

import json
import os
import sys
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import Interrupted
from thermodbm.run import runner
from thermodbm.run.checkpoint import load_checkpoint
from thermodbm.run.config import parse_config
from thermodbm.run.parallel import mpi_comm, self_test
from thermodbm.run.results import ThermalCurve

BASE = {"lattice": {"kind": "chain", "extent": [4]}, "model": {"kind": "tfim"}, "temperature": {"T": [0.5, 2.0]}}
METHODS = {
    "deterministic": {
        "method": {"kind": "deterministic", "sampler": "column", "extrapolate": False, "d_tau": 0.05},
        "sampling": {"n_chains": 160, "n_samples": 32000},
    },
    "variational": {
        "method": {"kind": "variational", "enumerate": False, "alpha": 1, "n_walkers": 1024},
        "sampling": {"n_samples": 4096},
    },
}


def sums(comm):
    """A pytree of all types, inside jit: each leaf must be the sum over ranks in its own type."""
    r = comm.rank + 1
    mine = {"f": jnp.full((2, 3), 0.5 * r), "c": jnp.asarray(1j * r), "i": [jnp.arange(3) * r, jnp.int8(r)], "single": jnp.float32(r)}
    total = jax.jit(comm.sum)(mine)
    expected = {"f": jnp.full((2, 3), 1.5), "c": jnp.asarray(3j), "i": [jnp.arange(3) * 3, jnp.int8(3)], "single": jnp.float32(3)}
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.shape == y.shape and bool((x == y).all()), total, expected)
    return all(jax.tree.leaves(same))


def method_checks(name, comm, directory):
    """Twice the same seed; then stopped by one rank alone, and resumed."""
    tables = {**BASE, **METHODS[name], "output": {"file": str(directory / f"{name}.h5")}}
    config = parse_config(tables)
    method = runner.make_method(config.hamiltonian, config.method, config.sampling, comm)
    runner.make_method = lambda *arguments: method
    whole = runner.run(config, comm)
    names = list(whole.observables)
    again = runner.run(config, comm)
    calls = []
    try:
        runner.run(config, comm, stop=lambda: calls.append(1) or (comm.rank == 1 and len(calls) == 4))
        stopped = False
    except Interrupted:
        stopped = True
    if comm.rank == 0:
        with h5py.File(config.output) as file:
            n_states = len(file["checkpoint/states"])
    config, begin = load_checkpoint(config.output, comm)
    resumed = runner.run(config, comm, begin=begin)
    means = np.array([np.ravel(c.observables[n].mean) for c in (whole, again, resumed) for n in names], dtype=object)
    means = [np.concatenate([np.ravel(x) for x in means[k * len(names) : (k + 1) * len(names)]]) for k in range(3)]
    theirs = comm.gather(means[0])
    if comm.rank == 0:
        return {
            "repeats": bool((means[0] == means[1]).all()),
            "stopped": stopped,
            "resumes": bool((means[0] == means[2]).all()),
            "ranks_agree": all(bool((means[0] == m).all()) for m in theirs),
            "n_states": n_states,
            "energy": [whole.energy.mean.tolist(), whole.energy.error.tolist()],
            "finished": ThermalCurve.load(config.output).finished,
        }
    return None


comm = mpi_comm()
devices = f"--xla_force_host_platform_device_count={1 + comm.rank}"
os.environ["XLA_FLAGS"] = f"{devices} --xla_backend_optimization_level=1 --xla_cpu_max_isa=AVX2"  # read when the first array is made
runner.start_jax()
make_method = runner.make_method
found = {"ranks": comm.size, "devices": comm.share(jax.local_device_count()), "sums": sums(comm), "self_test": self_test(comm)}
for name in METHODS:
    found[name] = method_checks(name, comm, Path(sys.argv[1]))
    runner.make_method = make_method
if comm.rank == 0:
    Path(sys.argv[1], "found.json").write_text(json.dumps(found))

"""What several ranks gain and what they say to each other: the same work on 1, 2, ... ranks with one core each.

    python benchmarks/mpi_efficiency.py [--ranks 1 2] [--seconds 20]

For both methods: sweeps of all chains, or integration steps, a second, and the efficiency rate(R) / (R rate(1)); messages and bytes that
a rank contributes for each, and the share of the time that their sums take when they are repeated without any work in between. The last
column is on paper, for 1024 ranks with as much work each: all-reduces of 2 log2(R) stages of LATENCY and twice their bytes at BANDWIDTH,
as a share of the time of the work.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

LATENCY, BANDWIDTH = 2e-6, 10e9
"""Seconds a stage and bytes a second of a cluster's network."""

BASE = {"lattice": {"kind": "chain", "extent": [16]}, "model": {"kind": "tfim"}}
METHODS = {
    "deterministic": {
        "method": {"kind": "deterministic", "extrapolate": False, "d_tau": 0.05},
        "temperature": {"beta": [4.0]},
        "sampling": {"n_chains": 256, "n_samples": 10**9},
    },
    "variational": {
        "method": {"kind": "variational", "enumerate": False, "n_walkers": 2048, "solver": "cholesky", "max_distance": 0.02},
        "temperature": {"beta": [4.0]},
        "sampling": {"n_samples": 10**9},
    },
}


def measure(name: str, seconds: float) -> dict[str, float]:
    """On every rank: advance for some seconds after a warm-up; then once more with a note of each message."""
    import jax
    import jax.numpy as jnp

    from thermodbm.comm import SERIAL
    from thermodbm.run.config import parse_config
    from thermodbm.run.parallel import launched, mpi_comm
    from thermodbm.run.runner import make_method, start_jax

    comm = mpi_comm() if launched()[1] > 1 else SERIAL
    start_jax()
    config = parse_config({**BASE, **METHODS[name]})
    key, beta = jax.random.key(1), float(config.betas[0])

    def advance(method, state, n_calls, seconds):
        """At least so many calls and seconds, as rank 0 sees it."""
        began, n = time.perf_counter(), 0
        while True:
            state, _ = method.advance(jax.random.fold_in(key, n), state, beta)
            n += 1
            late = n >= n_calls and time.perf_counter() - began >= seconds
            if int(comm.sum(jnp.asarray(int(comm.rank == 0 and late)))):
                return state, n, time.perf_counter() - began

    def work(state):
        """Sweeps or steps so far."""
        return state["levels"]["0"]["n_sweeps"] if "levels" in state else state["n_steps"] + state["n_rejected"]

    method = make_method(config.hamiltonian, config.method, config.sampling, comm)
    warm, _, _ = advance(method, method.init(key), 10, 0.0)
    state, _, elapsed = advance(method, warm, 1, seconds)
    rate = (work(state) - work(warm)) / elapsed

    messages = []

    def noted(tree):
        leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
        for dtype in {x.dtype for x in leaves}:  # one message each
            jax.debug.callback(partial(messages.append, (str(dtype), sum(x.size for x in leaves if x.dtype == dtype))))
        return comm.sum(tree)

    noting = make_method(config.hamiltonian, config.method, config.sampling, comm._replace(sum=noted))
    end, _, _ = advance(noting, state, 3, 0.0)
    n_noted = work(end) - work(state)
    jax.effects_barrier()
    spent = 0.0
    for dtype, size in sorted(set(messages)):
        zeros, repeats = jnp.zeros(size, dtype), 5
        jax.block_until_ready(comm.sum(zeros))
        began = time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(comm.sum(zeros))
        spent += (time.perf_counter() - began) / repeats * messages.count((dtype, size))
    n_bytes = sum(jnp.dtype(dtype).itemsize * size for dtype, size in messages)
    found = {"rate": rate, "messages": len(messages) / n_noted, "bytes": n_bytes / n_noted, "share": spent / n_noted * rate}
    return found | {"rank": comm.rank}


def launch(name: str, ranks: int, seconds: float) -> dict[str, float]:
    """`measure` on so many ranks, each bound to a core."""
    command = [sys.executable, __file__, "--measure", name, "--seconds", str(seconds)]
    settings = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    settings |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if ranks == 1:
        command = ["taskset", "-c", "0", *command]
    else:
        command = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks), "--bind-to", "core", *command]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--measure", choices=METHODS)
    options = parser.parse_args()
    if options.measure:
        found = measure(options.measure, options.seconds)
        if found["rank"] == 0:
            print(json.dumps(found))
        return
    print("method         ranks   rate/s  efficiency       messages       bytes  share of time  1024 ranks")
    for name in METHODS:
        first = None
        for ranks in options.ranks:
            found = launch(name, ranks, options.seconds)
            first = first or found["rate"] / ranks
            on_paper = found["messages"] * 2 * math.log2(1024) * LATENCY + 2 * found["bytes"] / BANDWIDTH
            print(
                f"{name:13}  {ranks:5}  {found['rate']:7.1f}  {found['rate'] / ranks / first:10.2f}  {found['messages']:13.1f}  "
                f"{found['bytes']:10.0f}  {found['share']:13.3f}  {on_paper * found['rate']:10.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

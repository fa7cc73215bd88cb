"""How the cost of a sweep of the loop sampler grows: Heisenberg chains and squares, measurements included, on one core.

    python benchmarks/heisenberg_scaling.py

Against other programs: `peers.py`.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import time

import jax
import numpy as np

from thermodbm.estimate.ensemble import first_chains, group_mesh, run_chains
from thermodbm.estimate.exchange import exchange_ensemble
from thermodbm.models import SpinHamiltonian, heisenberg, make_lattice
from thermodbm.sampling.exchange_facts import exchange_facts


def seconds_per_sweep(hamiltonian: SpinHamiltonian, beta: float, n_slices: int, n_chains: int = 16) -> float:
    """CPU seconds of one sweep of one chain, measurements included; the best of three stretches."""
    ensemble, group, n_sweeps = exchange_ensemble(exchange_facts(hamiltonian), "loop", n_slices), jax.numpy.zeros(1, int), 32
    run = run_chains(ensemble, group_mesh(1), every=16)
    spins = first_chains(ensemble, jax.random.key(0), group, n_chains)
    best = np.inf
    for k in range(4):
        start = time.process_time()
        spins, _ = jax.block_until_ready(run(jax.random.key(k), (hamiltonian, np.float64(beta)), group, spins, n_sweeps // 16))
        best = min(best, time.process_time() - start) if k else best
    return best / n_sweeps / n_chains


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print("Cost of a sweep, d_tau = 1/8\n" + f"{'lattice':>12}{'beta':>6}{'us':>10}{'ns / (N beta)':>16}")
    for kind, extent in [("chain", (64,)), ("chain", (256,)), ("square", (8, 8)), ("square", (16, 16)), ("square", (32, 32))]:
        for beta in (2.0, 4.0):
            hamiltonian = heisenberg(make_lattice(kind, extent))
            t = seconds_per_sweep(hamiltonian, beta, int(4 * beta), n_chains=8)
            name = f"{kind} {'x'.join(map(str, extent))}"
            print(f"{name:>12}{beta:6.1f}{t * 1e6:10.1f}{t * 1e9 / hamiltonian.n_sites / beta:16.1f}", flush=True)


if __name__ == "__main__":
    main()

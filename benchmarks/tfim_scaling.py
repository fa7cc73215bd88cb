"""How cost and memory of the Ising sampler grow: from 32 to 4096 sites, and with the number of slices.

    python benchmarks/tfim_scaling.py [--columns-on-gpu]

Prints CPU seconds of one sweep of 8 chains (mixed sampler, measurement included, one core, compilation left out), the exponent of a
power law in n_sites x n_slices, and the memory of a process per spin and chain. With --columns-on-gpu: spin updates a second of the
column sampler on the default device, a square 64 x 64 lattice with 64 layers, chains doubled from 16 to 512.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse
import resource
import subprocess
import sys
import time

import jax
import numpy as np

from thermodbm import make_lattice, transverse_field_ising
from thermodbm.estimate.ensemble import first_chains, group_mesh, run_chains
from thermodbm.estimate.ising import ising_ensemble
from thermodbm.sampling.column import column_kernel
from thermodbm.sampling.ring import ising_facts, ring_weights

N_CHAINS, DELTA = 8, 0.05


def sweep(extent: tuple[int, ...], n_slices: int) -> tuple[float, float]:
    """CPU seconds of a sweep (best of five stretches of four) and peak resident bytes per spin and chain beyond those at the start."""
    hamiltonian = transverse_field_ising(make_lattice("square", extent), 1.0, 2.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ensemble, group = ising_ensemble(ising_facts(hamiltonian, DELTA), "mixed", n_slices), jax.numpy.zeros(1, int)
    run = run_chains(ensemble, group_mesh(1), every=4)
    spins = first_chains(ensemble, jax.random.key(0), group, N_CHAINS)
    times = []
    for k in range(6):
        start = time.process_time()
        spins, _ = jax.block_until_ready(run(jax.random.key(k), (hamiltonian, np.float64(2 * n_slices * DELTA)), group, spins, 1))
        times.append((time.process_time() - start) / 4)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return min(times[1:]), grown / (2 * n_slices * hamiltonian.n_sites * N_CHAINS)


def columns_per_second(n_chains: int, n_sweeps: int = 16) -> float:
    """Spin updates a second of column sweeps on the default device."""
    hamiltonian, n_layers = transverse_field_ising(make_lattice("square", (64, 64)), 1.0, 2.0), 64
    kernel, weights = column_kernel(ising_facts(hamiltonian, DELTA), n_layers), ring_weights(hamiltonian, n_layers * DELTA, n_layers)
    many = jax.jit(lambda key, spins: jax.lax.scan(lambda s, k: kernel.step(k, weights, s), spins, jax.random.split(key, n_sweeps))[0])
    spins = jax.block_until_ready(many(jax.random.key(0), kernel.init(jax.random.key(0), n_chains)))
    start = time.perf_counter()
    jax.block_until_ready(many(jax.random.key(1), spins))
    return n_sweeps * spins.size / (time.perf_counter() - start)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns-on-gpu", action="store_true")
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*sweep(tuple(arguments.one[:2]), arguments.one[2]))
        return
    if arguments.columns_on_gpu:
        print(jax.devices()[0].device_kind)
        for n_chains in (16, 32, 64, 128, 256, 512):
            print(f"{n_chains:6d} chains {columns_per_second(n_chains):10.2e} spins/s", flush=True)
        return
    print(f"{'lattice':>9}{'slices':>8}{'spins':>10}{'CPU s / sweep':>15}{'ns / spin':>11}{'bytes / spin':>14}")
    sizes, times = [], []
    for extent, n_slices in [((4, 8), 16), ((8, 8), 16), ((8, 16), 16), ((16, 16), 16), ((16, 32), 16), ((32, 32), 16), ((32, 64), 16),
                             ((64, 64), 16), ((16, 16), 32), ((16, 16), 64), ((16, 16), 128)]:  # fmt: skip
        # a process each, so that the peak of one does not hide the next
        output = subprocess.run(
            [sys.executable, __file__, "--one", *map(str, (*extent, n_slices))], capture_output=True, text=True, check=True
        )
        seconds, per_spin = map(float, output.stdout.split())
        spins = 2 * n_slices * extent[0] * extent[1]
        sizes.append(spins)
        times.append(seconds)
        rate = seconds / spins / N_CHAINS * 1e9
        print(f"{f'{extent[0]}x{extent[1]}':>9}{n_slices:8d}{spins:10d}{seconds:15.4f}{rate:11.1f}{per_spin:14.1f}", flush=True)
    print(f"CPU seconds ~ (n_sites x n_slices)^{np.polyfit(np.log(sizes), np.log(times), 1)[0]:.3f}")


if __name__ == "__main__":
    main()

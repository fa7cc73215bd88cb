"""Does a long run's memory stay flat? Resident memory of a process through 30 temperatures and 10^4 sweeps of each chain.

    python benchmarks/memory.py [--temperatures 30] [--sweeps 10000]

Prints the resident memory after the first, middle and last temperatures for the Ising and Heisenberg networks, and along the steps of a
variational run; what compilation takes is there after the first.
"""

import argparse
import os
import resource
from pathlib import Path

import jax
import numpy as np

from thermodbm.evolve.deterministic import deterministic_method
from thermodbm.evolve.method import ThermalMethod
from thermodbm.evolve.options import DeterministicOptions, SamplingOptions, VariationalOptions
from thermodbm.evolve.variational import variational_method
from thermodbm.models import heisenberg, make_lattice, transverse_field_ising

N_CHAINS = 16


def resident() -> float:
    """MB of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def follow(title: str, method: ThermalMethod, betas: np.ndarray) -> None:
    """Go through the temperatures, dropping each result as the command line does once it is in the file."""
    state, found, calls = method.init(jax.random.key(0)), [], 0
    for k in method.order(betas):
        info = None
        while info is None or info.point is None:
            calls += 1
            state, info = method.advance(jax.random.fold_in(jax.random.key(1), calls), state, float(betas[k]))
        found.append(resident())
    shown = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, 7).astype(int))]
    tail = found[len(found) // 2 :]
    print(f"{title:14}" + "".join(f"{x:8.0f}" for x in shown) + f"{tail[-1] - tail[0]:+12.1f}", flush=True)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temperatures", type=int, default=30)
    parser.add_argument("--sweeps", type=int, default=10_000, help="of each chain, over all temperatures")
    arguments = parser.parse_args()
    betas = np.linspace(0.5, 4.0, arguments.temperatures)
    per_temperature = arguments.sweeps // arguments.temperatures
    sampling = SamplingOptions(n_chains=N_CHAINS, n_samples=per_temperature * N_CHAINS)
    chain = make_lattice("chain", 16)
    print(f"process {os.getpid()}; MB after temperatures 1 to {arguments.temperatures}; growth over the second half")
    follow("Ising", deterministic_method(transverse_field_ising(chain), DeterministicOptions(), sampling), betas)
    follow("Heisenberg", deterministic_method(heisenberg(chain), DeterministicOptions(), sampling), betas)
    options = VariationalOptions(enumerate=False, alpha=1, n_walkers=512)
    ring = transverse_field_ising(make_lattice("chain", 8))
    follow("variational", variational_method(ring, options, SamplingOptions(n_samples=5000)), betas)


if __name__ == "__main__":
    main()

"""How much CPU time an error bar costs: energy and m_z^2 of the Ising model at two hard points, for every sampler.

    python benchmarks/tfim_efficiency.py [--samples 60000] [--samplers mixed column cluster]

Points: chain N = 64, gamma = J, beta = 8; square 8x8, gamma = 3.04 J, beta = 4. The figure of merit is error x sqrt(CPU seconds) of the
values extrapolated in the Trotter step, extrapolation error included, on one core; compilation, once per shape, is left out (the timed run
is the second one). `none` is the mixed sampler at the finest step alone, not extrapolated.

Against other programs: `peers.py`.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse
import time

import jax
import numpy as np

from thermodbm import DeterministicOptions, SamplingOptions, SpinHamiltonian, make_lattice, transverse_field_ising
from thermodbm.evolve.deterministic import deterministic_method
from thermodbm.evolve.method import Point

POINTS = {
    "chain 64, gamma = 1, beta = 8": (make_lattice("chain", 64), 1.0, 8.0),
    "square 8x8, gamma = 3.04, beta = 4": (make_lattice("square", (8, 8)), 3.04, 4.0),
}


def ours(hamiltonian: SpinHamiltonian, beta: float, sampler: str, n_samples: int) -> tuple[Point, float]:
    """The result at one temperature and the CPU seconds it took, all programs being compiled."""
    options = DeterministicOptions(extrapolate=sampler != "none", sampler="mixed" if sampler == "none" else sampler)
    method = deterministic_method(hamiltonian, options, SamplingOptions(n_samples=n_samples, n_chains=64))

    def run(seed: int) -> Point:
        state, info, calls = method.init(jax.random.key(seed)), None, 0
        while info is None or info.point is None:
            calls += 1
            state, info = method.advance(jax.random.fold_in(jax.random.key(seed), calls), state, beta)
        return info.point

    run(seed=0)  # compiles, also what is done with the series at the end
    start = time.process_time()
    return run(seed=1), time.process_time() - start


def row(name: str, e: float, de: float, m: float, dm: float, cpu: float) -> str:
    merit = f"{de * np.sqrt(cpu):12.2e}{dm * np.sqrt(cpu):12.2e}"
    return f"  {name:10}{f'{e:.5f}({de:.1e})':>20}{f'{m:.4f}({dm:.1e})':>18}{cpu:8.1f}" + merit


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--samplers", nargs="+", default=["mixed", "none", "column", "cluster"])
    arguments = parser.parse_args()
    for title, (lattice, gamma, beta) in POINTS.items():
        print(title + "\n" + f"  {'sampler':10}{'e':>20}{'m_z^2':>18}{'CPU s':>8}{'e merit':>12}{'m^2 merit':>12}", flush=True)
        hamiltonian = transverse_field_ising(lattice, 1.0, gamma)
        for sampler in arguments.samplers:
            point, cpu = ours(hamiltonian, beta, sampler, arguments.samples)
            e, m = point.observables["energy"], point.observables["order_parameter_squared"]
            print(row(sampler, float(e.mean), float(e.error), float(m.mean), float(m.error), cpu), flush=True)


if __name__ == "__main__":
    main()

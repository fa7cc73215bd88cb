"""How much CPU time an energy costs: the Heisenberg chain with 64 spins at beta = 8, against ALPS; and how the cost of a sweep grows.

    python benchmarks/heisenberg_efficiency.py [--samples 200000] [--alps-python PATH]

The figure of merit is (error of the energy per site) x sqrt(CPU seconds of sampling), for the value extrapolated in the Trotter step;
compilation (a few seconds, once per shape) is left out and shown apart. One core is used.

ALPS runs its directed-loop stochastic series expansion if --alps-python names the interpreter of an environment made by
    uv venv --python 3.11 alps && uv pip install --python alps pyalps==3.0.0
and its column is skipped otherwise.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse
import subprocess
import tempfile
import time

import jax
import numpy as np

from thermodbm import SamplingOptions
from thermodbm.estimate.ensemble import first_chains, group_mesh, run_chains
from thermodbm.estimate.exchange import exchange_ensemble
from thermodbm.evolve.deterministic import deterministic_method
from thermodbm.evolve.options import DeterministicOptions
from thermodbm.models import SpinHamiltonian, heisenberg, make_lattice
from thermodbm.sampling.exchange_facts import exchange_facts

ALPS = """
import pyalps, resource
plan = {{"MODEL": "spin", "LATTICE": "chain lattice", "local_S": 0.5, "J": 1.0, "L": {n}, "T": {T}}}
plan |= {{"THERMALIZATION": 1000, "SWEEPS": {sweeps}}}
pyalps.runApplication("dirloop_sse", pyalps.writeInputFiles("plan", [plan]), writexml=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
for x in pyalps.loadMeasurements(pyalps.getResultFiles(prefix="plan"), ["Energy Density"])[0]:
    print("RESULT", x.y[0].mean, x.y[0].error, used.ru_utime + used.ru_stime)
"""


def ours(hamiltonian: SpinHamiltonian, beta: float, n_samples: int) -> tuple[float, float, float, float]:
    """Energy, its error, CPU seconds of sampling, CPU seconds of compiling."""
    method = deterministic_method(hamiltonian, DeterministicOptions(), SamplingOptions(n_chains=32, n_samples=n_samples))
    key = jax.random.key(1)
    state, info, calls = method.init(key), None, []
    while info is None or info.point is None:
        key, now = jax.random.split(key)
        start = time.process_time()
        state, info = method.advance(now, state, beta)
        calls.append(time.process_time() - start)
    compiling = sum(calls[:3]) - 3 * np.median(calls)  # the first call of each of the three Trotter steps
    energy = info.point.observables["energy"]
    return float(energy.mean), float(energy.error), sum(calls) - compiling, compiling


def alps(python: str, n: int, T: float, sweeps: int) -> tuple[float, float, float]:
    """Energy, its error and CPU seconds of dirloop_sse."""
    with tempfile.TemporaryDirectory() as folder:
        script = ALPS.format(n=n, T=T, sweeps=sweeps)
        output = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout
    return tuple(float(x) for x in next(line for line in output.splitlines() if line.startswith("RESULT")).split()[1:])


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--alps-python")
    parser.add_argument("--alps-sweeps", type=int, default=20_000)
    arguments = parser.parse_args()
    print("Heisenberg chain, N = 64, beta = 8\n" + f"{'':16}{'e':>20}{'CPU s':>8}{'error x sqrt(CPU s)':>22}")
    e, error, cpu, compiling = ours(heisenberg(make_lattice("chain", 64)), 8.0, arguments.samples)
    print(f"{'thermodbm':16}{f'{e:.6f}({error:.1e})':>20}{cpu:8.1f}{error * np.sqrt(cpu):22.2e}   (compiling: {compiling:.1f} s more)")
    if arguments.alps_python:
        e, error, cpu = alps(arguments.alps_python, 64, 0.125, arguments.alps_sweeps)
        print(f"{'dirloop_sse':16}{f'{e:.6f}({error:.1e})':>20}{cpu:8.1f}{error * np.sqrt(cpu):22.2e}")
    print("\nCost of a sweep, d_tau = 1/8\n" + f"{'lattice':>12}{'beta':>6}{'us':>10}{'ns / (N beta)':>16}")
    for kind, extent in [("chain", (64,)), ("chain", (256,)), ("square", (8, 8)), ("square", (16, 16)), ("square", (32, 32))]:
        for beta in (2.0, 4.0):
            hamiltonian = heisenberg(make_lattice(kind, extent))
            t = seconds_per_sweep(hamiltonian, beta, int(4 * beta), n_chains=8)
            name = f"{kind} {'x'.join(map(str, extent))}"
            print(f"{name:>12}{beta:6.1f}{t * 1e6:10.1f}{t * 1e9 / hamiltonian.n_sites / beta:16.1f}", flush=True)


if __name__ == "__main__":
    main()

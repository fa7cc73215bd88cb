"""The finite-temperature Lanczos method: time, memory, errors and ground states of magnets of 12 to 24 sites.

    python benchmarks/typical.py [NAME ...] [--vectors 4] [--seed 1] [--T 0.1 0.2 0.5 1 2]
    python benchmarks/typical.py --pulls 50

Each magnet runs in this process, one after the other; wall and CPU seconds are those of its sectors, memory is the largest of the process
so far. With --pulls, deviations from diagonalisation in units of the error, over seeds, for magnets small enough to be diagonalised, all of
whose sectors above eight states are sampled.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from clusters import CLUSTERS

from thermodbm import SpinHamiltonian, graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.exact import exact_curve, typicality
from thermodbm.exact.typical_averages import Averages, typical_averages
from thermodbm.exact.typicality import Typicality

MAGNETS: dict[str, Callable[[], SpinHamiltonian]] = {
    **{name: cluster.make for name, cluster in CLUSTERS.items() if name != "j1j2_6x6_0.5"},
    "heisenberg_chain20": lambda: heisenberg(make_lattice("chain", 20)),
    "heisenberg_4x5_open": lambda: heisenberg(make_lattice("square", (4, 5), False)),
    "tfim_4x5": lambda: transverse_field_ising(make_lattice("square", (4, 5)), 1.0, 3.0),
    "tfim_4x5_open": lambda: transverse_field_ising(make_lattice("square", (4, 5), False), 1.0, 3.0),
}
DEFAULT = (
    "j1j2_4x4_0.5",
    "triangular_4x4",
    "kagome_18",
    "heisenberg_chain20",
    "j1j2_4x5_0.5",
    "heisenberg_4x5_open",
    "tfim_4x5",
    "tfim_4x5_open",
    "j1j2_4x6_0.5",
    "kagome_24",
    "triangular_4x6",
)


def _random_graph() -> SpinHamiltonian:
    rng = np.random.default_rng(3)
    edges = [(0, 1), (2, 1), (2, 3), (0, 3), (4, 3), (5, 6), (7, 6), (4, 7), (1, 5)]
    return xxz(graph(8, edges), rng.normal(size=9), 0.3, rng.normal(size=8))


SMALL: dict[str, Callable[[], SpinHamiltonian]] = {
    "J1-J2 3x4": lambda: j1j2(make_lattice("square", (3, 4)), 1.0, 0.5),
    "kagome 12": lambda: heisenberg(make_lattice("kagome", (2, 2))),
    "chain 12 in a field": lambda: heisenberg(make_lattice("chain", 12), 1.0, h=0.7),
    "random xxz 8": _random_graph,
    "tfim triangular 3x3": lambda: transverse_field_ising(make_lattice("triangular", (3, 3)), -1.0, 0.7),
}


def sampled(problem: Typicality, seed: int) -> Averages:
    """All sectors, and their averages."""
    records, space, kind = [], None, None
    for number, sector in enumerate(problem.sectors):
        if (sector.n_down, sector.flip) != kind:
            kind, space = (sector.n_down, sector.flip), problem.space(sector)
        records.append(problem.sample(sector, np.random.default_rng([seed, number]), space))
    return typical_averages(problem, records)


def show(name: str, n_vectors: int, seed: int, temperatures: list[float]) -> None:
    """Time, memory, and e, c, s, chi with errors."""
    problem = Typicality(MAGNETS[name](), np.sort(1 / np.array([0.01, *temperatures])), n_vectors, 200, {})
    wall, cpu = time.monotonic(), time.process_time()
    found = sampled(problem, seed)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    energy = found.values["energy"]
    print(f"{name}: {wall:.0f} s wall, {cpu:.0f} s CPU, {memory:.2f} GiB, {len(problem.sectors)} sectors, {found.n_steps} steps at most")
    print(f"  e at T = 0.01: {energy[0][-1]:.8f}({energy[1][-1]:.0e})")
    for t, beta in enumerate(problem.betas[:-1]):
        row = [f"{x[t]:.6f}({error[t]:.0e})" for x, error in (found.values[k] for k in ("energy", "specific_heat", "entropy"))]
        chi = found.values["susceptibility"]
        print(f"  T = {1 / beta:.3g}: e, c, s = {', '.join(row)}, chi = {chi[0][t]:.6f}({chi[1][t]:.0e}), error of Z {found.noise[t]:.0e}")


def pulls(n_seeds: int, n_vectors: int) -> None:
    """Mean, width and (largest) of the deviations in units of the error, over seeds, temperatures and entries."""
    typicality.SMALL = 8
    betas = 1 / np.array([0.05, 0.2, 0.5, 1.0, 2.0, 10.0])
    for name, magnet in SMALL.items():
        hamiltonian = magnet()
        expected, found = exact_curve(hamiltonian, betas), {}
        for seed in range(n_seeds):
            for observable, (mean, error) in sampled(Typicality(hamiltonian, betas, n_vectors, 100, {}), seed).values.items():
                deviation = mean - expected[observable]
                seen = np.abs(deviation) > 1e-7
                found.setdefault(observable, []).append(deviation[seen] / error[seen])
        print(name)
        for observable, values in found.items():
            p = np.concatenate(values)
            if len(p):
                print(f"  {observable}: {p.mean():+.2f}, {np.sqrt((p**2).mean()):.2f} ({np.abs(p).max():.1f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MAGNETS, []], help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--vectors", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--T", type=float, nargs="+", default=[0.1, 0.2, 0.5, 1.0, 2.0])
    parser.add_argument("--pulls", type=int, help="number of seeds")
    arguments = parser.parse_args()
    if arguments.pulls:
        pulls(arguments.pulls, arguments.vectors)
        return
    for name in arguments.names or DEFAULT:
        show(name, arguments.vectors, arguments.seed, arguments.T)


if __name__ == "__main__":
    main()

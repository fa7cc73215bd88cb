"""Energies of frustrated Heisenberg magnets from pair products against exact values; a table for each magnet.

python benchmarks/frustrated.py [torus10] [torus4x4] ... [--determinants 40] [--alpha 1] [--walkers 4096] [--seed 1] [--tolerance 3e-5]

torus10 (ten sites, J2 = .5) is summed over all its configurations, the others are sampled. Exact values: diagonalisation up to 12 sites,
beyond it the reference files (T, e, c per site) in the folder THERMODBM_REFERENCE.
What is printed beside the deviation is the error that the run itself states.
"""

import argparse
import json
import os
import time
from pathlib import Path

import networkx as nx
import numpy as np

from thermodbm import thermal_curve
from thermodbm.exact import exact_curve
from thermodbm.models import SpinHamiltonian, graph, heisenberg, j1j2, make_lattice


def tilted_torus(J2: float) -> SpinHamiltonian:
    """The square lattice of ten sites, periodic under (3, 1) and (-1, 3), with first and second neighbours."""
    number = lambda x, y: (x + 7 * y) % 10  # noqa: E731  (3, 1) and (-1, 3) come to multiples of ten
    couplings = nx.Graph()
    for x in range(10):
        for (dx, dy), J in {(1, 0): 1.0, (0, 1): 1.0, (1, 1): J2, (1, -1): J2}.items():
            couplings.add_edge(x, number(x + dx, dy), J=J)
    edges = sorted(tuple(sorted(edge)) for edge in couplings.edges)
    return heisenberg(graph(10, edges), J=[couplings.edges[edge]["J"] for edge in edges])


T = [10.0, 2.0, 1.0, 2 / 3, 0.5, 1 / 3, 0.25, 0.2]
CASES = {
    "torus10": (tilted_torus(0.5), None),
    "torus4x4": (j1j2(make_lattice("square", (4, 4)), J2=0.5), "j1j2_square4x4_j2_0.5.json"),
    "triangular3x4": (heisenberg(make_lattice("triangular", (3, 4))), None),
    "kagome12": (heisenberg(make_lattice("kagome", (2, 2))), None),
    "chain12": (j1j2(make_lattice("chain", 12), J2=0.5), None),
}


def reference(hamiltonian: SpinHamiltonian, file: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Temperatures, energies and specific heats."""
    if file is None:
        exact = exact_curve(hamiltonian, 1 / np.array(T))
        return np.array(T), exact["energy"], exact["specific_heat"]
    table = json.loads((Path(os.environ["THERMODBM_REFERENCE"]) / file).read_text())
    rows = [int(np.argmin(np.abs(np.array(table["T"]) - t))) for t in T]
    return tuple(np.array(table[key])[rows] for key in ("T", "e", "c"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("magnets", nargs="*", default=list(CASES))
    parser.add_argument("--determinants", type=int, default=40)
    parser.add_argument("--alpha", type=int, default=1)
    parser.add_argument("--walkers", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=3e-5)
    options = parser.parse_args()
    for name in options.magnets:
        hamiltonian, file = CASES[name]
        temperatures, energy, heat = reference(hamiltonian, file)
        method = {"kind": "variational", "ansatz": "pair_product", "determinants": options.determinants, "alpha": options.alpha}
        method |= {"tolerance": options.tolerance, "n_walkers": options.walkers, "enumerate": name == "torus10"}
        method |= {"diag_shift": 0.0, "solver": "pinv"} if name == "torus10" else {"n_sweeps": 1}
        began = time.process_time()
        sampling = {"seed": options.seed, "n_samples": 4 * options.walkers}
        curve = thermal_curve(hamiltonian, T=temperatures, method=method, sampling=sampling, progress=False)
        seconds = time.process_time() - began
        print(f"{name}: {options}; {seconds:.0f} CPU s, {curve.diagnostics['parameters'][-1]:.0f} parameters")
        print(f"{'T':>7} {'e':>10} {'error':>8} {'de':>9} {'c':>8} {'error':>8} {'dc':>8} {'r^2':>8}")
        for k, t in enumerate(temperatures):
            e, c, r2 = curve.energy, curve.specific_heat, curve.diagnostics["residual"][k]
            print(
                f"{t:7.4f} {e.mean[k]:10.6f} {e.error[k]:8.1e} {e.mean[k] - energy[k]:9.1e}",
                f"{c.mean[k]:8.5f} {c.error[k]:8.1e} {c.mean[k] - heat[k]:8.1e} {r2:8.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()

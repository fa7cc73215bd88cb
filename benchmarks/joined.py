"""Joined variational networks, summed over all configurations: what their energy is off by, beside what their error says.

    python benchmarks/joined.py [MAGNET ...] [--ansatz rbm] [--alpha 1] [--seed 1]

A row for each temperature, with the same of the plain network; a line says how errors compare with deviations.
"""

import argparse
from collections.abc import Callable

from thermodbm import SpinHamiltonian, graph, heisenberg, j1j2, make_lattice, thermal_curve, xxz

MAGNETS: dict[str, Callable[[], SpinHamiltonian]] = {
    "triangles6": lambda: heisenberg(graph(6, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4), (4, 5), (3, 5)])),
    "j1j2_2x4": lambda: j1j2(make_lattice("square", (2, 4)), J2=0.5),
    "j1j2_chain8": lambda: j1j2(make_lattice("chain", 8), J2=0.5),
    "triangular3x3": lambda: heisenberg(make_lattice("triangular", (3, 3))),
    "square_2x4": lambda: heisenberg(make_lattice("square", (2, 4))),
    "chain8": lambda: heisenberg(make_lattice("chain", 8)),
    "chain10": lambda: heisenberg(make_lattice("chain", 10)),
    "xxz_chain8": lambda: xxz(make_lattice("chain", 8), delta=1.5),
}
BETA = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("magnets", nargs="*", default=list(MAGNETS), help=", ".join(MAGNETS))
    parser.add_argument("--ansatz", default="rbm")
    parser.add_argument("--alpha", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    T = [1 / beta for beta in BETA]
    method = {"kind": "variational", "ansatz": given.ansatz, "enumerate": True, "compose": True}
    if given.ansatz != "jastrow":  # which has no hidden units
        method["alpha"] = given.alpha
    for name in given.magnets:
        magnet = MAGNETS[name]()
        exact = thermal_curve(magnet, T=T, method={"kind": "exact"}, progress=False).observables["energy"].mean
        curve = thermal_curve(magnet, T=T, method=method, sampling={"seed": given.seed}, progress=False)
        print(f"{name}, {method}, seed {given.seed}: e off by (stated error)")
        ratios: dict[str, list[float]] = {"plain": [], "doubled": []}
        for k, beta in enumerate(BETA):
            cells = []
            for kind, found in ratios.items():
                mean, error = curve.diagnostics[f"{kind}_energy"][k]
                found.append(abs(mean - exact[k]) / error)
                cells.append(f"{kind} {mean - exact[k]:+.1e} ({error:.1e})")
            print(f"  beta = {beta:3.1f}: {', '.join(cells)}, sign {curve.diagnostics['doubled_sign'][k]:.2f}")
        print(f"  largest of deviation / error: {', '.join(f'{kind} {max(x):.2f}' for kind, x in ratios.items())}", flush=True)


if __name__ == "__main__":
    main()

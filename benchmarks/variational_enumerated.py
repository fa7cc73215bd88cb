"""Largest deviation of the energy per site from exact diagonalisation over 0 < beta <= 5, all configurations summed; a table.

python benchmarks/variational_enumerated.py [tfim] [heisenberg] [j1j2]
"""

import sys
import time

import numpy as np

from thermodbm import thermal_curve
from thermodbm.exact import exact_curve
from thermodbm.models import heisenberg, j1j2, make_lattice, transverse_field_ising

BETAS = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
CASES = {
    "tfim": (transverse_field_ising(make_lattice("chain", 6)), {}, 1e-4, (1, 2, 3)),
    "heisenberg": (heisenberg(make_lattice("chain", 8)), {}, 1e-3, (1, 2, 3)),
    # ten minutes each
    "j1j2": (j1j2(make_lattice("square", (2, 4)), J2=0.5), {"ansatz": "dbm", "layers": 1, "alpha": 32}, 1e-3, (1, 2, 3)),
}


def main() -> None:
    print(f"{'model':12} {'seed':>4} {'parameters':>10} {'steps':>6} {'max |de|':>9} {'wanted':>8} {'r^2 at 5':>9} {'seconds':>8}")
    for name in sys.argv[1:] or CASES:
        hamiltonian, options, wanted, seeds = CASES[name]
        exact = exact_curve(hamiltonian, BETAS)["energy"]
        for seed in seeds:
            began = time.perf_counter()
            curve = thermal_curve(
                hamiltonian, beta=BETAS, method={"kind": "variational", **options}, sampling={"seed": seed}, progress=False
            )
            seconds = time.perf_counter() - began
            d = {k: np.asarray(v)[-1] for k, v in curve.diagnostics.items()}
            worst = np.abs(curve.energy.mean - exact).max()
            print(
                f"{name:12} {seed:4} {d['parameters']:10.0f} {d['n_steps']:6.0f} {worst:9.1e} {wanted:8.0e}",
                f"{d['residual']:9.1e} {seconds:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Sampled evolution against exact curves at T >= 0.25: energy and specific heat; a table for each model.

python benchmarks/variational_sampled.py [tfim_chain16] [tfim_4x4] [heisenberg_chain16] [heisenberg_4x4]

Exact values: free fermions for the ring, otherwise the reference files (T, e, c per site) in the folder THERMODBM_REFERENCE.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from thermodbm import thermal_curve
from thermodbm.exact import exact_curve
from thermodbm.models import heisenberg, make_lattice, transverse_field_ising

T = [4.0, 2.0, 1.0, 0.7, 0.5, 0.35, 0.25]
CASES = {
    "tfim_chain16": (transverse_field_ising(make_lattice("chain", 16)), {}, None, 1e-3),
    "tfim_4x4": (transverse_field_ising(make_lattice("square", (4, 4)), gamma=3.0), {}, "tfim_square4x4_g3.json", 1e-3),
    "heisenberg_chain16": (heisenberg(make_lattice("chain", 16)), {}, "heisenberg_chain16.json", 3e-3),
    "heisenberg_4x4": (heisenberg(make_lattice("square", (4, 4))), {}, "heisenberg_square4x4.json", 3e-3),
}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        hamiltonian, options, file, wanted = CASES[name]
        temperatures = np.array(T)
        if file is None:
            exact = exact_curve(hamiltonian, 1 / temperatures)
            e, c = exact["energy"], exact["specific_heat"]
        else:
            table = json.loads((Path(os.environ["THERMODBM_REFERENCE"]) / file).read_text())
            rows = [int(np.argmin(np.abs(np.array(table["T"]) - t))) for t in T]
            temperatures, e, c = (np.array(table[key])[rows] for key in ("T", "e", "c"))
        began = time.perf_counter()
        sampling = {"seed": 1, "target_error": wanted / 3}
        curve = thermal_curve(hamiltonian, T=temperatures, method={"kind": "variational", **options}, sampling=sampling, progress=False)
        seconds = time.perf_counter() - began
        print(f"{name}: {seconds:.0f} s, {curve.diagnostics['parameters'][-1]:.0f} parameters; |de| wanted: {wanted:.0e}, c within 5%")
        print(f"{'T':>7} {'e':>10} {'error':>8} {'de':>9} {'systematic':>10} {'c':>8} {'dc/c':>7} {'r^2':>8}")
        for k in range(len(T)):
            mean, error = curve.energy.mean[k], curve.energy.error[k]
            heat = curve.specific_heat.mean[k]
            systematic, r2 = curve.diagnostics["systematic_error"][k], curve.diagnostics["residual"][k]
            print(
                f"{temperatures[k]:7.4f} {mean:10.6f} {error:8.1e} {mean - e[k]:9.1e} {systematic:10.1e}",
                f"{heat:8.5f} {heat / c[k] - 1:7.1%} {r2:8.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()

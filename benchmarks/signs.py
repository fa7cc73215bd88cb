"""How well is the average sign of a frustrated magnet foretold? What `thermodbm validate` says, and what is sampled.

    python benchmarks/signs.py [--samples 40000]

Sampled signs are those of strings of operators, with their errors.
"""

import argparse

import jax
import numpy as np

from thermodbm import heisenberg, j1j2, make_lattice, thermal_curve
from thermodbm.estimate.sign import expected_sign

MAGNETS = {
    "J1-J2 4x4, J2 = .5": (j1j2(make_lattice("square", (4, 4)), 1.0, 0.5), [0.7, 1.0, 1.4, 2.0, 2.8]),
    "J1-J2 6x6, J2 = .5": (j1j2(make_lattice("square", (6, 6)), 1.0, 0.5), [1.0, 1.4, 2.0, 2.8, 4.0]),
    "triangular 4x4": (heisenberg(make_lattice("triangular", (4, 4))), [1.0, 1.4, 2.0, 2.8]),
    "kagome 2x3": (heisenberg(make_lattice("kagome", (2, 3))), [0.5, 0.7, 1.0, 1.4, 2.0]),
    "J1-J2 ring of 16, J2 = .5": (j1j2(make_lattice("chain", 16), 1.0, 0.5), [0.5, 0.7, 1.0, 1.4, 2.0]),
}


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=40_000)
    samples = parser.parse_args().samples
    print("| magnet | T | sampled | foretold |\n|---|---|---|---|")
    for name, (magnet, T) in MAGNETS.items():
        method, sampling = {"kind": "deterministic", "sampler": "series"}, {"n_samples": samples, "seed": 3}
        curve = thermal_curve(magnet, T=T, method=method, sampling=sampling, progress=False)
        beta, found = np.asarray(curve.beta), curve.diagnostics
        for row in zip(1 / beta, found["average_sign"], found["average_sign_error"], expected_sign(magnet, beta), strict=True):
            print(f"| {name} | {row[0]:.2g} | {row[1]:.3f}({row[2]:.3f}) | {row[3]:.3f} |", flush=True)


if __name__ == "__main__":
    main()

"""Are error bars right? Deviations from full diagonalisation in units of the error, over many seeds, for small Ising magnets.

    python benchmarks/tfim_pulls.py [--seeds 16] [--samples 20000]

Prints the root mean square (1 if error bars are right, with a scatter of 1/sqrt(2 seeds)) and the mean (scatter 1/sqrt(seeds)) for each
observable and temperature.
"""

import argparse

import numpy as np

from thermodbm import make_lattice, thermal_curve, transverse_field_ising
from thermodbm.exact import exact_curve

CASES = [
    ("ring of 10", make_lattice("chain", 10), 1.0, [0.25, 0.5, 1.0, 2.0]),
    ("square 3x3", make_lattice("square", (3, 3)), 3.04, [0.5, 1.0, 2.0, 4.0]),
    ("ring of 7", make_lattice("chain", 7), 0.5, [0.3, 1.0]),
]
OBSERVABLES = ("energy", "specific_heat", "magnetization_x", "order_parameter_squared", "susceptibility")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--samples", type=int, default=20_000)
    arguments = parser.parse_args()
    for title, lattice, gamma, T in CASES:
        for J in (1.0, -1.0):
            magnet = transverse_field_ising(lattice, J, gamma)
            exact = exact_curve(magnet, 1 / np.array(T))
            pulls = {name: [] for name in OBSERVABLES}
            for seed in range(arguments.seeds):
                sampling = {"seed": seed, "n_samples": arguments.samples}
                curve = thermal_curve(magnet, T=T, sampling=sampling, progress=False)
                for name in OBSERVABLES:
                    found = curve.observables[name]
                    pulls[name].append((found.mean - exact[name]) / found.error)
            print(f"{title}, J = {J:+.0f}, gamma = {gamma}: rms (mean) at T = {', '.join(map(str, T))}")
            for name, p in pulls.items():
                rms, mean = np.sqrt(np.mean(np.square(p), axis=0)), np.mean(p, axis=0)
                print(f"  {name:24}" + "  ".join(f"{r:.2f} ({m:+.2f})" for r, m in zip(rms, mean, strict=True)), flush=True)


if __name__ == "__main__":
    main()

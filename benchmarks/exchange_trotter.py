"""Trotter errors of small exchange magnets, exactly: what extrapolation leaves of them in units of the error bar of a run.

    python benchmarks/exchange_trotter.py          a line per lattice, delta and sign; about ten minutes
    python benchmarks/exchange_trotter.py orders   percentiles of the fourth order, by which the prior was chosen

XXZ rings of 4 to 8 and the 2x3 torus, delta in {0, .5, 1, 2, 5}, both signs of J, h in {0, .7}, beta in {1, 4, 8, 16}. The largest bias
over temperatures and fields, and over the entries of an array, in units of the error bar that a run with target_error = 1e-4 would quote;
the noise of its levels follows the model `noise` of tests/exchange_ring.py.
"""

import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from exchange_ring import ring_averages, ring_in_time, trotter_bias

from thermodbm.exact import exact_curve
from thermodbm.exact.imaginary_time import imaginary_time_solver
from thermodbm.models import make_lattice, xxz
from thermodbm.network.trotter_step import commutator_scale, default_d_tau, slices

TARGET = 1e-4
NAMES = (
    "energy",
    "specific_heat",
    "susceptibility",
    "magnetization_z",
    "correlation_zz",
    "structure_factor_zz",
    "staggered_structure_factor",
)
IN_TIME = ("susceptibility_x", "imaginary_time_correlation_zz", "imaginary_time_structure_factor_zz", "static_susceptibility_zz")
N_TAU = 8
LATTICES = {f"ring {n}": make_lattice("chain", n) for n in range(4, 9)} | {"2x3": make_lattice("square", (2, 3))}
DELTAS, SIGNS, FIELDS, BETAS = (0.0, 0.5, 1.0, 2.0, 5.0), (1.0, -1.0), (0.0, 0.7), (1.0, 4.0, 8.0, 16.0)


def biases() -> None:
    """The table of biases."""
    print(f"{'':8}{'delta':>6}{'J':>4}" + "".join(f"{name[:13]:>15}" for name in NAMES))
    for (title, lattice), delta, J in product(LATTICES.items(), DELTAS, SIGNS):
        worst = dict.fromkeys(NAMES, 0.0)
        for h, beta in product(FIELDS, BETAS):
            for name, (bias, error) in trotter_bias(xxz(lattice, J, delta, h), beta, TARGET).items():
                if name in worst:
                    worst[name] = max(worst[name], float(np.max(np.abs(bias) / np.maximum(error, 1e-12))))
        print(f"{title:8}{delta:6.1f}{J:4.0f}" + "".join(f"{worst[name]:15.2f}" for name in NAMES), flush=True)


def orders() -> None:
    """Percentiles over all magnets and temperatures."""
    over_second, over_value = defaultdict(list), defaultdict(list)
    for lattice, delta, J, h, beta in product(LATTICES.values(), DELTAS, SIGNS, FIELDS, BETAS):
        magnet = xxz(lattice, J, delta, h)
        n_slices = slices(beta, default_d_tau(magnet, TARGET), True, N_TAU)
        small = (beta / (2 * n_slices[0]) * commutator_scale(magnet)) ** 2
        exact = {name: values[0] for name, values in exact_curve(magnet, np.array([beta])).items()}
        averages = [ring_averages(magnet, 2 * n, beta / (2 * n)) for n in n_slices]
        if lattice.n_sites <= 6:  # of larger ones matrices take long
            exact |= imaginary_time_solver(magnet, N_TAU)(beta)
            averages = [a | ring_in_time(magnet, 2 * n, beta / (2 * n), N_TAU) for a, n in zip(averages, n_slices, strict=True)]
        for name in {*NAMES, *IN_TIME} & set(exact) & set(averages[0]):
            values = np.stack([np.ravel(a[name]) for a in averages])
            second, fourth, _ = np.linalg.solve([[1, 1, 1], [4, 16, 64], [16, 256, 4096]], values - np.ravel(exact[name]))
            seen = np.abs(second) > 1e-9
            over_second[name] += list(fourth[seen] / second[seen] / small)
            over_value[name].append(np.abs(fourth).max() / small**2 / max(np.abs(values).max(), 1e-7))
    for title, found in (("over the second, / s", over_second), ("over the largest value, / s^2", over_value)):
        print(f"Fourth order {title}: percentiles 0, 5, 25, 50, 75, 95, 100")
        for name in (*NAMES, *IN_TIME):
            print(f"{name:35}" + "".join(f"{x:8.2f}" for x in np.percentile(found[name], [0, 5, 25, 50, 75, 95, 100])), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    orders() if sys.argv[1:] == ["orders"] else biases()

"""Seconds per integration step of the sampled variational method on tori, and their exponent in n_sites; a table.

python benchmarks/variational_scaling.py [--walkers 4096] [--alpha 4] [--steps 5]      Heisenberg, a network
    --J2 0.5 [--beta 1]                                                    J1-J2, pairs and patterns, begun at beta, where defects are
"""

import argparse
import resource
import time

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from thermodbm.evolve.options import SamplingOptions, VariationalOptions  # noqa: E402
from thermodbm.evolve.variational import variational_method  # noqa: E402
from thermodbm.models import j1j2, make_lattice  # noqa: E402

EXTENTS = [(4, 4), (4, 6), (4, 8), (6, 6), (6, 8), (8, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walkers", type=int, default=4096)
    parser.add_argument("--alpha", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--J2", type=float, default=0.0)
    parser.add_argument("--beta", type=float, default=0.02)
    options = parser.parse_args()
    print(f"{'lattice':>8} {'sites':>6} {'parameters':>10} {'first step':>10} {'step':>7} {'e_loc r^2':>9} {'MB':>6}")
    sizes, seconds = [], []
    for extent in EXTENTS:
        hamiltonian = j1j2(make_lattice("square", extent), J2=options.J2)
        ansatz = {"ansatz": "pairs"} if options.J2 else {"ansatz": "rbm", "alpha": options.alpha}
        settings = VariationalOptions(**ansatz, enumerate=False, n_walkers=options.walkers, beta_0=options.beta)
        method = variational_method(hamiltonian, settings, SamplingOptions())
        key, times = jax.random.key(1), []
        state = method.init(key)
        for k in range(options.steps + 1):
            began = time.perf_counter()
            state, _ = method.advance(jax.random.fold_in(key, k), state, max(1.0, 10 * options.beta))
            times.append(time.perf_counter() - began)
        n, median = hamiltonian.n_sites, float(np.median(times[1:]))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(
            f"{'x'.join(map(str, extent)):>8} {n:6} {len(state['theta']):10} {times[0]:10.1f} {median:7.2f}",
            f"{state['residual']:9.1e} {memory:6.0f}",
            flush=True,
        )
        sizes.append(n)
        seconds.append(median)
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(f"seconds a step ~ n_sites^{exponent:.2f}")


if __name__ == "__main__":
    main()

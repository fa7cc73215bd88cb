"""Heisenberg magnets against what is known of them: e, c and chi per site, and their deviation in units of the combined error.

    python benchmarks/heisenberg_reference.py [--samples 200000] [--only chain16 square4x4 j1j2 chain128 square8x8 square32x32]

* chain16, square4x4, j1j2: full diagonalisation by `thermodbm.exact`.
* chain128: the infinite chain, from the thermodynamic Bethe ansatz.
* square8x8: stochastic series expansion, two standard deviations of which are a few 1e-4.
* square32x32: no reference; energy at T = 0.5 and the time it takes to know it to 1e-4.
"""

import argparse
import time

import jax
import numpy as np

from thermodbm import SamplingOptions
from thermodbm.evolve.deterministic import deterministic_method
from thermodbm.evolve.method import Point
from thermodbm.evolve.options import DeterministicOptions
from thermodbm.exact import exact_curve
from thermodbm.models import SpinHamiltonian, heisenberg, j1j2, make_lattice

INFINITE_CHAIN = {  # T: (e, c, chi)
    0.25: (-0.418897373, 0.217768, 0.125104),
    0.48: (np.nan, 0.349712, np.nan),
    0.5: (-0.341408318, 0.348994, 0.144074),
    0.64: (np.nan, np.nan, 0.146926),
    1.0: (-0.204651603, 0.188650, 0.136543),
}
SQUARE8 = {  # T: (e, error of e, c, error of c)
    0.25: (-0.66842, 5e-5, np.nan, np.nan),
    0.5: (-0.60707, 8e-5, 0.469, 2e-3),
    1.0: (-0.38805, 1.1e-4, 0.3244, 9e-4),
}


def sample(hamiltonian: SpinHamiltonian, temperatures: np.ndarray, sampling: SamplingOptions) -> list[Point]:
    """Run the deterministic method from hot to cold; points in the order of the temperatures."""
    betas = 1 / np.asarray(temperatures)
    method = deterministic_method(hamiltonian, DeterministicOptions(), sampling)
    key = jax.random.key(sampling.seed)
    state, points = method.init(key), {}
    for k in method.order(betas):
        while k not in points:
            key, now = jax.random.split(key)
            state, info = method.advance(now, state, float(betas[k]))
            if info.point:
                points[k] = info.point
    return method.summarize([points[k] for k in range(len(betas))], betas)


def report(name: str, temperatures: np.ndarray, points: list[Point], known: dict[str, np.ndarray], errors: dict[str, np.ndarray]) -> None:
    """A line per temperature: value(error) and deviation from what is known."""
    print(f"\n{name}\n{'T':>6} {'sign':>6}" + "".join(f"{x:>22} {'sigma':>6}" for x in ("e", "c", "chi")))
    for k, (T, point) in enumerate(zip(temperatures, points, strict=True)):
        line = f"{T:6.3f} {point.diagnostics['average_sign']:6.3f}"
        for observable in ("energy", "specific_heat", "susceptibility"):
            x = point.observables[observable]
            value = known.get(observable, np.full(len(temperatures), np.nan))[k]
            error = errors.get(observable, np.zeros(len(temperatures)))[k]
            deviation = (x.mean - value) / np.hypot(x.error, error)
            line += f"{f'{x.mean:.6f}({x.error:.1e})':>22} " + (f"{deviation:+6.1f}" if np.isfinite(deviation) else f"{'':>6}")
        print(line, flush=True)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000, help="per temperature, where no error is aimed at")
    parser.add_argument("--target-error", type=float, default=3e-4, help="of the energy of chain16 and square4x4")
    parser.add_argument("--only", nargs="+", default=["chain16", "square4x4", "j1j2", "chain128", "square8x8", "square32x32"])
    arguments = parser.parse_args()
    plan = SamplingOptions(n_chains=64, n_samples=arguments.samples)
    square = make_lattice("square", (4, 4))
    grid = np.array([0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 4.0])
    small = {
        "chain16": (heisenberg(make_lattice("chain", 16)), grid),
        "square4x4": (heisenberg(square), grid),
        "j1j2": (j1j2(square, 1.0, 0.5), np.array([1.0, 1.4, 2.0, 4.0])),
    }
    for name in arguments.only:
        start = time.perf_counter()
        if name in small:
            hamiltonian, temperatures = small[name]
            aimed = SamplingOptions(n_chains=256, target_error=arguments.target_error)
            points = sample(hamiltonian, temperatures, plan if name == "j1j2" else aimed)
            report(name, temperatures, points, exact_curve(hamiltonian, 1 / temperatures), {})
        elif name == "chain128":
            temperatures = np.array(list(INFINITE_CHAIN))
            known = dict(zip(("energy", "specific_heat", "susceptibility"), np.array(list(INFINITE_CHAIN.values())).T, strict=True))
            report(name, temperatures, sample(heisenberg(make_lattice("chain", 128)), temperatures, plan), known, {})
        elif name == "square8x8":
            temperatures = np.array(list(SQUARE8))
            e, e_error, c, c_error = np.array(list(SQUARE8.values())).T
            points = sample(heisenberg(make_lattice("square", (8, 8))), temperatures, plan)
            report(name, temperatures, points, {"energy": e, "specific_heat": c}, {"energy": e_error, "specific_heat": c_error})
        elif name == "square32x32":
            plan32 = SamplingOptions(n_chains=8, target_error=1e-4)
            report(name, np.array([0.5]), sample(heisenberg(make_lattice("square", (32, 32))), np.array([0.5]), plan32), {}, {})
        print(f"{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()

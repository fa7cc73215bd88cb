"""Couplings from synthetic curves: how near they come, and whether their intervals hold what they say.

Every data set is an exact curve (specific heat and susceptibility; of tfim specific heat and energy) at 24 temperatures with 1% of noise,
fitted from starts that are off by up to a factor of three.

    python benchmarks/fits.py [MAGNET ...] [--sets 40] [--sites 8]
    python benchmarks/fits.py heisenberg xxz tfim --sites 64 --sets 1 --method deterministic

Rings beyond diagonalisation have exact curves, too: Ising rings by free fermions, the others as infinite chains, which rings of 64 sites
are to far below that noise (correlations reach J/(2T) sites).
"""

import argparse
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
from infinite_chain import infinite_chain

import thermodbm as tb
from thermodbm.exact import exact_curve

NOISE = 0.01
TEMPERATURES = np.geomspace(0.15, 3.0, 24)
MAGNETS = {
    "heisenberg": ({"J": 1.0}, ("specific_heat", "susceptibility"), {"J": 0.005}),
    "xxz": ({"J": 1.0, "delta": 0.6}, ("specific_heat", "susceptibility"), {"J": 0.02, "delta": 0.02}),
    "j1j2": ({"J1": 1.0, "J2": 0.35}, ("specific_heat", "susceptibility"), {"J1": 0.03, "J2": 0.03}),
    "tfim": ({"J": 1.0, "gamma": 0.8}, ("specific_heat", "energy"), {"J": 0.01, "gamma": 0.01}),
}
MAKE = {"heisenberg": tb.heisenberg, "xxz": tb.xxz, "j1j2": tb.j1j2, "tfim": tb.transverse_field_ising}


@cache
def clean_curve(kind: str, n_sites: int) -> dict[str, np.ndarray]:
    """What is measured, without noise."""
    couplings = MAGNETS[kind][0]
    if n_sites <= 14 or kind == "tfim":
        return exact_curve(MAKE[kind](tb.make_lattice("chain", n_sites), **couplings), 1 / TEMPERATURES)
    if n_sites < 48 or kind == "j1j2":
        raise SystemExit(f"There are no exact curves of {kind} on {n_sites} sites.")
    return infinite_chain(TEMPERATURES, couplings.get("delta", 1.0))


def one_set(kind: str, seed: int, folder: Path, n_sites: int, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Truth, values and errors of the parameters, and whether the fit says that it converged."""
    couplings, quantities, _ = MAGNETS[kind]
    rng = np.random.default_rng(seed)
    curve = clean_curve(kind, n_sites)
    columns = {"temperature": TEMPERATURES}
    for name in quantities:
        error = NOISE * np.abs(curve[name])
        columns |= {name: curve[name] + error * rng.normal(size=len(error)), f"{name}_error": error}
    rows = [",".join(columns), *(",".join(f"{x:.10g}" for x in row) for row in zip(*columns.values(), strict=True))]
    data = folder / "data.csv"
    data.write_text("\n".join(rows) + "\n")
    off = 3.0 ** rng.uniform(-1, 1)
    starts = {n: {"start": float(v * (3.0 ** rng.uniform(-0.5, 0.5) if n == "delta" else off))} for n, v in couplings.items()}
    config = {
        "lattice": {"kind": "chain", "extent": [n_sites]},
        "model": {"kind": kind},
        "method": {"kind": method},
        "fit": {"parameters": starts, "units": {"temperature": "J"}},
    }
    result = tb.fit(data, config)
    print(f"{kind}, seed {seed}: {result}", file=sys.stderr, flush=True)
    return np.array(list(couplings.values())), result.values, result.errors, result.converged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("magnets", nargs="*", default=list(MAGNETS))
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--method", default="exact")
    options = parser.parse_args()
    print("| magnet | parameter | largest deviation | wanted | rms deviation | in its errors | within 68% | converged | s per fit | CPU |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in options.magnets:
        clean_curve(kind, options.sites)
        couplings, _, wanted = MAGNETS[kind]
        began, cpu = time.monotonic(), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found = [one_set(kind, seed, Path(folder), options.sites, options.method) for seed in range(options.sets)]
        seconds, cpu = (time.monotonic() - began) / options.sets, (time.process_time() - cpu) / options.sets
        truth, values, errors, converged = map(np.array, zip(*found, strict=True))
        for j, name in enumerate(couplings):
            off = values[:, j] / truth[:, j] - 1
            pulls = (values[:, j] - truth[:, j]) / errors[:, j]
            rms, inside = np.sqrt(np.mean(pulls**2)), np.mean(np.abs(pulls) < 1)
            limits = f"{np.abs(off).max():.2%} | {wanted[name]:.1%} | {off.std():.2%} | {rms:.2f} | {inside:.0%} | {converged.mean():.0%}"
            print(f"| {kind} | {name} | {limits} | {seconds:.1f} | {cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()

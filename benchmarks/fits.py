"""Couplings from synthetic curves: how near they come, and whether their intervals hold what they say.

Every data set is an exact curve (specific heat and susceptibility; of tfim specific heat and energy) at 24 temperatures with 1% of noise,
fitted from starts that are off by up to a factor of three. Run: python benchmarks/fits.py [SETS [SITES [MAGNET ...]]]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import thermodbm as tb
from thermodbm.exact import exact_curve

N_SITES = int(sys.argv[2]) if len(sys.argv) > 2 else 8
NOISE = 0.01
TEMPERATURES = np.geomspace(0.15, 3.0, 24)
MAGNETS = {
    "heisenberg": ({"J": 1.0}, ("specific_heat", "susceptibility"), {"J": 0.005}),
    "xxz": ({"J": 1.0, "delta": 0.6}, ("specific_heat", "susceptibility"), {"J": 0.02, "delta": 0.02}),
    "j1j2": ({"J1": 1.0, "J2": 0.35}, ("specific_heat", "susceptibility"), {"J1": 0.03, "J2": 0.03}),
    "tfim": ({"J": 1.0, "gamma": 0.8}, ("specific_heat", "energy"), {"J": 0.01, "gamma": 0.01}),
}
MAKE = {"heisenberg": tb.heisenberg, "xxz": tb.xxz, "j1j2": tb.j1j2, "tfim": tb.transverse_field_ising}


def one_set(kind: str, seed: int, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Truth, values and errors of the parameters, and whether the fit says that it converged."""
    couplings, quantities, _ = MAGNETS[kind]
    rng = np.random.default_rng(seed)
    curve = exact_curve(MAKE[kind](tb.make_lattice("chain", N_SITES), **couplings), 1 / TEMPERATURES)
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
        "lattice": {"kind": "chain", "extent": [N_SITES]},
        "model": {"kind": kind},
        "method": {"kind": "exact"},
        "fit": {"parameters": starts, "units": {"temperature": "J"}},
    }
    result = tb.fit(data, config)
    return np.array(list(couplings.values())), result.values, result.errors, result.converged


def main() -> None:
    n_sets = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    print("| magnet | parameter | largest deviation | wanted | rms deviation | within 68% | converged | s per fit |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in sys.argv[3:] or MAGNETS:
        couplings, _, wanted = MAGNETS[kind]
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = [one_set(kind, seed, Path(folder)) for seed in range(n_sets)]
        seconds = (time.monotonic() - began) / n_sets
        truth, values, errors, converged = map(np.array, zip(*found, strict=True))
        for j, name in enumerate(couplings):
            off = values[:, j] / truth[:, j] - 1
            inside = np.mean(np.abs(values[:, j] - truth[:, j]) < errors[:, j])
            limits = f"{np.abs(off).max():.2%} | {wanted[name]:.1%} | {off.std():.2%} | {inside:.0%} | {converged.mean():.0%}"
            print(f"| {kind} | {name} | {limits} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()

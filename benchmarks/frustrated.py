"""Frustrated magnets by the variational method against exact values: deviations, stated errors, and how often these bound those.

python benchmarks/frustrated.py [j1j2_4x4_0.5] [triangular_3x4] ... [--seed 1] [--figure FILE.png]
                                [--ansatz pair_product --determinants 40 --alpha 1 --walkers 4096 --tolerance 3e-5]

Without options the defaults, the same for all magnets. The tilted torus of ten sites is summed over all its configurations, the
others are sampled. Exact values: diagonalisation up to 12 sites, beyond it the finite-temperature Lanczos method with 100 random vectors.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from clusters import CLUSTERS

from thermodbm import ThermalCurve, thermal_curve
from thermodbm.models import SpinHamiltonian

T = [4.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.2]
TICKS = [0.2, 0.5, 1.0, 2.0, 4.0]
QUANTITIES = ("energy", "specific_heat", "susceptibility", "entropy")
NAMES = (
    "j1j2_tilted10_0.5",
    "j1j2_4x4_0.5",
    "triangular_3x4",
    "triangular_4x4",
    "kagome_12",
    "j1j2_chain12_0.5",
    "j1j2_chain16_0.5",
)


def reference(hamiltonian: SpinHamiltonian) -> ThermalCurve:
    """Exact, or as good as that beside what is compared."""
    method = {"kind": "exact"} if hamiltonian.n_sites <= 12 else {"kind": "typical", "n_vectors": 100}
    return thermal_curve(hamiltonian, T=T, method=method, progress=False)


def show(name: str, curve: ThermalCurve, exact: ThermalCurve) -> None:
    """A row per temperature, with deviations of both estimates of e where networks are joined; and how errors compare with deviations."""
    print(f"{'T':>5} " + " ".join(f"{q:>22}" for q in QUANTITIES) + "     r^2   sign    plain e    joined e  doubts")
    ratios = {q: [] for q in QUANTITIES}
    missing = np.full((len(T), 2), np.nan)
    signs = curve.diagnostics.get("doubled_sign", missing[:, 0])
    both = [curve.diagnostics.get(f"{kind}_energy", missing)[:, 0] - exact.observables["energy"].mean for kind in ("plain", "doubled")]
    for k, t in enumerate(T):
        cells = []
        for q in QUANTITIES:
            off, error = curve.observables[q].mean[k] - exact.observables[q].mean[k], curve.observables[q].error[k]
            ratios[q].append(abs(off) / error)
            cells.append(f"{off:+11.1e} ({error:8.1e})")
        doubts = "+".join(x.name.lower() for x in curve.doubts[k]) or "-"
        print(
            f"{t:5.2f} "
            + " ".join(cells)
            + f" {curve.diagnostics['residual'][k]:8.1e} {signs[k]:5.2f} {both[0][k]:+11.1e} {both[1][k]:+11.1e}  {doubts}"
        )
    for q, x in ratios.items():
        within, middle, most = np.mean(np.array(x) <= 1), np.median(x), max(x)
        print(f"{name} {q}: {within:.0%} within the error; deviations {middle:.2f} of it (median), {most:.2f} (largest)")


def draw(curves: dict[str, tuple[ThermalCurve, ThermalCurve]], file: Path) -> None:
    """Deviations with error bars, a column for each magnet."""
    from matplotlib.figure import Figure

    figure = Figure((3.2 * len(curves), 8), layout="constrained")
    axes = figure.subplots(len(QUANTITIES), len(curves), squeeze=False, sharex=True)
    for column, (name, (curve, exact)) in enumerate(curves.items()):
        for axis, q in zip(axes[:, column], QUANTITIES, strict=True):
            off = curve.observables[q].mean - exact.observables[q].mean
            axis.errorbar(T, off, curve.observables[q].error, fmt="o", ms=3, capsize=2)
            axis.axhline(0.0, color="0.6", lw=0.8)
            axis.set(xscale="log", yscale="symlog" if np.abs(off).max() > 0.1 else "linear")
            if not column:
                axis.set_ylabel(f"{q.replace('_', ' ')}, deviation")
        axes[0, column].set_title(name)
        axes[-1, column].set_xlabel("T")
        axes[-1, column].set_xticks(TICKS, [f"{t:g}" for t in TICKS])
        axes[-1, column].minorticks_off()
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("magnets", nargs="*", default=NAMES, help=", ".join(CLUSTERS))
    parser.add_argument("--ansatz")
    parser.add_argument("--determinants", type=int)
    parser.add_argument("--alpha", type=int)
    parser.add_argument("--walkers", type=int, dest="n_walkers")
    parser.add_argument("--tolerance", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    given = vars(parser.parse_args())
    names, seed, figure = (given.pop(key) for key in ("magnets", "seed", "figure"))
    method = {"kind": "variational", **{key: value for key, value in given.items() if value is not None}}
    curves = {}
    for name in names:
        hamiltonian = CLUSTERS[name].make()
        exact, began, wall = reference(hamiltonian), time.process_time(), time.monotonic()
        of_this = method | ({"enumerate": True} if hamiltonian.n_sites <= 10 else {})
        curve = thermal_curve(hamiltonian, T=T, method=of_this, sampling={"seed": seed}, progress=False)
        took = f"{time.process_time() - began:.0f} CPU s, {time.monotonic() - wall:.0f} s"
        print(f"\n{name}: {of_this}, seed {seed}; {took}, {curve.diagnostics['parameters'][-1]:.0f} parameters", flush=True)
        show(name, curve, exact)
        curves[name] = curve, exact
        if figure:
            draw(curves, figure)


if __name__ == "__main__":
    main()

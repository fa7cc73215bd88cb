"""The figures of the gallery in README.md, from configs in the tree: python docs/gallery.py

Takes some minutes on two cores. The results are kept as runs/gallery_*.h5 and drawn again as long as they are there.
"""

from pathlib import Path

import matplotlib

from thermodbm import ThermalCurve, make_lattice, transverse_field_ising
from thermodbm.drawing import draw_network
from thermodbm.network.trotter import trotter_network
from thermodbm.plotting import plot_curves
from thermodbm.run.config import load_config
from thermodbm.run.progress import Reporter
from thermodbm.run.runner import run, start_jax

ROOT = Path(__file__).parent.parent
FIGURES = {  # name -> (config, settings that shorten it, observables, whether to draw known limits)
    "tfim_chain": ("quickstart", [], ["energy", "specific_heat", "entropy"], True),
    "tfim_square": ("tfim_square16", ["sampling.n_samples=4000"], ["energy", "specific_heat", "order_parameter_squared"], False),
    "heisenberg_chain": ("heisenberg_chain", ["sampling.target_error=5e-4"], ["energy", "specific_heat", "susceptibility"], False),
}

MAXIMA = {  # of the infinite Heisenberg chain, from the Bethe ansatz (Klümper and Johnston, PRL 84, 4701 (2000)): panel -> (T, value)
    "heisenberg_chain": {"specific_heat": (0.480285, 0.34971212), "susceptibility": (0.640851, 0.14692628)},
}


def main() -> None:
    matplotlib.use("agg")
    start_jax()
    folder = ROOT / "docs" / "gallery"
    folder.mkdir(exist_ok=True)
    network = trotter_network(
        transverse_field_ising(make_lattice("chain", 5, periodic=False), J=[1.0, 1.0, -0.6, 1.0]), beta=4.0, n_slices=16
    )
    draw_network(network).figure.savefig(folder / "network.png", dpi=110)
    for name, (config, settings, observables, limits) in FIGURES.items():
        result = ROOT / "runs" / f"gallery_{name}.h5"
        if not (result.exists() and ThermalCurve.load(result).finished):
            resolved = load_config(ROOT / "configs" / f"{config}.toml", settings, result)
            run(resolved, progress=Reporter(len(resolved.betas)))
        axes = plot_curves([ThermalCurve.load(result)], limits=limits, observables=observables)
        for ax, observable in zip(axes, observables, strict=True):
            if maximum := MAXIMA.get(name, {}).get(observable):
                star = ax.plot(*maximum, "*", markersize=12, color="#E69F00", zorder=0, label="maximum, infinite chain")
                ax.legend(handles=star, frameon=False, fontsize=8)
        axes[0].figure.savefig(folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()

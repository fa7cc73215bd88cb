"""The figures of the gallery in README.md, from configs in the tree: python docs/gallery.py

Takes some minutes on two cores. The results are kept in runs/, the figures are docs/gallery/*.png.
"""

from pathlib import Path

import matplotlib

from thermodbm import make_lattice, transverse_field_ising
from thermodbm.drawing import draw_network
from thermodbm.network.trotter import trotter_network
from thermodbm.plotting import plot_curves
from thermodbm.run.config import load_config
from thermodbm.run.progress import Reporter
from thermodbm.run.runner import run, start_jax

ROOT = Path(__file__).parent.parent
FIGURES = {  # name -> (config, settings that shorten it, observables)
    "tfim_chain": ("quickstart", [], ["energy", "specific_heat", "entropy"]),
    "tfim_square": ("tfim_square16", ["sampling.n_samples=4000"], ["energy", "specific_heat", "order_parameter_squared"]),
    "heisenberg_chain": ("heisenberg_chain", ["sampling.target_error=5e-4"], ["energy", "specific_heat", "susceptibility"]),
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
    for name, (config, settings, observables) in FIGURES.items():
        resolved = load_config(ROOT / "configs" / f"{config}.toml", settings, ROOT / "runs" / f"gallery_{name}.h5")
        curve = run(resolved, progress=Reporter(len(resolved.betas)))
        axes = plot_curves([curve], limits=True, observables=observables)
        axes[0].figure.savefig(folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()

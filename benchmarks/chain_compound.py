"""The data of configs/chain_compound.toml: a uniform S = 1/2 chain compound, rebuilt from values that are known for the infinite chain.

Susceptibility and specific heat per site at T/J = .25, .5, 1 and at their maxima (Bethe ansatz: Kluemper and Johnston, PRL 84, 4701
(2000)), and from .75 on by diagonalising a ring of 12, which is the infinite chain there to 1e-4,
for J = 10.3 K and g = 2.1, with a Curie tail of 0.002 emu K/mol, phonons of 3e-4 T^3 J/mol/K and 1% of noise from seed 1.
Run: python benchmarks/chain_compound.py
"""

from pathlib import Path

import numpy as np

from thermodbm import heisenberg, make_lattice
from thermodbm.exact import exact_curve

WARM = [0.75, 1.5, 2.0, 2.5, 3.0]

J, G, CURIE, PHONON_3, NOISE = 10.3, 2.1, 0.002, 3e-4, 0.01
EMU, GAS = 0.3751481, 8.314463  # N_A mu_B^2/k_B in emu K/mol, and R in J/mol/K
SUSCEPTIBILITY = {0.25: 0.125104, 0.5: 0.144074, 0.640851: 0.14692628, 1.0: 0.136543}
SPECIFIC_HEAT = {0.25: 0.217768, 0.480285: 0.34971212, 0.5: 0.348994, 1.0: 0.188650}


def main() -> None:
    rng, folder = np.random.default_rng(1), Path(__file__).parent.parent / "configs"
    ring = exact_curve(heisenberg(make_lattice("chain", 12)), 1 / np.array(WARM))
    for name, unit, table in (("susceptibility", "emu/mol", SUSCEPTIBILITY), ("specific_heat", "J/mol/K", SPECIFIC_HEAT)):
        lines = [f"# {name} in {unit}, temperature in K: made by benchmarks/chain_compound.py", f"temperature,{name},{name}_error"]
        known = table | dict(zip(WARM, ring[name].tolist(), strict=True))
        for t, value in sorted(known.items()):
            T = J * t
            clean = EMU * G**2 * value / J + CURIE / T if name == "susceptibility" else GAS * value + PHONON_3 * T**3
            lines.append(f"{T:.6g},{clean * (1 + NOISE * rng.normal()):.6g},{NOISE * clean:.3g}")
        (folder / f"chain_compound_{name}.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

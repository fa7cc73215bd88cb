"""Energy and specific heat of the Ising model against exact values, at every temperature.

    python benchmarks/tfim_exact.py [chain64] [chain12] [square4x4]

chain64: N = 64, gamma = J, T from .125 to 4 against free fermions, with target_error 2e-4.
chain12 and square4x4 (gamma = 3): all T >= .2 of tests/reference (full diagonalisation), 40 000 samples each.
Prints every deviation in units of its error bar, and wall and CPU time, compilation included.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from thermodbm import ThermalCurve, make_lattice, thermal_curve, transverse_field_ising
from thermodbm.exact import exact_curve

REFERENCE = Path(__file__).parent.parent / "tests" / "reference"


def table(title: str, curve: ThermalCurve, e: np.ndarray, c: np.ndarray, wall: float, cpu: float) -> None:
    """Print the comparison, and its largest pulls."""
    pull_e, pull_c = ((x.mean - exact) / x.error for x, exact in ((curve.energy, e), (curve.specific_heat, c)))
    print(f"{title}\n{'T':>9}{'e':>12}{'error':>10}{'pull':>7}{'c':>11}{'error':>10}{'pull':>7}")
    energy, heat = curve.energy, curve.specific_heat
    rows = zip(curve.temperature, energy.mean, energy.error, pull_e, heat.mean, heat.error, pull_c, strict=True)
    for T, e_mean, e_error, e_pull, c_mean, c_error, c_pull in rows:
        print(f"{T:9.4f}{e_mean:12.6f}{e_error:10.1e}{e_pull:7.2f}{c_mean:11.5f}{c_error:10.1e}{c_pull:7.2f}")
    rms = [np.sqrt(np.mean(p**2)) for p in (pull_e, pull_c)]
    print(
        f"largest pull: e {np.abs(pull_e).max():.2f}, c {np.abs(pull_c).max():.2f}; rms e {rms[0]:.2f}, c {rms[1]:.2f}; "
        f"largest error of e {energy.error.max():.1e}; {wall:.0f} s wall, {cpu:.0f} s CPU\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["chain64", "chain12", "square4x4"])
    for case in parser.parse_args().cases:
        began, cpu = time.time(), time.process_time()
        if case == "chain64":
            magnet = transverse_field_ising(make_lattice("chain", 64))
            curve = thermal_curve(magnet, T=np.geomspace(0.125, 4.0, 12), sampling={"target_error": 2e-4}, progress=False)
            exact = exact_curve(magnet, curve.beta)
            e, c = exact["energy"], exact["specific_heat"]
        else:
            extent, gamma, name = {"chain12": ((12,), 1.0, "tfim_chain12_g1"), "square4x4": ((4, 4), 3.0, "tfim_square4x4_g3")}[case]
            data = json.loads((REFERENCE / f"{name}.json").read_text())
            chosen = np.array(data["T"]) >= 0.2
            magnet = transverse_field_ising(make_lattice("chain" if len(extent) == 1 else "square", extent), 1.0, gamma)
            curve = thermal_curve(magnet, T=np.array(data["T"])[chosen], sampling={"n_samples": 40_000}, progress=False)
            e, c = (np.array(data[x])[chosen] for x in "ec")
        table(case, curve, e, c, time.time() - began, time.process_time() - cpu)


if __name__ == "__main__":
    main()

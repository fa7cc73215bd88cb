"""Thermodynamics of frustrated Heisenberg clusters with errors, as data files and tables that anyone can lay their own results against.

    python benchmarks/frustrated_tables.py [NAME ...] [--out benchmarks/frustrated]
    python benchmarks/frustrated_tables.py j1j2_6x6_0.5_variational --result runs/j1j2_square6.h5      of `configs/j1j2_square6.toml`

Each magnet gives NAME.csv in the folder (temperature, e, c, s and chi with their errors, per site, k_B = 1, S = sigma/2), and all
that are there stand in frustrated.md beside it. Clusters of up to 24 sites by the finite-temperature Lanczos method, down to their ground
state; the 6x6 torus by the deterministic method with its sign, where that is known well, and by the variational one.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from clusters import CLUSTERS

from thermodbm import ThermalCurve, thermal_curve
from thermodbm.run.shorthand import shorthand

HERE = Path(__file__).parent
COLUMNS = ("energy", "specific_heat", "entropy", "susceptibility")
COLD = np.geomspace(0.05, 10.0, 47)
HOT = np.geomspace(1.5, 10.0, 12)
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 4.0, 10.0)
"""Temperatures of the tables, about."""


TABLES = (
    "j1j2_chain16_0.5",
    "j1j2_4x4_0.4",
    "j1j2_4x4_0.5",
    "j1j2_4x4_0.6",
    "j1j2_4x6_0.5",
    "triangular_3x4",
    "triangular_4x4",
    "triangular_4x6",
    "kagome_12",
    "kagome_18",
    "kagome_24",
    "j1j2_6x6_0.5",
    "j1j2_6x6_0.5_variational",
)
FROM_RESULT = {"j1j2_6x6_0.5_variational": "j1j2_6x6_0.5"}
"""Tables whose runs are too long for this script, and their magnets."""


def measure(name: str, out: Path) -> None:
    """NAME.csv of what is computed here."""
    magnet, began = CLUSTERS[name].make(), time.monotonic()
    if magnet.n_sites <= 24:
        n_vectors = 100 if magnet.n_sites <= 16 else 30 if magnet.n_sites <= 18 else 6
        T, method, sampling = COLD, {"kind": "typical", "n_vectors": n_vectors}, {"seed": 1}
    else:
        T, method, sampling = HOT, {"kind": "deterministic"}, {"seed": 1, "n_samples": 200_000}
    write(name, thermal_curve(magnet, T=T, method=method, sampling=sampling), method | sampling, out)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def write(name: str, curve: ThermalCurve, settings: dict, out: Path) -> None:
    """NAME.csv, with a head of comments that says how; temperatures from cold to hot."""
    with (out / f"{name}.csv").open("w", newline="") as file:
        told = ", ".join(f"{k} = {v}" for k, v in settings.items())
        file.write(f"# {words(name)}: Heisenberg, J = 1, S = sigma/2, per site, k_B = 1\n# {told}\n")
        if not curve.trusted.all():
            file.write(f"# not to be trusted at T = {', '.join(f'{t:.4g}' for t in curve.temperature[~curve.trusted])}\n")
        rows = csv.writer(file)
        rows.writerow(["temperature", *(f"{c}{tail}" for c in COLUMNS for tail in ("", "_error"))])
        for k in np.argsort(curve.temperature):
            pairs = [curve.observables[c] for c in COLUMNS]
            rows.writerow([f"{curve.temperature[k]:.8g}", *(f"{x[k]:.10g}" for e in pairs for x in (e.mean, e.error))])


def words(name: str) -> str:
    """What a table is of."""
    return CLUSTERS[FROM_RESULT.get(name, name)].words + (", by the variational method" if name in FROM_RESULT else "")


def table(name: str, out: Path) -> list[str]:
    """Of one data file, at some of its temperatures."""
    lines = (out / f"{name}.csv").read_text().splitlines()
    head, rows = [x[2:] for x in lines if x.startswith("#")], list(csv.DictReader(x for x in lines if not x.startswith("#")))
    T = np.array([float(row["temperature"]) for row in rows])
    near = {int(np.abs(np.log(T / t)).argmin()) for t in SHOWN if T.min() * 0.9 < t < T.max() * 1.1}
    picked = sorted(near) if len(T) > len(SHOWN) else range(len(T))
    ground = CLUSTERS[FROM_RESULT.get(name, name)].ground_state
    told = f" Ground state by exact diagonalisation: {ground}." if ground is not None else ""
    text = [f"## {words(name)}", "", f"`frustrated/{name}.csv`; {'; '.join(head[1:])}.{told}", ""]
    text += ["| T | e | c | s | chi |", "|---|---|---|---|---|"]
    for k in picked:
        cells = [shorthand(float(rows[k][c]), float(rows[k][f"{c}_error"])) for c in COLUMNS]
        text.append(f"| {T[k]:.4g} | {' | '.join(cells)} |")
    return [*text, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[n for n in TABLES if n not in FROM_RESULT], help=", ".join(TABLES))
    parser.add_argument("--result", type=Path, help="the file of a finished run, for one table")
    parser.add_argument("--out", type=Path, default=HERE / "frustrated")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        if options.result:
            curve = ThermalCurve.load(options.result)
            write(name, curve, {"kind": curve.method, "seed": curve.seed, "file": options.result.name}, options.out)
        elif name in FROM_RESULT:
            parser.error(f"{name} is made from the result of a run: --result FILE.h5")
        else:
            measure(name, options.out)
        there = [n for n in TABLES if (options.out / f"{n}.csv").exists()]
        text = ["# Frustrated magnets at finite temperature", "", *__doc__.splitlines()[2:]]
        (options.out.parent / "frustrated.md").write_text("\n".join([*text, "", *(x for n in there for x in table(n, options.out))]))


if __name__ == "__main__":
    main()

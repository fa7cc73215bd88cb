"""Curves and comparisons as text: aligned columns, JSON and CSV."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from thermodbm.run.compare import Comparison
from thermodbm.run.curve_file import FORMAT_VERSION
from thermodbm.run.export import scalar_columns
from thermodbm.run.results import ThermalCurve
from thermodbm.run.shorthand import shorthand


def as_text(curve: ThermalCurve) -> str:
    """The table of a curve between a line of what it is and the reasons for doubt."""
    state = (
        "finished" if curve.finished else f"{curve.done.sum()} of {len(curve.beta)} {'points' if curve.scan else 'temperatures'} finished"
    )
    head = f"{curve.method} method, {state}, {curve.wall_time:.1f} s; per site, k_B = 1"
    fitted = [fit_text(curve.fit)] if curve.fit is not None else []
    return "\n\n".join([*fitted, head, columns(curve.table()), *(["\n".join(curve.warnings())] if curve.warnings() else [])])


def as_dict(curve: ThermalCurve) -> dict[str, Any]:
    """What `show --json` prints: the HDF5 file without the network."""
    return {
        "format_version": FORMAT_VERSION,
        "method": curve.method,
        "seed": curve.seed,
        **({"seeds": list(curve.seeds)} if curve.more_seeds else {}),
        "finished": int(curve.finished),
        "wall_time_s": curve.wall_time,
        "temperature": curve.temperature.tolist(),
        "beta": curve.beta.tolist(),
        **({"scan": {name: values.tolist() for name, values in curve.scan.items()}} if curve.scan else {}),
        "observables": {
            name: {field: values.tolist() for field, values in estimate._asdict().items() if values is not None}
            for name, estimate in curve.observables.items()
        },
        "diagnostics": {name: values.tolist() for name, values in curve.diagnostics.items()},
        "response": {
            name: {p: {"mean": e.mean.tolist(), "error": e.error.tolist()} for p, e in of.items()} for name, of in curve.response.items()
        },
        "config": curve.config,
        **({"fit": _plain(curve.fit)} if curve.fit is not None else {}),
    }


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _plain(value) for name, value in tree.items()}
    return tree.tolist() if isinstance(tree, np.ndarray | np.generic) else tree


def _interval(parameter: Mapping[str, Any]) -> str:
    digits = max(0, 1 - int(np.floor(np.log10(parameter["error"])))) if 0 < parameter["error"] < np.inf else 6
    return f"{float(parameter['low']):.{digits}f} to {float(parameter['high']):.{digits}f}"


def fit_text(fit: Mapping[str, Any]) -> str:
    """Fitted parameters, how good the fit is, and what speaks against it."""
    rows = [["parameter", "value"], *([n, shorthand(float(p["mean"]), float(p["error"]))] for n, p in fit["parameters"].items())]
    if any("low" in p for p in fit["parameters"].values()):
        for row, end in zip(rows, ["where chi^2 rises by 1", *map(_interval, fit["parameters"].values())], strict=True):
            row.append(end)
    quality = f"reduced chi^2 = {fit['chi2_reduced']:.3g} of {fit['n_points']} points; {fit['message']}"
    return f"{columns(rows)}\n\n{quality}"


def as_csv(curve: ThermalCurve) -> str:
    """One row per temperature: scalar observables with errors, then scalar diagnostics; empty cells where nothing is known."""
    cells = scalar_columns(curve)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cells)
    for row in zip(*(values.tolist() for values in cells.values()), strict=True):
        writer.writerow("" if np.isnan(value) else repr(value) for value in row)
    return text.getvalue().rstrip("\n")


def comparison_dict(comparisons: dict[str, Comparison], alike: bool) -> dict[str, Any]:
    """What `compare --json` prints."""
    details = {name: {f: getattr(c, f).tolist() for f in ("temperature", "a", "b", "error", "pull")} for name, c in comparisons.items()}
    for name, c in comparisons.items():
        details[name] |= {"scan": {n: x.tolist() for n, x in c.scan.items()}} if c.scan else {}
    return {"same_model": alike, "summary": _summary(comparisons), "observables": details}


def comparison_text(comparisons: dict[str, Comparison], alike: bool) -> str:
    """Pulls of scalar observables by temperature, and a summary of all."""
    scalars = {name: c for name, c in comparisons.items() if c.pull.ndim == 1}
    names = [n for c in comparisons.values() for n in c.scan]
    points = sorted({point for c in comparisons.values() for point in c.points})
    pulls = {name: dict(zip(c.points, c.pull.tolist(), strict=True)) for name, c in scalars.items()}
    rows = [
        [*dict.fromkeys(names), "T", *scalars],
        *([*(f"{x:.6g}" for x in at), *(_signed(p.get(at)) for p in pulls.values())] for at in points),
    ]
    totals = [["observable", "values", "largest pull", "chi^2/n", "largest difference"]]
    totals += [
        [n, str(s["n"]), _signed(s["max_pull"])[1:], _signed(s["chi2_per_n"])[1:], f"{s['max_difference']:.2e}"]
        for n, s in _summary(comparisons).items()
    ]
    note = "" if alike else "Note: the two files hold different lattices or models.\n\n"
    return f"{note}(A - B) / combined error\n\n{columns(rows)}\n\n{columns(totals)}"


def agreement_text(agreement: Mapping[str, Any]) -> str:
    """How far merged files scatter about their average."""
    rows = [["observable", "chi^2", "degrees of freedom", "probability"]]
    rows += [[name, f"{a.chi2:.1f}", str(a.n), f"{a.p:.2g}"] for name, a in agreement.items()]
    return columns(rows)


def nulls(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {k: nulls(v) for k, v in value.items()}
    if isinstance(value, list):
        return [nulls(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def columns(rows: list[list[str]]) -> str:
    """Rows of cells in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _summary(comparisons: dict[str, Comparison]) -> dict[str, dict[str, Any]]:
    return {
        name: {"n": c.pull.size, "max_pull": c.max_pull, "chi2_per_n": c.chi2_per_n, "max_difference": float(np.abs(c.a - c.b).max())}
        for name, c in comparisons.items()
    }


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}" if abs(value) < 1e4 else f"{value:+.1e}"

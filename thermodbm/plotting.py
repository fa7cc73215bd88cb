"""Thermal curves as figures: one panel per observable, error bars, the exact curve where it is known."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermodbm.errors import InputError
from thermodbm.exact import exact_curve, free_fermions
from thermodbm.models import SpinHamiltonian
from thermodbm.models.observables import OBSERVABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from thermodbm.run.results import ThermalCurve

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: told apart by all eyes
_MARKERS = "osD^vP"
_DASHES = ("-", "--", ":", "-.")  # of exact lines, where there are several
_DOUBTFUL = "0.6"
_LARGEST_DIAGONALISED = 10
_SCALARS = {name: o for name, o in OBSERVABLES.items() if not o.dims}
VANISHING = 1e-10
"""An observable that is nowhere larger, its error included, is zero by symmetry: no panel is wasted on it unless it is asked for."""


def plot_curves(
    curves: Sequence["ThermalCurve"],
    labels: Sequence[str] | None = None,
    exact: bool = True,
    limits: bool = False,
    observables: Sequence[str] | None = None,
) -> np.ndarray:
    """Lay curves over each other, one panel per scalar observable: against the temperature, or against what is scanned, a colour for each
    temperature.

    Temperatures and energies are in units of the exchange coupling where that is one number, the same for all bonds.

    Args:
        labels: one per curve for the legend; None: their methods.
        exact: draw the exact curve under them where it is cheap: periodic uniform Ising chains, and up to 10 sites.
        limits: draw what is known at infinite temperature (e = 0, s = ln 2) and, where the exact curve is cheap, the ground-state energy.
        observables: which ones, in this order; None: all scalar ones.

    Returns:
        The axes, one per observable; `axes[0].figure` is the figure.

    Raises:
        InputError: if no curve has any of the observables, or one is not known here; and for scans of several quantities.
    """
    labels = [curve.method for curve in curves] if labels is None else labels
    if unknown := set(observables or ()) - set(_SCALARS):
        raise InputError("observables", expected="some of " + ", ".join(_SCALARS), found=", ".join(sorted(unknown)))
    wanted = observables or [name for name, o in _SCALARS.items() if o.panel and not _zero(name, curves)]
    names = [name for name in wanted if any(name in curve.observables for curve in curves)]
    if not names or not any((curve.done & np.isfinite(curve.temperature)).any() for curve in curves):
        raise InputError("curves", expected="at least one finished temperature that is finite", found="none")
    figure, axes = _canvas(len(names))
    units = {_unit(curve)[1] for curve in curves}
    symbol = units.pop() if len(units) == 1 else ""
    scan = _scanned(curves)
    if exact and not scan:
        _draw_exact(axes, names, curves)
    if limits and not scan:
        _draw_limits(axes, names, curves)
    for number, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        if scan:
            _draw_scan(axes, names, curve, label, number, exact)
        else:
            _draw_points(axes, names, curve, label, number)
    temperatures = np.concatenate([_finite(curve.temperature) for curve in curves])
    per = f"\\,/\\,{symbol}" if symbol else ""
    for ax, name in zip(axes, names, strict=True):
        known = _SCALARS[name]
        unit = {1: per, 0: "", -1: f"\\cdot {symbol}"}[known.unit] if symbol else ""
        ax.set_title(known.words, fontsize=10)
        ax.set_ylabel(f"${known.symbol}{unit}$")
        if scan:
            ax.set_xlabel(f"{scan}${per}$" if symbol and not scan.startswith("delta") else scan)
        else:
            ax.set_xlabel(f"$T{per}$" if symbol else "$T$  ($k_B = 1$)")
            if temperatures.max() > 8 * temperatures.min():
                _logarithmic(ax)
        ax.grid(alpha=0.25, linewidth=0.6)
    entries = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper right", ncols=_legend_columns(entries, len(axes)), frameon=False)
    if len(titles := {_title(curve) for curve in curves}) == 1:
        figure.suptitle(titles.pop(), x=0.01, ha="left", fontsize=11)
    return axes


def _draw_points(axes: np.ndarray, names: Sequence[str], curve: "ThermalCurve", label: str, number: int) -> None:
    """The points of one curve with their errors; grey where something speaks against them."""
    scale = _unit(curve)[0]
    style = {"marker": _MARKERS[number % len(_MARKERS)], "markerfacecolor": "none"}
    style |= {"linestyle": "none", "markersize": 5, "capsize": 2}  # hollow, so that curves which agree are seen to
    finite, good = np.isfinite(curve.temperature), curve.trusted
    for ax, name in zip(axes, names, strict=True):
        if name not in curve.observables:
            continue
        factor = scale ** -_SCALARS[name].unit
        T, mean, error = curve.temperature / scale, curve.observables[name].mean * factor, curve.observables[name].error * factor
        for chosen, color, text in (
            (finite & good, _COLORS[number % len(_COLORS)], label),
            (finite & ~good, _DOUBTFUL, f"{label}: do not trust"),
        ):
            if chosen.any():
                ax.errorbar(T[chosen], mean[chosen], error[chosen], label=text, color=color, **style)


def _scanned(curves: Sequence["ThermalCurve"]) -> str:
    """What all curves scan, or nothing."""
    names = {name for curve in curves for name in curve.scan or ("",)}
    if len(names) > 1:
        found = " and ".join(f"a scan of {name}" if name else "none" for name in sorted(names))
        raise InputError("curves", expected="scans of one field or coupling, or none", found=found)
    return names.pop()


def _draw_scan(axes: np.ndarray, names: Sequence[str], curve: "ThermalCurve", label: str, number: int, exact: bool) -> None:
    """Points against what is scanned, a colour for each temperature; exact values at the same points, joined by lines."""
    ((scanned, values),), (scale, _) = curve.scan.items(), _unit(curve)
    values = values if scanned.startswith("delta") else values / scale
    temperatures = np.unique(_finite(curve.temperature))
    known = [exact_curve(part.hamiltonian, 1 / temperatures) if exact and _solvable(part.hamiltonian) else {} for part in curve.sweeps]
    style = {"marker": _MARKERS[number % len(_MARKERS)], "markerfacecolor": "none", "linestyle": "none", "markersize": 5, "capsize": 2}
    for k, temperature in enumerate(temperatures):
        here, color = curve.temperature == temperature, _COLORS[k % len(_COLORS)]
        order = np.argsort(values[here], kind="stable")
        text = label if len(temperatures) == 1 else f"{label}, T = {temperature / scale:.4g}"
        for ax, name in zip(axes, names, strict=True):
            if name not in curve.observables:
                continue
            factor, estimate = scale ** -_SCALARS[name].unit, curve.observables[name]
            for chosen, shade, words in ((here & curve.trusted, color, text), (here & ~curve.trusted, _DOUBTFUL, f"{label}: do not trust")):
                if chosen.any():
                    mean, error = estimate.mean[chosen] * factor, estimate.error[chosen] * factor
                    ax.errorbar(values[chosen], mean, error, label=words, color=shade, **style)
            if all(name in of for of in known):
                line = np.array([of[name][k] for of in known])[order] * factor
                ax.plot(values[here][order], line, color="0.35", linewidth=1.0, zorder=1, label="exact solution")


def _zero(name: str, curves: Sequence["ThermalCurve"]) -> bool:
    """Whether an observable is zero by symmetry in all curves that have it."""
    estimates = [curve.observables[name] for curve in curves if name in curve.observables]
    return all(np.max(np.abs(_finite(x)), initial=0.0) < VANISHING for e in estimates for x in (e.mean, e.error))


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _legend_columns(texts: Sequence[str], n_panels: int) -> int:
    """As many as fit the width of the figure, at about 14 characters to an inch beside a handle of half an inch."""
    width = 3.5 * min(3, n_panels)
    return max(1, min(4, len(texts), int(width // (0.7 + max(map(len, texts), default=1) / 13))))


def _canvas(n_panels: int) -> tuple["Figure", np.ndarray]:
    """A figure with a grid of as many axes, at most three to a row."""
    from matplotlib import pyplot

    columns = min(3, n_panels)
    rows = math.ceil(n_panels / columns)
    figure = pyplot.figure(figsize=(3.5 * columns + 0.3, 2.7 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[n_panels:]:
        unused.remove()
    return figure, grid[:n_panels]


def _logarithmic(ax: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_exact(axes: np.ndarray, names: Sequence[str], curves: Sequence["ThermalCurve"]) -> None:
    """Lines for every different model among the curves that can be solved at once, named where there are several."""
    models: dict[str, list[ThermalCurve]] = {}
    for curve in curves:
        tables = tomllib.loads(curve.config)
        models.setdefault(repr([tables.get("lattice"), tables.get("model")]), []).append(curve)
    for number, alike in enumerate(models.values()):
        if not _solvable(hamiltonian := alike[0].hamiltonian):
            continue
        scale = _unit(alike[0])[0]
        visited = _finite(np.concatenate([curve.temperature for curve in alike]))
        if not visited.size:
            continue
        temperatures = np.geomspace(visited.min(), visited.max(), 200)
        values = exact_curve(hamiltonian, 1 / temperatures)
        label = "exact solution" if len(models) == 1 else f"exact: {_title(alike[0])}"
        for ax, name in zip(axes, names, strict=True):
            if name in values:
                line = values[name] * scale ** -_SCALARS[name].unit
                dashes = _DASHES[number % len(_DASHES)]
                ax.plot(temperatures / scale, line, dashes, color="0.35", linewidth=1.2, zorder=1, label=label)


def _draw_limits(axes: np.ndarray, names: Sequence[str], curves: Sequence["ThermalCurve"]) -> None:
    """Horizontal lines at infinite temperature, where H has no trace, and at the energy of the ground state of the first curve's model."""
    hamiltonian, scale = curves[0].hamiltonian, _unit(curves[0])[0]
    values = {"energy": [(0.0, r"$T = \infty$", "left", "top")], "entropy": [(math.log(2), r"$\ln 2$", "left", "top")]}
    if _solvable(hamiltonian):
        ground = exact_curve(hamiltonian, np.array([1e6 / scale]))["energy"][0] / scale
        values["energy"].append((ground, "ground state", "right", "bottom"))
    for ax, name in zip(axes, names, strict=True):
        for value, words, horizontal, vertical in values.get(name, ()):
            ax.axhline(value, color="0.6", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            where, lift = {"left": 0.02, "right": 0.98}[horizontal], {"top": -3, "bottom": 3}[vertical]
            position = {"xycoords": ("axes fraction", "data"), "xytext": (0, lift), "textcoords": "offset points"}
            ax.annotate(words, (where, value), **position, ha=horizontal, va=vertical, fontsize=8, color="0.35")


def _solvable(hamiltonian: SpinHamiltonian) -> bool:
    return hamiltonian.n_sites <= _LARGEST_DIAGONALISED or free_fermions.applicable(hamiltonian)


def _unit(curve: "ThermalCurve") -> tuple[float, str]:
    """Size of the exchange coupling and its symbol; (1, "") where it is zero or differs from bond to bond."""
    model = tomllib.loads(curve.config).get("model", {})
    name = "J1" if "J1" in model else "J"
    coupling = model.get(name)
    if not isinstance(coupling, float | int) or coupling == 0:
        return 1.0, ""
    symbol = "J_1" if name == "J1" else "J"
    return abs(float(coupling)), symbol if coupling > 0 else f"|{symbol}|"


def _title(curve: "ThermalCurve") -> str:
    """Such as "tfim, chain 64, gamma = 1"."""
    tables = tomllib.loads(curve.config)
    lattice, model = dict(tables.get("lattice", {})), dict(tables.get("model", {}))
    size = " x ".join(map(str, lattice.get("extent", [lattice.get("n_sites", "")])))
    named = {f"{k}.{g}": x for k, v in model.items() if isinstance(v, Mapping) for g, x in v.items()}
    single = {k: v for k, v in model.items() if k != "kind" and not isinstance(v, Mapping)}
    couplings = [f"{k} = {v:.6g}" if isinstance(v, float | int) else f"{k} by bond" for k, v in {**named, **single}.items() if v]
    return ", ".join([f"{model.get('kind', '')} on {lattice.get('kind', '')} {size}", *couplings])


def plot_fit(fit: Mapping[str, Any]) -> "Figure":
    """Measured points with error bars, the fitted curves through them, and below each panel the residuals in units of the errors.

    Args:
        fit: `ThermalCurve.fit` of the file of a fit.
    """
    import matplotlib.pyplot as plt

    data = list(fit["data"].values())
    quantities = list(dict.fromkeys(d["quantity"] for d in data))
    n = len(quantities)
    figure, axes = plt.subplots(2, n, figsize=(4.6 * n, 4.6), sharex="col", squeeze=False, height_ratios=[3, 1], layout="constrained")
    for column, quantity in enumerate(quantities):
        above, below = axes[:, column]
        for k, d in enumerate(x for x in data if x["quantity"] == quantity):
            field = np.asarray(d["field"])
            of_field = np.isfinite(field).all() and len(np.unique(d["temperature"])) == 1
            x = field if of_field else np.asarray(d["temperature"])
            order, color = np.argsort(x, kind="stable"), f"C{k}"
            label = Path(d["file"]).stem
            above.errorbar(x, d["value"], d["error"], fmt="o", ms=3, lw=0.8, color=color, label=label, alpha=0.8)
            for value in [None] if of_field else np.unique(field[np.isfinite(field)]) if np.isfinite(field).any() else [None]:
                chosen = order if value is None else order[field[order] == value]
                above.plot(x[chosen], np.asarray(d["model"])[chosen], color="k", lw=1.2, zorder=3)
            pull = (np.asarray(d["value"]) - d["model"]) / d["error"]
            below.plot(x, pull, "o", ms=3, color=color)
        below.axhline(0, color="k", lw=0.8)
        units = fit.get("units", {})
        x_name = "field" if of_field else "temperature"
        unit = units.get({"entropy": "specific_heat", "energy": "coupling"}.get(quantity, quantity), "")
        below.set_xlabel(f"{x_name} ({units[x_name]})" if x_name in units else x_name)
        above.set_title(quantity.replace("_", " ") + (f" ({unit})" if unit else ""))
        if column == 0:
            below.set_ylabel("residual / error")
        above.legend(frameon=False, fontsize="small")
    return figure

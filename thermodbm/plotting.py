"""Thermal curves as figures: one panel per observable, error bars, the exact curve where it is known."""

import math
import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from thermodbm.errors import InputError
from thermodbm.exact import exact_curve, free_fermions
from thermodbm.models import SpinHamiltonian

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from thermodbm.run.results import ThermalCurve

# observable -> words, symbol, and the power of the coupling J in its unit
_PANELS = {
    "energy": ("energy per site", "e", 1),
    "specific_heat": ("specific heat per site", "c", 0),
    "entropy": ("entropy per site", "s", 0),
    "free_energy": ("free energy per site", "f", 1),
    "susceptibility": ("susceptibility per site", r"\chi", -1),
    "staggered_structure_factor": ("staggered structure factor", r"S(\mathrm{staggered})", 0),
    "order_parameter_squared": ("squared magnetisation", r"\langle m_z^2 \rangle", 0),
    "magnetization_x": ("transverse magnetisation", "m_x", 0),
    "magnetization_z": ("longitudinal magnetisation", "m_z", 0),
}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: told apart by all eyes
_MARKERS = "osD^vP"
_LARGEST_DIAGONALISED = 10


def plot_curves(
    curves: Sequence["ThermalCurve"],
    labels: Sequence[str] | None = None,
    exact: bool = True,
    limits: bool = False,
    observables: Sequence[str] | None = None,
) -> np.ndarray:
    """Lay curves over each other, one panel per scalar observable.

    Temperatures and energies are in units of the exchange coupling where that is one number, the same for all bonds.

    Args:
        labels: one per curve for the legend; None: their methods.
        exact: draw the exact curve under them where it is cheap: periodic uniform Ising chains, and up to 10 sites.
        limits: draw what is known at infinite temperature (e = 0, s = ln 2) and, where the exact curve is cheap, the ground-state energy.
        observables: which ones, in this order; None: all scalar ones.

    Returns:
        The axes, one per observable; `axes[0].figure` is the figure.

    Raises:
        InputError: if no curve has any of the observables, or one is not known here.
    """
    labels = [curve.method for curve in curves] if labels is None else labels
    if unknown := set(observables or ()) - set(_PANELS):
        raise InputError("observables", expected="some of " + ", ".join(_PANELS), found=", ".join(sorted(unknown)))
    names = [name for name in (observables or _PANELS) if any(name in curve.observables for curve in curves)]
    if not names:
        raise InputError("curves", expected="at least one finished temperature", found="none")
    figure, axes = _canvas(len(names))
    units = {_unit(curve)[1] for curve in curves}
    symbol = units.pop() if len(units) == 1 else ""
    if exact:
        _draw_exact(axes, names, curves)
    if limits:
        _draw_limits(axes, names, curves)
    for number, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        scale = _unit(curve)[0]
        style = {"color": _COLORS[number % len(_COLORS)], "marker": _MARKERS[number % len(_MARKERS)], "markerfacecolor": "none"}
        style |= {"linestyle": "none", "markersize": 5, "capsize": 2}  # hollow, so that curves which agree are seen to
        for ax, name in zip(axes, names, strict=True):
            if name not in curve.observables:
                continue
            mean, error = curve.observables[name].mean, curve.observables[name].error
            factor = scale ** -_PANELS[name][2]
            ax.errorbar(curve.temperature / scale, mean * factor, error * factor, label=label, **style)
    temperatures = np.concatenate([curve.temperature for curve in curves])
    for ax, name in zip(axes, names, strict=True):
        words, observable, power = _PANELS[name]
        unit = {1: f"\\,/\\,{symbol}", 0: "", -1: f"\\cdot {symbol}"}[power] if symbol else ""
        ax.set_title(words, fontsize=10)
        ax.set_ylabel(f"${observable}{unit}$")
        ax.set_xlabel(f"$T\\,/\\,{symbol}$" if symbol else "$T$  ($k_B = 1$)")
        if temperatures.max() > 8 * temperatures.min():
            _logarithmic(ax)
        ax.grid(alpha=0.25, linewidth=0.6)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper right", ncols=min(4, len(texts)), frameon=False)
    if len(titles := {_title(curve) for curve in curves}) == 1:
        figure.suptitle(titles.pop(), x=0.01, ha="left", fontsize=11)
    return axes


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
    """Lines for every different model among the curves that can be solved at once."""
    drawn: set[str] = set()
    for curve in curves:
        tables = tomllib.loads(curve.config)
        model = repr([tables.get("lattice"), tables.get("model")])
        if model in drawn or not _solvable(hamiltonian := curve.hamiltonian):
            continue
        drawn.add(model)
        scale = _unit(curve)[0]
        temperatures = np.geomspace(curve.temperature.min(), curve.temperature.max(), 200)
        values = exact_curve(hamiltonian, 1 / temperatures)
        for ax, name in zip(axes, names, strict=True):
            if name in values:
                line = values[name] * scale ** -_PANELS[name][2]
                ax.plot(
                    temperatures / scale, line, color="0.35", linewidth=1.2, zorder=1, label="exact solution" if len(drawn) == 1 else None
                )


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
    couplings = [f"{k} = {v:.6g}" if isinstance(v, float | int) else f"{k} by bond" for k, v in model.items() if k != "kind" and v]
    return ", ".join([f"{model.get('kind', '')} on {lattice.get('kind', '')} {size}", *couplings])

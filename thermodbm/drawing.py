"""Drawings of what is simulated and of the network that represents it; shown by themselves in notebooks."""

import io
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # drawing stands outside of the import order: models and network show themselves through it
    from matplotlib.axes import Axes

    from thermodbm.models import Lattice, SpinHamiltonian
    from thermodbm.network.dbm import DBMParams

_BLUE, _VERMILION, _GREEN, _PINK, _ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"  # Okabe and Ito: told apart by all eyes
_GROUPS = (_BLUE, _ORANGE, _GREEN, _PINK, _VERMILION, "#56B4E9")
_LARGEST_EXTENT = {1: 16, 2: 10, 3: 4}
"""Unit cells drawn along each axis, by dimension; the rest of a larger lattice is left out."""
_MOST_ROWS, _MOST_COLUMNS = 6, 7
"""Worldlines of a network, and units along each, that are drawn."""
_OBLIQUE = np.array([[1.0, 0.0], [0.0, 1.0], [0.42, 0.28]])
"""Projection of three dimensions onto paper."""


def svg(axes: "Axes") -> str:
    """A drawing as SVG, for notebooks; its figure is closed, so that a notebook does not show it a second time."""
    from matplotlib import pyplot

    text = io.StringIO()
    axes.figure.savefig(text, format="svg", bbox_inches="tight")
    pyplot.close(axes.figure)
    return text.getvalue()


def draw_lattice(lattice: "Lattice", ax: "Axes | None" = None) -> "Axes":
    """Sites and nearest-neighbour bonds, groups of bonds in colours; bonds across a periodic boundary end in the air, dashed.

    >>> from thermodbm import make_lattice
    >>> draw_lattice(make_lattice("kagome", (2, 2))).get_title()
    'kagome 2 x 2, 12 sites'
    """
    ax = _canvas(lattice, ax)
    bonds = lattice.bonds()
    colors = np.full(len(bonds), "0.45", dtype="<U7")
    if len(lattice.groups) > 1:
        for number, group in enumerate(lattice.groups):
            color = _GROUPS[number % len(_GROUPS)]
            colors[lattice.bond_groups == number] = color
            ax.plot([], [], color=color, linewidth=2.0, label=group)
    _draw_bonds(ax, lattice, bonds, colors, np.full(len(bonds), 1.5))
    _draw_sites(ax, lattice, np.zeros(lattice.n_sites))
    ax.set_title(_name(lattice), fontsize=10)
    _legend(ax, 6)
    return ax


def draw_hamiltonian(hamiltonian: "SpinHamiltonian", ax: "Axes | None" = None) -> "Axes":
    """The lattice with its couplings: blue bonds are ferromagnetic, red ones antiferromagnetic, their width is their strength. Couplings of
    groups of bonds that differ are named.

    Colour and strength are those of the larger of the zz and the xy part. Sites are filled where there is a field along z, in the colour
    of its sign.
    """
    lattice, ax = hamiltonian.lattice, _canvas(hamiltonian.lattice, ax)
    zz, xy = np.asarray(hamiltonian.zz, float), np.asarray(hamiltonian.xy, float)
    couplings = np.where(np.abs(zz) >= np.abs(xy), zz, xy)
    strength = np.abs(couplings) / (np.abs(couplings).max(initial=0.0) or 1.0)
    colors = np.where(couplings < 0, _BLUE, np.where(couplings > 0, _VERMILION, "0.8"))
    _draw_bonds(ax, lattice, hamiltonian.bonds, colors, 0.5 + 3 * strength)
    _draw_sites(ax, lattice, np.asarray(hamiltonian.z_field, float))
    kinds = {"ferromagnetic": (couplings < 0, _BLUE), "antiferromagnetic": (couplings > 0, _VERMILION)}
    size = 1 / hamiltonian.moment**2  # from Pauli matrices to the convention of the model
    if groups := _distinct_groups(lattice, couplings):
        kinds = {
            f"{group}, {word}": (chosen & members, color) for group, members in groups.items() for word, (chosen, color) in kinds.items()
        }
    for label, (chosen, color) in kinds.items():
        if chosen.any():
            ax.plot([], [], color=color, linewidth=2.5, label=f"{label}, |J| = {_span(size * np.abs(couplings[chosen]))}")
    field = np.abs(np.asarray(hamiltonian.z_field, float))
    if field.any():
        ax.plot([], [], "o", color="0.55", label=f"field along z, |h| = {_span(field[field > 0] / hamiltonian.moment)}")
    gamma = np.asarray(hamiltonian.x_field, float)
    transverse = f"\ntransverse field {_span(gamma / hamiltonian.moment)}" if gamma.any() else ""
    ax.set_title(f"{hamiltonian.model}: {_name(lattice)}, {len(hamiltonian.bonds)} bonds{transverse}", fontsize=10)
    _legend(ax, 1)
    return ax


def _distinct_groups(lattice: "Lattice", couplings: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (n_bonds,) of the groups of bonds by their names, where each has one coupling of its own and not all are the same."""
    found = {group: np.zeros(len(couplings), bool) for group in lattice.groups}
    for number, group in enumerate(lattice.groups):
        found[group][: len(lattice.bond_groups)] = lattice.bond_groups == number
    values = [couplings[members] for members in found.values() if members.any()]
    alike = all(np.ptp(part) == 0 for part in values)
    return found if alike and len({part[0] for part in values}) > 1 else {}


def draw_network(params: "DBMParams", ax: "Axes | None" = None) -> "Axes":
    """Units and couplings of a deep Boltzmann machine: worldlines from the ancillas (left) to the spins (right), hidden units between.

    Real couplings are solid (blue positive, red negative), imaginary ones dashed (green positive, pink negative); width grows with the
    modulus. A unit with a bias has an edge in the colour of it. The middle of a deep network, and worldlines beyond the first few, are
    left out; so are couplings to what is left out.
    """
    n, weights = len(params.a) // 2, np.hstack([params.W, params.W_deep])
    x, y = _worldlines(n, weights)
    n_columns = int(x[:n].max()) + 1
    elided = n_columns > _MOST_COLUMNS
    shown = (y < _MOST_ROWS) & ((x < _MOST_COLUMNS - 2) | (x >= n_columns - 2) | (not elided))
    if elided:
        x = np.where(x >= n_columns - 2, x - (n_columns - _MOST_COLUMNS), x)
    units = np.stack([2.0 * x, -1.0 * y], -1)
    rows = min(n, _MOST_ROWS)
    ax = ax or _new_axes(2.2 + 1.2 * min(n_columns, _MOST_COLUMNS), 1.8 + 0.8 * rows)
    hidden = _draw_couplings(ax, units, weights, shown)
    if elided:
        gap = 2.0 * (_MOST_COLUMNS - 2) - 1
        for row in range(rows):
            ax.text(gap, -row, "…", ha="center", va="center", fontsize=14, color="0.4")
    biases = np.concatenate([params.a, params.c])
    edges = np.array([_color(bias) if abs(bias) > 1e-12 else "black" for bias in biases])
    kinds = {
        "spins": (np.arange(len(y)) < n, "o", "0.1"),
        "ancillas": ((np.arange(len(y)) >= n) & (np.arange(len(y)) < 2 * n), "o", "white"),
        "deep units": (np.arange(len(y)) >= 2 * n, "o", _ORANGE),
    }
    for label, (members, marker, color) in kinds.items():
        chosen = members & shown
        if chosen.any():
            ax.scatter(*units[chosen].T, s=75, marker=marker, c=color, edgecolors=edges[chosen], linewidths=1.3, zorder=3, label=label)
    if len(hidden):
        ax.scatter(*hidden.T, s=26, marker="s", c="0.75", edgecolors="black", linewidths=0.7, zorder=3, label="hidden units")
    plural = "s" if n > 1 else ""
    ax.set_title(f"{n} spin{plural}, {n} ancilla{plural}, {len(params.b)} hidden and {len(params.c)} deep units", fontsize=10)
    signs = {"real +": (weights.real > 1e-12), "real −": (weights.real < -1e-12), "imaginary +": (weights.imag > 1e-12)}
    signs |= {"imaginary −": (weights.imag < -1e-12)}
    for label, present in signs.items():
        if present.any():
            value = {"real": 1, "imaginary": 1j}[label.split()[0]] * (1 if label.endswith("+") else -1)
            ax.plot([], [], color=_color(value), linewidth=2, linestyle="-" if value.real else (0, (2.5, 1.2)), label=label)
    if rows < n:
        ax.text(float(x[:n].max()), 0.4 - rows, f"… {n - rows} more spins", ha="center", va="center", fontsize=9, color="0.4")
    _legend(ax, 4)
    ax.set_axis_off()
    ax.margins(0.06, 0.16)
    return ax


def _worldlines(n: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column (imaginary time) and row (site) of every visible and deep unit.

    Hidden units are read in the order in which they were added: of the units that one couples, those not met before continue the worldlines
    of those that were.
    """
    n_units = weights.shape[1]
    column, row = np.full(n_units, -1), np.full(n_units, -1)
    row[: 2 * n] = np.tile(np.arange(n), 2)
    column[n : 2 * n] = 0
    for couplings in weights:
        units = np.flatnonzero(np.abs(couplings) > 1e-12)
        new, old = units[column[units] < 0], units[column[units] >= 0]
        column[new] = column[old].max(initial=0) + 1
        free = [r for r in row[old] if r not in row[new]] or [0]
        deep = new[row[new] < 0]
        row[deep] = [free[k % len(free)] for k in range(len(deep))]
    column[:n] = column.max()
    return np.where(column < 0, 1, column), np.where(row < 0, 0, row)


def _draw_couplings(ax: "Axes", units: np.ndarray, weights: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Lines from every hidden unit to what it couples; returns positions of the hidden units, (n_shown, 2)."""
    largest = np.abs(weights).max(initial=0.0) or 1.0
    taken: set[tuple[float, float]] = set()
    for couplings in weights:
        members = np.flatnonzero(np.abs(couplings) > 1e-12)
        if not len(members) or not shown[members].all():
            continue
        place = units[members].mean(0)
        if np.ptp(units[members, 0]) == 0 and len(members) > 1:  # beside the column, beyond reach of the lines of shorter bonds
            place[0] += 0.5 if np.ptp(units[members, 1]) <= 1 else -0.5
        while tuple(np.round(place, 3)) in taken:
            place[1] += 0.28
        taken.add(tuple(np.round(place, 3)))
        for unit in members:
            for part in (couplings[unit].real, 1j * couplings[unit].imag):
                if abs(part) > 1e-12:
                    style = "-" if part.real else (0, (2.5, 1.2))
                    width = 0.6 + 2.6 * abs(part) / largest
                    ax.plot(*np.stack([place, units[unit]]).T, color=_color(part), linestyle=style, linewidth=width, zorder=1)
    return np.array(sorted(taken)).reshape(-1, 2)


def _color(weight: complex) -> str:
    """Blue and red for real, green and pink for imaginary numbers, by the larger part and its sign."""
    if abs(weight.real) >= abs(weight.imag):
        return _BLUE if weight.real > 0 else _VERMILION
    return _GREEN if weight.imag > 0 else _PINK


def _new_axes(width: float, height: float) -> "Axes":
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="constrained").add_subplot()


def _canvas(lattice: "Lattice", ax: "Axes | None") -> "Axes":
    """Axes whose figure has room for the part of the lattice that is drawn."""
    width, height = np.clip((1.5, 2.2) + 0.55 * np.ptp(_paper(lattice)[_shown(lattice)], axis=0), (3.6, 1.8), (8, 6))
    if lattice.kind == "graph":
        width, height = 4.0, 4.6
    ax = ax or _new_axes(width, height)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.margins(0.08, 0.12)
    if len(lattice.extent) == 1 and lattice.kind != "graph":
        ax.set_ylim(-0.6, 0.6)
    if lattice.kind == "ladder":
        ax.set_ylim(-0.4, 1.4)
    return ax


def _paper(lattice: "Lattice", points: np.ndarray | None = None) -> np.ndarray:
    """Positions on paper, (n, 2)."""
    points = lattice.positions if points is None else points
    return points @ _OBLIQUE if points.shape[-1] == 3 else np.pad(points, ((0, 0), (0, 2 - points.shape[-1])))


def _shown(lattice: "Lattice") -> np.ndarray:
    """Which sites are drawn, (n_sites,)."""
    if lattice.kind == "graph":
        return np.ones(lattice.n_sites, bool)
    return np.repeat((lattice.cells < _LARGEST_EXTENT[len(lattice.extent)]).all(-1), lattice.n_basis)


def _draw_bonds(ax: "Axes", lattice: "Lattice", bonds: np.ndarray, colors: np.ndarray, widths: np.ndarray) -> None:
    """Whole lines inside; half lines, dashed, where a bond crosses the boundary or leaves the part that is drawn."""
    from matplotlib.collections import LineCollection

    ends, shown = lattice.positions[bonds], _shown(lattice)[bonds]  # (n_bonds, 2, dim), (n_bonds, 2)
    direct = ends[:, 1] - ends[:, 0]
    shift = np.zeros_like(direct)
    if lattice.kind != "graph":
        vectors = lattice._geometry[0] * np.array(lattice.extent)[:, None]
        images = np.array([np.array(m) @ vectors for m in product(*((0, -1, 1) if p else (0,) for p in lattice.periodic))])
        shift = images[np.argmin(np.round(np.linalg.norm(direct[:, None] + images, axis=-1), 9), axis=1)]
    whole = shown.all(1) & ~shift.any(1)
    half = (direct + shift) / 2
    lines = np.stack([ends[whole, 0], ends[whole, 1]], 1)
    stubs = [(np.stack([ends[:, k], ends[:, k] + (1 - 2 * k) * half], 1)[~whole & shown[:, k]], ~whole & shown[:, k]) for k in (0, 1)]
    for segments, chosen, style in ((lines, whole, "-"), *((s, m, (0, (1.5, 1))) for s, m in stubs)):
        paper = _paper(lattice, segments.reshape(-1, segments.shape[-1])).reshape(-1, 2, 2)
        ax.add_collection(LineCollection(list(paper), colors=list(colors[chosen]), linewidths=widths[chosen], linestyles=[style], zorder=1))


def _draw_sites(ax: "Axes", lattice: "Lattice", field: np.ndarray) -> None:
    shown, paper = _shown(lattice), _paper(lattice)
    faces = np.where(field > 0, _GREEN, np.where(field < 0, _PINK, "white"))[shown]
    ax.scatter(*paper[shown].T, s=130, c=faces, edgecolors="black", linewidths=1.0, zorder=2)
    for i in np.flatnonzero(shown):
        ax.text(*paper[i], str(i), ha="center", va="center_baseline", fontsize=6.5)


def _name(lattice: "Lattice") -> str:
    """Such as "square 4 x 4, 16 sites"."""
    size = " x ".join(map(str, lattice.size))
    partial = "" if _shown(lattice).all() else f" ({_shown(lattice).sum()} drawn)"
    return f"{lattice.kind.replace('_', ' ')} {size}, {lattice.n_sites} sites{partial}"


def _span(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g} to {high:.3g}"


def _legend(ax: "Axes", columns: int) -> None:
    """Below the drawing, which it must not hide."""
    if texts := ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(columns, len(texts)), frameon=False, fontsize=8)

"""Drawings show every bond and every coupling once, by colour and width, and leave out only what they say they do."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from thermodbm import graph, heisenberg, make_lattice, transverse_field_ising
from thermodbm.drawing import _worldlines, draw_hamiltonian, draw_lattice, draw_network
from thermodbm.network.exchange import exchange_network
from thermodbm.network.trotter import infinite_temperature, trotter_network

matplotlib.use("agg")

BLUE, RED = "#0072b2", "#d55e00"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def bonds(ax):
    """Lengths of the whole bonds and of the dashed halves."""
    whole, *halves = (c for c in ax.collections if isinstance(c, LineCollection))
    length = lambda part: [float(np.linalg.norm(s[1] - s[0])) for s in part.get_segments()]  # noqa: E731
    return length(whole), [x for half in halves for x in length(half)]


def n_sites(ax):
    return next(len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection))


@pytest.mark.parametrize("kind, extent, n_crossing", [("chain", 6, 1), ("square", (3, 4), 7), ("triangular", (3, 4), 13)])
def test_bonds_inside_are_whole_and_those_across_the_boundary_two_halves(kind, extent, n_crossing):
    lattice = make_lattice(kind, extent)
    whole, halves = bonds(draw_lattice(lattice))
    assert len(whole) == len(lattice.bonds()) - n_crossing and len(halves) == 2 * n_crossing
    np.testing.assert_allclose(whole, 1.0)
    np.testing.assert_allclose(halves, 0.5)


def test_open_lattice_has_no_halves_and_large_ones_are_cut():
    assert bonds(draw_lattice(make_lattice("square", (3, 3), periodic=False)))[1] == []
    large = draw_lattice(make_lattice("square", (40, 40)))
    assert n_sites(large) == 100 and "100 drawn" in large.get_title()
    assert len(bonds(large)[0]) == 180 and len(bonds(large)[1]) == 40  # one half of each bond that leaves


def test_couplings_by_colour_and_width():
    lattice = graph(4, [(0, 1), (1, 2), (2, 3), (3, 0)])
    ax = draw_hamiltonian(transverse_field_ising(lattice, J=[1.0, -2.0, 0.5, -0.25], h=[0.1, 0, 0, -0.1]))
    lines = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert [to_hex(c) for c in lines.get_colors()] == [BLUE, RED, BLUE, RED]
    np.testing.assert_array_equal(np.argsort(lines.get_linewidths()), [3, 2, 0, 1])
    sites = next(c for c in ax.collections if isinstance(c, PathCollection))
    plus, none, _, minus = (to_hex(c) for c in sites.get_facecolors())
    assert len({plus, none, minus}) == 3 and none == "#ffffff"
    assert [t.get_text() for t in ax.get_legend().get_texts()][:2] == [
        "ferromagnetic, |J| = 0.5 to 1",
        "antiferromagnetic, |J| = 0.25 to 2",
    ]


def test_heisenberg_couplings_are_named_in_units_of_the_model():
    ax = draw_hamiltonian(heisenberg(make_lattice("chain", 4), J=1.5, h=0.3))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["antiferromagnetic, |J| = 1.5", "field along z, |h| = 0.3"]


def test_worldlines_of_an_ising_network():
    params = trotter_network(transverse_field_ising(make_lattice("chain", 3)), 1.0, 3)
    column, row = _worldlines(3, np.hstack([params.W, params.W_deep]))
    np.testing.assert_array_equal(column, [4, 4, 4, 0, 0, 0, *np.repeat([1, 2, 3], 3)])
    np.testing.assert_array_equal(row, [0, 1, 2] * 5)


def test_worldlines_of_an_exchange_network_stay_on_their_sites():
    params = exchange_network(heisenberg(make_lattice("chain", 4)), 1.0, 2)
    weights = np.hstack([params.W, params.W_deep])
    column, row = _worldlines(4, weights)
    for couplings in weights:
        units = np.flatnonzero(couplings)
        if len(units) == 4:  # the constraint of a gate: two sites, each with an old and a new end
            rows, counts = np.unique(row[units], return_counts=True)
            assert len(rows) == 2 and (counts == 2).all()
            assert all(np.ptp(column[units[row[units] == r]]) > 0 for r in rows)


@pytest.mark.parametrize("J", [1.0, -1.0])
def test_every_coupling_is_a_line_in_the_colour_of_its_sign(J):
    params = trotter_network(transverse_field_ising(make_lattice("chain", 3, periodic=False), J=J), 1.0, 1)
    ax = draw_network(params)
    lines = [line for line in ax.lines if len(line.get_xdata())]
    weights = np.hstack([params.W, params.W_deep])
    assert len(lines) == np.count_nonzero(weights.real) + np.count_nonzero(weights.imag)
    assert sum(line.get_linestyle() == "--" for line in lines) == np.count_nonzero(weights.imag)
    assert sum(to_hex(line.get_color()) == RED for line in lines) == np.count_nonzero(weights.real < 0)
    hidden = next(c for c in ax.collections if c.get_label() == "hidden units")
    assert len(hidden.get_offsets()) == len(params.b)


def test_a_large_network_is_cut_and_says_so():
    hamiltonian = transverse_field_ising(make_lattice("chain", 8))
    ax = draw_network(trotter_network(hamiltonian, 4.0, 20))
    assert "160 deep" in ax.get_title()
    units = {c.get_label(): len(c.get_offsets()) for c in ax.collections}
    assert units["spins"] == units["ancillas"] == 6 and units["deep units"] == 30
    assert "… 2 more spins" in {text.get_text() for text in ax.texts}


def test_notebooks_show_lattice_hamiltonian_and_network():
    lattice = make_lattice("honeycomb", (2, 2))
    for shown in (lattice, transverse_field_ising(lattice), infinite_temperature(2)):
        assert "<svg" in shown._repr_svg_()
    assert not pyplot.get_fignums()

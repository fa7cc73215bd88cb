from itertools import combinations, product

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from thermodbm.errors import InputError
from thermodbm.models import graph, make_lattice
from thermodbm.models.lattice import bond_coloring, site_coloring, two_coloring

ROOT3 = np.sqrt(3)
# kind -> primitive vectors, written down again; neighbours of a site and their distance for the first two shells
VECTORS = {
    "chain": [[1]],
    "square": [[1, 0], [0, 1]],
    "triangular": [[1, 0], [0.5, ROOT3 / 2]],
    "honeycomb": [[1.5, ROOT3 / 2], [1.5, -ROOT3 / 2]],
    "kagome": [[2, 0], [1, ROOT3]],
    "cubic": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "ladder": [[1, 0], [0, 1]],
    "dimer_chain": [[2]],
}
SHELLS = {
    "chain": [(2, 1), (2, 2)],
    "square": [(4, 1), (4, np.sqrt(2))],
    "triangular": [(6, 1), (6, ROOT3)],
    "honeycomb": [(3, 1), (6, ROOT3)],
    "kagome": [(4, 1), (4, ROOT3)],
    "cubic": [(6, 1), (12, np.sqrt(2))],
    "ladder": [(3, 1), (2, np.sqrt(2))],
    "dimer_chain": [(2, 1), (2, 2)],
}
SMALL = [  # every kind with extents so small that images meet, open and mixed boundaries
    ("chain", 2, True),
    ("chain", 3, True),
    ("chain", 5, False),
    ("square", (2, 2), True),
    ("square", (2, 4), True),
    ("square", (3, 4), (True, False)),
    ("square", (1, 5), True),
    ("triangular", (2, 3), True),
    ("triangular", (3, 3), False),
    ("honeycomb", (1, 2), True),
    ("honeycomb", (3, 2), (False, True)),
    ("kagome", (1, 1), True),
    ("kagome", (2, 2), True),
    ("kagome", (2, 3), False),
    ("cubic", (2, 2, 3), True),
    ("cubic", (2, 3, 2), False),
    ("ladder", 1, True),
    ("ladder", 2, True),
    ("ladder", 5, False),
    ("dimer_chain", 1, True),
    ("dimer_chain", 4, False),
]
LARGE = [(kind, (6,) * len(vectors), True) for kind, vectors in VECTORS.items() if kind not in ("cubic", "ladder")]
LARGE += [("cubic", (5, 5, 5), True), ("ladder", 6, True)]


def shortest_images(lattice):
    """Distance of every pair through the shortest image, from positions alone."""
    vectors = np.array(VECTORS[lattice.kind], float)
    reach = [range(-2, 3) if p else (0,) for p in lattice.periodic]
    images = np.array(list(product(*reach))) @ (np.array(lattice.extent)[:, None] * vectors)
    apart = lattice.positions[:, None] - lattice.positions
    return np.min(np.linalg.norm(apart[:, :, None] + images, axis=-1), axis=-1)


@pytest.mark.parametrize("spec", SMALL + LARGE, ids=str)
def test_bonds_join_the_pairs_at_the_distance_of_their_shell_once(spec):
    lattice = make_lattice(*spec)
    distance = shortest_images(lattice)
    for shell, (_, length) in enumerate(SHELLS[lattice.kind], start=1):
        expected = [(i, j) for i, j in combinations(range(lattice.n_sites), 2) if abs(distance[i, j] - length) < 1e-9]
        assert list(map(tuple, lattice.bonds(shell).tolist())) == expected


@pytest.mark.parametrize("spec", LARGE, ids=str)
def test_coordination_numbers(spec):
    lattice = make_lattice(*spec)
    for shell, (neighbors, _) in enumerate(SHELLS[lattice.kind], start=1):
        counts = np.bincount(lattice.bonds(shell).ravel(), minlength=lattice.n_sites)
        assert (counts == neighbors).all()


@pytest.mark.parametrize("spec", SMALL + LARGE, ids=str)
def test_distances_are_those_of_the_shortest_image(spec):
    lattice = make_lattice(*spec)
    np.testing.assert_allclose(lattice.distances, shortest_images(lattice)[0], atol=1e-12)


@pytest.mark.parametrize("spec", SMALL + LARGE, ids=str)
def test_translations_are_a_group_that_keeps_bonds(spec):
    lattice = make_lattice(*spec)
    translations = lattice.translations
    periodic_cells = np.prod([n for n, p in zip(lattice.extent, lattice.periodic, strict=True) if p])
    assert translations.shape == (periodic_cells, lattice.n_sites)
    np.testing.assert_array_equal(translations[0], np.arange(lattice.n_sites))
    elements = set(map(tuple, translations.tolist()))
    assert len(elements) == len(translations)
    bonds = set(map(tuple, lattice.bonds().tolist()))
    for t in translations:
        assert set(map(tuple, np.sort(t[lattice.bonds()], axis=1).tolist())) == bonds
        assert tuple(t[translations[-1]].tolist()) in elements


@pytest.mark.parametrize("spec", SMALL + LARGE, ids=str)
def test_colourings_are_proper(spec):
    lattice = make_lattice(*spec)
    bonds = lattice.bonds()
    sites, groups = site_coloring(lattice.n_sites, bonds), bond_coloring(bonds)
    np.testing.assert_array_equal(np.sort(np.concatenate(sites)), np.arange(lattice.n_sites))
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(bonds)))
    color = np.empty(lattice.n_sites, int)
    for c, members in enumerate(sites):
        color[members] = c
    assert (color[bonds[:, 0]] != color[bonds[:, 1]]).all()
    for group in groups:
        assert len(np.unique(bonds[group])) == 2 * len(group)
    signs = two_coloring(lattice.n_sites, bonds)
    if signs is None:
        assert len(sites) > 2
    else:
        assert len(sites) == 2 and (signs[bonds].prod(1) == -1).all()


@pytest.mark.parametrize(
    ("spec", "n_sites_colors", "n_bond_colors"),
    [
        (("chain", 8), 2, 2),
        (("chain", 7), 3, 3),
        (("square", (4, 4)), 2, 4),
        (("honeycomb", (4, 4)), 2, 3),
        (("cubic", (4, 4, 4)), 2, 6),
        (("chain", 7, False), 2, 2),
    ],
    ids=str,
)
def test_colourings_are_minimal_on_even_lattices(spec, n_sites_colors, n_bond_colors):
    lattice = make_lattice(*spec)
    assert len(site_coloring(lattice.n_sites, lattice.bonds())) == n_sites_colors
    assert len(bond_coloring(lattice.bonds())) == n_bond_colors


@pytest.mark.parametrize("spec", [s for s in SMALL + LARGE if s[2] is True and 1 not in np.ravel(s[1])], ids=str)
def test_wavevectors_are_those_of_the_torus(spec):
    lattice = make_lattice(*spec)
    k, vectors = lattice.wavevectors, np.array(VECTORS[lattice.kind], float)
    assert k.shape == (len(lattice.cells), vectors.shape[1])
    around = np.array(lattice.extent)[:, None] * vectors
    np.testing.assert_allclose(np.exp(1j * k @ around.T), 1, atol=1e-9)
    waves = np.exp(1j * (lattice.cells @ vectors) @ k.T)
    np.testing.assert_allclose(waves.conj().T @ waves, len(k) * np.eye(len(k)), atol=1e-8)
    signal = np.random.default_rng(0).normal(size=lattice.extent)
    np.testing.assert_allclose(waves.conj().T @ signal.ravel(), np.fft.fftn(signal).ravel(), atol=1e-8)


def test_open_lattices_have_no_wavevectors():
    assert make_lattice("square", (3, 3), (True, False)).wavevectors is None
    assert graph(3, [(0, 1)]).wavevectors is None


def test_graph_keeps_its_edges_in_order():
    lattice = graph(5, [(3, 1), (0, 3)])
    assert lattice.bonds().tolist() == [[3, 1], [0, 3]]
    assert lattice.distances.tolist() == [0, 2, np.inf, 1, np.inf]
    with pytest.raises(InputError, match="further-neighbour"):
        lattice.bonds(2)


def test_a_graph_of_networkx_is_taken_as_it_is():
    assert graph(4, nx.cycle_graph(4)) == graph(4, [(0, 1), (0, 3), (1, 2), (2, 3)])
    assert graph(3, nx.MultiGraph([(0, 1)])).bonds().tolist() == [[0, 1]]
    assert graph(3, np.array([[0, 1], [1, 2]])).n_sites == 3


@pytest.mark.parametrize("kind", ["chain", "square", "triangular", "cubic"])
def test_one_site_alone(kind):
    lattice = make_lattice(kind, (1,) * len(VECTORS[kind]))
    assert lattice.n_sites == 1 and lattice.bonds().shape == (0, 2) and lattice.translations.tolist() == [[0]]
    assert lattice.distances.tolist() == [0] and not lattice.wavevectors.any()


def test_lattice_is_static_under_jit():
    traced = []

    @jax.jit
    def total(lattice, x):
        traced.append(lattice)
        return jnp.sum(x) * lattice.n_sites

    for _ in range(2):
        assert total(make_lattice("chain", 4), jnp.ones(3)) == 12
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: make_lattice("hexagonal", (3, 3)), "lattice.kind"),
        (lambda: make_lattice("graph", 3), "lattice.kind"),
        (lambda: make_lattice("square", (3,)), "lattice.extent"),
        (lambda: make_lattice("square", (3, 0)), "lattice.extent"),
        (lambda: make_lattice("chain", -4), "lattice.extent"),
        (lambda: make_lattice("chain", 2.5), "lattice.extent"),
        (lambda: make_lattice("chain", 0), "lattice.extent"),
        (lambda: make_lattice("square", (3, 3), (True,)), "lattice.periodic"),
        (lambda: graph(0, []), "lattice.n_sites"),
        (lambda: graph(3, [(0, 3)]), r"lattice.edges\[0\]"),
        (lambda: graph(3, [(0, 1), (2, -1)]), r"lattice.edges\[1\]"),
        (lambda: graph(3, [(1, 1)]), r"lattice.edges\[0\]"),
        (lambda: graph(3, [(0, 1), (1, 0)]), r"lattice.edges\[1\]"),
        (lambda: graph(3, [(0, 1, 2)]), r"lattice.edges\[0\]"),
        (lambda: graph(3, [(0, 1), (1, 2.5)]), r"lattice.edges\[1\]: expected two site numbers, integers"),
        (lambda: graph(3, [(0, "1")]), r"lattice.edges\[0\]"),
        (lambda: graph(3, [0, 1]), r"lattice.edges\[0\]"),
        (lambda: graph(3, 5), "lattice.edges"),
        (lambda: graph(2.5, []), "lattice.n_sites"),
        (lambda: graph(2, nx.path_graph(["a", "b"])), "convert_node_labels_to_integers"),
        (lambda: graph(2, nx.path_graph(3)), "sites from 0 to 1"),
    ],
)
def test_impossible_lattices_are_refused(call, where):
    with pytest.raises(InputError, match=where):
        call()

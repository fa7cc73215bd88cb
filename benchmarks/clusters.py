"""Frustrated clusters that several scripts use, by name."""

from collections.abc import Callable
from typing import NamedTuple

import networkx as nx

from thermodbm import SpinHamiltonian, graph, heisenberg, j1j2, make_lattice


class Cluster(NamedTuple):
    """A Heisenberg magnet, J = 1, and what is known of it."""

    words: str
    make: Callable[[], SpinHamiltonian]
    ground_state: float | None = None  # energy per site, from the literature


def _square(extent: tuple[int, int], ratio: float) -> Callable[[], SpinHamiltonian]:
    return lambda: j1j2(make_lattice("square", extent), 1.0, ratio)


def _uniform(kind: str, extent: tuple[int, int]) -> Callable[[], SpinHamiltonian]:
    return lambda: heisenberg(make_lattice(kind, extent))


def _ring(n: int) -> Callable[[], SpinHamiltonian]:
    return lambda: j1j2(make_lattice("chain", n), 1.0, 0.5)


def _tilted() -> SpinHamiltonian:
    """The square lattice of ten sites, periodic under (3, 1) and (-1, 3), with first and second neighbours."""
    couplings = nx.Graph()
    for site in range(10):  # x + 7 y modulo 10: (3, 1) and (-1, 3) come to multiples of ten
        for (dx, dy), J in {(1, 0): 1.0, (0, 1): 1.0, (1, 1): 0.5, (1, -1): 0.5}.items():
            couplings.add_edge(site, (site + dx + 7 * dy) % 10, J=J)
    edges = sorted(tuple(sorted(edge)) for edge in couplings.edges)
    return heisenberg(graph(10, edges), J=[couplings.edges[edge]["J"] for edge in edges])


CLUSTERS = {
    "j1j2_tilted10_0.5": Cluster("J1-J2 tilted torus of ten sites, J2 = .5", _tilted),
    "j1j2_chain12_0.5": Cluster("J1-J2 ring of 12, J2 = .5", _ring(12), -0.375),
    "j1j2_chain16_0.5": Cluster("J1-J2 ring of 16, J2 = .5", _ring(16), -0.375),
    "j1j2_4x4_0.4": Cluster("J1-J2 4x4 torus, J2 = .4", _square((4, 4), 0.4)),
    "j1j2_4x4_0.5": Cluster("J1-J2 4x4 torus, J2 = .5", _square((4, 4), 0.5), -0.5286202),
    "j1j2_4x4_0.6": Cluster("J1-J2 4x4 torus, J2 = .6", _square((4, 4), 0.6)),
    "j1j2_4x5_0.5": Cluster("J1-J2 4x5 torus, J2 = .5", _square((4, 5), 0.5)),
    "j1j2_4x6_0.5": Cluster("J1-J2 4x6 torus, J2 = .5", _square((4, 6), 0.5)),
    "j1j2_6x6_0.5": Cluster("J1-J2 6x6 torus, J2 = .5", _square((6, 6), 0.5), -0.5038097),
    "triangular_3x4": Cluster("triangular, 12 sites (3x4)", _uniform("triangular", (3, 4))),
    "triangular_4x4": Cluster("triangular, 16 sites (4x4)", _uniform("triangular", (4, 4)), -0.5347197),
    "triangular_4x6": Cluster("triangular, 24 sites (4x6)", _uniform("triangular", (4, 6))),
    "kagome_12": Cluster("kagome, 12 sites (2x2 cells)", _uniform("kagome", (2, 2))),
    "kagome_18": Cluster("kagome, 18 sites (3x2 cells)", _uniform("kagome", (3, 2)), -0.4471262),
    "kagome_24": Cluster("kagome, 24 sites (4x2 cells)", _uniform("kagome", (4, 2))),
}

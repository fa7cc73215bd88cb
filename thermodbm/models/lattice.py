"""Lattices: sites, bonds by neighbour shell, colourings, translations and distances."""

import operator
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product

import jax
import networkx as nx
import numpy as np

from thermodbm.errors import InputError

_HALF_ROOT3 = np.sqrt(3) / 2

# kind -> (primitive vectors as rows, positions of the basis sites)
_GEOMETRY = {
    "chain": ([[1.0]], [[0.0]]),
    "square": ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0]]),
    "triangular": ([[1.0, 0.0], [0.5, _HALF_ROOT3]], [[0.0, 0.0]]),
    "honeycomb": ([[1.5, _HALF_ROOT3], [1.5, -_HALF_ROOT3]], [[0.0, 0.0], [1.0, 0.0]]),
    "kagome": ([[2.0, 0.0], [1.0, 2 * _HALF_ROOT3]], [[0.0, 0.0], [1.0, 0.0], [0.5, _HALF_ROOT3]]),
    "cubic": ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]),
    "ladder": ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0]]),
    "dimer_chain": ([[2.0]], [[0.0], [1.0]]),
}

KINDS = (*_GEOMETRY, "graph")

_HEXAGONAL = {"a": [1.0, 0.0], "b": [0.5, _HALF_ROOT3], "c": [-0.5, _HALF_ROOT3]}
# kind -> name of a group of nearest-neighbour bonds -> its direction; those of a dimer chain are told by the cell
_DIRECTIONS = {
    "chain": {"leg": [1.0]},
    "ladder": {"leg": [1.0, 0.0], "rung": [0.0, 1.0]},
    "square": {"x": [1.0, 0.0], "y": [0.0, 1.0]},
    "triangular": _HEXAGONAL,
    "honeycomb": _HEXAGONAL,
    "kagome": _HEXAGONAL,
    "cubic": {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0]},
    "dimer_chain": {"intra": [1.0], "inter": [1.0]},
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lattice:
    """A finite lattice or graph. Make one with `make_lattice` or `graph`.

    Frozen and hashable, with no array leaves: a `Lattice` is static under `jax.jit`. Sites are numbered cell by cell
    (the last axis fastest), the sites of a cell together. A pair of sites belongs to the shell of its shortest image and is counted
    once, so that a periodic axis of extent 2 has single, not double, bonds.
    """

    kind: str = field(metadata={"static": True})
    extent: tuple[int, ...] = field(metadata={"static": True})  # unit cells along each axis; (n_sites,) for a graph, (rungs, 2) of a ladder
    periodic: tuple[bool, ...] = field(metadata={"static": True})
    edges: tuple[tuple[int, int], ...] = field(default=(), metadata={"static": True})  # of a graph only
    edge_groups: tuple[str, ...] = field(default=(), metadata={"static": True})  # of a graph: the group of each edge, or ()

    @property
    def size(self) -> tuple[int, ...]:
        """The extent as `make_lattice` takes it: without the two legs of a ladder, between which translations exchange."""
        return self.extent[:1] if self.kind == "ladder" else self.extent

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of nearest-neighbour bonds: directions of a lattice, what the edges of a graph are called."""
        return tuple(dict.fromkeys(self.edge_groups)) if self.kind == "graph" else tuple(_DIRECTIONS[self.kind])

    @cached_property
    def bond_groups(self) -> np.ndarray:
        """Number in `groups` of the group of every bond of the first shell, (n_bonds,).

        Where several shortest images join a pair, as on tori of a single cell, the first of their directions counts.
        """
        if self.kind == "graph":
            return np.array([self.groups.index(name) for name in self.edge_groups], int)
        i, j = self.bonds().T
        if self.kind == "dimer_chain":
            return (i // 2 != j // 2).astype(int)
        vectors, _ = self._geometry
        images = np.array(list(product(*((0, -n, n) if p else (0,) for n, p in zip(self.extent, self.periodic, strict=True))))) @ vectors
        away = (self.positions[j] - self.positions[i])[:, None] + images
        shortest = np.argmin(np.round(np.linalg.norm(away, axis=-1), 6), axis=1)
        along = np.take_along_axis(away, shortest[:, None, None], 1)[:, 0] @ np.array(list(_DIRECTIONS[self.kind].values())).T
        return np.argmax(np.round(np.abs(along), 6), axis=1)

    @cached_property
    def _geometry(self) -> tuple[np.ndarray, np.ndarray]:
        vectors, basis = _GEOMETRY[self.kind]
        return np.array(vectors), np.array(basis)

    @cached_property
    def n_basis(self) -> int:
        """Sites in a unit cell."""
        return 1 if self.kind == "graph" else len(self._geometry[1])

    @cached_property
    def n_sites(self) -> int:
        """Number of sites N."""
        return int(np.prod(self.extent)) * self.n_basis

    @cached_property
    def cells(self) -> np.ndarray:
        """Integer coordinates of every unit cell, (n_cells, n_axes), the last axis fastest."""
        return np.stack(np.meshgrid(*map(np.arange, self.extent), indexing="ij"), -1).reshape(-1, len(self.extent))

    @cached_property
    def positions(self) -> np.ndarray:
        """Cartesian site positions in units of the nearest-neighbour distance, (n_sites, dim); a graph is laid on a circle."""
        if self.kind == "graph":
            angle = 2 * np.pi * np.arange(self.n_sites) / self.n_sites
            return np.stack([np.cos(angle), np.sin(angle)], -1)
        vectors, basis = self._geometry
        return ((self.cells @ vectors)[:, None] + basis).reshape(self.n_sites, -1)

    def site(self, cells: np.ndarray, basis: np.ndarray | int = 0) -> np.ndarray:
        """Site numbers of basis sites in cells of integer coordinates (..., n_axes), wrapped where periodic, -1 outside."""
        extent, periodic = np.array(self.extent), np.array(self.periodic)
        wrapped = np.where(periodic, cells % extent, cells)
        inside = ((wrapped >= 0) & (wrapped < extent)).all(-1)
        index = np.zeros(wrapped.shape[:-1], int)
        for axis, length in enumerate(self.extent):
            index = index * length + wrapped[..., axis]
        return np.where(inside, index * self.n_basis + basis, -1)

    @lru_cache(maxsize=64)  # noqa: B019  (frozen and hashable)
    def bonds(self, shell: int = 1) -> np.ndarray:
        """Pairs of sites that are `shell`-th neighbours, (n_bonds, 2) with the lower site first, each pair once.

        Raises:
            InputError: for a graph, which has no shells beyond its own edges.
        """
        if self.kind == "graph":
            if shell != 1:
                raise InputError("lattice.kind", expected="a lattice with further-neighbour shells", found="a graph")
            return np.array(self.edges, int).reshape(-1, 2)
        vectors, basis = self._geometry
        reach = range(-shell - 1, shell + 2)
        offsets = [  # (length, cell offset, from basis, to basis)
            (round(float(np.linalg.norm(np.array(r) @ vectors + basis[b] - basis[a])), 6), r, a, b)
            for r in product(reach, repeat=len(self.extent))
            for a in range(self.n_basis)
            for b in range(self.n_basis)
        ]
        lengths = sorted({o[0] for o in offsets} - {0.0})[:shell]
        seen: set[tuple[int, int]] = set()
        for length in lengths:
            found: dict[tuple[int, int], None] = {}
            for offset in (o for o in offsets if o[0] == length):
                ends = self.site(self.cells + np.array(offset[1]), offset[3])
                starts = self.site(self.cells, offset[2])
                for i, j in zip(starts.tolist(), ends.tolist(), strict=True):
                    if j >= 0 and i != j and (pair := (min(i, j), max(i, j))) not in seen:
                        found[pair] = None
            seen.update(found)
        return np.array(sorted(found), int).reshape(-1, 2)

    @cached_property
    def translations(self) -> np.ndarray:
        """Site permutations that shift along the periodic axes, (n_translations, n_sites); row 0 is the identity."""
        if self.kind == "graph":
            return np.arange(self.n_sites)[None]
        shifts = product(*(range(n) if p else (0,) for n, p in zip(self.extent, self.periodic, strict=True)))
        basis = np.arange(self.n_basis)
        return np.stack([self.site((self.cells + np.array(s))[:, None], basis).reshape(-1) for s in shifts])

    @cached_property
    def distances(self) -> np.ndarray:
        """Distance of every site from site 0 through the shortest image, (n_sites,); steps along edges for a graph."""
        if self.kind == "graph":
            steps = nx.single_source_shortest_path_length(nx.from_edgelist(self.edges), 0) if self.edges else {0: 0}
            return np.array([steps.get(i, np.inf) for i in range(self.n_sites)], float)
        vectors, _ = self._geometry
        away = self.positions - self.positions[0]
        images = product(*((-n, 0, n) if p else (0,) for n, p in zip(self.extent, self.periodic, strict=True)))
        return np.min([np.linalg.norm(away + np.array(m) @ vectors, axis=-1) for m in images], axis=0)

    @cached_property
    def wavevectors(self) -> np.ndarray | None:
        """Crystal momenta of a fully periodic lattice, (n_cells, dim), in the order of an FFT over cells; None otherwise."""
        if self.kind == "graph" or not all(self.periodic):
            return None
        vectors, _ = self._geometry
        fractions = self.cells / np.array(self.extent)
        return 2 * np.pi * fractions @ np.linalg.inv(vectors).T

    def _repr_svg_(self) -> str:
        from thermodbm.drawing import draw_lattice, svg

        return svg(draw_lattice(self))


def make_lattice(kind: str, extent: int | tuple[int, ...], periodic: bool | tuple[bool, ...] = True) -> Lattice:
    """A chain, dimer chain, ladder, square, triangular, honeycomb, kagome or cubic lattice.

    Groups of bonds, by which couplings may be given: chain leg; dimer_chain intra (in a cell of two sites) and inter (between cells);
    ladder leg and rung; square x and y; cubic x, y and z; triangular, honeycomb and kagome a, b and c, at 0, 60 and 120 degrees to x.

    Args:
        kind: one of `KINDS` other than "graph".
        extent: unit cells along each axis; rungs of a ladder, which has two legs.
        periodic: one flag, or one per axis.

    Raises:
        InputError: for an unknown kind, or an extent that does not fit the dimension.

    >>> make_lattice("kagome", (2, 3)).n_sites
    18
    """
    if kind not in _GEOMETRY:
        raise InputError("lattice.kind", expected="one of " + ", ".join(KINDS), found=kind)
    n_axes = 1 if kind == "ladder" else len(_GEOMETRY[kind][0])
    extent = (extent,) if np.ndim(extent) == 0 else tuple(extent)
    if len(extent) != n_axes or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in extent):
        raise InputError("lattice.extent", expected=f"{n_axes} positive integers for a {kind} lattice", found=list(extent))
    flags = (periodic,) * n_axes if isinstance(periodic, bool) else tuple(periodic)
    if len(flags) != n_axes:
        raise InputError("lattice.periodic", expected=f"one flag or {n_axes} flags", found=list(flags))
    if kind == "ladder":  # a square lattice of extent 2 across, where pairs are joined once: the exchange of the legs is a translation
        extent, flags = (*extent, 2), (*flags, True)
    for axis, (length, flag) in enumerate(zip(extent, flags, strict=True)):
        if flag and length == 1 and int(np.prod(extent)) > 1:
            flags = tuple(f and a != axis for a, f in enumerate(flags))  # one cell has no neighbour across the boundary
    return Lattice(kind, tuple(int(n) for n in extent), tuple(bool(f) for f in flags))


def graph(n_sites: int, edges: Iterable[tuple[int, int] | tuple[int, int, str]] | nx.Graph) -> Lattice:
    """A set of sites joined by the given edges.

    Args:
        edges: pairs of sites from 0 to n_sites - 1, or (site, site, name of a group) each; or a graph of networkx whose nodes are these
            numbers, with groups in the attribute `group` of its edges.

    Raises:
        InputError: for an edge to a site that does not exist, to itself, or given twice, for sites that are no integers, and for groups
            that only some edges have.

    >>> graph(3, [(0, 1), (2, 1)]).bonds().tolist()
    [[0, 1], [2, 1]]
    >>> graph(3, [(0, 1, "short"), (2, 1, "long")]).groups
    ('short', 'long')
    >>> graph(4, nx.cycle_graph(4)).bonds().tolist()
    [[0, 1], [0, 3], [1, 2], [2, 3]]
    """
    n_sites = _integer(n_sites, "lattice.n_sites", "a positive integer")
    if n_sites < 1:
        raise InputError("lattice.n_sites", expected="a positive integer", found=n_sites)
    hint = ""
    if isinstance(edges, nx.Graph):
        hint = "networkx.convert_node_labels_to_integers numbers the nodes of a graph."
        edges = [(i, j) if group is None else (i, j, group) for i, j, group in edges.edges(data="group")]
    if not isinstance(edges, Iterable) or isinstance(edges, str | bytes):
        raise InputError("lattice.edges", expected="a list of pairs of sites", found=edges)
    seen: dict[tuple[int, int], int] = {}
    groups: list[str] = []
    for number, edge in enumerate(edges):
        where = f"lattice.edges[{number}]"
        if not isinstance(edge, Iterable) or len(edge := list(edge)) not in (2, 3):
            raise InputError(where, expected="two site numbers, and perhaps the name of a group", found=edge)
        edge, groups = edge[:2], [*groups, *(_group(name, where) for name in edge[2:])]
        if len(groups) not in (0, number + 1):
            raise InputError(where, expected="the name of a group on all edges or on none", found="some with and some without")
        i, j = (_integer(s, where, "two site numbers, integers", found=edge, hint=hint) for s in edge)
        if not (0 <= i < n_sites and 0 <= j < n_sites):
            raise InputError(where, expected=f"sites from 0 to {n_sites - 1}", found=[i, j], hint=hint)
        if i == j:
            raise InputError(where, expected="two different sites", found=[i, j])
        if {(i, j), (j, i)} & seen.keys():
            first = seen.get((i, j), seen.get((j, i)))
            raise InputError(where, expected="each pair once", found=f"{[i, j]} again, first given as edge {first}")
        seen[i, j] = number
    return Lattice("graph", (n_sites,), (False,), tuple(seen), tuple(groups))


def _group(name: object, where: str) -> str:
    if isinstance(name, str) and name != "each" and re.fullmatch(r"[\w'-]+", name):
        return name
    raise InputError(where, expected="two site numbers and the name of a group, of letters, digits, - and _", found=name)


def _integer(value: object, where: str, expected: str, found: object = None, hint: str = "") -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(where, expected=expected, found=value if found is None else found, hint=hint) from None


def site_coloring(n_sites: int, bonds: np.ndarray) -> list[np.ndarray]:
    """Classes of sites no two of which share a bond: their conditional distributions factorise.

    Greedy colouring along breadth-first order, which needs two colours on every bipartite graph.
    """
    g = nx.Graph()
    g.add_nodes_from(range(n_sites))
    g.add_edges_from(np.asarray(bonds).tolist())
    color = nx.greedy_color(g, "connected_sequential_bfs")
    colors = np.array([color[i] for i in range(n_sites)])
    return [np.flatnonzero(colors == c) for c in range(colors.max() + 1)]


def bond_coloring(bonds: np.ndarray) -> list[np.ndarray]:
    """Groups of bond numbers no two of which share a site: their gates commute.

    First fit, walking along each path of bonds so that even rings need two groups; at most 2 * (coordination) - 1 groups.
    """
    bonds = np.asarray(bonds)
    touching: dict[int, list[int]] = {}
    for b, (i, j) in enumerate(bonds.tolist()):
        touching.setdefault(i, []).append(b)
        touching.setdefault(j, []).append(b)
    # bonds along one direction form rings or paths; colouring ring after ring keeps the number of groups minimal on even lattices
    step = np.abs(bonds[:, 1] - bonds[:, 0]) if len(bonds) else np.zeros(0, int)
    color = np.full(len(bonds), -1)
    for b in np.lexsort((bonds[:, 1], bonds[:, 0], step)) if len(bonds) else []:
        queue = deque([int(b)])
        while queue:
            c = queue.popleft()
            if color[c] >= 0:
                continue
            neighbors = [d for s in bonds[c].tolist() for d in touching[s] if d != c]
            used = {int(color[d]) for d in neighbors} - {-1}
            color[c] = next(k for k in range(len(bonds)) if k not in used)
            queue.extend(d for d in neighbors if step[d] == step[c] and color[d] < 0)
    return [np.flatnonzero(color == c) for c in range(color.max() + 1)] if len(bonds) else []


def two_coloring(n_sites: int, bonds: np.ndarray) -> np.ndarray | None:
    """Signs (n_sites,) of +-1 that differ across every bond, or None if the bonds hold an odd ring.

    >>> two_coloring(3, np.array([[0, 1], [1, 2]])).tolist()
    [1, -1, 1]
    """
    g = nx.Graph()
    g.add_nodes_from(range(n_sites))
    g.add_edges_from(np.asarray(bonds).tolist())
    if not nx.is_bipartite(g):
        return None
    signs = np.ones(n_sites, int)
    for component in nx.connected_components(g):
        root = min(component)
        for site, steps in nx.single_source_shortest_path_length(g, root).items():
            signs[site] = -1 if steps % 2 else 1
    return signs

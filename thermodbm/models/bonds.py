"""Magnets on any graph from what others hold: graphs of networkx with couplings on their edges, and tables of bonds."""

import csv
from collections.abc import Mapping
from pathlib import Path

import networkx as nx
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.hamiltonian import Coupling, SpinHamiltonian, heisenberg, transverse_field_ising, xxz
from thermodbm.models.lattice import graph

_MODELS = {"heisenberg": heisenberg, "xxz": xxz, "tfim": transverse_field_ising}


def magnet_from_graph(edges: nx.Graph, model: str = "heisenberg", **couplings: Coupling) -> SpinHamiltonian:
    """A magnet whose bonds are the edges of a graph, J being the attribute J of each edge (1 where there is none).

    With the attribute Jz on edges the model is xxz with delta = Jz/J. Nodes are sites 0 to N - 1, in the order of the graph.

    Args:
        model: "heisenberg", "xxz" or "tfim".
        couplings: further ones, as of the constructors: h, delta, gamma.

    Raises:
        InputError: for another model, and for a bond with Jz and no J.

    >>> ring = nx.cycle_graph(4)
    >>> ring.add_edge(0, 1, J=2.0)
    >>> (4 * magnet_from_graph(ring).zz).tolist()
    [2.0, 1.0, 1.0, 1.0]
    """
    number = {node: k for k, node in enumerate(edges.nodes)}
    bonds = [(number[i], number[j], data) for i, j, data in edges.edges(data=True)]
    exchange = [float(data.get("J", 1.0)) for _, _, data in bonds]
    if any("Jz" in data for _, _, data in bonds):
        model, couplings = "xxz", {**couplings, "delta": [_delta(data, J) for (_, _, data), J in zip(bonds, exchange, strict=True)]}
    if model not in _MODELS:
        raise InputError("model", expected=" | ".join(_MODELS), found=model)
    return _MODELS[model](graph(len(number), [(i, j) for i, j, _ in bonds]), exchange, **couplings)


def magnet_from_csv(path: str | Path, model: str = "heisenberg", **couplings: Coupling) -> SpinHamiltonian:
    """A magnet from a table of bonds: a header naming i, j, J and, if it is an xxz magnet, Jz; sites count from 0.

    Raises:
        InputError: for a file that cannot be read, columns that are missing, and rows that are no bonds, naming the line.
    """
    try:
        rows = list(csv.DictReader(Path(path).read_text().splitlines(), skipinitialspace=True))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), expected="a readable table of bonds", found=str(error)) from None
    edges = nx.Graph()
    ends = [_row(path, line, row) for line, row in enumerate(rows, start=2)]
    edges.add_nodes_from(range(1 + max((max(i, j) for i, j, _ in ends), default=0)))
    for line, (i, j, data) in enumerate(ends, start=2):
        if edges.has_edge(i, j):
            raise InputError(f"{path}, line {line}", expected="each bond once", found=f"{i}, {j} again")
        edges.add_edge(i, j, **data)
    return magnet_from_graph(edges, model, **couplings)


def _row(path: str | Path, line: int, row: Mapping[str, str]) -> tuple[int, int, dict[str, float]]:
    where = f"{path}, line {line}"
    if not {"i", "j", "J"} <= row.keys():
        raise InputError(where, expected="columns i, j, J and perhaps Jz", found=", ".join(map(str, row)))
    try:
        i, j = int(row["i"]), int(row["j"])
        data = {name: float(row[name]) for name in ("J", "Jz") if row.get(name) not in (None, "")}
    except (TypeError, ValueError):
        raise InputError(where, expected="two site numbers and exchange constants", found=dict(row)) from None
    if min(i, j) < 0 or not np.isfinite(list(data.values())).all():
        raise InputError(where, expected="two sites from 0 and finite exchange constants", found=dict(row))
    return i, j, data


def _delta(data: Mapping[str, float], J: float) -> float:
    Jz = float(data.get("Jz", J))
    if J == 0 and Jz != 0:
        raise InputError("Jz", expected="J other than 0 on a bond with Jz", found=dict(data))
    return Jz / J if J else 1.0

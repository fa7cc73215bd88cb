"""Magnets on any graph from what others hold: graphs of networkx with couplings on their edges, tables of bonds, graphs and operators of
NetKet."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.hamiltonian import Coupling, SpinHamiltonian, heisenberg, transverse_field_ising, xxz
from thermodbm.models.lattice import graph

_MODELS = {"heisenberg": heisenberg, "xxz": xxz, "tfim": transverse_field_ising}


def magnet_from_graph(edges: nx.Graph, model: str = "heisenberg", **couplings: Coupling) -> SpinHamiltonian:
    """A magnet whose bonds are the edges of a graph, J being the attribute J of each edge (1 where there is none).

    With the attribute Jz on edges the model is xxz with delta = Jz/J. Nodes are sites 0 to N - 1, in the order of the graph. The
    attribute `group` names the group of a bond.

    Args:
        model: "heisenberg", "xxz" or "tfim".
        couplings: further ones, as of the constructors: h, delta, gamma; J, by groups for instance, where edges have none.

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
    grouped = [(i, j, data["group"]) if "group" in data else (i, j) for i, j, data in bonds]
    if "J" in couplings and not any("J" in data for _, _, data in bonds):
        exchange = couplings.pop("J")
    return _MODELS[model](graph(len(number), grouped), exchange, **couplings)


class Bonds(NamedTuple):
    """A table of bonds."""

    n_sites: int  # up to the last that has a bond
    edges: list[tuple[int, int] | tuple[int, int, str]]  # with groups, where there is such a column
    couplings: dict[str, list[float]]  # J and delta = Jz/J of every bond, where there are such columns


def read_bonds(path: str | Path) -> Bonds:
    """A table of bonds: a header naming i, j and any of J, Jz (beside J) and group; sites count from 0.

    Raises:
        InputError: for a file that cannot be read, columns that are missing, and rows that are no bonds, naming the line.
    """
    try:
        rows = list(csv.DictReader(Path(path).read_text().splitlines(), skipinitialspace=True))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), expected="a readable table of bonds", found=str(error)) from None
    columns = set(rows[0]) - {None} if rows else {"i", "j", "J"}
    alone = not columns & {"J", "group"} or ("Jz" in columns and "J" not in columns)
    if alone or not {"i", "j"} <= columns <= {"i", "j", "J", "Jz", "group"}:
        expected = "columns i, j, J or group, and perhaps Jz beside J"
        raise InputError(f"{path}, line 1", expected=expected, found=", ".join(map(str, rows[0])))
    found = [_row(f"{path}, line {line}", row, columns) for line, row in enumerate(rows, start=2)]
    first: dict[frozenset[int], int] = {}
    for line, (i, j, *_) in enumerate(found, start=2):
        if first.setdefault(frozenset((i, j)), line) != line:
            raise InputError(f"{path}, line {line}", expected="each bond once", found=f"{i}, {j} again")
    edges = [(i, j, group) if "group" in columns else (i, j) for i, j, _, group in found]
    couplings = {"J": [data["J"] for _, _, data, _ in found]} if "J" in columns else {}
    if "Jz" in columns:
        couplings["delta"] = [_delta(data, data["J"]) for _, _, data, _ in found]
    return Bonds(1 + max((max(i, j) for i, j, *_ in found), default=0), edges, couplings)


def magnet_from_csv(path: str | Path, model: str = "heisenberg", **couplings: Coupling) -> SpinHamiltonian:
    """A magnet from a table of bonds: a header naming i, j and any of J, Jz (then it is an xxz magnet) and group, by which couplings may be
    given where there is no J; sites count from 0.

    Raises:
        InputError: as `read_bonds`, and for couplings that are given twice.
    """
    table = read_bonds(path)
    if twice := sorted(set(table.couplings) & set(couplings)):
        raise InputError(twice[0], expected=f"the column of {path} or an argument", found="both")
    model = "xxz" if "delta" in table.couplings else model
    if model not in _MODELS:
        raise InputError("model", expected=" | ".join(_MODELS), found=model)
    return _MODELS[model](graph(table.n_sites, table.edges), **table.couplings, **couplings)


def _row(where: str, row: Mapping[str, str], columns: set[str]) -> tuple[int, int, dict[str, float], str]:
    try:
        i, j = int(row["i"]), int(row["j"])
        data = {"J": 1.0} | {name: float(row[name]) for name in ("J", "Jz") if row.get(name) not in (None, "")}
    except (TypeError, ValueError):
        raise InputError(where, expected="two site numbers and exchange constants", found=dict(row)) from None
    if min(i, j) < 0 or not np.isfinite(list(data.values())).all():
        raise InputError(where, expected="two sites from 0 and finite exchange constants", found=dict(row))
    return i, j, data, (row.get("group") or "").strip()


def _delta(data: Mapping[str, float], J: float) -> float:
    Jz = float(data.get("Jz", J))
    if J == 0 and Jz != 0:
        raise InputError("Jz", expected="J other than 0 on a bond with Jz", found=dict(data))
    return Jz / J if J else 1.0


def magnet_from_netket(source: Any, model: str = "heisenberg", **couplings: Coupling) -> SpinHamiltonian:
    """A magnet from a graph or an operator of NetKet, which need not be installed.

    An operator brings all its couplings: Ising, Heisenberg, or any sum of Pauli strings zz, xx + yy, x and z. NetKet writes H in Pauli
    matrices, also a Heisenberg model: its J = 1 is the J = 4 of spin operators here. With a sign rule the exchange has the other sign.

    Args:
        source: a graph (`n_nodes`, `edges()`), or an operator that has or gives Pauli strings (`operators`, `weights`).
        model, couplings: of a graph, as of the constructors.

    Raises:
        InputError: for another model, and for an operator with other terms, naming one.
    """
    if hasattr(source, "n_nodes"):
        if model not in _MODELS:
            raise InputError("model", expected=" | ".join(_MODELS), found=model)
        return _MODELS[model](graph(int(source.n_nodes), [(int(i), int(j)) for i, j in source.edges()]), **couplings)
    for convert in ("to_local_operator", "to_pauli_strings"):
        source = getattr(source, convert)() if hasattr(source, convert) else source
    if not (hasattr(source, "operators") and hasattr(source, "weights")):
        raise InputError("source", expected="a graph or an operator of NetKet", found=type(source).__name__)
    return _from_pauli_strings([str(x) for x in source.operators], np.asarray(source.weights))


def _from_pauli_strings(strings: list[str], weights: np.ndarray) -> SpinHamiltonian:
    """H = sum of weight times string, such as 0.5 "ZIZ"."""
    n = len(strings[0]) if strings else 0
    bonds: dict[tuple[int, int], dict[str, float]] = {}
    fields = {"X": np.zeros(n), "Z": np.zeros(n)}
    for string, weight in zip(strings, weights, strict=True):
        sites = tuple(k for k, letter in enumerate(string) if letter != "I")
        letters = "".join(string[k] for k in sites)
        if abs(weight) < 1e-12:
            continue
        if letters in ("XX", "YY", "ZZ") and abs(weight.imag) < 1e-12:
            of = bonds.setdefault(sites, {"XX": 0.0, "YY": 0.0, "ZZ": 0.0})
            of[letters] += float(weight.real)
        elif letters in fields and abs(weight.imag) < 1e-12:
            fields[letters][sites[0]] += float(weight.real)
        else:
            raise InputError("operator", expected="terms zz, xx + yy, x and z of spins 1/2", found=f"{weight} {string}")
    lattice = graph(n, list(bonds))
    xx, yy, zz = (np.array([of[name] for of in bonds.values()]) for name in ("XX", "YY", "ZZ"))
    if not np.allclose(xx, yy, atol=1e-12):
        raise InputError("operator", expected="xx and yy with equal weights", found="others")
    if not xx.any():
        return transverse_field_ising(lattice, -zz, -fields["X"], -fields["Z"])
    if fields["X"].any() or not xx.all():
        raise InputError("operator", expected="xx + yy on every bond and no field along x, or none of them", found="both kinds of terms")
    return xxz(lattice, 4 * xx, zz / xx, -2 * fields["Z"])

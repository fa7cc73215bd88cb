"""From a Hamiltonian made in Python to the tables of a config that give it again."""

from typing import Any

import numpy as np

from thermodbm.models import Lattice, SpinHamiltonian
from thermodbm.models.parameters import GROUPED


def describe(hamiltonian: SpinHamiltonian) -> dict[str, dict[str, Any]]:
    """The [lattice] and [model] tables that give this Hamiltonian: the inverse of what `parse_config` builds."""
    lattice = hamiltonian.lattice
    if lattice.kind == "graph":
        named = [(*edge, group) for edge, group in zip(lattice.edges, lattice.edge_groups, strict=False)]
        place: dict[str, Any] = {"kind": "graph", "n_sites": lattice.n_sites, "edges": named or lattice.edges}
    else:
        flags = lattice.periodic[: len(lattice.size)]
        place = {"kind": lattice.kind, "extent": lattice.size, "periodic": flags if len(set(flags)) > 1 else flags[0]}
    zz, xy = np.asarray(hamiltonian.zz, float), np.asarray(hamiltonian.xy, float)
    x_field, z_field = np.asarray(hamiltonian.x_field, float), np.asarray(hamiltonian.z_field, float)
    if hamiltonian.model == "tfim":
        couplings = {"J": -zz, "gamma": x_field, "h": z_field}
    elif hamiltonian.model == "xxz":
        couplings = {"J": 4 * xy, "delta": np.divide(zz, xy, out=np.ones_like(zz), where=xy != 0), "h": 2 * z_field}
    elif hamiltonian.model == "heisenberg":
        couplings = {"J": 4 * zz, "h": 2 * z_field}
    else:
        n_first = len(lattice.bonds(1))
        couplings = {"J1": 4 * zz[:n_first], "J2": 4 * zz[n_first:], "h": 2 * z_field}
    if hamiltonian.along_x:
        couplings["h_x"] = 2 * x_field
    return {"lattice": place, "model": {"kind": hamiltonian.model, **{name: _short(lattice, name, x) for name, x in couplings.items()}}}


def _short(lattice: Lattice, name: str, values: np.ndarray) -> float | dict[str, float] | list[float]:
    """One number where all are alike, one per group of bonds where those of each group are."""
    if len(values) and (values == values[0]).all():
        return float(values[0])
    if name in GROUPED and len(lattice.groups) > 1:
        parts = {group: values[lattice.bond_groups == number] for number, group in enumerate(lattice.groups)}
        if all(len(part) and (part == part[0]).all() for part in parts.values()):
            return {group: float(part[0]) for group, part in parts.items()}
    return values.tolist()

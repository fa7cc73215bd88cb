"""From a Hamiltonian made in Python to the tables of a config that give it again."""

from typing import Any

import numpy as np

from thermodbm.models import SpinHamiltonian


def describe(hamiltonian: SpinHamiltonian) -> dict[str, dict[str, Any]]:
    """The [lattice] and [model] tables that give this Hamiltonian: the inverse of what `parse_config` builds."""
    lattice = hamiltonian.lattice
    if lattice.kind == "graph":
        place: dict[str, Any] = {"kind": "graph", "n_sites": lattice.n_sites, "edges": lattice.edges}
    else:
        periodic = lattice.periodic if len(set(lattice.periodic)) > 1 else lattice.periodic[0]
        place = {"kind": lattice.kind, "extent": lattice.extent, "periodic": periodic}
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
    return {"lattice": place, "model": {"kind": hamiltonian.model, **{name: _uniform(values) for name, values in couplings.items()}}}


def _uniform(values: np.ndarray) -> float | list[float]:
    return float(values[0]) if len(values) and (values == values[0]).all() else values.tolist()

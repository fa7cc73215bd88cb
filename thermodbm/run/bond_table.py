"""A table of bonds that a config names, in place of edges and couplings that would stand in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thermodbm.errors import InputError
from thermodbm.models.bonds import read_bonds


def with_bonds(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tables of a config with `lattice.bonds = "bonds.csv"` replaced by what the file holds: lattice.edges, model.J and model.delta.

    A resolved config, and so a result, needs the file no more.

    Args:
        folder: from which the path counts: that of the config.

    Raises:
        InputError: for a file that is no table of bonds, and for what stands both in it and in the config.
    """
    lattice = data.get("lattice")
    if not isinstance(lattice, Mapping) or "bonds" not in lattice or lattice.get("kind") != "graph":
        return data
    if not isinstance(lattice["bonds"], str):
        raise InputError("lattice.bonds", expected="the path of a CSV file", found=lattice["bonds"])
    if "edges" in lattice:
        raise InputError("lattice", expected="either edges or bonds", found="both")
    table = read_bonds(folder / lattice["bonds"])
    place = {"n_sites": table.n_sites, **{key: value for key, value in lattice.items() if key != "bonds"}, "edges": table.edges}
    model = data.get("model")
    if not isinstance(model, Mapping):
        return {**data, "lattice": place}
    for name in table.couplings:
        if name in model:
            raise InputError(f"model.{name}", expected=f"{name} from {lattice['bonds']} or from the config", found="both")
    if "delta" in table.couplings and model.get("kind") != "xxz":
        raise InputError("model.kind", expected=f"xxz, as {lattice['bonds']} has a column Jz", found=model.get("kind"))
    return {**data, "lattice": place, "model": {**model, **table.couplings}}

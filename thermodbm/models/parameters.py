"""Named parameters of a Hamiltonian, and the direction in the space of all couplings in which each of them moves it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.hamiltonian import SpinHamiltonian

BETA = "beta"
EACH = "each"
"""What stands behind the name of a coupling, "J.each", to ask for one derivative per bond or site."""
_COUPLINGS = {"tfim": ("J", "gamma", "h"), "xxz": ("J", "delta", "h"), "heisenberg": ("J", "h"), "j1j2": ("J1", "J2", "h")}
_PER_SITE = ("gamma", "h")
GROUPED = ("J", "delta", "J1")
"""Couplings of nearest neighbours, which have groups of bonds."""


class Directions(NamedTuple):
    """d(zz, xy, x_field, z_field, beta) / d(parameter) of K parameters, in the form of `SpinHamiltonian`."""

    zz: np.ndarray  # (K, n_bonds)
    xy: np.ndarray  # (K, n_bonds)
    x_field: np.ndarray  # (K, n_sites)
    z_field: np.ndarray  # (K, n_sites)
    beta: np.ndarray  # (K,)

    @property
    def leaves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Those of the Hamiltonian."""
        return self[:4]


LEAVES = ("zz", "xy", "x_field", "z_field")


def moved(hamiltonian: SpinHamiltonian, leaves: Sequence[np.ndarray], step: float) -> SpinHamiltonian:
    """With couplings, in the order of `LEAVES`, a step further along a direction."""
    return replace(hamiltonian, **{n: getattr(hamiltonian, n) + step * way for n, way in zip(LEAVES, leaves, strict=True)})


class Parameter(NamedTuple):
    """One name that was asked for."""

    name: str
    shape: tuple[int, ...]  # (), or (n,) of one derivative per bond or site
    directions: Directions  # K = 1 or n


def parameter_names(hamiltonian: SpinHamiltonian) -> tuple[str, ...]:
    """The couplings of the model and beta."""
    return (*_COUPLINGS[hamiltonian.model], BETA)


def group_names(hamiltonian: SpinHamiltonian) -> tuple[str, ...]:
    """The couplings of groups of bonds, such as J.leg and J.rung."""
    return tuple(f"{name}.{g}" for name in _COUPLINGS[hamiltonian.model] if name in GROUPED for g in hamiltonian.lattice.groups)


def parameter(hamiltonian: SpinHamiltonian, name: str) -> Parameter:
    """What a name stands for: a coupling, common to all bonds or sites ("J": all of them raised alike); that of a group of bonds ("J.leg");
    each of them by itself ("J.each"); or "beta".

    Raises:
        InputError: for a name that the model does not have.

    >>> from thermodbm import make_lattice, heisenberg
    >>> parameter(heisenberg(make_lattice("chain", 3)), "J").directions.zz.tolist()
    [[0.25, 0.25, 0.25]]
    """
    names, grouped = parameter_names(hamiltonian), group_names(hamiltonian)
    base, _, part = str(name).partition(".")
    if name not in grouped and (base not in names or (part and (base == BETA or part != EACH))):
        expected = f"one of {', '.join([*names, *grouped])}, or {names[0]}.{EACH} for one per bond"
        raise InputError("response.parameters", expected=expected, found=str(name))
    n_bonds, n_sites = len(hamiltonian.bonds), hamiltonian.n_sites
    if base == BETA:
        return Parameter(name, (), Directions(*np.zeros((2, 1, n_bonds)), *np.zeros((2, 1, n_sites)), np.ones(1)))
    members = _members(hamiltonian, base, part)
    rows = np.eye(len(members)) if part == EACH else np.ones((1, len(members)))
    size = n_sites if base in _PER_SITE else n_bonds
    moved = np.zeros((len(rows), size))
    moved[:, members] = rows
    leaves = {"zz": np.zeros((len(rows), n_bonds)), "xy": np.zeros((len(rows), n_bonds))}
    leaves |= {"x_field": np.zeros((len(rows), n_sites)), "z_field": np.zeros((len(rows), n_sites))}
    leaves |= {leaf: moved * slope for leaf, slope in _slopes(hamiltonian, base).items()}
    return Parameter(name, (len(rows),) if part == EACH else (), Directions(**leaves, beta=np.zeros(len(rows))))


def parameters(hamiltonian: SpinHamiltonian, names: Sequence[str]) -> list[Parameter]:
    """Of several names.

    Raises:
        InputError: as `parameter`, and for a name given twice.
    """
    if isinstance(names, str):
        raise InputError("response.parameters", expected=f'a list of names, such as ["{parameter_names(hamiltonian)[0]}"]', found=names)
    for name in names:
        if list(names).count(name) > 1:
            raise InputError("response.parameters", expected="each name once", found=f"{name} more than once")
    return [parameter(hamiltonian, name) for name in names]


def stacked(found: Sequence[Parameter]) -> Directions:
    """The directions of all parameters, one after the other."""
    return Directions(*(np.concatenate(parts) for parts in zip(*(p.directions for p in found), strict=True)))


def labels(found: Sequence[Parameter]) -> list[str]:
    """A name for each of the stacked directions: "J", or "J.each[3]"."""
    return [f"{p.name}[{k}]" if p.shape else p.name for p in found for k in range(len(p.directions.beta))]


def mixed_directions(hamiltonian: SpinHamiltonian, found: Sequence[Parameter]) -> Directions:
    """d^2 (zz, xy, x_field, z_field) / d lambda_a d lambda_b of all pairs of the stacked directions, K = n^2 of them: J and delta of xxz
    stand in H as a product, all others alone."""
    here, rows = stacked(found), []
    for zz, xy, x, z in zip(*here.leaves, strict=True):
        there = replace(hamiltonian, zz=hamiltonian.zz + zz, xy=hamiltonian.xy + xy, x_field=hamiltonian.x_field + x, z_field=z)
        moved = stacked(parameters(there, [p.name for p in found]))
        rows.append([after - before for after, before in zip(moved, here, strict=True)])
    return Directions(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))


def unstacked(found: Sequence[Parameter], values: np.ndarray) -> dict[str, np.ndarray]:
    """Values (..., K) of the stacked directions by the names of the parameters, (..., *shape)."""
    ends = np.cumsum([len(p.directions.beta) for p in found])[:-1]
    parts = np.split(np.asarray(values), ends, axis=-1)
    return {p.name: part.reshape(part.shape[:-1] + p.shape) for p, part in zip(found, parts, strict=True)}


def _members(hamiltonian: SpinHamiltonian, name: str, part: str) -> np.ndarray:
    """Numbers of the bonds or sites that a coupling, or its part in a group, belongs to."""
    if name in _PER_SITE:
        return np.arange(hamiltonian.n_sites)
    lattice, every = hamiltonian.lattice, np.arange(len(hamiltonian.bonds))
    if part not in ("", EACH):
        return np.flatnonzero(lattice.bond_groups == lattice.groups.index(part))  # nearest neighbours come first
    if hamiltonian.model != "j1j2":
        return every
    n_first = len(lattice.bonds(1))
    return every[:n_first] if name == "J1" else every[n_first:]


def _slopes(hamiltonian: SpinHamiltonian, name: str) -> dict[str, np.ndarray | float]:
    """d leaf / d coupling, of every bond or site."""
    tfim = hamiltonian.model == "tfim"
    if name == "h":
        return {"z_field": 1.0 if tfim else 0.5}
    if name == "gamma":
        return {"x_field": 1.0}
    if tfim:
        return {"zz": -1.0}
    zz, xy = np.asarray(hamiltonian.zz, float), np.asarray(hamiltonian.xy, float)
    if name == "delta":
        return {"zz": xy}
    if hamiltonian.model != "xxz":
        return {"zz": 0.25, "xy": 0.25}
    return {"zz": np.divide(zz, xy, out=np.ones_like(zz), where=xy != 0) / 4, "xy": 0.25}

"""What is decided about an exchange magnet before its couplings become traced arguments: all that changes the program of its loops.

A bond with zz >= |xy| offers its plaquettes no diagonal graph, one with zz <= -|xy| no horizontal graph. If signs of the sites exist that
differ across the former and agree across the latter, every configuration can reach the straight worldlines with those signs, and the
update is ergodic. If not (odd rings of antiferromagnetic bonds), the number of exchanges would keep its parity. It is enough to mix the
graphs of those few bonds that violate the signs: then the straight worldlines are within reach again. Mixing freezes, so the fewer the
better, and as any choice leaves the distribution invariant, another one is drawn for every sweep.
"""

from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice
from thermodbm.models.rotation import balanced_signs, sublattice_rotation

MAX_CHOICES = 16
"""Sets of mixed bonds among which sweeps choose."""
ANNEALED = 64
"""Assignments of signs that are annealed to find them."""


class Regime(NamedTuple):
    """What kind of graphs the couplings need."""

    frozen: bool  # some graphs join all four legs
    mixed: tuple[tuple[bool, ...], ...]  # choices of bonds whose graphs are mixed, (n_choices, n_bonds); empty where none need be


class ExchangeFacts(NamedTuple):
    """Hashable: what a program for the loops of a magnet depends on besides the shape of its ring."""

    lattice: Lattice
    bond_pairs: tuple[tuple[int, int], ...]
    with_field: bool
    rotation: tuple[int, ...] | None  # signs of `models.rotation.sublattice_rotation`; None: frustrated, weights have signs
    regime: Regime
    layered: bool = False  # layers of gates of any couplings, measured at their ends; those of a Trotter product are alike

    @property
    def frustrated(self) -> bool:
        """Whether weights have signs."""
        return self.rotation is None

    @property
    def by_loops(self) -> bool:
        """Whether loops are flipped freely and have a constant sign, so that they can be averaged over their orientations."""
        return not (self.with_field or self.frustrated or self.regime.frozen)


def exchange_facts(hamiltonian: SpinHamiltonian) -> ExchangeFacts:
    """Of a Hamiltonian whose couplings are numbers. They hold as long as no coupling changes its sign and no |zz| passes its |xy|.

    Raises:
        InputError: for a model that does not conserve the magnetisation.
    """
    if not hamiltonian.conserves_sz:
        raise InputError("method.sampler", expected='"loop" only for xxz, heisenberg and j1j2', found=hamiltonian.model)
    rotation = sublattice_rotation(hamiltonian)
    return ExchangeFacts(
        lattice=hamiltonian.lattice,
        bond_pairs=hamiltonian.bond_pairs,
        with_field=bool(np.any(np.asarray(hamiltonian.z_field))),
        rotation=None if rotation is None else tuple(rotation.tolist()),
        regime=regime(hamiltonian),
    )


def regime(hamiltonian: SpinHamiltonian) -> Regime:
    """Bonds with |zz| > |xy| freeze; bonds with |zz| >= |xy| without balanced signs must be mixed, a few at a time."""
    zz, xy = np.asarray(hamiltonian.zz), np.abs(np.asarray(hamiltonian.xy))
    single = np.where((np.abs(zz) > xy * (1 - 1e-12)) & (xy > 0), np.sign(zz), 0)
    mixed = ()
    if balanced_signs(hamiltonian.n_sites, hamiltonian.bonds, single) is None:
        mixed = least_violations(hamiltonian.n_sites, hamiltonian.bonds, single)
    return Regime(bool(mixed) or bool(np.any(np.abs(zz) > xy * (1 + 1e-12))), mixed)


def least_violations(n_sites: int, bonds: np.ndarray, couplings: np.ndarray) -> tuple[tuple[bool, ...], ...]:
    """Small sets of bonds whose removal leaves balanced signs, by annealing the signs: at most MAX_CHOICES, the smallest first,
    and none a quarter larger.

    Args:
        couplings: (n_bonds,) +1 where the signs should differ, -1 where they should agree, 0 where they are free.

    >>> least_violations(3, np.array([[0, 1], [1, 2], [0, 2]]), np.ones(3))
    ((False, False, True), (False, True, False), (True, False, False))
    """
    rng = np.random.default_rng(0)
    i, j = bonds.T
    neighbors = [np.flatnonzero((i == site) | (j == site)) for site in range(n_sites)]
    others = [np.where(i[b] == site, j[b], i[b]) for site, b in enumerate(neighbors)]
    signs = rng.choice([-1, 1], (n_sites, ANNEALED))
    for temperature in (*np.geomspace(3.0, 0.2, 30), 1e-9):
        for site in rng.permutation(n_sites):
            push = couplings[neighbors[site]] @ signs[others[site]]
            signs[site] = np.where(rng.random(ANNEALED) < 0.5 * (1 - np.tanh(push / temperature)), 1, -1)
    violated = np.unique((couplings[:, None] * signs[i] * signs[j] > 0).T, axis=0)
    size = violated.sum(1)
    smallest = violated[size <= 1.25 * size.min()]
    smallest = smallest[np.argsort(smallest.sum(1), kind="stable")][:MAX_CHOICES]
    return tuple(tuple(bool(v) for v in choice) for choice in smallest)

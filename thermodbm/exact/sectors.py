"""Symmetry sectors of a spin Hamiltonian: orbits of configurations, characters, and the matrix of H between orbit states.

The symmetries used are those that the couplings have: translations along periodic axes, the flip of all spins where there is no
field along z, and the total magnetisation where it is conserved. Within a sector the basis states are

    |r> = (|G| |Stab_r|)^(-1/2) sum_g chi(g)^* g |r>,   <r'|H|r> = sum_c <c|H|r> chi(l_c)^* (|Stab_r'| / |Stab_r|)^(1/2),   l_c c = r',

with r the first configuration of an orbit of the (abelian) group G, and chi a character of G. Where inversion I is a symmetry too, a
sector of complex chi is made real: I K (K complex conjugation) keeps it, so states with I K |u> = |u> have real matrix elements.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import scipy.sparse

from thermodbm.models.lattice import Lattice
from thermodbm.models.operators import Couplings


class Orbits(NamedTuple):
    """Configurations, as the numbers of their rows in `all_configurations`, sorted into orbits of G = translations (x flips)."""

    n_sites: int
    shifts: np.ndarray  # (n_translations, N) site permutations
    representatives: np.ndarray  # (n_orbits,) lowest configuration of each orbit
    orbit: np.ndarray  # (2^N,) orbit of every configuration
    to_representative: np.ndarray  # (2^N,) number of a group element that maps the configuration to its representative
    stabiliser: np.ndarray  # (n_orbits, |G|) whether an element leaves the representative where it is

    @classmethod
    def of(cls, n: int, shifts: np.ndarray, flip: bool) -> "Orbits":
        configurations = np.arange(2**n)
        lowest, element = configurations.copy(), np.zeros(2**n, int)
        for g, image in enumerate(_images(configurations, n, shifts, flip)):
            better = image < lowest
            lowest[better], element[better] = image[better], g
        representatives, orbit = np.unique(lowest, return_inverse=True)
        stabiliser = np.stack([image == representatives for image in _images(representatives, n, shifts, flip)], 1)
        return cls(n, shifts, representatives, orbit, element, stabiliser)

    def allowed(self, character: np.ndarray) -> np.ndarray:
        """Orbits (n_orbits,) that have a state in the sector: the character must be 1 on the whole stabiliser."""
        return np.abs(self.stabiliser @ character - self.stabiliser.sum(1)) < 1e-6


def _images(configurations: np.ndarray, n: int, shifts: np.ndarray, flip: bool) -> Iterator[np.ndarray]:
    """Where each element of G takes the configurations; translations first, then those followed by a flip."""
    bits = configurations[:, None] >> np.arange(n)[::-1] & 1
    place = 1 << np.arange(n)[::-1]
    for mask in (0, 2**n - 1)[: 1 + flip]:
        for shift in shifts:
            yield (bits @ place[shift]) ^ mask


def spins_of(numbers: np.ndarray, n: int) -> np.ndarray:
    """The rows of `all_configurations` with these numbers, (..., n) of int8 +-1."""
    return (1 - 2 * (np.asarray(numbers)[:, None] >> np.arange(n)[::-1] & 1)).astype(np.int8)


def characters(lattice: Lattice, n_shifts: int) -> list[tuple[int, np.ndarray]]:
    """Characters (n_shifts,) of the translations with their multiplicity: k and -k have the same levels, as H is real."""
    if n_shifts == 1:
        return [(1, np.ones(1))]
    extent = [n if p else 1 for n, p in zip(lattice.extent, lattice.periodic, strict=True)]
    shifts = np.array(list(product(*map(range, extent))))  # the order of Lattice.translations
    found = []
    for momentum in shifts:
        opposite = tuple(-momentum % extent)
        if tuple(momentum) > opposite:
            continue
        phase = np.exp(2j * np.pi * shifts @ (momentum / extent))
        real = tuple(momentum) == opposite
        found.append((1, np.round(phase.real)) if real else (2, phase))
    return found


def inversion_of(lattice: Lattice) -> np.ndarray | None:
    """The site permutation r -> -r of a periodic lattice with one site per cell, (N,)."""
    return lattice.site(-lattice.cells) if lattice.kind != "graph" and lattice.n_basis == 1 and all(lattice.periodic) else None


def real_basis(orbits: Orbits, character: np.ndarray, rows: np.ndarray, inversion: np.ndarray | None) -> scipy.sparse.csr_array:
    """States of the sector in which H is real if it can be, as columns over the states |r> of its orbits `rows`.

    I K |r> = chi(l)^* |r'> =: c |r'> with l I r = r'. The states are c^(1/2) |r> where r' = r, and otherwise
    (|r> + c |r'>) / sqrt 2 and i (|r> - c |r'>) / sqrt 2.
    """
    number = np.arange(len(rows))
    if np.isrealobj(character) or inversion is None:
        return scipy.sparse.eye_array(len(rows), format="csr")
    (inverted,) = _images(orbits.representatives[rows], orbits.n_sites, inversion[None], flip=False)
    partner = np.searchsorted(rows, orbits.orbit[inverted])
    c = character[orbits.to_representative[inverted]].conj()
    own, first = number == partner, number < partner
    r, q, half = number[first], partner[first], np.full(first.sum(), 0.5**0.5)
    entries = [
        (number[own], number[own], c[own] ** 0.5),
        (r, r, half),
        (q, r, half * c[first]),
        (r, q, 1j * half),
        (q, q, -1j * half * c[first]),
    ]
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    return scipy.sparse.coo_array((value, (row, column)), shape=(len(rows), len(rows))).tocsr()


def magnetisation_sectors(orbits: Orbits, conserved: bool) -> list[np.ndarray]:
    """Masks (n_orbits,) of the invariant subspaces: all, or one per magnetisation (without its sign where flips are a symmetry)."""
    m = spins_of(orbits.representatives, orbits.n_sites).sum(-1)
    if not conserved:
        return [np.ones(len(m), bool)]
    if orbits.stabiliser.shape[1] > len(orbits.shifts):
        m = np.abs(m)
    return [m == value for value in np.unique(m)]


class Transitions(NamedTuple):
    """An operator on the representatives: amplitude times the configuration c reached, which l_c takes to its representative."""

    start: np.ndarray  # (n_transitions,) orbit
    end: np.ndarray  # orbit reached
    element: np.ndarray  # number of l_c in the group
    amplitude: np.ndarray


def transitions(orbits: Orbits, couplings: Couplings) -> Transitions:
    """H on the representatives."""
    n, start = orbits.n_sites, orbits.representatives
    s = spins_of(start, n).astype(float)
    bit = 1 << np.arange(n)[::-1]
    number = np.arange(len(start))
    diagonal = np.einsum("ri,ij,rj->r", s, couplings.zz, s) - s @ couplings.z
    rows, reached, amplitude = [number], [start], [diagonal]
    for i in np.flatnonzero(couplings.x):
        rows, reached, amplitude = [*rows, number], [*reached, start ^ bit[i]], [*amplitude, np.full(len(start), -couplings.x[i])]
    for i, j in np.argwhere(couplings.xy):
        opposite = s[:, i] != s[:, j]
        rows.append(number[opposite])
        reached.append(start[opposite] ^ (bit[i] | bit[j]))
        amplitude.append(np.full(opposite.sum(), 2 * couplings.xy[i, j]))
    ends = np.concatenate(reached)
    return Transitions(np.concatenate(rows), orbits.orbit[ends], orbits.to_representative[ends], np.concatenate(amplitude))


def sector_matrix(orbits: Orbits, character: np.ndarray, rows: np.ndarray, operator: Transitions) -> scipy.sparse.csr_array:
    """Matrix of the operator between the states |r> of the orbits `rows`, which `character` allows."""
    size = orbits.stabiliser.sum(1)
    start, end, element, amplitude = operator
    data = amplitude * character[element].conj() * np.sqrt(size[end] / size[start])
    return scipy.sparse.coo_array((data, (end, start)), shape=(len(size), len(size))).tocsr()[rows][:, rows]

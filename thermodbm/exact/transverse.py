"""The Kubo response along x of a magnet that conserves the magnetisation along z.

M_x = sum_i Sx_i joins neighbouring magnetisations, at the same momentum and parity under the flip of all spins; at a magnetisation of
+-1/2 it joins the states of |m| = 1/2 with each other.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from thermodbm.exact.sectors import Orbits, Transitions, sector_matrix

MAX_ELEMENTS = 2**22
"""Most elements of M_x that are kept: 14 sites with translations, 12 without. Every temperature goes through all of them."""
Response = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Two sectors that an operator M joins: energies (n,), energies (m,), |<n|M|m>|^2 (n, m)."""


class Solved(NamedTuple):
    """One sector, diagonalised."""

    multiplicity: int
    character: np.ndarray
    rows: np.ndarray  # (dim,) its orbits
    energies: np.ndarray  # (n,)
    states: np.ndarray  # (dim, n) over its orbits


def affordable(members: list[tuple[int, list[tuple[np.ndarray, np.ndarray]]]]) -> bool:
    """Whether the elements of M_x between the sectors of `diagonalisation.Sectors`, neighbours standing beside each other, may be kept."""
    sizes = [[float(len(rows)) for _, rows in parities] for _, parities in members]
    return sum(sum(map(lambda n, m: n * m, a, b)) for a, b in pairwise([[0.0] * len(sizes[0]), *sizes])) <= MAX_ELEMENTS


def transverse_elements(orbits: Orbits, total_x: Transitions, first: Solved, second: Solved) -> list[Response]:
    """Those of M_x between two sectors, or within one that is given twice, both ways; none where it joins nothing.

    Args:
        total_x: 2 M_x = sum_i sx_i on the representatives.
    """
    if not np.array_equal(first.character, second.character):
        return []
    whole = sector_matrix(orbits, first.character, np.arange(len(orbits.representatives)), total_x)
    between = whole[second.rows][:, first.rows]
    if not between.nnz:
        return []
    elements = np.abs(second.states.conj().T @ (between @ first.states)) ** 2 / 4
    return [(second.energies, first.energies, first.multiplicity * (1 if first is second else 2) * elements)]

"""Configurations of a large magnet up to symmetry, and sparse matrices between them, for systems whose levels cannot all be found.

The conventions are those of `exact.sectors`: orbit states |r> of the lowest configuration r of each orbit under translations (and flips),
with a character chi of the group. Here orbits are found among the configurations of one magnetisation alone, images by tables of half a
configuration each, and the place of a configuration in its list by Lin's two tables (Phys. Rev. B 42, 6561 (1990)).
"""

from functools import cached_property

import numpy as np
import scipy.sparse

from thermodbm.models.operators import Couplings

MAX_SITES = 30
"""Configurations are numbers of 32 bits."""
_ROWS = 2**14  # of a matrix that are filled at once


class OrbitSpace:
    """Orbits of the configurations of `n` sites with `n_down` spins down (None: all) under shifts, each followed by a flip if asked for.

    Attributes:
        representatives: (n_orbits,) int32, the lowest configuration of each orbit, ascending; bits as in `all_configurations`.
        stabiliser: (n_orbits, |G|) bool, whether an element leaves the representative where it is; shifts first, then with a flip.
    """

    def __init__(self, n: int, n_down: int | None, shifts: np.ndarray, flip: bool):
        self.n_sites, self.n_down, self.shifts, self.flip = n, n_down, shifts, flip
        self._low, self._high = n // 2, n - n // 2  # bits of the lower and the upper half of a configuration
        configurations = self._configurations()
        lowest, element = configurations.copy(), np.zeros(len(configurations), np.int16)
        for g in range(self.order):
            image = self.image(configurations, g)
            better = image < lowest
            lowest[better], element[better] = image[better], g
        own = lowest == configurations
        self.representatives = configurations[own]
        self._orbit, self._element = (np.cumsum(own, dtype=np.int32) - 1)[self._place(lowest)], element
        self.stabiliser = np.stack([self.image(self.representatives, g) == self.representatives for g in range(self.order)], 1)

    @property
    def order(self) -> int:
        """Number of elements of the group."""
        return len(self.shifts) * (1 + self.flip)

    def image(self, configurations: np.ndarray, g: int) -> np.ndarray:
        """Where element g of the group takes them."""
        flip, shift = divmod(g, len(self.shifts))
        low, high = self._tables[shift]
        moved = low[configurations & (2**self._low - 1)] | high[configurations >> self._low]
        return moved ^ np.int32(2**self.n_sites - 1) if flip else moved

    def orbit_of(self, configurations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the orbit, and of an element that takes the configuration to its representative."""
        place = self._place(configurations)
        return self._orbit[place], self._element[place]

    def allowed(self, character: np.ndarray) -> np.ndarray:
        """Numbers of the orbits that have a state in the sector: the character must be 1 on the whole stabiliser."""
        return np.flatnonzero(np.abs(self.stabiliser @ character - self.stabiliser.sum(1)) < 1e-6)

    @cached_property
    def _tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each shift where it takes the bits of the lower and of the upper half."""
        place = (1 << np.arange(self.n_sites)[::-1]).astype(np.int32)
        low, high = ((np.arange(2**size)[:, None] >> np.arange(size)[::-1] & 1).astype(np.int32) for size in (self._low, self._high))
        return [(low @ place[shift[self._high :]], high @ place[shift[: self._high]]) for shift in self.shifts]

    def _configurations(self) -> np.ndarray:
        """All configurations of the space, ascending; a spin that is down is a bit of 1."""
        if self.n_down is None:
            return np.arange(2**self.n_sites, dtype=np.int32)
        ones = np.bitwise_count(np.arange(2**self._low))
        lower = {count: np.flatnonzero(ones == count) for count in range(self._low + 1)}
        upper = np.arange(2**self._high)
        parts = [(h << self._low) + lower.get(self.n_down - int(h).bit_count(), np.zeros(0, int)) for h in upper]
        return np.concatenate(parts).astype(np.int32)

    @cached_property
    def _lin(self) -> tuple[np.ndarray, np.ndarray]:
        """Tables of the lower and the upper half, whose sum is the place of a configuration among those of the space."""
        lower, upper = (np.bitwise_count(np.arange(2**size)).astype(int) for size in (self._low, self._high))
        place = np.zeros(2**self._low, np.int32)
        for count in range(self._low + 1):
            place[lower == count] = np.arange((lower == count).sum())
        wanted = self.n_down - upper
        size = np.where((wanted >= 0) & (wanted <= self._low), np.bincount(lower)[np.clip(wanted, 0, self._low)], 0)
        return place, (np.cumsum(size) - size).astype(np.int32)

    def _place(self, configurations: np.ndarray) -> np.ndarray:
        if self.n_down is None:
            return configurations
        lower, upper = self._lin
        return lower[configurations & (2**self._low - 1)] + upper[configurations >> self._low]


def sector_matrix(space: OrbitSpace, character: np.ndarray, rows: np.ndarray, couplings: Couplings) -> scipy.sparse.csr_array:
    """Matrix of the operator with these couplings between the states |r> of the orbits `rows`, which `character` allows.

    <r|H|r'> = sum_c <c|H|r> chi(l_c) (|Stab_r'| / |Stab_r|)^(1/2) with l_c c = r', the complex conjugate of <r'|H|r>.
    """
    n, start = space.n_sites, space.representatives[rows]
    bit = (1 << np.arange(n)[::-1]).astype(np.int32)
    fields, pairs = np.flatnonzero(couplings.x), np.argwhere(couplings.xy)
    masks = np.concatenate([bit[fields], bit[pairs[:, 0]] | bit[pairs[:, 1]]]).astype(np.int32)
    amplitudes = np.concatenate([-couplings.x[fields], 2 * couplings.xy[tuple(pairs.T)]])
    number = np.full(len(space.representatives), -1, np.int32)  # of an orbit among the rows
    number[rows] = np.arange(len(rows))
    size = np.sqrt(space.stabiliser.sum(1))
    data, columns, lengths = [], [], []
    for part in (slice(first, first + _ROWS) for first in range(0, len(rows), _ROWS)):
        spins = 1.0 - 2 * (start[part, None] >> np.arange(n)[::-1] & 1)
        diagonal = ((spins @ couplings.zz) * spins).sum(1) - spins @ couplings.z
        moves = np.concatenate([np.ones((len(spins), len(fields)), bool), spins[:, pairs[:, 0]] != spins[:, pairs[:, 1]]], 1)
        row, move = np.nonzero(moves)
        end, element = space.orbit_of(start[part][row] ^ masks[move])
        kept = number[end] >= 0
        row, move, end, element = row[kept], move[kept], end[kept], element[kept]
        values = amplitudes[move] * character[element] * (size[end] / size[rows[part]][row])
        count = np.bincount(row, minlength=len(spins))
        first = np.cumsum(count) - count  # the diagonal stands in front of each row
        data.append(np.insert(values, first, diagonal))
        columns.append(np.insert(number[end], first, np.arange(part.start, part.start + len(spins), dtype=np.int32)))
        lengths.append(count + 1)
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    pointers = pointers.astype(np.int32 if pointers[-1] < 2**31 else np.int64)
    return scipy.sparse.csr_array((np.concatenate(data), np.concatenate(columns), pointers), shape=(len(rows), len(rows)))

"""Thermal averages from a few random vectors in each symmetry sector: the finite-temperature Lanczos method at low temperature, too.

The trace over a sector of dimension d is that over its lowest n eigenstates, which are found one by one, and over the rest, which R random
vectors |r> (normalised, orthogonal to those states) stand for:

    Tr exp(-beta H) A  =  sum_n exp(-beta E_n) <n|A|n>  +  (d - n)/R sum_r <r|exp(-beta H/2) A exp(-beta H/2)|r>,

with exp(-beta H/2)|r> from the Krylov space of |r>. Taking the lowest states out removes the noise of random vectors at low temperature,
where few levels count; sectors that are small are diagonalised altogether. Sectors are those of the magnetisation, the momentum and the
parity under flips, as far as the couplings have these symmetries; a uniform field along z is added to the levels afterwards.

Source: Jaklic and Prelovsek, Phys. Rev. B 49, 5065 (1994); Aichhorn, Daghofer, Evertz and von der Linden, Phys. Rev. B 67, 161103 (2003);
for the lowest states Morita and Tohyama, Phys. Rev. Research 2, 013205 (2020).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from thermodbm.exact.diagonalisation import diagonal_values
from thermodbm.exact.kubo import kubo_response
from thermodbm.exact.lanczos import Krylov, Rows, States, all_states, lanczos, lowest_states
from thermodbm.exact.orbit_space import OrbitSpace, sector_matrix
from thermodbm.exact.sectors import characters, spins_of
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.operators import Couplings
from thermodbm.threads import one_thread

SMALL = 256
"""Dimension up to which a sector is diagonalised."""
N_LOWEST = 4
"""Eigenstates of every other sector that are found one by one."""
_ROWS = 2**14  # configurations whose observables are at hand at a time
_TEMPERATURES = 8  # at which m_x is taken at once

Record = dict[str, Any]
"""What is known of a sector: nested dicts of arrays, all that thermal averages need."""
Observables = Mapping[str, Callable[[np.ndarray], np.ndarray]]
"""Of a user: functions of configurations (n, n_sites) of +-1 that give a number, or an array, for each."""


class Sector(NamedTuple):
    """Sectors that are dealt with together: one, or two that M = sum_i sz_i joins (of opposite parity under flips)."""

    n_down: int | None  # None: the magnetisation is not conserved
    flip: bool  # whether the group holds flips
    characters: tuple[np.ndarray, ...]
    multiplicity: int  # of equivalent sectors


@dataclass(frozen=True, eq=False)
class Typicality:
    """What is asked, and of which magnet; `sample` a record of each of `sectors`, for `typical_averages`.

    Attributes:
        betas: inverse temperatures > 0, (n_T,).
        n_vectors: random vectors in every sector.
        n_lanczos: most Lanczos steps.
        observables: of a user.
        small: dimension up to which a sector is diagonalised; None: `SMALL`.
    """

    hamiltonian: SpinHamiltonian
    betas: np.ndarray
    n_vectors: int
    n_lanczos: int
    observables: Observables
    small: int | None = None

    @cached_property
    def field(self) -> float:
        """A uniform field along z, h of -h sum_i Sz_i, where the magnetisation is conserved: it only shifts levels."""
        z = np.asarray(self.hamiltonian.z_field, float)
        return 2 * float(z[0]) if self.hamiltonian.conserves_sz and np.all(z == z[0]) else 0.0

    @cached_property
    def couplings(self) -> Couplings:
        """Without the uniform field."""
        whole = Couplings.of(self.hamiltonian)
        return whole._replace(z=whole.z - self.field / 2)

    @cached_property
    def sectors(self) -> list[Sector]:
        """All of them, the smallest magnetisation first."""
        n, lattice, exchange = self.hamiltonian.n_sites, self.hamiltonian.lattice, self.hamiltonian.conserves_sz
        flips = not np.any(self.couplings.z)
        counts = [None] if not exchange else sorted(range(n // 2 + 1 if flips else n + 1), key=lambda down: abs(n - 2 * down))
        found = []
        for n_down in counts:
            own = flips and n_down in (None, n / 2)  # sectors of +-M are alike, but for the field
            twice = flips and not own and self.field == 0
            for multiplicity, translation in characters(lattice, len(self.shifts)):
                parities = [np.concatenate([translation, p * translation]) for p in (1, -1)] if own else [translation]
                joined = [tuple(parities)] if n_down is None else [(each,) for each in parities]
                found += [Sector(n_down, own, each, multiplicity * (1 + twice)) for each in joined]
        return found

    @cached_property
    def shifts(self) -> np.ndarray:
        """The translations that leave the couplings as they are: all or none."""
        translations = self.hamiltonian.lattice.translations
        return translations if all(map(self.couplings.invariant, translations)) else translations[:1]

    def dimension(self, sector: Sector) -> float:
        """Roughly, of each of the joined sectors."""
        n = self.hamiltonian.n_sites
        configurations = 2.0**n if sector.n_down is None else float(math.comb(n, sector.n_down))
        return configurations / self.order(sector)

    def order(self, sector: Sector) -> int:
        """Of the group of shifts and flips."""
        return len(self.shifts) * (1 + sector.flip)

    def magnetisations(self, sector: Sector) -> np.ndarray:
        """Total Sz (n_copies,) for which the levels of a sector stand: M and -M, but M alone where not even a field tells them apart."""
        if sector.n_down is None:
            return np.zeros(1)
        m = self.hamiltonian.n_sites / 2 - sector.n_down
        return np.array([m, -m]) if m and self.field and not np.any(self.couplings.z) else np.array([m])

    def sample(self, sector: Sector, rng: np.random.Generator, space: OrbitSpace | None = None) -> Record:
        """Levels and averages of one sector; `space` is that of the sector, where it is at hand."""
        with one_thread():  # a matrix shares its rows out itself
            return self._sample(sector, rng, space or self.space(sector))

    def _sample(self, sector: Sector, rng: np.random.Generator, space: OrbitSpace) -> Record:
        allowed = [(chi, rows) for chi in sector.characters if len(rows := space.allowed(chi))]
        dense = max(len(rows) for _, rows in allowed) <= (self.small or SMALL) if allowed else True
        parts = [self._solve(space, chi, rows, rng, dense) for chi, rows in allowed]
        record: Record = {f"{p}": self._measure(space, sector, part) for p, part in enumerate(parts)}
        if sector.n_down is None and parts:
            spins = spins_of(space.representatives, space.n_sites).sum(-1, dtype=float)
            options = {"betas": self.betas, "n_lanczos": self.n_lanczos}
            record["kubo"] = kubo_response(parts[0], parts[-1], spins, len(sector.characters), **options)
        return record

    def space(self, sector: Sector) -> OrbitSpace:
        """The configurations of a sector; those of one magnetisation share them."""
        return OrbitSpace(self.hamiltonian.n_sites, sector.n_down, self.shifts, sector.flip)

    def _solve(self, space: OrbitSpace, chi: np.ndarray, rows: np.ndarray, rng: np.random.Generator, dense: bool) -> "Part":
        matrix = Rows(sector_matrix(space, chi, rows, self.couplings))
        if dense:
            return Part(chi, rows, matrix, all_states(matrix @ np.eye(len(rows))), np.zeros((len(rows), 0)), None)
        low = lowest_states(matrix, N_LOWEST, rng)
        start = low.without(_normal(rng, (len(rows), self.n_vectors), matrix.dtype))
        start /= np.linalg.norm(start, axis=0)
        n_steps = min(self.n_lanczos, len(rows) - len(low.energies))
        return Part(chi, rows, matrix, low, start, lanczos(matrix, start, n_steps, apart=low, betas=self.betas))

    def _measure(self, space: OrbitSpace, sector: Sector, part: "Part") -> Record:
        """The levels of one sector, and observables of its states, (n_T, n_copies, n_observables) times weights for those apart."""
        low, krylov, betas = part.low, part.krylov, self.betas
        boltzmann = np.exp(-betas[:, None] * (low.energies - low.energies[0]))
        record = {"multiplicity": sector.multiplicity, "magnetisations": self.magnetisations(sector), "field": self.field}
        record |= {"both_signs": int(self.field == 0 and not np.any(self.couplings.z)), "exact_energies": low.energies}
        populations = [boltzmann @ (np.abs(low.vectors) ** 2).T]
        coefficients = np.zeros((0, len(betas), 0))
        if krylov is not None:
            record |= {
                "dimension": len(part.rows) - len(low.energies),
                "real": int(np.isrealobj(part.start)),
                "energies": krylov.energies,
                "weights": krylov.weights,
            }
            damped = np.exp(-betas[:, None] / 2 * (krylov.energies - krylov.energies.min(1, keepdims=True))[:, None])
            coefficients = np.einsum("rmj,rtj->rtm", krylov.ritz, damped * krylov.ritz[:, None, 0])
        sums = 0.0
        for first in range(0, len(part.rows), _ROWS):
            piece = slice(first, first + _ROWS)
            table = self.table(space, sector, part.rows[piece])
            densities = [np.abs(_combine(c, krylov.basis[r, :, piece])) ** 2 for r, c in enumerate(coefficients)]
            whole = np.stack([populations[0][:, piece], *densities]).astype(float)
            sums = sums + np.concatenate([whole @ table, whole.sum(-1, keepdims=True)], -1)
        values, norms = sums[..., :-1], sums[1:, :, -1:]
        if not self.hamiltonian.conserves_sz:
            values = np.concatenate([values, self._transverse(space, part, boltzmann, coefficients)[..., None]], -1)
        shape = len(betas), len(record["magnetisations"]), -1
        record["exact_values"] = values[0].reshape(shape)
        if krylov is not None:
            record["values"] = (values[1:] / norms).reshape(self.n_vectors, *shape)
        return record

    def _transverse(self, space: OrbitSpace, part: "Part", boltzmann: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """sum_i sx_i / N: of the states apart, times their weights, then in exp(-beta H/2)|r>, (1 + R, n_T)."""
        n = space.n_sites
        sx = Rows(sector_matrix(space, part.character, part.rows, Couplings.transverse(n)))
        average = lambda x: np.einsum("dt,dt->t", x.conj(), sx @ x).real / n  # noqa: E731
        found = [boltzmann @ average(part.low.vectors)]
        for r, c in enumerate(coefficients):
            pieces = [c[first : first + _TEMPERATURES] for first in range(0, len(c), _TEMPERATURES)]
            found.append(np.concatenate([average(_combine(piece, part.krylov.basis[r]).T) for piece in pieces]))
        return np.array(found)

    @cached_property
    def layout(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the observables that `table` holds one after the other, for each copy."""
        spins = np.ones((1, self.hamiltonian.n_sites), np.int8)
        own = {name: values.shape[1:] for name, values in diagonal_values(self.hamiltonian, spins, True).items()}
        return own | {name: np.shape(function(spins))[1:] for name, function in self.observables.items()}

    def table(self, space: OrbitSpace, sector: Sector, orbits: np.ndarray) -> np.ndarray:
        """Observables diagonal in sz, averaged over each orbit (n_orbits, n_copies * n_observables)."""
        representatives, flips = space.representatives[orbits], not np.any(self.couplings.z)
        own = diagonal_values(self.hamiltonian, spins_of(representatives, space.n_sites), flips)
        tables = [dict(own) for _ in self.magnetisations(sector)]
        if self.observables:
            images = [spins_of(space.image(representatives, g), space.n_sites) for g in range(len(space.shifts))]
        for name, function in self.observables.items():
            up, down = ([np.asarray(function(sign * image), float) for image in images] for sign in (1, -1))
            each = [up, down] if len(tables) == 2 else [up + down] if flips else [up]  # lists: both are averaged
            for table, values in zip(tables, each, strict=True):
                table[name] = np.mean(values, axis=0)
        return np.concatenate([values.reshape(len(orbits), -1) for table in tables for values in table.values()], 1)


class Part(NamedTuple):
    """One sector, solved."""

    character: np.ndarray
    rows: np.ndarray  # orbits that have a state
    matrix: Rows
    low: States  # known one by one
    start: np.ndarray  # (dim, R) random vectors
    krylov: Krylov | None  # of these; None where all states are known


def _combine(coefficients: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Real coefficients (n, M) times vectors (M, dim) of half precision."""
    if not np.iscomplexobj(basis):
        return coefficients.astype(basis.dtype) @ basis
    real = np.ascontiguousarray(basis).view(np.float32)
    return (coefficients.astype(np.float32) @ real).view(np.complex64)


def _normal(rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Normal random numbers, real or complex."""
    real = rng.normal(size=shape)
    return real if np.dtype(dtype).kind == "f" else real + 1j * rng.normal(size=shape)

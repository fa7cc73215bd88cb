"""Sectors of magnetisation without any other symmetry, for operators that have none."""

import numpy as np

from thermodbm.errors import InputError
from thermodbm.exact.sectors import Orbits, spins_of
from thermodbm.models.hamiltonian import SpinHamiltonian

MAX_SITES = 12
"""More configurations than 2^12 are not listed."""


def magnetisation_blocks(hamiltonian: SpinHamiltonian, key: str, n_operators: int, most: int) -> tuple[Orbits, list[np.ndarray]]:
    """Orbits of one configuration each, and their numbers in every sector: one for each magnetisation where that is conserved.

    Args:
        key: of the config that asks for it, for the complaint.
        n_operators: whose elements between all states of a sector will be held.
        most: elements that may be held.

    Raises:
        InputError: for magnets that are too large.
    """
    n = hamiltonian.n_sites
    if n <= MAX_SITES:
        orbits = Orbits.of(n, np.arange(n)[None], flip=False)
        sums = spins_of(orbits.representatives, n).sum(1) if hamiltonian.conserves_sz else np.zeros(2**n)
        sectors = [np.flatnonzero(sums == m) for m in np.unique(sums)]
        if n_operators * sum(float(len(rows)) ** 2 for rows in sectors) <= most:
            return orbits, sectors
    hint = 'method.kind = "deterministic" samples larger ones.'
    found = f"{n} sites" + (f" and {n_operators} operators" if n <= MAX_SITES else "")
    raise InputError(key, expected=f"at most {MAX_SITES} sites, and operators that fit into memory", found=found, hint=hint)

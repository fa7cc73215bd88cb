"""Memory and time of the finite-temperature Lanczos method, from the sizes of the sectors."""

from typing import NamedTuple

import numpy as np

from thermodbm.exact.typicality import SMALL, Typicality

STEPS = 80
"""Lanczos steps that are expected, where more are allowed: benchmarks/typical.py."""
STEPS_LOWEST = 150
"""Multiplications that the lowest states take."""
SECONDS = 2.5e-9
"""Of a multiplication of one real element of a matrix with its share of all else, on one core: benchmarks/typical.py."""


class Size(NamedTuple):
    """What is told beforehand."""

    n_sectors: int
    dimension: float  # of the largest sector
    n_bytes: float
    seconds: float  # on one core


def typical_size(problem: Typicality) -> Size:
    """The sector that needs most memory (its matrix twice while it is made, and its Krylov spaces), and the time of all together."""
    couplings, n = problem.couplings, problem.hamiltonian.n_sites
    elements = 1 + np.count_nonzero(couplings.x) + np.count_nonzero(couplings.xy) / 2  # of a row
    if (couplings.xy != 0).any():
        elements += 0.5 * np.count_nonzero(couplings.xy) / n  # antiparallel pairs are a little more than half of all at Sz = 0
    steps, kubo = min(STEPS, problem.n_lanczos), 1 if problem.hamiltonian.conserves_sz else 2
    n_bytes, seconds = 0.0, 0.0
    for sector in problem.sectors:
        d = problem.dimension(sector)
        parts, real = len(sector.characters), all(map(np.isrealobj, sector.characters))
        width = 1 if real else 2
        matrix, space = elements * d * (4 + 8 * width), 24 * d * problem.order(sector)
        krylov = steps * problem.n_vectors * d * 4 * width
        working = 6 * problem.n_vectors * d * 8 * width
        n_bytes = max(n_bytes, (1 + parts) * matrix + space + parts * krylov + (kubo - 1) * krylov + working)
        if d > SMALL:
            vectors = problem.n_vectors * steps * kubo + STEPS_LOWEST
            seconds += parts * elements * d * width * vectors * SECONDS
    return Size(len(problem.sectors), max(map(problem.dimension, problem.sectors)), n_bytes, seconds)

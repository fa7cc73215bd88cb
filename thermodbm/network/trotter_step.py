"""How finely imaginary time is cut: Trotter steps from which extrapolation is safe, and the numbers of slices of its levels."""

import numpy as np

from thermodbm.models import SpinHamiltonian

STEP = {"ising": 0.25, "exchange": 0.2}
"""Default Trotter step in units of the inverse commutator scale: leaves extrapolated energies within 1e-4, extrapolation error included."""
SAFE_ERROR = {"ising": 1e-4, "exchange": 2.5e-4}
"""Error of the energy, in units of the commutator scale, for which STEP is fine enough; exchange: that of all other observables, too."""
LEVELS = {True: (1, 2, 4), False: (1,)}
"""Steps in units of the finest: doubling lets the coarse levels share their shapes with the fine ones of other temperatures."""
MIN_SLICES = 8
"""Of the finest level: hot rings are cheap, and each shape must be compiled."""


def kind_of_gates(hamiltonian: SpinHamiltonian) -> str:
    """ "exchange" or "ising": what STEP and the prior of the extrapolation were measured on."""
    return "exchange" if hamiltonian.conserves_sz else "ising"


def commutator_scale(hamiltonian: SpinHamiltonian) -> float:
    """Energy scale kappa on which the Trotter error depends: with a_i the sum of |J| around a site, the largest
    (|gamma| (|gamma| + |h| + a) + a^2/4)^(1/2) where gamma is not zero, or, for models that conserve the magnetisation, half the sum of all
    exchange couplings around a site plus |h|; tiny if all parts commute."""
    zz, xy, gamma, h = (np.abs(np.asarray(x, float)) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    around = np.zeros(hamiltonian.n_sites)
    np.add.at(around, hamiltonian.bonds.ravel(), np.repeat(zz + 2 * xy if hamiltonian.conserves_sz else zz, 2))
    if hamiltonian.conserves_sz:
        scale = around / 2 + h
    else:
        scale = np.where(gamma > 0, np.sqrt(gamma * (gamma + h + around) + around**2 / 4), 0.0)
    return max(float(scale.max()), 1e-6)


def default_d_tau(hamiltonian: SpinHamiltonian, target_error: float | None = None) -> float:
    """Trotter step in tau = beta/2 from which extrapolation is safe; finer where a small error is asked for, as its sixth root."""
    scale, kind = commutator_scale(hamiltonian), kind_of_gates(hamiltonian)
    finer = min(1.0, (target_error / (SAFE_ERROR[kind] * scale)) ** (1 / 6)) if target_error else 1.0
    return STEP[kind] / scale * finer


def slices(beta: float, d_tau: float, extrapolate: bool, n_tau: int = 0) -> list[int]:
    """Numbers of slices of every level, the finest first; powers of two, so that a sweep of temperatures needs few shapes.

    Args:
        n_tau: parts, a power of two, into which the layers of each level must fall: a ring has two to a slice.

    >>> slices(beta=8.0, d_tau=0.1, extrapolate=True)
    [64, 32, 16]
    """
    coarsest = LEVELS[extrapolate][-1]
    needed = max(beta / (2 * d_tau), MIN_SLICES, coarsest * n_tau / 2) / coarsest
    finest = coarsest * 2 ** int(np.ceil(np.log2(needed) - 1e-9))
    return [finest // r for r in LEVELS[extrapolate]]

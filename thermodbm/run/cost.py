"""What a deterministic run will cost, known before it starts: layers of the network, spins to update, memory."""

import os
from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.evolve.options import DeterministicOptions, SamplingOptions
from thermodbm.models import SpinHamiltonian

BYTES_PER_SPIN = 16
"""Of one chain: the spin itself, cluster labels and temporaries of an update."""
TYPICAL_STEP = 0.1
"""Trotter step over the largest coupling, where the method is left to choose it."""


class Cost(NamedTuple):
    """At every temperature, (n_T,) each; floats, for they may be too large for integers."""

    n_slices: np.ndarray
    n_spins: np.ndarray  # in the ring of 2 n_slices layers
    n_bytes: np.ndarray  # all chains


def deterministic_cost(hamiltonian: SpinHamiltonian, options: DeterministicOptions, sampling: SamplingOptions, betas: np.ndarray) -> Cost:
    """n_slices = beta / (2 d_tau), rounded up."""
    couplings = np.concatenate([np.ravel(c) for c in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field)])
    d_tau = options.d_tau or TYPICAL_STEP / max(np.abs(couplings).max(initial=0), np.finfo(float).tiny)
    n_slices = np.maximum(np.ceil(betas / (2 * d_tau)), 1)
    n_spins = 2 * n_slices * hamiltonian.n_sites
    return Cost(n_slices, n_spins, n_spins * sampling.n_chains * BYTES_PER_SPIN)


def check_memory(cost: Cost, available: float | None = None) -> None:
    """Refuse what cannot fit into this machine.

    Args:
        available: bytes; None: the physical memory, where the system tells it.

    Raises:
        InputError: naming the coldest temperature.
    """
    if available is None:
        available = _physical_memory()
    coldest = int(np.argmax(cost.n_bytes))
    if cost.n_bytes[coldest] > available:
        raise InputError(
            "temperature",
            expected=f"a network and chains that fit into {available:.1e} bytes of memory",
            found=f"{cost.n_slices[coldest]:.3g} slices, which need about {cost.n_bytes[coldest]:.1e} bytes",
            hint="Fewer chains, a larger d_tau or higher temperatures need less.",
        )


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return np.inf

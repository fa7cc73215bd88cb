"""What a deterministic run will cost, known before it starts: layers of the network, spins to update, memory."""

import os
from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.evolve.options import DeterministicOptions, SamplingOptions
from thermodbm.models import SpinHamiltonian
from thermodbm.network.trotter_step import default_d_tau, slices

BYTES_PER_SPIN = 512
"""Of one chain, measured with benchmarks/tfim_scaling.py: the spin itself, and the temporaries of an update and a measurement."""
MAX_SLICES = 1e12
"""More are not counted one by one: no machine holds them."""


class Cost(NamedTuple):
    """At every temperature, (n_T,) each, of float64, which does not overflow."""

    n_slices: np.ndarray  # of the finest network
    n_spins: np.ndarray  # of one chain, in the rings of 2 n_slices layers of all networks that extrapolation needs
    n_bytes: np.ndarray  # all chains


def deterministic_cost(hamiltonian: SpinHamiltonian, options: DeterministicOptions, sampling: SamplingOptions, betas: np.ndarray) -> Cost:
    """What the deterministic method will set up."""
    with np.errstate(over="ignore", divide="ignore"):
        d_tau = options.d_tau or default_d_tau(hamiltonian)
        needed = np.asarray(betas) / (2 * d_tau)
    levels = [slices(beta, d_tau, options.extrapolate) if n < MAX_SLICES else [n] for beta, n in zip(betas, needed, strict=True)]
    n_spins = 2.0 * hamiltonian.n_sites * np.array([float(sum(level)) for level in levels])
    return Cost(np.array([float(level[0]) for level in levels]), n_spins, n_spins * sampling.n_chains * BYTES_PER_SPIN)


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

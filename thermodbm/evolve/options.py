"""Every key of [method] and [sampling], with its default and what it means: the one place where defaults stand."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

# Types carry the range of what makes sense; `run.config` checks them, whether the options come from a file or from Python.
Sampler = Literal["mixed", "cluster", "column", "loop", "gibbs"]


@dataclass(frozen=True)
class SamplingOptions:
    """[sampling]: how many samples are drawn, and from which seed."""

    n_chains: Annotated[int, Field(ge=1, le=10**6)] = 16
    """Independent Markov chains, over all ranks and devices."""
    n_samples: Annotated[int, Field(ge=1, le=10**12)] = 20_000
    """Samples per temperature, summed over chains (a sample is one sweep of one chain)."""
    target_error: PositiveFloat | None = None
    """If given, sampling goes on until the error of the energy per site is at most this, instead of stopping at n_samples."""
    n_thermal: Annotated[int, Field(ge=0, le=10**12)] | None = None
    """Sweeps per chain that are discarded at each temperature before measuring; None: a tenth of those measured, at least 100."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed of all random numbers: the same seed on the same number of ranks gives the same results, bit for bit."""


@dataclass(frozen=True)
class DeterministicOptions:
    """[method] with kind = "deterministic": the network is written down gate by gate from a Trotter product."""

    d_tau: PositiveFloat | None = None
    """Largest Trotter step in tau = beta/2; None: chosen from the couplings so that extrapolation is safe."""
    extrapolate: bool = True
    """Run at two or three Trotter steps and extrapolate to zero, with the extrapolation error in the error bars."""
    sampler: Sampler | None = None
    """How (v, d) are sampled; None: "mixed" for tfim, "loop" for models that conserve the magnetisation."""


@dataclass(frozen=True)
class VariationalOptions:
    """[method] with kind = "variational": the network's weights follow imaginary time by stochastic reconfiguration."""


@dataclass(frozen=True)
class ExactOptions:
    """[method] with kind = "exact": free fermions for the periodic Ising chain, full diagonalisation otherwise."""


MethodOptions = DeterministicOptions | VariationalOptions | ExactOptions

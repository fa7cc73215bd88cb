"""From time series of Markov chains to means with honest error bars."""

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats


class Estimate(NamedTuple):
    """A number (or array of numbers) with its error and, where it was sampled, how well the chains behaved."""

    mean: np.ndarray
    error: np.ndarray  # one standard deviation, autocorrelation included
    tau_int: np.ndarray | None = None  # integrated autocorrelation time in sweeps; 1/2 for independent samples
    r_hat: np.ndarray | None = None  # split-chain convergence diagnostic, 1 when the chains agree
    n_eff: np.ndarray | None = None  # number of independent samples that would give the same error


def exact(mean: np.ndarray | float) -> Estimate:
    """An `Estimate` without error."""
    mean = np.asarray(mean, float)
    return Estimate(mean, np.zeros_like(mean))

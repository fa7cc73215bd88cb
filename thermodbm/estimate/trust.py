"""What can make the numbers of one temperature untrustworthy although they have error bars."""

from collections.abc import Iterator, Mapping
from enum import IntFlag

import numpy as np

from thermodbm.estimate.statistics import Estimate

MAX_R_HAT = 1.1
"""Split r_hat above which chains do not agree, or are shorter than some twenty autocorrelation times: where they started may still show."""
MIN_N_EFF = 100
"""Independent samples below which an error bar is itself a guess."""
MAX_RESIDUAL = 0.1
"""r^2 above which a variational state no longer follows imaginary time, and its systematic error is only an order of magnitude."""


class Doubt(IntFlag):
    """Reasons not to trust a temperature. In a file: diagnostics/doubts, the sum of those that hold, and diagnostics/trusted, 1 or 0."""

    NONE = 0
    SIGN = 1  # the average sign is not resolved from zero
    MIXING = 2  # chains disagree
    FEW = 4  # too few independent samples
    STATE = 8  # the network does not hold the thermal state: a variational one does not follow imaginary time, a learned one is too small

    def sentences(self) -> Iterator[str]:
        """What is wrong and what to do, a sentence a reason."""
        return (text for reason, text in _TEXT.items() if reason in self)


_TEXT = {
    Doubt.SIGN: "The average sign is not resolved from zero, so averages mean nothing: use higher temperatures or method.kind = "
    '"variational".',
    Doubt.MIXING: f"The Markov chains disagree (r_hat > {MAX_R_HAT}), so errors are too small: take more samples.",
    Doubt.FEW: f"Fewer than {MIN_N_EFF} independent samples: errors are themselves uncertain. Take more samples.",
    Doubt.STATE: "The network does not hold the thermal state (r^2 or the infidelity is large): the systematic error is only an order of "
    "magnitude. Larger method.alpha or method.layers, or higher temperatures.",
}


def doubts_of_chains(observables: Mapping[str, Estimate]) -> Doubt:
    """What r_hat and n_eff of all observables, arrays included, say; those without error are exact."""
    found = Doubt.NONE
    for estimate in observables.values():
        if np.any(_sampled(estimate, estimate.r_hat) > MAX_R_HAT):
            found |= Doubt.MIXING
        n_eff = _sampled(estimate, estimate.n_eff)
        if np.any((n_eff > 0) & (n_eff < MIN_N_EFF)):  # 0 is that of a series without scatter, whose error is not its own
            found |= Doubt.FEW
    return found


def _sampled(estimate: Estimate, values: np.ndarray | None) -> np.ndarray:
    """The values at the entries that have an error; none where there are no values."""
    return np.zeros(0) if values is None else np.asarray(values)[np.asarray(estimate.error) > 0]

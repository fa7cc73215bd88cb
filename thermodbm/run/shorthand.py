"""Numbers with errors as text."""

import numpy as np
from uncertainties import ufloat

VANISHING, ROUNDING = 1e-10, 1e-14
"""What is smaller is zero by symmetry: as a sampled value with its error, and as an exact value."""


def shorthand(mean: float, error: float) -> str:
    """A number with its error in the last digit.

    >>> shorthand(-1.271441, 0.00023), shorthand(0.5, 0.0), shorthand(float("nan"), float("nan"))
    ('-1.2714(2)', '0.5', '-')
    """
    if np.isinf(mean):
        return f"{mean}"
    if np.isnan(mean):
        return "-"
    if max(abs(mean), error) < (VANISHING if error else ROUNDING):
        return "0"
    if not 0 <= error < np.inf:
        return f"{mean:.4g}(?)"
    if error <= max(1e-12 * abs(mean), 1e-280):  # as good as exact, and beyond what can be written with all its digits
        return f"{mean:.10g}"
    return f"{ufloat(mean, error):.1uS}"

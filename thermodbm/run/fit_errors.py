"""Errors in a fit: of the data and the model in the weights, and of the parameters in the end."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg

UNDETERMINED = 1.0
"""Relative error of a combination of parameters beyond which it is named instead of given."""


def whitened(covariance: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """L^-1 x of arrays (n,) or (n, k), with the covariance L L^T: sums of squares are then chi^2.

    A point of which the model knows nothing has an infinite variance, and no weight.
    """
    finite = np.nan_to_num(covariance, nan=0.0, posinf=1e100)
    try:
        lower = np.linalg.cholesky(finite)
    except np.linalg.LinAlgError:  # blocks of a covariance come from several approximations, and need not fit to all digits
        lower = np.diag(np.sqrt(np.diag(finite)))
    return [scipy.linalg.solve_triangular(lower, x, lower=True) for x in columns]


def parameter_errors(
    jacobian: np.ndarray, theta: np.ndarray, names: Sequence[str], positive: Sequence[bool], factor: float
) -> tuple[np.ndarray, list[str]]:
    """Inverse of J^T J (times a factor), and combinations whose relative error is beyond `UNDETERMINED`, told by their parameters."""
    size = np.where(theta != 0, np.abs(theta), 1 / np.maximum(np.sqrt(np.sum(jacobian**2, 0)), 1e-300))
    relative = jacobian * size
    _, singular, ways = np.linalg.svd(relative, full_matrices=False)
    width = np.sqrt(factor) / np.maximum(singular, 1e-12 * max(singular.max(initial=0.0), 1e-300))
    covariance = (ways.T * width**2) @ ways * np.outer(size, size)
    couplings = np.array(positive, bool)
    vague = []
    for w, way in zip(width, ways, strict=True):
        if w > UNDETERMINED and np.abs(way[couplings]).max(initial=0.0) > 0.3:
            parts = [f"{names[j]} {way[j]:+.2f}" for j in np.argsort(-np.abs(way)) if abs(way[j]) > 0.1]
            vague.append(f"{', '.join(parts)} (relative error {w:.2g})")
    return covariance, vague

"""Integrals along the way from infinite temperature: ln Z, and what the parameters could not follow."""

from typing import NamedTuple

import numpy as np


class Path(NamedTuple):
    """Where the evolution has come to, and integrals over beta up to there; per site unless said otherwise."""

    beta: float
    energy: float
    energy_error: float  # statistical
    variance: float  # Var(H)/N = -de/dbeta of the exact evolution
    residual: float  # r^2
    log_z: float
    log_z_variance: float  # statistical
    missed: float  # int r^2 Var/N: by so much the energy is off to first order
    share: float  # int r^2 sqrt(Var) of the total Var: other averages are off by this share of their own spread
    systematic: float  # error of the energy, from `missed` and what else is wrong with the state
    systematic_area: float  # its integral: error of ln Z


def infinite_temperature(variance: float) -> Path:
    """Where the way begins: energy and its slope -variance are those of a traceless H."""
    return Path(0.0, 0.0, 0.0, variance, 0.0, float(np.log(2)), 0.0, 0.0, 0.0, 0.0, 0.0)


def extend(
    path: Path,
    n_sites: int,
    beta: float,
    energy: float,
    energy_error: float,
    variance: float,
    residual: float,
    off: float,
    variance_off: float = 0.0,
) -> Path:
    """Integrals from the last beta to this one: ln Z = -int e dbeta by Hermite's rule, the others by the trapezoidal one.

    Args:
        off: share of their spread by which averages are off besides, see `Path.share`.
        variance_off: share by which the variance is off, which Hermite's rule uses.
    """
    d = float(beta) - path.beta
    area = d * (path.energy + energy) / 2 - d**2 * (path.variance - variance) / 12

    def integral(at: float, rate: float) -> float:
        return float(at + d / 2 * rate)

    missed = integral(path.missed, path.residual * path.variance + residual * variance)
    share = integral(path.share, path.residual * np.sqrt(n_sites * path.variance) + residual * np.sqrt(n_sites * variance))
    systematic = float(missed + off * np.sqrt(variance / n_sites))
    return Path(
        beta=float(beta),
        energy=float(energy),
        energy_error=float(energy_error),
        variance=float(variance),
        residual=float(residual),
        log_z=float(path.log_z - area),
        log_z_variance=float(path.log_z_variance + d**2 / 2 * (path.energy_error**2 + energy_error**2)),
        missed=missed,
        share=share,
        systematic=systematic,
        systematic_area=integral(path.systematic_area, path.systematic + systematic) + d**2 / 12 * variance_off * float(variance),
    )

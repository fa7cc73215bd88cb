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
    count: float  # effective number of samples behind these; inf where all configurations are summed
    log_z: float
    log_z_variance: float  # statistical
    missed: float  # int r^2 Var/N: by so much the energy is off to first order
    share: float  # int r^2 sqrt(Var) of the total Var: other averages are off by this share of their own spread
    systematic: float  # error of the energy, from `missed` and what else is wrong with the state
    systematic_area: float  # its integral: error of ln Z
    fallen: float  # int Var (1 - r^2)/N: by so much the energy should have fallen from infinite temperature
    fallen_variance: float  # statistical


def infinite_temperature(variance: float) -> Path:
    """Where the way begins: energy and its slope -variance are those of a traceless H."""
    return Path(0.0, 0.0, 0.0, variance, 0.0, np.inf, float(np.log(2)), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


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
    count: float = np.inf,
) -> Path:
    """Integrals from the last beta to this one: ln Z = -int e dbeta by Hermite's rule, the others by the trapezoidal one.

    Args:
        off: share of their spread by which averages are off besides, see `Path.share`.
        variance_off: share by which the variance is off, which Hermite's rule uses.
        count: effective number of samples, of which the variance has a relative error of some 2/sqrt(count).
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
        count=float(count),
        log_z=float(path.log_z - area),
        log_z_variance=float(path.log_z_variance + d**2 / 2 * (path.energy_error**2 + energy_error**2)),
        missed=missed,
        share=share,
        systematic=systematic,
        systematic_area=integral(path.systematic_area, path.systematic + systematic) + d**2 / 12 * variance_off * float(variance),
        fallen=integral(path.fallen, path.variance * (1 - path.residual) + variance * (1 - residual)),
        fallen_variance=float(path.fallen_variance + d**2 * (path.variance**2 / path.count + variance**2 / count)),
    )


def unexplained(path: Path) -> float:
    """How far the energy is from where its slope along the way has led, beyond what the noise of both explains.

    The slope of any state that follows these equations is -Var (1 - r^2). Configurations that were too rare to be seen when their
    amplitudes moved enter neither Var nor r^2, but the energy as soon as they are frequent.
    """
    gap = path.energy + path.fallen
    return float(np.sqrt(max(gap**2 - path.energy_error**2 - path.fallen_variance, 0.0)))

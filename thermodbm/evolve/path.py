"""Integrals along the way from infinite temperature: ln Z, and what the parameters could not follow."""

from typing import NamedTuple

import numpy as np

from thermodbm.evolve.clock import kept, lost, pace

EXPLAINED = 3.0
"""Few standard deviations are chance; the noise of slopes is much larger than what they tell of the energy's own error."""


class Path(NamedTuple):
    """Where the evolution has come to, and integrals over beta up to there; per site unless said otherwise."""

    beta: float
    energy: float
    energy_error: float  # statistical
    variance: float  # Var(H)/N = -de/dbeta of the exact evolution
    slow: float  # the share by which the energy falls slower than that in a time 2 tau, r^2 but for chance
    slow_error: float  # statistical
    fall_error: float  # statistical, of variance (1 - slow)
    log_z: float
    log_z_variance: float  # statistical
    lag: float  # int slow (1 - slow) dt: by so much beta is less than the time t = 2 tau, see `clock`
    lag_variance: float  # statistical
    drift: float  # int slow sqrt(Var) dt of the total Var: other averages are off by this share of their own spread
    drift_variance: float  # statistical
    reached: float  # the most that a distance of the state from the exact one could do to the energy so far
    factor: float  # the energy is off by at most so many times what the lag comes to, see `Ansatz.lag`
    systematic: float  # error of the energy, from the lag and what else is wrong with the state
    systematic_area: float  # its integral: error of ln Z
    fallen: float  # int Var (1 - slow)/N dt: by so much the energy should have fallen from infinite temperature
    fallen_variance: float  # statistical

    @property
    def share(self) -> float:
        """Averages are off by this share of their own spread, or not by more than chance would have it seem."""
        return float(np.sqrt(self.drift**2 + self.drift_variance))


def infinite_temperature(variance: float, factor: float) -> Path:
    """Where the way begins: energy and its slope -variance are those of a traceless H. `factor` see `Path`."""
    start = dict.fromkeys(Path._fields, 0.0)
    return Path(**start | {"variance": variance, "log_z": float(np.log(2)), "factor": factor})


def extend(
    path: Path,
    n_sites: int,
    beta: float,
    energy: float,
    energy_error: float,
    variance: float,
    slow: float,
    slow_error: float,
    off: float,
    variance_off: float = 0.0,
    fall_error: float = 0.0,
) -> Path:
    """Integrals from the last beta to this one: ln Z = -int e dbeta by Hermite's rule, the others by the trapezoidal one.

    Args:
        slow: see `Path`; `slow_error` is its statistical error.
        off: share of their spread by which averages are off besides, see `Path.share`.
        variance_off: share by which the variance is off, which Hermite's rule uses.
        fall_error: statistical error of variance (1 - slow).
    """
    d = float(beta) - path.beta
    falls = [x * kept(y) for x, y in ((path.variance, path.slow), (variance, slow))]
    area = d * (path.energy + energy) / 2 - d**2 * (falls[0] - falls[1]) / 12

    def integral(at: float, rate: float) -> float:
        return float(at + d / 2 * rate)

    def chance(at: float, error: float) -> float:  # of the next in a sum of independent terms
        return float(at + d**2 / 2 * error**2)

    lag = integral(path.lag, 1 / pace(path.slow) + 1 / pace(slow) - 2)
    lag_variance = chance(chance(path.lag_variance, path.slow_error), slow_error)
    drift = integral(path.drift, lost(path.slow) * np.sqrt(n_sites * path.variance) + lost(slow) * np.sqrt(n_sites * variance))
    drift_variance = path.drift_variance + n_sites * variance * (lag_variance - path.lag_variance)
    # what the state is off by in cold states hardly counts while these are rare: the energy's error need not shrink with its spread
    reached = max(path.reached, float(off * np.sqrt(variance / n_sites)))
    systematic = float(np.hypot(path.factor * lag, np.sqrt(lag_variance)) * variance + reached)
    return path._replace(
        beta=float(beta),
        energy=float(energy),
        energy_error=float(energy_error),
        variance=float(variance),
        slow=float(slow),
        slow_error=float(slow_error),
        fall_error=float(fall_error),
        log_z=float(path.log_z - area),
        log_z_variance=float(path.log_z_variance + d**2 / 2 * (path.energy_error**2 + energy_error**2)),
        lag=lag,
        lag_variance=lag_variance,
        drift=drift,
        drift_variance=float(drift_variance),
        reached=reached,
        systematic=systematic,
        systematic_area=integral(path.systematic_area, path.systematic + systematic) + d**2 / 12 * variance_off * float(variance),
        fallen=integral(path.fallen, sum(falls)),
        fallen_variance=chance(chance(path.fallen_variance, path.fall_error), fall_error),
    )


def unexplained(path: Path) -> float:
    """How far the energy is from where its slope along the way has led, beyond `EXPLAINED` times the noise of both.

    The slope of any state that follows these equations is -Var (1 - slow). Configurations that were too rare to be seen when their
    amplitudes moved enter neither, but the energy as soon as they are frequent.
    """
    gap = path.energy + path.fallen
    return float(np.sqrt(max(gap**2 - EXPLAINED**2 * (path.energy_error**2 + path.fallen_variance), 0.0)))

"""Integrals along the way from infinite temperature: ln Z, and what the residual does to the energy."""

import numpy as np

from thermodbm.evolve.method import State

INFINITE_TEMPERATURE = {
    "beta": 0.0,
    "log_z": float(np.log(2)),
    "log_z_variance": 0.0,
    "energy": 0.0,
    "energy_error": 0.0,
    "residual": 0.0,
    "systematic": 0.0,
}
"""Where the integrals along the way begin, per site: energy and its slope -variance are those of a traceless H."""


def extend(path: State, beta: float, energy: float, energy_error: float, variance: float, residual: float) -> State:
    """Integrals from the last beta to this one: ln Z = -int e dbeta by Hermite's rule; effect of r^2 on e by the trapezoidal one."""
    d = beta - path["beta"]
    area = d * (path["energy"] + energy) / 2 - d**2 * (path["variance"] - variance) / 12
    return {
        "beta": float(beta),
        "log_z": float(path["log_z"] - area),
        "log_z_variance": float(path["log_z_variance"] + d**2 / 2 * (path["energy_error"] ** 2 + energy_error**2)),
        "energy": float(energy),
        "energy_error": float(energy_error),
        "variance": float(variance),
        "residual": float(residual),
        "systematic": float(path["systematic"] + d * (path["residual"] * path["variance"] + residual * variance) / 2),
    }

"""Integrals along the way, and what of the energy they do not explain."""

import numpy as np
import pytest

from thermodbm.evolve.path import extend, infinite_temperature, unexplained

BETAS = np.linspace(0.02, 1.0, 50)


def walk(jump, count):
    """Free spins in a unit field along x, e = -tanh(beta), whose energy is off by `jump` from beta = 1/2 on; all else is right."""
    path = infinite_temperature(1.0)
    for beta in BETAS:
        energy = -np.tanh(beta) + (jump if beta > 0.5 else 0.0)
        path = extend(path, 1, beta, energy, 0.0, 1 / np.cosh(beta) ** 2, 0.0, 0.0, count=count)
    return path


@pytest.mark.parametrize("jump", [0.0, 0.02, -0.05])
def test_an_energy_that_left_its_own_slope_is_seen(jump):
    """The trapezoidal rule itself is good to 1e-4 here."""
    assert abs(unexplained(walk(jump, np.inf)) - abs(jump)) < 2e-4


def test_noise_of_the_slope_explains_what_it_can():
    """100 samples leave each variance uncertain by a fifth: a gap of .01 is within that of the integral, one of .2 is not."""
    assert unexplained(walk(0.01, 100)) == 0
    assert 0.15 < unexplained(walk(0.2, 100)) < 0.2


def test_entropy_of_free_spins():
    path = walk(0.0, np.inf)
    np.testing.assert_allclose(path.log_z, np.log(2 * np.cosh(1.0)), atol=1e-6)

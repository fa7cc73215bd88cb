"""Integrals along the way, and what of the energy they do not explain."""

import numpy as np
import pytest

from thermodbm.evolve.path import extend, infinite_temperature, unexplained

BETAS = np.linspace(0.02, 1.0, 50)


def walk(jump, noise):
    """Free spins in a unit field along x, e = -tanh(beta), whose energy is off by `jump` from beta = 1/2 on; all else is right."""
    path = infinite_temperature(1.0, 2.0)
    for beta in BETAS:
        energy = -np.tanh(beta) + (jump if beta > 0.5 else 0.0)
        path = extend(path, 1, beta, energy, 0.0, 1 / np.cosh(beta) ** 2, 0.0, 0.0, 0.0, fall_error=noise)
    return path


@pytest.mark.parametrize("jump", [0.0, 0.02, -0.05])
def test_an_energy_that_left_its_own_slope_is_seen(jump):
    """The trapezoidal rule itself is good to 1e-4 here."""
    assert abs(unexplained(walk(jump, 0.0)) - abs(jump)) < 2e-4


def test_noise_of_the_slope_explains_what_it_can():
    """Fifty slopes, each uncertain by .1, leave their integral uncertain by .014: three times that explain a gap of .04, not one of .2."""
    assert unexplained(walk(0.04, 0.1)) == 0
    assert 0.15 < unexplained(walk(0.2, 0.1)) < 0.2


def test_chance_in_rates_averages_out_and_a_lasting_share_does_not():
    """A share of the slope that is missed at every step adds up; one of either sign leaves its statistical error, about once."""
    rng, rates = np.random.default_rng(1), []
    for _ in range(200):
        path = infinite_temperature(1.0, 2.0)
        for beta in BETAS:
            path = extend(path, 1, beta, -beta, 0.0, 1.0, rng.normal(0.0, 0.1), 0.1, 0.0)
        rates.append(path.lag / np.sqrt(path.lag_variance))
        assert path.share < 0.1
    assert 0.8 < np.std(rates) < 1.2
    for beta in BETAS + 1:
        path = extend(path, 1, beta, -beta, 0.0, 1.0, 0.1, 0.1, 0.0)
    assert abs(path.lag - 0.1) < 0.05


def test_entropy_of_free_spins():
    path = walk(0.0, 0.0)
    np.testing.assert_allclose(path.log_z, np.log(2 * np.cosh(1.0)), atol=1e-6)

import numpy as np
import pytest
from exchange_ring import trotter_bias

from thermodbm.estimate.extrapolation import extrapolate
from thermodbm.estimate.statistics import Estimate
from thermodbm.models import make_lattice, xxz

U = np.array([1.0, 4.0, 16.0])


def levels(x, sigma, rng=None):
    noise = np.zeros(3) if rng is None else rng.normal(size=3) * sigma
    return [Estimate(np.asarray(a), np.asarray(s)) for a, s in zip(x + noise, sigma, strict=True)]


def test_fourth_order_polynomial_is_extrapolated_exactly():
    e = extrapolate(levels(2.0 - 0.3 * U + 0.01 * U**2, np.full(3, 1e-9)), U, (0.0, 0.1), left_over=0.3)
    assert abs(e.mean - 2.0) < 1e-6


@pytest.mark.parametrize("typical", [-0.03, 0.0, 0.05])
def test_extrapolation_errors_are_right(typical):
    """Pulls with statistical noise and a fourth order that scatters by half its prior width: mean square below 1 + 5 sigma of 400 trials,
    not far below."""
    rng = np.random.default_rng(0)
    pulls = []
    for _ in range(400):
        slope = rng.normal()
        curve = (typical + 0.01 * rng.normal()) * slope
        sigma = np.array([0.02, 0.03, 0.04])
        e = extrapolate(levels(1.0 + slope * U + curve * U**2, sigma, rng), U, (typical, 0.02))
        pulls.append((e.mean - 1.0) / e.error)
    assert 0.3 < np.mean(np.square(pulls)) < 1.36


def test_what_is_not_fitted_enters_the_error():
    """A sixth-order term of 1e-3 per level is not seen by the fit, but its size is."""
    e = extrapolate(levels(1.0 + 0.05 * U + 1e-3 * U**2 + 2e-5 * U**3, np.full(3, 1e-8)), U, (0.0, 0.1), left_over=0.3)
    assert e.error > abs(e.mean - 1.0) / 3 > 0


def test_arrays_and_single_levels():
    one = Estimate(np.zeros(4), np.ones(4))
    assert extrapolate([one], np.ones(1), (0.0, 0.1)) is one
    arrays = [Estimate(np.arange(4) + 0.1 * u, np.full(4, 1e-3)) for u in U]
    e = extrapolate(arrays, U, (0.0, 0.1))
    np.testing.assert_allclose(e.mean, np.arange(4), atol=1e-2)
    assert e.error.shape == (4,)


def test_a_level_that_saw_nothing_does_not_dominate():
    """The finest levels of a gapped magnet see a few events, the coarsest none: its error of zero is one of ignorance."""
    e = extrapolate(levels(np.array([1.1e-3, 4.9e-4, 0.0]), np.array([3.9e-4, 4.9e-4, 1.1e-15])), U, (0.0, 0.01), left_over=0.1)
    assert e.error > 3.9e-4 and abs(e.mean - 1.1e-3) < 3 * e.error
    e = extrapolate(levels(np.array([0.0, 4.9e-4, 2e-4]), np.array([0.0, 4.9e-4, 4e-4])), U, (0.0, 0.01))
    assert e.error > 1e-4 and abs(e.mean) < 3 * e.error


@pytest.mark.parametrize("options", [{}, {"left_over": 0.3}, {"left_over": 0.3, "fourth": 1e-4}, {"left_over": 0.0, "fourth": 0.0}])
def test_fits_are_never_singular(options):
    """Levels without scatter, zeros, infinities and missing values are dealt with entry by entry."""
    nan, inf = np.nan, np.inf
    means = np.array([[0.0, 2.0, 1.0, nan, 1.0, inf, 0.5], [0.0, 2.0, 1.1, 1.0, 1.0, 1.0, 0.6], [0.0, 2.0, 1.5, 1.0, 1.0, 1.0, 0.9]])
    errors = np.array([[0.0, 0.0, 0.0, 0.1, inf, 0.1, 0.01], [0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.02], [0.0, 0.0, 0.0, 0.1, 0.1, nan, 0.03]])
    e = extrapolate([Estimate(m, s) for m, s in zip(means, errors, strict=True)], U, (-0.01, 0.02), **options)
    assert e.mean[0] == 0 and e.mean[1] == 2 and (e.error[:2] == 0).all()
    assert np.isfinite([e.mean[2], e.error[2], e.mean[6], e.error[6]]).all()
    assert np.isnan(e.mean[[3, 5]]).all() and np.isinf(e.error[3:6]).all() and not np.isnan(e.error).any()
    for k in (2, 6):  # each entry as if alone
        alone = extrapolate([Estimate(m[k], s[k]) for m, s in zip(means, errors, strict=True)], U, (-0.01, 0.02), **options)
        if not options.get("fourth"):  # a width in units of the largest value of the array
            np.testing.assert_allclose([alone.mean, alone.error], [e.mean[k], e.error[k]], rtol=1e-9)


def test_a_known_width_of_the_fourth_order_is_used():
    """A narrow prior makes the error smaller, and the coarsest level does not pull."""
    x, sigma = 0.5 - 1e-3 * U + 1e-6 * U**2, np.full(3, 1e-4)
    narrow, free = (extrapolate(levels(x, sigma), U, (0.0, 0.1), left_over=0.1, fourth=f) for f in (4e-6, None))
    assert narrow.error < 0.8 * free.error
    assert abs(narrow.mean - 0.5) < narrow.error


RING, TORUS = (lambda n: make_lattice("chain", n)), make_lattice("square", (2, 3))


@pytest.mark.parametrize(
    "lattice, delta, J, h, betas",
    [
        (RING(4), 0.5, 1.0, 0.0, (1.0, 4.0, 16.0)),
        (RING(4), 1.0, 1.0, 0.0, (4.0, 16.0)),
        (RING(4), 1.0, 1.0, 0.7, (4.0, 16.0)),
        (RING(5), 5.0, 1.0, 0.0, (4.0, 16.0)),
        (RING(6), 1.0, 1.0, 0.0, (1.0, 4.0, 8.0, 16.0)),
        (RING(6), 2.0, 1.0, 0.0, (4.0, 8.0, 16.0)),
        (RING(6), 0.0, -1.0, 0.0, (8.0,)),
        (RING(7), 1.0, 1.0, 0.0, (8.0,)),
        (RING(8), 0.5, 1.0, 0.0, (4.0,)),
        (TORUS, 0.0, -1.0, 0.7, (4.0,)),
        (TORUS, 5.0, 1.0, 0.0, (8.0,)),
    ],
)
def test_exchange_magnets_are_extrapolated_within_their_errors(lattice, delta, J, h, betas):
    """Bias of every observable at most a third of the error bar of a run whose energy is right to 1e-4; without Monte Carlo.

    The cases are the worst ones of benchmarks/exchange_trotter.py.
    """
    for beta in betas:
        for name, (bias, error) in trotter_bias(xxz(lattice, J, delta, h), beta, 1e-4).items():
            np.testing.assert_array_less(np.abs(bias), error / 3 + 1e-12, err_msg=f"{name} at beta = {beta}")

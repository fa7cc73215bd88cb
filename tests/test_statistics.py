import numpy as np

from thermodbm.estimate.statistics import append_blocks, from_blocks, from_chains, with_controls


def autoregressive(rng, n_sweeps, n_chains, rho):
    """Stationary series of unit variance with tau_int = (1 + rho) / (2 (1 - rho))."""
    x = np.empty((n_sweeps, n_chains))
    x[0] = rng.normal(size=n_chains)
    for k in range(1, n_sweeps):
        x[k] = rho * x[k - 1] + np.sqrt(1 - rho**2) * rng.normal(size=n_chains)
    return x


def test_errors_of_correlated_series_are_right():
    """Pulls over 200 series have unit variance: 200 chi^2 degrees of freedom scatter by 10%."""
    rng = np.random.default_rng(0)
    estimates = [from_chains(autoregressive(rng, 200, 16, 0.8)) for _ in range(200)]
    pulls = np.array([e.mean / e.error for e in estimates])
    assert 0.8 < np.mean(pulls**2) < 1.25
    assert abs(np.mean([e.tau_int for e in estimates]) - 4.5) < 0.5


def test_disagreeing_chains_are_seen():
    rng = np.random.default_rng(1)
    series = rng.normal(size=(200, 8)) + np.array([0, 0, 0, 0, 3, 3, 3, 3])
    e = from_chains(series)
    assert e.r_hat > 1.5 and e.error > 0.3


def test_blocking_keeps_error_and_autocorrelation_time():
    series = autoregressive(np.random.default_rng(2), 4096, 16, 0.8)
    blocks = append_blocks(append_blocks(None, series[:1024], 16), series[1024:], 16)
    fine, coarse = from_chains(series), from_chains(blocks, block=16)
    assert blocks.shape == (256, 16)
    np.testing.assert_allclose(coarse.mean, fine.mean)
    np.testing.assert_allclose(coarse.error, fine.error, rtol=0.1)


def test_constant_and_short_series():
    assert from_chains(np.ones((100, 4))).error == 0
    assert np.isfinite(from_chains(np.random.default_rng(0).normal(size=(2, 8))).error)


def test_block_averages_of_arrays():
    values = np.random.default_rng(0).normal(size=(8, 3, 64)) + np.arange(3)[:, None]
    e = from_blocks(values)
    np.testing.assert_allclose(e.mean, values.mean((0, 2)))
    np.testing.assert_allclose(e.error, 1 / np.sqrt(8 * 64), rtol=0.15)


def test_controls_take_away_what_they_explain():
    """x = mean + 2 c_1 - c_2 + noise with autocorrelated controls: the mean stays within 4.5 errors, and the error is the noise's own."""
    random = np.random.default_rng(8)
    noise = random.normal(size=(3, 4000, 8))
    slow = np.cumsum(noise[:2], axis=1)
    controls = list(slow[:, 3:] - slow[:, :-3])
    x = 0.7 + 2 * controls[0] - controls[1] + 0.1 * noise[2, 3:]
    plain, controlled = from_chains(x), from_chains(with_controls(x, controls))
    assert plain.error > 10 * controlled.error
    assert 0.8 < controlled.error / (0.1 / np.sqrt(x.size)) < 1.3
    assert abs(controlled.mean - 0.7) < 4.5 * controlled.error

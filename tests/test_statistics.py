import numpy as np
import pytest

from thermodbm.estimate.statistics import append, from_blocks, from_chains, no_blocks, split_ess, with_controls


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


def test_effective_sample_sizes_are_those_of_arviz():
    """To ten digits, for short and long chains, one and many, odd lengths, antithetic and disagreeing ones, and chains that never move."""
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    rng = np.random.default_rng(6)
    for n_draws, n_chains, rho in [(4, 64, 0.0), (5, 3, 0.5), (313, 64, 0.5), (64, 8, 0.95), (500, 4, 0.99), (301, 1, 0.7), (400, 2, -0.9)]:
        series = autoregressive(rng, n_draws, n_chains, rho)
        apart = series + 3 * rng.normal(size=n_chains)
        for x in (series, apart, np.round(series), 0 * series + apart[:1]):
            if np.ptp(x) > 0:
                assert split_ess(x) == pytest.approx(array_stats.ess(x.T, chain_axis=0, draw_axis=1, method="mean"), rel=1e-10)


def test_disagreeing_chains_are_seen():
    rng = np.random.default_rng(1)
    series = rng.normal(size=(200, 8)) + np.array([0, 0, 0, 0, 3, 3, 3, 3])
    e = from_chains(series)
    assert e.r_hat > 1.5 and e.error > 0.3


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_blocking_keeps_error_and_autocorrelation_time(rho):
    """White noise has tau_int = 1/2, however long its blocks are."""
    series = autoregressive(np.random.default_rng(2), 4096, 16, rho)
    blocks = no_blocks((16,))
    for part in np.split(series, [1000, 1100]):
        blocks = append(blocks, part, 128)
    fine, coarse = from_chains(series), from_chains(blocks.means, blocks.length, series.var())
    assert blocks.length == 32 and len(blocks.means) == 128
    for name, tolerance in (("mean", 1e-12), ("error", 0.15), ("tau_int", 0.3), ("n_eff", 0.3), ("r_hat", 1e-3)):
        np.testing.assert_allclose(getattr(coarse, name), getattr(fine, name), rtol=tolerance, err_msg=name)
    assert abs(coarse.tau_int / ((1 + rho) / (2 * (1 - rho))) - 1) < 0.2


def test_blocks_hold_every_draw_in_order():
    """Blocks are averages over stretches without gaps, whatever the lengths in which draws come; what is left over is counted too."""
    rng = np.random.default_rng(3)
    draws, blocks, done = rng.normal(size=(1000, 3)), no_blocks((3,)), 0
    while done < 1000:
        n = int(rng.integers(1, 60))
        blocks = append(blocks, draws[done : done + n], 8)
        done += n
        seen = draws[: min(done, 1000)]
        whole = len(blocks.means) * blocks.length
        assert blocks.n_draws == len(seen) and len(blocks.means) < 16 and 0 <= blocks.n_rest < blocks.length
        np.testing.assert_allclose(blocks.means, seen[:whole].reshape(-1, blocks.length, 3).mean(1))
        np.testing.assert_allclose(blocks.mean, seen.mean(0))


def test_constant_and_short_series():
    assert from_chains(np.ones((100, 4))).error == 0
    assert np.isfinite(from_chains(np.random.default_rng(0).normal(size=(2, 8))).error)


@pytest.mark.parametrize("tau", [0.5, 5.0, 10.0])
@pytest.mark.parametrize("n_chains", [2, 16, 64])
def test_errors_of_arrays_are_right_for_correlated_draws(tau, n_chains):
    """Pulls over 100 series of 400 draws (1600 of two chains) that come eight at a time: mean square 1 within four standard deviations of
    200 values with 19 degrees of freedom or more each. Averages over draws in turn fail by factors of 2 to 7 at tau_int = 5, 10."""
    rng, rho = np.random.default_rng(0), (2 * tau - 1) / (2 * tau + 1)
    pulls, n_draws = [], 1600 if n_chains == 2 else 400
    for _ in range(100):
        series = np.stack([autoregressive(rng, n_draws, n_chains, rho) for _ in range(2)], -1)
        blocks = no_blocks((n_chains, 2))
        for part in series.reshape(-1, 8, n_chains, 2):
            blocks = append(blocks, part, max(8, 64 // n_chains))
        e = from_blocks(blocks, np.ones(2))
        pulls.append(e.mean / e.error)
    assert 0.6 < np.mean(np.square(pulls)) < 1.6


def test_arrays_know_their_autocorrelation_and_disagreement():
    rng = np.random.default_rng(5)
    series = np.stack([autoregressive(rng, 512, 32, rho) for rho in (0.0, 0.8)], -1)
    series = np.concatenate([series, series[..., :1] + np.repeat([0.0, 3.0], 16)[:, None]], -1)
    blocks = append(no_blocks((32, 3)), series, 8)
    e = from_blocks(blocks, series.var((0, 1)))
    np.testing.assert_allclose(e.tau_int[:2], [0.5, 4.5], rtol=0.6)
    assert (e.r_hat[:2] < 1.05).all() and e.r_hat[2] > 1.5
    np.testing.assert_allclose(e.n_eff[:2], 512 * 32 / (2 * e.tau_int[:2]))


def test_one_chain_of_one_draw_has_no_error_bar():
    e = from_blocks(append(no_blocks((1, 2)), np.ones((1, 1, 2)), 8), np.zeros(2))
    assert np.isinf(e.error).all() and np.isnan(e.r_hat).all()


def test_half_chains_of_one_draw_tell_no_disagreement():
    """Thousands of chains of two draws each: r_hat was a million, and the temperature not trusted."""
    draws = np.random.default_rng(6).normal(size=(2, 4096, 1))
    e = from_blocks(append(no_blocks((4096, 1)), draws, 8), draws.var((0, 1)))
    assert np.isnan(e.r_hat).all() and e.n_eff[0] > 4000
    assert np.isnan(from_chains(draws[..., 0]).r_hat)
    more = np.random.default_rng(7).normal(size=(4, 4096, 1))
    assert (from_blocks(append(no_blocks((4096, 1)), more, 8), more.var((0, 1))).r_hat < 1.05).all()


def test_controls_take_away_what_they_explain():
    """x = mean + 2 c_1 - c_2 + noise with autocorrelated controls: the mean stays within 4.5 errors, and the error is the noise's own."""
    random = np.random.default_rng(8)
    noise = random.normal(size=(3, 4000, 8))
    slow = np.cumsum(noise[:2], axis=1)
    controls = list(slow[:, 3:] - slow[:, :-3])
    x = 0.7 + 2 * controls[0] - controls[1] + 0.1 * noise[2, 3:]
    plain, controlled = from_chains(x), from_chains(with_controls(x, controls)[0])
    assert plain.error > 10 * controlled.error
    assert 0.8 < controlled.error / (0.1 / np.sqrt(x.size)) < 1.3
    assert abs(controlled.mean - 0.7) < 4.5 * controlled.error

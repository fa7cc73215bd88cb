"""From time series of Markov chains to means with honest error bars."""

from typing import NamedTuple

import numpy as np

ROUNDING = 1e-14
"""Variance in units of the squared mean that single precision, in which samplers work, makes by itself: a constant."""
MIN_BATCHES = 20
"""Batches from which the error of an array is taken: as long as they can be while there are so many, so that none knows of another."""


class Estimate(NamedTuple):
    """A number (or array of numbers) with its error and, where it was sampled, how well the chains behaved."""

    mean: np.ndarray
    error: np.ndarray  # one standard deviation, autocorrelation included
    tau_int: np.ndarray | None = None  # integrated autocorrelation time in draws; 1/2 for independent ones
    r_hat: np.ndarray | None = None  # split-chain convergence diagnostic, 1 when the chains agree; NaN where too few draws tell
    n_eff: np.ndarray | None = None  # number of independent draws that would give the same error


def exact(mean: np.ndarray | float) -> Estimate:
    """An `Estimate` without error."""
    mean = np.asarray(mean, float)
    return Estimate(mean, np.zeros_like(mean))


class Blocks(NamedTuple):
    """A series of draws (...) kept as averages over contiguous blocks, so that memory stays flat however long a run is."""

    means: np.ndarray  # (n_blocks, ...)
    length: int  # draws in a block
    rest: np.ndarray  # (...) sum of the draws behind the last whole block
    n_rest: int

    @property
    def n_draws(self) -> int:
        """All draws so far."""
        return len(self.means) * self.length + self.n_rest

    @property
    def mean(self) -> np.ndarray:
        """Of all draws, (...)."""
        return (self.means.sum(0) * self.length + self.rest) / self.n_draws


def no_blocks(shape: tuple[int, ...]) -> Blocks:
    """Nothing drawn yet."""
    return Blocks(np.zeros((0, *shape)), 1, np.zeros(shape), 0)


def append(blocks: Blocks, draws: np.ndarray, max_blocks: int) -> Blocks:
    """The series with draws (n, ...) behind it. At 2 max_blocks blocks neighbours are joined, and blocks are twice as long from then on."""
    means, length, rest, n_rest = blocks
    first = min(length - n_rest, len(draws)) if n_rest else 0
    rest, n_rest, draws = rest + draws[:first].sum(0), n_rest + first, draws[first:]
    if n_rest == length:
        means, rest, n_rest = np.concatenate([means, rest[None] / length]), np.zeros_like(rest), 0
    whole = len(draws) // length * length
    means = np.concatenate([means, draws[:whole].reshape(-1, length, *draws.shape[1:]).mean(1)])
    rest, n_rest = rest + draws[whole:].sum(0), n_rest + len(draws) - whole
    while len(means) >= 2 * max_blocks:
        even = len(means) // 2 * 2
        if even < len(means):
            rest, n_rest = rest + means[-1] * length, n_rest + length
        means, length = means[:even].reshape(-1, 2, *means.shape[1:]).mean(1), 2 * length
    return Blocks(means, length, rest, n_rest)


def from_chains(series: np.ndarray, block: int = 1, variance: float | None = None) -> Estimate:
    """Mean and error of a scalar from chains, (n_blocks, n_chains), each entry an average over `block` draws.

    error = sd / sqrt(n_eff) with the effective sample size of split chains, which knows both the autocorrelation within chains and their
    disagreement.

    Args:
        variance: of single draws, by which tau_int, r_hat and n_eff are told; that of the series where that is not blocked.
    """
    n_blocks, n_chains = series.shape
    mean, spread = series.mean(), series.var(ddof=1) if series.size > 1 else 0.0
    variance = spread if variance is None else variance
    n = series.size * block
    if spread <= ROUNDING * mean**2:
        return Estimate(*map(np.asarray, (mean, 0.0, 0.5, 1.0, float(n))))
    if n_blocks < 4:
        error = series.mean(0).std(ddof=1) / np.sqrt(n_chains) if n_chains > 1 else np.inf
    else:
        error = np.sqrt(spread / split_ess(series))
    n_eff = variance / error**2
    return Estimate(*map(np.asarray, (mean, error, n / (2 * n_eff) if n_eff else np.inf, _split_r_hat(series, block, variance), n_eff)))


def split_ess(series: np.ndarray) -> float:
    """Effective number of draws of a mean from chains (n_draws, n_chains), each cut in two (Vehtari et al., Bayesian Anal. 16, 667 (2021)).

    n_eff = n / tau, tau = -1 + 2 sum_k P_k with the pairs P_k = rho_2k + rho_2k+1 of autocorrelations as long as they are positive, made
    monotonous (Geyer 1992), and the even one behind them; rho_t = 1 - (W - mean over chains of acov_t) / (variance within and between).
    """
    half = len(series) // 2
    x = np.concatenate([series[:half], series[-half:]], axis=1).T
    n = x.shape[1]
    mean = x.mean(1)
    waves = np.fft.rfft(x - mean[:, None], 2 ** int(np.ceil(np.log2(2 * n))))
    acov = np.fft.irfft((np.abs(waves) ** 2).mean(0))[:n] / n
    within = acov[0] * n / (n - 1)
    rho = 1 - (within - acov) / (acov[0] + mean.var(ddof=1))
    rho[0] = 1.0
    pairs = rho[: max((n - 1) // 2, 1) * 2].reshape(-1, 2).sum(1)
    stop = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs) - 1
    tau = -1 + 2 * np.minimum.accumulate(pairs[:stop]).sum() + max(rho[2 * stop], 0.0)
    return x.size / max(tau, 1 / np.log10(x.size))


def from_blocks(blocks: Blocks, variance: np.ndarray) -> Estimate:
    """Mean and error of an array from draws (n_chains, k), elementwise in k.

    The error is that of at least `MIN_BATCHES` batches, contiguous and as long as they can be: whole chains, where there are enough.

    Args:
        variance: of single draws, (k,).
    """
    n_blocks, n_chains = blocks.means.shape[:2]
    per_chain = min(n_blocks, -(-MIN_BATCHES // n_chains))
    whole = n_blocks // per_chain * per_chain if per_chain else 0
    mean, n = blocks.mean.mean(0), blocks.n_draws * n_chains
    batches = blocks.means[:whole].reshape(per_chain, -1, *blocks.means.shape[1:]).mean(1) if whole else blocks.means
    batches = batches.reshape(-1, *blocks.means.shape[2:])
    if len(batches) < 2:
        unknown = np.full_like(mean, np.nan)
        return Estimate(mean, np.full_like(mean, np.inf), unknown, unknown, unknown)
    square = batches.var(0, ddof=1) / len(batches) * (whole * blocks.length / blocks.n_draws)
    variance = np.where(variance > ROUNDING * mean**2, variance, 0.0)
    square = np.where(variance > 0, square, 0.0)
    n_eff = np.divide(variance, square, out=np.full_like(mean, float(n)), where=square > 0)
    tau_int = np.divide(n, 2 * n_eff, out=np.full_like(mean, np.inf), where=n_eff > 0)
    return Estimate(mean, np.sqrt(square), tau_int, _split_r_hat(blocks.means, blocks.length, variance), n_eff)


R_HAT_NOISE = 0.025
"""Standard deviation of r_hat^2 for chains that agree, up to which it is given."""


def _split_r_hat(means: np.ndarray, length: int, variance: np.ndarray | float) -> np.ndarray:
    """Split r_hat, (...), from block averages (n_blocks, n_chains, ...) and the variance of single draws (...): with B the variance of the
    means of half chains of n draws, and W = (variance - B) n/(n - 1) that within them, r_hat^2 = 1 - 1/n + B/W."""
    half, n_chains = len(means) // 2, means.shape[1]
    n = half * length
    if n < 2 or n * R_HAT_NOISE < np.sqrt(2 / max(2 * n_chains - 1, 1)):  # half chains of one draw have nothing within
        return np.full(means.shape[2:], np.nan)
    halves = np.stack([means[:half].mean(0), means[half : 2 * half].mean(0)]).reshape(-1, *means.shape[2:])
    between = halves.var(0, ddof=1)
    within = np.maximum(variance - between, 1e-12 * np.asarray(variance)) * n / (n - 1)
    return np.sqrt(np.where(within > 0, 1 - 1 / n + np.divide(between, within, out=np.zeros_like(between), where=within > 0), 1.0))


def with_controls(series: np.ndarray, controls: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Series x - sum_k lambda_k c_k with the least error, from controls c_k of mean zero, all (n_blocks, n_chains); and the lambda_k.

    lambda is the regression coefficient of x on the c_k, both averaged over 64ths of the series so that autocorrelation counts. Its own
    error biases the mean by less than the error / sqrt(64 n_chains).
    """
    bunch = max(1, len(series) // 64)
    coarse = np.stack([x[: len(x) // bunch * bunch].reshape(-1, bunch, x.shape[-1]).mean(1).ravel() for x in (series, *controls)])
    coarse -= coarse.mean(1, keepdims=True)
    coefficients = np.linalg.lstsq(coarse[1:].T, coarse[0], rcond=1e-10)[0]
    return series - np.tensordot(coefficients, np.stack(controls), 1), coefficients

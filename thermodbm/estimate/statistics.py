"""From time series of Markov chains to means with honest error bars."""

from typing import NamedTuple

import numpy as np

MAX_BLOCKS = 1024
"""Blocks kept per chain: a longer series is averaged in pairs, so that memory stays flat however long a run is."""


class Estimate(NamedTuple):
    """A number (or array of numbers) with its error and, where it was sampled, how well the chains behaved."""

    mean: np.ndarray
    error: np.ndarray  # one standard deviation, autocorrelation included
    tau_int: np.ndarray | None = None  # integrated autocorrelation time in sweeps; 1/2 for independent samples
    r_hat: np.ndarray | None = None  # split-chain convergence diagnostic, 1 when the chains agree
    n_eff: np.ndarray | None = None  # number of independent samples that would give the same error


def exact(mean: np.ndarray | float) -> Estimate:
    """An `Estimate` without error."""
    mean = np.asarray(mean, float)
    return Estimate(mean, np.zeros_like(mean))


def append_blocks(series: np.ndarray | None, new: np.ndarray, block: int) -> np.ndarray:
    """Series (n_blocks, ..., n_chains) of averages over `block` sweeps, with a stretch (n_sweeps, ..., n_chains) put behind.

    n_sweeps must be a multiple of `block`.
    """
    blocks = new.reshape(-1, block, *new.shape[1:]).mean(1)
    return blocks if series is None else np.concatenate([series, blocks])


def from_chains(series: np.ndarray, block: int = 1) -> Estimate:
    """Mean and error of a scalar from chains, (n_blocks, n_chains), each entry an average over `block` sweeps.

    error = sd / sqrt(n_eff) with the effective sample size of split chains (Vehtari et al., Bayesian Anal. 16, 667 (2021), through ArviZ):
    it knows both the autocorrelation within chains and their disagreement.
    """
    from arviz_stats.base import array_stats  # slow to import, and not needed to validate, show or plot

    n_blocks, n_chains = series.shape
    mean, variance = series.mean(), series.var(ddof=1) if series.size > 1 else 0.0
    if variance <= 1e-26 * mean**2:
        return Estimate(*map(np.asarray, (mean, 0.0, 0.5 * block, 1.0, float(series.size * block))))
    if n_blocks < 4:
        error = series.mean(0).std(ddof=1) / np.sqrt(n_chains) if n_chains > 1 else np.inf
        return Estimate(*map(np.asarray, (mean, error, np.nan, np.nan, float(n_chains))))
    ess = float(array_stats.ess(series.T, chain_axis=0, draw_axis=1, method="mean"))
    r_hat = float(array_stats.rhat(series.T, chain_axis=0, draw_axis=1, method="split"))
    tau_int = block * series.size / (2 * ess)
    return Estimate(*map(np.asarray, (mean, np.sqrt(variance / ess), tau_int, r_hat, ess)))


def from_blocks(series: np.ndarray) -> Estimate:
    """Mean and error of an array from block averages (n_blocks, ..., n_chains), blocks much longer than the autocorrelation time."""
    spread = np.moveaxis(series, -1, 1).reshape(-1, *series.shape[1:-1])
    return Estimate(spread.mean(0), spread.std(0, ddof=1) / np.sqrt(len(spread)))


def with_controls(series: np.ndarray, controls: list[np.ndarray]) -> np.ndarray:
    """Series x - sum_k lambda_k c_k with the least error, from controls c_k of mean zero; all (n_blocks, n_chains).

    lambda is the regression coefficient of x on the c_k, both averaged over 64ths of the series so that autocorrelation counts. Its own
    error biases the mean by less than the error / sqrt(64 n_chains).
    """
    bunch = max(1, len(series) // 64)
    coarse = np.stack([x[: len(x) // bunch * bunch].reshape(-1, bunch, x.shape[-1]).mean(1).ravel() for x in (series, *controls)])
    coarse -= coarse.mean(1, keepdims=True)
    coefficients = np.linalg.lstsq(coarse[1:].T, coarse[0], rcond=1e-10)[0]
    return series - np.tensordot(coefficients, np.stack(controls), 1)

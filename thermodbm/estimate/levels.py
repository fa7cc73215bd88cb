"""What the chains of one Trotter step have yielded: their series, kept in contiguous blocks, and the estimates that these make.

Every scalar is a linear combination of a few measured series, ratios to the sign and fluctuations being expanded to first order about their
means. So the blocks of those series give its error, and their covariance from draw to draw its autocorrelation time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from thermodbm.errors import NumericsError
from thermodbm.estimate.ensemble import Samples
from thermodbm.estimate.statistics import Blocks, Estimate, append, from_blocks, from_chains, no_blocks, with_controls
from thermodbm.models.observables import OBSERVABLES

MAX_BLOCKS = 1024
"""Of scalars, per chain; there are up to twice as many."""
MAX_ARRAY_BLOCKS = 8
"""Of pair functions, per chain."""
CORRELATED = 256
"""Batches of all chains together from which correlations between estimates are taken."""
INTERMEDIATE = {
    "score",
    "slope",
    "worldline_energy",
    "energy_score",
    "sign",
    "kubo_squared",
    "magnetization_z_squared",
    "order_parameter_fourth",
}
"""Series that are no observables themselves."""
SQUARES = {"susceptibility_x": "transverse_squared", "static_susceptibility_zz": "static_squared_zz"}
"""Kubo responses that are beta times a series of fluctuations measured now and then."""


class Series(NamedTuple):
    """All draws of the chains of one Trotter step; everything is multiplied by the sign where there is one."""

    scalars: dict[str, Blocks]  # draws (n_chains,), one a sweep
    products: np.ndarray  # (n_scalars, n_scalars) sums of products of two scalars, in the order of their sorted names
    arrays: dict[str, Blocks]  # draws (n_chains, k), one a stretch
    squares: dict[str, np.ndarray]  # (2, k) sums of x^2, and of x times its sign, of arrays
    response: dict[str, Blocks]  # draws (n_chains, k), one a stretch, of `estimate.response`

    @property
    def n_draws(self) -> int:
        """Sweeps of each chain."""
        return self.scalars["energy"].n_draws


def add_samples(series: Series | None, samples: Samples, n_stretches: int) -> Series:
    """The series with the first stretches of `samples` behind it.

    Raises:
        NumericsError: for values that are not finite.
    """
    scalars = {name: _draws(v, n_stretches, 2) for name, v in sorted(samples.values.items())}
    arrays = {name: _draws(v if v.ndim == 4 else v[..., None], n_stretches, 1) for name, v in samples.rare.items()}
    scalars = {name: v.reshape(-1, v.shape[-1]) for name, v in scalars.items()}
    response = {name: _draws(v, n_stretches, 1) for name, v in samples.response.items()}
    if not all(np.isfinite(x).all() for x in (*scalars.values(), *arrays.values(), *response.values())):
        raise NumericsError("A chain gave a value that is not finite.")
    if series is None:
        series = Series(
            {name: no_blocks(v.shape[1:]) for name, v in scalars.items()},
            np.zeros((len(scalars), len(scalars))),
            {name: no_blocks(v.shape[1:]) for name, v in arrays.items()},
            {name: np.zeros((2, v.shape[-1])) for name, v in arrays.items()},
            {name: no_blocks(v.shape[1:]) for name, v in response.items()},
        )
    flat = np.stack([v.ravel() for v in scalars.values()])
    n_chains = next(iter(scalars.values())).shape[1]
    max_array_blocks, sign = max(MAX_ARRAY_BLOCKS, -(-64 // n_chains)), arrays.get("sign", 1.0)
    return Series(
        {name: append(series.scalars[name], v, MAX_BLOCKS) for name, v in scalars.items()},
        series.products + flat @ flat.T,
        {name: append(series.arrays[name], v, max_array_blocks) for name, v in arrays.items()},
        {name: series.squares[name] + np.stack([(v**2).sum((0, 1)), (v * sign).sum((0, 1))]) for name, v in arrays.items()},
        {name: append(series.response[name], v, max_array_blocks) for name, v in response.items()},
    )


def _draws(values: jax.Array, n_stretches: int, axis: int) -> np.ndarray:
    """(n_groups, n_stretches, ..., n_chains, ...) with the groups' chains side by side at `axis`, behind the stretches."""
    moved = np.moveaxis(np.asarray(values)[:, :n_stretches], 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])


def kept_series(levels: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The series of the finest ring of a method's state, (n, n_chains) each, and `length`, the sweeps of which each entry is the average.

    Per site; with a sign problem everything is multiplied by `sign`. Entries start behind thermalisation.
    """
    blocks = {name: Blocks(**fields) for name, fields in levels["0"]["series"]["scalars"].items()}
    kept = {name: np.asarray(b.means) for name, b in blocks.items() if name in OBSERVABLES or name in ("sign", "magnetization_z_squared")}
    return {**kept, "length": np.asarray(next(iter(blocks.values())).length)}


def join_ranks(parts: Sequence[Series]) -> Series:
    """The chains of all ranks side by side."""

    def beside(blocks: list[Blocks]) -> Blocks:
        first = blocks[0]
        return first._replace(means=np.concatenate([b.means for b in blocks], 1), rest=np.concatenate([b.rest for b in blocks], 0))

    return Series(
        {name: beside([p.scalars[name] for p in parts]) for name in parts[0].scalars},
        sum(p.products for p in parts),
        {name: beside([p.arrays[name] for p in parts]) for name in parts[0].arrays},
        {name: sum(p.squares[name] for p in parts) for name in parts[0].squares},
        {name: beside([p.response[name] for p in parts]) for name in parts[0].response},
    )


class _Scalars:
    """Linear combinations of the measured scalars: vectors over their sorted names, with a constant behind."""

    def __init__(self, series: Series):
        self.series, self.names = series, sorted(series.scalars)
        blocks = [series.scalars[name] for name in self.names]
        self.length = blocks[0].length
        self.means = np.stack([*(b.means for b in blocks), np.ones_like(blocks[0].means)])  # (n_scalars + 1, n_blocks, n_chains)
        n = blocks[0].n_draws * blocks[0].means.shape[1]
        centre = np.array([b.mean.mean() for b in blocks])
        self.covariance = series.products / n - np.outer(centre, centre)
        self.average_sign = float(self.means[self.names.index("sign")].mean()) if "sign" in self.names else 1.0

    def ratio(self, name: str) -> np.ndarray:
        """<x s>/<s> to first order, or <x> where there is no sign."""
        vector = np.zeros(len(self.names) + 1)
        vector[self.names.index(name)] = 1.0
        if "sign" not in self.names or name == "sign":
            return vector
        mean = self.means[self.names.index(name)].mean() / self.average_sign
        vector[self.names.index("sign")] -= mean
        vector /= self.average_sign
        vector[-1] = mean
        return vector

    def constant(self, value: float) -> np.ndarray:
        """A number that does not fluctuate."""
        return np.append(np.zeros(len(self.names)), value)

    def evaluate(self, vector: np.ndarray) -> np.ndarray:
        """Block averages, (n_blocks, n_chains)."""
        return np.tensordot(vector, self.means, 1)

    def estimate(self, vector: np.ndarray) -> Estimate:
        """Mean and error."""
        variance = float(vector[:-1] @ self.covariance @ vector[:-1])
        return from_chains(self.evaluate(vector), self.length, max(variance, 0.0))


def estimate_scalars(series: Series, beta: float, n_sites: int, only: str | None = None) -> dict[str, Estimate]:
    """Every scalar that one Trotter step yields, per site; the specific heat lacks its slope, and "sign" is the average sign.

    Args:
        only: the name of one that is wanted; all by default.
    """
    scalars = _Scalars(series)
    if scalars.average_sign == 0:  # nothing can be said
        names = (set(scalars.names) - INTERMEDIATE) | {"specific_heat", "susceptibility"}  # only exchange magnets have signs
        lost = Estimate(*map(np.asarray, (np.nan, np.inf, np.nan, np.nan, 0.0)))
        return {name: lost for name in ([only] if only else sorted(names))} | {"sign": scalars.estimate(scalars.ratio("sign"))}
    return {name: scalars.estimate(v) for name, v in _combinations(scalars, beta, n_sites, only).items()}


def _combinations(scalars: _Scalars, beta: float, n_sites: int, only: str | None = None) -> dict[str, np.ndarray]:
    """What every estimate is a combination of, as vectors of `_Scalars`."""
    x = {name: scalars.ratio(name) for name in scalars.names}
    mean = {name: float(scalars.evaluate(v).mean()) for name, v in x.items()}
    found = {name: v for name, v in x.items() if name not in INTERMEDIATE}
    if "worldline_energy" in x:
        differences = [x[name] - x["energy"] for name in ("score", "worldline_energy")]
        _, weights = with_controls(scalars.evaluate(x["energy"]), [scalars.evaluate(d) for d in differences])
        found["energy"] = x["energy"] - sum(w * d for w, d in zip(weights, differences, strict=True))
    if only:
        return {only: found[only]}
    e, score = mean["energy"], mean["score"]
    found["specific_heat"] = (beta**2 * n_sites) * (x["energy_score"] - score * x["energy"] - e * x["score"] + scalars.constant(e * score))
    if "slope" in x:
        found["specific_heat"] = found["specific_heat"] - beta**2 * x["slope"]
    m = mean["magnetization_z"]
    drift = 2 * m * x["magnetization_z"] - scalars.constant(m**2)
    if "order_parameter_fourth" in x:  # to first order about the means
        square, ratio = mean["order_parameter_squared"], mean["order_parameter_fourth"] / mean["order_parameter_squared"] ** 2
        slope = x["order_parameter_fourth"] / square - 2 * ratio * x["order_parameter_squared"]
        found["binder_ratio"] = slope / square + scalars.constant(2 * ratio)
    if "kubo_squared" in x:
        found["susceptibility"] = beta * n_sites * (x["kubo_squared"] - drift)
    elif "magnetization_z_squared" in x:
        found["susceptibility"] = beta * (x["magnetization_z_squared"] - n_sites * drift)
    if "sign" in x:
        found["sign"] = x["sign"]
    return found


def estimate_level(series: Series, beta: float, n_sites: int) -> dict[str, Estimate]:
    """Everything that one Trotter step yields."""
    found, arrays = estimate_scalars(series, beta, n_sites), estimate_arrays(series)
    slope, fluctuation = arrays.pop("slope"), found["specific_heat"]
    found["specific_heat"] = fluctuation._replace(
        mean=fluctuation.mean - beta**2 * slope.mean[0], error=np.hypot(fluctuation.error, beta**2 * slope.error[0])
    )
    for name, square in SQUARES.items():
        if square in arrays:
            e = arrays.pop(square)
            arrays[name] = e._replace(mean=beta * e.mean, error=beta * e.error)
    if "susceptibility_x" in arrays:
        arrays["susceptibility_x"] = Estimate(*(x if x is None else x[0] for x in arrays["susceptibility_x"]))
    return found | arrays


def scalar_correlations(series: Series, beta: float, n_sites: int, names: Sequence[str]) -> np.ndarray:
    """Correlations of the errors of estimates at one Trotter step, (n, n), from batches as long as `CORRELATED` of them can be; 0 of what
    is not measured."""
    scalars, found = _Scalars(series), np.eye(len(names))
    if scalars.average_sign == 0:
        return found
    vectors = _combinations(scalars, beta, n_sites)
    known = [k for k, name in enumerate(names) if name in vectors]
    blocks = np.stack([scalars.evaluate(vectors[names[k]]) for k in known])  # (n, n_blocks, n_chains)
    _, n_blocks, n_chains = blocks.shape
    per_chain = max(1, min(n_blocks, -(-CORRELATED // n_chains)))
    batches = blocks[:, : n_blocks // per_chain * per_chain].reshape(len(known), per_chain, -1, n_chains).mean(2).reshape(len(known), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found[np.ix_(known, known)] = np.nan_to_num(np.corrcoef(batches)) if batches.shape[1] > 2 else np.eye(len(known))
    np.fill_diagonal(found, 1.0)
    return found


def estimate_arrays(series: Series) -> dict[str, Estimate]:
    """Pair functions, (k,) each, and "slope", (1,): means and errors of <x s>/<s>."""
    sign = series.arrays.get("sign")
    average = 1.0 if sign is None else float(sign.mean.mean())
    return {name: _estimate_array(series, name, average) for name in series.arrays if name != "sign"}


def _estimate_array(series: Series, name: str, average: float) -> Estimate:
    blocks, sign = series.arrays[name], series.arrays.get("sign")
    if average == 0:  # nothing can be said
        lost = np.full(blocks.rest.shape[-1], np.nan)
        return Estimate(lost, np.full_like(lost, np.inf), lost, lost, np.zeros_like(lost))
    ratio = blocks.mean.mean(0) / average
    square, plain = series.squares[name] / (blocks.n_draws * blocks.means.shape[1])
    variance = np.maximum(square - 2 * ratio * plain + ratio**2, 0.0) / average**2
    if sign is not None:  # to first order x - ratio (s - <s>) over <s>
        means = (blocks.means - ratio * (sign.means - average)) / average
        blocks = blocks._replace(means=means, rest=(blocks.rest - ratio * (sign.rest - blocks.n_rest * average)) / average)
    return from_blocks(blocks, variance)

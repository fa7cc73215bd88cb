"""From the records of all sectors to thermal averages with errors.

Every average is a function of sums over sectors, Q = sum_s mult_s (exact_s + mean over r of sampled_sr), of Boltzmann weights times
1, E, E^2, M, M^2 and observables. An error is the jackknife over random vectors to first order, sector by sector, as each sector has
vectors of its own:

    var f = sum_s sum_r (df_sr)^2 / (R (R - 1)),   df_sr = mult_s grad f . (sampled_sr - mean of sampled_s),

multiplied by Student's factor for the effective number of degrees of freedom (Welch and Satterthwaite), which is R - 1 where one sector
makes all the noise, and widened where the scatter of Z is less than it must be (`_widening`).

Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 6.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from thermodbm.exact.typicality import Record, Typicality

_ONE, _E, _E2, _M, _M2, _KUBO = range(6)
_FIRST = 6  # of the observables
Change = Callable[[np.ndarray], np.ndarray]
_ONE_SIGMA = 0.8413447460685429  # of a normal distribution


class Averages(NamedTuple):
    """Thermal averages per site, with one standard deviation."""

    values: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> mean and error, (n_T, ...)
    noise: np.ndarray  # (n_T,), relative error of Z
    sampled: np.ndarray  # (n_T,), part of Z that random vectors stand for
    n_steps: int  # most Lanczos steps


def typical_averages(problem: Typicality, records: Sequence[Record]) -> Averages:
    """All averages that the exact method gives, and those of a user, at all temperatures."""
    sums = _summed(problem, records)
    noise = [each * wide for each, wide in zip(sums.deviations, sums.widened, strict=True)]
    steps = max((part["energies"].shape[1] for record in records for part in _parts(record) if "energies" in part), default=0)
    values = {name: (mean, _error(list(map(change, noise)), mean)) for name, (mean, change) in _derived(problem, sums).items()}
    once = sums.mean[..., _ONE]
    return Averages(values, _error([d[..., _ONE] for d in noise], once), sums.sampled, steps)


def typical_differences(
    above: tuple[Typicality, Sequence[Record]], below: tuple[Typicality, Sequence[Record]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By how much averages differ between two magnets of the same sectors and random vectors, with one standard deviation: what vectors
    have in common cancels."""
    sums = [_summed(*each) for each in (above, below)]
    pairs = list(zip(*(each.deviations for each in sums), *(each.widened for each in sums), strict=True))
    known, found = [_derived(problem, each) for (problem, _), each in zip((above, below), sums, strict=True)], {}
    for name, (mean, change) in known[0].items():
        other, other_change = known[1][name]
        changes = [change(d * np.maximum(w, v)) - other_change(e * np.maximum(w, v)) for d, e, w, v in pairs]
        found[name] = mean - other, _error(changes, mean)
    return found


class _Sums(NamedTuple):
    """Sums over all sectors in units of Z, and how the vectors of each sector scatter."""

    mean: np.ndarray  # (n_T, k)
    deviations: list[np.ndarray]  # (R, n_T, k) of each sector
    widened: list[np.ndarray]  # (n_T, 1), see `_widening`
    log_z: np.ndarray  # (n_T,), of levels above `ground`
    ground: float
    sampled: np.ndarray  # (n_T,), part of Z that random vectors stand for


def _parts(record: Record) -> list[Record]:
    return [part for name, part in record.items() if name != "kubo"]


def _summed(problem: Typicality, records: Sequence[Record]) -> _Sums:
    ground = min(_energies(part, "exact_energies").min() for record in records for part in _parts(record))
    exact, sampled, widened = 0.0, [], []
    for record in records:
        for name, part in record.items():
            if name != "kubo":
                kubo = _kubo(problem, record, ground) if name == "0" and "kubo" in record else None
                sums = _sums(problem, part, ground, kubo)
                exact = exact + sums[0]
                if sums[1] is not None:
                    sampled.append(sums[1])
                    widened.append(_widening(problem.betas, part))
    total = exact + sum(each.mean(0) for each in sampled)
    z = total[:, :1]
    deviations = [(each - each.mean(0)) / z for each in sampled]
    return _Sums(total / z, deviations, widened, np.log(z[:, 0]), ground, 1 - exact[:, _ONE] / z[:, 0])


def _error(changes: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    """Of a function of the sums, from how it changes to first order with every vector of each sector, (R, n_T, ...)."""
    variance, squares = 0.0, 0.0
    for change in changes:
        n = len(change)
        own = (change**2).sum(0) / (n * (n - 1))
        variance, squares = variance + own, squares + own**2 / (n - 1)
    if not changes:
        return np.zeros_like(like)
    freedom = np.divide(variance**2, squares, out=np.full_like(variance, 1e6), where=squares > 0)
    return np.sqrt(variance) * stdtrit(np.clip(freedom, 1, 1e6), _ONE_SIGMA)


def _derived(problem: Typicality, sums: _Sums) -> dict[str, tuple[np.ndarray, Change]]:
    """Averages (n_T, ...), and how each changes to first order with the sums (..., n_T, k)."""
    n, betas, q, ground = problem.hamiltonian.n_sites, problem.betas, sums.mean, sums.ground
    u, m = q[:, _E], q[:, _M]
    centred = lambda k, d: d[..., k] - q[:, k] * d[..., _ONE]  # noqa: E731  (of Q_k / Z)
    spread = q[:, _E2] - u**2
    log_z = sums.log_z - betas * ground
    found = {
        "energy": ((ground + u) / n, lambda d: centred(_E, d) / n),
        "specific_heat": (betas**2 * spread / n, lambda d: betas**2 / n * (centred(_E2, d) - 2 * u * centred(_E, d))),
        "entropy": ((log_z + betas * (ground + u)) / n, lambda d: (d[..., _ONE] + betas * centred(_E, d)) / n),
        "free_energy": (-log_z / (betas * n), lambda d: -d[..., _ONE] / (betas * n)),
    }
    if problem.hamiltonian.conserves_sz:
        found["susceptibility"] = (
            betas * (q[:, _M2] - m**2) / n,
            lambda d: betas / n * (centred(_M2, d) - 2 * m * centred(_M, d)),
        )
        found["magnetization_z"] = (m / n, lambda d: centred(_M, d) / n)
    layout = problem.layout | ({} if problem.hamiltonian.conserves_sz else {"magnetization_x": ()})
    first = _FIRST
    for name, shape in layout.items():
        k = slice(first, first + int(np.prod(shape)))
        first = k.stop
        change = lambda d, k=k, shape=shape: (d[..., k] - q[:, k] * d[..., :1]).reshape(*d.shape[:-1], *shape)  # noqa: E731
        found[name] = (q[:, k].reshape(-1, *shape), change)
    if not problem.hamiltonian.conserves_sz:
        m_z, change_z = found["magnetization_z"]
        found["susceptibility"] = (
            q[:, _KUBO] / n - betas * n * m_z**2,
            lambda d: centred(_KUBO, d) / n - 2 * betas * n * m_z * change_z(d),
        )
    return found


def _energies(part: Record, name: str) -> np.ndarray:
    """Levels in the field, one row a copy, (n_copies, ...)."""
    shift = -part["field"] * part["magnetisations"]
    return shift.reshape(-1, *(1,) * part[name].ndim) + part[name]


def _sums(problem: Typicality, part: Record, ground: float, kubo) -> tuple[np.ndarray, np.ndarray | None]:
    """Boltzmann sums (n_T, k) of the states apart, and (R, n_T, k) of the rest for each vector, in units of exp(-beta ground)."""
    betas, m = problem.betas, part["magnetisations"]
    odd = 0 * m if part["both_signs"] else m

    def moments(energies: np.ndarray, weights: np.ndarray | float, values: np.ndarray, norm: np.ndarray, scale: float) -> np.ndarray:
        """Of levels (n_copies, n): sums of weights over all copies; `values` (n_T, n_copies, n_obs) are in units of the sum `norm`."""
        above = energies - ground
        boltzmann = weights * np.exp(-betas[:, None, None] * above)  # (n_T, n_copies, n)
        z = boltzmann.sum(-1)
        first = [z, (boltzmann * above).sum(-1), (boltzmann * above**2).sum(-1), z * odd, z * m**2, 0 * z]
        per_copy = z / norm[:, None]
        return scale * np.concatenate([np.sum(first, axis=-1).T, np.einsum("tc,tco->to", per_copy, values)], 1)

    low = part["exact_energies"]
    populations = np.exp(-betas[:, None] * (low - low[0])).sum(1)
    exact = moments(_energies(part, "exact_energies"), 1.0, part["exact_values"], populations, part["multiplicity"])
    sampled = None
    if "energies" in part:
        ones, scale = np.ones(len(betas)), part["multiplicity"] * part["dimension"]
        every = zip(np.moveaxis(_energies(part, "energies"), 1, 0), part["weights"], part["values"], strict=True)
        sampled = np.array([moments(e, w, values, ones, scale) for e, w, values in every])
    if kubo is not None:
        exact[:, _KUBO] = part["multiplicity"] * kubo[0]
        if sampled is not None:
            sampled[..., _KUBO] = part["multiplicity"] * kubo[1]
    return exact, sampled


def _widening(betas: np.ndarray, part: Record) -> np.ndarray:
    """By what the scatter of the vectors of a sector is to be multiplied, (n_T, 1), so that it is not less than that of Z must be.

    Where one state makes most of the noise its weights in a few vectors may all be small, and alike, by chance. For vectors spread evenly
    over d dimensions the variance of <r|A|r> is kappa (Tr A^2 / d - (Tr A / d)^2) / (d + kappa), kappa = 1 for complex and 2 for real ones,
    with the traces of A = exp(-beta H) from the vectors themselves.
    """
    energies, weights, d = part["energies"], part["weights"], part["dimension"]
    kappa = 2 if part["real"] else 1
    once = np.exp(-betas[:, None, None] * (energies - energies.min()))
    z = (once * weights).sum(-1)  # (n_T, R)
    mean, square = z.mean(1), (once**2 * weights).sum(-1).mean(1)
    least, found = kappa * np.maximum(square - mean**2, 0) / (d + kappa), z.var(1, ddof=1)
    ratio = np.divide(least, found, out=np.ones_like(least), where=found > 1e-20 * mean**2)
    return np.sqrt(np.maximum(ratio, 1.0))[:, None]


def _kubo(problem: Typicality, record: Record, ground: float) -> tuple[np.ndarray, np.ndarray]:
    kubo = record["kubo"]
    scale = np.exp(-problem.betas * (kubo["reference"] - ground))
    return scale * kubo["exact"], scale * kubo["sampled"]

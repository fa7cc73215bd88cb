"""Entropy and free energy of a sampled curve, by integration from infinite temperature, and a joint estimate of its specific heat.

The curve e(beta) is regressed as a Gaussian process. With the cumulants kappa_n of H per site at infinite temperature, the energy scale
w = kappa_2^(1/2), x = beta w, and z = x / (1 + x), which takes all temperatures to 0 <= z < 1 and in which thermal curves are smooth at
both ends,

    e / w = -z + a z^2 + b z^3 + z^3 h(z),        a = kappa_3 / (2 w^3) - 1,        b = 2 a + 1 - kappa_4 / (6 w^4),        h(0) = 0,

so that e and its first three derivatives are exact at beta = 0. h is some multiple of the trend t(z) = (z + 3 z^2 - 2 z^3) / 2, which
begins slowly and ends flat, as curves do that come to a ground state, and what has a Matern covariance (nu = 5/2: rough enough for sharp
peaks) or a Gaussian one (as smooth as curves of finite magnets are), given h(0). All else is linear in h, and so normal given the data:

    c = -z^2 d(e/w)/dz,     ln Z / N = ln 2 - int_0^x (e/w) dx',     s = ln Z / N + x e/w,     f = -w ln Z / (N x).

Of these curves only those are kept that a magnet can have: c >= 0 on a grid of z, and at the coldest temperature 0 <= s <= ln 2 and e not
below the sum of the ground state energies of all bonds. Where data and errors alone come within two errors and `_SLACK` of an inequality,
it is not used: a quantity that is zero would be pushed up at every point of the grid, and its integral by many errors. Moments of a
normal distribution cut off by inequalities, and the probability of what is left, come from expectation propagation.

Roughness, length and amplitude of the covariance are averaged over with a power below 1 of their marginal likelihood (inequalities
included): the covariance is the same at all temperatures and curves are not, so the full likelihood is too sure of itself (measured on
frustrated magnets and at phase transitions; see Gruenwald, ALT 2012). The posterior variance holds the statistical errors and the
uncertainty of interpolating between the temperatures that were asked for, however few.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2, 3.6, 4.2.1, 5.2 and 9.4.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.special import erfcx, log_ndtr, softmax

from thermodbm.estimate.moments import high_temperature_moments, lowest_energy
from thermodbm.estimate.statistics import Estimate
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.threads import one_thread

_LENGTHS = np.geomspace(0.03, 0.6, 6)  # in z, which has range 1: all curves turn on their way, however straight a part of them is
_AMPLITUDES = np.geomspace(0.3, 30.0, 5)  # of h, whose natural size is 1
_TREND = 3.0 * np.polynomial.Polynomial([0.0, 0.5, 1.5, -1.0])  # t(z) times the standard deviation of its multiple
_BLEND, _BLENDED = 0.05, 0.3  # relative amplitude and length of what is added to every covariance: no curve is smooth everywhere
_LIKELIHOOD_POWER = 0.5
_NEGLIGIBLE = 1e-3  # covariances whose weight is below this part of the largest are left out
_JITTER = 1e-12  # relative, on the diagonal of the covariance of the data: exact data must stay numerically positive
_MOST_CORRELATED = 0.9  # correlations are estimates themselves
_SLACK = 0.02, 0.005  # of c, and of s and e / w, whose natural size is 1: an inequality is used where errors are larger
_SPACING = 0.06  # in z, of the grid on which c >= 0
_MAX_CHECKED = 40  # temperatures at which c >= 0
_SWEEPS = 5  # of expectation propagation


class Joint(NamedTuple):
    """What all temperatures say together."""

    estimates: dict[str, Estimate]  # entropy, free_energy, specific_heat, (n_T,) each
    covariance: dict[str, np.ndarray]  # "a/b" of these, and of "energy/a": of the errors of a at each and b at each temperature, (n_T, n_T)
    follows: dict[str, tuple[np.ndarray, np.ndarray]]  # derivatives of each in all energies and in all specific heats, (n_T, n_T) each


def integrate_thermodynamics(
    hamiltonian: SpinHamiltonian, betas: np.ndarray, energy: Estimate, specific_heat: Estimate
) -> dict[str, Estimate]:
    """The estimates of `join_thermodynamics`."""
    return join_thermodynamics(hamiltonian, betas, energy, specific_heat).estimates


def join_thermodynamics(
    hamiltonian: SpinHamiltonian, betas: np.ndarray, energy: Estimate, specific_heat: Estimate, correlation: np.ndarray | float = 0.0
) -> Joint:
    """Entropy, free energy and specific heat per site at every temperature, from all energies and specific heats together.

    The specific heat serves as the slope of the energy, c = -beta^2 de/dbeta, wherever it is finite and has an error (zero for exact
    values): give NaN where it must not be used. A peak that is narrower than the spacing of temperatures cannot be foreseen from its
    neighbours; everywhere else errors are one standard deviation. Means lie within 0 <= s <= ln 2 and c >= 0.

    Args:
        hamiltonian: what was simulated; its couplings fix the first moments.
        betas: inverse temperatures >= 0 in any order, (n_T,).
        energy, specific_heat: means and errors per site, (n_T,), statistically independent between temperatures; NaN where
            a temperature is not finished or not to be trusted. What is wanted there is predicted from the other temperatures.
        correlation: of the errors of both at each temperature, (n_T,): strong where a sign divides them.

    Returns:
        entropy, free_energy, specific_heat, and the covariance of their errors; the same bits for the same arguments. Energies themselves
        stay as they are: their errors go into the others as far as these follow them, the inequalities being held fixed.
    """
    betas, order = np.sort(np.asarray(betas, float)), np.argsort(betas, kind="stable")
    energy, specific_heat = (Estimate(each.mean[order], each.error[order]) for each in (energy, specific_heat))
    correlation = np.clip(np.broadcast_to(correlation, len(betas))[order], -_MOST_CORRELATED, _MOST_CORRELATED)
    second, third, fourth = high_temperature_moments(hamiltonian)
    w = second**0.5 or 1e-9  # H = 0 has no scale: any small one will do
    known = (betas > 0) & np.isfinite(energy.mean) & np.isfinite(energy.error)
    slopes = known & np.isfinite(specific_heat.mean) & np.isfinite(specific_heat.error)
    e, c = ((each.mean[used] / unit, each.error[used] / unit) for each, used, unit in ((energy, known, w), (specific_heat, slopes, 1.0)))
    data = _Data(known, slopes, *np.concatenate([e, c], axis=1), correlation)
    a = third / (2 * w**3) - 1
    with one_thread():
        means, covariance, gain = _regress(betas * w, (a, 2 * a + 1 - fourth / (6 * w**4)), lowest_energy(hamiltonian) / w, data)
    n, errors = len(betas), np.sqrt(np.diag(covariance)).reshape(3, -1)
    (s, integral, c), (s_error, integral_error, c_error) = means, errors
    with np.errstate(divide="ignore"):
        f, f_error = (integral - np.log(2)) / betas, np.divide(integral_error, betas, out=np.zeros(len(betas)), where=betas > 0)
    place = np.argsort(order)
    results = {
        "entropy": (np.clip(s, 0, np.log(2)), np.minimum(s_error, np.log(2) / 2)),
        "free_energy": (f, f_error),
        "specific_heat": (np.maximum(c, 0), c_error),
    }
    with np.errstate(divide="ignore"):
        unit = np.concatenate([np.ones(n), np.where(betas > 0, 1 / betas, 0.0), np.ones(n)])
    blocks = (covariance * unit * unit[:, None]).reshape(3, n, 3, n)
    n_e, by = known.sum(), np.zeros((3 * n, 2, n))  # derivatives in energies, which are in units of w here, and in specific heats
    by[:, 0, known], by[:, 1, slopes] = unit[:, None] * gain[:, :n_e] / w, unit[:, None] * gain[:, n_e:]
    by = by.reshape(3, n, 2, n)[:, place][..., place]
    with_energy = np.stack([known * energy.error, slopes * correlation * specific_heat.error]) * known * energy.error
    with_energy = np.nan_to_num(with_energy)[:, place]  # covariance of energies with energies and specific heats
    parts = {f"{a}/{b}": blocks[i, :, j][np.ix_(place, place)] for i, a in enumerate(results) for j, b in enumerate(results) if i <= j}
    parts |= {f"energy/{b}": np.einsum("de,tde->et", with_energy, by[j]) for j, b in enumerate(results)}
    estimates = {name: Estimate(mean[place], error[place]) for name, (mean, error) in results.items()}
    return Joint(estimates, parts, {name: (by[j, :, 0], by[j, :, 1]) for j, name in enumerate(results)})


class _Data(NamedTuple):
    """Energies (in units of w), then specific heats."""

    known: np.ndarray  # (n_T,), where there is an energy
    slopes: np.ndarray  # (n_T,), where there is a specific heat
    values: np.ndarray  # (n_data,)
    errors: np.ndarray  # (n_data,)
    correlation: np.ndarray  # (n_T,) of the errors of both

    def noise(self) -> np.ndarray:
        """Covariance of the errors, (n_data, n_data)."""
        both = np.diag(self.correlation)[self.known][:, self.slopes]
        whole = np.block([[np.eye(self.known.sum()), both], [both.T, np.eye(self.slopes.sum())]])
        return self.errors[:, None] * whole * self.errors


class _Normal(NamedTuple):
    """Normal distributions, one for each of K covariances of h, of what must be positive (u, n_u) and what is wanted (n_w)."""

    log_likelihood: np.ndarray  # (K,)
    mean: np.ndarray  # (K, n_u + n_w)
    covariance: np.ndarray  # (K, n_u + n_w, n_u + n_w)
    gain: np.ndarray  # (K, n_u + n_w, n_data), derivatives of the mean in the data


def _regress(x: np.ndarray, start: tuple[float, float], e_min: float, data: _Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (3, n) of s, int_0^x (e / w) dx' and c at ascending x, with e / w not below e_min; their covariance (3 n, 3 n) and derivatives
    in the data, (3 n, n_data). At the start there are a and b."""
    n, z = len(x), _grid(x / (1 + x))
    m, last = len(z), n - 1
    checked = np.unique(np.r_[np.linspace(0, last, min(n, _MAX_CHECKED)).astype(int), n:m])
    points, weights, offset = _quadrature(z, *start)
    e, c, integral = (scipy.sparse.eye_array(3 * m, format="csr")[k * m : (k + 1) * m] for k in range(3))
    s = scipy.sparse.diags_array(z / (1 - z)) @ e - integral  # but for ln 2
    asked = scipy.sparse.vstack([c[checked], s[[last]], -s[[last]], e[[last]], s[:n], integral[:n], c[:n]]).tocsr()
    n_u = len(checked) + 3
    known = asked @ offset
    known[[n_u - 3, *range(n_u, n_u + n)]] += np.log(2)
    known[n_u - 1] -= e_min
    observed = np.concatenate([np.flatnonzero(data.known), m + np.flatnonzero(data.slopes)])
    trend = np.concatenate([z**3 * _TREND(z), -(z**4) * (3 * _TREND(z) + z * _TREND.deriv()(z)), weights @ _TREND(points[m:])])
    h = _posteriors(
        lambda *shape: _covariance(*shape, points, weights, m),
        trend,
        data.values - offset[observed],
        data.noise(),
        observed,
        asked,
        n_u,
    )
    mean, covariance, gain, log_probability = _cut_off(h.mean + known, h.covariance, h.gain, n_u)
    weight = softmax(_LIKELIHOOD_POWER * (h.log_likelihood + log_probability))
    average = weight @ mean
    apart = mean - average
    total = np.tensordot(weight, covariance, 1) + (apart.T * weight) @ apart
    return average.reshape(3, n), total, np.tensordot(weight, gain, 1)


def _grid(z: np.ndarray) -> np.ndarray:
    """The z of all temperatures, in front, and points that fill the gaps between them."""
    fill = np.linspace(0, z[-1], int(z[-1] / _SPACING) + 2)[1:]
    return np.concatenate([z, fill[np.abs(fill[:, None] - z).min(1) > _SPACING / 3]])


def _quadrature(z: np.ndarray, a: float, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What integrals over h need, by Gauss-Legendre between neighbouring z.

    Returns:
        points (m + n_nodes,), the z, the nodes between them, and 0; weights (m, n_nodes), so that the integral over e / w up to each z is
        weights @ h(nodes) where e / w = z^3 h; and e / w, c and the integral, (3 m,), for h = 0.
    """
    steps = 1 - np.exp(-np.arange(0, -np.log1p(-z.max()), 0.25))  # dx = dz / (1 - z)^2 varies by less than e^(1/2) between them
    edges = np.unique(np.concatenate([z, steps]))
    width = np.diff(edges)
    close = width < 0.06 * (1 - edges[1:])
    nodes, measures = [], []
    for n_nodes, chosen in ((2, close), (5, ~close)):
        t, weight = np.polynomial.legendre.leggauss(n_nodes)
        nodes.append((edges[:-1][chosen, None] + width[chosen, None] * (1 + t) / 2).ravel())
        measures.append((width[chosen, None] * weight / 2).ravel())
    t = np.append(np.concatenate(nodes), 0.0)
    measure = np.append(np.concatenate(measures), 0.0) / (1 - t) ** 2 * (t < z[:, None])
    known = -z + a * z**2 + b * z**3, z**2 - 2 * a * z**3 - 3 * b * z**4, measure @ (-t + a * t**2 + b * t**3)
    return np.concatenate([z, t]), measure * t**3, np.concatenate(known)


def _posteriors(
    covariance: Callable, trend: np.ndarray, values: np.ndarray, noise: np.ndarray, observed: np.ndarray, asked, n_u: int
) -> _Normal:
    """Normal distributions given the data, for all covariances of h whose likelihood is not negligible.

    One diagonalisation serves all amplitudes: with K = inner covariance at amplitude 1, whitened by the noise, = V diag(lambda) V', the
    covariance of the data is V diag(1 + amplitude^2 lambda) V' and that of the trend, of rank one.

    Args:
        covariance: of e / w, c, integral and h(0), (3 m + 1, 3 m + 1) at amplitude 1, of a function of distance and a length.
        trend: (3 m,), what h = one standard deviation of the trend adds to them.
        values, noise: of the data, less what h = 0 gives, (n_data,), and the covariance of their errors.
        observed: their indices among e / w, c and integral.
        asked: matrix (n_u + n_w, 3 m).
    """
    found, blended = [], _BLEND**2 * covariance(_matern52, _BLENDED)
    for shape in product((_matern52, _gaussian), _LENGTHS):
        free = covariance(*shape) + blended
        full = free[:-1, :-1] - np.outer(free[:-1, -1], free[-1, :-1]) / free[-1, -1]  # given h(0)
        inner = full[np.ix_(observed, observed)]
        lower = np.linalg.cholesky(noise + _JITTER * np.diag(np.diag(free)[observed]))
        half = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
        spectrum, vectors = np.linalg.eigh(half @ inner @ half.T)
        white = vectors.T @ half
        y, u = white @ values, white @ trend[observed]
        shrink = 1 / (1 + _AMPLITUDES[:, None] ** 2 * np.maximum(spectrum, 0))  # (n_amplitudes, n_data)
        precision = 1 + shrink @ u**2  # of the trend
        multiple = shrink @ (u * y) / precision
        log_likelihood = (np.log(shrink).sum(1) - shrink @ y**2 + precision * multiple**2 - np.log(precision)) / 2 - np.log(
            np.diag(lower)
        ).sum()
        found.append((log_likelihood, full, white, y, u, shrink, precision, multiple))
    best = max(each[0].max() for each in found)
    results = []
    for log_likelihood, full, white, y, u, *of_amplitude in found:
        kept = _LIKELIHOOD_POWER * (log_likelihood - best) > np.log(_NEGLIGIBLE)
        if not kept.any():
            continue
        cross = asked @ full
        prior, gain = asked @ cross.T, white @ cross[:, observed].T
        for likelihood, power, shrink, precision, multiple in zip(
            *(each[kept] for each in (log_likelihood, _AMPLITUDES**2, *of_amplitude)), strict=True
        ):
            left = asked @ trend - power * (shrink * u) @ gain  # of the trend, after what the data say about it
            mean = power * (shrink * (y - u * multiple)) @ gain + asked @ trend * multiple
            posterior = power * prior - power**2 * (gain.T * shrink) @ gain + np.outer(left, left) / precision
            variance = np.maximum(np.diag(posterior), 0)
            variance[:n_u] += 1e-10 * power * np.diag(prior)[:n_u] + 1e-14  # rounding
            np.fill_diagonal(posterior, variance)
            follows = power * (gain.T * shrink) @ white + np.outer(left, (shrink * u) @ white) / precision
            results.append((likelihood, mean, posterior, follows))
    return _Normal(*map(np.array, zip(*results, strict=True)))


def _cut_off(mean: np.ndarray, whole: np.ndarray, follows: np.ndarray, n_u: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means (K, n_w) and covariances (K, n_w, n_w) of what is wanted, derivatives in the data (K, n_w, n_data) and log-probability (K,),
    where u > -slack: expectation propagation.

    Each inequality is replaced by a factor exp(nu u - tau u^2 / 2) that gives u the moments it has with the inequality itself and all
    other factors; one after the other, some times over.
    """
    rows, covariance = whole[:, :n_u], whole[:, :n_u, :n_u]
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    mean_u = mean[:, :n_u] + np.minimum(2 * spread, np.repeat(_SLACK, (n_u - 3, 3)))
    least = 1e-12 * np.diagonal(covariance, axis1=1, axis2=2)
    nu, tau = np.zeros((2, *mean_u.shape))
    now, now_mean = covariance.copy(), mean_u.copy()
    for _ in range(_SWEEPS):
        for i in range(n_u):
            v = np.maximum(now[:, i, i], least[:, i])
            rest = np.maximum(1 / v - tau[:, i], 1e-3 / v)  # precision of u_i without its own factor
            rest_nu = now_mean[:, i] / v - nu[:, i]
            cut_mean, cut_variance, _ = _positive(rest_nu / rest, 1 / rest)
            change = np.maximum(1 / cut_variance - rest, 1e-12 * rest) - tau[:, i]
            change_nu = cut_mean / cut_variance - rest_nu - nu[:, i]
            tau[:, i] += change
            nu[:, i] += change_nu
            column, factor = now[:, i].copy(), 1 / (1 + change * v)
            now_mean += ((change_nu - change * now_mean[:, i]) * factor)[:, None] * column
            now -= (change * factor)[:, None, None] * column[:, :, None] * column[:, None]
        root = np.sqrt(tau)
        lower = np.linalg.cholesky(np.eye(n_u) + root[:, :, None] * covariance * root[:, None])
        pull = np.linalg.solve(lower, (nu / root - root * mean_u)[..., None])
        gain = np.linalg.solve(lower, root[:, :, None] * rows).swapaxes(1, 2)  # afresh, lest rounding adds up
        now, now_mean = covariance - gain[:, :n_u] @ gain[:, :n_u].swapaxes(1, 2), mean_u + (gain[:, :n_u] @ pull)[..., 0]
    v = np.maximum(np.diagonal(now, axis1=1, axis2=2), least)
    rest, rest_nu = np.maximum(1 / v - tau, 1e-3 / v), now_mean / v - nu
    log_part = lambda nu, tau: (nu**2 / tau - np.log(tau)) / 2  # noqa: E731
    factors = _positive(rest_nu / rest, 1 / rest)[2] + log_part(rest_nu, rest) - log_part(now_mean / v, 1 / v) + nu**2 / tau / 2
    log_probability = factors.sum(1) - np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(1) - (pull**2).sum((1, 2)) / 2
    log_probability = np.where(log_probability < 0.1, log_probability, -1e6)  # above 0 only where rounding has won: leave it out
    gain = gain[:, n_u:]
    left = whole[:, n_u:, n_u:] - gain @ gain.swapaxes(1, 2)
    index = np.arange(left.shape[1])
    left[:, index, index] = np.maximum(left[:, index, index], 0)
    moved = follows[:, n_u:] - gain @ np.linalg.solve(lower, root[:, :, None] * follows[:, :n_u])
    return mean[:, n_u:] + (gain @ pull)[..., 0], left, moved, log_probability


def _positive(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of a normal variable of which only positive values are kept, and the log-probability of those."""
    sd = np.sqrt(variance)
    r = mean / sd
    hazard = np.sqrt(2 / np.pi) / erfcx(-r / np.sqrt(2))
    far = r < -30  # where the differences below cancel: an exponential distribution
    part = np.where(far, 1 / np.maximum(r**2, 1), 1 - hazard * (r + hazard))
    return np.where(far, sd / np.maximum(-r, 1), mean + sd * hazard), variance * np.clip(part, 1e-12, 1), log_ndtr(r)


def _covariance(kernel: Callable, length: float, points: np.ndarray, weights: np.ndarray, m: int) -> np.ndarray:
    """Covariance (3 m + 1, 3 m + 1) of e / w = z^3 h, c = -3 z^4 h - z^5 h' and the integral at the first m points, and of h at the last
    one, for unit amplitude."""
    r, z = (points[:, None] - points) / length, points[:m]
    value, slope, curvature = kernel(r, 0), kernel(r[:, :m], 1) / length, kernel(r[:m, :m], 2) / length**2
    e, c, c_slope = z**3, -3 * z**4, -(z**5)
    with_e, with_c = value[:, :m] * e, value[:, :m] * c - slope * c_slope  # covariance of h at all points with e and c
    with_integral = value[:, m:] @ weights.T
    slope_with_c = slope[:m] * c - curvature * c_slope
    c_c = c[:, None] * with_c[:m] + c_slope[:, None] * slope_with_c
    e_c = e[:, None] * with_c[:m]
    rows = [
        [e[:, None] * with_e[:m], e_c, e[:, None] * with_integral[:m], with_e[-1:].T],
        [e_c.T, c_c, (weights @ with_c[m:]).T, with_c[-1:].T],
        [weights @ with_e[m:], weights @ with_c[m:], weights @ with_integral[m:], with_integral[-1:].T],
        [with_e[-1:], with_c[-1:], with_integral[-1:], value[-1:, -1:]],
    ]
    return np.block(rows)


def _matern52(r: np.ndarray, derivative: int) -> np.ndarray:
    """k(r), k'(r) or k''(r) for a twice differentiable process."""
    s = np.sqrt(5) * np.abs(r)
    return (lambda: 1 + s + s**2 / 3, lambda: -5 / 3 * r * (1 + s), lambda: 5 / 3 * (s**2 - s - 1))[derivative]() * np.exp(-s)


def _gaussian(r: np.ndarray, derivative: int) -> np.ndarray:
    """k(r), k'(r) or k''(r) for a process with all derivatives."""
    return (lambda: 1.0, lambda: -r, lambda: r**2 - 1)[derivative]() * np.exp(-(r**2) / 2)

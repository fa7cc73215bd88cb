"""Entropy and free energy of a sampled curve, by integration from infinite temperature, and a joint estimate of its specific heat.

The curve e(beta) is regressed as a Gaussian process. With the energy scale w = (Tr H^2 / (N 2^N))^(1/2), x = beta w, and
z = x / (1 + x), which takes all temperatures to 0 <= z < 1 and in which thermal curves are smooth at both ends,

    e / w = -z + a z^2 + z^3 h(z),        a = Tr H^3 / (2 N 2^N w^3) - 1,

so that e, de/dbeta and d^2e/dbeta^2 are exact at beta = 0. The unknown h has a Matern covariance (nu = 3/2 or 5/2: rough enough for sharp
peaks) plus a constant; everything else is a linear functional of it, and so is normally distributed given the data:

    c = -z^2 d(e/w)/dz,     ln Z / N = ln 2 - int_0^x (e/w) dx',     s = ln Z / N + x e/w,     f = -w ln Z / (N x).

Roughness, length and amplitude of the covariance are averaged over with the square root of their marginal likelihood: the covariance is
the same at all temperatures and curves are not, so the full likelihood is too sure of itself (measured on frustrated magnets and at
phase transitions; see Gruenwald, ALT 2012, for likelihoods to a power below 1). The posterior variance holds the statistical
errors and the uncertainty of interpolating between the temperatures that were asked for, however few.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2, 4.2.1, 5.2 and 9.4.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.linalg import cholesky, solve_triangular
from scipy.special import softmax

from thermodbm.estimate.statistics import Estimate
from thermodbm.models.hamiltonian import SpinHamiltonian

_LENGTHS = np.geomspace(0.03, 3.0, 12)  # in z, which has range 1
_AMPLITUDES = np.geomspace(1e-3, 30.0, 14)  # of h, whose natural size is 1
_CONSTANT = 3.0  # standard deviation of the constant part of h
_LIKELIHOOD_POWER = 0.5
_JITTER = 1e-12  # relative, on the diagonal of the covariance of the data: exact data must stay numerically positive


def integrate_thermodynamics(
    hamiltonian: SpinHamiltonian, betas: np.ndarray, energy: Estimate, specific_heat: Estimate
) -> dict[str, Estimate]:
    """Entropy, free energy and specific heat per site at every temperature, from all energies and specific heats together.

    The specific heat serves as the slope of the energy, c = -beta^2 de/dbeta, wherever it is finite and has an error (zero for exact
    values): give NaN where it must not be used. A peak that is narrower than the spacing of temperatures cannot be foreseen from its
    neighbours; everywhere else errors are one standard deviation.

    Args:
        hamiltonian: what was simulated; its couplings fix the first moments.
        betas: inverse temperatures > 0 in any order, (n_T,).
        energy, specific_heat: means and errors per site, (n_T,), statistically independent between temperatures; NaN where
            a temperature is not finished.

    Returns:
        entropy, free_energy, specific_heat, (n_T,) each; NaN where the energy is.
    """
    second, third = high_temperature_moments(hamiltonian)
    w = second**0.5 or 1e-9  # H = 0 has no scale: any small one will do
    known = np.isfinite(energy.mean) & np.isfinite(energy.error)
    x = np.asarray(betas, float)[known] * w
    results = np.full((2, 3, len(known)), np.nan)
    if known.any():
        e = Estimate(energy.mean[known] / w, energy.error[known] / w)
        c = Estimate(specific_heat.mean[known], specific_heat.error[known])
        results[..., known] = _regress(x, third / (2 * w**3) - 1, e, c)
        results[:, 1] *= w
    return {name: Estimate(mean, error) for name, mean, error in zip(("entropy", "free_energy", "specific_heat"), *results, strict=True)}


def high_temperature_moments(hamiltonian: SpinHamiltonian) -> tuple[float, float]:
    """Tr H^2 / (N 2^N) = -de/dbeta and Tr H^3 / (N 2^N) = d^2e/dbeta^2 at beta = 0, from the couplings.

    Products of three Pauli strings have a trace if they are the sides of a triangle, a bond and the fields at its ends, or
    XX, YY and ZZ of one bond, whose product is -1; each comes in six orders.
    """
    n, (i, j) = hamiltonian.n_sites, hamiltonian.bonds.T
    zz, xy, x, z = (np.asarray(c, float) for c in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    ends = np.concatenate([i, j]), np.concatenate([j, i])
    zz_matrix, xy_matrix = (scipy.sparse.coo_array((np.tile(c, 2), ends), shape=(n, n)).tocsr() for c in (zz, xy))
    triangles = sum(weight * (m @ m).multiply(m).sum() for weight, m in ((1, zz_matrix), (2, xy_matrix)))
    fields = 3 * (z @ (zz_matrix @ z) + x @ (xy_matrix @ x))
    second = zz @ zz + 2 * xy @ xy + x @ x + z @ z
    return float(second) / n, float(triangles + fields - 6 * zz @ xy**2) / n


class _Functionals(NamedTuple):
    """Linear functionals of h, rows over (h at points, h' at the z of the data), and their values for h = 0."""

    rows: np.ndarray  # (n_functionals, n_points + n_data)
    offset: np.ndarray  # (n_functionals,)

    def __getitem__(self, chosen: np.ndarray) -> "_Functionals":
        return _Functionals(self.rows[chosen], self.offset[chosen])


def _regress(x: np.ndarray, a: float, e: Estimate, c: Estimate) -> np.ndarray:
    """Means and errors (2, 3, n) of s, f / w and c at x from those of e / w and c."""
    n, z = len(x), x / (1 + x)
    points, energies, heats, integrals = _functionals(x, a)
    slope = np.isfinite(c.mean) & np.isfinite(c.error)
    data = _join(energies, heats[slope])
    values = np.concatenate([e.mean, c.mean[slope]]) - data.offset
    noise = np.concatenate([e.error, c.error[slope]]) ** 2
    entropy = _Functionals(x[:, None] * energies.rows - integrals.rows, np.log(2) + x * energies.offset - integrals.offset)
    free_energy = _Functionals(integrals.rows / x[:, None], (integrals.offset - np.log(2)) / x)
    wanted = _join(entropy, free_energy, heats)

    constant = np.concatenate([np.ones(len(points)), np.zeros(n)]) * _CONSTANT
    log_likelihood, means, variances = [], [], []
    for matern, length in product((_matern32, _matern52), _LENGTHS):
        shape = _covariance(matern, length, points, z)
        cross, inner = wanted.rows @ shape @ data.rows.T, data.rows @ shape @ data.rows.T
        prior = np.einsum("ij,jk,ik->i", wanted.rows, shape, wanted.rows, optimize=True)
        constant_data, constant_wanted = data.rows @ constant, wanted.rows @ constant
        for amplitude in _AMPLITUDES:
            covariance = amplitude**2 * inner + np.outer(constant_data, constant_data)
            covariance[np.diag_indices_from(covariance)] += noise + _JITTER * np.diag(covariance)
            try:
                factor = cholesky(covariance, lower=True)
            except np.linalg.LinAlgError:  # exact data to which these hyperparameters give no weight
                continue
            right = np.column_stack([values, (amplitude**2 * cross + np.outer(constant_wanted, constant_data)).T])
            weighted, gain = np.split(solve_triangular(factor, right, lower=True, check_finite=False), [1], axis=1)
            weighted = weighted[:, 0]
            log_likelihood.append(-0.5 * weighted @ weighted - np.log(np.diag(factor)).sum())
            means.append(weighted @ gain)
            variances.append(amplitude**2 * prior + constant_wanted**2 - np.sum(gain**2, 0))
    p = softmax(_LIKELIHOOD_POWER * np.array(log_likelihood))
    mean = p @ means
    variance = p @ (np.maximum(variances, 0) + (np.array(means) - mean) ** 2)
    return np.stack([mean + wanted.offset, np.sqrt(variance)]).reshape(2, 3, n)


def _functionals(x: np.ndarray, a: float) -> tuple[np.ndarray, _Functionals, _Functionals, _Functionals]:
    """Points in z where h is needed, and e / w, c and int_0^x (e / w) dx' as functionals of h; the integral by Gauss-Legendre."""
    n, z = len(x), x / (1 + x)
    steps = 1 - np.exp(-np.arange(0, np.log1p(x.max()), 0.25))  # dx = dz / (1 - z)^2 varies by less than e^(1/2) between them
    edges = np.unique(np.concatenate([z, steps]))
    nodes, weights = np.polynomial.legendre.leggauss(6)
    half = np.diff(edges)[:, None] / 2
    t = (edges[:-1, None] + half * (1 + nodes)).ravel()
    measure = (half * weights).ravel() / (1 - t) ** 2 * (t < z[:, None])  # (n, n_nodes)
    points, none = np.concatenate([z, t]), np.zeros((n, n))
    known = lambda z: -z + a * z**2  # noqa: E731
    energies = _Functionals(np.hstack([np.diag(z**3), 0 * measure, none]), known(z))
    heats = _Functionals(np.hstack([np.diag(-3 * z**4), 0 * measure, np.diag(-(z**5))]), z**2 - 2 * a * z**3)
    return points, energies, heats, _Functionals(np.hstack([none, measure * t**3, none]), measure @ known(t))


def _join(*parts: _Functionals) -> _Functionals:
    return _Functionals(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _covariance(matern: Callable[[np.ndarray], tuple], length: float, points: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Covariance of (h at points, h' at z) for unit amplitude."""
    value, _, _ = matern((points[:, None] - points) / length)
    _, slope, _ = matern((points[:, None] - z) / length)
    _, _, curvature = matern((z[:, None] - z) / length)
    return np.block([[value, -slope / length], [-slope.T / length, -curvature / length**2]])


def _matern32(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """k(r), k'(r), k''(r) for a once differentiable process."""
    s = np.sqrt(3) * np.abs(r)
    return (1 + s) * np.exp(-s), -3 * r * np.exp(-s), -3 * (1 - s) * np.exp(-s)


def _matern52(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """k(r), k'(r), k''(r) for a twice differentiable process."""
    s = np.sqrt(5) * np.abs(r)
    return (1 + s + s**2 / 3) * np.exp(-s), -5 / 3 * r * (1 + s) * np.exp(-s), -5 / 3 * (1 + s - s**2) * np.exp(-s)

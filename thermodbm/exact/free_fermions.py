"""The uniform transverse-field Ising ring of any length, by free fermions in both parity sectors.

With the modes eps_k = 2 (J^2 + gamma^2 - 2 J gamma cos k)^(1/2), signed where k is its own negative, eps_0 = 2 (gamma - J) and
eps_pi = 2 (gamma + J), the even (odd) sector has k in odd (even) multiples of pi/N and

    Z = Z_+ + Z_-,   Z_p = 1/2 prod_k 2 cosh(beta eps_k / 2) [1 + p prod_k tanh(beta eps_k / 2)].

Both sides are analytic in J and gamma, so this holds for either sign of each and for odd N, frustrated rings included.
Source: Katsura, Phys. Rev. 127, 1508 (1962); Pfeuty, Ann. Phys. 57, 79 (1970).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import entr, expit, logsumexp

from thermodbm.compilation import brief
from thermodbm.exact.layered_ring import log_trace, momenta, thermal_correlations_zz, thermal_modes
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.parameters import Directions, Parameter, stacked, unstacked

MAX_SITES_CORRELATIONS = 256
"""Their determinants take N^4 operations a temperature."""


class _Derivatives(NamedTuple):
    """ln Z of one parity sector and its derivatives, each (n_T,)."""

    log_z: np.ndarray
    entropy: np.ndarray  # ln Z - beta d ln Z / dbeta
    beta: np.ndarray  # d/dbeta
    beta_beta: np.ndarray  # d^2/dbeta^2
    gamma: np.ndarray  # d/dgamma


def applicable(hamiltonian: SpinHamiltonian) -> bool:
    """Whether H is a periodic chain of at least three sites with one J, one gamma (not both zero) and no field along z."""
    lattice = hamiltonian.lattice
    ring = lattice.kind == "chain" and all(lattice.periodic) and lattice.n_sites > 2
    if hamiltonian.model != "tfim" or not ring or np.asarray(hamiltonian.z_field).any():
        return False
    uniform = all(np.ptp(np.asarray(leaf)) == 0 for leaf in (hamiltonian.zz, hamiltonian.x_field))
    return uniform and bool(hamiltonian.x_field[0] or hamiltonian.zz[0])


def ising_ring(n_sites: int, J: float, gamma: float, betas: np.ndarray, *, correlations: bool = True) -> dict[str, np.ndarray]:
    """Thermal averages per site of H = -J sum sz_i sz_{i+1} - gamma sum sx_i on a ring (Pauli matrices).

    Args:
        n_sites: at least 3.
        J, gamma: of either sign, not both zero.
        betas: inverse temperatures > 0, (n_T,).

    Returns:
        energy, specific_heat, entropy, free_energy and magnetization_x, each (n_T,). If asked for, and up to `MAX_SITES_CORRELATIONS` sites
        where ground states are not degenerate by frustration: correlation_zz (n_T, n_sites), its mean order_parameter_squared (n_T,) and
        its transform structure_factor_zz (n_T, n_sites).
    """
    betas = np.asarray(betas, float)
    even, odd = (_sector(n_sites, J, gamma, betas, parity) for parity in (1, -1))
    p, q = expit(even.log_z - odd.log_z), expit(odd.log_z - even.log_z)
    energy = -(p * even.beta + q * odd.beta)
    entropy = p * even.entropy + q * odd.entropy + entr(p) + entr(q)
    variance = p * even.beta_beta + q * odd.beta_beta + p * q * (even.beta - odd.beta) ** 2
    curve = {
        "energy": energy / n_sites,
        "specific_heat": betas**2 * variance / n_sites,
        "entropy": entropy / n_sites,
        "free_energy": (energy - entropy / betas) / n_sites,
        "magnetization_x": (p * even.gamma + q * odd.gamma) / betas / n_sites,
    }
    frustrated = n_sites % 2 == 1 and J < 0 and abs(gamma) <= -J  # large numbers cancel
    if not correlations or n_sites > MAX_SITES_CORRELATIONS or frustrated or not (J and gamma):
        return curve
    log_z = np.logaddexp(even.log_z, odd.log_z)
    pairs = np.array([thermal_correlations_zz(n_sites, J, gamma, b, z) for b, z in zip(betas, log_z, strict=True)])
    waves = np.fft.fft(pairs, axis=1).real
    return curve | {"correlation_zz": pairs, "order_parameter_squared": pairs.mean(1), "structure_factor_zz": waves}


def ising_ring_response(
    hamiltonian: SpinHamiltonian, parameters: Sequence[Parameter], betas: np.ndarray, *, correlations: bool = True
) -> dict[str, dict[str, np.ndarray]]:
    """Derivatives of what `ising_ring` gives as numbers, per site, (n_T, ...): by automatic differentiation of ln Z, and of
    order_parameter_squared by differences of fourth order. One bond (site) of the ring moves averages by 1/N of what all do.

    JAX must be in double precision.
    """
    n, J, gamma = hamiltonian.n_sites, -float(hamiltonian.zz[0]), float(hamiltonian.x_field[0])
    directions = stacked(parameters)
    # of (J, gamma, beta); a field along z breaks the flip, and moves no average that is even
    along = np.stack([-directions.zz.mean(1), directions.x_field.mean(1), directions.beta], 1)
    found: dict[str, list[np.ndarray]] = {}
    for beta in np.asarray(betas, float):
        here = np.array([J, gamma, beta])
        of_each = [_ring_slopes(n)(here, direction) for direction in np.eye(3)]
        slopes = {name: np.array([float(each[name]) for each in of_each]) for name in of_each[0]}
        if correlations and (order := _order_slopes(n, J, gamma, float(beta))) is not None:
            slopes["order_parameter_squared"] = order
        for name, slope in slopes.items():
            found.setdefault(name, []).append(along @ slope)
    return {name: unstacked(parameters, np.array(values)) for name, values in found.items()}


def ising_ring_second(hamiltonian: SpinHamiltonian, directions: Directions, beta: float) -> np.ndarray:
    """d^2 ln Z / d lambda_a d lambda_b / N of a ring along directions that move all its bonds and sites alike, (K, K).

    JAX must be in double precision.
    """
    n = hamiltonian.n_sites
    along = np.stack([-directions.zz.mean(1), directions.x_field.mean(1), directions.beta], 1)
    here = np.array([-float(hamiltonian.zz[0]), float(hamiltonian.x_field[0]), beta])
    return along @ np.asarray(_ring_second(n)(here)) @ along.T / n


@lru_cache(maxsize=16)
def _ring_second(n: int) -> Callable[[np.ndarray], jax.Array]:
    """Compiled second derivatives of ln Z of a ring of n sites in J, gamma and beta, (3, 3)."""
    ks = momenta(n)
    log_z = lambda x: jax.nn.logsumexp(log_trace(ks, thermal_modes(ks, *x)))  # noqa: E731
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    return jax.jit(jax.jacfwd(jax.jacfwd(log_z)), compiler_options=options)


@lru_cache(maxsize=16)
def _ring_slopes(n: int) -> Callable[[np.ndarray, np.ndarray], dict[str, jax.Array]]:
    """Compiled derivatives of energy, specific_heat, entropy, free_energy and magnetization_x of a ring of n sites at (J, gamma, beta)
    along a direction; forward mode throughout, which compiles fastest."""
    ks, along_gamma, along_beta = momenta(n), *np.eye(3)[1:]

    def log_z(x: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(log_trace(ks, thermal_modes(ks, *x)))

    def averages(x: jax.Array) -> dict[str, jax.Array]:
        of_beta = lambda x: jax.jvp(log_z, (x,), (along_beta,))  # noqa: E731
        (value, slope), (_, curvature) = jax.jvp(of_beta, (x,), (along_beta,))
        beta, energy, free = x[2], -slope / n, -value / (x[2] * n)
        of_gamma = jax.jvp(log_z, (x,), (along_gamma,))[1]
        return {
            "energy": energy,
            "specific_heat": beta**2 * curvature / n,
            "entropy": beta * (energy - free),
            "free_energy": free,
            "magnetization_x": of_gamma / (beta * n),
        }

    return jax.jit(lambda x, along: jax.jvp(averages, (x,), (along,))[1], compiler_options=brief())


def _order_slopes(n: int, J: float, gamma: float, beta: float) -> np.ndarray | None:
    """Of order_parameter_squared in J, gamma and beta, (3,); None where it is not known."""
    here, steps = np.array([J, gamma, beta]), (-2, -1, 1, 2)
    slopes = []
    for k in range(3):
        step = 1e-3 * np.eye(3)[k] * abs(here[k])
        curves = [ising_ring(n, *(x := here + m * step)[:2], x[2:]) for m in steps]
        if "order_parameter_squared" not in curves[0]:
            return None
        values = [float(c["order_parameter_squared"][0]) for c in curves]
        slopes.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step[k]))
    return np.array(slopes)


def _sector(n: int, J: float, gamma: float, betas: np.ndarray, parity: int) -> _Derivatives:
    """ln Z_p; where p prod tanh < 0 the bracket 1 - |prod tanh| is formed without cancellation, so low temperatures are safe."""
    multiple = 2 * np.arange(n) + (1 if parity > 0 else 0)  # of pi / n
    k = np.pi * multiple / n
    eps = 2 * np.hypot(gamma - J * np.cos(k), J * np.sin(k))
    eps_gamma = np.divide(4 * (gamma - J * np.cos(k)), eps, out=np.zeros(n), where=eps > 0)
    for index, signed in ((0, 2 * (gamma - J)), (n, 2 * (gamma + J))):
        eps[multiple == index], eps_gamma[multiple == index] = signed, 2.0
    eps[eps == 0] = 1e-150  # a zero mode: its tanh vanishes, but not the product of its tanh and d ln tanh / d gamma

    x, positive = betas[:, None] * np.abs(eps) / 2, np.sign(eps)
    decay = np.exp(-2 * x)
    near = np.minimum(x, 15.0)  # beyond, ln coth x = 2 exp(-2x)
    log_log_coth = np.where(x < 15, np.log(np.log1p(np.exp(-2 * near)) - _log1m_exp(2 * near)), np.log(2) - 2 * x)
    log_coth = logsumexp(log_log_coth, axis=1)  # ln sum_k ln coth |x_k| = ln -ln |T|, T = prod tanh x_k
    sign = parity * np.prod(positive)
    log_product = -np.exp(log_coth)
    log_bracket = np.log1p(np.exp(log_product)) if sign > 0 else np.where(log_coth < -30, log_coth, _log1m_exp(-log_product))
    # d ln(1 + p T) = p T / (1 + p T) sum_k d x_k / (sinh x_k cosh x_k)
    inverse = 2 * np.exp(-2 * x - _log1m_exp(4 * x)) * positive  # 1 / (2 sinh x cosh x)
    scaled = 2 * np.exp(-2 * x - _log1m_exp(4 * x) + (log_product - log_bracket)[:, None]) * positive * sign
    slope = np.sum(eps * scaled, 1)
    curvature = slope * np.sum(eps * inverse, 1) - np.sum(eps**2 * scaled * positive / np.tanh(2 * x), 1)
    return _Derivatives(
        log_z=np.sum(x + np.log1p(decay), 1) + log_bracket - np.log(2),
        entropy=np.sum(np.log1p(decay) + 2 * x * decay / (1 + decay), 1) + log_bracket - np.log(2) - betas * slope,
        beta=np.sum(np.abs(eps) / 2 * np.tanh(x), 1) + slope,
        beta_beta=np.sum(eps**2 * decay / (1 + decay) ** 2, 1) + curvature - slope**2,
        gamma=betas * (np.sum(eps_gamma * positive / 2 * np.tanh(x), 1) + np.sum(eps_gamma * scaled, 1)),
    )


def _log1m_exp(y: np.ndarray) -> np.ndarray:
    """ln(1 - exp(-y)) for y > 0, without cancellation; -inf at y = 0."""
    with np.errstate(divide="ignore"):
        return np.where(y < 0.7, np.log(-np.expm1(-np.minimum(y, 0.7))), np.log1p(-np.exp(-np.maximum(y, 0.7))))

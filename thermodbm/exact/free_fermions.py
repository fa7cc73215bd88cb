"""The uniform transverse-field Ising ring of any length, by free fermions in both parity sectors.

With the modes eps_k = 2 (J^2 + gamma^2 - 2 J gamma cos k)^(1/2), signed where k is its own negative, eps_0 = 2 (gamma - J) and
eps_pi = 2 (gamma + J), the even (odd) sector has k in odd (even) multiples of pi/N and

    Z = Z_+ + Z_-,   Z_p = 1/2 prod_k 2 cosh(beta eps_k / 2) [1 + p prod_k tanh(beta eps_k / 2)].

Both sides are analytic in J and gamma, so this holds for either sign of each and for odd N, frustrated rings included.
Source: Katsura, Phys. Rev. 127, 1508 (1962); Pfeuty, Ann. Phys. 57, 79 (1970).
"""

from typing import NamedTuple

import numpy as np

from thermodbm.models.hamiltonian import SpinHamiltonian


class _Derivatives(NamedTuple):
    """ln Z of one parity sector and its derivatives, each (n_T,)."""

    log_z: np.ndarray
    beta: np.ndarray  # d/dbeta
    beta_beta: np.ndarray  # d^2/dbeta^2
    gamma: np.ndarray  # d/dgamma


def applicable(hamiltonian: SpinHamiltonian) -> bool:
    """Whether H is a periodic chain of at least three sites with one J, one gamma (not both zero) and no field along z."""
    lattice = hamiltonian.lattice
    uniform = all(np.ptp(np.asarray(leaf)) == 0 for leaf in (hamiltonian.zz, hamiltonian.x_field))
    ring = lattice.kind == "chain" and all(lattice.periodic) and lattice.n_sites > 2
    coupled = bool(hamiltonian.x_field[0]) or bool(hamiltonian.zz[0]) if ring else False
    return hamiltonian.model == "tfim" and ring and uniform and coupled and not np.asarray(hamiltonian.z_field).any()


def ising_ring(n_sites: int, J: float, gamma: float, betas: np.ndarray) -> dict[str, np.ndarray]:
    """Thermal averages per site of H = -J sum sz_i sz_{i+1} - gamma sum sx_i on a ring (Pauli matrices).

    Args:
        n_sites: at least 3.
        J, gamma: of either sign, not both zero.
        betas: inverse temperatures > 0, (n_T,).

    Returns:
        energy, specific_heat, entropy, free_energy and magnetization_x, each (n_T,).
    """
    betas = np.asarray(betas, float)
    even, odd = (_sector(n_sites, J, gamma, betas, parity) for parity in (1, -1))
    log_z = np.logaddexp(even.log_z, odd.log_z)
    p, q = np.exp(even.log_z - log_z), np.exp(odd.log_z - log_z)
    energy = -(p * even.beta + q * odd.beta)
    variance = p * even.beta_beta + q * odd.beta_beta + p * q * (even.beta - odd.beta) ** 2
    return {
        "energy": energy / n_sites,
        "specific_heat": betas**2 * variance / n_sites,
        "entropy": (log_z + betas * energy) / n_sites,
        "free_energy": -log_z / betas / n_sites,
        "magnetization_x": (p * even.gamma + q * odd.gamma) / betas / n_sites,
    }


def _sector(n: int, J: float, gamma: float, betas: np.ndarray, parity: int) -> _Derivatives:
    """ln Z_p; where p prod tanh < 0 the bracket 1 - |prod tanh| is formed without cancellation, so low temperatures are safe."""
    k = np.pi * (2 * np.arange(n) + (1 if parity > 0 else 0)) / n
    # sqrt(J^2 + gamma^2 - 2 J gamma cos k) in the form that keeps its accuracy near J = gamma, k = 0 and J = -gamma, k = pi
    eps = 2 * np.hypot(gamma - J * np.cos(k), J * np.sin(k))
    eps_gamma = np.divide(4 * (gamma - J * np.cos(k)), eps, out=np.zeros(n), where=eps > 0)
    own_negative = {0: (2 * (gamma - J), 2.0), n: (2 * (gamma + J), 2.0)}  # k n / pi -> signed eps, d eps / d gamma
    for number, index in enumerate(2 * np.arange(n) + (1 if parity > 0 else 0)):
        if index in own_negative:
            eps[number], eps_gamma[number] = own_negative[index]
    eps[eps == 0] = 1e-150  # a zero mode: its tanh vanishes, but not the product of its tanh and d ln tanh / d gamma

    x = betas[:, None] * eps / 2
    log_cosh = np.abs(x) + np.log1p(np.exp(-2 * np.abs(x)))  # ln 2 cosh
    log_tanh = np.where(np.abs(x) > 0.1, np.log1p(-2 / (np.exp(np.minimum(2 * np.abs(x), 700)) + 1)), np.log(np.tanh(np.abs(x))))
    inverse_sinh = 2 * np.exp(-2 * np.abs(x)) / -np.expm1(-4 * np.abs(x)) * np.sign(x)  # 1 / sinh(beta eps)
    coth = 1 / np.tanh(2 * x)

    sign = parity * np.prod(np.sign(eps))
    log_product = log_tanh.sum(1)
    log_bracket = np.log1p(np.exp(log_product)) if sign > 0 else np.log(-np.expm1(log_product))
    ratio = sign * np.exp(log_product - log_bracket)  # p T / (1 + p T), T = prod tanh
    slope = np.sum(eps * inverse_sinh, 1)  # d ln T / d beta
    curvature = -np.sum(eps**2 * coth * inverse_sinh, 1)
    return _Derivatives(
        log_z=log_cosh.sum(1) + log_bracket - np.log(2),
        beta=np.sum(eps / 2 * np.tanh(x), 1) + ratio * slope,
        beta_beta=np.sum((eps / 2 / np.cosh(np.minimum(np.abs(x), 350))) ** 2, 1) + ratio * (slope**2 + curvature) - (ratio * slope) ** 2,
        gamma=betas * (np.sum(eps_gamma / 2 * np.tanh(x), 1) + ratio * np.sum(eps_gamma * inverse_sinh, 1)),
    )

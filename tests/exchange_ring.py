"""Reference for tests of exchange networks: dense gates, and the enumeration of all worldlines on a ring of plaquettes."""

import numpy as np
import scipy.linalg

from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import trotter_step

X, Y, Z = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1.0, -1.0])


def on_site(operator: np.ndarray, site: int, n_sites: int) -> np.ndarray:
    return np.kron(np.kron(np.eye(2**site), operator), np.eye(2 ** (n_sites - site - 1)))


def bond_matrix(h: SpinHamiltonian, bond: int) -> np.ndarray:
    i, j = h.bonds[bond]
    zz, xx, yy = (on_site(o, i, h.n_sites) @ on_site(o, j, h.n_sites) for o in (Z, X, Y))
    return (float(h.zz[bond]) * zz + float(h.xy[bond]) * (xx + yy)).real


def field_matrix(h: SpinHamiltonian) -> np.ndarray:
    return -sum(float(f) * on_site(Z, i, h.n_sites) for i, f in enumerate(h.z_field))


def trotter_half_step(h: SpinHamiltonian, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """One symmetric step as a dense matrix, and the half gate of the first group with which it begins and ends."""

    def gate(group: np.ndarray, fraction: float) -> np.ndarray:
        return scipy.linalg.expm(-delta * fraction * sum((bond_matrix(h, b) for b in group), np.zeros((2**h.n_sites,) * 2)))

    (first, _), *inner = trotter_step(h.bonds)
    half, field = gate(first, 0.5), scipy.linalg.expm(-delta / 2 * field_matrix(h))
    step = half @ field
    for group, fraction in inner:
        step = step @ gate(group, fraction)
    return step @ field @ half, half


def ring_averages(h: SpinHamiltonian, n_steps: int, delta: float) -> dict[str, float]:
    """Exact averages per site of the Trotterised ring of n_steps; derivatives of ln Z with respect to beta by finite differences."""
    n, beta = h.n_sites, n_steps * delta

    def log_z(beta: float) -> float:
        return np.log(np.trace(np.linalg.matrix_power(trotter_half_step(h, beta / n_steps)[0], n_steps)))

    eps = 2e-3 * beta
    f = [log_z(beta + k * eps) for k in range(-2, 3)]
    first = (f[0] - 8 * f[1] + 8 * f[3] - f[4]) / (12 * eps)
    second = (-f[0] + 16 * f[1] - 30 * f[2] + 16 * f[3] - f[4]) / (12 * eps**2)
    step, half = trotter_half_step(h, delta)
    rho = np.diag(half @ np.linalg.matrix_power(step, n_steps) @ np.linalg.inv(half))  # the layer below the first group
    p = rho / rho.sum()
    spins = 0.5 * (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1))
    translations = h.lattice.translations
    return {
        "energy": -first / n,
        "specific_heat": beta**2 * second / n,
        "magnetization_z": p @ spins.sum(1) / n,
        "magnetization_z_squared": p @ spins.sum(1) ** 2 / n,
        "correlation_zz": np.mean([p @ (spins[:, t[:1]] * spins[:, t]) for t in translations], axis=0),
    }

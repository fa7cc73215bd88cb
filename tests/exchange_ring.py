"""Reference for tests of exchange networks: dense gates, and the enumeration of all worldlines on a ring of plaquettes."""

import numpy as np
import scipy.linalg
from scipy.special import logsumexp

from thermodbm.estimate.extrapolation import TROTTER_PRIOR, extrapolate
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.deterministic import SHARES
from thermodbm.exact import exact_curve
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.network.exchange import gate_elements, trotter_step
from thermodbm.network.trotter_step import commutator_scale, default_d_tau, kind_of_gates, slices

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


def ring_averages(h: SpinHamiltonian, n_steps: int, delta: float) -> dict[str, np.ndarray]:
    """Exact averages per site of the Trotterised ring of n_steps; derivatives of ln Z with respect to beta by finite differences.

    Pair functions are those of the layer below the first group of gates, where they are measured.
    """
    n, beta = h.n_sites, n_steps * delta

    def spectrum(delta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        half = half_step(h, delta)
        step, first = half @ half.T, half_gates(h, delta)
        values, vectors = np.linalg.eigh(step)
        return np.log(np.maximum(values, 1e-300)), vectors, first

    def log_z(beta: float) -> float:
        return logsumexp(n_steps * spectrum(beta / n_steps)[0])

    eps = 2e-3 * beta
    f = [log_z(beta + k * eps) for k in range(-2, 3)]
    first = (f[0] - 8 * f[1] + 8 * f[3] - f[4]) / (12 * eps)
    second = (-f[0] + 16 * f[1] - 30 * f[2] + 16 * f[3] - f[4]) / (12 * eps**2)
    logs, vectors, half = spectrum(delta)
    p = np.sum((half @ vectors) * np.exp(n_steps * logs - f[2]) * np.linalg.solve(half, vectors), 1)
    spins = 0.5 * (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1))
    moment, square = p @ spins.sum(1), p @ spins.sum(1) ** 2
    averages = {
        "energy": -first / n,
        "specific_heat": beta**2 * second / n,
        "magnetization_z": moment / n,
        "magnetization_z_squared": square / n,
        "susceptibility": beta * (square - moment**2) / n,
        "correlation_zz": np.mean([p @ (spins[:, t[:1]] * spins[:, t]) for t in h.lattice.translations], axis=0),
    }
    if h.lattice.wavevectors is not None:
        waves = spins @ np.exp(-1j * h.lattice.positions @ h.lattice.wavevectors.T)
        averages["structure_factor_zz"] = p @ np.abs(waves) ** 2 / n
    if (signs := two_coloring(n, h.lattice.bonds())) is not None:
        averages["staggered_structure_factor"] = p @ (spins @ signs) ** 2 / n
    return averages


def ring_in_time(h: SpinHamiltonian, n_steps: int, delta: float, n_tau: int) -> dict[str, np.ndarray]:
    """Exact averages of the same ring of what lies at different times: susceptibility_x, and correlations of sz between whole steps."""
    n, beta = h.n_sites, n_steps * delta
    half, first = half_step(h, delta), half_gates(h, delta)
    values, vectors = np.linalg.eigh(half @ half.T)
    logs = n_steps * np.log(np.maximum(values, 1e-300))
    left, right = vectors.T @ np.linalg.inv(first), first @ vectors
    total_x = left @ sum(on_site(X, i, n) for i in range(n)) @ right / 2
    spins = 0.5 * (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1))
    s = np.stack([left @ (x[:, None] * right) for x in spins.T])

    def weight(steps: int) -> np.ndarray:
        """Of two levels that last for the rest of the ring and for some steps."""
        part = steps / n_steps
        return np.exp((1 - part) * logs[:, None] + part * logs - logsumexp(logs))

    def pairs(w: np.ndarray) -> np.ndarray:
        return np.einsum("iab,jba->ij", s * w, s, optimize=True)

    apart = [n_steps * k // n_tau for k in range(n_tau // 2 + 1)]
    c = np.array([pairs(weight(k) + weight(n_steps - k)) / 2 for k in apart])
    mean = sum(weight(k) for k in range(n_steps)) / n_steps
    averages = {
        "susceptibility_x": beta * np.sum(mean * total_x * total_x.T) / n,
        "imaginary_time_correlation_zz": np.mean([c[:, t[0], t] for t in h.lattice.translations], axis=0),
    }
    if h.lattice.wavevectors is not None:
        waves = np.exp(-1j * h.lattice.positions @ h.lattice.wavevectors.T)
        at_q = lambda c: np.einsum("...ij,ik,jk->...k", c, waves, waves.conj()).real / n  # noqa: E731
        averages |= {"imaginary_time_structure_factor_zz": at_q(c), "static_susceptibility_zz": beta * at_q(pairs(mean))}
    return averages


def half_step(h: SpinHamiltonian, delta: float) -> np.ndarray:
    """A with A A^T one symmetric Trotter step."""
    inner = [group for group, _ in trotter_step(h.bonds)][1:]
    groups = inner[: (len(inner) + 1) // 2]  # the others are these backwards
    matrix = half_gates(h, delta)
    diagonal = (1 - 2 * ((np.arange(2**h.n_sites)[:, None] >> np.arange(h.n_sites)[::-1]) & 1)) @ np.asarray(h.z_field)
    matrix = matrix * np.exp(delta / 2 * diagonal)
    for group in groups:
        matrix = _times_gates(h, matrix, group, delta / 2)
    return matrix


def half_gates(h: SpinHamiltonian, delta: float) -> np.ndarray:
    """The half gates of the first group."""
    return _times_gates(h, np.eye(2**h.n_sites), trotter_step(h.bonds)[0][0], delta / 2)


def _times_gates(h: SpinHamiltonian, matrix: np.ndarray, group: np.ndarray, duration: float) -> np.ndarray:
    states = np.arange(2**h.n_sites)
    for bond in group:
        i, j = (h.n_sites - 1 - site for site in h.bonds[bond])
        a, b, c = (float(x) for x in gate_elements(float(h.zz[bond]), float(h.xy[bond]), duration))
        parallel = (states >> i) & 1 == (states >> j) & 1
        exchanged = matrix[:, states ^ (1 << i) ^ (1 << j)]
        matrix = np.where(parallel, a * matrix, b * matrix + c * exchanged)
    return matrix


def noise(name: str, beta: float, value: np.ndarray, n_sites: int) -> np.ndarray:
    """Statistical error of an observable in units of the energy's: the least that was seen in runs of rings of eight spins.

    At beta = 1 and 4, delta in {0, 0.5, 1, 2, 5}, both signs, with and without a field: c from 2.1 and 9.7, chi from 1.4 and 7.7 times
    (beta chi / N)^(1/2), the scatter of a rare excitation, correlations from 0.64, structure factors from 0.3 and about their value.
    """
    models = {
        "energy": 1.0,
        "specific_heat": 2.1 * beta**1.1,
        "susceptibility": 1.4 * min(beta, 4.0) ** 1.2 * np.sqrt(beta * np.abs(value) / n_sites) + 1e-4,
        "correlation_zz": 0.64,
    }
    return np.broadcast_to(models.get(name, np.maximum(np.abs(value), 0.3)), np.shape(value))


def trotter_bias(h: SpinHamiltonian, beta: float, target_error: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bias of extrapolated averages and the error bars of a run whose energy reaches the target, without Monte Carlo.

    The levels are exact averages of their rings, at the steps of such a run; their errors follow `noise` and the shares of the sweeps.
    """
    n_slices = slices(beta, default_d_tau(h, target_error), True)
    levels = [ring_averages(h, 2 * n, beta / (2 * n)) for n in n_slices]
    exact = {name: np.asarray(values)[0] for name, values in exact_curve(h, np.array([beta])).items()}
    u = (n_slices[0] / np.array(n_slices)) ** 2
    smallness = (beta / (2 * n_slices[0]) * commutator_scale(h)) ** 2
    prior = TROTTER_PRIOR[kind_of_gates(h)]

    def at_zero(name: str, sigma: float) -> Estimate:
        errors = [sigma * noise(name, beta, exact[name], h.n_sites) * np.sqrt(SHARES[True][0] / share) for share in SHARES[True]]
        return extrapolate([Estimate(x[name], e) for x, e in zip(levels, errors, strict=True)], u, **prior.scaled(name, smallness))

    low, high = 1e-3 * target_error, target_error
    for _ in range(40):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if at_zero("energy", middle).error < target_error else (low, middle)
    found = {name: at_zero(name, low) for name in exact if name in levels[0]}
    return {name: (e.mean - exact[name], e.error) for name, e in found.items()}

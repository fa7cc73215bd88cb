from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian, diagonalise, thermal_averages
from thermodbm.exact.free_fermions import ising_ring
from thermodbm.exact.layered_ring import (
    log_fidelity,
    log_trace,
    momenta,
    network_modes,
    order_parameter_squared,
    ring_averages,
    thermal_modes,
)
from thermodbm.models import make_lattice, transverse_field_ising

N_PAIRS, N_LAYERS = 128, 2000
"""To which rings are filled up, so that all share a program."""


@jax.jit
def filled(ks, K, g, *physics):
    modes = network_modes(ks, K, g)
    return ring_averages(ks, modes, *physics), -jnp.expm1(log_fidelity(ks, modes, thermal_modes(ks, *physics))), modes


def ring(n, K, g, *physics):
    """Averages, infidelity and modes of a layered ring."""
    empty = N_LAYERS - len(g)
    return filled(momenta(n, N_PAIRS), jnp.pad(K, (0, empty)), jnp.pad(g, (0, empty)), *physics)


THERMAL = jax.jit(ring_averages)


def dense_ring(n, K, g, J, gamma, beta):
    """Averages and infidelity of a layered ring, by matrices."""
    lattice = make_lattice("chain", n)
    h = dense_hamiltonian(transverse_field_ising(lattice, J, gamma))
    zz, x = (-dense_hamiltonian(transverse_field_ising(lattice, *c)) for c in ((1.0, 0.0), (0.0, 1.0)))
    a = expm(K[0] * zz)
    for K_l, g_l in zip(K[1:], g, strict=True):
        a = a @ expm(g_l * x) @ expm(K_l * zz)
    rho, root = a.T @ a, expm(-beta * h / 2)
    z = np.trace(rho)
    p = np.linalg.svd(a, compute_uv=False) ** 2 / z
    energy, entropy = np.trace(rho @ h) / z / n, -np.sum(p * np.log(p)) / n
    _, s, right = np.linalg.svd(a)
    m = all_configurations(n).mean(1)
    return {
        "log_z": np.log(z),
        "energy": energy,
        "specific_heat": beta**2 * (np.trace(rho @ h @ h) / z - (n * energy) ** 2) / n,
        "magnetization_x": np.trace(rho @ x) / z / n,
        "entropy": entropy,
        "free_energy": energy - entropy / beta,
        "order": np.sum(np.diag(rho) * m**2) / z,
        "infidelity": 1 - np.trace(right.T * s @ right @ root) ** 2 / z / np.trace(root @ root),
    }


def found_ring(n, *layers_and_physics):
    averages, lost, modes = ring(n, *layers_and_physics)
    return averages._asdict() | {"order": order_parameter_squared(momenta(n, N_PAIRS), modes), "infidelity": lost}


@pytest.mark.parametrize("n", range(3, 9))
@pytest.mark.parametrize("J", [1.0, -1.0])
def test_layers_of_any_couplings_agree_with_matrices(n, J):
    rng = np.random.default_rng(n)
    for gamma, beta in ((0.7, 1.3), (1.0, 2.0)):
        K, g = J * rng.uniform(0.05, 0.5, 4), rng.uniform(0.05, 0.5, 3)
        expected, found = dense_ring(n, K, g, J, gamma, beta), found_ring(n, K, g, J, gamma, beta)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-10, err_msg=name)


def trotter(n_slices, J, gamma, beta):
    step = beta / (2 * n_slices)
    return np.r_[0.5, np.ones(n_slices - 1), 0.5] * J * step, np.full(n_slices, gamma * step)


@pytest.mark.parametrize("n", [4, 5])
def test_a_momentum_of_vanishing_weight(n):
    K, g = trotter(3, 1.0, 1.0, 2.0)  # sum g = sum K
    expected, found = dense_ring(n, K, g, 1.0, 1.0, 2.0), found_ring(n, K, g, 1.0, 1.0, 2.0)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(
    ("n", "J", "gamma", "beta"),
    [(64, 1.0, 1.0, 8.0), (65, -1.0, 0.5, 32.0), (256, 1.0, 2.0, 32.0), (100, 1.0, 0.5, 16.0), (33, -1.0, 0.2, 100.0)],
)
def test_many_layers_approach_the_exact_ring(n, J, gamma, beta):
    exact = {k: v[0] for k, v in ising_ring(n, J, gamma, np.array([beta]), correlations=False).items()}
    ks = momenta(n, N_PAIRS)
    thermal = thermal_modes(ks, J, gamma, beta)
    at_once = THERMAL(ks, thermal, J, gamma, beta)._asdict()
    np.testing.assert_allclose(at_once["log_z"], -beta * n * exact["free_energy"], rtol=1e-12)
    layered = [ring(n, *trotter(s, J, gamma, beta), J, gamma, beta) for s in (1000, 2000)]
    coarse, fine = (averages._asdict() for averages, _, _ in layered)
    for name, value in exact.items():
        np.testing.assert_allclose(at_once[name], value, rtol=1e-10, atol=1e-9, err_msg=name)
        if name != "specific_heat" or beta <= 8:  # its Trotter error grows with beta^3
            np.testing.assert_allclose(fine[name] + (fine[name] - coarse[name]) / 3, value, rtol=1e-4, atol=1e-7, err_msg=name)
    order = [order_parameter_squared(ks, modes) for _, _, modes in layered]
    expected = order_parameter_squared(ks, thermal)
    np.testing.assert_allclose(order[1] + (order[1] - order[0]) / 3, expected, atol=1e-7)
    assert np.isnan(expected) == (n % 2 == 1)


@pytest.mark.parametrize("n", [7, 8])
@pytest.mark.parametrize("J", [1.0, -0.6])
def test_order_of_the_thermal_state(n, J):
    h, ks = transverse_field_ising(make_lattice("chain", n), J, 0.8), momenta(n)
    for beta in (0.1, 2.0, 20.0):
        expected = thermal_averages(diagonalise(h), np.array([beta]))["order_parameter_squared"][0]
        np.testing.assert_allclose(order_parameter_squared(ks, thermal_modes(ks, J, 0.8, beta)), expected, rtol=1e-9)


def values(ks, x, K, g, *physics):
    modes = network_modes(ks, K + x[0] * jnp.arange(1.0, 5), g + x[1] * jnp.arange(1.0, 4))
    return log_fidelity(ks, modes, thermal_modes(ks, *physics)) + jax.nn.logsumexp(log_trace(ks, modes)) / 10


VALUES_AND_SLOPES = jax.jit(values), jax.jit(jax.grad(values, 1))


@pytest.mark.parametrize(("n", "J", "beta"), [(65, -1.0, 32.0), (64, 1.0, 4.0)])
def test_gradients(n, J, beta):
    K, g = (x * 1.1 for x in trotter(3, J, 0.9, beta))
    values, slopes = VALUES_AND_SLOPES
    at = partial(values, momenta(n, 33)), (K, g, J, 0.9, beta)
    step = 1e-5
    differences = [(at[0](step * e, *at[1]) - at[0](-step * e, *at[1])) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(slopes(momenta(n, 33), np.zeros(2), *at[1]), differences, rtol=1e-6, atol=1e-8)


def test_small_infidelities_are_clean():
    """The infidelity of Trotter products falls with the fourth power of the step down to 1e-13."""
    values = np.array([ring(64, *trotter(s, 1.0, 1.0, 2.0), 1.0, 1.0, 2.0)[1] for s in (500, 1000, 2000)])
    assert 0 < values[-1] < 1e-11
    np.testing.assert_allclose(values[:-1] / values[1:], 16, rtol=1e-2)

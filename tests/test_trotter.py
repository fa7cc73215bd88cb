import jax
import numpy as np
import pytest
import scipy.linalg

from thermodbm.errors import InputError
from thermodbm.models import graph, make_lattice, transverse_field_ising
from thermodbm.network.dbm import log_amplitude, state_vector
from thermodbm.network.trotter import infinite_temperature, trotter_network

SX, SZ, ONE = np.array([[0.0, 1], [1, 0]]), np.diag([1.0, -1]), np.eye(2)


def operator(n, factors):
    out = np.eye(1)
    for i in range(n):
        out = np.kron(out, factors.get(i, ONE))
    return out


def parts(hamiltonian):
    """Dense diagonal and transverse part, written out independently of the package."""
    n = hamiltonian.n_sites
    hz = sum(c * operator(n, {i: SZ, j: SZ}) for (i, j), c in zip(hamiltonian.bonds.tolist(), np.asarray(hamiltonian.zz), strict=True))
    hz = hz - sum(h * operator(n, {i: SZ}) for i, h in enumerate(np.asarray(hamiltonian.z_field)))
    hx = -sum(g * operator(n, {i: SX}) for i, g in enumerate(np.asarray(hamiltonian.x_field)))
    return hz, hx


def flipped(n):
    """Matrix of |Psi_inf>: <sigma, sigma'|Psi_inf> = 1 where sigma' = -sigma."""
    return np.eye(2**n)[::-1]


def random_ising(lattice, seed):
    rng = np.random.default_rng(seed)
    J, h = rng.normal(size=len(lattice.bonds())), rng.normal(size=lattice.n_sites)
    return transverse_field_ising(lattice, J, rng.normal(size=lattice.n_sites), h)


@pytest.mark.parametrize(
    ("lattice", "n_slices"),
    [
        (make_lattice("chain", 2), 3),
        (make_lattice("chain", 3), 3),
        (make_lattice("chain", 4), 2),
        (graph(4, [(0, 1), (1, 3), (0, 3), (2, 3)]), 2),
    ],
    ids=["pair", "triangle", "ring", "graph"],
)
@pytest.mark.parametrize("seed", range(3))
def test_network_is_the_trotter_product(lattice, n_slices, seed):
    hamiltonian, beta, n = random_ising(lattice, seed), 1.3, lattice.n_sites
    delta = beta / (2 * n_slices)
    hz, hx = parts(hamiltonian)
    half = scipy.linalg.expm(-delta * hz / 2)
    gate_exact = np.linalg.matrix_power(half @ scipy.linalg.expm(-delta * hx) @ half, n_slices) @ flipped(n)
    psi = state_vector(trotter_network(hamiltonian, beta, n_slices))
    psi = psi * np.linalg.norm(gate_exact) / np.linalg.norm(psi)
    psi = psi * np.exp(-1j * np.angle(np.vdot(gate_exact, psi)))
    assert np.abs(psi - gate_exact).max() < 1e-10 * np.abs(gate_exact).max()


def test_trotter_error_is_second_order():
    hamiltonian, beta = random_ising(make_lattice("chain", 2), 5), 1.0
    hz, hx = parts(hamiltonian)
    exact = scipy.linalg.expm(-beta / 2 * (hz + hx)) @ flipped(2)
    exact /= np.linalg.norm(exact)
    errors = []
    for n_slices in (2, 4):
        psi = state_vector(trotter_network(hamiltonian, beta, n_slices))
        psi /= np.linalg.norm(psi)
        errors.append(np.linalg.norm(psi * np.exp(-1j * np.angle(np.vdot(exact, psi))) - exact))
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_infinite_temperature_pairs_every_spin_with_its_ancilla():
    psi = state_vector(infinite_temperature(3))
    np.testing.assert_allclose(psi / psi[0, -1], flipped(3), atol=1e-15)


def test_log_amplitude_is_jittable_and_batched():
    params = trotter_network(random_ising(make_lattice("chain", 3), 1), 0.7, 2)
    rng = np.random.default_rng(0)
    v, d = rng.choice([-1, 1], (5, len(params.a))), rng.choice([-1, 1], (5, len(params.c)))
    a, b, c, W, W_deep = map(np.asarray, params)
    direct = [np.exp(a @ v[k] + c @ d[k]) * np.prod(2 * np.cosh(b + W @ v[k] + W_deep @ d[k])) for k in range(5)]
    np.testing.assert_allclose(np.exp(jax.jit(log_amplitude)(params, v, d)), direct, rtol=1e-12, atol=1e-12 * np.abs(direct).max())


@pytest.mark.parametrize(("beta", "n_slices"), [(-1.0, 2), (np.nan, 2), (1.0, 0)])
def test_bad_input_is_refused(beta, n_slices):
    with pytest.raises(InputError):
        trotter_network(transverse_field_ising(make_lattice("chain", 3)), beta, n_slices)


def test_exchange_models_have_their_network_too():
    from thermodbm.models import heisenberg
    from thermodbm.network.exchange import exchange_network

    hamiltonian = heisenberg(make_lattice("chain", 3))
    for a, b in zip(trotter_network(hamiltonian, 0.5, 1), exchange_network(hamiltonian, 0.5, 1), strict=True):
        np.testing.assert_array_equal(a, b)

import jax
import numpy as np
import pytest
from scipy.linalg import expm

from thermodbm.errors import InputError
from thermodbm.evolve import cluster as cluster_module
from thermodbm.evolve import dense_layers, networks
from thermodbm.evolve.cluster import clusters, composed, is_uniform, uniform_classes
from thermodbm.evolve.dense_layers import (
    Rows,
    coupling_classes,
    dense_averages,
    dense_network,
    dense_problem,
    network_rows,
    orbit_rows,
    thermal_rows,
)
from thermodbm.evolve.networks import layers_of
from thermodbm.evolve.training import (
    couplings_of,
    expected_error,
    hessian,
    minimise,
    parameters_of,
    ring_problem,
    train,
    train_fewest,
    train_sweep,
    transfer,
)
from thermodbm.exact.diagonalisation import dense_hamiltonian, diagonalise, thermal_averages
from thermodbm.exact.free_fermions import ising_ring
from thermodbm.exact.layered_ring import momenta, network_modes, order_parameter_squared, ring_averages, thermal_modes
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.models.rotation import rotate, sublattice_rotation

BETAS = [1.0, 4.0, 8.0]
RING = momenta(64)
AVERAGES = jax.jit(lambda K, g, beta: ring_averages(RING, network_modes(RING, K[:, 0], g[:, 0]), 1.0, 1.0, beta))


@pytest.fixture(scope="module")
def ring():
    problem = ring_problem(64, 1.0, 1.0, 6)
    return problem, train_sweep(problem, BETAS)


def test_six_layers_hold_a_chain_down_to_low_temperature(ring):
    _, networks = ring
    for network in networks:
        assert network.converged and network.infidelity < 1e-6
        np.testing.assert_array_equal(network.K, network.K[::-1])
        np.testing.assert_array_equal(network.g, network.g[::-1])
        exact = {k: v[0] for k, v in ising_ring(64, 1.0, 1.0, np.array([network.beta])).items()}
        averages = AVERAGES(network.K, network.g, network.beta)
        assert abs(averages.energy - exact["energy"]) < 20 * network.infidelity
        assert 0 <= averages.free_energy - exact["free_energy"] < 20 * network.infidelity
        order = [
            order_parameter_squared(RING, m)
            for m in (network_modes(RING, network.K[:, 0], network.g[:, 0]), thermal_modes(RING, 1.0, 1.0, network.beta))
        ]
        assert abs(order[0] - order[1]) < expected_error(network)


def test_derivative_along_trained_networks(ring):
    """K_beta and g_beta are what training at neighbouring temperatures finds, and -beta^2 de/dbeta along them is the specific heat."""
    problem, networks = ring
    theta, step = parameters_of(problem, networks[1].K, networks[1].g), 1e-2
    network, up, down = (train(problem, 4.0 + s, [theta], tolerance=1e-10) for s in (0, step, -step))
    np.testing.assert_allclose(network.K_beta, (up.K - down.K) / (2 * step), rtol=2e-3)
    np.testing.assert_allclose(network.g_beta, (up.g - down.g) / (2 * step), rtol=2e-3)
    energies = [AVERAGES(network.K + s * network.K_beta, network.g + s * network.g_beta, network.beta).energy for s in (step, -step)]
    slope = (energies[0] - energies[1]) / (2 * step)
    np.testing.assert_allclose(-(network.beta**2) * slope, ising_ring(64, 1.0, 1.0, np.array([network.beta]))["specific_heat"], atol=2e-5)


def test_couplings_without_mirror_symmetry_come_closer(ring):
    _, networks = ring
    free = train(ring_problem(64, 1.0, 1.0, 6, palindromic=False), 8.0)
    assert free.converged and free.infidelity < 0.7 * networks[-1].infidelity
    assert not np.allclose(free.K, free.K[::-1], rtol=0.1)


def test_fewest_layers(ring):
    problem, networks = train_fewest(lambda n: ring_problem(64, 1.0, 1.0, n), BETAS, target_error=2e-3)
    assert [n.beta for n in networks] == BETAS and max(map(expected_error, networks)) <= 2e-3
    n_layers = len(networks[0].g)
    fewer = train_sweep(ring_problem(64, 1.0, 1.0, 4), BETAS)
    assert n_layers == 6 and max(map(expected_error, fewer)) > 2e-3
    # couplings of another number of layers are a better start than Trotter's
    moved = transfer(ring_problem(64, 1.0, 1.0, 4), fewer[-1].K, fewer[-1].g, problem)
    target = problem.target(8.0)
    trotter = parameters_of(problem, 8 * problem.rate_K, 8 * problem.rate_g)
    assert problem.value_and_grad(moved, target)[0] < 0.2 * problem.value_and_grad(trotter, target)[0]
    back = transfer(problem, *couplings_of(moved, problem), problem)
    np.testing.assert_allclose(back, moved, rtol=1e-12)


@pytest.mark.parametrize(("n", "J", "gamma"), [(7, -1.0, 0.8), (8, 0.5, -1.0)])
def test_ring_and_matrices_agree(n, J, gamma):
    by_ring = ring_problem(n, J, gamma, 3)
    by_matrix = dense_problem(dense_network(transverse_field_ising(make_lattice("chain", n), J, abs(gamma)), 3))
    rng = np.random.default_rng(0)
    theta = parameters_of(by_ring, 2 * by_ring.rate_K, 2 * by_ring.rate_g) + 0.1 * rng.normal(size=4)
    (a, da), (b, db) = (p.value_and_grad(theta, p.target(2.0)) for p in (by_ring, by_matrix))
    np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_allclose(da, db, rtol=1e-8)


def magnets():
    yield "triangle", transverse_field_ising(graph(3, [(0, 1), (1, 2), (0, 2)]), [1.0, -0.5, 0.3], [1.0, 0.5, 0.7]), 2
    yield "square", transverse_field_ising(make_lattice("square", (3, 2)), 1.0, 2.0), 2
    yield "heisenberg", heisenberg(make_lattice("chain", 6)), 2
    yield "xxz", xxz(make_lattice("chain", 4), -1.0, 0.5), 1
    yield "path", xxz(graph(4, [(0, 1), (1, 2), (1, 3)]), [1.0, -0.7, 0.4], 1.5), 1


@pytest.mark.parametrize(("name", "hamiltonian", "n_layers"), list(magnets()), ids=[m[0] for m in magnets()])
def test_rows_of_layers_of_any_magnet(name, hamiltonian, n_layers):
    """Against products of exponentials of the parts of H; and thermal rows against diagonalisation."""
    network = dense_network(hamiltonian, n_layers)
    weights = network.rows.weights[:, None]
    assert weights.sum() == 2**hamiltonian.n_sites
    curve = thermal_averages(diagonalise(hamiltonian), np.array([1.5]))
    found = dense_averages(network, thermal_rows(network, 1.5), 1.5)
    names = {"order": "staggered_structure_factor"} if hamiltonian.conserves_sz else {"order": "order_parameter_squared"}
    for key, value in found.items():
        if key != "order" or not hamiltonian.conserves_sz or name == "heisenberg":
            np.testing.assert_allclose(value, curve[names.get(key, key)][0], rtol=1e-9)
    # many layers of Trotter are the exponential, with an error of second order
    infidelities = []
    for n in (8, 16):
        problem = dense_problem(dense_network(hamiltonian, n))
        theta = parameters_of(problem, 1.5 * problem.rate_K, 1.5 * problem.rate_g)
        infidelities.append(float(problem.value_and_grad(theta, problem.target(1.5))[0]))
    np.testing.assert_allclose(infidelities[0] / infidelities[1], 16, rtol=0.1)


def test_gates_of_exchange_are_exponentials():
    hamiltonian = xxz(make_lattice("chain", 4), 1.0, 0.7)
    network = dense_network(hamiltonian, 1)
    rng = np.random.default_rng(1)
    K, g = (np.where(rate != 0, rng.uniform(0.1, 0.5, rate.shape), 0) for rate in (network.rate_K, network.rate_g))
    labels, product = coupling_classes(hamiltonian).bonds, np.eye(16)
    for K_l, g_l in zip(K, g, strict=True):
        part = dense_hamiltonian(xxz(hamiltonian.lattice, 4 * g_l[labels], K_l[labels] / np.where(g_l[labels] == 0, 1, g_l[labels])))
        product = product @ expm(-part)
    np.testing.assert_allclose(network_rows(network, K, g), network.rows.vectors @ product, atol=1e-12)


def test_classes_and_orbits():
    square = coupling_classes(transverse_field_ising(make_lattice("square", (3, 3))))
    assert set(square.bonds) == {0} and set(square.sites) == {0} and len(square.permutations) == 72
    assert len(set(coupling_classes(transverse_field_ising(make_lattice("chain", 5, False))).bonds)) == 2
    ring = coupling_classes(heisenberg(make_lattice("chain", 8)))
    assert set(ring.bonds) == {0, 1} and len(ring.permutations) == 8
    assert len(orbit_rows(8, ring.permutations).weights) == 27


def test_exchange_gains_from_training():
    hamiltonian = heisenberg(make_lattice("chain", 6))
    network = dense_network(hamiltonian, 2)
    exact = dense_averages(network, thermal_rows(network, 4.0), 4.0)
    trained = train(dense_problem(network), 4.0)
    assert trained.converged
    found = dense_averages(network, network_rows(network, trained.K, trained.g), 4.0)
    coarse = dense_averages(network, network_rows(network, 4 * network.rate_K, 4 * network.rate_g), 4.0)
    for name, factor in (("energy", 5), ("order", 2)):
        assert factor * abs(found[name] - exact[name]) < abs(coarse[name] - exact[name])
    np.testing.assert_allclose(trained.K[trained.K != 0], -trained.g[trained.g != 0], rtol=1e-4)  # no axis is singled out


@pytest.mark.parametrize(
    "hamiltonian",
    [
        pytest.param(transverse_field_ising(make_lattice("chain", 8)), id="Ising"),
        pytest.param(heisenberg(make_lattice("chain", 8)), id="Heisenberg"),
    ],
)
def test_random_vectors_train_as_matrices_do(hamiltonian, monkeypatch):
    by_rows = train(dense_problem(dense_network(hamiltonian, 2)), 2.0)
    monkeypatch.setattr(dense_layers, "MAX_SITES", 4)
    problem = dense_problem(dense_network(hamiltonian, 2))
    by_vectors = train(problem, 2.0)
    np.testing.assert_allclose(by_vectors.infidelity, by_rows.infidelity, rtol=0.05)
    np.testing.assert_allclose(by_vectors.K, by_rows.K, rtol=0.01)
    np.testing.assert_allclose(by_vectors.g_beta, by_rows.g_beta, rtol=0.02, atol=2e-3)
    # where the network is the thermal state, its metric is the Hessian: of many layers of Trotter
    problem = dense_problem(dense_network(hamiltonian, 6))
    theta = parameters_of(problem, 0.5 * problem.rate_K, 0.5 * problem.rate_g)
    by_differences = hessian(lambda x: problem.value_and_grad(x, problem.target(0.5)), theta)
    np.testing.assert_allclose(problem.curvature(theta), by_differences, atol=0.01 * np.abs(by_differences).max())


def test_clusters_resemble_the_magnet():
    def extents(make, kind, extent):
        return [cluster.lattice.extent for cluster in clusters(make(make_lattice(kind, extent)))]

    assert extents(transverse_field_ising, "square", (8, 8)) == [(4, 4), (3, 4)]
    assert extents(heisenberg, "square", (8, 8)) == [(4, 4)]  # two sublattices, four groups of gates
    assert extents(heisenberg, "chain", (64,)) == [(12,), (8,)]
    assert extents(transverse_field_ising, "cubic", (4, 4, 4)) == []  # an axis of two cells has single bonds
    magnet = transverse_field_ising(make_lattice("triangular", (6, 6)), 0.7, 1.3)
    (cluster, _) = clusters(magnet)
    assert is_uniform(cluster) and cluster.zz[0] == magnet.zz[0] and cluster.x_field[0] == magnet.x_field[0]
    assert not is_uniform(transverse_field_ising(make_lattice("chain", 4), [1.0, 1.0, 1.0, 1.1]))
    assert not is_uniform(heisenberg(make_lattice("chain", 4, False)))
    labels = uniform_classes(heisenberg(make_lattice("square", (4, 4)))).bonds
    assert np.bincount(labels).tolist() == [8] * 4


def test_couplings_carry_over_to_a_larger_magnet(monkeypatch):
    """A cluster's estimate of the infidelity against free fermions of the large ring; the coldest networks are composed of hotter ones."""
    monkeypatch.setattr(cluster_module, "MAX_VECTOR_SITES", 10)
    ring = transverse_field_ising(make_lattice("chain", 48))
    monkeypatch.setattr(networks, "by_free_fermions", lambda _: False)
    found = networks.train_on_clusters(clusters(ring), [1.0, 8.0], 4, 1e-3)
    assert len(found[-1].K) == 5 and found[-1].beta == 8
    for network in found:
        problem = ring_problem(48, 1.0, 1.0, len(network.g))
        true = problem.value_and_grad(parameters_of(problem, network.K, network.g), problem.target(network.beta))[0]
        assert true < network.infidelity < 30 * true
    with pytest.raises(InputError, match="composed of"):
        networks.train_on_clusters(clusters(ring), [8.0], 1, 1e-3)


def test_composed_networks_are_powers():
    for hamiltonian in (transverse_field_ising(make_lattice("chain", 4), 1.0, 0.7), heisenberg(make_lattice("chain", 4))):
        trained = train(dense_problem(dense_network(hamiltonian, 2)), 1.0)
        twice, whole = composed(trained, 2), dense_network(hamiltonian, 4)
        once = network_rows(dense_network(hamiltonian, 2)._replace(rows=Rows(np.eye(16), np.ones(16))), trained.K, trained.g)
        found = network_rows(whole._replace(rows=Rows(np.eye(16), np.ones(16))), twice.K, twice.g)
        np.testing.assert_allclose(found, once @ once, rtol=1e-10)
        assert twice.beta == 2 and layers_of(hamiltonian, twice) == 4
        hotter = network_rows(
            whole._replace(rows=Rows(np.eye(16), np.ones(16))), twice.K + 1e-4 * twice.K_beta, twice.g + 1e-4 * twice.g_beta
        )
        h = dense_hamiltonian(dense_network(hamiltonian, 1).hamiltonian)
        drift = (hotter / np.linalg.norm(hotter) - found / np.linalg.norm(found)) / 1e-4
        exact = [m / np.linalg.norm(m) for m in (expm(-h), expm(-h * (1 + 5e-5)))]
        np.testing.assert_allclose(drift, (exact[1] - exact[0]) / 1e-4, atol=0.02)


def test_a_descent_from_afar_never_ends_worse_nor_in_nan():
    for network in train_sweep(ring_problem(63, -1.0, 0.5, 6), [2.0, 8.0, 32.0]):  # frustrated
        assert all(np.isfinite(x).all() for x in network[:6])
        assert network.infidelity > 1e-12 or not network.converged

    def valley(theta):
        x, y = theta
        return (1 - x) ** 2 + 100 * (y - x * x) ** 2, np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])

    np.testing.assert_allclose(hessian(valley, np.array([1.0, 1.0])), [[802, -400], [-400, 200]], rtol=1e-7)
    found = minimise(valley, np.array([-1.2, 1.0]))
    assert found.converged and np.allclose(found.theta, 1, atol=1e-4)
    stuck = minimise(lambda x: (float(x @ x), np.full(2, np.nan)), np.ones(2))
    assert not stuck.converged and stuck.value == 2


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: ring_problem(2, 1.0, 1.0, 2), "n_sites"),
        (lambda: ring_problem(8, 1.0, 1.0, 0), "layers"),
        (lambda: ring_problem(8, 1.0, 0.0, 2), "model"),
        (lambda: train(ring_problem(8, 1.0, 1.0, 1), 0.0), "beta"),
        (lambda: dense_network(transverse_field_ising(make_lattice("square", (4, 5))), 2), "lattice"),
        (lambda: dense_network(transverse_field_ising(make_lattice("chain", 4), 1.0, 1.0, 0.1), 2), "model.h"),
        (lambda: dense_network(heisenberg(make_lattice("chain", 4)), 0), "layers"),
        (lambda: dense_network(j1j2(make_lattice("chain", 6)), 2), "model"),
    ],
)
def test_what_cannot_be_trained(make, where):
    with pytest.raises(InputError, match=where):
        make()


def test_rotated_magnets_are_those_that_are_trained():
    hamiltonian = heisenberg(make_lattice("chain", 4))
    network = dense_network(hamiltonian, 1)
    np.testing.assert_array_equal(network.hamiltonian.xy, rotate(hamiltonian, sublattice_rotation(hamiltonian)).xy)
    assert (network_rows(network, network.rate_K, network.rate_g) >= 0).all()

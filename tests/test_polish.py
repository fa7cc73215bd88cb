"""Rings of two networks against traces of matrices, and networks that are brought nearer to the thermal state by them."""

import jax
import numpy as np
import pytest

from thermodbm import LearnedOptions, SamplingOptions
from thermodbm.evolve import polish as polish_module
from thermodbm.evolve.cluster import composed, uniform_classes
from thermodbm.evolve.dense_layers import (
    Rows,
    coupling_classes,
    dense_averages,
    dense_network,
    dense_problem,
    free_couplings,
    network_rows,
    thermal_rows,
    trotter_rates,
)
from thermodbm.evolve.learned import learned_method
from thermodbm.evolve.networks import Network, laid_out, packed, unpacked
from thermodbm.evolve.polish import Polished, Seen, accepted, layout_of, newton, polish, polished
from thermodbm.evolve.training import couplings_of, parameters_of, train
from thermodbm.models import graph, heisenberg, make_lattice, transverse_field_ising
from thermodbm.run.networks import kept

BONDS = transverse_field_ising(graph(4, [(0, 1), (1, 2), (2, 3), (0, 2)]), [1.0, -0.7, 0.5, 0.8], [0.6, 1.1, 0.9, 0.5])


def whole(hamiltonian, n_layers):
    """Its dense network, with all rows."""
    size = 2**hamiltonian.n_sites
    return dense_network(hamiltonian, n_layers)._replace(rows=Rows(np.eye(size), np.ones(size)))


@pytest.mark.parametrize("hamiltonian", [BONDS, heisenberg(make_lattice("chain", 4))], ids=["Ising", "Heisenberg"])
def test_statistics_are_derivatives_of_traces(hamiltonian):
    """Of ln Tr A B in the logarithms of the couplings of A, and, of two equal copies, of both."""
    classes, network = coupling_classes(hamiltonian), whole(hamiltonian, 2)
    problem = dense_problem(network)
    theta = parameters_of(problem, network.rate_K, network.rate_g)
    theta = theta + np.random.default_rng(1).normal(0, 0.2, len(theta))
    layout = polish_module.free_couplings(hamiltonian, network.rate_K, network.rate_g)

    product = jax.jit(lambda K, g: network.product(hamiltonian.n_sites, K, g, network.tables, network.rows))

    def rows(theta):
        return np.asarray(product(*polish_module.couplings_of(theta, layout)))

    target = thermal_rows(whole(hamiltonian, 1), 1.0)
    start = Network(1.0, *polish_module.couplings_of(theta, layout), 0, 0, 1.0)
    rings = polish_module._rings(hamiltonian, start, classes, 1000)
    _, sums = polish_module._sampled(
        jax.random.key(2), hamiltonian, 1.0, rings, [None] * 3, laid_out(hamiltonian, *start[1:3], classes), 60_000
    )
    derivative = polish_module._derivatives(hamiltonian, theta, layout)
    seen = polish_module._joined(theta, 60_000, rings, sums, derivative)
    steps = 1e-4 * np.eye(len(theta))
    logs = lambda a, b: np.log(np.sum(a * b.T))  # noqa: E731
    mixed = np.array([(logs(rows(theta + e), target) - logs(rows(theta - e), target)) / 2e-4 for e in steps])
    own = np.array([(logs(rows(theta + e), rows(theta)) - logs(rows(theta - e), rows(theta))) / 2e-4 for e in steps])
    errors = np.sqrt(np.diag(seen.noise))
    assert (np.abs(seen.gradient - (mixed - own)) < 4.5 * errors + 1e-3).all() and errors.max() < 0.05
    moved = {sign: [rows(theta + sign * e) for e in steps] for sign in (1, -1)}
    signs = [(s, t) for s in (1, -1) for t in (1, -1)]
    indices = range(len(theta))
    both = np.array([[sum(s * t * logs(moved[s][k], moved[t][m]) for s, t in signs) / 4e-8 for m in indices] for k in indices])
    np.testing.assert_allclose(seen.between, both, atol=0.06 * np.abs(both).max())


def averages(network, couplings, beta):
    found = dense_averages(network, network_rows(network, *couplings), beta)
    exact = dense_averages(network, thermal_rows(network, beta), beta)
    return {name: found[name] - exact[name] for name in exact}


def test_couplings_that_are_off_are_brought_back():
    """What is left is smaller, and is what is said to be left."""
    beta, large = 3.0, transverse_field_ising(make_lattice("chain", 8), 1.0, 1.0)
    network, classes = dense_network(large, 2), uniform_classes(large)
    trained = train(dense_problem(network), beta)
    before = Network(beta, 1.1 * trained.K, 0.95 * trained.g, trained.K_beta, trained.g_beta, 1e-2)
    found = polish(large, before, classes, 60_000, jax.random.key(3))
    problem, target = dense_problem(network), dense_problem(network).target(beta)
    lost = [float(problem.value_and_grad(parameters_of(problem, n.K, n.g), target)[0]) for n in (before, found.network)]
    assert found.n_directions >= 1 and lost[1] - trained.infidelity < (lost[0] - trained.infidelity) / 5
    assert found.gain == pytest.approx(lost[0] - lost[1], rel=0.4)
    start, end = (averages(network, n[1:3], beta) for n in (before, found.network))
    assert abs(end["order"]) < abs(start["order"]) / 3
    kept = accepted(large, before, found)
    for name in ("energy", "order"):
        off, error = found.off[name]
        assert abs(off - end[name]) < 4 * error
    assert abs(end["order"]) < 4 * 0.5 * np.sqrt(kept.infidelity)
    np.testing.assert_allclose(kept.K_beta / kept.K, before.K_beta / before.K, rtol=1e-12)


def seen_at(theta, optimum, metric, noise, n):
    gradient = metric @ (optimum - theta)
    return Seen(theta, n, gradient, noise, metric, metric, metric, np.array([1.0, 0.0]), {})


@pytest.mark.parametrize("hamiltonian", [BONDS, heisenberg(make_lattice("chain", 4))], ids=["Ising", "Heisenberg"])
def test_composed_networks_stay_composed(hamiltonian):
    """Their free couplings are those of one of the equal networks."""
    classes = coupling_classes(hamiltonian)
    layout = free_couplings(hamiltonian, *trotter_rates(hamiltonian, classes, 2))
    theta = np.random.default_rng(1).normal(-2, 0.3, 1 + max(layout.index_K.max(), layout.index_g.max()))
    unit = Network(1.0, *couplings_of(theta, layout), *couplings_of(theta, layout), 1e-3)
    network = composed(unit, 4)._replace(times=4)
    of_all = layout_of(hamiltonian, network, classes)
    assert parameters_of(of_all, network.K, network.g) == pytest.approx(theta)
    for found, there in zip(couplings_of(theta, of_all), (network.K, network.g), strict=True):
        assert found == pytest.approx(there)
    bent = network._replace(K=network.K * np.linspace(1, 2, len(network.K))[:, None])
    assert len(parameters_of(layout_of(hamiltonian, bent, classes), bent.K, bent.g)) > len(theta)


def test_noise_decides_what_is_moved():
    """Directions whose step is within its noise stay; rounds are weighed by their samples."""
    metric, optimum = np.diag([1.0, 0.5]), np.array([0.2, 0.01])
    step = newton([seen_at(np.zeros(2), optimum, metric, 1e-3 * np.eye(2), 1e4)], np.zeros(2))
    np.testing.assert_allclose(step.move, [0.2, 0.0], atol=1e-12)
    assert (step.n_directions, step.gain) == (1, pytest.approx(0.04)) and step.noise == pytest.approx(1e-3)
    rounds = [seen_at(np.array([0.1, 0.0]), optimum, metric, 1e-8 * np.eye(2), n) for n in (1e3, 1e4)]
    np.testing.assert_allclose(newton(rounds, np.zeros(2)).move, optimum, atol=1e-12)
    doubtful = seen_at(np.zeros(2), np.array([0.2, 0.2]), metric, np.diag([1e-3, 1e-3]), 1e4)  # .14 +- .045 along the second
    assert [newton([doubtful], np.zeros(2), most).n_directions for most in (np.inf, 5e-3)] == [2, 1]
    lost = metric - 2 * np.diag([1.0, 0.0])  # what samples make of S where there is nothing
    noisy = rounds[0]._replace(between=lost)
    assert newton([noisy], np.zeros(2)).n_directions == 1


def test_what_a_polished_network_says_of_its_errors():
    hamiltonian = transverse_field_ising(make_lattice("chain", 8))
    before = Network(2.0, *[np.ones((2, 1))] * 4, 1e-6)
    noise = Polished(before._replace(K=2 * before.K), {"energy": (1e-4, 2e-4), "order": (1e-3, 2e-3)}, 1, 1e-6, 1e-7)
    assert accepted(hamiltonian, before, noise) is before
    worse = accepted(hamiltonian, before._replace(infidelity=1e-4), noise)
    assert worse.infidelity == pytest.approx(1.6e-5) and worse.energy_off == pytest.approx(2e-4)
    wrong = noise._replace(off={"energy": (1e-4, 2e-4), "order": (0.01, 2e-3)})  # more than the network said of itself
    assert accepted(hamiltonian, before, wrong).infidelity == pytest.approx(4e-4)
    arrays = packed([before._replace(infidelity=1e-9), worse._replace(beta=4.0)])
    assert unpacked(arrays, 4.0).energy_off == pytest.approx(2e-4)
    assert (
        unpacked(polished(hamiltonian, packed([before._replace(infidelity=1e-9)]), None, 1000), 2.0).infidelity == 1e-9
    )  # below any noise


def test_polished_networks_are_kept_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def fake(hamiltonian, arrays, classes, n_samples):
        calls.append(n_samples)
        return {**arrays, "infidelity": np.full(len(arrays["beta"]), 1e-4)}

    monkeypatch.setattr("thermodbm.evolve.learned.polished", fake)
    ring, sampling = transverse_field_ising(make_lattice("chain", 4)), SamplingOptions(n_samples=512)
    found = []
    for n in (0, 640, 640):
        method = learned_method(ring, LearnedOptions(layers=2, polish=n), sampling, [1.0], store=kept)
        found.append(method.advance(jax.random.key(0), method.init(jax.random.key(0)), 1.0)[0]["networks"]["infidelity"][0])
    assert calls == [640] and found[0] < 1e-5 and found[1] == found[2] == 1e-4
    assert len(list((tmp_path / "thermodbm" / "learned").glob("*.npz"))) == 2

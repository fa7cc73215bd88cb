"""Every sampler of the Ising network against enumeration of the ring, with random couplings of both signs."""

from dataclasses import replace
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from thermodbm.models import graph, transverse_field_ising
from thermodbm.network.dbm import state_vector
from thermodbm.network.ring import RingNetwork, ring_params, trotter_ring
from thermodbm.sampling.cluster import cluster_kernel, number_runs
from thermodbm.sampling.column import column_kernel, column_means, conditional_means, draw_columns
from thermodbm.sampling.gibbs import gibbs_kernel
from thermodbm.sampling.mixed import mixed_kernel
from thermodbm.sampling.ring import close_ring, ising_facts, log_weight, ring_weights
from thermodbm.sampling.union import Joints, append, merge, no_joints

BETA, N_LAYERS = 1.1, 4
KERNELS = {
    "gibbs": gibbs_kernel,
    "column": column_kernel,
    "cluster": cluster_kernel,
    "mixed": mixed_kernel,
}


def magnet(seed, field):
    """A frustrated triangle with a tail: random couplings of both signs, one site without transverse field where there is a z-field."""
    rng = np.random.default_rng(seed)
    lattice = graph(3, [(0, 1), (1, 2), (0, 2)])
    gamma = rng.uniform(0.3, 1.5, 3) * rng.choice([-1, 1], 3)
    h = rng.normal(size=3) if field else 0.0
    if field:
        gamma[0] = 0.0
    return transverse_field_ising(lattice, rng.normal(size=3), gamma, h)


def random_network(hamiltonian, n_layers, seed):
    """Layers that are all different, of couplings of both signs; no transverse or longitudinal fields where there are none."""
    rng = np.random.default_rng(seed)
    n_bonds, n = len(hamiltonian.bonds), hamiltonian.n_sites
    kink = rng.uniform(0.2, 1.0, (n_layers, n)) * np.sign(hamiltonian.x_field)
    field = 0.3 * rng.normal(size=(n_layers + 1, n)) * (np.asarray(hamiltonian.z_field) != 0)
    return RingNetwork(*map(jnp.asarray, (0.4 * rng.normal(size=(n_layers + 1, n_bonds)), field, kink)))


def weights_of(hamiltonian, layers, seed=11):
    """Of a Trotter product, or of a network whose layers are all different."""
    return close_ring(random_network(hamiltonian, N_LAYERS // 2, seed)) if layers else ring_weights(hamiltonian, BETA, N_LAYERS)


def facts_of(hamiltonian, thermal=None):
    return ising_facts(hamiltonian, BETA / N_LAYERS)._replace(max_bond=4.0, thermal=thermal)


def enumerate_ring(hamiltonian, weights, n_layers):
    """All spin configurations (n_layers, n_sites, n_configurations) and their probabilities; without kinks where gamma = 0."""
    n = n_layers * hamiltonian.n_sites
    spins = np.array(list(product([1, -1], repeat=n)), np.int8).T.reshape(n_layers, hamiltonian.n_sites, -1)
    frozen = (np.asarray(weights.t) == 0).all(0)
    allowed = (spins[:, frozen] == spins[:1, frozen]).all((0, 1))
    spins = spins[..., allowed]
    ln_w = np.asarray(log_weight(hamiltonian, weights, jnp.asarray(spins)))
    p = np.exp(ln_w - ln_w.max())
    return spins, p / p.sum()


@pytest.mark.parametrize("layers", [False, True], ids=["alike", "layers"])
@pytest.mark.parametrize("field", [False, True], ids=["h=0", "h"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_samples_the_ring(name, field, layers):
    """Frequencies of all 2^12 configurations, pooled in bins of >= 50 expected counts: chi^2 within five standard deviations.

    Chains are started from the exact distribution and taken after three steps, so samples are independent and the test sees any
    violation of stationarity; 200 000 samples resolve relative errors of a few 1e-3 of the common configurations.
    """
    hamiltonian = magnet(3, field)
    weights = weights_of(hamiltonian, layers)
    spins, p = enumerate_ring(hamiltonian, weights, N_LAYERS)
    n_samples = 200_000
    start = spins[..., np.random.default_rng(0).choice(len(p), n_samples, p=p)]
    kernel = KERNELS[name](facts_of(hamiltonian), N_LAYERS)
    state, step = jnp.asarray(start), jax.jit(kernel.step)
    for k in range(3):
        state, _ = step(jax.random.key(k), weights, state)
    assert (np.asarray(state) != start).any((0, 1)).mean() > 0.1

    def code(s):
        return (np.asarray(s).reshape(-1, s.shape[-1]) > 0).T @ (1 << np.arange(s.shape[0] * s.shape[1]))

    order = np.argsort(p)
    expected = np.zeros(1 << (N_LAYERS * 3))
    expected[code(spins)] = p * n_samples
    counts = np.bincount(code(state), minlength=len(expected)).astype(float)
    assert counts[expected == 0].sum() == 0
    rank = np.argsort(expected[code(spins)][order])
    codes = code(spins)[order][rank]
    bins = np.floor(np.cumsum(expected[codes]) / 50).astype(int)
    o, e = np.bincount(bins, counts[codes]), np.bincount(bins, expected[codes])
    keep = e > 20
    chi2, dof = ((o - e)[keep] ** 2 / e[keep]).sum(), keep.sum() - 1
    assert abs(chi2 - dof) < 5 * np.sqrt(2 * dof), (chi2, dof)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_forgets_its_start(name):
    """From a random start, 60 steps (1000 of the slow Gibbs sampler) bring <m_z> and the nearest-layer correlation to their exact
    values within 5 standard errors."""
    hamiltonian = magnet(1, field=True)
    if name == "gibbs":  # single units cannot turn a worldline that never kinks
        hamiltonian = replace(hamiltonian, x_field=jnp.asarray(hamiltonian.x_field).at[0].set(0.8))
    weights = ring_weights(hamiltonian, BETA, N_LAYERS)
    spins, p = enumerate_ring(hamiltonian, weights, N_LAYERS)
    kernel, n_chains = KERNELS[name](ising_facts(hamiltonian, BETA / N_LAYERS), N_LAYERS), 20_000
    state = kernel.init(jax.random.key(0), n_chains)
    step = jax.jit(kernel.step)
    for key in jax.random.split(jax.random.key(1), 1000 if name == "gibbs" else 60):
        state, _ = step(key, weights, state)
    for observable in (lambda s: s.mean((0, 1)), lambda s: (s[0] * s[1]).mean(0), lambda s: s[0, 0] * s[2, 1]):
        x, y = observable(np.asarray(state, float)), observable(spins.astype(float))
        assert abs(x.mean() - p @ y) < 5 * np.sqrt(p @ y**2 - (p @ y) ** 2) / np.sqrt(n_chains)


def dense_layers(hamiltonian, network):
    """exp(K sz sz + f sz) and exp(g sx) of every layer, as matrices, from the ancillas' side to the spins'."""
    n = hamiltonian.n_sites
    bits = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)[::-1]) & 1)
    i, j = hamiltonian.bonds.T
    diagonal = [
        np.diag(np.exp((bits[:, i] * bits[:, j]) @ np.asarray(k) + bits @ np.asarray(f))) for k, f in zip(*network[:2], strict=True)
    ]
    flip = [np.eye(1 << n)[np.arange(1 << n) ^ (1 << n >> 1 + i)] for i in range(n)]
    transverse = [expm(sum(float(g) * f for g, f in zip(row, flip, strict=True))) for row in network.kink]
    return diagonal, transverse, bits, flip


def dense_product(hamiltonian, network):
    diagonal, transverse, _, _ = dense_layers(hamiltonian, network)
    product = diagonal[0]
    for x, d in zip(transverse, diagonal[1:], strict=True):
        product = d @ x @ product
    return product


@pytest.mark.parametrize("field", [False, True], ids=["h=0", "h"])
def test_a_network_of_layers_is_the_product_of_its_layers(field):
    """Unit by unit, and as the weight of its closed ring, whose sum is the trace."""
    hamiltonian = magnet(4, field)
    network = random_network(hamiltonian, 2, 0)
    product = dense_product(hamiltonian, network)
    psi = state_vector(ring_params(network, hamiltonian.bonds))[:, ::-1]  # ancillas are the spins of the first layer, turned round
    assert np.allclose(psi / psi[0, 0], product / product[0, 0], rtol=1e-9, atol=1e-12)
    n = hamiltonian.n_sites
    spins = jnp.asarray(np.array(list(product_of_signs(N_LAYERS * n)), np.int8).T.reshape(N_LAYERS, n, -1))
    weights = close_ring(network)
    ln_w = log_weight(hamiltonian, weights, spins)
    forbidden = ((spins != jnp.roll(spins, -1, 0)) & (weights.t[..., None] == 0)).any((0, 1))
    total = jnp.where(forbidden, 0.0, jnp.exp(ln_w)).sum()
    assert np.isclose(total, np.trace(product @ product.T), rtol=1e-9)


def product_of_signs(n):
    return product([1, -1], repeat=n)


def test_a_trotter_product_is_a_network_of_layers():
    hamiltonian = magnet(4, field=True)
    closed, alike = close_ring(trotter_ring(hamiltonian, BETA, 3)), ring_weights(hamiltonian, BETA, 6)
    for x, y in zip(closed, alike, strict=True):
        assert np.allclose(x, np.broadcast_to(y, x.shape), rtol=1e-12)


@pytest.mark.parametrize("how", ["alike", "spins", "spins and ancillas"])
@pytest.mark.parametrize("field", [False, True], ids=["h=0", "h"])
def test_conditional_means_average_to_the_exact_energy(field, how):
    """Of the pure state that the network holds: H is inserted where the spins are, and, if the network reads the same from both ends,
    where the ancillas are."""
    hamiltonian = magnet(5, field)
    network, thermal = trotter_ring(hamiltonian, BETA, N_LAYERS // 2), None
    if how != "alike":
        network, thermal = random_network(hamiltonian, N_LAYERS // 2, 5), (1,)
    if how == "spins and ancillas":
        network, thermal = RingNetwork(*(x + x[::-1] for x in network)), (1, 3)
    weights = ring_weights(hamiltonian, BETA, N_LAYERS) if how == "alike" else close_ring(network)
    spins, p = enumerate_ring(hamiltonian, weights, N_LAYERS)
    found = conditional_means(hamiltonian, weights, jnp.asarray(spins), thermal)
    means = {k: np.asarray(v, float) @ p for k, v in found.items()}
    product = dense_product(hamiltonian, network)
    rho = product @ product.T / np.trace(product @ product.T)
    _, _, bits, flip = dense_layers(hamiltonian, network)
    hx = -sum(g * f for g, f in zip(np.asarray(hamiltonian.x_field), flip, strict=True))
    hz = np.array([np.asarray(hamiltonian.diagonal_energy(s)) for s in bits])
    assert abs(means["energy"] - np.trace(rho @ (np.diag(hz) + hx)) / 3) < 2e-6
    assert abs(means["magnetization_x"] - np.trace(rho @ sum(flip)) / 3) < 2e-6
    assert abs(means["magnetization_z"] - np.diag(rho) @ bits.mean(1)) < 2e-6


def test_gradients_reach_every_coupling_through_sampled_weights():
    """d ln w / d (every J, gamma and h, beta) of drawn configurations, by jax.grad, against finite differences."""
    hamiltonian = magnet(6, field=True)
    hamiltonian = replace(hamiltonian, x_field=jnp.asarray(hamiltonian.x_field).at[0].set(-0.8))
    kernel, n_chains = mixed_kernel(ising_facts(hamiltonian, 1.0), N_LAYERS), 64
    spins = kernel.init(jax.random.key(0), n_chains)
    for key in jax.random.split(jax.random.key(1), 5):
        spins, _ = kernel.step(key, ring_weights(hamiltonian, BETA, N_LAYERS), spins)
    for closed in (False, True):  # both ways to the ring

        @partial(jax.jit, static_argnames="closed")
        def mean_log_weight(hamiltonian, beta, closed=closed):
            of = (lambda h, b, n: close_ring(trotter_ring(h, b, n // 2))) if closed else ring_weights
            return log_weight(hamiltonian, of(hamiltonian, beta, N_LAYERS), spins).mean()

        gradient = jax.grad(mean_log_weight, argnums=(0, 1), allow_int=True)(hamiltonian, BETA)
        for name in ("zz", "x_field", "z_field"):
            for k in range(len(getattr(hamiltonian, name))):
                shifted = [replace(hamiltonian, **{name: jnp.asarray(getattr(hamiltonian, name)).at[k].add(e)}) for e in (1e-5, -1e-5)]
                difference = (mean_log_weight(shifted[0], BETA) - mean_log_weight(shifted[1], BETA)) / 2e-5
                assert abs(getattr(gradient[0], name)[k] - difference) < 1e-6 * max(1.0, abs(difference)), (name, k)
        difference = (mean_log_weight(hamiltonian, BETA + 1e-5) - mean_log_weight(hamiltonian, BETA - 1e-5)) / 2e-5
        assert abs(gradient[1] - difference) < 1e-6 * max(1.0, abs(difference))


@pytest.mark.parametrize("thermal", [None, (1,), (1, 3)])
def test_improved_estimators_average_to_the_exact_order_parameter(thermal):
    """The cluster update's own <m_z^2> against enumeration, 5 standard errors of 40 000 independent samples."""
    hamiltonian = magnet(2, field=False)
    weights = weights_of(hamiltonian, thermal is not None)
    spins, p = enumerate_ring(hamiltonian, weights, N_LAYERS)
    start = jnp.asarray(spins[..., np.random.default_rng(1).choice(len(p), 40_000, p=p)])
    _, info = jax.jit(cluster_kernel(facts_of(hamiltonian, thermal), N_LAYERS).step)(jax.random.key(0), weights, start)
    m = spins[slice(None) if thermal is None else np.array(thermal)].mean(1)
    exact = {"order_parameter_squared": (m**2).mean(0), "kubo_squared": m.mean(0) ** 2, "order_parameter_fourth": (m**4).mean(0)}
    assert (info.kubo_squared is None) == (info.order_parameter_fourth is None) == (thermal is not None)
    for name, y in ((name, exact[name]) for name, value in info._asdict().items() if value is not None):
        x = np.asarray(getattr(info, name), float)
        assert x.std() < (0.9 if name == "kubo_squared" else 1.1) * np.sqrt(p @ y**2 - (p @ y) ** 2)
        assert abs(x.mean() - p @ y) < 5 * x.std() / np.sqrt(len(x))


def test_drawn_columns_have_the_means_that_filtering_gives():
    """One worldline in a random field: frequencies of 100 000 draws against `column_means`, 5 standard errors."""
    rng = np.random.default_rng(0)
    n_layers, n = 6, 100_000
    b, t = (jnp.asarray(x, jnp.float32)[:, None, None] for x in (rng.normal(size=n_layers), rng.uniform(0.1, 0.9, n_layers)))
    s, _ = column_means(t, b)
    up = draw_columns(jax.random.uniform(jax.random.key(0), (n_layers, 1, n)), t, jnp.broadcast_to(b, (n_layers, 1, n)))
    drawn = 2 * np.asarray(up[1:, 0]).mean(-1) - 1
    exact = np.asarray(s)[:, 0, 0]
    assert (np.abs(drawn - exact) < 5 * np.sqrt((1 - exact**2) / n)).all()


def test_merge_finds_connected_components():
    import networkx as nx

    rng = np.random.default_rng(0)
    for n_nodes, n_edges in ((200, 0), (200, 30), (200, 100), (200, 400), (9000, 8000)):  # the last fills several blocks
        edges = rng.integers(0, n_nodes, (n_edges, 2))
        void = rng.integers(0, n_nodes, (no_joints(n_edges + 1).a.size - n_edges, 2))
        a, b = jnp.asarray(np.concatenate([edges, void]).T, jnp.int32)
        root = np.asarray(merge(n_nodes, Joints(a, b, jnp.int32(n_edges))))
        g = nx.Graph()
        g.add_nodes_from(range(n_nodes))
        g.add_edges_from(edges.tolist())
        for component in nx.connected_components(g):
            assert {int(root[k]) for k in component} == {min(component)}


def test_joints_are_appended_in_place_of_void_ones():
    rng = np.random.default_rng(0)
    joints, kept = no_joints(60), []
    for _ in range(4):
        a, b = rng.integers(0, 99, (2, 3, 4))
        keep = rng.random((3, 4)) < 0.5
        joints = append(joints, jnp.asarray(keep), jnp.asarray(a, jnp.int32), jnp.asarray(b, jnp.int32))
        kept += list(zip(a[keep], b[keep], strict=True))
    count = int(joints.count)
    assert sorted(zip(np.asarray(joints.a)[:count], np.asarray(joints.b)[:count], strict=True)) == sorted(kept)


def test_runs_close_around_the_ring():
    joined = jnp.asarray([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0]], bool).T[:, :, None]  # (layer, site, chain)
    runs, n_runs = number_runs(joined)
    assert np.asarray(runs)[:, :, 0].T.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2], [4, 3, 4]] and int(n_runs) == 5

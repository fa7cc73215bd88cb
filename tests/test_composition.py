import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thermodbm.models import graph, heisenberg, make_lattice
from thermodbm.network.ansatz.composition import Product, Superposition
from thermodbm.network.ansatz.patterns import Patterns, pattern_clusters
from thermodbm.network.ansatz.permanent import PairPermanent
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import automorphisms, symmetry_group
from thermodbm.network.ansatz.trial import trial_state
from thermodbm.sampling.configurations import enumerate_configurations
from thermodbm.sampling.metropolis import hamiltonian_patterns, local_ratios, metropolis, metropolis_moves

HAMILTONIAN = heisenberg(make_lattice("square", (2, 2)), h=0.3)
GROUP = symmetry_group(HAMILTONIAN, exchange=False)
NETWORK = PurifiedDBM(GROUP, 2, 2, 1, even=False)
TWO_BODY = PurifiedDBM(GROUP, 0, even=False)
PAIRS = PairPermanent(GROUP)
MODULES = {
    "product": Product((PAIRS, NETWORK)),
    "sum": Superposition((NETWORK, TWO_BODY, PurifiedDBM(GROUP, 1))),
    "sum of a product": Superposition((Product((PAIRS, TWO_BODY)), NETWORK)),
    "patterns": Product((PAIRS, TWO_BODY, Patterns(pattern_clusters(HAMILTONIAN, automorphisms(HAMILTONIAN))))),
    "product of sums": Product((Superposition((NETWORK, TWO_BODY)), Superposition((PAIRS, PurifiedDBM(GROUP, 1))))),
}


def random_state(module, seed=0, width=0.3):
    params = module.init(jax.random.key(seed), np.ones((1, 8), np.int8))["params"]
    theta, unravel = ravel_pytree(params)
    rng = np.random.default_rng(seed)
    theta = jnp.asarray(width * (rng.normal(size=theta.size) + 1j * rng.normal(size=theta.size)))
    return trial_state(module, unravel(theta)), theta, unravel


def configurations(n=70):
    v, _ = enumerate_configurations(4, np.arange(4)[None], flip=False, conserve_sz=True)
    assert len(v) == 70
    return jnp.asarray(v[:n])


def amplitude(module, params, v):
    """By the definition, from the amplitudes of the parts."""
    if isinstance(module, Product):
        return np.prod([amplitude(m, params[f"factors_{k}"], v) for k, m in enumerate(module.factors)], axis=0)
    if isinstance(module, Superposition):
        share = np.exp(np.concatenate([[0], params["log_share"]]))
        return sum(s * amplitude(m, params.get(f"terms_{k}", {}), v) for k, (s, m) in enumerate(zip(share, module.terms, strict=True)))
    return np.exp(np.asarray(module.apply({"params": params}, v)))


@pytest.mark.parametrize("name", MODULES)
def test_amplitudes_and_derivatives(name):
    trial, theta, unravel = random_state(MODULES[name])
    v = configurations()
    expected = amplitude(MODULES[name], unravel(theta), v)
    np.testing.assert_allclose(np.exp(trial.log_amplitude(theta, v)), expected, rtol=1e-9)
    np.testing.assert_allclose(np.exp(MODULES[name].apply({"params": unravel(theta)}, v)), expected, rtol=1e-9)
    derivs = jax.jacrev(lambda t: MODULES[name].apply({"params": unravel(t)}, v), holomorphic=True)(theta)
    np.testing.assert_allclose(trial.log_derivs(theta, v), derivs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_local_ratios_and_walks(name):
    """Ratios of amplitudes for every exchange; and 2048 walkers that end up distributed as |Psi|^2, chi^2 of 70 configurations."""
    trial, theta, _ = random_state(MODULES[name], 1, 0.1)
    v = configurations(64)
    patterns, _ = hamiltonian_patterns(HAMILTONIAN)
    found = np.asarray(local_ratios(trial, theta, v, patterns))
    everything = configurations()
    psi = dict(zip(map(tuple, everything.tolist()), np.exp(trial.log_amplitude(theta, everything)), strict=True))
    for row, x in zip(found, np.asarray(v).astype(int), strict=True):
        for ratio, d in zip(row, patterns.astype(int), strict=True):
            sign = np.sign(d @ x)
            valid = abs(d @ x) == 2
            assert np.isclose(ratio, psi[tuple(x - 2 * sign * d)] / psi[tuple(x)] if valid else 0, rtol=1e-8)
    p = np.abs(np.array(list(psi.values()))) ** 2
    moves = metropolis_moves(HAMILTONIAN, conserve_sz=True)
    walkers, _ = metropolis(jax.random.key(3), trial, theta, jnp.tile(v, (32, 1)), moves, 300)
    seen = (np.asarray(walkers)[:, None] == np.asarray(everything)[None]).all(-1).sum(0)
    expected = len(walkers) * p / p.sum()
    likely = expected > 4
    seen, expected = (np.append(y[likely], y[~likely].sum()) for y in (seen, expected))
    assert seen.sum() == len(walkers) and len(expected) > 10
    assert ((seen - expected) ** 2 / np.maximum(expected, 1e-9)).sum() < len(expected) + 5 * np.sqrt(2 * len(expected))


def test_open_graph_without_symmetry():
    hamiltonian = heisenberg(graph(3, [(0, 1), (1, 2)]), [1.0, -0.6])
    group = symmetry_group(hamiltonian, exchange=False)
    assert len(group.perm) == 1
    module = Superposition((PairPermanent(group), PurifiedDBM(group, 2)))
    params = module.init(jax.random.key(0), np.ones((1, 6), np.int8))["params"]
    v, _ = enumerate_configurations(3, np.arange(3)[None], flip=False, conserve_sz=True)
    theta, unravel = ravel_pytree(params)
    trial = trial_state(module, params)
    np.testing.assert_allclose(np.exp(trial.log_amplitude(theta, jnp.asarray(v))), amplitude(module, unravel(theta), v), rtol=1e-9)

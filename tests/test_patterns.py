"""Factors for patterns of few sites: their symmetry, their classes, and where they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermodbm.evolve.ansatz import LAG, LAG_OF_PATTERNS, default_module, make_ansatz
from thermodbm.evolve.options import VariationalOptions
from thermodbm.models import graph, heisenberg, j1j2, make_lattice
from thermodbm.network.ansatz.composition import Product, Superposition
from thermodbm.network.ansatz.patterns import MAX_CLASSES, Patterns, pattern_clusters
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import automorphisms
from thermodbm.network.ansatz.trial import all_ratios, match, trial_state
from thermodbm.sampling.metropolis import antiparallel_flips, hamiltonian_patterns, metropolis_moves

MAGNETS = {
    "j1j2": j1j2(make_lattice("square", (3, 3)), J2=0.5),
    "field": heisenberg(make_lattice("triangular", (3, 4)), h=0.4),
    "kagome": heisenberg(make_lattice("kagome", (2, 1))),
    "graph": heisenberg(graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]), J=[1.0, -0.5, 0.7, 0.7, 1.2]),
}


def random_factor(hamiltonian, seed=0):
    clusters = pattern_clusters(hamiltonian, automorphisms(hamiltonian))
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(clusters.n_classes, 2)) @ [1, 1j]
    return clusters, lambda v: np.asarray(Patterns(clusters).apply({"params": {"f": jnp.asarray(f)}}, v))


@pytest.mark.parametrize("name", MAGNETS)
def test_the_factor_has_the_symmetries_of_the_magnet(name):
    hamiltonian = MAGNETS[name]
    n = hamiltonian.n_sites
    clusters, log_psi = random_factor(hamiltonian)
    v = np.random.default_rng(1).choice([-1, 1], (40, 2 * n)).astype(np.int8)
    expected = log_psi(v)
    assert np.std(expected) > 0.1
    for p in automorphisms(hamiltonian):
        np.testing.assert_allclose(log_psi(v[:, np.concatenate([p, p + n])]), expected)
    np.testing.assert_allclose(log_psi(-np.roll(v, n, axis=1)), expected)
    reversed_too = np.allclose(log_psi(-v), expected)
    assert reversed_too == (name != "field")
    assert 0 < clusters.n_classes <= MAX_CLASSES


@pytest.mark.parametrize("name", MAGNETS)
def test_patterns_that_no_symmetry_joins_have_their_own_factors(name):
    """As many independent sums as there are orbits of (cluster, pattern), found one by one; each is a count of patterns."""
    hamiltonian = MAGNETS[name]
    n, sites = hamiltonian.n_sites, automorphisms(hamiltonian)
    clusters, _ = random_factor(hamiltonian)
    flips = (1, -1) if name != "field" else (1,)
    orbits = set()
    for powers in clusters.powers:
        members = np.argsort(powers)[-np.count_nonzero(powers) :]
        for number in range(2 ** len(members)):
            v = np.zeros(2 * n, int)  # sites outside are unknown
            v[members] = 2 * (number >> np.arange(len(members)) & 1) - 1
            images = [x * w[np.concatenate([p, p + n])] for p in sites for w in (v, -np.roll(v, n)) for x in flips]
            orbits.add(min(map(tuple, images)))
    assert clusters.n_classes == len(orbits)


@pytest.mark.parametrize("name", ["kagome", "graph"])
def test_ratios_of_moves_are_those_of_amplitudes(name):
    """Of one unit, two, and four; all at once, and one by one."""
    hamiltonian = MAGNETS[name]
    n, clusters, rng = hamiltonian.n_sites, random_factor(hamiltonian)[0], np.random.default_rng(2)
    trial = trial_state(Patterns(clusters), {"f": jnp.zeros(clusters.n_classes, complex)})
    theta = jnp.asarray(rng.normal(size=(clusters.n_classes, 2)) @ [1, 1j] / 4)
    v = rng.choice([-1, 1], (40, 2 * n)).astype(np.int8)
    exchanges, singles = hamiltonian_patterns(hamiltonian)[0], np.eye(2 * n, dtype=np.int8)
    everything = metropolis_moves(hamiltonian, conserve_sz=True).patterns
    for patterns in (exchanges, singles, np.concatenate([singles, antiparallel_flips(n), exchanges]), everything):
        moves = trial.moves(theta, patterns)
        sign, valid = map(np.array, jax.vmap(match, (0, None))(jnp.asarray(patterns), v.T))
        found, one_by_one = (all_ratios(t, moves, trial.cache(theta, v.T), sign) for t in (trial, trial._replace(ratios=None)))
        moved = v - 2 * patterns[:, None] * sign[..., None].astype(np.int8)
        expected = np.exp(trial.log_amplitude(theta, moved.reshape(-1, 2 * n)).reshape(sign.shape) - trial.log_amplitude(theta, v))
        for x in (found, one_by_one):
            np.testing.assert_allclose(x[valid], expected[valid], rtol=1e-10)


def test_few_patterns_take_the_place_of_a_network():
    options = VariationalOptions(ansatz="pairs")
    module = default_module(MAGNETS["j1j2"], options)
    assert isinstance(module, Product) and isinstance(module.factors[-1], Patterns)
    assert isinstance(default_module(MAGNETS["j1j2"], VariationalOptions(ansatz="pairs", alpha=1)), Superposition)
    random = heisenberg(make_lattice("triangular", (4, 4)), J=1 + 0.1 * np.random.default_rng(0).normal(size=48))
    for magnet in (random, heisenberg(make_lattice("square", (4, 4)))):  # too many patterns; no frustration
        module = default_module(magnet, options)
        assert isinstance(module, Superposition) and len(module.terms[0].factors) == 2


def test_pairs_with_patterns_are_the_default_of_frustrated_magnets_to_36_sites():
    """Their energy is off by less of what they lag behind; others have a network from 17 sites on."""
    for extent, J2, paired in (((6, 6), 0.5, True), ((6, 7), 0.5, False), ((6, 6), 0.0, False), ((4, 4), 0.0, True)):
        ansatz = make_ansatz(j1j2(make_lattice("square", extent), J2=J2), VariationalOptions())
        assert isinstance(ansatz.module, PurifiedDBM) != paired
        assert ansatz.lag == (LAG_OF_PATTERNS if paired and J2 else LAG)


def test_clusters_are_bounded_in_number():
    """A magnet in which all sites are joined."""
    everyone = heisenberg(graph(24, [(i, j) for i in range(24) for j in range(i)]))
    assert len(pattern_clusters(everyone, np.arange(24)[None]).powers) == 0

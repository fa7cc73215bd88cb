import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising
from thermodbm.models.operators import spin_flip_symmetric
from thermodbm.network.ansatz.permanent import PairPermanent
from thermodbm.network.ansatz.rbm import PurifiedDBM, deep_configurations
from thermodbm.network.ansatz.symmetry import pair_orbits, symmetry_group
from thermodbm.network.ansatz.trial import trial_state


def random_params(module, n_visible, seed=0):
    params = module.init(jax.random.key(seed), np.ones((1, n_visible), np.int8))["params"]
    theta, unravel = ravel_pytree(params)
    rng = np.random.default_rng(seed)
    return unravel(jnp.asarray(0.2 * (rng.normal(size=theta.size) + 1j * rng.normal(size=theta.size))))


@pytest.mark.parametrize(
    ("lattice", "n_space"),
    [
        (make_lattice("chain", 6), 12),
        (make_lattice("square", (4, 4)), 128),
        (make_lattice("triangular", (4, 4)), 192),
        (make_lattice("square", (3, 4), periodic=False), 4),
        (make_lattice("kagome", (2, 2)), 4),
        (graph(3, [(0, 1), (1, 2)]), 1),
    ],
)
def test_space_groups_are_groups_of_the_known_order(lattice, n_space):
    group = symmetry_group(transverse_field_ising(lattice), point_group=True)
    assert len(group.perm) == 2 * n_space
    elements = {tuple(p) for p in group.perm.tolist()}
    assert len(elements) == 2 * n_space
    assert all(tuple(p[q].tolist()) in elements for p in group.perm[:: max(1, n_space // 8)] for q in group.perm)


def test_couplings_that_differ_take_symmetries_away():
    ring = make_lattice("chain", 6)
    assert len(symmetry_group(transverse_field_ising(ring, J=[1, 2, 1, 1, 1, 1]), exchange=False).perm) == 1
    alternating = [1.0, 2, 2, 1, 2, 1]  # bonds sorted by sites: (0,1) (0,5) (1,2) (2,3) (3,4) (4,5)
    assert len(symmetry_group(transverse_field_ising(ring, J=alternating), exchange=False).perm) == 3


@pytest.mark.parametrize("n_deep", [0, 2])
@pytest.mark.parametrize("even", [True, False])
def test_log_amplitude_is_the_sum_over_units_and_symmetric(n_deep, even):
    """Against the definition: every hidden and deep unit of every block summed by brute force."""
    hamiltonian = transverse_field_ising(make_lattice("chain", 3))
    group = symmetry_group(hamiltonian, point_group=True)
    module = PurifiedDBM(group, n_filters=2, n_hidden=n_deep + 1, n_deep=n_deep, even=even)
    params = random_params(module, 6)
    v = np.random.default_rng(1).choice([-1, 1], (5, 6))
    classes = pair_orbits(group)
    expected = np.ones(5, complex)
    for i in range(6):
        for j in range(i):
            expected *= np.exp(params["pairs"][classes[i, j]] * v[:, i] * v[:, j])
    if not even:
        expected *= np.exp(params["a"][0] * (v[:, :3].sum(1) - v[:, 3:].sum(1)))  # the exchange has sign -1
    for f in range(2):
        for perm, sign in zip(*group, strict=True):
            fields = sign * v[:, perm] @ params["W"][f].T
            block = 0
            for d in deep_configurations(n_deep):
                inner = fields + (params["W_deep"][f] @ d if n_deep else 0) + (0 if even else params["b"][f])
                block = block + np.exp(0 if even or not n_deep else params["c"][f] @ d) * np.prod(2 * np.cosh(inner), axis=1)
            expected *= block
    found = module.apply({"params": params}, v)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-11)
    for perm, sign in zip(*group, strict=True):
        np.testing.assert_allclose(np.exp(module.apply({"params": params}, sign * v[:, perm])), expected, rtol=1e-11)
    flipped = np.exp(module.apply({"params": params}, -v))
    assert np.allclose(flipped, expected) == even


@pytest.mark.parametrize("n_deep", [0, 2])
@pytest.mark.parametrize("h", [0.0, 0.3])
def test_log_derivatives_match_automatic_differentiation(n_deep, h):
    hamiltonian = transverse_field_ising(make_lattice("chain", 3), h=h)
    even = spin_flip_symmetric(hamiltonian)
    module = PurifiedDBM(symmetry_group(hamiltonian), n_filters=2, n_hidden=n_deep + 1, n_deep=n_deep, even=even)
    params = random_params(module, 6)
    trial, (theta, unravel) = trial_state(module, params), ravel_pytree(params)
    v = np.random.default_rng(1).choice([-1, 1], (4, 6))
    expected = jax.jacrev(lambda t: module.apply({"params": unravel(t)}, v), holomorphic=True)(theta)
    np.testing.assert_allclose(trial.log_derivs(theta, v), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_deep", [0, 3])
def test_tables_give_the_ratios_of_full_evaluation_along_a_walk(n_deep):
    hamiltonian = heisenberg(make_lattice("chain", 4), h=0.2)
    module = PurifiedDBM(symmetry_group(hamiltonian), n_filters=3, n_hidden=n_deep + 1, n_deep=n_deep, even=False)
    params = random_params(module, 8)
    trial, theta = trial_state(module, params), ravel_pytree(params)[0]
    rng = np.random.default_rng(3)
    patterns = rng.choice([-1, 0, 1], (40, 8))
    moves = trial.moves(theta, patterns)
    v = rng.choice([-1, 1], (8, 5))
    cache = trial.cache(theta, jnp.asarray(v))
    for row, pattern in enumerate(patterns):
        support = pattern != 0
        sign = np.where(rng.random(5) < 0.5, -1.0, 1.0)
        matches = (v[support] == sign * pattern[support, None]).all(0)
        if not matches.all():  # put the walkers where the move applies: the cache starts anew
            v[support] = (sign * pattern[support, None]).astype(int)
            cache = trial.cache(theta, jnp.asarray(v))
        new = (v - 2 * sign * pattern[:, None]).astype(int)
        expected = jnp.exp(trial.log_amplitude(theta, new.T) - trial.log_amplitude(theta, v.T))
        ratio, cache = trial.propose(moves.fixed, jax.tree.map(lambda x, row=row: x[row], moves.rows), cache, jnp.asarray(sign))
        np.testing.assert_allclose(ratio, expected, rtol=1e-9)
        v = new
        again, _ = trial.propose(moves.fixed, jax.tree.map(lambda x, row=row: x[row], moves.rows), cache, jnp.asarray(-sign))  # and back
        np.testing.assert_allclose(again, 1 / expected, rtol=1e-9)


def test_tables_stay_finite_for_the_infinite_temperature_unit():
    """A hidden unit with weights i pi/4 has amplitude zero for parallel pairs: ratios to these vanish, and nothing is NaN."""
    hamiltonian = j1j2(make_lattice("chain", 4))
    group = symmetry_group(hamiltonian, translations=True, exchange=False)
    module = PurifiedDBM(group, n_filters=1)
    params = random_params(module, 8)
    params["pairs"] = 0 * params["pairs"]
    W = np.zeros((1, 1, 8), complex)
    W[0, 0, [0, 4]] = 0.25j * np.pi
    params["W"] = jnp.asarray(W)
    trial, theta = trial_state(module, params), ravel_pytree(params)[0]
    s = np.array([[1, 1, -1, 1]])
    v = np.concatenate([s, -s], 1).T
    flip_one, flip_both = np.eye(8, dtype=int)[0], np.eye(8, dtype=int)[0] - np.eye(8, dtype=int)[4]
    moves = trial.moves(theta, np.stack([flip_one, flip_both]))
    cache = trial.cache(theta, jnp.asarray(v))
    ratio, _ = trial.propose(moves.fixed, jax.tree.map(lambda x: x[0], moves.rows), cache, jnp.ones(1))
    assert abs(ratio[0]) < 1e-14
    ratio, _ = trial.propose(moves.fixed, jax.tree.map(lambda x: x[1], moves.rows), cache, jnp.ones(1))
    assert abs(ratio[0] - 1) < 1e-14


def test_programs_do_not_grow_with_the_number_of_classes():
    """Bonds that all differ: a chain of 4 has 28 classes of pairs, one of 12 has 276."""
    lines = []
    for n in (4, 12):
        hamiltonian = heisenberg(make_lattice("chain", n), J=1.0 + np.arange(n) / 10)
        group = symmetry_group(hamiltonian, exchange=False)
        for module in (PurifiedDBM(group, 4), PairPermanent(group)):
            v = np.ones((8, 2 * n), np.int8)
            v[:, n:] = -1
            params = module.init(jax.random.key(0), v)["params"]
            trial, theta = trial_state(module, params), ravel_pytree(params)[0]
            text = jax.jit(trial.log_derivs).lower(theta, v).as_text()
            lines.append((len(theta), len(text.splitlines())))
    (_, network), (_, pairs), (many, large_network), (most, large_pairs) = lines
    assert many > 276 and most == 66
    assert large_network < 1.1 * network and large_pairs < 3 * pairs  # permanents of 2 defects, and of 4 or 6

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thermodbm.models import graph, heisenberg, make_lattice
from thermodbm.network.ansatz.permanent import PairPermanent, find_defects, minors, permanent, site_pair_orbits
from thermodbm.network.ansatz.symmetry import symmetry_group
from thermodbm.network.ansatz.trial import all_ratios, match, trial_state
from thermodbm.sampling.configurations import enumerate_configurations, random_configurations
from thermodbm.sampling.metropolis import metropolis_moves


def by_definition(matrix):
    return sum(np.prod([matrix[k, p[k]] for k in range(len(matrix))]) for p in permutations(range(len(matrix))))


def random_complex(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("k", [*range(7), 8])
def test_glynns_formula_is_the_sum_over_permutations(k):
    rng = np.random.default_rng(k)
    matrices = random_complex(rng, k, k, 3)
    np.testing.assert_allclose(permanent(jnp.asarray(matrices)), [by_definition(matrices[..., i]) for i in range(3)], rtol=1e-10)


@pytest.mark.parametrize(
    "lattice", [make_lattice("chain", 5), make_lattice("square", (2, 2)), graph(3, [(0, 1), (1, 2)])], ids=["ring", "square", "open"]
)
def test_amplitude_is_the_sum_over_pairings_of_defects(lattice):
    """All configurations of up to five spins with their ancillas, against the definition; and symmetric under the group and reversal."""
    n = lattice.n_sites
    group = symmetry_group(heisenberg(lattice))
    classes = site_pair_orbits(group)
    amplitudes = random_complex(np.random.default_rng(1), classes.max() + 1)
    v, _ = enumerate_configurations(n, np.arange(n)[None], flip=False, conserve_sz=True)
    assert len(v) > 64 or n < 5  # more than one block
    expected = []
    for row in v:
        up, down = (np.flatnonzero((row[:n] == s) & (row[n:] == s)) for s in (1, -1))
        assert len(up) == len(down)
        expected.append(by_definition(amplitudes[classes[up[:, None], down[None]]]))
    module = PairPermanent(group)
    found = np.exp(module.apply({"params": {"amplitudes": amplitudes}}, v))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for image in [-v] + [sign * v[:, p] for p, sign in zip(group.perm, group.sign, strict=True)]:
        np.testing.assert_allclose(np.exp(module.apply({"params": {"amplitudes": amplitudes}}, image)), found, rtol=1e-9)


def test_defects_are_found_in_order():
    v = np.array([[1, 1, -1, -1, 1, -1, 1, 1, 1, -1, -1, -1]]).T  # spins, then ancillas
    defects = find_defects(jnp.asarray(v))
    assert defects.count.tolist() == [2]
    assert defects.up[:2, 0].tolist() == [0, 1] and defects.down[:2, 0].tolist() == [3, 5]


def test_log_derivatives_match_automatic_differentiation():
    group = symmetry_group(heisenberg(make_lattice("chain", 6)), exchange=False)
    module = PairPermanent(group)
    amplitudes = jnp.asarray(random_complex(np.random.default_rng(2), site_pair_orbits(group).max() + 1))
    trial, (theta, unravel) = trial_state(module, {"amplitudes": amplitudes}), ravel_pytree({"amplitudes": amplitudes})
    v = random_configurations(jax.random.key(0), 100, 6)
    v = jnp.concatenate([v[:, :6], jnp.roll(v[:, 6:], 1, axis=1)], axis=1)  # same magnetisation, many defects
    assert find_defects(v.T).count.max() == 3
    expected = jax.jacrev(lambda t: module.apply({"params": unravel(t)}, v), holomorphic=True)(theta)
    np.testing.assert_allclose(trial.log_derivs(theta, v), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 9])
def test_minors_are_permanents_of_what_is_left(k):
    matrices = jnp.asarray(random_complex(np.random.default_rng(k), k, k, 3))
    expected = [[permanent(jnp.delete(jnp.delete(matrices, m, 0), c, 1)) for c in range(k)] for m in range(k)]
    np.testing.assert_allclose(minors(matrices), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hamiltonian", [heisenberg(make_lattice("chain", 6)), heisenberg(graph(5, [(0, 1), (1, 2), (2, 3), (0, 4)]))])
def test_all_ratios_at_once_are_those_of_single_moves(hamiltonian):
    """Every kind of move that walkers make and H makes, from all configurations."""
    n, group = hamiltonian.n_sites, symmetry_group(hamiltonian)
    amplitudes = random_complex(np.random.default_rng(3), site_pair_orbits(group).max() + 1)
    trial, theta = trial_state(PairPermanent(group), {"amplitudes": jnp.asarray(amplitudes)}), jnp.asarray(amplitudes)
    v = jnp.asarray(enumerate_configurations(n, np.arange(n)[None], flip=False, conserve_sz=True)[0])
    assert set(find_defects(v.T).count.tolist()) == set(range(n // 2 + 1))
    moves = trial.moves(theta, metropolis_moves(hamiltonian, conserve_sz=True).patterns)
    sign, valid = jax.vmap(match, (0, None))(moves.rows.pattern, v.T)
    at_once, one_by_one = (all_ratios(t, moves, trial.cache(theta, v.T), sign) for t in (trial, trial._replace(ratios=None)))
    assert 0.1 < valid.mean() < 0.9, valid.mean()
    np.testing.assert_allclose(at_once[valid], one_by_one[valid], rtol=1e-9, atol=1e-11)


def test_pairings_that_cancel_leave_a_number():
    """a b - a b = 0: ratios to it, and their squares, are finite."""
    value = permanent(jnp.asarray([[1.0, 1.0], [1.0, -1.0]])[..., None] + 0j)
    assert 0 < abs(value[0]) < 1e-50 and np.isfinite(1 / value[0] ** 2)

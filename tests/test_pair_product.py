import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import expm

from thermodbm.evolve import start
from thermodbm.evolve.ansatz import default_module
from thermodbm.evolve.options import VariationalOptions
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, heisenberg, make_lattice, xxz
from thermodbm.network.ansatz.determinants import pair_terms
from thermodbm.network.ansatz.pair_product import REFRESH, PairProduct
from thermodbm.network.ansatz.symmetry import SymmetryGroup, automorphisms, largest_subgroup, symmetry_group
from thermodbm.network.ansatz.trial import match, trial_state
from thermodbm.sampling.configurations import enumerate_configurations
from thermodbm.sampling.metropolis import hamiltonian_patterns, local_everything, local_ratios, metropolis_moves

SQUARE = heisenberg(make_lattice("square", (2, 2)))
ALONE = SymmetryGroup(np.arange(8)[None], np.ones(1, int))
SHIFTS = symmetry_group(SQUARE, exchange=False)
MODULES = {
    "singlets": PairProduct(symmetry_group(SQUARE, point_group=True)),
    "several": PairProduct(ALONE, 2, singlets=False),
    "tied": PairProduct(SHIFTS, 2, tied=SymmetryGroup(SHIFTS.perm[:2], SHIFTS.sign[:2])),
}


def configurations(n=4):
    return enumerate_configurations(n, np.arange(n)[None], flip=False, conserve_sz=True)[0]


def random_state(module, seed=1):
    params = module.init(jax.random.key(seed), np.ones((1, 8), np.int8))["params"]
    return trial_state(module, params), *ravel_pytree(params)


def by_definition(module, F, v):
    """The sum over products and group elements of signed determinants, of one configuration."""
    n, classes = len(v) // 2, pair_terms(*module.of_first_term())[0]
    total = 0
    for perm, sign in zip(*module.group, strict=True):
        image = sign * v[perm]
        up, down = np.flatnonzero(image > 0), np.flatnonzero(image < 0)
        inversions = (up[:, None] > down).sum() + (image[n:] > 0).sum()
        total += sum((-1.0) ** inversions * np.linalg.det(np.where(classes >= 0, f[classes], 0)[np.ix_(up, down)]) for f in F)
    return total


@pytest.mark.parametrize("name", MODULES)
def test_amplitude_is_the_sum_of_determinants(name):
    """Up to a factor, where elements of the group that leave F alone are counted once; and symmetric under the group."""
    module, v = MODULES[name], configurations()
    trial, theta, unravel = random_state(module)
    expected = np.array([by_definition(module, np.asarray(unravel(theta)["F"]), row.astype(int)) for row in v])
    amplitude = jax.jit(trial.log_amplitude)
    found = np.exp(amplitude(theta, v))
    np.testing.assert_allclose(found / expected, (found / expected)[0], rtol=1e-10)
    for perm, sign in zip(*module.group, strict=True):
        np.testing.assert_allclose(np.exp(amplitude(theta, sign * v[:, perm])), found, rtol=1e-10)
    assert np.allclose(np.exp(amplitude(theta, -v)), found) == module.singlets


@pytest.mark.parametrize("name", MODULES)
def test_derivatives_and_ratios(name):
    module, v = MODULES[name], jnp.asarray(configurations())
    trial, theta, _ = random_state(module)
    derivs = trial.log_derivs(theta, v)
    change = jnp.asarray(np.random.default_rng(0).normal(size=(2, theta.size)).T @ [1, 1j])
    amplitude = jax.jit(trial.log_amplitude)
    difference = amplitude(theta + 1e-5 * change, v) - amplitude(theta - 1e-5 * change, v)
    np.testing.assert_allclose(difference / 2e-5, derivs @ change, rtol=1e-6)
    _, moved = jax.jvp(lambda t: trial.log_amplitude(t, v[:16]), (theta,), (change,))
    np.testing.assert_allclose(moved, derivs[:16] @ change, rtol=1e-10)
    patterns, _ = hamiltonian_patterns(SQUARE)
    ratios = np.asarray(jax.jit(lambda v: local_ratios(trial, theta, v, patterns))(v[:64]))
    psi = dict(zip(map(tuple, v.tolist()), np.exp(amplitude(theta, v)), strict=True))
    for row, x in zip(ratios, np.asarray(v).astype(int), strict=False):
        for ratio, d in zip(row, patterns.astype(int), strict=True):
            overlap = d @ x
            expected = psi[tuple(x - 2 * np.sign(overlap) * d)] / psi[tuple(x)] if abs(overlap) == 2 else 0
            assert np.isclose(ratio, expected, rtol=1e-9)
    done = jax.jit(lambda v: local_everything(trial, theta, v, patterns))(v[:64])
    np.testing.assert_allclose(done.ratios, ratios, rtol=1e-9)
    np.testing.assert_allclose(done.log_psi, amplitude(theta, v)[:64], rtol=1e-12)
    np.testing.assert_allclose(done.log_derivs, derivs[:64], rtol=1e-9, atol=1e-11)


def walk(trial, theta, v, n_moves, seed=0):
    """Configurations (V, n) and tables after so many attempted moves."""
    patterns, random = metropolis_moves(SQUARE, conserve_sz=True, largest=trial.largest_move).patterns, np.random.default_rng(seed)
    moves, v = trial.moves(theta, patterns), jnp.asarray(v)
    cache, propose = trial.cache(theta, v), jax.jit(trial.propose)
    for k in random.integers(len(patterns), size=n_moves):
        sign, valid = match(jnp.asarray(patterns[k]), v)
        ratio, moved = propose(moves.fixed, jax.tree.map(lambda x, k=k: x[k], moves.rows), cache, sign)
        accept = valid & (np.abs(ratio) ** 2 > random.random(len(sign)))
        cache = jax.tree.map(lambda new, old, a=accept: jnp.where(a, new, old), moved, cache)
        v = jnp.where(accept, v - 2 * patterns[k][:, None] * sign.astype(v.dtype), v)
    return v, cache


@pytest.mark.parametrize("beta", [None, 0.004])
def test_updates_drift_little_until_they_are_made_anew(beta):
    """Shares of the determinants after a walk, against new inverses: with random F; and at the start, where they are worst conditioned."""
    trial, theta, _ = random_state(MODULES["singlets"])
    if beta:
        module = default_module(SQUARE, VariationalOptions(ansatz="pair_product", determinants=8, alpha=1))
        params = start.pair_product_start(jax.random.key(0), module, SQUARE, beta, 0.03)
        trial, theta = trial_state(module.factors[0], params["factors_0"]), ravel_pytree(params["factors_0"])[0]
    before = configurations()[:32].T
    v, cache = walk(trial, theta, before, REFRESH)
    assert (np.asarray(v) != before).any(0).mean() > 0.5
    np.testing.assert_allclose(cache.share, trial.cache(theta, v).share, rtol=1e-6, atol=1e-6)


def test_nodes_are_never_visited_and_nothing_is_infinite():
    """F of next neighbours alone: most determinants vanish."""
    module = PairProduct(ALONE)
    classes = pair_terms(*module.of_first_term())[0]
    F = np.zeros(classes.max() + 1, complex)
    F[classes[range(4), range(4, 8)]] = 1
    F[classes[0, 1]] = F[classes[4, 5]] = 0.5j
    trial, theta = trial_state(module, {"F": F[None]}), jnp.asarray(F)
    v = configurations()
    log_psi = np.asarray(trial.log_amplitude(theta, v))
    assert np.isfinite(log_psi).all() and np.isfinite(trial.log_derivs(theta, v)).all()
    zero = log_psi.real < -20  # raised to 1e-10 of what a pivot is
    assert 0 < (~zero).sum() < 40
    at = v[~zero][:8].T
    after, cache = walk(trial, theta, at, 60)
    seen = {tuple(x) for x in v[~zero].tolist()}
    assert all(tuple(x) in seen for x in after.T.tolist()) and (np.asarray(after) != at).any()
    assert all(np.isfinite(x).all() for x in cache)
    patterns, _ = hamiltonian_patterns(SQUARE)
    assert np.isfinite(local_everything(trial, theta, jnp.asarray(v), patterns).ratios).all()


GRAPH = graph(4, [(0, 1), (1, 2), (2, 3), (0, 2)])


@pytest.mark.parametrize(
    "hamiltonian",
    [heisenberg(GRAPH, J=[1.0, -0.7, 0.4, 0.9]), xxz(GRAPH, J=[0.8, 1.0, -0.6, 0.5], delta=[0.3, -0.5, 1.2, 1.0], h=0.4), SQUARE],
    ids=["both signs", "easy plane and axis in a field", "summed over the group"],
)
def test_start_is_the_thermal_state_to_first_order(hamiltonian, monkeypatch):
    """Without noise what is wrong is of second order: a quarter at half the beta."""
    monkeypatch.setattr(start, "PAIR_NOISE", 0.0)
    module = default_module(hamiltonian, VariationalOptions(ansatz="pair_product", determinants=4, alpha=1))
    assert module.factors[0].singlets == (hamiltonian.model == "heisenberg")
    assert len(module.factors[0]._terms().classes) * module.factors[0].n_products == 4
    spins, H = all_configurations(4), dense_hamiltonian(hamiltonian)
    v = np.concatenate([np.repeat(spins, 16, 0), -np.tile(spins, (16, 1))], 1)
    conserved, wrong = v.sum(1) == 0, []
    for beta in (0.02, 0.01):
        params = start.pair_product_start(jax.random.key(0), module, hamiltonian, beta, 1e-3)
        psi = np.zeros(256, complex)
        psi[conserved] = np.exp(module.apply({"params": params}, v[conserved]))
        exact = expm(-beta / 2 * H).reshape(-1)
        psi *= np.vdot(psi, exact) / np.vdot(psi, psi)
        wrong.append(np.abs(psi - exact).max())
    assert wrong[0] < 1e-3 and wrong[1] < 0.3 * wrong[0]


@pytest.mark.parametrize(
    ("hamiltonian", "order"),
    [
        (heisenberg(make_lattice("chain", 6)), 12),
        (heisenberg(make_lattice("kagome", (2, 2))), 48),
        (heisenberg(graph(3, [(0, 1), (1, 2)])), 2),
    ],
)
def test_subgroups_are_groups_of_symmetries(hamiltonian, order):
    assert len(automorphisms(hamiltonian)) == order
    n, found = hamiltonian.n_sites, []
    for most in (1, 4, 6, 12, 200):
        group = largest_subgroup(hamiltonian, most)
        found.append(len(group.perm))
        assert found[-1] <= most
        elements = {(*p, s) for p, s in zip(group.perm.tolist(), group.sign.tolist(), strict=True)}
        assert len(elements) == found[-1]
        assert all((*p[q], s * t) in elements for p, s in zip(*group, strict=True) for q, t in zip(*group, strict=True))
        bonds = {frozenset(b) for b in hamiltonian.bonds.tolist()}
        assert all({frozenset((p[b] % n).tolist()) for b in hamiltonian.bonds} == bonds for p in group.perm)
    assert found[-1] == 2 * order and (group.sign < 0).sum() == order

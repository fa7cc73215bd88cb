import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from thermodbm.comm import Comm
from thermodbm.errors import InputError
from thermodbm.evolve import sr
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.sr import norm, scale_by_sr, sr_direction, tangent
from thermodbm.evolve.step import natural_direction
from thermodbm.models import graph, make_lattice, transverse_field_ising
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import symmetry_group
from thermodbm.network.ansatz.trial import trial_state


def sample(n, n_params, real=False, seed=0):
    rng = np.random.default_rng(seed)
    derivs = rng.normal(size=(n, n_params)) + 1j * rng.normal(size=(n, n_params))
    e_loc = derivs @ rng.normal(size=n_params) + rng.normal(size=n) + (0 if real else 1j * rng.normal(size=n))
    return jnp.asarray(derivs), jnp.asarray(e_loc), jnp.asarray(rng.random(n) + 0.1)


def dense(derivs, e_loc, weights, real):
    """S and F by their definition, <O* O> - <O*><O>."""
    derivs, e_loc, weights = map(np.asarray, (derivs, e_loc, weights))
    p = weights / weights.sum()
    mean, mean_e = p @ derivs, p @ e_loc
    S = np.einsum("n,ni,nj->ij", p, derivs.conj(), derivs) - np.outer(mean.conj(), mean)
    F = np.einsum("n,ni,n->i", p, derivs.conj(), e_loc) - mean.conj() * mean_e
    return (S.real, F.real) if real else (S, F)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("solver", ["auto", "cholesky", "pinv", "cg", "minsr"])
def test_every_solver_gives_the_dense_solution(solver, real):
    derivs, e_loc, weights = sample(60, 7, real)
    S, F = dense(derivs, e_loc, weights, real)
    options = VariationalOptions(solver=solver, diag_shift=1e-9 if solver == "minsr" else 1e-12)
    direction, info = sr_direction(derivs, e_loc, options, weights=weights, real_params=real)
    expected = np.linalg.solve(S, F)
    np.testing.assert_allclose(direction, expected, rtol=1e-4 if solver in ("cg", "minsr") else 1e-7)
    variance = float(weights @ jnp.abs(e_loc - weights @ e_loc / weights.sum()) ** 2 / weights.sum())
    assert float(info.variance) == pytest.approx(variance)
    assert float(info.residual) == pytest.approx(1 - (F.conj() @ expected).real / variance, abs=1e-6)
    assert 0 < float(info.residual) < 1


def test_shift_acts_where_the_diagonal_of_S_is_one():
    derivs, e_loc, _ = sample(50, 4)
    derivs = derivs * jnp.array([1e-2, 1.0, 10.0, 1e2])
    S, F = dense(derivs, e_loc, np.ones(50), False)
    expected = np.linalg.solve(S + 0.01 * np.diag(np.diag(S)), F)
    for solver in ("cholesky", "cg"):
        direction, _ = sr_direction(derivs, e_loc, VariationalOptions(solver=solver, diag_shift=0.01))
        np.testing.assert_allclose(direction, expected, rtol=1e-4)


def test_min_sr_shifts_by_the_mean_diagonal_of_S():
    """Samples fewer than parameters: the automatic choice. Written as S^-1 F it has the same shift for all parameters."""
    derivs, e_loc, weights = sample(12, 40)
    derivs = derivs * jnp.linspace(0.1, 3, 40)
    S, F = dense(derivs, e_loc, weights, False)
    expected = np.linalg.solve(S + 1e-3 * np.trace(S) / 40 * np.eye(40), F)
    for solver in ("auto", "minsr"):
        found, _ = sr_direction(derivs, e_loc, VariationalOptions(solver=solver, diag_shift=1e-3), weights=weights)
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(("n_deep", "even"), [(0, True), (0, False), (2, False)])
def test_kernel_gives_what_log_derivatives_give(n_deep, even):
    """A network without symmetries: O O* and the direction, without O."""
    group = symmetry_group(transverse_field_ising(graph(3, [(0, 1), (1, 2)]), [1.0, -0.6]), exchange=False)
    module = PurifiedDBM(group, 8, n_deep + 1, n_deep, even=even)
    theta, unravel = ravel_pytree(module.init(jax.random.key(0), np.ones((1, 6), np.int8))["params"])
    theta = theta + 0.3 * jax.random.normal(jax.random.key(1), theta.shape, complex)
    trial = trial_state(module, unravel(theta))
    visible = jax.random.rademacher(jax.random.key(2), (20, 6), np.int8)
    _, e_loc, weights = sample(20, 1)
    derivs, options = trial.log_derivs(theta, visible), VariationalOptions(diag_shift=1e-3)
    assert derivs.shape[1] > 20
    np.testing.assert_allclose(trial.kernel(theta, visible), derivs @ derivs.conj().T, rtol=1e-10, atol=1e-12)
    found, info = natural_direction(trial, theta, visible, e_loc, weights, options)
    plain = natural_direction(trial._replace(kernel=None), theta, visible, e_loc, weights, options)
    np.testing.assert_allclose(found, plain[0], rtol=1e-6)
    for x, y in zip(info, plain[1], strict=True):
        assert float(x) == pytest.approx(float(y), rel=1e-6)
    ring = symmetry_group(transverse_field_ising(make_lattice("chain", 3)), exchange=False)
    assert trial_state(PurifiedDBM(ring, 0), PurifiedDBM(ring, 0).init(jax.random.key(0), visible)["params"]).kernel is None


@pytest.mark.parametrize("solver", ["cholesky", "pinv", "cg"])
def test_parameters_without_effect_stay_where_they_are(solver):
    """One derivative vanishes and two are equal: S is singular, and the answer is finite and as good as without them."""
    derivs, e_loc, _ = sample(50, 4)
    derivs = derivs.at[:, 3].set(0)
    options = VariationalOptions(solver=solver, diag_shift=0.0 if solver == "pinv" else 1e-10)
    smaller = sr_direction(derivs[:, :3], e_loc, options)[1].residual
    doubled = jnp.concatenate([derivs, derivs[:, :1]], axis=1)
    direction, info = sr_direction(doubled, e_loc, options)
    assert np.isfinite(direction).all() and abs(direction[3]) < 1e-8
    assert float(info.residual) == pytest.approx(float(smaller), abs=1e-6)


@pytest.mark.parametrize("solver", ["cholesky", "pinv", "minsr", "cg"])
def test_two_ranks_give_what_one_gives(solver):
    """Ranks as a mapped axis: each holds half of the samples, and sums go through `Comm`."""
    derivs, e_loc, weights = sample(40, 6)
    options = VariationalOptions(solver=solver, diag_shift=1e-6)
    alone, info_alone = sr_direction(derivs, e_loc, options, weights=weights)

    def share(rank, *mine):
        comm = Comm(
            rank=rank,
            size=2,
            sum=lambda tree: jax.tree.map(lambda x: jax.lax.psum(x, "ranks"), tree),
            gather=lambda x: [x],
            share=lambda x: [x],
        )
        return sr_direction(*mine[:2], options, comm, weights=mine[2])

    halves = [x.reshape(2, -1, *x.shape[1:]) for x in (derivs, e_loc, weights)]
    together, info = jax.vmap(share, axis_name="ranks")(jnp.arange(2), *halves)
    for rank in range(2):
        np.testing.assert_allclose(together[rank], alone, rtol=1e-5 if solver == "cg" else 1e-8)
        np.testing.assert_allclose(info.residual[rank], info_alone.residual, rtol=1e-6)


@pytest.mark.parametrize("real", [False, True])
def test_a_change_of_parameters_moves_the_state_by_its_norm_in_S(real):
    derivs, e_loc, weights = sample(30, 3)
    S, _ = dense(derivs, e_loc, weights, real)
    change = np.array([0.3, -0.2, 0.1] if real else [0.3, -0.2j, 0.1])
    theta = jnp.zeros(3, float if real else complex)
    moved = tangent(lambda t: derivs @ t, theta, weights)
    assert float(norm(moved(change))) == pytest.approx(np.sqrt((change.conj() @ S @ change).real))


@pytest.mark.parametrize("solver", ["cholesky", "minsr"])
def test_a_solver_that_needs_a_shift_says_so(solver):
    derivs, e_loc, _ = sample(20, 4)
    with pytest.raises(InputError, match=r"method\.diag_shift: expected a positive number"):
        sr_direction(derivs, e_loc, VariationalOptions(solver=solver, diag_shift=0.0))


@pytest.mark.parametrize("solver", ["auto", "pinv", "cg"])
def test_no_shift_means_none(solver):
    """The residual of a solvable system is the root of rounding errors, not of a shift; also for fewer samples than parameters."""
    derivs, _, _ = sample(30, 40)
    e_loc = derivs @ jnp.ones(40)
    direction, info = sr_direction(derivs, e_loc, VariationalOptions(solver=solver, diag_shift=0.0))
    assert float(info.residual) < 1e-11 and np.isfinite(direction).all()


def test_conjugate_gradients_that_stop_early_own_up(monkeypatch):
    derivs, e_loc, _ = sample(60, 30)
    options = VariationalOptions(solver="cg", diag_shift=1e-8)
    assert float(sr_direction(derivs, e_loc, options)[1].unsolved) <= 1e-6
    monkeypatch.setattr(sr, "CG_ITERATIONS", 2)
    assert float(sr_direction(derivs, e_loc, options)[1].unsolved) > 1e-3


def test_optax_transformation_composes():
    derivs, e_loc, _ = sample(50, 4)
    _, F = dense(derivs, e_loc, np.ones(50), False)
    options = VariationalOptions(diag_shift=1e-6)
    expected, _ = sr_direction(derivs, e_loc, options)
    descent = optax.chain(scale_by_sr(options), optax.scale(-0.1))
    update, _ = descent.update(jnp.asarray(F), descent.init(jnp.zeros(4)), log_derivs=derivs)
    np.testing.assert_allclose(update, -0.1 * expected, rtol=1e-9)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from thermodbm.comm import Comm
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.sr import center, metric_norm, scale_by_sr, sr_direction


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
    for solver in ("cholesky", "cg", "minsr"):
        direction, _ = sr_direction(derivs, e_loc, VariationalOptions(solver=solver, diag_shift=0.01))
        np.testing.assert_allclose(direction, expected, rtol=1e-4)


def test_min_sr_and_cholesky_agree_when_samples_are_few():
    derivs, e_loc, weights = sample(12, 40)
    found = [
        sr_direction(derivs, e_loc, VariationalOptions(solver=solver, diag_shift=1e-3), weights=weights)[0]
        for solver in ("auto", "cholesky")
    ]
    np.testing.assert_allclose(*found, rtol=1e-7)


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
        comm = Comm(rank=rank, size=2, sum=lambda tree: jax.tree.map(lambda x: jax.lax.psum(x, "ranks"), tree), gather=lambda x: [x])
        return sr_direction(*mine[:2], options, comm, weights=mine[2])

    halves = [x.reshape(2, -1, *x.shape[1:]) for x in (derivs, e_loc, weights)]
    together, info = jax.vmap(share, axis_name="ranks")(jnp.arange(2), *halves)
    for rank in range(2):
        np.testing.assert_allclose(together[rank], alone, rtol=1e-5 if solver == "cg" else 1e-8)
        np.testing.assert_allclose(info.residual[rank], info_alone.residual, rtol=1e-6)


def test_metric_norm_is_the_distance_of_states():
    derivs, e_loc, weights = sample(30, 3)
    S, _ = dense(derivs, e_loc, weights, False)
    change = np.array([0.3, -0.2j, 0.1])
    centered, _ = center(derivs, e_loc, weights)
    assert float(metric_norm(centered, change)) == pytest.approx(np.sqrt((change.conj() @ S @ change).real))


def test_optax_transformation_composes():
    derivs, e_loc, _ = sample(50, 4)
    _, F = dense(derivs, e_loc, np.ones(50), False)
    options = VariationalOptions(diag_shift=1e-6)
    expected, _ = sr_direction(derivs, e_loc, options)
    descent = optax.chain(scale_by_sr(options), optax.scale(-0.1))
    update, _ = descent.update(jnp.asarray(F), descent.init(jnp.zeros(4)), log_derivs=derivs)
    np.testing.assert_allclose(update, -0.1 * expected, rtol=1e-9)

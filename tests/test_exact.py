import jax
import numpy as np
import pytest

from thermodbm.errors import InputError
from thermodbm.evolve.exact import exact_method
from thermodbm.evolve.options import ExactOptions
from thermodbm.exact import exact_curve
from thermodbm.models import heisenberg, make_lattice, transverse_field_ising

BETAS = np.array([2.0, 0.5])


def test_long_rings_by_free_fermions_and_short_ones_by_diagonalisation_agree():
    short, long = (exact_curve(transverse_field_ising(make_lattice("chain", n), 1.0, 2.0), BETAS) for n in (12, 13))
    for name in ("energy", "specific_heat", "entropy", "free_energy", "magnetization_x"):  # the gap is 2: close to the infinite chain
        np.testing.assert_allclose(long[name], short[name], rtol=2e-3)
    np.testing.assert_allclose(long["correlation_zz"][:, :4], short["correlation_zz"][:, :4], atol=2e-3)


@pytest.mark.parametrize("betas", [[-1.0], [[1.0]], [np.nan], [np.inf]])
def test_temperatures_must_not_be_negative(betas):
    with pytest.raises(InputError, match="inverse temperatures"):
        exact_curve(heisenberg(make_lattice("chain", 4)), betas)


def test_method_finishes_a_temperature_at_once(monkeypatch):
    hamiltonian, calls = heisenberg(make_lattice("chain", 6)), []
    solver = exact_method.__globals__["exact_solver"]
    monkeypatch.setitem(exact_method.__globals__, "exact_solver", lambda h: calls.append(h) or solver(h))
    method = exact_method(hamiltonian, ExactOptions())
    key = jax.random.key(0)
    state = method.init(key)
    expected = exact_curve(hamiltonian, BETAS)
    for t in method.order(BETAS):
        state, info = method.advance(key, state, BETAS[t])
        assert info.fraction == 1.0 and set(info.point.observables) == set(expected)
        for name, estimate in info.point.observables.items():
            np.testing.assert_allclose(estimate.mean, expected[name][t], rtol=1e-13, atol=1e-13)
            assert estimate.error.shape == estimate.mean.shape and not estimate.error.any()
    assert len(calls) == 1


def test_method_refuses_what_is_too_large():
    method = exact_method(heisenberg(make_lattice("square", (6, 6))), ExactOptions())
    with pytest.raises(InputError, match="found 36 sites"):
        method.advance(jax.random.key(0), {}, 1.0)

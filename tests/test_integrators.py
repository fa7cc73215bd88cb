import jax.numpy as jnp
import numpy as np
import pytest

from thermodbm.evolve.integrators import TABLEAUS, next_step_size, runge_kutta_step


def rate(y):
    """A nonlinear system with a known solution: y0' = y1, y1' = -y0, y2' = y2 (1 - y2)."""
    return jnp.array([y[1], -y[0], y[2] * (1 - y[2])]), y.sum()


def solution(t):
    return np.array([np.sin(t), np.cos(t), 1 / (1 + 3 * np.exp(-t))])


@pytest.mark.parametrize("name", TABLEAUS)
def test_global_error_falls_with_the_order(name):
    tableau = TABLEAUS[name]

    def error(n):
        y = jnp.asarray(solution(0.0))
        for _ in range(n):
            y, _, _ = runge_kutta_step(tableau, rate, y, 1.0 / n)
        return np.abs(y - solution(1.0)).max()

    assert np.log2(error(8) / error(16)) == pytest.approx(tableau.order, abs=0.25)


@pytest.mark.parametrize(("name", "order"), [("heun", 2), ("bs3", 3)])
def test_error_estimate_is_that_of_the_embedded_formula(name, order):
    """It falls as h^order, and at small h equals the true error of the lower-order formula."""
    y = jnp.asarray(solution(0.0))

    def estimate(h):
        new, error, _ = runge_kutta_step(TABLEAUS[name], rate, y, h)
        return np.abs(error).max(), np.abs(new - error - solution(h)).max()

    assert np.log2(estimate(0.1)[0] / estimate(0.05)[0]) == pytest.approx(order, abs=0.3)
    estimated, true = estimate(0.02)
    assert estimated == pytest.approx(true, rel=0.1)


def test_what_rate_gives_besides_comes_stage_by_stage():
    y = jnp.asarray(solution(0.0))
    _, _, others = runge_kutta_step(TABLEAUS["heun"], rate, y, 0.1)
    np.testing.assert_allclose(others, [y.sum(), (y + 0.1 * rate(y)[0]).sum()])


def test_step_size_follows_the_error():
    assert next_step_size(0.1, 8e-4, 1e-4, 3) == pytest.approx(0.045)
    assert next_step_size(0.1, 0.0, 1e-4, 3) == pytest.approx(0.3)
    assert next_step_size(0.1, 1e6, 1e-4, 3) == pytest.approx(0.02)

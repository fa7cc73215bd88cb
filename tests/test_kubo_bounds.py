"""The Kubo susceptibility of magnets that do not conserve the magnetisation, between bounds from equal-time averages."""

import numpy as np
import pytest

import thermodbm as tb
from thermodbm.estimate.kubo_bounds import kubo_bounds, kubo_gradient
from thermodbm.exact import exact_curve
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, make_lattice, transverse_field_ising

RANDOM = np.random.default_rng(4)


def random_magnet(n, field):
    edges = [(i, j) for i in range(n) for j in range(i) if RANDOM.random() < 0.6]
    h = RANDOM.normal(size=n) if field else 0.0
    return transverse_field_ising(graph(n, edges), RANDOM.normal(size=len(edges)), RANDOM.normal(size=n), h)


def averages(magnet, beta):
    """C(0), -C'(0) and C(beta/2) of the magnetisation, exactly."""
    h = dense_hamiltonian(magnet)
    levels, v = np.linalg.eigh(h)
    m = v.T @ (all_configurations(magnet.n_sites).sum(1)[:, None] * v)
    p = np.exp(-beta * (levels - levels[0]))
    p, half = p / p.sum(), np.sqrt(p / p.sum())
    drift = (p @ np.diag(m)) ** 2
    flips = np.diag(v.T @ (h - np.diag(np.diag(h))) @ v)
    return p @ (m**2).sum(1) - drift, -2 * p @ flips, half @ m**2 @ half - drift


@pytest.mark.parametrize("beta", [0.2, 1.0, 4.0])
def test_the_response_of_random_magnets_is_within_the_bounds(beta):
    widths = []
    for k in range(20):
        magnet = random_magnet(int(RANDOM.integers(2, 7)), field=bool(k % 2))
        expected = magnet.n_sites * exact_curve(magnet, np.array([beta]))["susceptibility"][0]
        low, high = sorted(kubo_bounds(*averages(magnet, beta), beta))
        assert low * (1 - 1e-6) <= expected <= high * (1 + 1e-6)
        widths.append((high - low) / (high + low))
    assert np.median(widths) < {0.2: 1e-4, 1.0: 0.01, 4.0: 0.15}[beta]


def test_limits_and_what_noise_makes_impossible():
    assert kubo_bounds(2.0, 0.0, 2.0, 3.0) == (6.0, 6.0)  # what is conserved
    assert kubo_bounds(0.0, 1.0, 0.0, 3.0) == (0.0, 0.0)
    for impossible in ((1.0, 0.5, 1.2), (1.0, -0.5, 0.5), (1.0, 1e-3, 0.5)):
        assert all(0 <= x <= 3.0 for x in kubo_bounds(*impossible, 3.0))
    low, high = kubo_bounds(1.0, 40.0, -0.1, 3.0)
    assert low == 0 and 0 < high < 3
    point, beta = np.array([1.0, 1.5, 0.3]), 2.0
    gradient, moved = kubo_gradient(*point, beta), np.mean(kubo_bounds(*(point * 1.01), beta)) - np.mean(kubo_bounds(*point, beta))
    np.testing.assert_allclose(gradient @ (0.01 * point), moved, rtol=2e-2)


MAGNETS = {
    "ring": transverse_field_ising(make_lattice("chain", 4)),
    "bonds of both signs in a field": transverse_field_ising(graph(3, [(0, 1), (1, 2), (0, 2)]), [1.0, -0.8, 0.5], [0.7, -1.2, 1.0], 0.3),
}


@pytest.mark.parametrize("name", MAGNETS)
@pytest.mark.parametrize("enumerated", [True, False], ids=["enumerated", "sampled"])
def test_variational_states_have_a_susceptibility(name, enumerated):
    """Within three errors, each below a fiftieth (sampled: a tenth) of the value."""
    T = [3.0, 0.7]
    method = {"kind": "variational", "alpha": 2, **({} if enumerated else {"enumerate": False, "n_walkers": 1024})}
    curve = tb.thermal_curve(MAGNETS[name], T=T, method=method, sampling={"n_samples": 8000}, progress=False)
    expected = exact_curve(MAGNETS[name], 1 / np.array(T))["susceptibility"]
    assert (np.abs(curve.susceptibility.mean - expected) < 3 * curve.susceptibility.error).all()
    assert (curve.susceptibility.error < (0.02 if enumerated else 0.1) * expected).all()


def test_states_that_are_no_matrix_have_none():
    curve = tb.thermal_curve(MAGNETS["ring"], T=[3.0], method={"kind": "variational", "start": "rotated", "alpha": 1}, progress=False)
    assert "susceptibility" not in curve.observables and "order_parameter_squared" in curve.observables

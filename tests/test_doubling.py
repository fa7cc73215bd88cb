"""Joined trial states: the ring against matrices, and the joined state against diagonalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thermodbm import thermal_curve
from thermodbm.comm import SERIAL
from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.ansatz import make_ansatz
from thermodbm.evolve.doubling import (
    PATIENCE,
    Joining,
    Rings,
    better,
    dense_averages,
    joining,
    measure_rings,
    ring_averages,
    systematic_error,
)
from thermodbm.evolve.options import VariationalOptions
from thermodbm.exact import exact_curve
from thermodbm.models import graph, heisenberg, transverse_field_ising, xxz
from thermodbm.network.ansatz.trial import trial_state

TRIANGLE = [(0, 1), (1, 2), (0, 2), (2, 3)]
MAGNETS = {
    "pair product": (heisenberg(graph(4, TRIANGLE), J=[1.0, -0.6, 0.8, 1.2]), "pair_product"),
    "heisenberg": (heisenberg(graph(4, TRIANGLE), J=[1.0, -0.6, 0.8, 1.2]), "rbm"),
    "field": (xxz(graph(4, TRIANGLE), J=[1.0, -0.6, 0.8, 1.2], delta=0.7, h=0.5), "rbm"),
    "tfim": (transverse_field_ising(graph(3, [(0, 1), (1, 2), (0, 2)]), J=[1.0, -0.7, 0.5], gamma=[0.8, 1.1, -0.6], h=0.3), "rbm"),
}


def state(hamiltonian, ansatz, beta=0.4, noise=0.05):
    """A trial state near the thermal one, but for random changes of all parameters."""
    options = VariationalOptions(ansatz=ansatz, alpha=1, determinants=2)
    own = make_ansatz(hamiltonian, options)
    params = own.start(jax.random.key(3), beta)
    theta = ravel_pytree(params)[0]
    change = jax.random.normal(jax.random.key(4), (2, theta.size)) * noise
    return own.hamiltonian, trial_state(own.module, params), theta + change[0] + 1j * change[1]


@pytest.mark.parametrize(
    ("name", "n_sweeps", "copies"), [*((name, 6, 2) for name in MAGNETS), (next(iter(MAGNETS)), 1, 2), ("field", 6, 3), ("tfim", 6, 4)]
)
def test_sampled_rings_agree_with_matrices(name, n_sweeps, copies):
    """However few moves are made between two samples, rings have settled before the first."""
    hamiltonian, trial, theta = state(*MAGNETS[name])
    expected = dense_averages(hamiltonian, trial, theta, 0.4 * copies, copies)
    advance = measure_rings(hamiltonian, trial, n_sweeps, SERIAL)
    rings = Joining((), copies, 0.0, 512, 10, advance).begin(jax.random.key(0), hamiltonian.n_sites)
    for k in range(10):
        rings = advance(jax.random.fold_in(jax.random.key(1), k), theta, rings)
    found = ring_averages(hamiltonian, 0.4 * copies, rings, SERIAL)
    assert set(found.estimates) == set(expected.estimates)
    assert abs(found.sign.mean - expected.sign.mean) < 4 * found.sign.error
    for observable, estimate in found.estimates.items():
        exact = expected.estimates[observable].mean
        pulls = np.abs(estimate.mean - exact) / np.maximum(estimate.error, 1e-9)
        assert pulls.max() < 4.5, (observable, estimate, exact)
        assert np.max(estimate.error) < 0.15 * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("copies", [2, 3])
def test_the_join_of_an_exact_state_is_exact(copies):
    """A matrix K = exp(-beta H/2m) handed on as a trial state gives thermal averages at beta."""
    import scipy.linalg

    from thermodbm.exact.diagonalisation import dense_hamiltonian

    hamiltonian, beta = MAGNETS["tfim"][0], 1.3
    K = scipy.linalg.expm(-beta / (2 * copies) * dense_hamiltonian(hamiltonian))
    bits = 1 << np.arange(3)[::-1]

    def log_amplitude(theta, v):
        rows, columns = ((x < 0) @ bits for x in (v[:, :3], -v[:, 3:]))
        return jnp.log(jnp.asarray(K, complex)[rows, columns])

    trial = trial_state(make_ansatz(hamiltonian, VariationalOptions()).module, {"a": jnp.zeros(1)})._replace(log_amplitude=log_amplitude)
    found = dense_averages(hamiltonian, trial, jnp.zeros(1), beta, copies)
    exact = exact_curve(hamiltonian, np.array([beta]))
    for name, estimate in found.estimates.items():
        np.testing.assert_allclose(estimate.mean, exact[name][0], atol=1e-10, err_msg=name)
    assert 0 < found.sign.mean <= 1


def test_the_better_estimate_is_taken_and_disagreement_widens_it():
    plain = {"energy": Estimate(np.array(1.0), np.array(0.1)), "specific_heat": Estimate(np.array(2.0), np.array(0.1))}
    doubled = {"energy": Estimate(np.array(1.5), np.array(0.01)), "specific_heat": Estimate(np.array(2.0), np.array(0.2))}
    found, share = better(plain, doubled)
    assert share == 0.5 and found["energy"].mean == 1.5 and found["specific_heat"] == plain["specific_heat"]
    np.testing.assert_allclose(found["energy"].error, np.hypot(0.01, np.sqrt(0.25 - 0.01 - 0.0001)))


STRIP = heisenberg(graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (3, 4), (2, 4)]))


def curve(**method):
    options = {"kind": "variational", "ansatz": "jastrow", **method}
    return thermal_curve(STRIP, T=[2.0, 1.0, 0.5], method=options, sampling={"n_samples": 512, "seed": 3}, progress=False)


def test_joined_networks_are_nearer_to_the_exact_state():
    """A poor trial state, summed over its configurations."""
    exact = exact_curve(STRIP, np.array([0.5, 1.0, 2.0]))
    found = curve(compose=True)
    known, cold = found.diagnostics, 2
    plain, doubled = (known[f"{kind}_energy"][cold] for kind in ("plain", "doubled"))
    assert abs(doubled[0] - exact["energy"][cold]) < 0.8 * abs(plain[0] - exact["energy"][cold])
    assert found.energy.mean[cold] == min(plain, doubled, key=lambda estimate: estimate[1])[0]
    assert 0 < known["doubled_sign"][cold] < 1 and max(known["composed"]) > 0
    for name in ("energy", "specific_heat", "susceptibility", "correlation_zz"):
        estimate = found.observables[name]
        assert (np.abs(estimate.mean - exact[name]) < 3 * estimate.error + 1e-9).all(), name
    assert "plain_energy" not in curve(compose=False).diagnostics


def test_joined_networks_are_sampled():
    """On the way that samples take, with few of them."""
    found, exact = curve(enumerate=False, n_walkers=128, compose=True), exact_curve(STRIP, np.array([0.5, 1.0, 2.0]))
    doubled = found.diagnostics["doubled_energy"]
    assert np.isfinite(doubled).all() and (np.abs(doubled[:, 0] - exact["energy"]) < 4 * doubled[:, 1]).all()
    assert (found.diagnostics["doubled_sign"] > 0.5).all()


def test_without_frustration_four_copies_are_joined():
    """A ring of six, whose amplitudes are positive."""
    ring, T = heisenberg(graph(6, [(k, (k + 1) % 6) for k in range(6)])), [0.5]
    method = {"kind": "variational", "ansatz": "pairs", "alpha": 1, "enumerate": True, "compose": True}
    found, exact = thermal_curve(ring, T=T, method=method, progress=False), exact_curve(ring, np.array([2.0]))
    np.testing.assert_allclose(found.diagnostics["doubled_sign"], 1.0, atol=0.01)
    for name in ("energy", "specific_heat"):
        joined = found.diagnostics[f"doubled_{name}"]
        assert (np.abs(joined[:, 0] - exact[name]) < np.minimum(joined[:, 1], 0.01)).all(), name


@pytest.mark.parametrize(
    ("couplings", "n_walkers", "copies"), [([1.0, 1.0, 1.0], None, 4), ([1.0, -0.6, 1.2], None, 4), ([1.0, 1.0, 1.0], 64, 2)]
)
def test_how_many_copies_are_joined(couplings, n_walkers, copies):
    """Four where there is no frustration and configurations are summed; two with it (the triangles) in any case."""
    options = VariationalOptions(ansatz="rbm", alpha=1, compose=True)
    triangles = heisenberg(graph(4, TRIANGLE))
    for hamiltonian, expected in ((heisenberg(graph(4, [(0, 1), (1, 2), (2, 3)]), J=couplings), copies), (triangles, 2)):
        own = make_ansatz(hamiltonian, options)
        trial = trial_state(own.module, own.start(jax.random.key(0), 0.1))
        found = joining(own.hamiltonian, trial, (1.0,), options, 64, n_walkers, SERIAL, positive=own.positive)
        assert found.copies == expected


def test_two_poor_copies_are_better_than_one_and_four_may_be_worse():
    assert systematic_error(1.0, 1.0, 2) == 0.8 and systematic_error(1.0, 1.0, 4) == 4.0
    assert systematic_error(0.01, 1.0, 2) == pytest.approx(0.2) and systematic_error(0.01, 1.0, 4) == pytest.approx(0.4)


def test_networks_that_cannot_be_joined_are_refused():
    with pytest.raises(InputError, match="compose"):
        curve(start="rotated", compose=True)


@pytest.mark.parametrize(("plain", "share"), [(1.0, 1.0), (1e-6, 0.5)])
def test_rings_are_drawn_until_chance_is_small_beside_what_is_wrong(plain, share):
    """At half of the most there are: enough where the state is off by far more, not where it is as good as exact."""
    hamiltonian, trial, theta = state(*MAGNETS["heisenberg"])
    advance = measure_rings(hamiltonian, trial, 2, SERIAL)
    joining = Joining((), 2, 0.0, 128, 1, advance)
    rings = joining.begin(jax.random.key(0), hamiltonian.n_sites)
    assert joining.share(hamiltonian, 0.8, rings, 1.0, plain, SERIAL) == 0
    for k in range(PATIENCE // 2):
        rings = advance(jax.random.fold_in(jax.random.key(1), k), theta, rings)
    assert joining.share(hamiltonian, 0.8, rings, 1.0, plain, SERIAL) == share
    assert joining.share(hamiltonian, 0.8, rings._replace(count=PATIENCE), 1.0, plain, SERIAL) == 1


@pytest.mark.parametrize(("errors", "share"), [(0.5, 1.0), (2.2, 1 / PATIENCE)])
def test_rings_whose_sign_would_not_be_known_are_given_up(errors, share):
    """A sign of half an error stays unknown with four times the rings; one of 2.2 errors may still be told from zero."""
    chance = np.random.default_rng(1).normal(size=128)
    signs = (chance - chance.mean()) / chance.std(ddof=1) + errors / np.sqrt(128)
    rings = Rings(jnp.ones((128, 4, 4), jnp.int8), 1, 1.0, {"sign": jnp.asarray(signs)})
    assert Joining((), 2, 0.0, 128, 1, None).share(MAGNETS["heisenberg"][0], 0.8, rings, 1.0, 1.0, SERIAL) == share

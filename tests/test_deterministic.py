"""The deterministic method against full diagonalisation, through `thermal_curve` and step by step."""

import jax
import numpy as np
import pytest

from thermodbm import DeterministicOptions, SamplingOptions, graph, heisenberg, make_lattice, thermal_curve, transverse_field_ising, xxz
from thermodbm.errors import InputError
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.deterministic import deterministic_method, slices
from thermodbm.exact import exact_curve

NAMES = ["energy", "specific_heat", "specific_heat_direct", "entropy", "free_energy", "magnetization_x", "magnetization_z"]
NAMES += ["order_parameter_squared", "susceptibility", "correlation_zz"]
TEMPERATURES = [0.65, 0.8]  # one number of slices serves both


def random_magnet(field):
    """Frustrated, couplings and transverse fields of both signs."""
    rng = np.random.default_rng(4)
    lattice = graph(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 0)])
    h = 0.4 * rng.normal(size=5) if field else 0.0
    return transverse_field_ising(lattice, rng.normal(size=6), rng.uniform(0.4, 1.2, 5) * rng.choice([-1, 1], 5), h)


def pulls(curve, hamiltonian):
    """Deviations from exact values in units of the error bars."""
    exact = exact_curve(hamiltonian, curve.beta)
    exact["specific_heat_direct"] = exact["specific_heat"]
    found = {n: (curve.observables[n].mean - exact[n]) / np.maximum(curve.observables[n].error, 1e-12) for n in NAMES}
    found["correlation_zz"] = found["correlation_zz"][:, 1:]  # C(0) = 1 without error
    return found


def test_pulls_over_seeds_without_field():
    """8 seeds, all observables: the mean square pull of each is below 1 + 5 sigma of 16 degrees of freedom, and the energy's above 0.2."""
    hamiltonian = random_magnet(field=False)
    squares = {n: [] for n in NAMES}
    for seed in range(8):
        curve = thermal_curve(hamiltonian, T=TEMPERATURES, sampling=SamplingOptions(n_samples=6000, seed=seed), progress=False)
        for name, p in pulls(curve, hamiltonian).items():
            squares[name].append(np.mean(p**2))
    found = {name: float(np.mean(s)) for name, s in squares.items()}
    assert max(found.values()) < 1 + 5 * np.sqrt(2 / 16), found
    assert found["energy"] > 0.2, found
    assert (curve.energy.error < 5e-3).all()


def test_longitudinal_field():
    """One curve, all observables: no pull beyond 4.5 of some 30, mean square below 2."""
    hamiltonian = random_magnet(field=True)
    curve = thermal_curve(hamiltonian, T=TEMPERATURES, sampling={"n_samples": 12_000, "seed": 3}, progress=False)
    found = pulls(curve, hamiltonian)
    values = np.concatenate([p.ravel() for p in found.values()])
    assert np.abs(values).max() < 4.5, found
    assert np.mean(values**2) < 2.0, found


def test_target_error_is_reached():
    hamiltonian = random_magnet(field=False)
    curve = thermal_curve(hamiltonian, T=TEMPERATURES[:1], sampling={"target_error": 2e-3}, progress=False)
    assert curve.energy.error[0] <= 2e-3
    assert np.abs(pulls(curve, hamiltonian)["energy"]).max() < 4.5


def test_advance_is_reproducible_bit_for_bit():
    """The same keys give the same state: what resuming and publishing rely on."""
    options, sampling = DeterministicOptions(extrapolate=False, sampler="column"), SamplingOptions(n_samples=500, n_chains=8)
    method = deterministic_method(random_magnet(field=False), options, sampling)

    def first_point():
        state, point, k = method.init(jax.random.key(0)), None, 0
        while point is None:
            state, info = method.advance(jax.random.key(k), state, 1.0)
            point, k = info.point, k + 1
        return point

    a, b = first_point(), first_point()
    assert all(np.array_equal(a.observables[n].mean, b.observables[n].mean) for n in a.observables)


def test_slices_are_powers_of_two_and_fine_enough():
    for beta in (0.1, 0.7, 3.0, 40.0):
        n = slices(beta, 0.1, extrapolate=True)
        assert beta / (2 * n[0]) <= 0.1 and n == [n[0], n[0] // 2, n[0] // 4]
        assert n[0] & (n[0] - 1) == 0


def test_loop_sampler_is_refused_for_the_ising_model():
    with pytest.raises(InputError, match="sampler"):
        deterministic_method(transverse_field_ising(make_lattice("chain", 4)), DeterministicOptions(sampler="loop"), SamplingOptions())


def test_other_couplings_compile_nothing():
    """A second run whose couplings differ, and one of another length, reuse every program of the first."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    lattice = graph(4, [(0, 1), (1, 2), (2, 3), (3, 0)])
    rng = np.random.default_rng(0)

    def run(J, n_samples):
        for magnet in (transverse_field_ising(lattice, J, 1.0), xxz(lattice, np.abs(J), 0.5)):
            method = DeterministicOptions(extrapolate=False, d_tau=0.1)
            thermal_curve(magnet, T=[1.0], method=method, sampling=SamplingOptions(n_samples=n_samples), progress=False)

    run(rng.normal(size=4), 2000)
    n_first = len(compiled)
    assert n_first > 0
    run(rng.normal(size=4), 2000)
    run(rng.normal(size=4), 5000)
    assert compiled[n_first:] == []


@pytest.mark.parametrize(("gamma", "h"), [(0.8, 0.3), (0.0, 0.3), (1.0, 0.0)])
def test_a_single_spin(gamma, h):
    """Neither bonds nor neighbours: e, m_x and m_z against a 2x2 matrix. Without a field along z nothing scatters but rounding errors."""
    hamiltonian = transverse_field_ising(graph(1, []), 1.0, gamma, h)
    curve = thermal_curve(hamiltonian, T=[0.5, 2.0], sampling={"n_samples": 20_000}, progress=False)
    field = np.hypot(gamma, h)
    m = np.tanh(field * curve.beta)
    for name, exact in (("energy", -field * m), ("magnetization_x", m * gamma / field), ("magnetization_z", m * h / field)):
        found = curve.observables[name]
        assert (np.abs(found.mean - exact) < 4.5 * found.error + 1e-12).all(), name
    assert (curve.diagnostics["trusted"] == 1).all()


def test_what_was_not_seen_is_not_excluded():
    """The Heisenberg ring of 8 far below its gap: most levels see no magnetised state, and a classical Ising ring no excitation. The error
    bars cover the exact values all the same, on every one of ten seeds."""
    for hamiltonian, T, name in (
        (heisenberg(make_lattice("chain", 8)), 0.05, "susceptibility"),
        (transverse_field_ising(make_lattice("chain", 8), 1.0, 0.0), 0.3, "order_parameter_squared"),
    ):
        exact = exact_curve(hamiltonian, np.array([1 / T]))[name][0]
        for seed in range(10):
            sampling = SamplingOptions(n_samples=4000, seed=seed)
            found = thermal_curve(hamiltonian, T=[T], sampling=sampling, progress=False).observables[name]
            assert abs(found.mean[0] - exact) < 4 * found.error[0], (name, seed, found)
            assert found.error[0] < 0.01


def test_a_lost_sign_is_marked_and_ends_nothing():
    """A frustrated triangle so cold that its average sign is noise: the temperature is marked, the warm one is not, and joint estimates
    do without it."""
    curve = thermal_curve(heisenberg(graph(3, [(0, 1), (1, 2), (0, 2)])), T=[0.05, 1.5], sampling={"n_samples": 8000}, progress=False)
    assert curve.diagnostics["trusted"].tolist() == [0, 1]
    assert Doubt(int(curve.diagnostics["doubts"][0])) & Doubt.SIGN
    exact = exact_curve(curve.hamiltonian, curve.beta)
    for name in ("energy", "specific_heat", "entropy"):
        found = curve.observables[name]
        assert abs(found.mean[1] - exact[name][1]) < 4 * found.error[1], name

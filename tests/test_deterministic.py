"""The deterministic method against full diagonalisation, through `thermal_curve` and step by step."""

import jax
import numpy as np
import pytest

from thermodbm import DeterministicOptions, SamplingOptions, graph, make_lattice, thermal_curve, transverse_field_ising
from thermodbm.errors import InputError
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

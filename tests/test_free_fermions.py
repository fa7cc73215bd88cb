import numpy as np
import pytest

from thermodbm.exact.diagonalisation import diagonalise, thermal_averages
from thermodbm.exact.free_fermions import applicable, ising_ring
from thermodbm.models import heisenberg, make_lattice, transverse_field_ising

BETAS = np.array([0.01, 0.3, 1.0, 2.0, 8.0, 50.0])


@pytest.mark.parametrize("n_sites", [3, 4, 5, 8, 11])
@pytest.mark.parametrize("J", [1.0, -1.0, 0.4, -0.7, 0.0])
@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.4, 0.0])
def test_both_parities_and_all_signs_agree_with_diagonalisation(n_sites, J, gamma):
    hamiltonian = transverse_field_ising(make_lattice("chain", n_sites), J, gamma)
    assert applicable(hamiltonian) == bool(J or gamma)
    if not (J or gamma):
        return
    expected, found = thermal_averages(diagonalise(hamiltonian), BETAS), ising_ring(n_sites, J, gamma, BETAS)
    frustrated = n_sites % 2 == 1 and J < 0 and abs(gamma) <= -J
    assert ("correlation_zz" in found) == (bool(J and gamma) and not frustrated)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-9, atol=1e-10, err_msg=name)


def test_reference_values():
    short = ising_ring(16, 1.0, 1.0, np.array([2.0, 1.0]))
    np.testing.assert_allclose(short["energy"], [-1.24219391, -1.11851179], atol=6e-9)
    np.testing.assert_allclose(short["specific_heat"], [0.16032677, 0.31023014], atol=6e-9)
    np.testing.assert_allclose(ising_ring(64, 1.0, 1.0, np.array([8.0]))["energy"], -1.271441, atol=6e-7)


@pytest.mark.parametrize(("n_sites", "J", "gamma"), [(64, 1.0, 1.0), (64, 1.0, 0.5), (64, -0.5, 1.0), (65, -1.0, 0.3), (400, 1.0, 2.0)])
def test_thermodynamic_relations_hold_down_to_very_low_temperature(n_sites, J, gamma):
    betas = np.geomspace(1e-3, 1e4, 2001)
    curve = ising_ring(n_sites, J, gamma, betas, correlations=False)
    assert all(np.isfinite(v).all() for v in curve.values())
    assert (curve["specific_heat"] >= -1e-13).all()
    assert (np.diff(curve["entropy"]) <= 1e-13).all() and (curve["entropy"] >= -1e-13).all()
    np.testing.assert_allclose(curve["free_energy"], curve["energy"] - curve["entropy"] / betas, rtol=1e-12)
    # de = -c / beta^2 dbeta, by the trapezoidal rule in ln beta, whose error here is of the order of the step squared
    steps = -(curve["specific_heat"] / betas)[:-1] / 2 - (curve["specific_heat"] / betas)[1:] / 2
    np.testing.assert_allclose(np.diff(curve["energy"]), steps * np.diff(np.log(betas)), atol=1e-6)


@pytest.mark.parametrize("J", [1.0, -0.6])
def test_magnetization_is_the_derivative_of_the_free_energy(J):
    step = 1e-4
    up, down = (ising_ring(33, J, 0.6 + d, BETAS)["free_energy"] for d in (step, -step))
    np.testing.assert_allclose(ising_ring(33, J, 0.6, BETAS)["magnetization_x"], -(up - down) / (2 * step), atol=1e-5)


def test_correlations_of_long_cold_rings():
    """Deep in the ordered phase <m_z^2> is (1 - (gamma/J)^2)^(1/4); nothing overflows; critical correlations fall as r^(-1/4)."""
    ordered = ising_ring(200, 1.0, 0.5, np.array([1e3]))
    np.testing.assert_allclose(ordered["order_parameter_squared"], 0.75**0.25, rtol=1e-2)
    np.testing.assert_allclose(ordered["structure_factor_zz"][0, 0], 200 * ordered["order_parameter_squared"][0], rtol=1e-12)
    critical = ising_ring(256, 1.0, 1.0, np.array([1e5]))["correlation_zz"][0]
    r = np.array([4, 8, 16])
    chord = np.sin(np.pi * r / 256)  # of the ring of a conformal theory
    np.testing.assert_allclose(np.diff(np.log(critical[r])) / np.diff(np.log(chord)), -0.25, atol=2e-3)


def test_ground_state_of_the_infinite_critical_chain():
    curve = ising_ring(2000, 1.0, 1.0, np.array([1e6]))
    np.testing.assert_allclose(curve["energy"], -4 / np.pi, atol=1e-6)
    np.testing.assert_allclose(curve["magnetization_x"], 2 / np.pi, atol=1e-6)


@pytest.mark.parametrize(
    "hamiltonian",
    [
        transverse_field_ising(make_lattice("chain", 6), 1.0, 1.0, 0.1),
        transverse_field_ising(make_lattice("chain", 6), [1.0] * 5 + [0.9], 1.0),
        transverse_field_ising(make_lattice("chain", 6, False), 1.0, 1.0),
        transverse_field_ising(make_lattice("chain", 2), 1.0, 1.0),
        transverse_field_ising(make_lattice("square", (4, 4)), 1.0, 1.0),
        heisenberg(make_lattice("chain", 6)),
    ],
    ids=["field", "random", "open", "pair", "square", "heisenberg"],
)
def test_other_models_are_not_for_free_fermions(hamiltonian):
    assert not applicable(hamiltonian)

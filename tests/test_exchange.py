import numpy as np
import pytest
import scipy.linalg
from exchange_ring import bond_matrix, field_matrix, trotter_half_step

from thermodbm.errors import InputError
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.models.rotation import balanced_signs, sublattice_rotation
from thermodbm.network.dbm import state_vector
from thermodbm.network.exchange import exchange_network, gate_elements, trotter_step

RANDOM = np.random.default_rng(5)


def purified(dense: np.ndarray) -> np.ndarray:
    """<sigma|dense|-sigma'> as a table over spins and ancillas, normalised."""
    return dense[:, ::-1] / np.linalg.norm(dense)


def normalised(psi: np.ndarray, like: np.ndarray) -> np.ndarray:
    psi = psi / np.linalg.norm(psi)
    return psi / np.exp(1j * np.angle(np.vdot(like, psi)))


@pytest.mark.parametrize(
    "jz, jxy, delta", [*RANDOM.normal(size=(8, 3)), (1.0, 0.0, 0.5), (0.0, -1.0, 0.3), (1.0, 1.0, 0.2), (-1.0, -1.0, 0.2)]
)
def test_gate_is_the_dense_propagator(jz, jxy, delta):
    delta = abs(delta) + 0.05
    h = xxz(graph(2, [(0, 1)]), jxy, jz / jxy if jxy else 0.0) if jxy else xxz(graph(2, [(0, 1)]), 0.0, 1.0)
    exact = purified(scipy.linalg.expm(-delta * bond_matrix(h, 0)))
    np.testing.assert_allclose(normalised(state_vector(exchange_network(h, 2 * delta, 1)), exact), exact, atol=1e-12)


def test_gate_elements_are_those_of_the_dense_propagator():
    h = xxz(graph(2, [(0, 1)]), 0.7, -1.3)
    dense = scipy.linalg.expm(-0.4 * bond_matrix(h, 0))
    a, b, c = gate_elements(h.zz[0], h.xy[0], 0.4)
    np.testing.assert_allclose([a, b, c], [dense[0, 0], dense[1, 1], dense[1, 2]], rtol=1e-13)


@pytest.mark.parametrize(
    "h, n_slices",
    [
        (heisenberg(make_lattice("chain", 4)), 1),
        (xxz(graph(3, [(0, 1), (1, 2)]), RANDOM.normal(size=2), RANDOM.normal(size=2), RANDOM.normal(size=3)), 2),
        (xxz(graph(3, [(0, 1), (1, 2), (0, 2)]), RANDOM.normal(size=3), RANDOM.normal(size=3), RANDOM.normal(size=3)), 1),
        (heisenberg(graph(3, [(0, 1), (1, 2), (0, 2)]), 1.0), 1),
    ],
    ids=["chain", "field, two slices", "random triangle", "frustrated triangle"],
)
def test_network_is_the_trotter_product(h, n_slices):
    beta = 0.9
    exact = purified(np.linalg.matrix_power(trotter_half_step(h, beta / (2 * n_slices))[0], n_slices))
    np.testing.assert_allclose(normalised(state_vector(exchange_network(h, beta, n_slices)), exact), exact, atol=1e-12)


def test_without_frustration_deep_units_carry_no_phase():
    """Apart from the constraints i pi/4 and i pi/8, all weights of hidden units are real."""
    weights = exchange_network(heisenberg(make_lattice("chain", 4)), 1.0, 1)
    phases = np.concatenate([weights.W, weights.W_deep], axis=1)
    constraint = (np.abs(phases.imag) > 0).any(1)
    assert (phases[constraint].real == 0).all()
    assert set(np.unique(np.abs(phases[constraint].imag).round(12))) == {0.0, round(np.pi / 8, 12), round(np.pi / 4, 12)}


def test_splitting_is_second_order():
    h = xxz(make_lattice("square", (2, 3)), 1.0, 0.4, RANDOM.normal(size=6))
    exact = scipy.linalg.expm(-1.2 * (sum(bond_matrix(h, b) for b in range(len(h.bonds))) + field_matrix(h)))
    errors = [np.abs(np.linalg.matrix_power(trotter_half_step(h, 1.2 / m)[0], m) - exact).max() for m in (8, 16)]
    assert 3.8 < errors[0] / errors[1] < 4.2


@pytest.mark.parametrize(
    "kind, extent", [("chain", 8), ("square", (4, 4)), ("kagome", (2, 2)), ("cubic", (4, 4, 4)), ("honeycomb", (2, 3))]
)
def test_each_bond_acts_for_a_whole_step_on_sites_of_its_own(kind, extent):
    bonds = make_lattice(kind, extent).bonds()
    total = np.zeros(len(bonds))
    for group, fraction in trotter_step(bonds):
        assert len(np.unique(bonds[group])) == 2 * len(group)
        total[group] += fraction
    assert (total == 1).all()


def test_sublattice_rotation():
    assert sublattice_rotation(heisenberg(make_lattice("square", (4, 4)))) is not None
    assert sublattice_rotation(heisenberg(make_lattice("triangular", (3, 3)))) is None
    assert sublattice_rotation(heisenberg(make_lattice("triangular", (3, 3)), -1.0)) is not None
    assert sublattice_rotation(j1j2(make_lattice("square", (4, 4)), 1.0, -0.5)) is not None
    assert sublattice_rotation(j1j2(make_lattice("square", (4, 4)), 1.0, 0.5)) is None
    signs = balanced_signs(3, np.array([[0, 1], [1, 2], [0, 2]]), np.array([1.0, -2.0, 3.0]))
    assert signs[0] != signs[1] == signs[2]


def test_bad_input():
    h = heisenberg(make_lattice("chain", 4))
    for model, beta, n_slices in [(transverse_field_ising(make_lattice("chain", 4)), 1.0, 1), (h, -1.0, 1), (h, 1.0, 0)]:
        with pytest.raises(InputError):
            exchange_network(model, beta, n_slices)

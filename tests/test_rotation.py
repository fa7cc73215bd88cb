import numpy as np
import pytest
from scipy.linalg import expm

from thermodbm.errors import InputError
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.models.rotation import rotate, rotation_sign, sublattice_rotation

RING = heisenberg(make_lattice("chain", 4))
TRIANGLE = graph(3, [(0, 1), (1, 2), (0, 2)])


def test_signs_are_removed_where_they_can_be():
    assert sublattice_rotation(heisenberg(TRIANGLE)) is None
    for hamiltonian in (RING, heisenberg(TRIANGLE, J=[1.0, -1.0, 1.0])):
        turned = rotate(hamiltonian, sublattice_rotation(hamiltonian))
        assert (turned.xy < 0).all()
        np.testing.assert_allclose(*(np.linalg.eigvalsh(dense_hamiltonian(h)) for h in (hamiltonian, turned)), atol=1e-12)


def test_thermal_states_of_both_differ_by_the_sign():
    hamiltonian = xxz(graph(3, [(0, 1), (1, 2)]), J=[1.0, 0.7], delta=0.5, h=0.3)
    eta = sublattice_rotation(hamiltonian)
    spins = all_configurations(3)
    v = np.concatenate([np.repeat(spins, 8, 0), -np.tile(spins, (8, 1))], 1)  # rows sigma, columns -sigma'
    state, turned = (expm(-0.4 * dense_hamiltonian(h)).ravel() for h in (hamiltonian, rotate(hamiltonian, eta)))
    assert (turned > -1e-15).all() and (state < -0.1).any()
    np.testing.assert_allclose(state, turned * rotation_sign(v, eta), atol=1e-14)


def test_sites_in_a_transverse_field_are_not_turned():
    with pytest.raises(InputError, match="transverse field"):
        rotate(transverse_field_ising(graph(2, [(0, 1)])), np.array([1, -1]))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermodbm.errors import InputError
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz

RNG = np.random.default_rng(5)
GRAPH = graph(4, [(0, 1), (3, 1), (2, 3), (0, 2), (1, 2)])
HAMILTONIANS = {
    "tfim": transverse_field_ising(GRAPH, RNG.normal(size=5), RNG.normal(size=4), RNG.normal(size=4)),
    "xxz": xxz(GRAPH, RNG.normal(size=5), RNG.normal(size=5), RNG.normal(size=4)),
    "heisenberg": heisenberg(GRAPH, RNG.normal(size=5), -0.3),
    "j1j2": j1j2(make_lattice("square", (2, 3)), 1.0, -0.4, 0.2),
}


@pytest.mark.parametrize("hamiltonian", HAMILTONIANS.values(), ids=HAMILTONIANS)
def test_diagonal_energy_and_connected_are_the_matrix(hamiltonian):
    n = hamiltonian.n_sites
    spins = all_configurations(n)
    number = lambda s: (np.asarray(s) < 0) @ (1 << np.arange(n)[::-1])  # noqa: E731
    matrix = np.diag(np.asarray(hamiltonian.diagonal_energy(spins)))
    reached, elements = hamiltonian.connected(jnp.asarray(spins))
    assert reached.dtype == jnp.int8
    for row, (ends, values) in enumerate(zip(number(reached), np.asarray(elements), strict=True)):
        np.add.at(matrix[row], ends, values)
    np.testing.assert_allclose(matrix, dense_hamiltonian(hamiltonian), atol=1e-14)


def test_leading_axes_are_kept():
    hamiltonian, spins = HAMILTONIANS["xxz"], jnp.asarray(all_configurations(4).reshape(2, 8, 4))
    assert hamiltonian.diagonal_energy(spins).shape == (2, 8)
    reached, elements = hamiltonian.connected(spins)
    assert reached.shape == (2, 8, 5, 4) and elements.shape == (2, 8, 5)


def levels(hamiltonian):
    return np.linalg.eigvalsh(dense_hamiltonian(hamiltonian))


def test_conventions_on_a_pair():
    pair = make_lattice("chain", 2)
    np.testing.assert_allclose(levels(heisenberg(pair, 1.5)), 1.5 * np.array([-0.75, 0.25, 0.25, 0.25]), atol=1e-14)
    np.testing.assert_allclose(levels(heisenberg(pair, 1.0, 0.4)), np.sort([-0.75, 0.25 - 0.4, 0.25, 0.25 + 0.4]), atol=1e-14)
    np.testing.assert_allclose(levels(xxz(pair, 1.0, 3.0)), np.sort([-0.75 - 0.5, -0.75 + 0.5, 0.75, 0.75]), atol=1e-14)
    root = np.hypot(0.7, 2 * 0.3)
    np.testing.assert_allclose(levels(transverse_field_ising(pair, 0.7, 0.3)), [-root, -0.7, 0.7, root], atol=1e-14)
    up = np.ones(2, np.int8)
    assert transverse_field_ising(pair, 0.7, 0.3, 0.2).diagonal_energy(up) == pytest.approx(-0.7 - 2 * 0.2)
    assert heisenberg(pair, 1.0, 0.2).diagonal_energy(up) == pytest.approx(0.25 - 0.2)


def test_models_have_the_bonds_of_their_shells():
    lattice = make_lattice("square", (4, 4))
    hamiltonian = j1j2(lattice, 1.0, 0.5)
    np.testing.assert_array_equal(hamiltonian.bonds, np.concatenate([lattice.bonds(1), lattice.bonds(2)]))
    np.testing.assert_allclose(hamiltonian.xy, np.repeat([0.25, 0.125], 32))
    np.testing.assert_allclose(hamiltonian.zz, hamiltonian.xy)
    assert [h.conserves_sz for h in HAMILTONIANS.values()] == [False, True, True, True]
    assert [h.moment for h in HAMILTONIANS.values()] == [1.0, 0.5, 0.5, 0.5]


def test_gradients_reach_the_couplings():
    spins = all_configurations(4)[5]
    lattice = make_lattice("chain", 4)

    def energy(J, gamma, h):
        hamiltonian = transverse_field_ising(lattice, J, gamma, h)
        return hamiltonian.diagonal_energy(spins) + hamiltonian.connected(spins)[1].sum()

    s = spins.astype(float)
    per_bond, gamma, h = jax.jit(jax.grad(energy, argnums=(0, 1, 2)))(jnp.ones(4), 1.0, 0.5)
    np.testing.assert_allclose(per_bond, [-s[i] * s[j] for i, j in lattice.bonds()])
    assert gamma == -4 and h == -s.sum()


def test_hamiltonian_is_a_pytree_of_four_leaves():
    leaves, structure = jax.tree.flatten(HAMILTONIANS["xxz"])
    assert [leaf.shape for leaf in leaves] == [(5,), (5,), (4,), (4,)]
    assert structure == jax.tree.structure(xxz(GRAPH, 2.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transverse_field_ising(GRAPH, np.nan), "model.J: expected finite numbers, found nan"),
        (lambda: transverse_field_ising(GRAPH, 1.0, np.inf), "model.gamma: expected finite"),
        (lambda: transverse_field_ising(GRAPH, 1.0, 1.0, "up"), "model.h: expected a number or one per site"),
        (lambda: transverse_field_ising(GRAPH, [1.0, 2.0]), r"model.J: expected a number or 5 numbers, one per bond, found shape \(2,\)"),
        (lambda: heisenberg(GRAPH, 1.0, [0.1] * 5), "model.h: expected a number or 4 numbers"),
        (lambda: xxz(GRAPH, 1.0, [np.nan] * 5), "model.delta"),
        (lambda: j1j2(make_lattice("chain", 6), 1.0, [0.5] * 5), "model.J2: expected a number or 6 numbers"),
        (lambda: j1j2(GRAPH), "lattice.kind: expected a lattice with further-neighbour shells"),
    ],
)
def test_bad_couplings_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()

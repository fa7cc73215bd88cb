"""Stored networks, loaded again: samples and averages against diagonalisation, amplitudes against the thermal density matrix."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

import thermodbm
from thermodbm.errors import InputError, NumericsError
from thermodbm.evolve.ansatz import make_ansatz
from thermodbm.evolve.networks import classes_of, train_networks, unpacked
from thermodbm.evolve.options import VariationalOptions
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.network.trotter import network_record
from thermodbm.run.config import parse_config
from thermodbm.run.describe import describe

EDGES = [(0, 1), (2, 1), (2, 3)]
MAGNETS = {
    "ising": transverse_field_ising(graph(4, EDGES), [1.0, -0.6, 0.8], [0.7, 1.1, 0.9, 0.5], [0.2, 0.0, -0.3, 0.1]),
    "ising, even": transverse_field_ising(graph(4, EDGES), [1.0, -0.6, 0.8], [0.7, 1.1, 0.9, 0.5]),
    "exchange": xxz(graph(4, EDGES), [1.0, -0.6, 0.8], 0.4, [0.2, 0.0, -0.3, 0.1]),
    "exchange, even": xxz(graph(4, EDGES), [1.0, -0.6, 0.8], 0.4),
    "frustrated": heisenberg(graph(3, [(0, 1), (1, 2), (0, 2)]), [1.0, 0.7, 0.4]),
}
BETA = 0.8


def stored(hamiltonian, method, network, beta=BETA):
    """A curve that holds nothing but a network."""
    config = parse_config({**describe(hamiltonian), "method": method, "temperature": {"beta": [beta]}, "sampling": {}, "output": {}})
    return thermodbm.ThermalCurve(np.array([1 / beta]), np.array([beta]), {}, {}, (network,), method["kind"], config.text)


def written_down(hamiltonian, n_slices=10, beta=BETA):
    return stored(hamiltonian, {"kind": "deterministic"}, network_record(hamiltonian, beta, n_slices), beta)


def trained(hamiltonian):
    network, classes = unpacked(train_networks(hamiltonian, [BETA], 4, 1e-3), BETA), classes_of(hamiltonian)
    weights = {name: np.asarray(getattr(network, name)) for name in ("beta", "K", "g", "K_beta", "g_beta")}
    return stored(hamiltonian, {"kind": "learned"}, weights | {"bond_class": classes.bonds, "site_class": classes.sites})


def neural(hamiltonian, beta, noise=0.0, **options):
    """The analytic state of the start, with noise on its parameters."""
    ansatz = make_ansatz(hamiltonian, VariationalOptions(alpha=2, **options))
    theta, unravel = ravel_pytree(ansatz.start(jax.random.key(0), beta))
    theta = theta + noise * jax.random.normal(jax.random.key(1), theta.shape)
    leaves = jax.tree_util.tree_leaves_with_path(unravel(theta))
    network = {"/".join(k.key for k in keys): np.asarray(x) for keys, x in leaves} | {"basis_signs": ansatz.eta}
    return stored(hamiltonian, {"kind": "variational", "alpha": 2, **options}, network, beta)


def observable(s):
    return np.stack([s[:, 0] * s[:, 2], s[:, -1]], -1).astype(float)


def thermal(hamiltonian):
    """exp(-beta H/2), and the averages of `observable`."""
    e, v = np.linalg.eigh(dense_hamiltonian(hamiltonian))
    p = np.exp(-BETA * (e - e[0]))
    return (v**2 @ p / p.sum()) @ observable(all_configurations(hamiltonian.n_sites))


def amplitudes(state):
    """Rows spins, columns ancillas turned round: exp(-beta H/2) if the state is thermal."""
    spins = all_configurations(state.hamiltonian.n_sites)
    both = np.concatenate([np.repeat(spins, len(spins), 0), -np.tile(spins, (len(spins), 1))], axis=1)
    return np.exp(np.asarray(state.log_amplitude(both))).reshape(len(spins), -1)


def overlap(state):
    e, v = np.linalg.eigh(dense_hamiltonian(state.hamiltonian))
    root, psi = (v * np.exp(-state.beta * (e - e[0]) / 2)) @ v.T, amplitudes(state)
    return abs(np.vdot(psi, root)) / np.linalg.norm(psi) / np.linalg.norm(root)


def check(state, expected, off=1e-3):
    found = state.measure(observable, n=10_000)
    assert found.mean.shape == (2,) and (found.error > 0).all() and found.error.max() < 0.04
    assert (np.abs(found.mean - expected) < 4.5 * found.error + off).all()
    assert float(state.measure(lambda s: observable(s)[:, 0], n=10_000).mean) == pytest.approx(found.mean[0], abs=1e-12)


RINGS = {
    "ising": lambda: written_down(MAGNETS["ising"]),
    "exchange": lambda: written_down(MAGNETS["exchange"]),
    "frustrated": lambda: written_down(MAGNETS["frustrated"]),
    "learned ising": lambda: trained(MAGNETS["ising, even"]),
    "learned exchange": lambda: trained(MAGNETS["exchange, even"]),
}


@pytest.mark.parametrize("name", RINGS)
def test_stored_layers_are_sampled_as_the_thermal_state(name, tmp_path):
    curve = RINGS[name]()
    curve.save(tmp_path / "a.h5")
    state = thermodbm.load_state(tmp_path / "a.h5", 1 / BETA)
    check(state, thermal(curve.hamiltonian))
    with pytest.raises(InputError, match="layers of deep units"):
        state.log_amplitude(np.ones((1, 2 * curve.hamiltonian.n_sites)))
    if name == "frustrated":
        with pytest.raises(InputError, match="samples with a sign"):
            state.sample(10)
        return
    spins = state.sample(3001, seed=2)
    assert spins.shape == (3001, curve.hamiltonian.n_sites) and set(np.unique(spins)) == {-1, 1}
    assert (np.abs(observable(spins).mean(0) - thermal(curve.hamiltonian)) < 0.1).all()
    assert (spins == state.sample(3001, seed=2)).all() and (spins != state.sample(3001, seed=3)).any()


@pytest.mark.parametrize("name", ["ising", "exchange"])
def test_stored_neural_states_have_amplitudes_and_samples(name):
    hamiltonian = MAGNETS[name]
    assert overlap(thermodbm.load_state(neural(hamiltonian, 0.02), 50.0)) > 1 - 1e-6
    state = thermodbm.load_state(neural(hamiltonian, BETA, noise=0.2), 1 / BETA)
    p = (np.abs(amplitudes(state)) ** 2).sum(1)
    check(state, p / p.sum() @ observable(all_configurations(4)), off=0)


def test_a_run_from_its_file_to_a_state(tmp_path):
    thermodbm.thermal_curve(MAGNETS["ising"], beta=[0.4, BETA], method="variational", progress=False, output=tmp_path / "a.h5")
    state = thermodbm.load_state(tmp_path / "a.h5", 1 / BETA)
    assert overlap(state) > 1 - 1e-4
    check(state, thermal(MAGNETS["ising"]))


def test_what_is_not_in_a_file_is_refused(tmp_path):
    curve = thermodbm.thermal_curve(MAGNETS["exchange"], beta=[BETA], method="exact", progress=False)
    with pytest.raises(InputError, match="exact, which has no networks"):
        thermodbm.load_state(curve, 1 / BETA)
    curve.save(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"T: expected one of 1\.25, found 2\.0"):
        thermodbm.load_state(tmp_path / "a.h5", 2.0)
    with pytest.raises(InputError, match="it is not finished, or infinite"):
        thermodbm.load_state(stored(MAGNETS["ising"], {"kind": "deterministic"}, {}), 1 / BETA)
    with pytest.raises(InputError, match="none of its n_slices"):
        thermodbm.load_state(stored(MAGNETS["ising"], {"kind": "deterministic"}, {"beta": np.array(BETA)}), 1 / BETA)
    state = thermodbm.load_state(written_down(MAGNETS["ising"]), 1 / BETA)
    for n in (0, 2.5, True):
        with pytest.raises(InputError, match="a positive number of samples"):
            state.sample(n)


class Own(nn.Module):
    """exp(-w sum_i v_i v_i'), with v' the ancillas: exact for free spins in a transverse field."""

    @nn.compact
    def __call__(self, visible):
        w, n = self.param("w", nn.initializers.zeros, ()), visible.shape[-1] // 2
        return (-w * (visible[..., :n] * visible[..., n:]).sum(-1)).astype(complex)


def test_a_module_of_the_user_is_asked_for():
    free = transverse_field_ising(make_lattice("chain", 2, False), 0.0, 1.0)
    w = np.array(-0.5 * np.log(np.tanh(BETA / 2)))  # exp(-beta H/2) of a spin: cosh(beta/2) on the diagonal, sinh(beta/2) off it
    curve = stored(free, {"kind": "variational"}, {"w": w, "basis_signs": np.ones(2)})
    with pytest.raises(InputError, match="hand over the module"):
        thermodbm.load_state(curve, 1 / BETA)
    assert overlap(thermodbm.load_state(curve, 1 / BETA, module=Own())) > 1 - 1e-12


def test_a_lost_sign_is_told():
    state = thermodbm.load_state(written_down(heisenberg(make_lattice("triangular", (3, 3))), 16, beta=8.0), 1 / 8.0)
    with pytest.raises(NumericsError, match="average sign"):
        state.measure(lambda s: s[:, 0], n=500)

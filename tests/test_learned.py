"""The learned method against exact curves, its stored networks and its limits."""

import numpy as np
import pytest

from thermodbm import LearnedOptions, ThermalCurve, thermal_curve
from thermodbm.drawing import draw_network
from thermodbm.errors import InputError
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.cluster import composed
from thermodbm.evolve.dense_layers import coupling_classes
from thermodbm.evolve.learned import facts_of
from thermodbm.evolve.networks import Network, laid_out, train_networks
from thermodbm.exact import exact_curve
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.network.dbm import state_vector
from thermodbm.network.ring import from_classes, ring_params
from thermodbm.run import networks
from thermodbm.sampling.column import conditional_means
from thermodbm.sampling.ring import close_ring, log_weight

T = [0.4, 1.0, 2.5]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "thermodbm" / "learned"


MAGNETS = {
    "ring": transverse_field_ising(make_lattice("chain", 8), 1.0, 1.0),
    "frustrated ring": transverse_field_ising(make_lattice("chain", 5), -1.0, -0.8),
    "Heisenberg ring": heisenberg(make_lattice("chain", 6)),
    "easy plane, open": xxz(make_lattice("square", (2, 3), periodic=False), 1.0, 0.5),
    "bonds of both signs": transverse_field_ising(graph(4, [(0, 1), (1, 2), (2, 3), (0, 2)]), [1.0, -0.7, 0.5, 0.8], [0.6, 1.1, 0.9, 0.5]),
}


@pytest.mark.parametrize("name", MAGNETS)
def test_every_observable_agrees_with_diagonalisation(name):
    """Within four error bars; what is left of the thermal state is in them, and is small beside the deterministic method's steps."""
    hamiltonian = MAGNETS[name]
    curve = thermal_curve(hamiltonian, T=T, method="learned", sampling={"n_samples": 20_000}, progress=False)
    exact = exact_curve(hamiltonian, 1 / np.array(T))
    assert (curve.diagnostics["trusted"] == 1).all()
    assert (curve.diagnostics["n_layers"] <= 8).all() and (curve.diagnostics["infidelity"] < 1.1e-6).all()
    compared = 0
    for observable, estimate in curve.observables.items():
        key = "specific_heat" if observable == "specific_heat_direct" else observable
        if key in exact:
            assert (np.abs(estimate.mean - exact[key]) <= 4 * estimate.error + 1e-9).all(), observable
            compared += 1
    assert compared >= 8 and ("susceptibility" in curve.observables) == hamiltonian.conserves_sz
    assert curve.energy.error.max() < 2e-3


def test_averages_are_thermal_where_the_networks_meet_of_which_one_is_composed():
    """Over all configurations of the ring, of bonds of both signs and random couplings; of unequal networks only at the ends."""
    hamiltonian = transverse_field_ising(graph(3, [(0, 1), (1, 2)]), [1.0, -0.6], [0.7, -0.5, 0.9])
    classes, rng = coupling_classes(hamiltonian), np.random.default_rng(3)
    (K, other), g = rng.uniform(0.1, 0.6, (2, 2)) * [1, -1], rng.uniform(0.2, 0.5, (1, 3))
    unit = Network(0.5, np.array([K, K]), g, np.array([K, K]), g, 1e-3)
    network = composed(unit, 2)._replace(times=2)
    uneven = network._replace(K=np.array([K, other, K]))
    spins = 1 - 2 * ((np.arange(2**12) >> np.arange(12)[:, None]) & 1).reshape(4, 3, -1).astype(np.int8)

    def energies(network):
        ring = close_ring(laid_out(hamiltonian, network.K, network.g, classes))
        weights = np.exp(np.asarray(log_weight(hamiltonian, ring, spins), float))
        here = [np.asarray(conditional_means(hamiltonian, ring, spins, (layer,))["energy"], float) for layer in (1, 2, 3)]
        return np.array(here) @ weights / weights.sum()

    assert facts_of(hamiltonian, network).thermal == (1, 2, 3)
    assert np.ptp(energies(network)) < 1e-6
    assert facts_of(hamiltonian, uneven).thermal == (1, 3)
    assert abs(energies(uneven)[0] - energies(uneven)[2]) < 1e-6 < 1e-3 < abs(energies(uneven)[0] - energies(uneven)[1])


def test_the_stored_network_holds_the_thermal_state(tmp_path):
    """Unit by unit: its state vector is exp(-beta H/2) up to the infidelity that the file says."""
    hamiltonian = transverse_field_ising(make_lattice("chain", 3), 1.0, 1.2)
    thermal_curve(
        hamiltonian, T=[0.8], method=LearnedOptions(layers=2), sampling={"n_samples": 256}, progress=False, output=tmp_path / "c.h5"
    )
    curve = ThermalCurve.load(tmp_path / "c.h5")
    kept = curve.network[0]
    network = from_classes(kept["K"], kept["g"], kept["bond_class"], kept["site_class"])
    params = ring_params(network, hamiltonian.bonds)
    assert len(draw_network(params).collections) > 0
    psi = np.real(state_vector(params)[:, ::-1])
    energies, states = np.linalg.eigh(dense(hamiltonian))
    exact = (states * np.exp(-energies / 0.8 / 2)) @ states.T
    overlap = np.sum(psi * exact) ** 2 / np.sum(psi**2) / np.sum(exact**2)
    assert -np.log(overlap) / hamiltonian.n_sites == pytest.approx(curve.diagnostics["infidelity"][0], rel=1e-5)


def dense(hamiltonian):
    from thermodbm.exact.diagonalisation import dense_hamiltonian

    return np.asarray(dense_hamiltonian(hamiltonian))


def test_trained_networks_are_kept_and_found_again(cache, monkeypatch):
    hamiltonian = transverse_field_ising(make_lattice("chain", 4))
    settings = {"T": [1.0, 2.0], "method": "learned", "sampling": {"n_samples": 512}, "progress": False}
    first = thermal_curve(hamiltonian, **settings)
    (file,) = cache.glob("*.npz")

    def train(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr("thermodbm.evolve.learned.train_networks", train)
    again = thermal_curve(hamiltonian, **settings)
    np.testing.assert_array_equal(first.energy.mean, again.energy.mean)
    with pytest.raises(AssertionError, match="trained again"):  # other temperatures are other networks
        thermal_curve(hamiltonian, **{**settings, "T": [1.0]})
    with pytest.raises(AssertionError, match="trained again"):
        thermal_curve(hamiltonian, **{**settings, "method": {"kind": "learned", "cache": False}})
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"(?s)npz.*cannot be read.*Delete the file"):
        thermal_curve(hamiltonian, **settings)


def test_networks_of_another_magnet_are_refused(cache):
    networks.kept({"magnet": 1}, lambda: {"K": np.ones(2)})
    (file,) = cache.glob("*.npz")
    assert networks.kept({"magnet": 1}, lambda: None)["K"].tolist() == [1, 1]
    networks.kept({"magnet": 2}, lambda: {"K": np.zeros(2)})
    (other,) = set(cache.glob("*.npz")) - {file}
    file.replace(other)
    with pytest.raises(InputError, match="another magnet"):
        networks.kept({"magnet": 2}, lambda: None)


@pytest.mark.parametrize(
    ("hamiltonian", "match"),
    [
        (j1j2(make_lattice("chain", 4), J2=0.5), "without frustration"),
        (xxz(make_lattice("chain", 4), delta=2.0), "easy axis"),
        (heisenberg(make_lattice("chain", 18, False)), "chain of 18 sites"),
        (transverse_field_ising(make_lattice("chain", 4), h=0.1), "field along z"),
        (transverse_field_ising(make_lattice("cubic", (4, 4, 4))), "cubic of 64 sites"),
    ],
)
def test_what_cannot_be_trained_is_told(hamiltonian, match):
    with pytest.raises(InputError, match=match):
        thermal_curve(hamiltonian, T=[1.0], method="learned", progress=False)


def test_too_few_layers_are_told():
    hamiltonian = transverse_field_ising(make_lattice("chain", 8))
    curve = thermal_curve(hamiltonian, T=[0.2], method=LearnedOptions(layers=1), sampling={"n_samples": 20_000}, progress=False)
    assert Doubt(int(curve.diagnostics["doubts"][0])) & Doubt.STATE
    exact = exact_curve(hamiltonian, np.array([5.0]))
    for name in ("energy", "correlation_zz", "magnetization_x"):  # and their errors own up to it
        estimate = curve.observables[name]
        assert (np.abs(estimate.mean - exact[name]) <= 4 * estimate.error + 1e-9).all(), name


def test_fewest_layers_grow_as_the_temperature_falls():
    hamiltonian = transverse_field_ising(make_lattice("chain", 16))
    layers = [train_networks(hamiltonian, [beta], "auto", 1e-3)["g"].shape[1] for beta in (0.25, 1.0, 4.0)]
    assert layers == sorted(layers) and layers[0] < layers[-1] <= 8

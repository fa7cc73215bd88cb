"""How trained networks move with the couplings, against exact derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermodbm as tb
from thermodbm.errors import InputError
from thermodbm.evolve.cluster import composed, factor
from thermodbm.evolve.dense_layers import dense_averages, dense_network, network_rows
from thermodbm.evolve.learned import moved_error
from thermodbm.evolve.networks import classes_of, train_networks, unpacked
from thermodbm.evolve.tangents import network_tangents, tangents_at
from thermodbm.evolve.training import Trained
from thermodbm.exact.layered_ring import momenta, network_modes, ring_averages
from thermodbm.exact.response import response_solver
from thermodbm.models import graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.models.parameters import parameters, stacked

BETAS, LAYERS = [0.7, 3.0], 4
BRANCHED = graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)])


@pytest.fixture(scope="module")
def ring():
    """A tfim ring of 12 sites, antiferromagnetic, and its networks with their tangents along J, gamma and beta."""
    hamiltonian = transverse_field_ising(make_lattice("chain", 12), -1.0, 0.8)
    names = ["J", "gamma", "beta"]
    directions = stacked(parameters(hamiltonian, names))
    networks = train_networks(hamiltonian, BETAS, LAYERS, 1e-3)
    return hamiltonian, names, directions, networks, network_tangents(hamiltonian, networks, directions, classes_of(hamiltonian))


def test_averages_along_tangents_move_as_exact_ones(ring):
    """e, m_x, and c = -beta^2 de/dbeta along the networks, by free fermions."""
    hamiltonian, names, directions, networks, arrays = ring
    exact = response_solver(hamiltonian, parameters(hamiltonian, names))(np.array(BETAS))
    ks = momenta(12)
    for k, beta in enumerate(BETAS):
        network, tangents = unpacked(networks, beta), tangents_at(arrays, networks, beta)

        def energetic(K, g, J, gamma, beta=beta):
            found = ring_averages(ks, network_modes(ks, K, g), J, gamma, beta)
            return jnp.stack([found.energy, found.magnetization_x])

        def averages(K, g, K_beta, g_beta, J, gamma, beta=beta, energetic=energetic):
            values, slopes = jax.jvp(lambda K, g: energetic(K, g, J, gamma), (K, g), (K_beta, g_beta))
            return jnp.append(values, -(beta**2) * slopes[0])

        point = *(x[:, 0] for x in network[1:5]), -1.0, 0.8
        for j, name in enumerate(names):
            move = *(x[j][:, 0] for x in tangents[:4]), float(name == "J"), float(name == "gamma")
            values, moved = (np.array(x) for x in jax.jvp(averages, point, move))
            moved[2] += (name == "beta") * 2 * values[2] / beta
            for value, observable in zip(moved, ("energy", "magnetization_x", "specific_heat"), strict=True):
                off = np.abs(value - exact[observable][name][k])
                assert off < moved_error(hamiltonian, observable, network, tangents, directions)[j], (observable, name, beta)
                assert off < 2e-3 * max(1.0, np.abs(exact[observable][name][k])), (observable, name, beta)


@pytest.mark.parametrize(
    ("magnet", "names"),
    [
        (xxz(make_lattice("chain", 6), J=1.0, delta=-0.4), ["J", "delta"]),
        (heisenberg(make_lattice("square", (4, 2))), ["J"]),
        (transverse_field_ising(BRANCHED, [1, -0.7, 0.5, 0.8, -1.1], [0.5, 0.8, 0.6, 0.9, 0.7]), ["gamma", "J.each"]),
    ],
    ids=["easy plane", "square", "branched"],
)  # fmt: skip
def test_averages_of_networks_written_out_move_as_exact_ones(magnet, names):
    """Energy and order of the network at a coupling a little further on, by its tangents: where many networks are as good, as on the
    branched magnet, those retrained beside it would be far away."""
    beta, step, classes = 2.0, 1e-3, classes_of(magnet)
    found = parameters(magnet, names)
    networks = train_networks(magnet, [beta], 4, 1e-3)
    arrays = network_tangents(magnet, networks, stacked(found), classes)
    network, tangents = unpacked(networks, beta), tangents_at(arrays, networks, beta)
    dense = dense_network(magnet, 4, classes)

    def averages(j, by):
        rows = network_rows(dense, network.K + by * tangents.K[j], network.g + by * tangents.g[j])
        found = dense_averages(dense, rows, beta)
        return np.array([found["energy"], found["order"]])

    exact = response_solver(magnet, found)(np.array([beta]))
    order = "staggered_structure_factor" if magnet.conserves_sz else "order_parameter_squared"
    energy = np.concatenate([np.ravel(exact["energy"][p.name][0] - exact["free_energy"][p.name][0]) for p in found])  # H as it was
    expected = [energy, np.concatenate([np.ravel(exact[order][p.name][0]) for p in found])]
    for j, value in enumerate(np.transpose(expected)):
        np.testing.assert_allclose((averages(j, step) - averages(j, -step)) / (2 * step), value, atol=4e-3)


@pytest.mark.parametrize("n_g", [3, 4], ids=["Ising", "exchange"])
def test_a_composed_network_is_taken_apart(n_g):
    rng = np.random.default_rng(1)
    K, K_beta = rng.normal(size=(2, 4, 2))
    g, g_beta = rng.normal(size=(2, n_g, 2))
    for x in (K, K_beta) if n_g == 3 else (K, K_beta, g, g_beta):
        x[-1] = x[0]  # palindromic
    unit = Trained(0.5, K, g, K_beta, g_beta, 1e-6, True, 3)
    for back, value in zip(factor(composed(unit, 4), 4), unit, strict=True):
        np.testing.assert_allclose(back, value)


def test_couplings_trained_on_a_cluster_move_on_it():
    """Of a ring of 24 exchange bonds, trained on a smaller one and composed at low temperature: dK/dbeta by the raised couplings."""
    magnet = heisenberg(make_lattice("chain", 24), J=1.0)
    networks = train_networks(magnet, [1.0], 2, 1e-2)
    directions = stacked(parameters(magnet, ["J"]))
    tangents = tangents_at(network_tangents(magnet, networks, directions, classes_of(magnet)), networks, 1.0)
    network = unpacked(networks, 1.0)
    np.testing.assert_allclose(tangents.g[0], network.g_beta, atol=2e-4)  # beta J alone matters, and both are 1
    assert np.abs(network.g_beta).max() > 0.05


MAGNETS = {
    "Ising": (transverse_field_ising(make_lattice("chain", 6), 1.0, 0.8), ["J", "gamma", "beta"]),
    "loops": (xxz(make_lattice("chain", 6), delta=0.5), ["J", "delta", "h"]),
}


@pytest.mark.parametrize("name", MAGNETS)
def test_sampled_derivatives_agree_with_exact_ones(name):
    """Within 4.5 error bars, each, which are no larger than what they belong to."""
    magnet, names = MAGNETS[name]
    T = [0.5, 1.5]
    exact = tb.response(magnet, T=T, method="exact", parameters=names, progress=False)
    method = {"kind": "learned", "layers": 3, "cache": False}
    found = tb.response(
        magnet, T=T, method=method, parameters=names, sampling={"n_samples": 8000, "n_chains": 32, "seed": 2}, progress=False
    )
    assert {"free_energy", "energy", "entropy", "specific_heat"} <= set(found)
    squares = []
    for observable, of in found.items():
        for p in names:
            expected = exact[observable][p].mean
            pulls = np.abs(of[p].mean - expected) / np.maximum(of[p].error, 1e-9)
            np.testing.assert_array_less(pulls, 4.5, err_msg=f"{observable}/{p}")
            squares.append(np.mean(pulls**2))
            assert np.all(of[p].error < 0.6 * np.maximum(np.abs(expected).max(), 0.5)), (observable, p)
    assert np.mean(squares) < 1 + 5 / np.sqrt(len(squares))


def test_one_spin():
    """Which a network holds exactly, without bonds."""
    spin, settings = transverse_field_ising(graph(1, []), 1.0, 0.7), {"T": [0.3], "parameters": ["gamma"], "progress": False}
    exact = tb.response(spin, method="exact", **settings)
    found = tb.response(spin, method={"kind": "learned", "layers": 2, "cache": False}, sampling={"n_samples": 1000}, **settings)
    for name in ("energy", "specific_heat", "magnetization_x"):
        assert found[name]["gamma"].mean == pytest.approx(exact[name]["gamma"].mean, abs=5e-4)


@pytest.mark.parametrize(
    ("magnet", "asked", "options", "message"),
    [
        (heisenberg(make_lattice("chain", 6)), ["J.each"], {}, "of all bonds or sites alike"),
        (transverse_field_ising(make_lattice("chain", 6)), ["h"], {}, "no field along z"),
        (xxz(make_lattice("chain", 6), delta=1.0), ["delta"], {}, "1 for derivatives in delta"),
        (heisenberg(make_lattice("chain", 24)), ["J"], {"polish": 1000}, "method.polish = 0"),
    ],
)
def test_what_networks_cannot_follow_is_refused(magnet, asked, options, message):
    with pytest.raises(InputError, match=message):
        tb.response(magnet, T=1.0, parameters=asked, method={"kind": "learned", **options}, progress=False)


def test_second_derivatives_are_refused():
    """The norm of a trained network is no partition function."""
    with pytest.raises(InputError, match="no second derivatives"):
        tb.thermal_curve(heisenberg(make_lattice("chain", 6)), T=1.0, response=["J"], second=True, method="learned", progress=False)

"""Layers of exchange gates that are all different: unit by unit, as a closed ring, and sampled, against dense products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exchange_ring import bond_matrix
from scipy.linalg import expm

from thermodbm.estimate.exchange import layered_ensemble
from thermodbm.models import graph, heisenberg, make_lattice, xxz
from thermodbm.network.dbm import state_vector
from thermodbm.network.exchange import GateLayers, gate_groups, gate_params, trotter_gates
from thermodbm.sampling.exchange_facts import exchange_facts

MAGNETS = {
    "ring": heisenberg(make_lattice("chain", 4)),
    "easy plane": xxz(make_lattice("chain", 4), [1.0, 0.7, 1.2, 0.5], 0.4),
    "ferromagnetic bonds": xxz(graph(4, [(0, 1), (1, 2), (2, 3)]), [1.0, -0.8, 0.6], [1.0, 0.5, -0.3]),
    "odd number of sites": heisenberg(graph(3, [(0, 1), (1, 2)]), [1.0, 0.6]),
}


def random_gates(hamiltonian, n_steps, seed, palindromic=True):
    """Exponents of random size and the sign of the couplings, |zz| <= |xy|."""
    rng = np.random.default_rng(seed)
    groups = gate_groups(hamiltonian.bonds, n_steps)
    present = np.array([np.isin(np.arange(len(hamiltonian.bonds)), members) for members, _ in groups])
    size = 0.1 * rng.uniform(0.2, 1.5, present.shape) * present
    share = np.abs(np.asarray(hamiltonian.zz / hamiltonian.xy)) * rng.uniform(0.5, 1.0, present.shape)
    zz, xy = size * share * np.sign(hamiltonian.zz), size * np.sign(hamiltonian.xy)
    if palindromic:
        zz, xy = zz + zz[::-1], xy + xy[::-1]
    return GateLayers(jnp.asarray(zz), jnp.asarray(xy), jnp.zeros((len(groups) - 1, hamiltonian.n_sites)))


def dense(hamiltonian, network):
    """The product of all gates, from the ancillas' side to the spins'."""
    unit = [bond_matrix(heisenberg(graph(hamiltonian.n_sites, [tuple(bond)]), 4.0), 0) for bond in hamiltonian.bonds.tolist()]
    diagonal = [np.diag(np.diag(m)) for m in unit]
    product = np.eye(2**hamiltonian.n_sites)
    for zz, xy in zip(*map(np.asarray, network[:2]), strict=True):
        exponent = sum(a * d + b * (m - d) for a, b, m, d in zip(zz, xy, unit, diagonal, strict=True))
        product = expm(-exponent) @ product
    return product


@pytest.mark.parametrize("name", MAGNETS)
def test_layers_are_the_product_of_their_gates(name):
    hamiltonian = MAGNETS[name]
    network = random_gates(hamiltonian, 1, 0, palindromic=False)
    product = dense(hamiltonian, network)
    psi = state_vector(gate_params(network, hamiltonian))[:, ::-1]
    assert np.allclose(psi / psi[0, 0], product / product[0, 0], rtol=1e-9, atol=1e-12)


def test_a_trotter_product_is_one_of_them():
    hamiltonian = MAGNETS["easy plane"]
    network, energies = trotter_gates(hamiltonian, 1.2, 40), sum(bond_matrix(hamiltonian, b) for b in range(len(hamiltonian.bonds)))
    assert np.allclose(dense(hamiltonian, network), expm(-0.6 * energies), atol=2e-4)


@pytest.mark.parametrize("name", MAGNETS)
def test_everything_at_the_ends_agrees_with_dense_products(name):
    """256 chains, 4.5 standard errors; the slope of the energy along a random change of all layers against a finite difference."""
    hamiltonian = MAGNETS[name]
    n, n_chains, n_sweeps = hamiltonian.n_sites, 256, 200
    network, change = random_gates(hamiltonian, 2, 1), random_gates(hamiltonian, 2, 2)
    ensemble = layered_ensemble(exchange_facts(hamiltonian), "loop", 2)
    weights = ensemble.weights(hamiltonian, network, change)

    @jax.jit
    def run(key, spins):
        def sweep(spins, key):
            spins, info = ensemble.kernel.step(key, weights, spins)
            values = ensemble.measure(weights, spins, info) | ensemble.measure_rarely(weights, spins, info)
            return spins, values | {"product": values["energy"] * values["score"]}

        return jax.lax.scan(sweep, spins, jax.random.split(key, n_sweeps))

    spins, _ = run(jax.random.key(1), ensemble.kernel.init(jax.random.key(0), n_chains))
    _, values = run(jax.random.key(2), spins)
    chains = {name: np.asarray(v).mean(0) for name, v in values.items()}

    def check(value, exact):
        assert (np.abs(value.mean(0) - exact) < 4.5 * value.std(0) / np.sqrt(n_chains) + 1e-9).all(), (value.mean(0), exact)

    h = sum(bond_matrix(hamiltonian, b) for b in range(len(hamiltonian.bonds)))
    bits = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1)

    def averages(network):
        product = dense(hamiltonian, network)
        rho = product @ product.T / np.trace(product @ product.T)
        return np.trace(rho @ h) / n, np.diag(rho)

    energy, p = averages(network)
    check(chains["energy"], energy)
    check(chains["magnetization_z_squared"], p @ (bits.sum(1) / 2) ** 2 / n)
    if "staggered_structure_factor" in chains:
        signs = np.array([(-1) ** k for k in range(n)])
        check(chains["staggered_structure_factor"], p @ (bits @ signs / 2) ** 2 / n)
    along = [averages(GateLayers(*(x + e * y for x, y in zip(network, change, strict=True))))[0] for e in (1e-4, -1e-4)]
    centred = chains["product"] - energy * chains["score"] - chains["score"].mean() * (chains["energy"] - energy)
    check(-n * centred, (along[0] - along[1]) / 2e-4)

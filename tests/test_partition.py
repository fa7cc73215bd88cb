"""The differentiable partition function against exact curves and finite differences, and sampled derivatives against it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermodbm.errors import InputError
from thermodbm.exact import exact_curve
from thermodbm.exact.partition import free_energy, log_partition
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.sampling.mixed import mixed_kernel
from thermodbm.sampling.ring import ising_facts, log_weight, ring_weights

RANDOM = np.random.default_rng(5)
MAGNETS = {
    "Ising": transverse_field_ising(graph(4, [(0, 1), (1, 2), (2, 3), (0, 2)]), RANDOM.normal(size=4), RANDOM.normal(size=4), 0.3),
    "degenerate levels": heisenberg(make_lattice("chain", 4)),
    "XXZ in a field": xxz(make_lattice("chain", 5), RANDOM.normal(size=5), 0.6, 0.4),
    "frustrated": j1j2(make_lattice("chain", 6), J2=0.5),
}


@pytest.mark.parametrize("name", MAGNETS)
def test_free_energy_and_its_gradient_in_every_coupling(name):
    hamiltonian, beta = MAGNETS[name], 1.3
    exact = exact_curve(hamiltonian, np.array([beta]))
    assert float(free_energy(hamiltonian, beta)) == pytest.approx(exact["free_energy"][0], rel=1e-12)
    of_couplings, of_beta = jax.grad(log_partition, argnums=(0, 1))(hamiltonian, beta)
    assert float(of_beta) == pytest.approx(-hamiltonian.n_sites * exact["energy"][0], rel=1e-10)
    for field in ("zz", "xy", "x_field", "z_field"):
        if (field == "x_field") == hamiltonian.conserves_sz or ((field == "xy") != hamiltonian.conserves_sz and field == "xy"):
            continue  # no such term
        for k in range(len(getattr(hamiltonian, field))):
            ends = [replace(hamiltonian, **{field: jnp.asarray(getattr(hamiltonian, field)).at[k].add(e)}) for e in (1e-5, -1e-5)]
            difference = (log_partition(ends[0], beta) - log_partition(ends[1], beta)) / 2e-5
            assert float(getattr(of_couplings, field)[k]) == pytest.approx(float(difference), abs=1e-8), (field, k)


def test_sampled_derivatives_of_the_weight_average_to_the_exact_ones():
    """d ln Z / d (every coupling) = <d ln w / d (coupling)>, at a Trotter step whose bias is below the errors: 4.5 of these."""
    hamiltonian = transverse_field_ising(graph(3, [(0, 1), (1, 2), (0, 2)]), [1.0, -0.7, 0.5], [0.8, 1.1, 0.6], 0.2)
    beta, n_layers, n_chains = 1.0, 32, 512
    weights, kernel = ring_weights(hamiltonian, beta, n_layers), mixed_kernel(ising_facts(hamiltonian, beta / n_layers), n_layers)

    def sweep(spins, key):
        spins, _ = kernel.step(key, weights, spins)
        ln_w = lambda h: log_weight(h, ring_weights(h, beta, n_layers), spins)  # noqa: E731
        return spins, jax.jacrev(ln_w)(hamiltonian)

    run = jax.jit(lambda key, spins: jax.lax.scan(sweep, spins, jax.random.split(key, 60)))
    spins, _ = run(jax.random.key(1), kernel.init(jax.random.key(0), n_chains))
    _, found = run(jax.random.key(2), spins)
    exact = jax.grad(log_partition)(hamiltonian, beta)
    for field in ("zz", "x_field", "z_field"):
        values = np.asarray(getattr(found, field)).mean(0)  # (n_chains, k)
        off = values.mean(0) - np.asarray(getattr(exact, field))
        assert (np.abs(off) < 4.5 * values.std(0) / np.sqrt(n_chains) + 1e-3).all(), (field, off)


def test_too_many_sites_are_refused():
    with pytest.raises(InputError, match="at most 11 sites"):
        log_partition(heisenberg(make_lattice("chain", 12)), 1.0)

"""What is measured of the transverse-field Ising magnet, on the ring of its deterministic network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.user import Functions, on_layers
from thermodbm.models import SpinHamiltonian
from thermodbm.network.ring import RingNetwork
from thermodbm.sampling.cluster import ClusterInfo, cluster_kernel
from thermodbm.sampling.column import column_kernel, conditional_means
from thermodbm.sampling.gibbs import gibbs_kernel
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.mixed import mixed_kernel
from thermodbm.sampling.ring import IsingFacts, RingWeights, Spins, close_ring, log_weight, resize, ring_weights


class Magnet(NamedTuple):
    """A Hamiltonian and the ring that holds its thermal state."""

    hamiltonian: SpinHamiltonian
    ring: RingWeights
    drift: RingWeights  # d ring / d beta


MAX_LAYERS = 16
"""Layers on which pair functions are measured: neighbouring ones hold nearly the same."""


def trotter_magnet(hamiltonian: SpinHamiltonian, beta: jax.Array, n_layers: int) -> Magnet:
    """With the ring of a Trotter product."""
    beta = jnp.asarray(beta, float)
    return Magnet(hamiltonian, *jax.jvp(lambda beta: ring_weights(hamiltonian, beta, n_layers), (beta,), (jnp.ones_like(beta),)))


def layered_magnet(hamiltonian: SpinHamiltonian, network: RingNetwork, drift: RingNetwork) -> Magnet:
    """With the ring of any network of layers, and its derivative d network / d beta."""
    return Magnet(hamiltonian, *jax.jvp(close_ring, (network,), (drift,)))


def measure_sweep(thermal: tuple[int, ...] | None = None) -> Measure:
    """Arrays (n_chains,), per site: energy and magnetisations by `conditional_means`, the score, and the squares of m_z.

    The specific heat is c = -beta^2 d<e>/dbeta = beta^2 (N <e score> - N <e><score> - <slope>), score = -d ln w/d beta / N and slope the
    explicit derivative of the estimator, at a fixed number of layers. With the energy averaged over worldlines its noise is several
    times below that of <H^2> from the two copies.

    Args:
        thermal: layers that hold thermal averages; all, if they are alike.
    """

    def measure(magnet: Magnet, spins: Spins, info: ClusterInfo | None) -> dict[str, jax.Array]:
        hamiltonian, ring, drift = magnet
        n = hamiltonian.n_sites
        values = conditional_means(hamiltonian, ring, spins, thermal)
        values["score"] = -_along(lambda ring: log_weight(hamiltonian, ring, spins), ring, drift) / n
        if info is None:
            magnetisation = (spins if thermal is None else spins[np.array(thermal)]).sum(1, dtype=jnp.int32) / n
            info = ClusterInfo((magnetisation**2).mean(0), magnetisation.mean(0) ** 2 if thermal is None else None)
        return values | {name: value for name, value in info._asdict().items() if value is not None}

    return measure


def _along(of_ring: Callable[[RingWeights], jax.Array], ring: RingWeights, drift: RingWeights) -> jax.Array:
    return jax.jvp(of_ring, (ring,), (drift,))[1]


def measure_rarely(thermal: tuple[int, ...] | None = None, functions: Functions = ()) -> Measure:
    """The slope (n_chains, 1), whose noise is small but which costs as much as the energy itself; correlation_zz (n_chains, n_sites)
    and, on a fully periodic lattice, structure_factor_zz (n_chains, n_cells), both at equal times;
    and `functions` of a user."""

    def measure(magnet: Magnet, spins: Spins, info: ClusterInfo | None) -> dict[str, jax.Array]:
        (hamiltonian, ring, drift), lattice = magnet, magnet.hamiltonian.lattice
        energy = lambda ring: conditional_means(hamiltonian, ring, spins, thermal)["energy"]  # noqa: E731
        every = np.unique(np.linspace(0, len(spins), MAX_LAYERS, endpoint=False).astype(int))
        layers = jnp.moveaxis(spins[every if thermal is None else np.array(thermal)], -1, 0)  # (n_chains, layer, site)
        field = layers.astype(jnp.float32)
        values = {"slope": _along(energy, ring, drift)[:, None], "correlation_zz": correlations(lattice, field).mean(1)}
        values |= on_layers(functions, layers)
        if lattice.wavevectors is not None:
            values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
        return values

    return measure


def ising_ensemble(facts: IsingFacts, sampler: str, n_slices: int, functions: Functions = ()) -> Ensemble:
    """The ring of 2 n_slices layers with one of the samplers "mixed", "cluster", "column" or "gibbs".

    Raises:
        InputError: for a sampler that does not fit.
    """
    n_layers = 2 * n_slices
    kernels = {"mixed": mixed_kernel, "cluster": cluster_kernel, "column": column_kernel, "gibbs": gibbs_kernel}
    if sampler not in kernels:
        raise InputError("method.sampler", expected='"mixed", "cluster", "column" or "gibbs" for the Ising model', found=sampler)
    kernel = kernels[sampler](facts, n_layers)
    return Ensemble(
        kernel=SamplerKernel(kernel.init, lambda key, magnet, spins: kernel.step(key, magnet.ring, spins)),
        weights=layered_magnet if facts.thermal else lambda hamiltonian, beta: trotter_magnet(hamiltonian, beta, n_layers),
        measure=measure_sweep(facts.thermal),
        measure_rarely=measure_rarely(facts.thermal, functions),
        resize=lambda spins: resize(spins, n_layers),
        light=True,
    )

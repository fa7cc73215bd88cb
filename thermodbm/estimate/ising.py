"""What is measured of the transverse-field Ising magnet, on the ring of its deterministic network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.response import Probe, along, late_series, respond_with, second_series, sweep_series
from thermodbm.estimate.user import Functions, on_layers
from thermodbm.models import SpinHamiltonian
from thermodbm.network.ring import RingNetwork
from thermodbm.sampling.cluster import ClusterInfo, cluster_kernel
from thermodbm.sampling.column import column_kernel, conditional_means, conditional_terms
from thermodbm.sampling.gibbs import gibbs_kernel
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.mixed import mixed_kernel
from thermodbm.sampling.ring import VISIBLE, IsingFacts, RingWeights, Spins, close_ring, log_weight, resize, ring_weights


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
        values = conditional_means(magnet.hamiltonian, magnet.ring, spins, thermal)
        return values | _of_configurations(magnet, spins, info, thermal)

    return measure


def _of_configurations(magnet: Magnet, spins: Spins, info: ClusterInfo | None, thermal: tuple[int, ...] | None = None) -> dict:
    """The score, and the squares of m_z."""
    n = magnet.hamiltonian.n_sites
    if info is None:
        magnetisation = (spins if thermal is None else spins[np.array(thermal)]).sum(1, dtype=jnp.int32) / n
        others = (magnetisation.mean(0) ** 2, (magnetisation**4).mean(0)) if thermal is None else (None, None)
        info = ClusterInfo((magnetisation**2).mean(0), *others)
    return {"score": _score(magnet, spins)} | {name: value for name, value in info._asdict().items() if value is not None}


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


def respond(magnet_at: Callable[..., Magnet], thermal: tuple[int, ...] | None = None) -> Callable[..., tuple[dict, dict]]:
    """As `measure_sweep`, and the series of `estimate.response` beside it: the energy is linear in the couplings that stand in H, which
    gives dH/dlambda; how its weights on the ring move is left to `respond_late`.

    Args:
        magnet_at: makes the magnet of a point.
    """

    def measure(probe: Probe, spins: Spins, info: ClusterInfo | None) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        (hamiltonian, ring, _), n = probe.magnet, probe.hamiltonian.n_sites
        bonds, x, z = (term.astype(float) for term in conditional_terms(hamiltonian, ring, spins, thermal))

        def of(zz: jax.Array, x_field: jax.Array, z_field: jax.Array) -> jax.Array:
            return (zz @ bonds - x_field @ x - z_field @ z) / n

        values = {"energy": of(hamiltonian.zz, hamiltonian.x_field, hamiltonian.z_field)}
        values |= {"magnetization_x": x.mean(0), "magnetization_z": z.mean(0), **_of_configurations(probe.magnet, spins, info, thermal)}
        free = of(probe.directions.zz, probe.directions.x_field, probe.directions.z_field).T
        plain = _of_configurations(probe.magnet, spins, None, thermal)  # averages over the signs of clusters go with their weights
        averages = {name: v.astype(float) for name, v in (values | plain).items() if name not in ("score", "order_parameter_fourth")}
        D, score_moved, second = _of_weights(probe, spins, magnet_at)
        return values, {**second, **sweep_series(averages, values["score"], D, free, free, score_moved)}

    return measure


def _score(magnet: Magnet, spins: Spins) -> jax.Array:
    """-d ln w/d beta / N, (n_chains,)."""
    hamiltonian, ring, drift = magnet
    return -_along(lambda ring: log_weight(hamiltonian, ring, spins), ring, drift) / hamiltonian.n_sites


def _of_weights(probe: Probe, spins: Spins, magnet_at: Callable[..., Magnet]) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Derivatives of ln W and of the score, (n_chains, K), and `second_series`."""
    log_w = lambda *point: log_weight(point[0], magnet_at(*point).ring, spins)  # noqa: E731
    D = along(log_w, probe)
    return D, along(lambda *point: _score(magnet_at(*point), spins), probe), second_series(log_w, probe, D)


STEP = 1e-3
"""Of differences along a direction, in units of the largest coupling: in double precision their error is far below any noise."""


def respond_late(magnet_at: Callable[..., Magnet], thermal: tuple[int, ...] | None = None) -> Measure:
    """Explicit derivatives through the ring's weights, by central differences of the averages themselves: one program in a loop, which is
    as fast as automatic differentiation through the filters of every worldline, and compiles in a small part of its time. First and mixed
    derivatives all come from the four corners about the couplings and beta."""

    def measure(probe: Probe, spins: Spins, info: ClusterInfo | None) -> dict[str, jax.Array]:
        here, of, n_parameters = probe.hamiltonian, probe.directions, len(probe.directions.beta)
        scale = jnp.max(jnp.abs(jnp.concatenate([here.zz, here.x_field, here.z_field])))
        tangents, beta = probe.tangents(), probe.beta
        steps = STEP * jnp.where(of.beta > 0, beta, scale)

        def means(shift: tuple[jax.Array, jax.Array, jax.Array]) -> dict[str, jax.Array]:
            """Averages with the weights of couplings moved along direction k and beta moved; energy by the couplings as they are, and
            `moved_energy` by those moved."""
            k, by, by_beta = shift
            point = jax.tree.map(lambda x, way: x + by * steps[k] * way[k], probe.point, tangents)
            there, ring, drift = magnet_at(*point)
            ring = jax.tree.map(lambda x, way: x + by_beta * STEP * beta * way, ring, drift)
            bonds, x_mean, z_mean = conditional_terms(there, ring, spins, thermal, precision=jnp.float64)
            energy = lambda h: (h.zz @ bonds - h.x_field @ x_mean - h.z_field @ z_mean) / h.n_sites  # noqa: E731
            found = {"energy": energy(here), "moved_energy": energy(there)}
            return found | {"magnetization_x": x_mean.mean(0), "magnetization_z": z_mean.mean(0)}

        by, by_beta = np.tile([1.0, 1.0, -1.0, -1.0], n_parameters), np.tile([1.0, -1.0], 2 * n_parameters)
        corners = np.repeat(np.arange(n_parameters), 4), by, by_beta
        found = jax.lax.map(means, jax.tree.map(jnp.asarray, corners))
        grid = {name: x.reshape(n_parameters, 2, 2, -1) for name, x in found.items()}  # of both signs of both moves
        steps = steps[:, None]
        moved = {name: ((x[:, 0] - x[:, 1]).mean(1) / (2 * steps)).T for name, x in grid.items() if name != "moved_energy"}
        in_beta_moved = (grid["moved_energy"][:, :, 0] - grid["moved_energy"][:, :, 1]) / (2 * STEP * beta)
        slope_moved, slope = ((in_beta_moved[:, 0] - in_beta_moved[:, 1]) / (2 * steps)).T, in_beta_moved.mean((0, 1))
        score = _of_configurations(probe.magnet, spins, info, thermal)["score"]
        return late_series(moved, score, _of_weights(probe, spins, magnet_at)[0], slope, slope_moved)

    return measure


def ising_response(facts: IsingFacts, sampler: str, n_slices: int) -> Ensemble:
    """As `ising_ensemble`, with derivatives; see `respond_with` for what its weights are made of."""
    ensemble = ising_ensemble(facts, sampler, n_slices)
    of = ensemble.weights, facts.thermal
    return respond_with(ensemble, respond(*of), respond_late(*of))


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
        visible=lambda spins: spins[VISIBLE].T,
        layers=lambda spins: jnp.moveaxis(spins, -1, 0),
    )

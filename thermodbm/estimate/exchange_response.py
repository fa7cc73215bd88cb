"""Derivatives of what `exchange` measures, in the couplings of a magnet that conserves the magnetisation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.ensemble import Ensemble
from thermodbm.estimate.exchange import exchange_ensemble, kinds, layered_ensemble, measure_sweep
from thermodbm.estimate.response import GRAPHS, Probe, along, in_beta, late_series, respond_with, second_series, sweep_series
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.network.exchange import gate_elements
from thermodbm.sampling.exchange_facts import ExchangeFacts
from thermodbm.sampling.loop import LoopInfo, loop_params, spins_of_layer
from thermodbm.sampling.loop_labels import HORIZONTAL, VERTICAL, PlaquetteRing, counts_over_steps, over_steps, plaquette_ring
from thermodbm.sampling.loop_weights import LoopParams, graph_weights


def exchange_response(facts: ExchangeFacts, sampler: str, n_slices: int, by: str) -> Ensemble:
    """As `exchange_ensemble`, with derivatives; its weights are made of a Hamiltonian, beta and `Directions`.

    Args:
        by: GRAPHS, where all loops are flipped freely and no weight of a graph rises from zero along a direction; or WORLDLINES.
    """
    if facts.layered:
        return _layered_response(facts, sampler, n_slices)
    ensemble = exchange_ensemble(facts, sampler, n_slices)
    ring = plaquette_ring(facts.lattice.n_sites, np.array(facts.bond_pairs, int).reshape(-1, 2), 2 * n_slices)
    measure = measure_sweep(facts, ring)

    def respond(probe: Probe, spins: jax.Array, info: LoopInfo) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        values = measure(probe.magnet, spins, info)
        series = (_respond_by_graphs if by == GRAPHS else _respond_by_worldlines)(facts, ring, probe, spins, info, values)
        return values, series

    return respond_with(ensemble, respond, None)


def _layered_response(facts: ExchangeFacts, sampler: str, n_steps: int) -> Ensemble:
    """As `layered_ensemble`, by graphs: the energy at the ends is linear in the couplings, and moves with nothing else."""
    ensemble, n = layered_ensemble(facts, sampler, n_steps), facts.lattice.n_sites

    def respond(probe: Probe, spins: jax.Array, info: LoopInfo) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        values, graphs = ensemble.measure(probe.magnet, spins, info), info.graphs
        straight, crossed = ((graphs == kind).astype(float) for kind in (VERTICAL, HORIZONTAL))
        counts = straight, crossed, 1 - straight - crossed

        def log_weight(params: LoopParams) -> jax.Array:
            return _log_product(counts, graph_weights(gate_elements(params.zz, params.xy, 1.0)))

        def score(*point: Any) -> jax.Array:
            magnet = ensemble.weights(*point)[1]
            return -jax.jvp(log_weight, (magnet.ring,), (magnet.drift,))[1] / n

        def energy(hamiltonian: SpinHamiltonian, *_: Any) -> jax.Array:
            return ensemble.measure((hamiltonian, probe.magnet[1]), spins, info)["energy"]

        D = along(lambda *point: log_weight(ensemble.weights(*point)[1].ring), probe)
        moved, averages = along(energy, probe), {name: x.astype(float) for name, x in values.items() if name != "score"}
        zero = jnp.zeros(len(spins))
        series = sweep_series(averages, values["score"], D, moved, moved, along(score, probe))
        return values, {**series, **late_series({"energy": 0 * D}, zero, D, zero, 0 * D)}

    return respond_with(ensemble, respond, None)


def _log_product(counts: tuple[jax.Array, ...], weights: tuple[jax.Array, ...]) -> jax.Array:
    """ln |prod w^count| of all gates, (n_chains,); a weight that vanishes belongs to what never occurs."""
    logarithms = (jnp.where(w != 0, jnp.log(jnp.abs(jnp.where(w != 0, w, 1.0))), 0.0) for w in weights)
    return sum(jnp.tensordot(count, x, 2) for count, x in zip(counts, logarithms, strict=True))


def _respond_by_graphs(
    facts: ExchangeFacts, ring: PlaquetteRing, probe: Probe, spins: jax.Array, info: LoopInfo, values: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """The energy by loops is linear in the couplings, and moves with nothing else."""
    n, graphs = ring.n_sites, info.graphs
    vertical, horizontal = counts_over_steps(ring, graphs == VERTICAL, graphs == HORIZONTAL)
    counts = vertical, horizontal, ring.n_steps - vertical - horizontal
    same, parallel = info.labels[:, :, 0] == info.labels[:, :, 1], spins[:, :, 0] == spins[:, :, 1]
    joined, aligned = counts_over_steps(ring, same, same & parallel)

    def log_w(hamiltonian: SpinHamiltonian, beta: jax.Array) -> jax.Array:
        params = loop_params(hamiltonian, ring, beta)
        return _log_product(counts, graph_weights(gate_elements(params.zz, params.xy, 1.0)))

    def energy(hamiltonian: SpinHamiltonian, beta: jax.Array) -> jax.Array:
        of = loop_params(hamiltonian, ring, 1.0)
        return (jnp.tensordot(2 * aligned - joined, of.zz, 2) - 2 * jnp.tensordot(joined, jnp.abs(of.xy), 2)) / n

    names = {name for name in values if name not in ("worldline_energy", "score")}
    averages = {name: values[name].astype(float) for name in names}
    D, score_moved = along(log_w, probe), -along(in_beta(log_w), probe) / n
    moved = along(energy, probe)
    zero = jnp.zeros((len(spins), 1))
    return {
        **second_series(log_w, probe, D),
        **sweep_series(averages, values["score"], D, moved, moved, score_moved),
        **late_series({"energy": 0 * D}, zero[:, 0], D, zero[:, 0], 0 * D),
    }


def _respond_by_worldlines(
    facts: ExchangeFacts, ring: PlaquetteRing, probe: Probe, spins: jax.Array, info: LoopInfo, values: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """The energy is the score, dH/dlambda / N is -D/(beta N); moments are plain ones of layer 0."""
    n = ring.n_sites
    parallel, kept = kinds(ring, spins)
    along_both, straight = counts_over_steps(ring, parallel, ~parallel & kept)
    counts = along_both, straight, ring.n_steps - along_both - straight
    fields = over_steps(ring, spins.astype(jnp.int32)).astype(float)

    def log_w(hamiltonian: SpinHamiltonian, beta: jax.Array) -> jax.Array:
        params = loop_params(hamiltonian, ring, beta)
        return _log_product(counts, gate_elements(params.zz, params.xy, 1.0)) + jnp.tensordot(fields, params.field, 3)

    here, once, twice = probe.point, in_beta(log_w), in_beta(in_beta(log_w))
    layer = spins_of_layer(ring, spins, 0).astype(float) / 2
    energy, D, moved = -once(*here) / n, along(log_w, probe), -along(once, probe) / n
    averages = {"energy": energy, "magnetization_z": layer.sum(1) / n, "magnetization_z_squared": layer.sum(1) ** 2 / n}
    if (signs := two_coloring(n, facts.lattice.bonds())) is not None:
        averages["staggered_structure_factor"] = (layer @ signs) ** 2 / n
    zero = jnp.zeros((len(spins),))
    return {
        **second_series(log_w, probe, D),
        **sweep_series(averages, energy, D, moved, -D / (probe.beta * n), moved),
        **late_series({"energy": 0 * D}, zero, D, -twice(*here) / n, -along(twice, probe) / n),
    }

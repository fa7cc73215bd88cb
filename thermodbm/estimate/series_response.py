"""Derivatives of what is measured on strings, in the couplings of a magnet that conserves the magnetisation.

The weight of a string, exp(beta C) beta^n prod w, is known as a function of couplings and beta, and its logarithm is all that is moved.
"""

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.ensemble import Ensemble
from thermodbm.estimate.expansion import string_ensemble
from thermodbm.estimate.response import Probe, along, in_beta, late_series, respond_with, second_series, sweep_series
from thermodbm.estimate.vertices import vertex_ensemble
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.sampling.expansion import ExpansionInfo
from thermodbm.sampling.strings import StringFacts, weights_of
from thermodbm.sampling.vertices import VertexFacts, VertexInfo, log_weight

Values = dict[str, jax.Array]


def string_response(facts: StringFacts, n_slices: int) -> Ensemble:
    """As `string_ensemble`: no weight of a graph rises from zero along a direction."""
    ensemble, n, n_graphs = string_ensemble(facts, n_slices), facts.n_sites, len(facts.kinds)
    i, j = np.array(facts.bond_pairs, int).reshape(-1, 2).T

    def respond(probe: Probe, state: dict, info: ExpansionInfo) -> tuple[Values, Values]:
        n_chains = info.slots.shape[-1]
        values = ensemble.measure(probe.magnet, state, info)
        place = jnp.maximum(info.slots >> 1, 0) * n_chains + jnp.arange(n_chains, dtype=jnp.int32)
        counts = jnp.zeros(n_graphs * n_chains, jnp.int32).at[place].add(info.slots >= 0, mode="promise_in_bounds")
        counts = counts.reshape(n_graphs, n_chains).astype(float)
        same, parallel = info.loops[:, i] == info.loops[:, j], info.spins[:, i] == info.spins[:, j]
        joined, aligned = (x.astype(float).mean(0) for x in (same, same & parallel))  # (n_bonds, n_chains)

        def log_w(hamiltonian: SpinHamiltonian, beta: jax.Array) -> jax.Array:
            logarithms = jnp.log(weights_of(facts, hamiltonian))
            return logarithms @ counts + counts.sum(0) * jnp.log(beta) - beta * jnp.abs(hamiltonian.xy).sum()

        def energy(hamiltonian: SpinHamiltonian, beta: jax.Array) -> jax.Array:
            return (hamiltonian.zz @ (2 * aligned - joined) - 2 * jnp.abs(hamiltonian.xy) @ joined) / n

        averages = {name: x.astype(float) for name, x in values.items() if name not in ("worldline_energy", "score")}
        D, moved, zero = along(log_w, probe), along(energy, probe), jnp.zeros(n_chains)
        series = sweep_series(averages, values["score"], D, moved, moved, -along(in_beta(log_w), probe) / n)
        return values, {**second_series(log_w, probe, D), **series, **late_series({"energy": 0 * D}, zero, D, zero, 0 * D)}

    return respond_with(ensemble, respond, None)


def vertex_response(facts: VertexFacts, n_slices: int) -> Ensemble:
    """As `vertex_ensemble`: the energy is the score, dH/dlambda / N is -D/(beta N)."""
    ensemble, n = vertex_ensemble(facts, n_slices, counted=True), facts.n_sites
    staggered = two_coloring(n, facts.lattice.bonds())

    def respond(probe: Probe, state: dict, info: VertexInfo) -> tuple[Values, Values]:
        def log_w(hamiltonian: SpinHamiltonian, beta: jax.Array) -> jax.Array:
            return log_weight(hamiltonian, beta, info.counts)

        here, once, twice = probe.point, in_beta(log_w), in_beta(in_beta(log_w))
        energy, D, moved = -once(*here) / n, along(log_w, probe), -along(once, probe) / n
        moment = 0.5 * info.spins[0].sum(0, dtype=jnp.int32).astype(float)
        averages = {"energy": energy, "magnetization_z": moment / n, "magnetization_z_squared": moment**2 / n}
        if staggered is not None:
            averages["staggered_structure_factor"] = ((0.5 * staggered[:, None] * info.spins).sum(1) ** 2).mean(0) / n
        late = late_series({"energy": 0 * D}, jnp.zeros(len(moment)), D, -twice(*here) / n, -along(twice, probe) / n)
        series = sweep_series(averages, energy, D, moved, -D / (probe.beta * n), moved)
        return ensemble.measure(probe.magnet, state, info), {**second_series(log_w, probe, D), **series, **late}

    return respond_with(ensemble, respond, None)

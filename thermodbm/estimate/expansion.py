"""Estimators of strings of graphs (`sampling.strings`): everything is averaged over the orientations of clusters.

The number of graphs alone gives the energy, <H> = -C - <n>/beta, and the score d ln W/d beta = C + n/beta, whose covariance with any
average is its derivative. Other averages of the same mean have less noise, and their differences serve as control variates:

* exchange magnets: <sz_i sz_j> = <s_i s_j [same loop]> and <sx_i sx_j> = -sign(xy) <[same loop]>, at N_TIMES times;
* Ising magnets: <sz_i sz_j> likewise by clusters, and gamma_i <sx_i> = <number of CUTs of i at which the spin turns>/beta, a half where
  two clusters meet.

The square of an average over imaginary time, A = sum_k A_k of M states of a string at random times, is
<(int A dtau)^2> = beta^2 <A^2 + sum_k A_k^2>/(M (M + 1)); of the second sum, smaller by 1/M, N_TIMES terms are enough.

Source: A. W. Sandvik, J. Phys. A 25, 3667 (1992); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.user import Functions, on_layers
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.sampling.expansion import ExpansionInfo, expansion_kernel, resize_strings
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.strings import CHUNK, CUT, DIAGONAL, Graphs, StringFacts, Strings, graphs_of, n_slots_of
from thermodbm.sampling.union import at


class StringMagnet(NamedTuple):
    """A Hamiltonian, beta, and the graphs of which they make strings."""

    hamiltonian: SpinHamiltonian
    beta: jax.Array
    graphs: Graphs


def string_ensemble(facts: StringFacts, n_slices: int, functions: Functions = ()) -> Ensemble:
    """Strings with room for graphs in 2 n_slices n_sites slots: a ring of vanishing Trotter step."""
    n_slots = n_slots_of(facts, n_slices)
    kernel = expansion_kernel(facts, n_slots)

    def weights(hamiltonian: SpinHamiltonian, beta: jax.Array) -> StringMagnet:
        return StringMagnet(hamiltonian, jnp.asarray(beta, float), graphs_of(facts, hamiltonian, beta))

    def step(key: jax.Array, magnet: StringMagnet, state: dict) -> tuple[dict, ExpansionInfo]:
        strings, info = kernel.step(key, magnet.graphs, Strings(**state))
        return strings._asdict(), info

    return Ensemble(  # states are kept in checkpoints, as dicts
        kernel=SamplerKernel(lambda key, n_chains: kernel.init(key, n_chains)._asdict(), step),
        weights=weights,
        measure=_ising_sweep(facts) if facts.rotation is None else _exchange_sweep(facts),
        measure_rarely=_rarely(facts, functions),
        resize=lambda state: resize_strings(Strings(**state), n_slots)._asdict(),
        visible=lambda state: state["spins"].T,
    )


def _score(magnet: StringMagnet, info: ExpansionInfo) -> jax.Array:
    return -(info.n_graphs / magnet.beta + magnet.graphs.constant) / magnet.hamiltonian.n_sites


def _same(info: ExpansionInfo, facts: StringFacts) -> tuple[jax.Array, jax.Array]:
    """Of the spins of every bond at N_TIMES times whether they are in the same cluster, and whether they are parallel."""
    i, j = np.array(facts.bond_pairs, int).reshape(-1, 2).T
    return info.clusters[:, i] == info.clusters[:, j], info.spins[:, i] == info.spins[:, j]


def _powers(facts: StringFacts, info: ExpansionInfo, field: jax.Array, powers: tuple[int, ...]) -> jax.Array:
    """Sums over clusters of powers of the sum of a field (n_times, n_sites, n_chains) over each, at the first of N_TIMES times,
    (n_powers, n_times, n_chains).

    sum_L a_L^k = sum_i x_i a_L(i)^(k - 1): of the long list of sums only what spins point to is read, and set to zero again.
    """

    def of_time(sums: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        clusters, field = x
        sums = sums.at[clusters].add(field, mode="promise_in_bounds")
        own = at(sums, clusters)
        found = jnp.stack([(field * own ** (power - 1)).sum(0) for power in powers])
        return sums.at[clusters].set(0 * own, mode="promise_in_bounds"), found

    empty = jnp.zeros(_n_rows(facts, info) * field.shape[-1], jnp.float32)
    found = jax.lax.scan(of_time, empty, (info.clusters[: len(field)], field.astype(jnp.float32)))[1]
    return jnp.moveaxis(found, 1, 0)


def _n_rows(facts: StringFacts, info: ExpansionInfo) -> int:
    return facts.n_sites + len(info.slots)


class Chunk(NamedTuple):
    """Some slots of an `ExpansionInfo`."""

    slots: jax.Array
    before: jax.Array
    begun: jax.Array
    states: jax.Array  # (CHUNK, 1) float32: states of the string that come before each of them
    graph: jax.Array  # in each, or any


def _over_slots(info: ExpansionInfo, add: Callable[[Any, Chunk], Any], start: Any) -> Any:
    """add(..., chunk) of all slots in use."""

    def one(k: jax.Array, total: Any) -> Any:
        slots, before, begun = (jax.lax.dynamic_slice_in_dim(x, k * CHUNK, CHUNK) for x in (info.slots, info.before, info.begun))
        states = (k * CHUNK + 1 + jnp.arange(CHUNK, dtype=jnp.int32)).astype(jnp.float32)[:, None]
        return add(total, Chunk(slots, before, begun, states, jnp.maximum(slots >> 1, 0)))

    return jax.lax.fori_loop(jnp.int32(0), info.used // CHUNK, one, start)


def _exchange_sweep(facts: StringFacts) -> Measure:
    """As `exchange.measure_sweep`."""
    n = facts.n_sites
    patterns = {"magnetization_z_squared": np.full((n, 1), 0.5)}
    if (signs := two_coloring(n, facts.lattice.bonds())) is not None:
        patterns["staggered_structure_factor"] = 0.5 * signs[:, None]

    def measure(magnet: StringMagnet, _: dict, info: ExpansionInfo) -> dict[str, jax.Array]:
        (hamiltonian, beta, _), (same, parallel) = magnet, _same(info, facts)
        zz, xy = hamiltonian.zz[:, None], 2 * jnp.abs(hamiltonian.xy)[:, None]
        ising = jnp.where(parallel, zz, -zz)
        energy = jnp.where(same, ising - xy, 0).sum(1).mean(0) / n
        by_spins = (ising.sum(1).mean(0) - info.n_changes / beta) / n
        values = {name: _powers(facts, info, info.spins[:1] * a, (2,))[0, 0] / n for name, a in patterns.items()}
        zero = jnp.zeros_like(energy)
        return {"energy": energy, "worldline_energy": by_spins, "score": _score(magnet, info), "magnetization_z": zero, **values}

    return measure


def _turns(facts: StringFacts, chunk: Chunk) -> jax.Array:
    """Of every slot the chance that a spin turns at a CUT there, averaged over clusters."""
    cut = (chunk.slots >= 0) & at(jnp.asarray(facts.are(CUT)), chunk.graph)
    return jnp.where(cut, jnp.where(chunk.before[:, 0] >> 1 != chunk.begun, 0.5, chunk.slots & 1), 0.0)


def _ising_sweep(facts: StringFacts) -> Measure:
    """Energy, magnetisations and score, and moments of m_z by clusters."""
    n, is_cut = facts.n_sites, facts.are(CUT)
    sites = np.where(is_cut, np.array(facts.places, int), 0)

    def measure(magnet: StringMagnet, _: dict, info: ExpansionInfo) -> dict[str, jax.Array]:
        (hamiltonian, beta, _), (same, parallel) = magnet, _same(info, facts)
        zz, gamma = hamiltonian.zz[:, None], hamiltonian.x_field[sites]
        ising = jnp.where(parallel, zz, -zz)
        per_field = jnp.where(is_cut, 1 / jnp.where(is_cut, gamma, 1), 0)

        def add(total: tuple, chunk: Chunk) -> tuple:
            turns = _turns(facts, chunk)
            return total[0] + turns.sum(0), total[1] + (turns * at(per_field, chunk.graph)).sum(0)

        zero = jnp.zeros(info.slots.shape[-1])
        turns, transverse = _over_slots(info, add, (zero, zero))
        square, quartic = _powers(facts, info, info.spins / n, (2, 4))
        total = _through_time(facts, info, None) / n
        states = info.used.astype(jnp.float32)
        return {
            "energy": (jnp.where(same, ising, 0).sum(1).mean(0) - turns / beta) / n,
            "worldline_energy": (ising.sum(1).mean(0) - info.n_changes / beta) / n,
            "score": _score(magnet, info),
            "magnetization_x": transverse / (beta * n),
            "magnetization_z": zero,
            "order_parameter_squared": square.mean(0),
            "order_parameter_fourth": (3 * square**2 - 2 * quartic).mean(0),
            "kubo_squared": ((total**2).sum(0) + states * square.mean(0)) / (states * (states + 1)),
        }

    return measure


def _through_time(facts: StringFacts, info: ExpansionInfo, signs: np.ndarray | None) -> jax.Array:
    """Sums over every cluster, (rows, n_chains), of sites times states in which they belong to it, with signs (n_sites,) or their spins."""
    n_chains = info.slots.shape[-1]
    sign = info.spins[0] if signs is None else jnp.broadcast_to(signs[:, None], info.spins[0].shape)

    def put(total: jax.Array, cluster: jax.Array, amount: jax.Array) -> jax.Array:
        return total.at[cluster].add(amount, mode="promise_in_bounds")

    def add_cuts(total: jax.Array, chunk: Chunk) -> jax.Array:
        cut = (chunk.slots >= 0) & at(jnp.asarray(facts.are(CUT)), chunk.graph)
        spin = jnp.where(cut, chunk.states * (1 - 2 * (chunk.before[:, 0] & 1)), 0)
        return put(put(total, chunk.before[:, 0] >> 1, spin), chunk.begun, -spin * (1 - 2 * (chunk.slots & 1)))

    def add_turns(total: jax.Array, chunk: Chunk) -> jax.Array:
        first, second = (at(jnp.asarray(np.append(signs, 0)[sites], jnp.float32), chunk.graph) for sites in facts.cells)
        diagonal, by = at(jnp.asarray(facts.are(DIAGONAL)), chunk.graph), jnp.where(chunk.slots >= 0, chunk.states, 0)
        total = put(total, chunk.before[:, 0] >> 1, by * jnp.where(diagonal, first - second, first))
        total = put(total, chunk.before[:, 1] >> 1, by * jnp.where(diagonal, second - first, second))
        return put(total, chunk.begun, -by * jnp.where(diagonal, 0, first + second))

    total = jnp.zeros(_n_rows(facts, info) * n_chains, jnp.float32)
    total = put(total, info.clusters[0], sign.astype(jnp.float32) * info.used)
    return _over_slots(info, add_cuts if signs is None else add_turns, total).reshape(-1, n_chains)


def _rarely(facts: StringFacts, functions: Functions) -> Measure:
    """slope (n_chains, 1), of the turns in the energy of Ising magnets, correlation_zz (n_chains, n_sites), on a fully periodic lattice
    structure_factor_zz, of exchange magnets transverse_squared (n_chains, 1), and `functions` of a user."""
    lattice, n, moment = facts.lattice, facts.n_sites, 1.0 if facts.rotation is None else 0.5

    def measure(magnet: StringMagnet, _: dict, info: ExpansionInfo) -> dict[str, jax.Array]:
        layers = jnp.moveaxis(info.spins, -1, 0)
        field = moment * layers.astype(jnp.float32)
        slope = jnp.zeros(len(layers))
        if facts.rotation is None:
            slope = _over_slots(info, lambda total, chunk: total + _turns(facts, chunk).sum(0), slope) / (magnet.beta**2 * n)
        values = {"slope": slope[:, None], "correlation_zz": correlations(lattice, field).mean(1), **on_layers(functions, layers)}
        if lattice.wavevectors is not None:
            values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
        if facts.rotation is not None:  # two points of a loop have S+ and S- where one arc between them is turned over
            signs = np.array(facts.rotation, float)
            (equal_times,) = _powers(facts, info, jnp.broadcast_to(signs[:, None], info.spins.shape), (2,))
            states = info.used.astype(jnp.float32)
            square = (_through_time(facts, info, signs) ** 2).sum(0) + states * equal_times.mean(0)
            values["transverse_squared"] = (square / (4 * n * states * (states + 1)))[:, None]
        return values

    return measure

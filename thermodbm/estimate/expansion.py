"""Estimators of strings of graphs (`sampling.strings`), where everything is averaged over the orientations of loops, and of strings of
vertices (`sampling.vertices`), where it is not.

The number of graphs alone gives the energy, <H> = -C - <n>/beta, and the score d ln W/d beta = C + n/beta, whose covariance with any
average is its derivative. Energies of the same mean have less noise, and their differences serve as control variates: at N_TIMES times
<sz_i sz_j> = <s_i s_j [same loop]> and <sx_i sx_j> = -sign(xy) <[same loop]>, or sz_i sz_j as it is and the number of exchanges.

The square of an average over imaginary time, A = sum_k A_k of M states of a string at random times, is
<(int A dtau)^2> = beta^2 <A^2 + sum_k A_k^2>/(M (M + 1)); of the second sum, smaller by 1/M, N_TIMES terms are enough.

Source: A. W. Sandvik, J. Phys. A 25, 3667 (1992); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.user import Functions, on_layers
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice, two_coloring
from thermodbm.sampling.expansion import ExpansionInfo, expansion_kernel
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.strings import CHUNK, DIAGONAL, Graphs, StringFacts, Strings, graphs_of, n_slots_of, resize_strings
from thermodbm.sampling.union import at
from thermodbm.sampling.vertices import VertexFacts, VertexInfo, Vertices, vertices_kernel, vertices_of


class StringMagnet(NamedTuple):
    """A Hamiltonian, beta, and the graphs of which they make strings."""

    hamiltonian: SpinHamiltonian
    beta: jax.Array
    graphs: Graphs


def string_ensemble(facts: StringFacts, n_slices: int, functions: Functions = ()) -> Ensemble:
    """Strings with room for graphs in 2 n_slices n_sites slots: a ring of vanishing Trotter step."""
    n_slots = n_slots_of(facts.n_sites, n_slices)
    kernel = expansion_kernel(facts, n_slots)

    def weights(hamiltonian: SpinHamiltonian, beta: jax.Array) -> StringMagnet:
        return StringMagnet(hamiltonian, jnp.asarray(beta, float), graphs_of(facts, hamiltonian, beta))

    def step(key: jax.Array, magnet: StringMagnet, state: dict) -> tuple[dict, ExpansionInfo]:
        strings, info = kernel.step(key, magnet.graphs, Strings(**state))
        return strings._asdict(), info

    return Ensemble(  # states are kept in checkpoints, as dicts
        kernel=SamplerKernel(lambda key, n_chains: kernel.init(key, n_chains)._asdict(), step),
        weights=weights,
        measure=_sweep(facts),
        measure_rarely=_rarely(facts, functions),
        resize=lambda state: resize_strings(Strings(**state), n_slots)._asdict(),
        visible=lambda state: state["spins"].T,
    )


def _sweep(facts: StringFacts) -> Measure:
    """As `exchange.measure_sweep`, by loops."""
    n, (i, j) = facts.n_sites, np.array(facts.bond_pairs, int).reshape(-1, 2).T
    patterns = {"magnetization_z_squared": np.full((n, 1), 0.5)}
    if (signs := two_coloring(n, facts.lattice.bonds())) is not None:
        patterns["staggered_structure_factor"] = 0.5 * signs[:, None]

    def measure(magnet: StringMagnet, _: dict, info: ExpansionInfo) -> dict[str, jax.Array]:
        hamiltonian, beta, graphs = magnet
        zz, xy = hamiltonian.zz[:, None], 2 * jnp.abs(hamiltonian.xy)[:, None]
        ising = jnp.where(info.spins[:, i] == info.spins[:, j], zz, -zz)
        by_loops = jnp.where(info.loops[:, i] == info.loops[:, j], ising - xy, 0).sum(1).mean(0)
        n_labels = _n_labels(facts, info)
        values = {name: powers_of_sums(info.loops, info.spins[:1] * x, n_labels, (2,))[0][0] / n for name, x in patterns.items()}
        return values | {
            "energy": by_loops / n,
            "worldline_energy": (ising.sum(1).mean(0) - info.n_changes / beta) / n,
            "score": -(info.n_graphs / beta + graphs.constant) / n,
            "magnetization_z": jnp.zeros_like(by_loops),
        }

    return measure


def _rarely(facts: StringFacts, functions: Functions) -> Measure:
    """slope (n_chains, 1), which is zero, pair functions, and transverse_squared (n_chains, 1), of which beta makes susceptibility_x."""
    n, rotation = facts.n_sites, np.array(facts.rotation, float)

    def measure(magnet: StringMagnet, _: dict, info: ExpansionInfo) -> dict[str, jax.Array]:
        values = {"slope": jnp.zeros((info.spins.shape[-1], 1)), **pair_functions(facts.lattice, 0.5, info.spins, functions)}
        # two points of a loop have S+ and S- where one arc between them is turned over
        states = info.used.astype(jnp.float32)
        field = jnp.broadcast_to(rotation[:, None], info.spins.shape)
        at_times = powers_of_sums(info.loops, field, _n_labels(facts, info), (2,))[0].mean(0)
        square = (_through_time(facts, info, rotation) ** 2).sum(0) + states * at_times
        return values | {"transverse_squared": (square / (4 * n * states * (states + 1)))[:, None]}

    return measure


class VertexMagnet(NamedTuple):
    """A Hamiltonian, beta, and the vertices of which they make strings."""

    hamiltonian: SpinHamiltonian
    beta: jax.Array
    vertices: Vertices


def vertex_ensemble(facts: VertexFacts, n_slices: int, functions: Functions = (), *, counted: bool = False) -> Ensemble:
    """Of strings that directed loops move; `counted` for derivatives."""
    n_slots, n = n_slots_of(facts.n_sites, n_slices), facts.n_sites
    kernel, (i, j) = vertices_kernel(facts, n_slots, counted=counted), np.array(facts.bond_pairs, int).reshape(-1, 2).T
    staggered, lattice = two_coloring(n, facts.lattice.bonds()), facts.lattice

    def weights(hamiltonian: SpinHamiltonian, beta: jax.Array) -> VertexMagnet:
        return VertexMagnet(hamiltonian, jnp.asarray(beta, float), vertices_of(hamiltonian, beta))

    def step(key: jax.Array, magnet: VertexMagnet, state: dict) -> tuple[dict, VertexInfo]:
        strings, info = kernel.step(key, magnet.vertices, Strings(**state))
        return strings._asdict(), info

    def measure(magnet: VertexMagnet, _: dict, info: VertexInfo) -> dict[str, jax.Array]:
        (hamiltonian, beta, vertices), spins = magnet, info.spins
        zz = hamiltonian.zz[:, None]
        ising = jnp.where(spins[:, i] == spins[:, j], zz, -zz).sum(1).mean(0)
        field = (hamiltonian.z_field[:, None] * spins[0]).sum(0) if facts.with_field else 0.0
        by_number = -(info.n_vertices / beta + vertices.constant) / n
        moment = 0.5 * spins[0].sum(0, dtype=jnp.int32)
        values = {
            "energy": (ising - field - info.n_changes / beta) / n,
            "worldline_energy": by_number,
            "slope": info.n_changes / (beta**2 * n),
            "score": by_number,
            "magnetization_z": moment / n if facts.with_field else jnp.zeros_like(by_number),
            "magnetization_z_squared": moment**2 / n,
        }
        if staggered is not None:
            values["staggered_structure_factor"] = ((0.5 * staggered[:, None] * spins).sum(1) ** 2).mean(0) / n
        if facts.signed:
            values["sign"] = 1.0 - 2 * (info.odd & 1)
        return values

    def measure_rarely(magnet: VertexMagnet, _: dict, info: VertexInfo) -> dict[str, jax.Array]:
        return {"slope": jnp.zeros((len(info.n_changes), 1)), **pair_functions(lattice, 0.5, info.spins, functions)}

    return Ensemble(
        kernel=SamplerKernel(lambda key, n_chains: kernel.init(key, n_chains)._asdict(), step),
        weights=weights,
        measure=measure,
        measure_rarely=measure_rarely,
        resize=lambda state: resize_strings(Strings(**state), n_slots)._asdict(),
        visible=lambda state: state["spins"].T,
    )


def pair_functions(lattice: Lattice, moment: float, spins: jax.Array, functions: Functions) -> dict[str, jax.Array]:
    """Of spins (n_times, n_sites, n_chains) with a moment: correlation_zz (n_chains, n_sites), on a fully periodic lattice
    structure_factor_zz, and `functions` of a user."""
    layers = jnp.moveaxis(spins, -1, 0)
    field = moment * layers.astype(jnp.float32)
    values = {"correlation_zz": correlations(lattice, field).mean(1), **on_layers(functions, layers)}
    if lattice.wavevectors is not None:
        values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
    return values


def _n_labels(facts: StringFacts, info: ExpansionInfo) -> int:
    return (facts.n_sites + len(info.slots)) * info.slots.shape[-1]


def powers_of_sums(clusters: jax.Array, field: jax.Array, n_labels: int, powers: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """For each of the powers: the sum over clusters of that power of the sum of a field (n_times, n_sites, n_chains) over each, (n_times,
    n_chains); at the first times of the clusters.

    sum_L a_L^k = sum_i x_i a_L(i)^(k - 1): of the long list of sums only what spins point to is read, and set to zero again.
    """

    def of_time(sums: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple]:
        clusters, field = x
        sums = sums.at[clusters].add(field, mode="promise_in_bounds")
        own = at(sums, clusters)
        found = tuple((field * own ** (power - 1)).sum(0) for power in powers)
        return sums.at[clusters].set(0 * own, mode="promise_in_bounds"), found

    empty = jnp.zeros(n_labels, jnp.float32)
    return jax.lax.scan(of_time, empty, (clusters[: len(field)], field.astype(jnp.float32)))[1]


def _through_time(facts: StringFacts, info: ExpansionInfo, signs: np.ndarray) -> jax.Array:
    """Sums over every loop, (rows, n_chains), of the signs (n_sites,) of the sites where it is, over all states of the string.

    A stretch of a loop on a site counts the states before the slot where it ends, less those before the slot where it began.
    """
    n_chains = info.slots.shape[-1]
    of_graph = tuple(jnp.asarray(signs[sites], jnp.float32) for sites in facts.sites)
    diagonal = jnp.asarray(facts.are(DIAGONAL))

    def one(k: jax.Array, total: jax.Array) -> jax.Array:
        slots, before, begun = (jax.lax.dynamic_slice_in_dim(x, k * CHUNK, CHUNK) for x in (info.slots, info.before, info.begun))
        states = (k * CHUNK + 1 + jnp.arange(CHUNK, dtype=jnp.int32)).astype(jnp.float32)[:, None]
        graph, states = jnp.maximum(slots >> 1, 0), jnp.where(slots >= 0, states, 0)
        (first, second), crosses = (at(x, graph) for x in of_graph), at(diagonal, graph)
        total = total.at[before[:, 0] >> 1].add(states * jnp.where(crosses, first - second, first), mode="promise_in_bounds")
        total = total.at[before[:, 1] >> 1].add(states * jnp.where(crosses, second - first, second), mode="promise_in_bounds")
        return total.at[begun].add(-states * jnp.where(crosses, 0, first + second), mode="promise_in_bounds")

    last = jnp.broadcast_to(signs[:, None], info.loops[0].shape).astype(jnp.float32) * info.used
    total = jnp.zeros(_n_labels(facts, info), jnp.float32).at[info.loops[0]].add(last, mode="promise_in_bounds")
    return jax.lax.fori_loop(jnp.int32(0), info.used // CHUNK, one, total).reshape(-1, n_chains)

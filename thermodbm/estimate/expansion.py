"""Estimators of strings of graphs (`sampling.strings`): everything is averaged over the orientations of loops.

The number of graphs alone gives the energy, <H> = -C - <n>/beta, and the score d ln W/d beta = C + n/beta, whose covariance with any
average is its derivative. Energies of the same mean have less noise, and their differences serve as control variates: at N_TIMES times
<sz_i sz_j> = <s_i s_j [same loop]> and <sx_i sx_j> = -sign(xy) <[same loop]>, or sz_i sz_j as it is and the number of exchanges.

The square of an average over imaginary time, A = sum_k A_k of M states of a string at random times, is
<(int A dtau)^2> = beta^2 <A^2 + sum_k A_k^2>/(M (M + 1)); of the second sum, smaller by 1/M, N_TIMES terms are enough.

Source: A. W. Sandvik, J. Phys. A 25, 3667 (1992); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.strings import StringMagnet, pair_functions, powers_of_sums, ring_of_strings
from thermodbm.estimate.user import Functions
from thermodbm.models.lattice import two_coloring
from thermodbm.sampling.expansion import ExpansionInfo, expansion_kernel
from thermodbm.sampling.strings import CHUNK, DIAGONAL, StringFacts, graphs_of, n_slots_of
from thermodbm.sampling.union import at


def string_ensemble(facts: StringFacts, n_slices: int, functions: Functions = ()) -> Ensemble:
    """Strings with room for graphs in 2 n_slices n_sites slots: a ring of vanishing Trotter step."""
    n_slots = n_slots_of(facts.n_sites, n_slices)
    return ring_of_strings(expansion_kernel(facts, n_slots), n_slots, partial(graphs_of, facts), _sweep(facts), _rarely(facts, functions))


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


def _n_labels(facts: StringFacts, info: ExpansionInfo) -> int:
    return (facts.n_sites + len(info.slots)) * info.slots.shape[-1]


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

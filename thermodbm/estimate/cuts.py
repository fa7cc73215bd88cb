"""Estimators of the strings of Ising magnets (`sampling.cuts`), averaged over the orientations of clusters.

The number of graphs gives energy and score as in `estimate.expansion`. With less noise <sz_i sz_j> = <s_i s_j [same cluster]> at N_TIMES
times, and gamma_i <sx_i> = <number of cuts of i at which the spin turns>/beta, a half where two clusters meet.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.strings import StringMagnet, pair_functions, powers_of_sums, ring_of_strings
from thermodbm.estimate.user import Functions
from thermodbm.sampling.cuts import CutFacts, CutInfo, cuts_kernel, cuts_of
from thermodbm.sampling.strings import CHUNK, n_slots_of
from thermodbm.sampling.union import at


def cut_ensemble(facts: CutFacts, n_slices: int, functions: Functions = ()) -> Ensemble:
    """Strings with room for graphs in 2 n_slices n_sites slots: a ring of vanishing Trotter step."""
    n_slots = n_slots_of(facts.n_sites, n_slices)

    def measure_rarely(magnet: StringMagnet, _: dict, info: CutInfo) -> dict[str, jax.Array]:
        return {"slope": jnp.zeros((len(info.n_changes), 1)), **pair_functions(facts.lattice, 1.0, info.spins, functions)}

    return ring_of_strings(cuts_kernel(facts, n_slots), n_slots, partial(cuts_of, facts), _sweep(facts), measure_rarely)


def _sweep(facts: CutFacts) -> Measure:
    """As `ising.measure_sweep`."""
    n, (i, j) = facts.n_sites, np.array(facts.bond_pairs, int).reshape(-1, 2).T

    def measure(magnet: StringMagnet, _: dict, info: CutInfo) -> dict[str, jax.Array]:
        hamiltonian, beta, cuts = magnet
        zz = hamiltonian.zz[:, None]
        ising = jnp.where(info.spins[:, i] == info.spins[:, j], zz, -zz)
        joined = jnp.where(info.clusters[:, i] == info.clusters[:, j], ising, 0).sum(1).mean(0)
        turns, transverse, through_time = _turns(facts, magnet, info)
        square, fourth = powers_of_sums(info.clusters, info.spins / n, _n_labels(facts, info), (2, 4))
        states = info.used.astype(jnp.float32)
        return {
            "energy": (joined - turns / beta) / n,
            "worldline_energy": (ising.sum(1).mean(0) - info.n_changes / beta) / n,
            "score": -(info.n_graphs / beta + cuts.constant) / n,
            "slope": turns / (beta**2 * n),
            "magnetization_x": transverse / (beta * n),
            "magnetization_z": jnp.zeros_like(joined),
            "order_parameter_squared": square.mean(0),
            "order_parameter_fourth": (3 * square**2 - 2 * fourth).mean(0),
            "kubo_squared": (through_time / n**2 + states * square.mean(0)) / (states * (states + 1)),
        }

    return measure


def _n_labels(facts: CutFacts, info: CutInfo) -> int:
    return (facts.n_sites + len(info.slots)) * info.slots.shape[-1]


def _turns(facts: CutFacts, magnet: StringMagnet, info: CutInfo) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Numbers of turns at cuts, averaged over clusters; the same divided by gamma of their sites; and the sum over clusters of the square
    of their spins summed over all states of the string, (n_chains,) each.

    A stretch of a cluster on a site counts the states before the slot where it ends, less those before the slot where it began.
    """
    n_joins, gamma = len(facts.joins), magnet.hamiltonian.x_field[np.array(facts.cuts, int)]
    per_field = jnp.concatenate([jnp.zeros(n_joins), 1 / gamma])

    def add(k: jax.Array, total: tuple) -> tuple:
        turns, transverse, sums = total
        slots, ended, begun = (jax.lax.dynamic_slice_in_dim(x, k * CHUNK, CHUNK) for x in (info.slots, info.ended, info.begun))
        cluster, cut = ended >> 1, slots >> 1 >= n_joins
        turn = jnp.where(cut, jnp.where(cluster == begun, slots & 1, 0.5), 0)
        states = (k * CHUNK + 1 + jnp.arange(CHUNK, dtype=jnp.int32)).astype(jnp.float32)[:, None]
        spin = jnp.where(cut, states * (1 - 2 * (ended & 1)), 0)
        sums = sums.at[cluster].add(spin, mode="promise_in_bounds")
        sums = sums.at[begun].add(-spin * (1 - 2 * (slots & 1)), mode="promise_in_bounds")
        return turns + turn.sum(0), transverse + (turn * at(per_field, jnp.maximum(slots >> 1, 0))).sum(0), sums

    none = jnp.zeros(info.slots.shape[-1])
    sums = jnp.zeros(_n_labels(facts, info), jnp.float32)
    sums = sums.at[info.clusters[0]].add(info.spins[0].astype(jnp.float32) * info.used, mode="promise_in_bounds")
    turns, transverse, sums = jax.lax.fori_loop(jnp.int32(0), info.used // CHUNK, add, (none, none, sums))
    return turns, transverse, (sums.reshape(-1, len(none)) ** 2).sum(0)

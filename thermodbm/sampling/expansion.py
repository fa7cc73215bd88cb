"""Sampler of continuous imaginary time: a walk through the string puts graphs in and takes them out, then loops turn over."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.strands import walk_strands
from thermodbm.sampling.strings import CHUNK, DIAGONAL, EMPTY, Graphs, StringFacts, Strings, begin_strings, flips, put_chunk, with_room
from thermodbm.sampling.union import at


class ExpansionInfo(NamedTuple):
    """What a sweep saw, its loops turned over. Those of all chains are numbered together: row times n_chains plus the chain."""

    spins: jax.Array  # (N_TIMES, n_sites, n_chains) int8 +-1
    loops: jax.Array  # (N_TIMES, n_sites, n_chains) int32
    slots: jax.Array  # as those of the state
    before: jax.Array  # (n_slots, 2, n_chains) int32: twice the loops of both spins before a graph, one more if down
    begun: jax.Array  # (n_slots, n_chains) int32: the loop that begins with it
    used: jax.Array  # () int32, slots in use
    n_graphs: jax.Array  # (n_chains,) int32
    n_changes: jax.Array  # (n_chains,) int32, graphs at which spins change


def expansion_kernel(facts: StringFacts, n_slots: int) -> SamplerKernel:
    """Chains of strings of at most n_slots graphs, in whole chunks. Slots in use grow with the longest string, at first."""

    def step(key: jax.Array, graphs: Graphs, strings: Strings) -> tuple[Strings, ExpansionInfo]:
        key_walk, key_flip = jax.random.split(key)
        n_chains = strings.spins.shape[-1]
        found = walk_strands(key_walk, facts, graphs, strings)
        turned = flips(key_flip, found.root.size)

        def settle(k: jax.Array, state: tuple) -> tuple:
            """Spins and graphs of a chunk after the flips."""
            slots, before, begun, n_changes = state
            old, word = (lax.dynamic_slice_in_dim(x, k * CHUNK, CHUNK) for x in (found.slots, found.before))
            own = lax.dynamic_slice_in_dim(found.root, (facts.n_sites + k * CHUNK) * n_chains, CHUNK * n_chains).reshape(CHUNK, n_chains)
            loop, graph = at(found.root, word >> 1), jnp.maximum(old >> 1, 0)
            down = word & 1 ^ turned(loop)
            changes = old & 1 ^ turned(own) ^ turned(loop[:, 0])
            if DIAGONAL in facts.kinds:
                changes = jnp.where(at(jnp.asarray(facts.are(DIAGONAL)), graph), down[:, 0] ^ down[:, 1], changes)
            changes = jnp.where(old < 0, 0, changes)
            new = jnp.where(old < 0, EMPTY, old & ~1 | changes)
            n_changes += changes.sum(0, dtype=jnp.int32)
            return put_chunk(slots, new, k), put_chunk(before, 2 * loop + down, k), put_chunk(begun, own, k), n_changes

        begin = found.slots, found.before, jnp.zeros_like(found.slots), jnp.zeros(n_chains, jnp.int32)
        slots, before, begun, n_changes = lax.fori_loop(jnp.int32(0), strings.used[0] // CHUNK, settle, begin)
        at_times = at(found.root, found.noted >> 1)
        spins = (1 - 2 * (found.noted & 1 ^ turned(at_times))).astype(jnp.int8).reshape(-1, facts.n_sites, n_chains)
        used = strings.used[0]
        info = ExpansionInfo(spins, at_times.reshape(spins.shape), slots, before, begun, used, found.n_graphs, n_changes)
        return with_room(Strings(slots, spins[0], strings.used), found.n_graphs, graphs.least), info

    return SamplerKernel(lambda key, n_chains: begin_strings(key, facts.n_sites, n_slots, n_chains), step)

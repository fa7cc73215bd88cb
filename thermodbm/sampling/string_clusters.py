"""Strings of Ising graphs: clusters are joined by lists of what each JOIN brings together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from thermodbm.sampling.strings import (
    CHUNK,
    CUT,
    EMPTY,
    JOIN,
    Graphs,
    Proposals,
    StringFacts,
    Strings,
    Walk,
    in_chunks,
    proposals,
    put_chunk,
    stays,
)
from thermodbm.sampling.union import Joints, at, merge, whole_blocks


class _State(NamedTuple):
    words: jax.Array  # (n_sites + 1, n_chains) flattened
    n: jax.Array
    slots: jax.Array
    before: jax.Array


def walk_clusters(key: jax.Array, facts: StringFacts, graphs: Graphs, strings: Strings) -> Walk:
    """One walk through all slots of graphs JOIN and CUT."""
    (n_slots, n_chains), n_sites, used = strings.slots.shape, facts.n_sites, strings.used[0]
    is_cut = jnp.asarray(facts.are(CUT))

    def slot(carry: tuple, x: tuple[Proposals, jax.Array]) -> tuple[tuple, tuple]:
        (words, n), (found, cut) = carry, x
        first, second = at(words, found.first), at(words, found.second)
        there, more = stays(found, cut | (((first ^ second) & 1 == 1) == found.differ), used - n)
        after = jnp.where(there & cut, 2 * found.new + (first & 1 ^ found.changes), first)
        words = words.at[found.first].set(after, mode="promise_in_bounds")
        return (words, n + more), (jnp.where(there, 2 * found.graph + found.changes, EMPTY), first, second)

    def chunk(k: jax.Array, state: _State) -> _State:
        here = lax.dynamic_slice_in_dim(strings.slots, k * CHUNK, CHUNK)
        found = proposals(jax.random.fold_in(key, k), facts, graphs, here, k * CHUNK)
        (words, n), (slots, first, second) = lax.scan(slot, (state.words, state.n), (found, at(is_cut, found.graph)))
        return _State(words, n, put_chunk(state.slots, slots, k), put_chunk(state.before, jnp.stack([first, second], 1), k))

    site = jnp.arange(n_sites * n_chains, dtype=jnp.int32)
    down = (strings.spins.reshape(-1) < 0).astype(jnp.int32)
    state = _State(
        words=jnp.concatenate([2 * site + down, jnp.zeros(n_chains, jnp.int32)]),
        n=(strings.slots >= 0).sum(0, dtype=jnp.int32),
        slots=jnp.full_like(strings.slots, EMPTY),
        before=jnp.zeros((n_slots, 2, n_chains), jnp.int32),
    )
    state, noted = in_chunks(used // CHUNK, chunk, lambda state: state.words[: len(site)], state, len(site))
    joins = (state.slots >= 0) & at(jnp.asarray(facts.are(JOIN)), jnp.maximum(state.slots >> 1, 0))
    room = whole_blocks((n_slots + n_sites) * n_chains)

    def joints(words: jax.Array, last: jax.Array) -> jax.Array:
        inside = jnp.where(joins, words >> 1, 0).reshape(-1)
        return lax.dynamic_update_slice_in_dim(jnp.pad(inside, (0, room - len(inside))), last, used * n_chains, 0)

    n_labels = (n_sites + used) * n_chains
    listed = Joints(joints(state.before[:, 0], state.words[: len(site)] >> 1), joints(state.before[:, 1], site), n_labels)
    root = merge((n_sites + n_slots) * n_chains, listed, n_labels)
    return Walk(root, state.slots, state.before, noted, state.n)

"""Strings of exchange graphs: loops are closed as the walk goes, from strands with two open ends.

A graph HORIZONTAL ties two strands into one and begins a new one behind it; of the two labels the lower stays, and is written to the far
end. DIAGONAL lets ends change places. A loop has closed when both ends of a strand meet.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from thermodbm.sampling.strings import (
    CHUNK,
    DIAGONAL,
    EMPTY,
    Graphs,
    Proposals,
    StringFacts,
    Strings,
    Walk,
    changes_at,
    in_chunks,
    proposals,
    put_chunk,
    stays,
)
from thermodbm.sampling.union import at, roots_of, whole_blocks


class _State(NamedTuple):
    ends: jax.Array  # (2 n_sites + 1 places, n_chains) flattened, int64: place of the other end, and the word
    parent: jax.Array  # of every label, a lower one or itself
    n: jax.Array
    slots: jax.Array
    before: jax.Array


def _end(other: jax.Array, label: jax.Array, down: jax.Array) -> jax.Array:
    """Of a strand: where its other end is, its label, and whether the spin here is down."""
    return other.astype(jnp.int64) << 32 | (label << 1 | down).astype(jnp.int64)


def _far(end: jax.Array) -> jax.Array:
    return (end >> 32).astype(jnp.int32)


def _word(end: jax.Array) -> jax.Array:
    return end.astype(jnp.int32)


def walk_strands(key: jax.Array, facts: StringFacts, graphs: Graphs, strings: Strings) -> Walk:
    """One walk through all slots of graphs HORIZONTAL and DIAGONAL. Places are sites, one for nothing, and the sites before slot 0."""
    (n_slots, n_chains), n_sites, used = strings.slots.shape, facts.n_sites, strings.used[0]
    chain = jnp.arange(n_chains, dtype=jnp.int32)
    nowhere, crossing = n_sites * n_chains + chain, DIAGONAL in facts.kinds

    def slot(carry: tuple, found: Proposals) -> tuple[tuple, tuple]:
        # rows apart and the far ends first: then XLA reads all before it writes, in place, in short vector loops
        (ends, n), (p, q, new, diagonal) = carry, (found.first, found.second, found.new, found.diagonal)
        changes = changes_at(found.old)
        end_p, end_q = at(ends, p), at(ends, q)
        word_p, word_q, far_p, far_q = _word(end_p), _word(end_q), _far(end_p), _far(end_q)
        label_p, label_q, down_p, down_q = word_p >> 1, word_q >> 1, word_p & 1, word_q & 1
        there, more = stays(found.old, ((down_p ^ down_q) == 0) == diagonal, found.drawn, found.rate, used - n)
        moves = there & (far_p != q)
        lower, upper = jnp.minimum(label_p, label_q), jnp.maximum(label_p, label_q)
        to_p, to_q = jnp.where(moves, far_p, nowhere), jnp.where(moves, far_q, nowhere)
        far_down_p, far_down_q = _word(at(ends, jnp.stack([to_p, to_q]))) & 1
        at_far_p, at_far_q = _end(far_q, lower, far_down_p), _end(far_p, lower, far_down_q)
        at_p, at_q = _end(q, new, down_p ^ changes), _end(p, new, down_q ^ changes)
        if crossing:
            at_far_p = jnp.where(diagonal, _end(q, label_p, far_down_p), at_far_p)
            at_far_q = jnp.where(diagonal, _end(p, label_q, far_down_q), at_far_q)
            at_p = jnp.where(diagonal, jnp.where(moves, end_q, _end(q, label_q, down_q)), at_p)
            at_q = jnp.where(diagonal, jnp.where(moves, end_p, _end(p, label_p, down_p)), at_q)
        for place, end in ((to_p, at_far_p), (to_q, at_far_q), (p, jnp.where(there, at_p, end_p)), (q, jnp.where(there, at_q, end_q))):
            ends = ends.at[place].set(end, mode="promise_in_bounds")
        tied = there & ~diagonal
        slots = jnp.where(there, 2 * found.graph + changes, EMPTY)
        return (ends, n + more), (slots, word_p, word_q, jnp.where(tied, upper, new), jnp.where(tied, lower, new))

    def chunk(k: jax.Array, state: _State) -> _State:
        here = lax.dynamic_slice_in_dim(strings.slots, k * CHUNK, CHUNK)
        found = proposals(jax.random.fold_in(key, k), facts, graphs, here, k * CHUNK)
        (ends, n), (slots, word_p, word_q, child, parent) = lax.scan(slot, (state.ends, state.n), found)
        parents = state.parent.at[child.reshape(-1)].set(parent.reshape(-1), mode="promise_in_bounds", unique_indices=True)
        return _State(ends, parents, n, put_chunk(state.slots, slots, k), put_chunk(state.before, jnp.stack([word_p, word_q], 1), k))

    def close(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Tie what leaves the last slot at a site to what enters the first."""
        ends, parent = carry
        p = i * n_chains + chain
        q = p + (n_sites + 1) * n_chains
        end_p, end_q = at(ends, p), at(ends, q)
        label_p, label_q, open_ended = _word(end_p) >> 1, _word(end_q) >> 1, _far(end_p) != q
        lower, upper = jnp.minimum(label_p, label_q), jnp.maximum(label_p, label_q)
        ends = ends.at[jnp.where(open_ended, _far(end_p), nowhere)].set(_end(_far(end_q), lower, 0 * lower), mode="promise_in_bounds")
        ends = ends.at[jnp.where(open_ended, _far(end_q), nowhere)].set(_end(_far(end_p), lower, 0 * lower), mode="promise_in_bounds")
        return ends, parent.at[upper].set(lower, mode="promise_in_bounds", unique_indices=True)

    site = jnp.arange(n_sites * n_chains, dtype=jnp.int32)
    entry, down = site + (n_sites + 1) * n_chains, (strings.spins.reshape(-1) < 0).astype(jnp.int32)
    state = _State(
        ends=jnp.concatenate([_end(entry, site, down), jnp.zeros(n_chains, jnp.int64), _end(site, site, down)]),
        parent=jnp.arange(whole_blocks((n_sites + n_slots) * n_chains), dtype=jnp.int32),
        n=(strings.slots >= 0).sum(0, dtype=jnp.int32),
        slots=jnp.full_like(strings.slots, EMPTY),
        before=jnp.zeros((n_slots, 2, n_chains), jnp.int32),
    )
    state, noted = in_chunks(used // CHUNK, chunk, lambda state: _word(state.ends[: len(site)]), state, len(site))
    _, parent = lax.fori_loop(jnp.int32(0), jnp.int32(n_sites), close, (state.ends, state.parent))
    return Walk(roots_of(parent, (n_sites + used) * n_chains), state.slots, state.before, noted, state.n)

"""Strings of whole exchange operators, moved by directed loops: for fields along z, easy axes and frustrated exchange.

Here a string is of -H = C' + sum_b B_b with operators B_b of bonds, whose elements

    P  both spins parallel,    C_b - zz + (or -) the fields,
    K  antiparallel, kept,     C_b + zz + (or -) half their difference,
    X  exchanged,              2 |xy|,

depend on four spins, the legs of a vertex; a field along z is shared out over the bonds of its site, and C_b leaves no element that keeps
the spins below LEAST. Vertices are put in and taken out where spins are kept, as graphs are. Then heads walk from leg to leg and turn over
the spins that they pass: of the three vertices that differ from each other by a leg turned over, P, K and X, a head leads from one to
another with the half sums (P + K - X)/2 and so on, as in `sampling.worm`, and turns back where the triangle inequality fails.

Source: O. F. Syljuasen, A. W. Sandvik, Phys. Rev. E 66, 046701 (2002).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice
from thermodbm.models.rotation import sublattice_rotation
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.strings import CHUNK, EMPTY, Strings, begin_strings, changes_at, drawn_for, in_chunks, put_chunk, stays, with_room
from thermodbm.sampling.union import at

LEAST = 0.1
"""Least element that keeps spins, in units of its bond's exchange element: small enough to cost few vertices, large enough that heads need
not turn back."""
SITES_A_LOOP = 2
"""Sites for every directed loop of a sweep."""
TOGETHER = 32
"""Steps of heads whose random numbers are drawn at once."""


class VertexFacts(NamedTuple):
    """Hashable: what a program for the strings of a magnet depends on besides their length."""

    lattice: Lattice
    bond_pairs: tuple[tuple[int, int], ...]
    with_field: bool
    signed: tuple[bool, ...] | None  # bonds whose exchange turns the sign of a weight, where the magnet is frustrated

    @property
    def n_sites(self) -> int:
        """Number of spins."""
        return self.lattice.n_sites


def vertex_facts(hamiltonian: SpinHamiltonian) -> VertexFacts:
    """Of a Hamiltonian whose couplings are numbers.

    Raises:
        InputError: for a site with a field and no bond, in which it could be counted.
    """
    field = np.asarray(hamiltonian.z_field) != 0
    if np.any(field & (_degrees(hamiltonian) == 0)):
        raise InputError("model.h", expected="a bond at every site with a field, with sampler = series", found="a site without")
    frustrated = sublattice_rotation(hamiltonian) is None
    signed = tuple(bool(x) for x in np.asarray(hamiltonian.xy) > 0) if frustrated else None
    return VertexFacts(hamiltonian.lattice, hamiltonian.bond_pairs, bool(field.any()), signed)


def _degrees(hamiltonian: SpinHamiltonian) -> np.ndarray:
    return np.bincount(hamiltonian.bonds.ravel(), minlength=hamiltonian.n_sites)


class Vertices(NamedTuple):
    """Couplings, an argument of the sampler. A leg is up or down (a bit, one if down): those of the first and second site before the
    operator, then behind it, four bits of a state."""

    rate: jax.Array  # (n_bonds * 4,) float32: beta times the number of bonds times the element that keeps the two spins
    first: jax.Array  # (n_bonds * 64,) float32: chance of the first way, for each bond, state and leg by which a head comes
    either: jax.Array  # (n_bonds * 64,) float32: of the first or the second
    constant: jax.Array  # () C'
    least: jax.Array  # () beta C' with the other sign: what a mean number of vertices exceeds by -beta <H>


def _shares(hamiltonian: SpinHamiltonian) -> tuple[jax.Array, ...]:
    """Of every bond: zz, 2 |xy|, the fields of its first and second site, and C_b."""
    i, j = hamiltonian.bonds.T
    share = hamiltonian.z_field / np.maximum(_degrees(hamiltonian), 1)
    zz, exchange, f, g = hamiltonian.zz, 2 * jnp.abs(hamiltonian.xy), share[i], share[j]
    lowest = -jnp.maximum(zz + jnp.abs(f + g), jnp.abs(f - g) - zz)  # of -zz + (f + g) s and zz + (f - g) s
    # also that P + K >= X for every pair, so that heads that come along an exchange need not turn back
    pairs = (exchange + jnp.abs(f + g) + jnp.abs(f - g)) / 2
    return zz, exchange, f, g, jnp.maximum(LEAST * exchange - lowest, pairs)


def elements(hamiltonian: SpinHamiltonian) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of every bond: those that keep two spins (n_bonds, 4), of the states of the legs before; 2 |xy|, and C_b."""
    zz, exchange, f, g, lift = _shares(hamiltonian)
    s, t = (1 - 2 * (np.arange(4) >> leg & 1) for leg in (0, 1))
    kept = lift[:, None] - jnp.outer(zz, s * t) + jnp.outer(f, s) + jnp.outer(g, t)
    return kept, exchange, lift


def log_weight(hamiltonian: SpinHamiltonian, beta: jax.Array, counts: jax.Array) -> jax.Array:
    """ln of the weight of strings, (n_chains,), but for what does not depend on couplings and beta."""
    kept, exchange, lift = elements(hamiltonian)
    all_elements = jnp.concatenate([kept, exchange[:, None]], 1)
    logarithms = jnp.where(all_elements > 0, jnp.log(jnp.where(all_elements > 0, all_elements, 1.0)), 0.0)
    return jnp.tensordot(logarithms, counts.astype(float), 2) + counts.sum((0, 1)) * jnp.log(beta) - beta * lift.sum()


def vertices_of(hamiltonian: SpinHamiltonian, beta: jax.Array | float) -> Vertices:
    """Of couplings and a temperature."""
    kept, exchange, lift = elements(hamiltonian)
    state = np.arange(16)
    before, behind = state & 3, state >> 2
    crossed = (before ^ behind) == 3
    allowed = (before == behind) | (crossed & ((before == 1) | (before == 2)))
    weight = jnp.where(allowed, jnp.where(before == behind, kept[:, before], exchange[:, None]), 0)  # (n_bonds, 16)
    way = ways()
    leg = np.arange(4)
    to = [state[:, None] ^ (1 << leg) ^ (1 << way[k]) for k in range(2)]  # states after the first and the second way
    here, one, other = (weight[:, x] for x in (np.broadcast_to(state[:, None], (16, 4)), *to))

    def chance(of: jax.Array, against: jax.Array) -> jax.Array:
        flow = jnp.clip((here + of - against) / 2, 0, jnp.minimum(here, of))
        return jnp.where(here > 0, flow / jnp.where(here > 0, here, 1), 0)

    first, second = chance(one, other), chance(other, one)
    flat = lambda x: x.reshape(-1).astype(jnp.float32)  # noqa: E731
    least = beta * lift.sum()
    return Vertices(flat(beta * len(kept) * kept), flat(first), flat(first + second), -lift.sum(), least)


def ways() -> np.ndarray:
    """Legs by which a head may leave, (2, 16 states, 4 legs by which it comes): the two of the three others that leave a vertex with
    weight; of states without weight any.

    >>> ways()[:, 0, 0].tolist()  # of a vertex with all up: straight on, or across
    [2, 3]
    """
    found = np.zeros((2, 16, 4), int)
    for state in range(16):
        for leg in range(4):
            others = [k for k in range(4) if k != leg and _has_weight(state ^ (1 << leg) ^ (1 << k))]
            found[:, state, leg] = [*others, leg, leg][:2]
    return found


def _has_weight(state: int) -> bool:
    """Whether as many spins are up behind as before."""
    return bin(state & 3).count("1") == bin(state >> 2).count("1")


def vertex_slices(hamiltonian: SpinHamiltonian, beta: float) -> int:
    """As `strings.string_slices`: the norms of the operators bound the mean number of vertices."""
    zz, exchange, f, g, lift = (np.asarray(x, float) for x in _shares(hamiltonian))
    parallel, mixed = lift - zz + np.abs(f + g), lift + zz + np.hypot(exchange, f - g)
    mean = beta * float(np.maximum(parallel, mixed).sum())
    return -(-int(1.5 * mean + 10 * np.sqrt(mean) + CHUNK) // (2 * hamiltonian.n_sites))


class VertexInfo(NamedTuple):
    """What a sweep saw before its loops."""

    spins: jax.Array  # (N_TIMES, n_sites, n_chains) int8 +-1
    n_vertices: jax.Array  # (n_chains,) int32
    n_changes: jax.Array  # (n_chains,) int32, those at which spins are exchanged
    odd: jax.Array  # (n_chains,) int32, those among them that turn the sign
    counts: jax.Array | None = None  # (n_bonds, 5, n_chains), how often each of `elements` stands in the string, if asked for


class _State(NamedTuple):
    words: jax.Array  # (n_sites, n_chains) flattened int32: twice the leg where a worldline is, one more if the spin is down
    n: jax.Array
    slots: jax.Array
    states: jax.Array  # (n_slots, n_chains) int32, of vertices
    link: jax.Array  # (4 (n_slots + n_sites) n_chains,) int32: the leg at the other end of the worldline of every leg


def _walk(key: jax.Array, facts: VertexFacts, vertices: Vertices, strings: Strings) -> tuple[_State, jax.Array]:
    """Through all slots: vertices and their legs, and the spins at N_TIMES times.

    Leg k of slot p of a chain has number 4 (p n_chains + chain) + k; behind them stand those of the sites at the ends of the string.
    """
    (n_slots, n_chains), used, n_sites, n_bonds = strings.slots.shape, strings.used[0], facts.n_sites, len(facts.bond_pairs)
    pairs = np.array(facts.bond_pairs, np.int32).reshape(-1, 2).T
    chain = jnp.arange(n_chains, dtype=jnp.int32)

    def slot(carry: tuple, x: tuple) -> tuple[tuple, tuple]:
        (words, n), (old, bond, p, q, drawn, leg) = carry, x
        word_p, word_q = at(words, p), at(words, q)
        changes, before = changes_at(old), (word_p & 1) | (word_q & 1) << 1
        there, more = stays(old, True, drawn, at(vertices.rate, 4 * bond + before), used - n)
        behind = jnp.where(changes, before ^ 3, before)
        words = words.at[p].set(jnp.where(there, 2 * (leg + 2) | behind & 1, word_p), mode="promise_in_bounds")
        words = words.at[q].set(jnp.where(there, 2 * (leg + 3) | behind >> 1, word_q), mode="promise_in_bounds")
        slots = jnp.where(there, 2 * bond + changes, EMPTY)
        links = (jnp.where(there, word >> 1, leg + k) for k, word in enumerate((word_p, word_q)))
        return (words, n + more), (slots, before | behind << 2, *links)

    def chunk(k: jax.Array, state: _State) -> _State:
        old = lax.dynamic_slice_in_dim(strings.slots, k * CHUNK, CHUNK)
        bond, drawn = drawn_for(jax.random.fold_in(key, k), old, n_bonds)
        p, q = (at(jnp.asarray(site), bond) * n_chains + chain for site in pairs)
        leg = 4 * ((k * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32)[:, None]) * n_chains + chain)
        xs = old, bond, p, q, drawn, leg
        (words, n), (slots, states, below_p, below_q) = lax.scan(slot, (state.words, state.n), xs)
        own = jnp.stack([leg, leg + 1])  # the leg above a free slot is its own neighbour, too
        below = jnp.stack([below_p, below_q])
        link = state.link.at[own].set(below, mode="promise_in_bounds", unique_indices=True)
        link = link.at[below].set(own, mode="promise_in_bounds", unique_indices=True)
        return _State(words, n, put_chunk(state.slots, slots, k), put_chunk(state.states, states, k), link)

    end = 4 * (n_slots * n_chains + jnp.arange(n_sites * n_chains, dtype=jnp.int32))
    down = (strings.spins.reshape(-1) < 0).astype(jnp.int32)
    room = jnp.zeros((n_slots, n_chains), jnp.int32)
    link = jnp.arange(4 * (n_slots + n_sites) * n_chains, dtype=jnp.int32)
    n = (strings.slots >= 0).sum(0, dtype=jnp.int32)
    state = _State(2 * end | down, n, room + EMPTY, room, link)
    state, noted = in_chunks(used // CHUNK, chunk, lambda state: state.words & 1, state, len(end))
    first, last = at(state.link, end), state.words >> 1  # the string is closed: its ends are no legs
    link = state.link.at[jnp.where(first == end, end, first)].set(last, mode="promise_in_bounds")
    link = link.at[last].set(jnp.where(last == end, end, first), mode="promise_in_bounds")
    return state._replace(link=link), (1 - 2 * noted).astype(jnp.int8).reshape(-1, n_sites, n_chains)


def vertices_kernel(facts: VertexFacts, n_slots: int, *, counted: bool = False) -> SamplerKernel:
    """Chains of strings of at most n_slots vertices; `counted` for what `log_weight` needs."""
    n_sites, n_bonds = facts.n_sites, len(facts.bond_pairs)

    def step(key: jax.Array, vertices: Vertices, strings: Strings) -> tuple[Strings, VertexInfo]:
        key_walk, key_loops, key_free = jax.random.split(key, 3)
        n_chains = strings.spins.shape[-1]
        found, spins = _walk(key_walk, facts, vertices, strings)
        changes = changes_at(found.slots)
        odd = changes & at(jnp.asarray(facts.signed), jnp.maximum(found.slots >> 1, 0)) if facts.signed else jnp.zeros_like(changes)
        counts = None
        if counted:
            element = 5 * jnp.maximum(found.slots >> 1, 0) + jnp.where(changes, 4, found.states & 3)
            place = element * n_chains + jnp.arange(n_chains, dtype=jnp.int32)
            counts = jnp.zeros(5 * n_bonds * n_chains, jnp.int32).at[place].add(found.slots >= 0, mode="promise_in_bounds")
            counts = counts.reshape(n_bonds, 5, n_chains)
        info = VertexInfo(spins, found.n, changes.sum(0, dtype=jnp.int32), odd.sum(0, dtype=jnp.int32), counts)
        states = _loops(key_loops, vertices, found, strings.used[0], max(1, n_sites // SITES_A_LOOP))
        changed = ((states & 3) != (states >> 2)).astype(jnp.int32)
        slots = jnp.where(found.slots < 0, EMPTY, found.slots & ~1 | changed)
        end = 4 * (n_slots * n_chains + jnp.arange(n_sites * n_chains, dtype=jnp.int32))
        entry = at(found.link, end)
        bound = entry != end
        vertex = jnp.where(bound, entry >> 2, 0)
        down = jnp.where(bound, at(states.reshape(-1), vertex) >> (entry & 3) & 1, jax.random.bernoulli(key_free, 0.5, end.shape))
        after = (1 - 2 * down).astype(jnp.int8).reshape(strings.spins.shape)
        return with_room(Strings(slots, after, strings.used), found.n, vertices.least), info

    return SamplerKernel(lambda key, n_chains: begin_strings(key, n_sites, n_slots, n_chains), step)


def _loops(key: jax.Array, vertices: Vertices, found: _State, used: jax.Array, n_loops: int) -> jax.Array:
    """States of vertices after `n_loops` directed loops in every chain, some of them none: a loop begins at a leg of any slot in use."""
    n_chains = found.slots.shape[-1]
    chain = jnp.arange(n_chains, dtype=jnp.int32)
    key, key_start = jax.random.split(key)
    slot, leg = jax.random.randint(key_start, (2, n_loops + 1, n_chains), 0, jnp.array([used, 4])[:, None, None], jnp.int32)
    starts = (4 * (slot * n_chains + chain) + leg).reshape(-1)
    slots, one, other = found.slots.reshape(-1), *(jnp.asarray(x.reshape(-1), jnp.int32) for x in ways())

    def step(drawn: jax.Array, walk: tuple) -> tuple:
        states, head, start, done = walk
        vertex, leg = head >> 2, head & 3
        word, state = at(slots, vertex), at(states, vertex)
        there, walks = word >= 0, done < n_loops
        turn = 4 * state + leg
        chance = 64 * jnp.maximum(word >> 1, 0) + turn
        way = jnp.where(
            drawn < at(vertices.first, chance), at(one, turn), jnp.where(drawn < at(vertices.either, chance), at(other, turn), leg)
        )
        states = states.at[vertex].set(jnp.where(there & walks, state ^ (1 << leg) ^ (1 << way), state), mode="promise_in_bounds")
        out = 4 * vertex + way
        following = at(found.link, out)
        closed = ~there | (out == start) | (following == start)
        done = done + (closed & walks)
        begun = at(starts, done * n_chains + chain)
        return states, jnp.where(closed, begun, following), jnp.where(closed, begun, start), done

    def some(carry: tuple) -> tuple:
        key, walk = carry
        key, key_now = jax.random.split(key)
        drawn = (jax.random.bits(key_now, (TOGETHER, n_chains), jnp.uint32) >> 8).astype(jnp.float32) * jnp.float32(2**-24)
        return key, lax.fori_loop(0, TOGETHER, lambda k, walk: step(drawn[k], walk), walk)

    walk = found.states.reshape(-1), starts[:n_chains], starts[:n_chains], jnp.zeros(n_chains, jnp.int32)
    states = lax.while_loop(lambda carry: jnp.any(carry[1][3] < n_loops), some, (key, walk))[1][0]
    return states.reshape(found.states.shape)

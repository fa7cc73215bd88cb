"""Strings of the transverse-field Ising magnet: clusters in continuous imaginary time.

As in `sampling.strings`, -H = C + sum_g w_g G_g, here over graphs

    JOIN  of a bond: both spins stay, and agree with the sign of its coupling; their clusters are joined,       w = 2 |zz|,
    CUT   of a site: any spin before, any spin behind; a cluster ends and another begins,                       w = |gamma|,

with elements one or zero. Joins and cuts are put in and taken out where spins stay; then clusters turn over with probability 1/2.

Source: A. W. Sandvik, Phys. Rev. E 68, 056701 (2003).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.strings import (
    CHUNK,
    EMPTY,
    Strings,
    begin_strings,
    changes_at,
    drawn_for,
    flips,
    in_chunks,
    put_chunk,
    stays,
    with_room,
)
from thermodbm.sampling.union import Joints, at, merge, whole_blocks

SPARE, ROOM = 1.5, 1.7
"""As those of `strings`: with more empty slots more graphs are drawn anew in a sweep, which relaxes several times faster."""


class CutFacts(NamedTuple):
    """Hashable: what a program for the strings of a magnet depends on besides their length."""

    lattice: Lattice
    bond_pairs: tuple[tuple[int, int], ...]
    joins: tuple[int, ...]  # bonds with a coupling
    cuts: tuple[int, ...]  # sites with a transverse field

    @property
    def n_sites(self) -> int:
        """Number of spins."""
        return self.lattice.n_sites

    @property
    def sites(self) -> np.ndarray:
        """On which every graph acts, joins first, (2, n_graphs) int32; number n_sites is none."""
        pairs = np.array(self.bond_pairs, np.int32).reshape(-1, 2)[np.array(self.joins, int)]
        alone = np.stack([np.array(self.cuts, np.int32), np.full(len(self.cuts), self.n_sites, np.int32)], 1)
        return np.concatenate([pairs, alone]).T


def cut_facts(hamiltonian: SpinHamiltonian) -> CutFacts:
    """Of a Hamiltonian whose couplings are numbers. They hold as long as none becomes or ceases to be zero.

    Raises:
        InputError: for a magnet in a field along z, or without a transverse one.
    """
    if np.any(np.asarray(hamiltonian.z_field)):
        hint = "Leave method.sampler out: the layered ring has it."
        raise InputError("model.h", expected="no field along z with sampler = series", found="one", hint=hint)
    joins, cuts = (tuple(int(k) for k in np.flatnonzero(np.asarray(x))) for x in (hamiltonian.zz, hamiltonian.x_field))
    if not cuts:
        raise InputError("model.gamma", expected="a transverse field with sampler = series", found="none")
    return CutFacts(hamiltonian.lattice, hamiltonian.bond_pairs, joins, cuts)


class Cuts(NamedTuple):
    """Couplings, an argument of the sampler."""

    rate: jax.Array  # (n_graphs,) float32: beta times the number of graphs times the weight
    differ: jax.Array  # (n_graphs,) whether a join wants antiparallel spins
    constant: jax.Array  # () C
    least: jax.Array  # () -beta C, which the mean number of graphs exceeds by -beta <H>


def cuts_of(facts: CutFacts, hamiltonian: SpinHamiltonian, beta: jax.Array | float) -> Cuts:
    """Of couplings and a temperature."""
    zz, gamma = hamiltonian.zz[np.array(facts.joins, int)], hamiltonian.x_field[np.array(facts.cuts, int)]
    rate = beta * (len(zz) + len(gamma)) * jnp.concatenate([2 * jnp.abs(zz), jnp.abs(gamma)])
    taken_off = jnp.abs(zz).sum() + jnp.abs(gamma).sum()
    differ = jnp.concatenate([zz > 0, jnp.zeros(len(gamma), bool)])
    return Cuts(rate.astype(jnp.float32), differ, -taken_off, beta * taken_off)


def cut_slices(hamiltonian: SpinHamiltonian, beta: float) -> int:
    """As `strings.string_slices`."""
    mean = 2 * beta * float(np.abs(np.asarray(hamiltonian.zz)).sum() + np.abs(np.asarray(hamiltonian.x_field)).sum())
    return -(-int(ROOM * mean + 10 * np.sqrt(mean) + CHUNK) // (2 * hamiltonian.n_sites))


class CutInfo(NamedTuple):
    """What a sweep saw, its clusters turned over. Those of all chains are numbered together: row times n_chains plus the chain."""

    spins: jax.Array  # (N_TIMES, n_sites, n_chains) int8 +-1
    clusters: jax.Array  # (N_TIMES, n_sites, n_chains) int32
    slots: jax.Array  # as those of the state
    ended: jax.Array  # (n_slots, n_chains) int32: twice the cluster that ends with a cut, one more if its spin is down there
    begun: jax.Array  # (n_slots, n_chains) int32: the cluster that begins with it
    used: jax.Array  # () int32, slots in use
    n_graphs: jax.Array  # (n_chains,) int32
    n_changes: jax.Array  # (n_chains,) int32, cuts at which the spin turns


class _State(NamedTuple):
    words: jax.Array  # (n_sites + 1, n_chains) flattened int32: twice the label of a cluster, one more if the spin is down
    n: jax.Array
    slots: jax.Array
    before: jax.Array  # (n_slots, 2, n_chains) words of both sites before every graph


def _walk(key: jax.Array, facts: CutFacts, cuts: Cuts, strings: Strings) -> tuple[_State, jax.Array]:
    """Through all slots: what is in them, and the words of all spins at N_TIMES times.

    Labels are sites, then n_sites plus a slot, times n_chains plus the chain.
    """
    (n_slots, n_chains), used, n_sites = strings.slots.shape, strings.used[0], facts.n_sites
    n_joins, n_graphs = len(facts.joins), len(facts.joins) + len(facts.cuts)
    chain = jnp.arange(n_chains, dtype=jnp.int32)

    def slot(carry: tuple, x: tuple) -> tuple[tuple, tuple]:
        (words, n), (old, graph, p, q, drawn, rate, differ, new) = carry, x
        word_p, word_q = at(words, p), at(words, q)
        changes, cut = changes_at(old), graph >= n_joins
        there, more = stays(old, cut | (((word_p ^ word_q) & 1 == 1) == differ), drawn, rate, used - n)
        words = words.at[p].set(jnp.where(there & cut, 2 * new | word_p & 1 ^ changes, word_p), mode="promise_in_bounds")
        return (words, n + more), (jnp.where(there, 2 * graph + changes, EMPTY), word_p, word_q)

    def chunk(k: jax.Array, state: _State) -> _State:
        old = lax.dynamic_slice_in_dim(strings.slots, k * CHUNK, CHUNK)
        graph, drawn = drawn_for(jax.random.fold_in(key, k), old, n_graphs)
        p, q = (at(jnp.asarray(site), graph) * n_chains + chain for site in facts.sites)
        new = (n_sites + k * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32)[:, None]) * n_chains + chain
        xs = old, graph, p, q, drawn, at(cuts.rate, graph), at(cuts.differ, graph), new
        (words, n), (slots, first, second) = lax.scan(slot, (state.words, state.n), xs)
        return _State(words, n, put_chunk(state.slots, slots, k), put_chunk(state.before, jnp.stack([first, second], 1), k))

    site = jnp.arange(n_sites * n_chains, dtype=jnp.int32)
    down, none = (strings.spins.reshape(-1) < 0).astype(jnp.int32), jnp.zeros(n_chains, jnp.int32)
    n, before = (strings.slots >= 0).sum(0, dtype=jnp.int32), jnp.zeros((n_slots, 2, n_chains), jnp.int32)
    state = _State(jnp.concatenate([2 * site + down, none]), n, jnp.full_like(strings.slots, EMPTY), before)
    return in_chunks(used // CHUNK, chunk, lambda state: state.words[: len(site)], state, len(site))


def _roots(facts: CutFacts, found: _State, used: jax.Array) -> jax.Array:
    """Cluster of every label: joins, and what leaves the last slot at a site with what enters the first."""
    (n_slots, n_chains), n_sites = found.slots.shape, facts.n_sites
    joins = (found.slots >= 0) & (found.slots >> 1 < len(facts.joins))
    site = jnp.arange(n_sites * n_chains, dtype=jnp.int32)
    room = whole_blocks((n_slots + n_sites) * n_chains)

    def listed(words: jax.Array, last: jax.Array) -> jax.Array:
        inside = jnp.where(joins, words >> 1, 0).reshape(-1)
        return lax.dynamic_update_slice_in_dim(jnp.pad(inside, (0, room - len(inside))), last, used * n_chains, 0)

    n_labels = (n_sites + used) * n_chains
    ends = listed(found.before[:, 0], found.words[: len(site)] >> 1), listed(found.before[:, 1], site)
    return merge((n_sites + n_slots) * n_chains, Joints(*ends, n_labels), n_labels)


def cuts_kernel(facts: CutFacts, n_slots: int) -> SamplerKernel:
    """Chains of strings of at most n_slots graphs."""
    n_sites, n_joins = facts.n_sites, len(facts.joins)

    def step(key: jax.Array, cuts: Cuts, strings: Strings) -> tuple[Strings, CutInfo]:
        key_walk, key_flip = jax.random.split(key)
        n_chains, used = strings.spins.shape[-1], strings.used[0]
        found, noted = _walk(key_walk, facts, cuts, strings)
        root = _roots(facts, found, used)
        turned = flips(key_flip, root.size)

        def settle(k: jax.Array, state: tuple) -> tuple:
            """Cuts of a chunk after the flips."""
            slots, ended, begun, n_changes = state
            old, word = (lax.dynamic_slice_in_dim(x, k * CHUNK, CHUNK) for x in (found.slots, found.before[:, 0]))
            own = lax.dynamic_slice_in_dim(root, (n_sites + k * CHUNK) * n_chains, CHUNK * n_chains).reshape(CHUNK, n_chains)
            cluster, cut = at(root, word >> 1), old >> 1 >= n_joins
            changes = jnp.where(cut, old & 1 ^ turned(own) ^ turned(cluster), 0)
            new = jnp.where(old < 0, EMPTY, old & ~1 | changes)
            n_changes += changes.sum(0, dtype=jnp.int32)
            end = 2 * cluster + (word & 1 ^ turned(cluster))
            return put_chunk(slots, new, k), put_chunk(ended, end, k), put_chunk(begun, own, k), n_changes

        none = jnp.zeros_like(found.slots)
        slots, ended, begun, n_changes = lax.fori_loop(jnp.int32(0), used // CHUNK, settle, (found.slots, none, none, none[0]))
        at_times = at(root, noted >> 1)
        spins = (1 - 2 * (noted & 1 ^ turned(at_times))).astype(jnp.int8).reshape(-1, n_sites, n_chains)
        info = CutInfo(spins, at_times.reshape(spins.shape), slots, ended, begun, used, found.n, n_changes)
        return with_room(Strings(slots, spins[0], strings.used), found.n, cuts.least, SPARE, ROOM), info

    return SamplerKernel(lambda key, n_chains: begin_strings(key, n_sites, n_slots, n_chains), step)

"""Continuous imaginary time: the ring at a vanishing Trotter step, of which only the gates that do something are kept.

As the step vanishes nearly all gates of a ring act as the identity. What is left is a series: -H = C + sum_g w_g G_g over graphs g of
bonds, whose powers are strings of graphs in order of imaginary time,

    Z = exp(beta C) sum_n beta^n / n!  sum_{g_1 ... g_n}  w_g1 ... w_gn  Tr G_gn ... G_g1.

A string is a network whose layers are drawn along with its units: what graphs join are its hidden units, the spins between two graphs its
deep ones. It is kept in slots, more than there are graphs; n graphs can be spread over M slots in M!/(n! (M - n)!) ways, so that a string
with its empty slots weighs beta^n (M - n)!/M! times its w. Matrix elements of graphs are one or zero:

    HORIZONTAL  spins are antiparallel before, and behind; a loop turns back on both sides,
    DIAGONAL    two spins change places, and their loops with them.

Source: A. W. Sandvik, Phys. Rev. B 59, R14157 (1999); Phys. Rev. E 68, 056701 (2003); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice
from thermodbm.models.rotation import sublattice_rotation
from thermodbm.sampling.union import at

HORIZONTAL, DIAGONAL = range(2)
EMPTY = -1
"""What stands in a slot without a graph."""
N_TIMES = 8
"""Times of a string at which its spins are noted down."""
CHUNK = 32
"""Slots whose random numbers are drawn at once; strings are in whole chunks, and begin with one."""
SPARE, ROOM = 1.1, 1.25
"""Where there are fewer slots for each graph of the longest string so far than the first, slots are made as many as the second says:
enough that few insertions find no empty one, and soon, that thermalisation is not that of short strings."""


class StringFacts(NamedTuple):
    """Hashable: what a program for the strings of a magnet depends on besides their length."""

    lattice: Lattice
    bond_pairs: tuple[tuple[int, int], ...]
    rotation: tuple[int, ...]  # signs of `models.rotation.sublattice_rotation`
    kinds: tuple[int, ...]  # of every graph
    bonds: tuple[int, ...]  # on which it acts

    @property
    def n_sites(self) -> int:
        """Number of spins."""
        return self.lattice.n_sites

    @property
    def sites(self) -> np.ndarray:
        """On which every graph acts, (2, n_graphs) int32."""
        return np.array(self.bond_pairs, np.int32).reshape(-1, 2)[np.array(self.bonds, int)].T

    @property
    def twins(self) -> np.ndarray:
        """The other graph of the same bond, HORIZONTAL or DIAGONAL, or itself where there is none, (n_graphs,)."""
        number = {graph: k for k, graph in enumerate(zip(self.kinds, self.bonds, strict=True))}
        return np.array([number.get((HORIZONTAL + DIAGONAL - kind, bond), k) for (kind, bond), k in number.items()], np.int32)

    def are(self, kind: int) -> np.ndarray:
        """Which graphs are of a kind, (n_graphs,)."""
        return np.array(self.kinds, int) == kind


def string_facts(hamiltonian: SpinHamiltonian) -> StringFacts:
    """Of a Hamiltonian whose couplings are numbers, and `turns_freely`. They hold as long as no weight becomes or ceases to be zero."""
    kept = [(kind, bond) for kind, weights in _weights(hamiltonian).items() for bond in np.flatnonzero(np.asarray(weights) > 1e-12)]
    kinds, bonds = tuple(int(kind) for kind, _ in kept), tuple(int(bond) for _, bond in kept)
    rotation = tuple(np.asarray(sublattice_rotation(hamiltonian)).tolist())
    return StringFacts(hamiltonian.lattice, hamiltonian.bond_pairs, rotation, kinds, bonds)


def turns_freely(hamiltonian: SpinHamiltonian) -> bool:
    """Whether loops turn over at no cost: without field along z, frustrated exchange and easy axes."""
    zz, xy = np.asarray(hamiltonian.zz), np.asarray(hamiltonian.xy)
    easy_axis, field = np.any(np.abs(zz) > np.abs(xy) * (1 + 1e-12)), np.any(np.asarray(hamiltonian.z_field))
    return not (easy_axis or field) and sublattice_rotation(hamiltonian) is not None


def _weights(hamiltonian: SpinHamiltonian) -> dict[int, jax.Array]:
    """Weights of the graphs of both kinds, of every bond."""
    zz, xy = hamiltonian.zz, jnp.abs(hamiltonian.xy)
    return {HORIZONTAL: xy + zz, DIAGONAL: xy - zz}


def weights_of(facts: StringFacts, hamiltonian: SpinHamiltonian) -> jax.Array:
    """Of every graph, (n_graphs,)."""
    weights, bonds = _weights(hamiltonian), np.array(facts.bonds, int)
    return jnp.where(facts.are(HORIZONTAL), weights[HORIZONTAL][bonds], weights[DIAGONAL][bonds])


class Graphs(NamedTuple):
    """Couplings, an argument of the sampler."""

    rate: jax.Array  # (n_graphs,) float32: beta times the number of graphs times its weight
    constant: jax.Array  # () C
    least: jax.Array  # () -beta C, which the mean number of graphs exceeds by -beta <H>


def graphs_of(facts: StringFacts, hamiltonian: SpinHamiltonian, beta: jax.Array | float) -> Graphs:
    """Of couplings and a temperature."""
    weight, taken_off = weights_of(facts, hamiltonian), jnp.abs(hamiltonian.xy).sum()
    return Graphs((beta * len(weight) * weight).astype(jnp.float32), -taken_off, beta * taken_off)


def string_slices(hamiltonian: SpinHamiltonian, beta: float) -> int:
    """Slots that no string fills, in units of two for each site: beta times the norms of all w G bounds the mean number of graphs, and
    there are ten standard deviations above it."""
    norms = {HORIZONTAL: 2, DIAGONAL: 1}
    mean = beta * sum(norms[kind] * float(np.clip(np.asarray(w, float), 0, None).sum()) for kind, w in _weights(hamiltonian).items())
    return -(-int(1.5 * mean + 10 * np.sqrt(mean) + CHUNK) // (2 * hamiltonian.n_sites))


def n_slots_of(n_sites: int, n_slices: int) -> int:
    """Slots for a number of `string_slices`, in whole chunks."""
    return -(-2 * n_slices * n_sites // CHUNK) * CHUNK


class Strings(NamedTuple):
    """States of chains, which are the last axis."""

    slots: jax.Array  # (n_slots, n_chains) int32: twice the number of a graph, one more if spins change there; or EMPTY
    spins: jax.Array  # (n_sites, n_chains) int8 +-1, before the first slot
    used: jax.Array  # (n_chains,) int32, slots in use: of all chains the same


def begin_strings(key: jax.Array, n_sites: int, n_slots: int, n_chains: int) -> Strings:
    """Empty strings and any spins."""
    spins = jnp.where(jax.random.bernoulli(key, 0.5, (n_sites, n_chains)), 1, -1).astype(jnp.int8)
    return Strings(jnp.full((n_slots, n_chains), EMPTY, jnp.int32), spins, jnp.full(n_chains, CHUNK, jnp.int32))


def with_room(strings: Strings, n: jax.Array, least: jax.Array, spare: float = SPARE, room: float = ROOM) -> Strings:
    """With more slots in use if the longest string, of n (n_chains,), or one of `least`, wants them."""
    used, longest = strings.used[0], jnp.maximum(n.max(), least)
    wanted = jnp.where(spare * longest > used, jnp.ceil(room * longest / CHUNK).astype(jnp.int32) * CHUNK, used)
    return strings._replace(used=jnp.broadcast_to(jnp.clip(wanted, used, len(strings.slots)), strings.used.shape))


def resize_strings(strings: Strings, n_slots: int) -> Strings:
    """A start with another number of slots: straight worldlines where there are fewer."""
    here = len(strings.slots)
    if n_slots < here:
        return Strings(jnp.full_like(strings.slots[:n_slots], EMPTY), strings.spins, jnp.full_like(strings.used, CHUNK))
    return strings._replace(slots=jnp.pad(strings.slots, ((0, n_slots - here), (0, 0)), constant_values=EMPTY))


class Proposals(NamedTuple):
    """What stands in some slots, or might be put there: arrays (n, n_chains)."""

    old: jax.Array  # words of the slots
    graph: jax.Array
    first: jax.Array  # place of its first spin: site times n_chains plus chain
    second: jax.Array
    drawn: jax.Array  # uniform random numbers
    rate: jax.Array
    diagonal: jax.Array  # whether the graph is DIAGONAL
    new: jax.Array  # label that would begin there


def drawn_for(key: jax.Array, slots: jax.Array, n_kinds: int) -> tuple[jax.Array, jax.Array]:
    """What stands in slots (n, n_chains), and in empty ones one of n_kinds drawn with equal chances; and uniform random numbers."""
    bits = jax.random.bits(key, slots.shape, jnp.uint64)
    found = jnp.where(slots < 0, ((bits >> 32) * np.uint64(n_kinds) >> 32).astype(jnp.int32), slots >> 1)
    return found, (bits.astype(jnp.uint32) >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def changes_at(slots: jax.Array) -> jax.Array:
    """Whether spins change there."""
    return (slots >= 0) & (slots & 1 == 1)


def proposals(key: jax.Array, facts: StringFacts, graphs: Graphs, slots: jax.Array, begin: jax.Array) -> Proposals:
    """For slots (n, n_chains) of which the first has number `begin`: in each empty one, any graph; where spins are exchanged, HORIZONTAL or
    DIAGONAL by their weights, without which the number of either would keep its parity."""
    n_slots, n_chains = slots.shape
    chain, n_graphs = jnp.arange(n_chains, dtype=jnp.int32), len(facts.kinds)
    graph, drawn = drawn_for(key, slots, n_graphs)
    if np.any(facts.twins != np.arange(n_graphs)):
        twin = at(jnp.asarray(facts.twins), graph)
        rate, other = at(graphs.rate, graph), at(graphs.rate, twin)
        graph = jnp.where(changes_at(slots) & (drawn * (rate + other) < other), twin, graph)
    first, second = (at(jnp.asarray(sites), graph) * n_chains + chain for sites in facts.sites)
    new = (facts.n_sites + begin + jnp.arange(n_slots, dtype=jnp.int32)[:, None]) * n_chains + chain
    return Proposals(slots, graph, first, second, drawn, at(graphs.rate, graph), at(jnp.asarray(facts.are(DIAGONAL)), graph), new)


def stays(old: jax.Array, fits: jax.Array | bool, drawn: jax.Array, rate: jax.Array, n_empty: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether something stands in a slot with word `old` afterwards, and by how much there is more, (n_chains,) all.

    Of n_kinds that might stand there, one of weight w is put in with probability min(1, beta n_kinds w/(M - n)) where it fits, and taken
    out with min(1, (M - n + 1)/(beta n_kinds w)) if no spin changes there.

    Args:
        rate: beta n_kinds w.
        n_empty: M - n.
    """
    room, fresh = n_empty.astype(jnp.float32), old < 0
    put = fresh & fits & (drawn * room < rate)
    out = ~fresh & ~changes_at(old) & (drawn * rate < room + 1)
    return put | ~fresh & ~out, put.astype(jnp.int32) - out.astype(jnp.int32)


def flips(key: jax.Array, n_labels: int) -> Callable[[jax.Array], jax.Array]:
    """Whether clusters turn over, 0 or 1, as a function of their labels: each with probability 1/2."""
    bits = jax.random.bits(key, (-(-n_labels // 32),), jnp.uint32)
    return lambda label: ((at(bits, label >> 5) >> (label & 31).astype(jnp.uint32)) & 1).astype(jnp.int32)


class Walk(NamedTuple):
    """What one walk through all slots found. A word is twice a label, one more if the spin is down; labels are slots in which strands
    begin, behind one for each site, times n_chains plus the chain."""

    root: jax.Array  # of every label
    slots: jax.Array  # as those of the state
    before: jax.Array  # (n_slots, 2, n_chains) int32 words of both spins before every graph
    noted: jax.Array  # (N_TIMES, n_sites * n_chains) int32 words of all spins
    n_graphs: jax.Array  # (n_chains,)


def in_chunks(
    n_chunks: jax.Array, step: Callable[[jax.Array, Any], Any], note: Callable[[Any], jax.Array], state: Any, n_noted: int
) -> tuple[Any, jax.Array]:
    """`state` after step(k, state) for all chunks, with note(state), (n_noted,) int32 words, at N_TIMES times, the first at the start."""

    def part(t: jax.Array, carry: tuple) -> tuple:
        state, noted = carry
        noted = lax.dynamic_update_index_in_dim(noted, note(state), t, 0)
        return lax.fori_loop(t * n_chunks // N_TIMES, (t + 1) * n_chunks // N_TIMES, step, state), noted

    return lax.fori_loop(jnp.int32(0), jnp.int32(N_TIMES), part, (state, jnp.zeros((N_TIMES, n_noted), jnp.int32)))


def put_chunk(whole: jax.Array, chunk: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th chunk of an array along its first axis."""
    return lax.dynamic_update_slice_in_dim(whole, chunk, k * CHUNK, 0)

"""Loop update of the exchange network: Heisenberg and XXZ magnets of every kind, in a field along z, frustrated or not.

The deep units of both copies, phi(v, d) conj(phi(v, dbar)), are worldlines of spins on a ring of plaquettes; the visible spins are summed
over (two half gates make a whole one). The modulus of each gate element is split over graphs that join its legs in pairs or all four,

    a = v + x + f_a    b = v + h + f_b    |c| = x + h + f_c    (v vertical, x diagonal, h horizontal, f frozen),

graphs are drawn given the spins, and the loops or clusters they form are flipped independently. With v = (a + b - |c|)/2 and likewise x and
h, nothing is frozen while the triangle inequality holds, |zz| <= |xy|; beyond that (easy axis) one element exceeds the sum of the others,
and the excess is frozen.

Source: H. G. Evertz, Adv. Phys. 52, 1 (2003), sections 3 and 4; N. Kawashima, J. Stat. Phys. 82, 131 (1996).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import GateLayers, gate_elements, gate_groups
from thermodbm.sampling.exchange_facts import ExchangeFacts
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.loop_labels import (
    DIAGONAL,
    FROZEN,
    HORIZONTAL,
    VERTICAL,
    PlaquetteRing,
    chains_together,
    label_clusters,
    n_labels,
    ring_of_gates,
    take,
)
from thermodbm.sampling.loop_weights import LoopParams, graph_weights
from thermodbm.sampling.union import at
from thermodbm.sampling.worm import directed_loops

SITES_A_LOOP = 8
"""In a field, sites for every directed loop of a sweep: together they pass about a third of all cells."""
MIXING = 0.5
"""Share of the graphs of a mixed bond that are lent to the kind it lacks."""


class LoopInfo(NamedTuple):
    """Through what the spins moved. Carry it through a scan even where it is not needed: otherwise XLA computes the graphs anew for each
    of their uses."""

    graphs: jax.Array  # (n_chains, n_layers, n_pairs)
    labels: jax.Array  # (n_chains, n_layers, 2, n_pairs), of `label_clusters` for groups of `chains_together`


def loop_params(hamiltonian: SpinHamiltonian, ring: PlaquetteRing, beta: jax.Array | float) -> LoopParams:
    """Of a Trotter product, with delta = beta / n_steps; linear in beta."""
    delta = jnp.asarray(beta, float) / ring.n_steps
    pad = jnp.zeros(1)
    zz, xy, z_field = (jnp.concatenate([x, pad]) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.z_field))
    layers = np.zeros(len(ring.sites))
    layers[0] += 0.5  # half just below and half just above the first group of gates
    layers[1 % len(layers)] += 0.5
    duration = delta * jnp.where(ring.bonds >= 0, ring.fractions[:, None], 0)
    return LoopParams(zz[ring.bonds] * duration, xy[ring.bonds] * duration, delta * layers[:, None, None] * z_field[ring.sites])


def layered_ring(bonds: np.ndarray, n_sites: int, n_steps: int, n_second: int | None = None) -> PlaquetteRing:
    """The closed ring of `GateLayers`, cut at the spins: their cells are the inputs of layer 0, those of the ancillas of the layer behind
    all those of the first copy. The second copy may have another number of steps."""
    first, second = gate_groups(bonds, n_steps), gate_groups(bonds, n_second or n_steps)
    return ring_of_gates(n_sites, bonds, [*first[::-1], *second])


def close_gates(network: GateLayers, ring: PlaquetteRing, second: GateLayers | None = None) -> LoopParams:
    """|Psi|^2 of layers of gates on their `layered_ring`, or Tr A B with a second network, without fields; differentiable."""
    second = network if second is None else second

    def closed(x: jax.Array, y: jax.Array) -> jax.Array:
        both = jnp.pad(jnp.concatenate([x[::-1], y]), ((0, 0), (0, 1)))  # bond number -1 is a gate that does nothing
        return jnp.take_along_axis(both, jnp.asarray(ring.bonds) % both.shape[1], axis=1)

    return LoopParams(closed(network.zz, second.zz), closed(network.xy, second.xy), jnp.zeros((len(ring.bonds), 2, ring.shape[2])))


def straight_worldlines(ring: PlaquetteRing, spins: jax.Array) -> jax.Array:
    """Worldlines without exchange, from spins (n_chains, n_sites): a start that has weight at any temperature."""
    idle = jnp.ones((len(spins), 1), spins.dtype)
    return jnp.concatenate([spins, idle], axis=1)[:, np.tile(ring.sites, (ring.n_steps, 1, 1))]


def spins_of_layer(ring: PlaquetteRing, spins: jax.Array, step: int | np.ndarray) -> jax.Array:
    """Spins by site in the first layer of a step or of several, (n_chains, ..., n_sites)."""
    layers = spins[:, np.asarray(step) * len(ring.sites)]
    place = np.argsort(ring.sites[0].reshape(-1))[: ring.n_sites]
    return layers.reshape(*layers.shape[:-2], -1)[..., place]


def loop_kernel(facts: ExchangeFacts, ring: PlaquetteRing) -> SamplerKernel:
    """The loop update on a ring; chains are the first axis. Which bonds freeze or mix and whether there is a field is fixed here.

    The state is the spins, (n_chains, n_layers, 2, n_pairs) int8 +-1.
    """
    choices = mixed_gates(facts, ring)

    def init(key: jax.Array, n_chains: int) -> jax.Array:
        return straight_worldlines(ring, jax.random.rademacher(key, (n_chains, ring.n_sites), jnp.int8))

    def flip(key: jax.Array, params: LoopParams, spins: jax.Array, graphs: jax.Array) -> tuple[jax.Array, jax.Array]:
        labels = label_clusters(ring, graphs, frozen=facts.regime.frozen)
        field = jnp.tile(params.field, (ring.n_steps, 1, 1)) * spins if facts.with_field else None
        return jnp.where(_draw_flips(key, n_labels(graphs), labels, field), -spins, spins), labels

    def step(key: jax.Array, params: LoopParams, spins: jax.Array) -> tuple[jax.Array, LoopInfo]:
        if facts.with_field:
            key, key_directed = jax.random.split(key)
            spins = directed_loops(key_directed, ring, params, spins, -(-ring.n_sites // SITES_A_LOOP))
        key_graph, key_flip, key_choice = jax.random.split(key, 3) if len(choices) > 1 else (*jax.random.split(key), None)
        share = None
        if len(choices):
            share = MIXING * choices[0 if key_choice is None else jax.random.randint(key_choice, (), 0, len(choices))]
        graphs = draw_graphs(key_graph, ring, params, spins, frozen=facts.regime.frozen, share=share)
        n_groups = len(spins) // chains_together(ring, len(spins))
        grouped = jax.tree.map(lambda x: x.reshape(n_groups, -1, *x.shape[1:]), (spins, graphs))
        keys = jax.random.split(key_flip, n_groups)
        done = jax.lax.map(lambda group: flip(group[0], params, *group[1]), (keys, grouped))
        spins, labels = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), done)
        return spins, LoopInfo(graphs, labels)

    return SamplerKernel(init, step)


def mixed_gates(facts: ExchangeFacts, ring: PlaquetteRing) -> jax.Array:
    """The choices of mixed bonds laid out on the ring, (n_choices, n_sub, n_pairs) 1 or 0."""
    choices = [[*choice, False] for choice in facts.regime.mixed]  # a gate that does nothing has number -1
    return jnp.asarray([np.array(choice, float)[ring.bonds] for choice in choices])


def draw_graphs(
    key: jax.Array, ring: PlaquetteRing, params: LoopParams, spins: jax.Array, *, frozen: bool, share: jax.Array | None = None
) -> jax.Array:
    """A graph for every plaquette given its legs, (n_chains, n_layers, n_pairs) int8.

    Args:
        frozen: whether weights may leave something to frozen graphs.
        share: mixing of the graphs of each gate, (n_sub, n_pairs); see `graph_weights`.
    """
    n_chains, (n_layers, _, n_pairs) = len(spins), ring.shape
    elements = gate_elements(params.zz, params.xy, 1.0)
    a, b, c = elements.parallel, elements.kept, jnp.abs(elements.exchanged)
    v, h, x = graph_weights(elements, share)
    n_steps = ring.n_steps

    def threshold(part: jax.Array, whole: jax.Array) -> jax.Array:
        share = jnp.where(whole > 0, part / whole, 0.0)
        return jnp.tile(jnp.round(share * 2.0**31).astype(jnp.uint32), (n_steps, 1))

    # 31 bits: a share of one is more than any of them, and what has no weight is never drawn
    bits = jax.vmap(lambda k: jax.random.bits(k, (n_layers, n_pairs), jnp.uint32))(jax.random.split(key, n_chains)) >> 1

    def choose(first: int, second: int, w_first: jax.Array, w_second: jax.Array, whole: jax.Array) -> jax.Array:
        other = jnp.int8(second)
        if frozen:
            other = jnp.where(bits < threshold(w_first + w_second, whole), other, jnp.int8(FROZEN))
        return jnp.where(bits < threshold(w_first, whole), jnp.int8(first), other)

    parallel, kept = spins[:, :, 0] == spins[:, :, 1], spins[:, :, 0] == take(spins, ring.up[:, 0])
    antiparallel = jnp.where(kept, choose(VERTICAL, HORIZONTAL, v, h, b), choose(DIAGONAL, HORIZONTAL, x, h, c))
    return jnp.where(parallel, choose(VERTICAL, DIAGONAL, v, x, a), antiparallel)


def _draw_flips(key: jax.Array, n_labels: int, labels: jax.Array, field: jax.Array | None) -> jax.Array:
    """Whether each cell's loop is flipped: a fair coin, or probability 1/(1 + exp(2 phi)) with phi the sum of the loop's field * spin."""
    if field is None:  # coins lie 32 to a word
        words = jax.random.bits(key, (-(-n_labels // 32),), jnp.uint32)
        return (at(words, labels >> 5) >> (labels & 31).astype(jnp.uint32)) & 1 == 1
    phi = jnp.zeros(n_labels).at[labels].add(field, mode="promise_in_bounds")
    return at(jax.random.uniform(key, phi.shape) < jax.nn.sigmoid(-2 * phi), labels)

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

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import GateElements, balanced_signs, gate_elements
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
    take,
)
from thermodbm.sampling.union import at


class GraphWeights(NamedTuple):
    """Weights of the graphs of a plaquette, or their derivatives with respect to the duration of the gate; any shape."""

    vertical: jax.Array
    horizontal: jax.Array
    diagonal: jax.Array


class LoopParams(NamedTuple):
    """What the update needs to know of couplings and Trotter step: arguments of the jitted step."""

    delta: jax.Array  # () Trotter step
    zz: jax.Array  # (n_sub, n_pairs) coupling of each gate; zero where it does nothing
    xy: jax.Array  # (n_sub, n_pairs)
    field: jax.Array  # (n_sub, 2, n_pairs) exponent of the field for each cell of a step: weight exp(field * spin)


def loop_params(hamiltonian: SpinHamiltonian, ring: PlaquetteRing, beta: jax.Array | float) -> LoopParams:
    """Couplings and field laid out on the ring, with delta = beta / n_steps."""
    delta = jnp.asarray(beta, float) / ring.n_steps
    busy = ring.bonds >= 0
    pad = jnp.zeros(1)
    zz, xy, z_field = (jnp.concatenate([x, pad]) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.z_field))
    layers = np.zeros(len(ring.sites))
    layers[0] += 0.5  # half just below and half just above the first group of gates
    layers[1 % len(layers)] += 0.5
    field = delta * layers[:, None, None] * z_field[ring.sites]
    return LoopParams(delta, jnp.where(busy, zz[ring.bonds], 0), jnp.where(busy, xy[ring.bonds], 0), field)


class Regime(NamedTuple):
    """What kind of graphs the couplings need."""

    frozen: bool  # some graphs join all four legs
    mixed: bool  # diagonal graphs are added where there would be none


def regime(hamiltonian: SpinHamiltonian) -> Regime:
    """Bonds with |zz| > |xy| freeze. Bonds with zz >= |xy| offer no diagonal, those with zz <= -|xy| no horizontal graph.

    If signs of the sites exist that differ across the former and agree across the latter, every configuration can reach that one,
    and the update is ergodic. If not (odd rings of antiferromagnetic bonds), the number of exchanges would keep its parity: adding
    diagonal graphs, at the price of freezing, lets every configuration reach the ferromagnetic one.
    """
    zz, xy = np.asarray(hamiltonian.zz), np.abs(np.asarray(hamiltonian.xy))
    single = (np.abs(zz) > xy * (1 - 1e-12)) & (xy > 0)
    mixed = balanced_signs(hamiltonian.n_sites, hamiltonian.bonds, np.where(single, zz, 0)) is None
    return Regime(mixed or bool(np.any(np.abs(zz) > xy * (1 + 1e-12))), mixed)


def graph_weights(elements: GateElements, mixed: bool) -> GraphWeights:
    """v, h and x for elements a, b, |c|; what they leave of a, b and c is the weight of the frozen graph."""
    a, b, c = elements.parallel, elements.kept, jnp.abs(elements.exchanged)
    easy_axis, easy_axis_fm = b >= a + c, a >= b + c
    v = jnp.where(easy_axis, a, jnp.where(easy_axis_fm, b, (a + b - c) / 2))
    h = jnp.where(easy_axis, c, jnp.where(easy_axis_fm, 0, (b + c - a) / 2))
    x = jnp.where(easy_axis, 0, jnp.where(easy_axis_fm, c, (a + c - b) / 2))
    if mixed:
        shift = jnp.minimum(v, h) / 2
        v, h, x = v - shift, h - shift, x + shift
    return GraphWeights(v, h, x)


def straight_worldlines(ring: PlaquetteRing, spins: jax.Array) -> jax.Array:
    """Worldlines without exchange, from spins (n_chains, n_sites): a start that has weight at any temperature."""
    idle = jnp.ones((len(spins), 1), spins.dtype)
    return jnp.concatenate([spins, idle], axis=1)[:, np.tile(ring.sites, (ring.n_steps, 1, 1))]


def spins_of_layer(ring: PlaquetteRing, spins: jax.Array, step: int | np.ndarray) -> jax.Array:
    """Spins by site in the first layer of a step or of several, (n_chains, ..., n_sites)."""
    layers = spins[:, np.asarray(step) * len(ring.sites)]
    place = np.argsort(ring.sites[0].reshape(-1))[: ring.n_sites]
    return layers.reshape(*layers.shape[:-2], -1)[..., place]


def loop_kernel(hamiltonian: SpinHamiltonian, ring: PlaquetteRing) -> SamplerKernel:
    """The loop update on a ring; chains are the first axis. Which bonds freeze and whether there is a field is fixed here.

    The state is the spins, (n_chains, n_layers, 2, n_pairs) int8 +-1. The step's info holds the graphs through which they moved,
    (n_chains, n_layers, n_pairs), and the labels of `label_clusters` for groups of `chains_together`, shaped like the spins. Carry it
    through a scan even where it is not needed: otherwise XLA computes the graphs anew for each of their uses.

    Raises:
        InputError: for a model that does not conserve the magnetisation.
    """
    if not hamiltonian.conserves_sz:
        raise InputError("method.sampler", expected='"loop" only for xxz, heisenberg and j1j2', found=hamiltonian.model)
    with_field = bool(np.any(np.asarray(hamiltonian.z_field)))
    graphs_needed = regime(hamiltonian)

    def init(key: jax.Array, n_chains: int) -> jax.Array:
        return straight_worldlines(ring, jax.random.rademacher(key, (n_chains, ring.n_sites), jnp.int8))

    def flip(key: jax.Array, params: LoopParams, spins: jax.Array, graphs: jax.Array) -> tuple[jax.Array, jax.Array]:
        labels = label_clusters(ring, graphs, frozen=graphs_needed.frozen)
        field = jnp.tile(params.field, (ring.n_steps, 1, 1)) * spins if with_field else None
        return jnp.where(_draw_flips(key, n_labels(graphs), labels, field), -spins, spins), labels

    def step(key: jax.Array, params: LoopParams, spins: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        key_graph, key_flip = jax.random.split(key)
        graphs = draw_graphs(key_graph, ring, params, spins, graphs_needed)
        n_groups = len(spins) // chains_together(ring, len(spins))
        grouped = jax.tree.map(lambda x: x.reshape(n_groups, -1, *x.shape[1:]), (spins, graphs))
        keys = jax.random.split(key_flip, n_groups)
        done = jax.lax.map(lambda group: flip(group[0], params, *group[1]), (keys, grouped))
        spins, labels = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), done)
        return spins, {"graphs": graphs, "labels": labels}

    return SamplerKernel(init, step)


def draw_graphs(key: jax.Array, ring: PlaquetteRing, params: LoopParams, spins: jax.Array, needed: Regime) -> jax.Array:
    """A graph for every plaquette given its legs, (n_chains, n_layers, n_pairs) int8."""
    n_chains, (n_layers, _, n_pairs) = len(spins), ring.shape
    elements = gate_elements(params.zz, params.xy, params.delta * ring.fractions[:, None])
    a, b, c = elements.parallel, elements.kept, jnp.abs(elements.exchanged)
    v, h, x = graph_weights(elements, needed.mixed)
    n_steps = ring.n_steps

    def threshold(part: jax.Array, whole: jax.Array) -> jax.Array:
        share = jnp.where(whole > 0, part / whole, 0.0)
        return jnp.tile(jnp.round(share * 2.0**31).astype(jnp.uint32), (n_steps, 1))

    # 31 bits: a share of one is more than any of them, and what has no weight is never drawn
    bits = jax.vmap(lambda k: jax.random.bits(k, (n_layers, n_pairs), jnp.uint32))(jax.random.split(key, n_chains)) >> 1

    def choose(first: int, second: int, w_first: jax.Array, w_second: jax.Array, whole: jax.Array) -> jax.Array:
        other = jnp.int8(second)
        if needed.frozen:
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

"""Rings of two different networks, Tr A B, and what they say of the layers of the first: derivatives of ln Tr A B in its couplings.

Of every layer and class of bonds or sites a statistic O = d ln w/d(coupling), ordered as the network is, from the ancillas to the spins.
Its mean is measured with little noise (averaged over worldlines or loops). Of two equal networks there are `parts` beside them, whose
covariances between the two copies are those of d^2 ln Tr A B/(dA dB): averaged over the worldline of a site within its own copy, to which
the other copy is nothing once the spins and ancillas are given; or derivatives of the weight of the graphs of loops. Their covariance with
the order parameter, the last of them, is its slope in the couplings.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm import compilation
from thermodbm.estimate.exchange import Magnet as LoopMagnet
from thermodbm.estimate.exchange import graph_slopes, loop_bonds, measure_ends
from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import GateLayers
from thermodbm.network.ring import RingNetwork
from thermodbm.sampling.cluster import ClusterInfo
from thermodbm.sampling.column import conditional_means, link_means, links, over_classes, segment_means
from thermodbm.sampling.exchange_facts import ExchangeFacts
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.loop import LoopInfo, close_gates, layered_ring, loop_kernel
from thermodbm.sampling.mixed import mixed_kernel
from thermodbm.sampling.ring import VISIBLE, IsingFacts, RingWeights, SiteClass, Spins, close_pair, in_single, local_field, site_classes


class Overlap(NamedTuple):
    """The ring of two networks of given numbers of layers."""

    kernel: SamplerKernel
    weights: Callable[..., Any]  # (hamiltonian, first network, second network)
    measure: Callable[..., tuple[dict[str, jax.Array], jax.Array]]  # (weights, state, info) -> means, parts (n_chains, ...)


class Found(NamedTuple):
    """Sums of what was sampled."""

    means: dict[str, np.ndarray]  # energy, order (n_chains,); first, second (n_chains, n): statistics of the layers of both copies
    parts: np.ndarray  # (n,) of first and second copy, and the order parameter; none where they differ
    part_squares: np.ndarray  # (n, n)
    squares: np.ndarray  # (n, n) of the first copy's statistics, as they are in `means`


def sample(overlap: Overlap, *, brief: bool) -> Callable[..., tuple[Any, Found]]:
    """A jitted (key, weights, state, n_sweeps) -> (state, means of all sweeps); `brief`: compiled for a run of seconds."""

    def run(key: jax.Array, weights: Any, state: Any, n_sweeps: jax.Array) -> tuple[Any, Found]:
        def sweep(key: jax.Array, state: Any) -> tuple[Any, Found]:
            state, info = overlap.kernel.step(key, weights, state)
            means, parts = jax.tree.map(lambda x: x.astype(float), overlap.measure(weights, state, info))
            squares = means["first"].T @ means["first"] / len(parts)
            return state, Found(means, parts.mean(0), parts.T @ parts / len(parts), squares)

        def one(k: jax.Array, carry: tuple[Any, Found]) -> tuple[Any, Found]:
            state, found = sweep(jax.random.fold_in(key, k), carry[0])
            return state, jax.tree.map(jnp.add, carry[1], found)

        shapes = jax.eval_shape(sweep, key, state)[1]
        state, sums = jax.lax.fori_loop(0, n_sweeps, one, (state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)))
        return state, jax.tree.map(lambda x: x / n_sweeps, sums)

    return jax.jit(run, compiler_options=compilation.brief() if brief else compilation.light())


class IsingPair(NamedTuple):
    """What is sampled."""

    hamiltonian: SpinHamiltonian
    ring: RingWeights


def ising_overlap(facts: IsingFacts, layers: tuple[int, int], bond_class: np.ndarray, site_class: np.ndarray) -> Overlap:
    """Of two networks with so many layers. Statistics are K of every layer and class of bonds, then g likewise of sites.

    The energy is measured at the spins and ancillas where both networks have as many layers; else within the second, which is to be
    exp(-beta H/2) in many steps: it commutes with H.
    """
    first, second = layers
    n_layers, ancillas = first + second, VISIBLE + first
    facts = facts._replace(thermal=(VISIBLE, ancillas))
    alike = first == second
    inner = np.arange(ancillas + 1, n_layers)
    where = (VISIBLE, ancillas) if alike or not len(inner) else tuple(inner[:: -(-len(inner) // 8)].tolist())
    down, up = VISIBLE + first - np.arange(first + 1), (ancillas + np.arange(second + 1)) % n_layers
    down_links, up_links = ancillas - 1 - np.arange(first), (ancillas + np.arange(second)) % n_layers
    kernel = mixed_kernel(facts, n_layers)

    def measure(pair: IsingPair, spins: Spins, info: ClusterInfo) -> tuple[dict[str, jax.Array], jax.Array]:
        plain = _plain_statistics(facts, pair.ring, spins, bond_class, site_class)
        averaged = _averaged_statistics(facts, pair.ring, spins, bond_class, site_class)
        # layer 0 and the links on either side are not averaged
        bonds = jnp.concatenate([plain[0][:1], averaged[0]])
        fields = jnp.concatenate([plain[1][:1], averaged[1], plain[1][-1:]])
        orders = [(down, down_links)] + ([(up, up_links)] if alike else [])

        def of_copies(bonds: jax.Array, fields: jax.Array) -> list[jax.Array]:
            parts = [(bonds[layer], fields[link]) for layer, link in orders]
            return [jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in part]).T for part in parts]

        energy = conditional_means(pair.hamiltonian, pair.ring, spins, where)["energy"]
        means = {"energy": energy, "order": info.order_parameter_squared}
        means |= dict(zip(("first", "second"), of_copies(bonds, fields), strict=False))
        if not alike:
            return means, jnp.zeros((spins.shape[-1], 0))
        order = (spins[np.array([VISIBLE, ancillas])].mean(1) ** 2).mean(0)
        parts = of_copies(*_statistics_by_copy(facts, pair.ring, spins, bond_class, site_class, ancillas))
        return means, jnp.concatenate([*parts, order[:, None]], axis=1)

    def weights(hamiltonian: SpinHamiltonian, first: RingNetwork, second: RingNetwork) -> IsingPair:
        return IsingPair(hamiltonian, close_pair(first, second))

    return Overlap(SamplerKernel(kernel.init, lambda key, pair, spins: kernel.step(key, pair.ring, spins)), weights, measure)


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(labels.max(initial=0) + 1, dtype=np.float32)[labels]


def _plain_statistics(
    facts: IsingFacts, ring: RingWeights, spins: Spins, bond_class: np.ndarray, site_class: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """d ln w/dK of every layer, (n_layers, bond classes, n_chains), and d ln w/d|g| of the link to the next, likewise of sites."""
    i, j = facts.bonds.T
    t = ring.t[:, :, None].astype(jnp.float32)
    flips = jnp.where(spins == jnp.roll(spins, -1, 0), t, jnp.where(t > 0, 1 / jnp.where(t > 0, t, 1), 0))
    pairs = (spins[:, i] * spins[:, j]).astype(jnp.float32)
    return jnp.einsum("lbn,bc->lcn", pairs, _one_hot(bond_class)), jnp.einsum("lsn,sc->lcn", flips, _one_hot(site_class))


def _averaged_statistics(
    facts: IsingFacts, ring: RingWeights, spins: Spins, bond_class: np.ndarray, site_class: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """The same of layers 1.., and of the links from 1 on but the last, every site averaged over its own worldline given the others."""
    ring = in_single(ring)

    def of_class(cls: SiteClass) -> tuple[jax.Array, jax.Array]:
        return link_means(links(ring, spins, cls), local_field(ring, spins, cls))

    return _summed(facts, spins[1:], bond_class, site_class, of_class)


def _statistics_by_copy(
    facts: IsingFacts, ring: RingWeights, spins: Spins, bond_class: np.ndarray, site_class: np.ndarray, ancillas: int
) -> tuple[jax.Array, jax.Array]:
    """The same of all layers and links, every site averaged over its worldline within one copy given the others: spins and ancillas, where
    the copies meet, are as they are."""
    ring, shift = in_single(jax.tree.map(lambda x: jnp.roll(x, -VISIBLE, 0), ring)), ancillas - VISIBLE
    rolled = jnp.roll(spins, -VISIBLE, 0)  # spins first

    def of_class(cls: SiteClass) -> tuple[jax.Array, jax.Array]:
        t, b, own = links(ring, rolled, cls), local_field(ring, rolled, cls), rolled[:, cls.sites]
        first = segment_means(t[:shift], b[1:shift], own[0], own[shift])
        second = segment_means(t[shift:], b[shift + 1 :], own[shift], own[0])
        s = [own[:1].astype(b.dtype), first[0], own[shift : shift + 1].astype(b.dtype), second[0]]
        return jnp.concatenate(s), jnp.concatenate([first[1], second[1]])

    return tuple(jnp.roll(x, VISIBLE, 0) for x in _summed(facts, rolled, bond_class, site_class, of_class))


def _summed(
    facts: IsingFacts,
    spins: Spins,
    bond_class: np.ndarray,
    site_class: np.ndarray,
    of_class: Callable[[SiteClass], tuple[jax.Array, jax.Array]],
) -> tuple[jax.Array, jax.Array]:
    """Sums over classes of bonds of s_i s_j, half with either site averaged, and over those of sites of <sx>."""
    of_bond, of_site = jnp.asarray(_one_hot(bond_class)), jnp.asarray(_one_hot(site_class))

    def add(sums: tuple, cls: SiteClass) -> tuple:
        (bonds, fields), (s, sx) = sums, of_class(cls)
        fields += jnp.einsum("lsn,sc->lcn", sx, of_site[cls.sites])
        for k in range(cls.neighbors.shape[1]):
            share = of_bond[cls.bonds[:, k]] * cls.present[:, k, None] / 2
            bonds += jnp.einsum("lsn,sc->lcn", s * spins[:, cls.neighbors[:, k]], share)
        return bonds, fields

    classes = site_classes(facts)
    s, sx = jax.eval_shape(lambda: of_class(classes[0]))
    zeros = (jnp.zeros((len(x), hot.shape[1], x.shape[-1]), jnp.float32) for x, hot in ((s, of_bond), (sx, of_site)))
    return over_classes(add, tuple(zeros), classes)


def exchange_overlap(facts: ExchangeFacts, steps: tuple[int, int], bond_class: np.ndarray) -> Overlap:
    """Of two products of gates with so many steps. Statistics are d ln w/d ln(duration) of every layer of gates and class of bonds."""
    ring = layered_ring(np.array(facts.bond_pairs, int).reshape(-1, 2), facts.lattice.n_sites, *steps)
    per_step = (len(ring.sites) - 2) // sum(steps)
    n_first, kernel = 1 + steps[0] * per_step, loop_kernel(facts, ring)
    ends = measure_ends(facts, ring, n_first)
    hot = np.pad(_one_hot(bond_class), ((0, 1), (0, 0)))[ring.bonds]  # (layers, pairs, classes), zero for what does nothing
    alike = steps[0] == steps[1]
    copies = [np.arange(n_first)[::-1]] + ([n_first + np.arange(n_first)] if alike else [])

    def measure(pair: tuple[SpinHamiltonian, LoopMagnet], spins: jax.Array, info: LoopInfo) -> tuple[dict[str, jax.Array], jax.Array]:
        at_ends = ends(pair, spins, info)
        order = at_ends.get("staggered_structure_factor", at_ends["magnetization_z_squared"])
        means = {"energy": at_ends["energy"], "order": order}

        def of_copies(values: jax.Array) -> list[jax.Array]:
            summed = jnp.einsum("nlp,lpc->nlc", values, hot)
            return [summed[:, layers].reshape(len(spins), -1) for layers in copies]

        means |= dict(zip(("first", "second"), of_copies(-loop_bonds(ring, pair[1], spins, info)), strict=False))
        if not alike:
            return means, jnp.zeros((len(spins), 0))
        return means, jnp.concatenate([*of_copies(graph_slopes(ring, pair[1], info.graphs)), order[:, None]], axis=1)

    def weights(hamiltonian: SpinHamiltonian, first: GateLayers, second: GateLayers) -> tuple[SpinHamiltonian, LoopMagnet]:
        params = close_gates(first, ring, second)
        return hamiltonian, LoopMagnet(params, params)  # along its own couplings: d/d ln(duration)

    return Overlap(SamplerKernel(kernel.init, lambda key, pair, spins: kernel.step(key, pair[1].ring, spins)), weights, measure)

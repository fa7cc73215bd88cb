"""Estimators of magnets that conserve the magnetisation, from the loops and worldlines of `sampling.loop`.

Every bond is measured in the middle of its own gate, with which it commutes, so that <energy> = -d ln Z/d beta of the Trotterised ring
exactly; it is even in delta and extrapolates with the same series as Z. Two forms:

* loops: without field, freezing and frustration, <sz_i sz_j> = <s_i s_j [same loop]> and <sx_i sx_j> = -sign(xy) <[same loop]>.
  No shot noise from exchange events: several times less variance than counting them.
* worldlines: -d ln |w|/d delta of every plaquette; valid always, with the sign of the weight as a phase if frustrated. Where there are
  loops its difference from their energy has mean zero and serves as a control variate, and so does that of the score.

The specific heat is the covariance with the score, since d<f>/d beta = Cov(f, d ln W/d beta) + <df/d beta>:
c = beta^2 ( N <energy score> - N <energy><score> - <slope> ), score = -d ln W/d beta / N and slope the energy's explicit derivative.

Source: R. Brower, S. Chandrasekharan, U.-J. Wiese, Physica A 261, 520 (1998); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.user import Functions, on_layers
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.network.exchange import GateElements, GateLayers, gate_elements
from thermodbm.sampling.exchange_facts import ExchangeFacts
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.loop import LoopInfo, close_gates, layered_ring, loop_kernel, loop_params, spins_of_layer, straight_worldlines
from thermodbm.sampling.loop_labels import (
    HORIZONTAL,
    VERTICAL,
    PlaquetteRing,
    chains_together,
    n_labels,
    plaquette_ring,
    take,
)
from thermodbm.sampling.loop_weights import LoopParams, graph_weights
from thermodbm.sampling.union import at

MAX_LAYERS = 16
"""Layers on which pair functions are measured: neighbouring ones hold nearly the same."""


class Magnet(NamedTuple):
    """The ring that holds a thermal state."""

    ring: LoopParams
    drift: LoopParams  # d ring / d beta


def exchange_ensemble(facts: ExchangeFacts, sampler: str, n_slices: int, functions: Functions = ()) -> Ensemble:
    """The ring of 2 n_slices steps with the sampler "loop".

    Raises:
        InputError: for another sampler.
    """
    _check_loops(sampler)
    ring = plaquette_ring(facts.lattice.n_sites, np.array(facts.bond_pairs, int).reshape(-1, 2), 2 * n_slices)
    kernel = loop_kernel(facts, ring)
    return Ensemble(
        kernel=SamplerKernel(kernel.init, lambda key, magnet, spins: kernel.step(key, magnet.ring, spins)),
        weights=lambda hamiltonian, beta: Magnet(loop_params(hamiltonian, ring, beta), loop_params(hamiltonian, ring, 1.0)),
        measure=measure_sweep(facts, ring),
        measure_rarely=measure_rarely(facts, ring, functions),
        resize=lambda spins: straight_worldlines(ring, spins_of_layer(ring, spins, 0)),
        visible=lambda spins: spins_of_layer(ring, spins, 0),
        layers=lambda spins: spins_of_layer(ring, spins, np.arange(ring.n_steps)),
    )


def layered_ensemble(facts: ExchangeFacts, sampler: str, n_steps: int) -> Ensemble:
    """The closed ring of `GateLayers` of n_steps steps, trained or written down: everything is measured where the spins and the ancillas
    are, so that the layers read the same from both ends.

    Raises:
        InputError: for another sampler than "loop", or a magnet whose loops have no free orientations.
    """
    _check_loops(sampler)
    if not facts.by_loops:
        raise InputError("model", expected="a magnet without field, frustration and easy axis", found="one with")
    ring = layered_ring(np.array(facts.bond_pairs, int).reshape(-1, 2), facts.lattice.n_sites, n_steps)
    kernel = loop_kernel(facts, ring)

    def weights(hamiltonian: SpinHamiltonian, network: GateLayers, drift: GateLayers) -> tuple[SpinHamiltonian, Magnet]:
        return hamiltonian, Magnet(*jax.jvp(lambda network: close_gates(network, ring), (network,), (drift,)))

    return Ensemble(
        kernel=SamplerKernel(kernel.init, lambda key, of, spins: kernel.step(key, of[1].ring, spins)),
        weights=weights,
        measure=measure_ends(facts, ring),
        measure_rarely=measure_ends_rarely(facts, ring),
        resize=lambda spins: straight_worldlines(ring, spins_of_layer(ring, spins, 0)),
        visible=lambda spins: spins_of_layer(ring, spins, 0),
    )


def measure_ends(facts: ExchangeFacts, ring: PlaquetteRing, ancillas: int | None = None) -> Measure:
    """As `measure_sweep`, by loops, at the two ends of the network: a bond counts whose spins are on the same loop there.

    Args:
        ancillas: the layer of the ring whose inputs they are; the middle one by default.
    """
    n, (i, j) = ring.n_sites, np.array(facts.bond_pairs, int).reshape(-1, 2).T
    patterns = {"magnetization_z_squared": np.ones(n)}
    if (signs := two_coloring(n, facts.lattice.bonds())) is not None:
        patterns["staggered_structure_factor"] = signs
    place = np.argsort(ring.sites[0].reshape(-1))[:n]  # of each site within the cells of either end

    def measure(of: tuple[SpinHamiltonian, Magnet], spins: jax.Array, info: LoopInfo) -> dict[str, jax.Array]:
        hamiltonian, magnet = of
        found = {name: 0.0 for name in ("energy", *patterns)}
        for layer in (0, len(ring.sites) // 2 if ancillas is None else ancillas):
            s, label = (x[:, layer].reshape(len(spins), -1)[:, place] for x in (spins, info.labels))
            bond = jnp.where(s[:, i] == s[:, j], hamiltonian.zz, -hamiltonian.zz) - 2 * jnp.abs(hamiltonian.xy)
            found["energy"] += jnp.where(label[:, i] == label[:, j], bond, 0).sum(1) / (2 * n)
            same = label[:, :, None] == label[:, None, :]
            for name, amplitude in patterns.items():
                moment = 0.5 * s * amplitude
                found[name] += jnp.einsum("ci,cij,cj->c", moment, same.astype(moment.dtype), moment) / (2 * n)
        zero = jnp.zeros(len(spins))
        return {**found, "score": _score_by_graphs(ring, magnet, info.graphs), "magnetization_z": zero}

    return measure


def measure_ends_rarely(facts: ExchangeFacts, ring: PlaquetteRing) -> Measure:
    """As `measure_rarely`, at the two ends of the network."""
    lattice, place = facts.lattice, np.argsort(ring.sites[0].reshape(-1))[: ring.n_sites]

    def measure(of: tuple[SpinHamiltonian, Magnet], spins: jax.Array, info: LoopInfo) -> dict[str, jax.Array]:
        ends = spins[:, np.array([0, len(ring.sites) // 2])]
        field = 0.5 * ends.reshape(*ends.shape[:2], -1)[..., place].astype(jnp.float32)
        values = {"slope": jnp.zeros((len(spins), 1)), "correlation_zz": correlations(lattice, field).mean(1)}
        if lattice.wavevectors is not None:
            values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
        return values

    return measure


def _check_loops(sampler: str) -> None:
    if sampler != "loop":
        raise InputError("method.sampler", expected='"loop" for models that conserve the magnetisation', found=sampler)


def measure_sweep(facts: ExchangeFacts, ring: PlaquetteRing) -> Measure:
    """Arrays (n_chains,), per site: energy, score, and worldline_energy if the energy is by loops; magnetization_z and
    magnetization_z_squared = <M^2>/N with M = sum Sz; staggered_structure_factor on a bipartite lattice; sign (+-1) if frustrated, by
    which all others are to be weighted."""
    with_field, frustrated, by_loops = facts.with_field, facts.frustrated, facts.by_loops
    n = ring.n_sites
    patterns = {"magnetization_z_squared": np.ones(n)}
    if (signs := two_coloring(n, facts.lattice.bonds())) is not None:
        patterns["staggered_structure_factor"] = signs
    amplitudes = np.pad(np.stack(list(patterns.values())), ((0, 0), (0, 1)))[:, ring.sites[0].reshape(-1)]  # 0 for an idle site

    def measure(magnet: Magnet, spins: jax.Array, info: LoopInfo) -> dict[str, jax.Array]:
        values = _energy_by_worldlines(ring, magnet, spins)
        if by_loops:
            values = {"worldline_energy": values["energy"], **_energy_by_loops(ring, magnet, spins, info)}
        first = spins[:, 0].reshape(len(spins), -1)
        moments = 0.5 * first[:, None] * amplitudes  # (n_chains, n_patterns, cells of layer 0)
        if with_field or frustrated:
            squares = moments.sum(-1) ** 2
        else:  # clusters are independent; one that crosses layer 0 has its label there
            within_group = np.arange(len(first), dtype=np.int32) % chains_together(ring, len(first))
            labels = info.labels[:, 0].reshape(first.shape) - within_group[:, None] * first.shape[1]
            add = jax.vmap(lambda label, x: jnp.zeros(x.shape).at[:, label].add(x, mode="promise_in_bounds"))
            squares = (add(labels, moments) ** 2).sum(-1)
        values |= {name: squares[:, k] / n for k, name in enumerate(patterns)}
        values["magnetization_z"] = moments[:, 0].sum(-1) / n if with_field else jnp.zeros(len(first))
        if frustrated:
            values["sign"] = _sign(ring, magnet.ring, spins)
        return values

    return measure


def measure_rarely(facts: ExchangeFacts, ring: PlaquetteRing, functions: Functions = ()) -> Measure:
    """slope (n_chains, 1), correlation_zz (n_chains, n_sites) at equal times, and on a fully periodic lattice structure_factor_zz; by loops
    transverse_squared (n_chains, 1), of which beta makes susceptibility_x; and `functions` of a user."""
    lattice, by_loops = facts.lattice, facts.by_loops
    steps = np.unique(np.linspace(0, ring.n_steps, MAX_LAYERS, endpoint=False).astype(int))

    def measure(magnet: Magnet, spins: jax.Array, info: LoopInfo) -> dict[str, jax.Array]:
        slope = jnp.zeros(len(spins)) if by_loops else _slope_by_worldlines(ring, magnet, spins)
        layers = spins_of_layer(ring, spins, steps)
        field = 0.5 * layers.astype(jnp.float32)
        values = {"slope": slope[:, None], "correlation_zz": correlations(lattice, field).mean(1), **on_layers(functions, layers)}
        if lattice.wavevectors is not None:
            values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
        if by_loops:
            values["transverse_squared"] = _transverse_squared(ring, np.array(facts.rotation), info)[:, None]
        return values

    return measure


def _transverse_squared(ring: PlaquetteRing, rotation: np.ndarray, info: LoopInfo) -> jax.Array:
    """<(sum_i Sx_i averaged over imaginary time)^2>/N of all loops, (n_chains,).

    Two points of a loop cut it into two arcs; with one of them flipped it is a configuration with S+ and S- there, of the same weight. So
    <Sx_p Sx_q> = <[same loop]>/4 times the signs by which the sublattice rotation has made all weights positive.
    """
    n_groups = len(info.labels) // chains_together(ring, len(info.labels))
    labels, graphs = (x.reshape(n_groups, -1, *x.shape[1:]) for x in (info.labels[:, :: len(ring.sites)], info.graphs))
    signs = jnp.asarray(np.append(rotation, 0)[ring.sites[0]], jnp.float32)  # 0 for an idle site
    size = n_labels(graphs[0])

    def squares(labels: jax.Array) -> jax.Array:
        sums = jnp.zeros(size, jnp.float32).at[labels].add(jnp.broadcast_to(signs, labels.shape), mode="promise_in_bounds")
        return (at(sums, labels) * signs).sum((1, 2, 3))

    return jax.lax.map(squares, labels).reshape(-1) / (4 * ring.n_sites * ring.n_steps**2)


def _tile(ring: PlaquetteRing, x: jax.Array) -> jax.Array:
    return jnp.tile(x, (ring.n_steps, *[1] * (x.ndim - 1)))


def _log_slope(magnet: Magnet, ring: PlaquetteRing, weights: Callable[[GateElements], tuple], order: int = 1) -> tuple:
    """Derivatives of ln |weights| along the drift, d/dbeta, each field (n_layers, n_pairs).

    Not a number where a weight vanishes: what it belongs to never occurs.
    """

    def log_weights(exponents: tuple[jax.Array, jax.Array]) -> tuple:
        return jax.tree.map(lambda w: jnp.log(jnp.abs(w)), weights(gate_elements(*exponents, 1.0)))

    derivative = log_weights
    for _ in range(order):
        derivative = partial(lambda f, x: jax.jvp(f, (x,), (magnet.drift[:2],))[1], derivative)
    return jax.tree.map(partial(_tile, ring), derivative(magnet.ring[:2]))


def loop_bonds(ring: PlaquetteRing, magnet: Magnet, spins: jax.Array, info: LoopInfo) -> jax.Array:
    """-d ln w/d beta of every gate along the drift, averaged over the orientations of loops, (n_chains, n_layers, n_pairs)."""
    lower, upper = info.labels[:, :, 0], info.labels[:, :, 1]
    zz, xy = _tile(ring, magnet.drift.zz), 2 * jnp.abs(_tile(ring, magnet.drift.xy))
    bond = jnp.where(spins[:, :, 0] == spins[:, :, 1], zz, -zz) - xy
    return jnp.where(lower == upper, bond, 0)


def _energy_by_loops(ring: PlaquetteRing, magnet: Magnet, spins: jax.Array, info: LoopInfo) -> dict[str, jax.Array]:
    energy = loop_bonds(ring, magnet, spins, info).sum((1, 2))
    return {"energy": energy / ring.n_sites, "score": _score_by_graphs(ring, magnet, info.graphs)}


def graph_slopes(ring: PlaquetteRing, magnet: Magnet, graphs: jax.Array) -> jax.Array:
    """d ln W/d beta of every graph, (n_chains, n_layers, n_pairs)."""
    slopes = _log_slope(magnet, ring, graph_weights)
    return jnp.where(graphs == VERTICAL, slopes.vertical, jnp.where(graphs == HORIZONTAL, slopes.horizontal, slopes.diagonal))


def _score_by_graphs(ring: PlaquetteRing, magnet: Magnet, graphs: jax.Array) -> jax.Array:
    """-d ln W/d beta of all graphs, per site, (n_chains,)."""
    return -graph_slopes(ring, magnet, graphs).sum((1, 2)) / ring.n_sites


def _energy_by_worldlines(ring: PlaquetteRing, magnet: Magnet, spins: jax.Array) -> dict[str, jax.Array]:
    exchange = _sum_of_gates(ring, spins, _log_slope(magnet, ring, lambda elements: elements))
    field = (_tile(ring, magnet.drift.field) * spins).sum((1, 2, 3))
    energy = -(exchange + field) / ring.n_sites
    return {"energy": energy, "score": energy}


def _slope_by_worldlines(ring: PlaquetteRing, magnet: Magnet, spins: jax.Array) -> jax.Array:
    return -_sum_of_gates(ring, spins, _log_slope(magnet, ring, lambda elements: elements, order=2)) / ring.n_sites


def _sum_of_gates(ring: PlaquetteRing, spins: jax.Array, elements: GateElements) -> jax.Array:
    """Sum over plaquettes of what belongs to their matrix element, (n_chains,)."""
    parallel, kept = kinds(ring, spins)
    value = jnp.where(parallel, elements.parallel, jnp.where(kept, elements.kept, elements.exchanged))
    return value.sum((1, 2))


def kinds(ring: PlaquetteRing, spins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether each plaquette's spins are parallel, and whether they are kept from below to above, (n_chains, n_layers, n_pairs)."""
    return spins[:, :, 0] == spins[:, :, 1], spins[:, :, 0] == take(spins, ring.up[:, 0])


def _sign(ring: PlaquetteRing, params: LoopParams, spins: jax.Array) -> jax.Array:
    """(-1)^(exchanges on bonds with xy > 0), (n_chains,); without frustration it is +1."""
    _, kept = kinds(ring, spins)
    exchanges = (~kept & (_tile(ring, params.xy) > 0)).sum((1, 2))
    return 1.0 - 2.0 * (exchanges % 2)

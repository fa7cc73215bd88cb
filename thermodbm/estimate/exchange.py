"""Estimators of magnets that conserve the magnetisation, from the loops and worldlines of `sampling.loop`.

Every bond is measured in the middle of its own gate, with which it commutes, so that <energy> = -d ln Z/d beta of the Trotterised ring
exactly; it is even in delta and extrapolates with the same series as Z. Two forms:

* loops: without field, freezing and frustration, <sz_i sz_j> = <s_i s_j [same loop]> and <sx_i sx_j> = -sign(xy) <[same loop]>.
  No shot noise from exchange events: several times less variance than counting them.
* worldlines: -d ln |w|/d delta of every plaquette; valid always, with the sign of the weight as a phase if frustrated.

The specific heat is the covariance with the score, since d<f>/d beta = Cov(f, d ln W/d beta) + <df/d beta>:
c = beta^2 ( N <energy score> - N <energy><score> - <slope> ), score = -d ln W/d beta / N and slope the energy's explicit derivative.

Source: R. Brower, S. Chandrasekharan, U.-J. Wiese, Physica A 261, 520 (1998); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.network.exchange import GateElements, gate_elements, sublattice_rotation
from thermodbm.sampling.loop import (
    LoopParams,
    graph_weights,
    loop_kernel,
    loop_params,
    regime,
    spins_of_layer,
    straight_worldlines,
)
from thermodbm.sampling.loop_labels import HORIZONTAL, VERTICAL, PlaquetteRing, plaquette_ring, take

MAX_LAYERS = 16
"""Layers on which pair functions are measured: neighbouring ones hold nearly the same."""


def exchange_ensemble(hamiltonian: SpinHamiltonian, sampler: str, n_slices: int) -> Ensemble:
    """The ring of 2 n_slices steps with the sampler "loop".

    Raises:
        InputError: for another sampler.
    """
    if sampler != "loop":
        raise InputError("method.sampler", expected='"loop" for models that conserve the magnetisation', found=sampler)
    ring = plaquette_ring(hamiltonian.n_sites, hamiltonian.bonds, 2 * n_slices)
    return Ensemble(
        kernel=loop_kernel(hamiltonian, ring),
        weights=lambda beta: loop_params(hamiltonian, ring, beta),
        measure=measure_sweep(hamiltonian, ring),
        measure_rarely=measure_pairs(hamiltonian, ring),
        resize=lambda spins: straight_worldlines(ring, spins_of_layer(ring, spins, 0)),
        chain_axis=0,
    )


def measure_sweep(hamiltonian: SpinHamiltonian, ring: PlaquetteRing) -> Measure:
    """Arrays (n_chains,), per site: energy, score and slope; magnetization_z, magnetization_z_squared = <M^2>/N with M = sum Sz;
    staggered_structure_factor on a bipartite lattice; sign (+-1) if frustrated, by which all others are to be weighted."""
    with_field = bool(np.any(np.asarray(hamiltonian.z_field)))
    frustrated = sublattice_rotation(hamiltonian) is None
    by_loops = not (with_field or frustrated or regime(hamiltonian).frozen)
    n = hamiltonian.n_sites
    patterns = {"magnetization_z_squared": np.ones(n)}
    if (signs := two_coloring(n, hamiltonian.lattice.bonds())) is not None:
        patterns["staggered_structure_factor"] = signs
    amplitudes = np.pad(np.stack(list(patterns.values())), ((0, 0), (0, 1)))[:, ring.sites[0].reshape(-1)]  # 0 for an idle site

    def measure(params: LoopParams, spins: jax.Array, info: dict) -> dict[str, jax.Array]:
        values = (_energy_by_loops if by_loops else _energy_by_worldlines)(ring, params, spins, info)
        first = spins[:, 0].reshape(len(spins), -1)
        moments = 0.5 * first[:, None] * amplitudes  # (n_chains, n_patterns, cells of layer 0)
        if with_field or frustrated:
            squares = moments.sum(-1) ** 2
        else:  # clusters are independent; one that crosses layer 0 has its label there
            labels = info["labels"][:, 0].reshape(len(first), -1)
            add = jax.vmap(lambda label, x: jnp.zeros(x.shape).at[:, label].add(x, mode="promise_in_bounds"))
            squares = (add(labels, moments) ** 2).sum(-1)
        values |= {name: squares[:, k] / n for k, name in enumerate(patterns)}
        values["magnetization_z"] = moments[:, 0].sum(-1) / n if with_field else jnp.zeros(len(first))
        if frustrated:
            values["sign"] = _sign(ring, params, spins)
        return values

    return measure


def measure_pairs(hamiltonian: SpinHamiltonian, ring: PlaquetteRing) -> Measure:
    """correlation_zz (n_chains, n_sites) and, on a fully periodic lattice, structure_factor_zz (n_chains, n_cells), equal times."""
    lattice = hamiltonian.lattice
    steps = np.unique(np.linspace(0, ring.n_steps, MAX_LAYERS, endpoint=False).astype(int))

    def measure(params: LoopParams, spins: jax.Array, info: dict) -> dict[str, jax.Array]:
        field = 0.5 * spins_of_layer(ring, spins, steps).astype(jnp.float32)
        values = {"correlation_zz": correlations(lattice, field).mean(1)}
        if lattice.wavevectors is not None:
            values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
        return values

    return measure


def _durations(ring: PlaquetteRing) -> np.ndarray:
    """Duration of each layer's gates in units of beta, (n_layers, 1): for each bond they add up to one."""
    return np.tile(ring.fractions / ring.n_steps, ring.n_steps)[:, None]


def _tile(ring: PlaquetteRing, x: jax.Array) -> jax.Array:
    return jnp.tile(x, (ring.n_steps, *[1] * (x.ndim - 1)))


def _log_slopes(params: LoopParams, ring: PlaquetteRing, weights: Callable[[GateElements], tuple]) -> tuple[tuple, tuple]:
    """First and second derivatives of ln |weights| with respect to the duration of the gates, each field (n_layers, n_pairs).

    Not a number where a weight vanishes: what it belongs to never occurs.
    """
    durations = params.delta * ring.fractions[:, None]

    def log_weights(t: jax.Array) -> tuple:
        return jax.tree.map(lambda w: jnp.log(jnp.abs(w)), weights(gate_elements(params.zz, params.xy, t)))

    def slope(t: jax.Array) -> tuple:
        return jax.jvp(log_weights, (t,), (jnp.ones_like(t),))[1]

    first, second = jax.jvp(slope, (durations,), (jnp.ones_like(durations),))
    return jax.tree.map(lambda x: _tile(ring, x), first), jax.tree.map(lambda x: _tile(ring, x), second)


def _energy_by_loops(ring: PlaquetteRing, params: LoopParams, spins: jax.Array, info: dict) -> dict[str, jax.Array]:
    zz, xy = _tile(ring, params.zz), _tile(ring, params.xy)
    durations = _durations(ring)
    lower, upper = info["labels"][:, :, 0], info["labels"][:, :, 1]
    aligned = spins[:, :, 0] == spins[:, :, 1]
    bond = jnp.where(aligned, zz - 2 * jnp.abs(xy), -zz - 2 * jnp.abs(xy)) * durations
    energy = jnp.where(lower == upper, bond, 0).sum((1, 2))
    (vertical, horizontal, diagonal), _ = _log_slopes(params, ring, partial(graph_weights, mixed=False))
    score = jnp.where(info["graphs"] == VERTICAL, vertical, jnp.where(info["graphs"] == HORIZONTAL, horizontal, diagonal)) * durations
    n = ring.n_sites
    return {"energy": energy / n, "score": -score.sum((1, 2)) / n, "slope": jnp.zeros_like(energy)}


def _energy_by_worldlines(ring: PlaquetteRing, params: LoopParams, spins: jax.Array, info: dict) -> dict[str, jax.Array]:
    durations = _durations(ring)
    parallel, kept = _kinds(ring, spins)
    first, second = _log_slopes(params, ring, lambda elements: elements)

    def total(elements: GateElements, scale: np.ndarray) -> jax.Array:
        value = jnp.where(parallel, elements.parallel, jnp.where(kept, elements.kept, elements.exchanged))
        return (value * scale).sum((1, 2))

    energy = -total(first, durations)
    field = _tile(ring, params.field) * spins  # exponents, linear in beta
    energy = (energy - field.sum((1, 2, 3)) / (params.delta * ring.n_steps)) / ring.n_sites
    return {"energy": energy, "score": energy, "slope": -total(second, durations**2) / ring.n_sites}


def _kinds(ring: PlaquetteRing, spins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether each plaquette's spins are parallel, and whether they are kept from below to above, (n_chains, n_layers, n_pairs)."""
    return spins[:, :, 0] == spins[:, :, 1], spins[:, :, 0] == take(spins, ring.up[:, 0])


def _sign(ring: PlaquetteRing, params: LoopParams, spins: jax.Array) -> jax.Array:
    """(-1)^(exchanges on bonds with xy > 0), (n_chains,); without frustration it is +1."""
    _, kept = _kinds(ring, spins)
    exchanges = (~kept & (_tile(ring, params.xy) > 0)).sum((1, 2))
    return 1.0 - 2.0 * (exchanges % 2)

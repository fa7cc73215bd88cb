"""Estimators of magnets that conserve the magnetisation, from the loops and worldlines of `sampling.loop`.

Every bond is measured in the middle of its own gate, with which it commutes, so that <energy> = -d ln Z/d beta of the Trotterised ring
exactly; it is even in delta and extrapolates with the same series as Z. Two forms:

* loops: without field, freezing and frustration, <sz_i sz_j> = <s_i s_j [same loop]> and <sx_i sx_j> = -sign(xy) <[same loop]> at equal times.
  No shot noise from exchange events: several times less variance than counting them.
* worldlines: -d ln |w|/d delta of every plaquette; valid always, with the sign of the weight as a phase if frustrated.

The specific heat is the covariance with the score, since d<f>/d beta = Cov(f, d ln W/d beta) + <df/d beta>:
c = beta^2 ( N <energy score> - N <energy><score> - <slope> ) with score = -d ln W/d beta / N, and slope the explicit derivative of the energy.

Source: R. Brower, S. Chandrasekharan, U.-J. Wiese, Physica A 261, 520 (1998); H. G. Evertz, Adv. Phys. 52, 1 (2003).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.network.exchange import GateElements, gate_elements, sublattice_rotation
from thermodbm.sampling.loop import GraphWeights, LoopInfo, LoopParams, LoopState, graph_weights, regime
from thermodbm.sampling.loop_labels import DIAGONAL, HORIZONTAL, VERTICAL, PlaquetteRing, take

Measure = Callable[[LoopParams, LoopState, LoopInfo], dict[str, jax.Array]]


def measure_sweep(hamiltonian: SpinHamiltonian, ring: PlaquetteRing) -> Measure:
    """What is cheap enough to be measured after every sweep: arrays (n_chains,), per site.

    energy, score and slope (for the specific heat); magnetization_z and magnetization_z_squared = <M^2>/N with M = sum Sz;
    staggered_structure_factor on a bipartite lattice; sign (+-1) if frustrated, by which all others are to be weighted.
    """
    with_field = bool(np.any(np.asarray(hamiltonian.z_field)))
    frustrated = sublattice_rotation(hamiltonian) is None
    by_loops = not (with_field or frustrated or regime(hamiltonian).frozen)
    n = hamiltonian.n_sites
    waves = {"magnetization_z": np.ones(n)}
    if (signs := two_coloring(n, hamiltonian.lattice.bonds())) is not None:
        waves["staggered"] = signs

    def measure(params: LoopParams, state: LoopState, info: LoopInfo) -> dict[str, jax.Array]:
        energies = _energy_by_loops if by_loops else _energy_by_worldlines
        values = energies(ring, params, state, info)
        first = state.spins[:, 0].reshape(len(state.spins), -1)
        amplitudes = jnp.stack([np.append(w, 0)[np.minimum(ring.sites[0].reshape(-1), n)] for w in waves.values()])
        moments = 0.5 * first[:, None] * amplitudes  # (n_chains, n_waves, cells of layer 0)
        if with_field or frustrated:
            squares = moments.sum(-1) ** 2
        else:  # a cluster that crosses layer 0 has its label there
            labels = info.labels[:, 0].reshape(len(first), -1)
            add = jax.vmap(lambda label, x: jnp.zeros(x.shape).at[:, label].add(x, mode="promise_in_bounds"))
            squares = (add(labels, moments) ** 2).sum(-1)
        values["magnetization_z"] = moments[:, 0].sum(-1) / n
        values["magnetization_z_squared"] = squares[:, 0] / n
        if "staggered" in waves:
            values["staggered_structure_factor"] = squares[:, 1] / n
        if frustrated:
            values["sign"] = _sign(ring, params, state)
        return values

    return measure


def measure_correlations(hamiltonian: SpinHamiltonian, ring: PlaquetteRing) -> Measure:
    """Costly pair functions, to be measured now and then, from the spins of one layer.

    correlation_zz (n_chains, n_sites): (1/n_T) sum_T Sz_T(0) Sz_T(j) over translations T, restricted to pairs in one cluster where that
    is unbiased; structure_factor_zz (n_chains, n_cells) = |sum_i Sz_i exp(-i q r_i)|^2 / N on a periodic lattice.
    """
    lattice, n = hamiltonian.lattice, hamiltonian.n_sites
    by_clusters = not np.any(np.asarray(hamiltonian.z_field)) and sublattice_rotation(hamiltonian) is not None
    place = np.argsort(ring.sites[0].reshape(-1))[:n]
    wavevectors = lattice.wavevectors

    def measure(params: LoopParams, state: LoopState, info: LoopInfo) -> dict[str, jax.Array]:
        spins, labels = (x[:, 0].reshape(len(x), -1)[:, place] for x in (state.spins, info.labels))

        def add(total: jax.Array, translation: jax.Array) -> tuple[jax.Array, None]:
            pairs = spins[:, translation[:1]] * spins[:, translation]
            if by_clusters:
                pairs = jnp.where(labels[:, translation[:1]] == labels[:, translation], pairs, 0)
            return total + pairs, None

        total, _ = jax.lax.scan(add, jnp.zeros(spins.shape, jnp.int32), jnp.asarray(lattice.translations))
        values = {"correlation_zz": 0.25 * total / len(lattice.translations)}
        if wavevectors is not None:
            amplitude = 0.5 * spins @ np.exp(-1j * lattice.positions @ wavevectors.T)
            values["structure_factor_zz"] = jnp.abs(amplitude) ** 2 / n
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


def _energy_by_loops(ring: PlaquetteRing, params: LoopParams, state: LoopState, info: LoopInfo) -> dict[str, jax.Array]:
    zz, xy = _tile(ring, params.zz), _tile(ring, params.xy)
    durations = _durations(ring)
    lower, upper = info.labels[:, :, 0], info.labels[:, :, 1]
    aligned = state.spins[:, :, 0] == state.spins[:, :, 1]
    bond = jnp.where(aligned, zz - 2 * jnp.abs(xy), -zz - 2 * jnp.abs(xy)) * durations
    energy = jnp.where(lower == upper, bond, 0).sum((1, 2))
    (vertical, horizontal, diagonal), _ = _log_slopes(params, ring, lambda elements: graph_weights(elements, mixed=False))
    score = jnp.where(info.graphs == VERTICAL, vertical, jnp.where(info.graphs == HORIZONTAL, horizontal, diagonal)) * durations
    n = ring.n_sites
    return {"energy": energy / n, "score": -score.sum((1, 2)) / n, "slope": jnp.zeros_like(energy)}


def _energy_by_worldlines(ring: PlaquetteRing, params: LoopParams, state: LoopState, info: LoopInfo) -> dict[str, jax.Array]:
    durations = _durations(ring)
    parallel, kept = _kinds(ring, state)
    first, second = _log_slopes(params, ring, lambda elements: elements)

    def total(elements: GateElements, scale: np.ndarray) -> jax.Array:
        value = jnp.where(parallel, elements.parallel, jnp.where(kept, elements.kept, elements.exchanged))
        return (value * scale).sum((1, 2))

    energy = -total(first, durations)
    field = _tile(ring, params.field) * state.spins  # exponents, linear in beta
    energy = (energy - field.sum((1, 2, 3)) / (params.delta * ring.n_steps)) / ring.n_sites
    return {"energy": energy, "score": energy, "slope": -total(second, durations**2) / ring.n_sites}


def _kinds(ring: PlaquetteRing, state: LoopState) -> tuple[jax.Array, jax.Array]:
    """Whether each plaquette's spins are parallel, and whether they are kept from below to above, (n_chains, n_layers, n_pairs)."""
    spins = state.spins
    return spins[:, :, 0] == spins[:, :, 1], spins[:, :, 0] == take(spins, ring.up[:, 0])


def _sign(ring: PlaquetteRing, params: LoopParams, state: LoopState) -> jax.Array:
    """(-1)^(exchanges on bonds with xy > 0), (n_chains,); without frustration it is +1."""
    _, kept = _kinds(ring, state)
    exchanges = (~kept & (_tile(ring, params.xy) > 0)).sum((1, 2))
    return 1.0 - 2.0 * (exchanges % 2)

"""Column update: an exact draw of a whole worldline, given its neighbours, by filtering forward and sampling backward in imaginary time.

Given the other sites, site i is a periodic chain of two-state variables with site weights exp(b_l s_l) and kinks of weight t. With s_0
held at
+1 the filtered ratio q_l = alpha_l(-)/alpha_l(+) obeys q_l = exp(-2 b_l) (t + q_l-1)/(1 + t q_l-1), q_0 = 0; with s_0 = -1 its inverse
p_l obeys
the same with b -> -b. Their normalisations give s_0's odds, ln Z+/Z- = sum_l 2 b_l + ln (1 + t q_l)/(1 + t p_l); the rest is drawn
backward. The same two filters from both ends give every conditional expectation, which is how `conditional_means` gets rid of most noise.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thermodbm.models import SpinHamiltonian
from thermodbm.sampling.kernel import SamplerKernel, uniform
from thermodbm.sampling.ring import IsingFacts, RingWeights, SiteClass, Spins, in_single, local_field, random_spins, site_classes

Carry = TypeVar("Carry")


def _through_kink(t: jax.Array, ratio: jax.Array) -> jax.Array:
    """The odds after one more link of imaginary time: (t + r)/(1 + t r)."""
    return (t + ratio) / (1 + t * ratio)


def _filter(t: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Odds q, p of layers 1.. arriving from layer 0, before their own weight w = exp(-2b) is applied; (n_layers - 1, n, n_chains) each.

    Args:
        t: of the link to each of these layers from the one before, (n_layers - 1, n, 1).
    """

    def step(carry: tuple[jax.Array, jax.Array], layer: tuple[jax.Array, jax.Array]):
        t, w = layer
        q, p = (_through_kink(t, r) for r in carry)
        return (w * q, p / w), (q, p)

    nothing = jnp.zeros_like(w[0])
    return lax.scan(step, (nothing, nothing), (t, w))[1]


def _log_odds(t: jax.Array, b: jax.Array, q: jax.Array, p: jax.Array) -> jax.Array:
    """ln Z+/Z- of layer 0, from the odds q, p of layers 1.. with their weights applied and the links t beyond them; (n, n_chains)."""
    return 2 * b.sum(0) + jnp.log((1 + t * q) / (1 + t * p)).sum(0)


def draw_columns(u: jax.Array, t: jax.Array, b: jax.Array) -> jax.Array:
    """Draw independent worldlines in fields b from uniform u, (n_layers, n, n_chains) each: True for up.

    Args:
        t: weights of kinks between each layer and the next, (n_layers, n, 1).
    """
    w = jnp.exp(-2 * b[1:])
    q, p = _filter(t[:-1], w)
    q, p = w * q, p / w
    up_0 = u[0] < jax.nn.sigmoid(_log_odds(t[1:], b, q, p))

    def step(up_next: jax.Array, layer: tuple[jax.Array, ...]):
        t, q, p, u = layer
        plus = jnp.where(up_0, 1.0, p) * jnp.where(up_next, 1.0, t)
        minus = jnp.where(up_0, q, 1.0) * jnp.where(up_next, t, 1.0)
        up = u * (plus + minus) < plus
        return up, up

    return jnp.concatenate([up_0[None], lax.scan(step, up_0, (t[1:], q, p, u[1:]), reverse=True)[1]])


def column_means(t: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Expectations <s_l> and <sx_l> of worldlines in fields b, (n_layers, n, n_chains), with kinks t, (n_layers, n, 1), in layers 1..:
    (n_layers - 1, n, n_chains) each.

    sx_l is the spin flip inserted in the middle of the diagonal weight of layer l. Layer 0, where the ring is cut, is left out.
    """
    half = jnp.exp(-b[1:])
    w = half * half
    q, p = _filter(t[:-1], w)
    q_back, p_back = (x[::-1] for x in _filter(t[:0:-1], w[::-1]))
    up_0 = jax.nn.sigmoid(_log_odds(t[1:], b, w * q, p / w))
    kept, kept_down = w * q * q_back, p * p_back / w
    up, down = up_0 / (1 + kept), (1 - up_0) / (1 + kept_down)
    return up * (1 - kept) - down * (1 - kept_down), up * half * (q + q_back) + down * (p + p_back) / half


def link_means(t: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `column_means`: <s_l> of layers 1.., and <sx> inserted beside the transverse factors between layer l and the next, which are
    d ln w/dg there, for l from 1 on but the last: (n_layers - 1, ...) and (n_layers - 2, ...)."""
    w = jnp.exp(-2 * b[1:])
    q, p = _filter(t[:-1], w)
    q_back, p_back = (x[::-1] for x in _filter(t[:0:-1], w[::-1]))
    up_0 = jax.nn.sigmoid(_log_odds(t[1:], b, w * q, p / w))
    kept, kept_down, inner = w * q * q_back, p * p_back / w, t[1:-1]

    def flipped(before: jax.Array, after: jax.Array) -> jax.Array:
        both, either = 1 + before * after, before + after
        return (inner * both + either) / (both + inner * either)

    s = up_0 * (1 - kept) / (1 + kept) - (1 - up_0) * (1 - kept_down) / (1 + kept_down)
    sx = up_0 * flipped((w * q)[:-1], (w * q_back)[1:]) + (1 - up_0) * flipped((p / w)[:-1], (p_back / w)[1:])
    return s, sx


def segment_means(t: jax.Array, b: jax.Array, first: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `link_means`, of worldlines whose ends are given: <s_l> of the layers between, (n, ...), and <sx> of all links, (n + 1, ...).

    Args:
        t: of the links, (n + 1, n_sites, 1).
        b: fields in the layers between, (n, n_sites, n_chains).
        first, last: spins at the ends, (n_sites, n_chains).
    """

    def beyond(t: jax.Array, down: jax.Array) -> jax.Array:
        return (down + t * (1 - down)) / (1 + t)

    def step(down: jax.Array, layer: tuple[jax.Array, jax.Array]):
        t, w = layer
        arrived = beyond(t, down)  # probability of a spin down, given what lies before
        down = arrived / (arrived + (1 - arrived) * w)
        return down, (arrived, down)

    w, ends = jnp.exp(2 * b), [(x < 0).astype(b.dtype) for x in (first, last)]
    _, (arrived, before) = lax.scan(step, ends[0], (t[:-1], w))
    _, (_, after) = lax.scan(step, ends[1], (t[:0:-1], w[::-1]))
    before, after = jnp.concatenate([ends[0][None], before]), jnp.concatenate([after[::-1], ends[1][None]])
    down, up = arrived * after[:-1], (1 - arrived) * (1 - after[:-1])
    same, other = (1 - before) * (1 - after) + before * after, before * (1 - after) + (1 - before) * after
    return (up - down) / (up + down), (t * same + other) / (same + t * other)


def links(weights: RingWeights, spins: Spins, cls: SiteClass) -> jax.Array:
    """Weights of kinks of the sites of a class, (n_layers, n, 1)."""
    t = weights.t[:, cls.sites, None]
    return jnp.broadcast_to(t, (spins.shape[0], *t.shape[1:]))


def over_classes(update: Callable[[Carry, SiteClass], Carry], carry: Carry, classes: Sequence[SiteClass]) -> Carry:
    """Update after update, one for each class; classes of the same shape share their program."""
    if len({cls.neighbors.shape for cls in classes}) > 1:
        return reduce(update, classes, carry)
    tables = jax.tree.map(lambda *x: jnp.stack(x), *classes)
    return lax.scan(lambda carry, cls: (update(carry, cls), None), carry, tables)[0]


def conditional_means(
    hamiltonian: SpinHamiltonian, weights: RingWeights, spins: Spins, layers: tuple[int, ...] | None = None
) -> dict[str, jax.Array]:
    """Energy and magnetisations of the ring, every site averaged exactly over its own worldline given the others (Rao-Blackwell).

    Args:
        layers: where they are measured, from 1 on; all by default.

    Returns:
        energy, magnetization_x, magnetization_z per site, (n_chains,): H is inserted in the middle of the diagonal weight of a layer,
        the symmetric place, as in the local energy <sigma|H|Psi>/<sigma|Psi>.
    """
    n, weights = hamiltonian.n_sites, in_single(weights)
    single = jnp.float32
    couplings = jnp.asarray(hamiltonian.zz, single)
    fields = jnp.stack([jnp.asarray(f, single) for f in (hamiltonian.x_field, hamiltonian.z_field)])[..., None]
    as_field = RingWeights(-couplings[None], weights.t, jnp.zeros((1, n), single))  # local_field -> sum_j J_ij s_j
    measured = slice(1, None) if layers is None else np.array(layers)

    def add(sums: tuple, cls: SiteClass) -> tuple:
        energy, m_x, m_z = sums
        means = column_means(links(weights, spins, cls), local_field(weights, spins, cls))
        s, sx = means if layers is None else (x[measured - 1] for x in means)
        s_mean, sx_mean = s.mean(0), sx.mean(0)
        bond = (s * local_field(as_field, spins[measured], cls)).mean(0)
        x_field, z_field = fields[:, cls.sites]
        energy -= (bond / 2 + jnp.abs(x_field) * sx_mean + z_field * s_mean).sum(0)
        return energy, m_x + (jnp.sign(x_field) * sx_mean).sum(0), m_z + s_mean.sum(0)

    nothing = jnp.zeros(spins.shape[-1], single)
    energy, m_x, m_z = over_classes(add, (nothing, nothing, nothing), site_classes(hamiltonian))
    return {"energy": energy / n, "magnetization_x": m_x / n, "magnetization_z": m_z / n}


def conditional_terms(
    hamiltonian: SpinHamiltonian,
    weights: RingWeights,
    spins: Spins,
    layers: tuple[int, ...] | None = None,
    precision: type = jnp.float32,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `conditional_means` are sums of: <sz_i sz_j> of every bond, (n_bonds, n_chains), <sx_i> and <sz_i> of every site,
    (n_sites, n_chains), averaged over the layers."""
    measured = slice(1, None) if layers is None else np.array(layers)
    weights = jax.tree.map(lambda x: x.astype(precision), weights)
    x_sign = jnp.sign(jnp.asarray(hamiltonian.x_field, precision))[:, None]

    def add(found: tuple, cls: SiteClass) -> tuple:
        bonds, x, z = found
        means = column_means(links(weights, spins, cls), local_field(weights, spins, cls))
        s, sx = means if layers is None else (x[measured - 1] for x in means)
        for k in range(cls.neighbors.shape[1]):
            pair = (s * spins[measured][:, cls.neighbors[:, k]]).mean(0) * cls.present[:, k, None]
            bonds = bonds.at[cls.bonds[:, k]].add((pair / 2).astype(precision))
        return bonds, x.at[cls.sites].set(sx.mean(0) * x_sign[cls.sites]), z.at[cls.sites].set(s.mean(0))

    shape = (hamiltonian.n_sites, spins.shape[-1])
    start = jnp.zeros((len(hamiltonian.bonds), shape[1]), precision), jnp.zeros(shape, precision), jnp.zeros(shape, precision)
    return over_classes(add, start, site_classes(hamiltonian))


def column_kernel(facts: IsingFacts, n_layers: int) -> SamplerKernel:
    """One step draws every worldline anew, colour class by colour class."""
    classes = site_classes(facts)

    def init(key: jax.Array, n_chains: int) -> Spins:
        return random_spins(key, facts, n_layers, n_chains)

    def step(key: jax.Array, weights: RingWeights, spins: Spins) -> tuple[Spins, None]:
        u, weights = uniform(key, spins.shape), in_single(weights)

        def draw(spins: Spins, cls: SiteClass) -> Spins:
            up = draw_columns(u[:, cls.sites], links(weights, spins, cls), local_field(weights, spins, cls))
            return spins.at[:, cls.sites].set(jnp.where(up, 1, -1).astype(spins.dtype))

        return over_classes(draw, spins, classes), None

    return SamplerKernel(init, step)

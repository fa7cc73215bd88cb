"""The network of an Ising magnet as a classical magnet: with its hidden units summed, |Psi|^2 is a ring of layers of spins +-1.

The 2 L layers (spins, deep units of both copies, ancillas) of a network of L transverse layers lie along a periodic imaginary time:

    w(s) = prod_{l, bonds} exp(K_lb s_li s_lj)  prod_{l, i} exp(f_li s_li) T_li(s_li, s_l+1,i),    T_li(s, s) = 1, T_li(s, -s) = t_li

where t = tanh|g|. A layer of deep units has the exponents K and f of its own layer of the network, that of the spins, where both copies
meet, twice those of the last one, and the ancillas, turned round, twice those of the first. For g < 0 the spins are rotated about z
(sx -> -sx), which leaves w unchanged. Of a Trotter product all layers are alike: K = -zz delta, f = z_field delta, g = x_field delta.

Spins are int8, (layer, site, chain): chains are innermost, so that every operation runs along them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice, site_coloring
from thermodbm.network.ring import RingNetwork

Spins = jax.Array
"""int8 +-1, (n_layers, n_sites, n_chains)."""


LEAST_BOND = 0.6
"""Least bound on |K|: above that of default steps on critical chains and all wider lattices, 0.5, so that couplings may move there."""


class IsingFacts(NamedTuple):
    """Hashable: what a program for the ring of an Ising magnet depends on besides its number of layers. Couplings are its arguments."""

    lattice: Lattice
    bond_pairs: tuple[tuple[int, int], ...]
    with_field: bool  # along z
    max_bond: float  # a bound on |K|, LEAST_BOND times a power of two
    thermal: tuple[int, ...] | None = None  # layers that hold thermal averages: of a Trotter product all, which are alike

    @property
    def n_sites(self) -> int:
        """Number of spins."""
        return self.lattice.n_sites

    @property
    def bonds(self) -> np.ndarray:
        """Sites of every bond, (n_bonds, 2)."""
        return np.array(self.bond_pairs, int).reshape(-1, 2)


def ising_facts(hamiltonian: SpinHamiltonian, max_delta: float) -> IsingFacts:
    """Of a Hamiltonian whose couplings are numbers, and the largest Trotter step that its weights will have."""
    largest = max_delta * float(np.abs(np.asarray(hamiltonian.zz)).max(initial=0.0))
    doublings = np.ceil(np.log2(max(largest / LEAST_BOND, 1.0)))  # default steps stay below 1: few couplings need a program of their own
    max_bond = LEAST_BOND * 2.0**doublings
    return IsingFacts(hamiltonian.lattice, hamiltonian.bond_pairs, bool(np.any(np.asarray(hamiltonian.z_field))), float(max_bond))


class RingWeights(NamedTuple):
    """Couplings of the ring, an argument of every sampler. The first axis is that of the layers, or has length one if all are alike."""

    bond: jax.Array  # (n_layers or 1, n_bonds)  K
    t: jax.Array  # (n_layers or 1, n_sites)  weight tanh|g| of a kink between a layer and the next
    field: jax.Array  # (n_layers or 1, n_sites)  f


def ring_weights(hamiltonian: SpinHamiltonian, beta: jax.Array | float, n_layers: int) -> RingWeights:
    """Those of a Trotter product with n_layers = 2 n_slices; differentiable in beta and in the Hamiltonian."""
    delta = beta / n_layers
    parts = -delta * hamiltonian.zz, jnp.tanh(delta * jnp.abs(hamiltonian.x_field)), delta * hamiltonian.z_field
    return RingWeights(*(jnp.asarray(x, float)[None] for x in parts))


VISIBLE = 1
"""Layer of the spins on a closed ring; samplers cut it at layer 0, where estimators are blind. The ancillas are n_layers/2 beyond."""


def close_ring(network: RingNetwork) -> RingWeights:
    """|Psi|^2 of any network of layers, (2 L, ...) each; differentiable."""
    return close_pair(network, network)


def close_pair(first: RingNetwork, second: RingNetwork) -> RingWeights:
    """Tr A B of two networks of layers: from the spins down the layers of the first to the ancillas, and up those of the second."""

    def diagonal(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.concatenate([a[-1:] + b[-1:], a[-2:0:-1], a[:1] + b[:1], b[1:-1]])

    t = jnp.concatenate([jnp.tanh(jnp.abs(first.kink))[::-1], jnp.tanh(jnp.abs(second.kink))])
    parts = diagonal(first.bond, second.bond), t, diagonal(first.field, second.field)
    return RingWeights(*(jnp.roll(x, VISIBLE, 0) for x in parts))


def in_single(weights: RingWeights) -> RingWeights:
    """As samplers use them."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), weights)


class SiteClass(NamedTuple):
    """Sites that share no bond, with their neighbours; shorter lists are padded with weight zero."""

    sites: np.ndarray  # (n,)
    neighbors: np.ndarray  # (n, z)
    bonds: np.ndarray  # (n, z)
    present: np.ndarray  # (n, z) 1 or 0


def site_classes(hamiltonian: SpinHamiltonian | IsingFacts) -> list[SiteClass]:
    """The sites by colour: columns of one class are independent given all the others."""
    around: list[list[tuple[int, int]]] = [[] for _ in range(hamiltonian.n_sites)]
    for b, (i, j) in enumerate(hamiltonian.bonds.tolist()):
        around[i].append((j, b))
        around[j].append((i, b))
    classes = []
    for sites in site_coloring(hamiltonian.n_sites, hamiltonian.bonds):
        z = max((len(around[i]) for i in sites), default=0)
        table = np.zeros((3, len(sites), z), np.int32)
        for row, i in enumerate(sites):
            for k, (j, b) in enumerate(around[i]):
                table[:, row, k] = j, b, 1
        classes.append(SiteClass(sites, *table))
    return classes


def local_field(weights: RingWeights, spins: Spins, cls: SiteClass) -> jax.Array:
    """b_li = f_li + sum_j K_lij s_lj of the sites of a class, (n_layers, n, n_chains) float32."""
    b = jnp.broadcast_to(weights.field[:, cls.sites, None], (spins.shape[0], len(cls.sites), spins.shape[-1]))
    if weights.bond.size == 0:
        return b
    coupling = weights.bond[:, cls.bonds] * cls.present  # (n_layers or 1, n, z)
    for k in range(cls.neighbors.shape[1]):
        b = b + coupling[:, :, k, None] * spins[:, cls.neighbors[:, k]]
    return b


def log_weight(hamiltonian: SpinHamiltonian, weights: RingWeights, spins: Spins) -> jax.Array:
    """ln w(s), (n_chains,) float64, without a constant that depends on the weights alone.

    The normalisation prod_li cosh(g_li) of the kink weights is included, so that sum_s w = Tr of the product of all layers.
    """
    i, j = hamiltonian.bonds.T
    t = weights.t
    ln_t = jnp.log(jnp.where(t > 0, t, 1.0))  # a site without transverse field never has kinks
    ln_cosh = -0.5 * jnp.log1p(-(t**2)).sum(-1)

    def along(x: jax.Array, counts: jax.Array) -> jax.Array:
        """sum_l x_l . counts_l, of (n_layers or 1, k) and (n_layers, k, n_chains): layers that are alike are counted first."""
        if len(x) == 1:
            return x[0] @ counts.sum(0, dtype=jnp.int32).astype(float)
        return (x[..., None] * counts).sum((0, 1))

    kinks = (spins != jnp.roll(spins, -1, 0)).astype(jnp.int8)
    ln_w = along(weights.bond, spins[:, i] * spins[:, j]) + along(weights.field, spins) + along(ln_t, kinks)
    return ln_w + jnp.broadcast_to(ln_cosh, (spins.shape[0],)).sum()


def random_spins(key: jax.Array, hamiltonian: SpinHamiltonian | IsingFacts, n_layers: int, n_chains: int) -> Spins:
    """A start for every chain: random spins, the same in every layer, which has weight at any temperature."""
    layer = jax.random.rademacher(key, (1, hamiltonian.n_sites, n_chains), jnp.int8)
    return jnp.broadcast_to(layer, (n_layers, *layer.shape[1:]))


def resize(spins: Spins, n_layers: int) -> Spins:
    """The same worldlines on a ring of other length, for a start close to equilibrium."""
    return spins[np.arange(n_layers) * spins.shape[0] // n_layers]

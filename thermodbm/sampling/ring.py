"""The deterministic Ising network as a classical magnet: with its hidden units summed it is a ring of layers of spins +-1.

|Psi|^2 of the Trotter network couples 2 n_slices layers (the spins sigma, the deep units of both copies) along a periodic imaginary time:

    w(s) = prod_{l, bonds} exp(K_b s_li s_lj)  prod_{l, i} exp(f_i s_li) T_i(s_li, s_l+1,i),    T(s, s) = 1, T(s, -s) = t

with K_b = -zz_b delta, f_i = z_field_i delta, t_i = tanh(|x_field_i| delta), delta = beta/(2 n_slices). The ancillas equal minus the layer
opposite to the spins and drop out. Fields x_field < 0 are rotated to positive ones (sz -> unchanged, sx -> -sx), which leaves w unchanged.

Spins are int8, (layer, site, chain): chains are innermost, so that every operation runs along them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice, site_coloring

Spins = jax.Array
"""int8 +-1, (n_layers, n_sites, n_chains)."""


class IsingFacts(NamedTuple):
    """Hashable: what a program for the ring of an Ising magnet depends on besides its number of layers. Couplings are its arguments."""

    lattice: Lattice
    bond_pairs: tuple[tuple[int, int], ...]
    with_field: bool  # along z
    max_bond: float  # a bound on |K|, a power of two

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
    max_bond = 2.0 ** np.ceil(np.log2(max(largest, 0.5)))  # default steps stay below 1, so that few couplings need a program of their own
    return IsingFacts(hamiltonian.lattice, hamiltonian.bond_pairs, bool(np.any(np.asarray(hamiltonian.z_field))), float(max_bond))


class RingWeights(NamedTuple):
    """Couplings of the ring: all that a temperature changes, so that a new one recompiles nothing."""

    bond: jax.Array  # (n_bonds,)  K = J delta
    t: jax.Array  # (n_sites,)  weight tanh(gamma delta) of a kink between neighbouring layers
    field: jax.Array  # (n_sites,)  f = h delta


def ring_weights(hamiltonian: SpinHamiltonian, beta: jax.Array | float, n_layers: int) -> RingWeights:
    """Couplings at inverse temperature beta with n_layers = 2 n_slices; differentiable in beta and in the Hamiltonian."""
    delta = beta / n_layers
    single = jnp.float32
    return RingWeights(
        bond=jnp.asarray(-delta * hamiltonian.zz, single),
        t=jnp.asarray(jnp.tanh(delta * jnp.abs(hamiltonian.x_field)), single),
        field=jnp.asarray(delta * hamiltonian.z_field, single),
    )


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
    """b_li = f_i + sum_j K_ij s_lj of the sites of a class, (n_layers, n, n_chains) float32."""
    coupling = weights.bond[cls.bonds] * cls.present if weights.bond.size else jnp.zeros(cls.bonds.shape, jnp.float32)
    b = jnp.broadcast_to(weights.field[cls.sites][:, None], (spins.shape[0], len(cls.sites), spins.shape[-1]))
    for k in range(cls.neighbors.shape[1]):
        b = b + coupling[:, k, None] * spins[:, cls.neighbors[:, k]]
    return b


def log_weight(hamiltonian: SpinHamiltonian, weights: RingWeights, spins: Spins) -> jax.Array:
    """ln w(s), (n_chains,) float64, without a constant that depends on the weights alone.

    The normalisation prod_i cosh(gamma_i delta)^n_layers of the kink weights is included, so that sum_s w = Tr of the Trotter product.
    """
    i, j = hamiltonian.bonds.T
    n_layers = spins.shape[0]
    aligned = (spins[:, i] * spins[:, j]).sum(0, dtype=jnp.int32)  # (n_bonds, n_chains)
    kinks = (spins != jnp.roll(spins, -1, 0)).sum(0, dtype=jnp.int32)  # (n_sites, n_chains)
    magnetisation = spins.sum(0, dtype=jnp.int32)
    wide = jax.tree.map(lambda x: x.astype(float), weights)
    ln_t = jnp.log(jnp.where(wide.t > 0, wide.t, 1.0))  # a site without transverse field never has kinks
    ln_cosh = -0.5 * jnp.log1p(-(wide.t**2))
    return wide.bond @ aligned + wide.field @ magnetisation + ln_t @ kinks + n_layers * ln_cosh.sum()


def random_spins(key: jax.Array, hamiltonian: SpinHamiltonian | IsingFacts, n_layers: int, n_chains: int) -> Spins:
    """A start for every chain: random spins, the same in every layer, which has weight at any temperature."""
    layer = jax.random.rademacher(key, (1, hamiltonian.n_sites, n_chains), jnp.int8)
    return jnp.broadcast_to(layer, (n_layers, *layer.shape[1:]))


def resize(spins: Spins, n_layers: int) -> Spins:
    """The same worldlines on a ring of other length, for a start close to equilibrium."""
    return spins[jnp.arange(n_layers) * spins.shape[0] // n_layers]

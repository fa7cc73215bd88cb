"""Layers of couplings between ancillas and spins: the network of an Ising magnet before it is written out unit by unit.

    Psi = D_L X_L ... D_1 X_1 D_0 |Psi_inf>,   D_l = exp(sum_b K_lb sz_i sz_j + sum_i f_li sz_i),   X_l = exp(sum_i g_li sx_i)

A Trotter product is one way to fill it, training is another. Samplers work on |Psi|^2, a closed ring of 2 L layers (`sampling.ring`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.network.builder import NetworkBuilder, bond_weights, field_weight
from thermodbm.network.dbm import DBMParams


class RingNetwork(NamedTuple):
    """Exponents of L transverse layers and the L + 1 diagonal ones around them, from the ancillas (first) to the spins (last)."""

    bond: jax.Array  # (L + 1, n_bonds)  K of exp(K sz_i sz_j)
    field: jax.Array  # (L + 1, n_sites)  f of exp(f sz)
    kink: jax.Array  # (L, n_sites)  g of exp(g sx); zero where a site has no transverse field

    @property
    def n_layers(self) -> int:
        """Transverse layers, of as many deep units as there are sites with a transverse field."""
        return self.kink.shape[0]


def from_classes(K: np.ndarray, g: np.ndarray, bond_class: np.ndarray, site_class: np.ndarray) -> RingNetwork:
    """Couplings K (L + 1, bond classes) and g (L, site classes) laid out bond by bond and site by site, without fields along z.

    A file of the learned method holds all four under network/; with the bonds, `ring_params` makes the units of it.
    """
    return RingNetwork(jnp.asarray(K)[:, bond_class], jnp.zeros((len(K), len(site_class))), jnp.asarray(g)[:, site_class])


def trotter_ring(hamiltonian: SpinHamiltonian, beta: jax.Array | float, n_slices: int) -> RingNetwork:
    """[exp(-delta Hz/2) exp(-delta Hx) exp(-delta Hz/2)]^n_slices for H = Hz + Hx, delta = beta/(2 n_slices).

    Differentiable in all couplings and in beta.

    >>> from thermodbm import make_lattice, transverse_field_ising
    >>> trotter_ring(transverse_field_ising(make_lattice("chain", 3)), 1.0, n_slices=2).bond[:, 0].tolist()
    [0.125, 0.25, 0.125]
    """
    delta = beta / (2 * n_slices)
    share = np.ones((n_slices + 1, 1))
    share[[0, -1]] = 0.5
    return RingNetwork(
        bond=-delta * share * hamiltonian.zz,
        field=delta * share * hamiltonian.z_field,
        kink=delta * jnp.broadcast_to(hamiltonian.x_field, (n_slices, hamiltonian.n_sites)),
    )


def ring_params(network: RingNetwork, bonds: np.ndarray) -> DBMParams:
    """The same network unit by unit: a hidden unit per bond and diagonal layer, a deep and a hidden unit per site and transverse layer."""
    bond, field, kink = (np.asarray(x, float) for x in network)
    builder = NetworkBuilder(field.shape[1])

    def diagonal(exponents: np.ndarray, fields: np.ndarray) -> None:
        for (i, j), exponent in zip(np.asarray(bonds).tolist(), exponents, strict=True):
            w_i, w_j = bond_weights(exponent)
            builder.couple({builder.ends[i]: w_i, builder.ends[j]: w_j})
        for i, exponent in enumerate(fields):
            builder.bias(builder.ends[i], exponent)

    diagonal(bond[0], field[0])
    for exponents, fields, transverse in zip(bond[1:], field[1:], kink, strict=True):
        for i in np.flatnonzero(transverse):
            old, new = builder.lengthen(int(i))
            w = field_weight(transverse[i])
            builder.couple({old: w, new: w})
        diagonal(exponents, fields)
    return builder.params()

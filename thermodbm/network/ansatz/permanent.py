"""Sums over pairings of the sites at which spins and ancillas differ from a state of infinite temperature.

At infinite temperature every ancilla is opposite to its spin. Exchange makes defects in pairs: sites U with both up and as many sites D
with both down. Each way to pair them by exchanges adds to the amplitude, so that at high temperature

    Psi(v) = perm a(U, D) = sum_pi prod_k a(U_k, D_pi(k)),

with a = -2 tau xy on bonds. No product over pairs is such a sum. For k pairs the permanent is the average over signs of Glynn's formula,

    perm M = 2^(1-k) sum_{s = +-1, s_1 = 1} prod_l s_l sum_m s_m M_ml,

in 2^(k-1) k^2 operations. Source: Glynn, Eur. J. Comb. 31, 1887 (2010).
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from thermodbm.network.ansatz.rbm import deep_configurations
from thermodbm.network.ansatz.symmetry import SymmetryGroup, pair_orbits
from thermodbm.network.ansatz.trial import TrialState, Unravel, generic_trial

NODE = 1e-100
"""In place of a permanent that vanishes, so that ratios to it are numbers, and their squares too."""
BLOCK = 64
"""Configurations that are worked through together."""


class PairPermanent(nn.Module):
    """Visible units (..., 2 n_sites) of +-1 and of total zero to ln perm a(U, D) (...); a is symmetric, and equal on the group's orbits."""

    group: SymmetryGroup

    def setup(self) -> None:
        self.amplitudes = self.param("amplitudes", nn.initializers.ones, (site_pair_orbits(self.group).max() + 1,), jnp.complex128)

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        flat = visible.reshape(-1, visible.shape[-1])
        return jnp.log(pair_permanent(self.amplitudes, self.group, flat.T)).reshape(visible.shape[:-1])

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state: full evaluation for moves, minors for derivatives."""
        trial = generic_trial(self, unravel, holomorphic=True)
        return trial._replace(log_derivs=lambda theta, visible: pair_log_derivs(theta, self.group, visible.T))


class Defects(NamedTuple):
    """Where defects are: the first `count` rows count, the others are filled up with site 0. K = n_sites // 2."""

    up: jax.Array  # (K, n) sites with spin and ancilla up
    down: jax.Array  # (K, n) sites with both down
    count: jax.Array  # (n,)


def site_pair_orbits(group: SymmetryGroup) -> np.ndarray:
    """Class of each pair of sites, (n_sites, n_sites) from 0; the diagonal holds -1."""
    n = group.perm.shape[1] // 2
    # the exchange of spins and ancillas maps pairs of spins to pairs of ancillas: the classes are those of either
    classes = pair_orbits(group)[:n, :n]
    off_diagonal = ~np.eye(n, dtype=bool)
    classes[off_diagonal] = np.unique(classes[off_diagonal], return_inverse=True)[1].reshape(-1)
    return classes


def find_defects(visible: jax.Array) -> Defects:
    """The defects of visible units (V, n)."""
    n_sites = len(visible) // 2
    spins, ancillas = visible[:n_sites] > 0, visible[n_sites:] > 0
    up = spins & ancillas

    def sites(where: jax.Array) -> jax.Array:
        rank = jnp.where(where, jnp.cumsum(where, 0), 0)
        return jnp.stack([jnp.argmax(rank == k, 0) for k in range(1, n_sites // 2 + 1)])

    return Defects(sites(up), sites(~spins & ~ancillas), up.sum(0))


def pair_matrix(amplitudes: jax.Array, group: SymmetryGroup, defects: Defects) -> jax.Array:
    """a(U, D) filled up with the unit matrix, (K, K, n), of the amplitudes of all classes of pairs."""
    classes = site_pair_orbits(group)
    table = jnp.where(classes >= 0, amplitudes[classes], 0).reshape(-1)
    matrix = table[defects.up[:, None] * len(classes) + defects.down[None, :]]
    return jnp.where(inside(defects), matrix, jnp.eye(len(defects.up))[..., None])


def inside(defects: Defects) -> jax.Array:
    """Which elements of the matrix belong to defects, (K, K, n)."""
    index = jnp.arange(len(defects.up))
    return jnp.maximum(index[:, None], index)[..., None] < defects.count


def permanent(matrix: jax.Array) -> jax.Array:
    """perm, (n,), of matrices (k, k, n)."""
    k, _, n = matrix.shape
    if k == 0:
        return jnp.ones(n, matrix.dtype)
    signs = np.concatenate([np.ones((1 << (k - 1), 1)), deep_configurations(k - 1)], axis=1)
    # real and imaginary parts side by side: one real product
    parts = jnp.stack([matrix.real, matrix.imag], axis=2) if jnp.iscomplexobj(matrix) else matrix[:, :, None]
    sums = (signs @ parts.reshape(k, -1)).reshape(len(signs), k, -1, n)
    sums = jax.lax.complex(sums[:, :, 0], sums[:, :, 1]) if jnp.iscomplexobj(matrix) else sums[:, :, 0]
    products = reduce(jnp.multiply, [sums[:, m] for m in range(k)])
    found = (signs.prod(1)[:, None] * products).sum(0) / len(signs)
    return jnp.where(found == 0, NODE, found)


def pair_permanent(amplitudes: jax.Array, group: SymmetryGroup, visible: jax.Array) -> jax.Array:
    """perm a(U, D), (n,), of visible units (V, n)."""
    return _in_blocks(lambda defects: permanent(pair_matrix(amplitudes, group, defects)), visible)


def pair_log_derivs(amplitudes: jax.Array, group: SymmetryGroup, visible: jax.Array) -> jax.Array:
    """d ln perm / d a, (n, classes), of visible units (V, n)."""
    classes = jnp.asarray(site_pair_orbits(group))

    def derivs(defects: Defects) -> jax.Array:
        value, pull_back = jax.vjp(permanent, pair_matrix(amplitudes, group, defects))
        (minors,) = pull_back(1 / value)
        found = jnp.maximum(classes[defects.up[:, None], defects.down[None]], 0)
        walker = jnp.arange(found.shape[-1])
        return jnp.zeros((len(walker), len(amplitudes)), minors.dtype).at[walker, found].add(jnp.where(inside(defects), minors, 0))

    return _in_blocks(derivs, visible)


def _in_blocks(apply: Callable[[Defects], jax.Array], visible: jax.Array) -> jax.Array:
    """`apply`, (n, ...), to blocks of visible units (V, n), with fewer rows where all defects of the block fit into these."""

    def block(visible: jax.Array) -> jax.Array:
        defects = find_defects(visible)
        most = len(defects.up)
        sizes = [*range(max(4, most // 2), most, 2), most]
        rows = [lambda d, k=k: apply(Defects(d.up[:k], d.down[:k], d.count)) for k in sizes]
        return jax.lax.switch(jnp.searchsorted(jnp.asarray(sizes), defects.count.max()), rows, defects)

    n_visible, n = visible.shape
    if n <= BLOCK:
        return block(visible)
    padded = jnp.concatenate([visible, jnp.repeat(visible[:, :1], -n % BLOCK, axis=1)], axis=1)
    done = jax.lax.map(block, padded.reshape(n_visible, -1, BLOCK).swapaxes(0, 1))
    return done.reshape(-1, *done.shape[2:])[:n]

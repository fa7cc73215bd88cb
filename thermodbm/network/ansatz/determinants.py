"""Determinants of pair amplitudes: all spins and ancillas paired in every way, summed as a determinant and over the symmetries of a magnet.

    Psi(v) = sum_f sum_g Psi_f(g v),   Psi_f(v) = s(v) det F_f[U, D]

U and D are the N up and the N down sites among all 2N, spins and ancillas, of total magnetisation zero. F is (2N, 2N), and
s = (-1)^(n ancillas up) (-1)^(number of up sites later in the site order than a down one, pair by pair): a symmetric F makes a singlet of
spins and ancillas, and F = 1 between a spin and its ancilla alone the state of infinite temperature. A sum over the group g of F without
symmetries follows far better than an F with the symmetries. Source: RBM+PP of Nomura, Darmawan, Yamaji, Imada, PRB 96, 205152 (2017).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax.linalg import lu, triangular_solve

from thermodbm.network.ansatz.symmetry import SymmetryGroup

BLOCK = 256
"""Determinants that are worked through together."""
NODE = 1e-10
"""Pivots below this share of the largest element of F are raised to it, and so are ratios of single determinants below it: inverses stay
finite, and of a change of the sum from a node away no more digits are lost than that."""


class Terms:
    """Which parameter each pair of sites has in each determinant: a hashable table (G, V, V), of -1 on the diagonal."""

    def __init__(self, classes: np.ndarray) -> None:
        self.classes = classes
        self._key = (classes.shape, classes.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Terms) and self._key == other._key


def pair_terms(group: SymmetryGroup, tied: SymmetryGroup | None, symmetric: bool) -> np.ndarray:
    """Class of each pair (up, down) of sites in each different term of the sum over the group, (G, V, V); the diagonal holds -1.

    (g v)_i = sign v_perm(i), so that F_g of perm(i), perm(j) is F_ij, or F_ji where g reverses spins. No term has a sign of its own:
    the state of infinite temperature is symmetric.
    """
    v = group.perm.shape[1]
    i, j = np.meshgrid(np.arange(v), np.arange(v), indexing="ij")
    label = np.full((v, v), v * v)
    for perm, sign in zip(*(tied or SymmetryGroup(np.arange(v)[None], np.ones(1, int))), strict=True):
        a, b = (perm[i], perm[j]) if sign > 0 else (perm[j], perm[i])
        low, high = (np.minimum(a, b), np.maximum(a, b)) if symmetric else (a, b)
        label = np.minimum(label, low * v + high)
    if symmetric:
        label = np.minimum(label, label.T)
    off_diagonal = ~np.eye(v, dtype=bool)
    classes = np.full((v, v), -1)
    classes[off_diagonal] = np.unique(label[off_diagonal], return_inverse=True)[1].reshape(-1)
    tables = {}
    for perm, sign in zip(*group, strict=True):
        table = np.empty_like(classes)
        table[np.ix_(perm, perm)] = classes if sign > 0 else classes.T
        tables[table.tobytes()] = table
    return np.stack(list(tables.values()))


class _Lists(NamedTuple):
    """Of n walkers."""

    up: jax.Array  # (n, N) sites, in order
    down: jax.Array  # (n, N)
    slot: jax.Array  # (n, V) place of each site in its list


def _lists(visible: jax.Array) -> _Lists:
    v = visible.shape[1]
    order = jnp.argsort(-visible.astype(jnp.int8), axis=1, stable=True).astype(jnp.int32)
    slot = jnp.argsort(order, axis=1).astype(jnp.int32) % (v // 2)
    return _Lists(order[:, : v // 2], order[:, v // 2 :], slot)


def _sign(lists: _Lists) -> jax.Array:
    """s(v), (n,): with up sites u_k in order there are u_k - k down ones before u_k."""
    n_sites = lists.up.shape[1]
    odd = (lists.up >= n_sites).sum(1) + lists.up.sum(1) + n_sites * (n_sites - 1) // 2
    return 1.0 - 2.0 * (odd % 2)


def tables_of(terms: Terms, F: jax.Array) -> jax.Array:
    """F of every determinant, (f * G, V * V), zero on the diagonal."""
    g, v, _ = terms.classes.shape
    return jnp.where(terms.classes >= 0, F[:, terms.classes], 0).reshape(len(F) * g, v * v)


def minor(tables: jax.Array, rows: jax.Array, columns: jax.Array, v: int) -> jax.Array:
    """Elements of every table in rows (n, R) and columns (n, C), (G, n, R, C)."""
    return tables[:, rows[:, :, None] * v + columns[:, None]]


class Evaluated(NamedTuple):
    """Of every determinant and walker."""

    lists: _Lists
    log_psi: jax.Array  # (n,)
    share: jax.Array  # (G, n) of the sum
    inverse: jax.Array | None  # A, (G, n, N, N)


def evaluate(tables: jax.Array, visible: jax.Array, *, invert: bool) -> Evaluated:
    """Of visible units (n, V)."""
    lists, v = _lists(visible), visible.shape[1]
    factors, _, permutation = lu(minor(tables, lists.up, lists.down, v))
    pivot = jnp.diagonal(factors, axis1=-2, axis2=-1)
    square = pivot.real**2 + pivot.imag**2
    least = NODE**2 * (tables.real**2 + tables.imag**2).max(1)[:, None, None]
    pivot, square = jnp.where(square > least, pivot, jnp.sqrt(least)), jnp.maximum(square, least)
    log_modulus = jnp.log(square).sum(-1) / 2
    scale = log_modulus.max(0)
    size = jnp.exp(log_modulus - scale) * _parity(permutation) * _sign(lists)
    parts = (pivot * jax.lax.rsqrt(square)).prod(-1) * size
    total = parts.sum(0)
    square = jnp.maximum(total.real**2 + total.imag**2, 1e-300)
    log_psi = jax.lax.complex(jnp.log(square) / 2 + scale, jnp.arctan2(total.imag, total.real))
    share = parts * (total.conj() / square)
    if not invert:
        return Evaluated(lists, log_psi, share, None)
    factors = jnp.where(np.eye(v // 2, dtype=bool), pivot[..., None], factors)
    unit = (permutation[..., :, None] == jnp.arange(v // 2)).astype(factors.dtype)
    half = triangular_solve(factors, unit, left_side=True, lower=True, unit_diagonal=True)
    inverse = triangular_solve(factors, half, left_side=True, lower=False)
    return Evaluated(lists, log_psi, share, inverse)


def _parity(permutation: jax.Array) -> jax.Array:
    """Sign of permutations (..., N)."""
    i, j = np.triu_indices(permutation.shape[-1], 1)
    return 1.0 - 2.0 * ((permutation[..., i] > permutation[..., j]).sum(-1) % 2)


def in_blocks(apply: Callable[[jax.Array], Any], visible: jax.Array, n_terms: int) -> Any:
    """`apply`, of leading axis n, to blocks of visible units (n, V)."""
    n, size = len(visible), max(1, BLOCK // n_terms)
    if n <= size:
        return apply(visible)
    padded = jnp.concatenate([visible, jnp.repeat(visible[:1], -n % size, axis=0)])
    done = jax.lax.map(apply, padded.reshape(-1, size, visible.shape[1]))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], done)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def log_amplitude(terms: Terms, F: jax.Array, visible: jax.Array) -> jax.Array:
    """ln Psi, (n,), of parameters F (f, C) and visible units (n, V)."""
    tables = tables_of(terms, F)
    return in_blocks(lambda v: evaluate(tables, v, invert=False).log_psi, visible, len(tables))


@log_amplitude.defjvp
def _log_amplitude_jvp(terms: Terms, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    F, visible = primals
    change = tangents[0]
    return log_amplitude(terms, F, visible), log_derivs(terms, F, visible) @ change.reshape(-1)


def log_derivs(terms: Terms, F: jax.Array, visible: jax.Array) -> jax.Array:
    """d ln Psi / d F, (n, f * C), of visible units (n, V)."""
    tables = tables_of(terms, F)

    def block(v: jax.Array) -> jax.Array:
        done = evaluate(tables, v, invert=True)
        return derivs_of(terms, len(F), v, done)

    return in_blocks(block, visible, len(tables))


def _members(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of each class in each determinant, flat, (G, C, M), filled up; and which of them count. Where classes are symmetric,
    one of (i, j) and (j, i) stands for both."""
    g, v, _ = classes.shape
    symmetric = (classes == classes.swapaxes(1, 2)).all()
    flat = np.where(np.triu(np.ones((v, v), bool), 1) if symmetric else True, classes, -1).reshape(g, -1)
    count = np.array([np.bincount(row[row >= 0], minlength=classes.max() + 1) for row in flat])
    order = np.argsort(flat, axis=1, kind="stable")
    first = (flat < 0).sum(1)[:, None] + np.cumsum(count, 1) - count
    place = np.arange(count.max())
    members = order[np.arange(g)[:, None, None], np.minimum(first[..., None] + place, v * v - 1)]
    return members, place < count[..., None]


def derivs_of(terms: Terms, n_products: int, visible: jax.Array, done: Evaluated) -> jax.Array:
    """sum_g share_g A_g of the pairs of each class, (n, f * C)."""
    (g, v, _), n = terms.classes.shape, len(visible)
    symmetric = (terms.classes == terms.classes.swapaxes(1, 2)).all()
    members, counts = _members(terms.classes)
    up, slot = visible > 0, done.lists.slot
    outside = (v // 2) ** 2
    forward = jnp.where(up[:, :, None] & ~up[:, None], slot[:, None] * (v // 2) + slot[:, :, None], outside)  # (up, down): A[down, up]
    if symmetric:
        forward = jnp.minimum(forward, forward.swapaxes(1, 2))
    index = forward.reshape(n, -1)[:, members]  # (n, G, C, M)
    index = jnp.where(counts, index, outside)
    weighted = (done.share[..., None] * done.inverse.reshape(*done.share.shape, -1)).reshape(n_products, g, n, -1)
    weighted = jnp.pad(weighted, ((0, 0), (0, 0), (0, 0), (0, 1)))
    index = jnp.moveaxis(index, 0, 1).reshape(g, n, -1)
    found = jnp.take_along_axis(weighted, index[None], axis=-1).reshape(n_products, g, n, -1, members.shape[-1])
    return jnp.moveaxis(found.sum((1, 4)), 0, 1).reshape(n, -1)

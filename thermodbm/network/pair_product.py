"""Projected pair products: all spins and ancillas paired in every way, summed as a determinant and over the symmetries of the magnet.

    Psi(v) = sum_f sum_g Psi_f(g v),   Psi_f(v) = s(v) det F_f[U, D]

U and D are the N up and the N down sites among all 2N, spins and ancillas, of total magnetisation zero. F is (2N, 2N), and
s = (-1)^(n ancillas up) (-1)^(number of up sites later in the site order than a down one, pair by pair): a symmetric F makes a singlet of
spins and ancillas, and F = 1 between a spin and its ancilla alone the state of infinite temperature. A sum over the group g of F without
symmetries follows far better than an F with the symmetries. Source: RBM+PP of Nomura, Darmawan, Yamaji, Imada, PRB 96, 205152 (2017).

With A = F[U, D]^-1 of rows in D, the exchange of an up site x and a down site y multiplies a determinant by

    alpha gamma - A_yx S,   alpha = (F[D, D] A)_yx,   gamma = (A F[U, U])_yx,   S = (F[D, D] A F[U, U] - F[D, U])_yx,

and takes A to A - L q R with L = (A_.x, -gamma_.x + e_y), R = (A_y.; alpha_y. - e_x) and q the inverse of ((A_yx, -gamma), (alpha, -S)).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.lax.linalg import lu, triangular_solve

from thermodbm.network.symmetry import SymmetryGroup
from thermodbm.network.trial import Everything, Prepared, TrialState, Unravel, match

REFRESH = 64
"""Moves after which inverses are computed anew: what updates have lost until then stays below 1e-6 (tests/test_pair_product.py)."""
BLOCK = 256
"""Determinants that are worked through together."""
NODE = 1e-10
"""Pivots below this share of the largest element of F are raised to it, and so are ratios of single determinants below it: inverses stay
finite, and of a change of the sum from a node away no more digits are lost than that."""


class PairProduct(nn.Module):
    """Visible units (..., 2 n_sites) of +-1 and of total zero to the complex log-amplitude (...)."""

    group: SymmetryGroup  # summed over
    n_products: int = 1  # F's
    singlets: bool = True  # F symmetric
    tied: SymmetryGroup | None = None  # a subgroup under which F is invariant

    def setup(self) -> None:
        n_classes = pair_terms(self.group, self.tied, self.singlets).max() + 1
        self.F = self.param("F", nn.initializers.normal(1.0), (self.n_products, n_classes), jnp.complex128)

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        return log_amplitude(self._terms(), self.F, visible.reshape(-1, visible.shape[-1])).reshape(visible.shape[:-1])

    @nn.nowrap
    def of_first_term(self) -> tuple[SymmetryGroup, SymmetryGroup | None, bool]:
        """Arguments of `pair_terms` for F itself: the class of parameters of each pair."""
        v = self.group.perm.shape[1]
        return SymmetryGroup(np.arange(v)[None], np.ones(1, int)), self.tied, self.singlets

    @nn.nowrap
    def _terms(self) -> "Terms":
        return Terms(pair_terms(self.group, self.tied, self.singlets))

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state, with inverses that follow a move by updates of rank two."""
        return _updated(self._terms(), lambda theta: theta.reshape(self.n_products, -1), unravel)


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


def _tables(terms: Terms, F: jax.Array) -> jax.Array:
    """F of every determinant, (f * G, V * V), zero on the diagonal."""
    g, v, _ = terms.classes.shape
    return jnp.where(terms.classes >= 0, F[:, terms.classes], 0).reshape(len(F) * g, v * v)


def _minor(tables: jax.Array, rows: jax.Array, columns: jax.Array, v: int) -> jax.Array:
    """Elements of every table in rows (n, R) and columns (n, C), (G, n, R, C)."""
    return tables[:, rows[:, :, None] * v + columns[:, None]]


class _Evaluated(NamedTuple):
    """Of every determinant and walker."""

    lists: _Lists
    log_psi: jax.Array  # (n,)
    share: jax.Array  # (G, n) of the sum
    inverse: jax.Array | None  # A, (G, n, N, N)


def _evaluate(tables: jax.Array, visible: jax.Array, *, invert: bool) -> _Evaluated:
    """Of visible units (n, V)."""
    lists, v = _lists(visible), visible.shape[1]
    factors, _, permutation = lu(_minor(tables, lists.up, lists.down, v))
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
        return _Evaluated(lists, log_psi, share, None)
    factors = jnp.where(np.eye(v // 2, dtype=bool), pivot[..., None], factors)
    unit = (permutation[..., :, None] == jnp.arange(v // 2)).astype(factors.dtype)
    half = triangular_solve(factors, unit, left_side=True, lower=True, unit_diagonal=True)
    inverse = triangular_solve(factors, half, left_side=True, lower=False)
    return _Evaluated(lists, log_psi, share, inverse)


def _parity(permutation: jax.Array) -> jax.Array:
    """Sign of permutations (..., N)."""
    i, j = np.triu_indices(permutation.shape[-1], 1)
    return 1.0 - 2.0 * ((permutation[..., i] > permutation[..., j]).sum(-1) % 2)


def _in_blocks(apply: Callable[[jax.Array], Any], visible: jax.Array, n_terms: int) -> Any:
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
    tables = _tables(terms, F)
    return _in_blocks(lambda v: _evaluate(tables, v, invert=False).log_psi, visible, len(tables))


@log_amplitude.defjvp
def _log_amplitude_jvp(terms: Terms, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    F, visible = primals
    change = tangents[0]
    return log_amplitude(terms, F, visible), log_derivs(terms, F, visible) @ change.reshape(-1)


def log_derivs(terms: Terms, F: jax.Array, visible: jax.Array) -> jax.Array:
    """d ln Psi / d F, (n, f * C), of visible units (n, V)."""
    tables = _tables(terms, F)

    def block(v: jax.Array) -> jax.Array:
        done = _evaluate(tables, v, invert=True)
        return _derivs(terms, len(F), v, done)

    return _in_blocks(block, visible, len(tables))


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


def _derivs(terms: Terms, n_products: int, visible: jax.Array, done: _Evaluated) -> jax.Array:
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


class _Move(NamedTuple):
    """Of K exchanges."""

    first: jax.Array  # (K,) site that is up where e = 1
    second: jax.Array  # (K,) site that is down there
    sign: jax.Array  # (K,) of what the determinants' ratios are times, to give that of Psi


class _Inverses(NamedTuple):
    """Of n walkers."""

    real: jax.Array  # (G, N, N, n) A
    imag: jax.Array
    share: jax.Array  # (G, n) of the sum
    up: jax.Array  # (N, n) sites
    down: jax.Array  # (N, n)
    slot: jax.Array  # (V, n) place of each site in its list


def _updated(terms: Terms, shaped: Callable[[jax.Array], jax.Array], unravel: Unravel) -> TrialState:
    v = terms.classes.shape[1]

    def moves(theta: jax.Array, patterns: np.ndarray) -> Prepared:
        return Prepared(_exchanges(patterns), _tables(terms, shaped(theta)))

    def cache(theta: jax.Array, visible: jax.Array) -> _Inverses:
        return _inverses(_evaluate(_tables(terms, shaped(theta)), visible.T, invert=True))

    def everything(theta: jax.Array, visible: jax.Array, moves: Prepared, patterns: jax.Array) -> Everything:
        F = shaped(theta)

        def block(v: jax.Array) -> Everything:
            done = _evaluate(moves.fixed, v, invert=True)
            sign, _ = jax.vmap(match, (0, None))(patterns, v.T)
            return Everything(done.log_psi, _ratios(moves, _inverses(done), sign).T, _derivs(terms, len(F), v, done))

        return _in_blocks(block, visible, len(moves.fixed))

    return TrialState(
        log_amplitude=lambda theta, visible: log_amplitude(terms, shaped(theta), visible),
        log_derivs=lambda theta, visible: log_derivs(terms, shaped(theta), visible),
        moves=moves,
        cache=cache,
        propose=partial(_propose, v),
        unravel=unravel,
        ratios=_ratios,
        everything=everything,
        largest_move=2,
        block=4,
        refresh_every=REFRESH,
    )


def _inverses(done: _Evaluated) -> _Inverses:
    A = jnp.moveaxis(done.inverse, 1, -1)
    return _Inverses(A.real, A.imag, done.share, done.lists.up.T, done.lists.down.T, done.lists.slot.T)


def _exchanges(patterns: np.ndarray) -> _Move:
    if not ((patterns == 1).sum(1) == 1).all() or not ((patterns == -1).sum(1) == 1).all():
        raise ValueError("pair products know exchanges of two sites alone")
    first, second = (patterns == 1).argmax(1), (patterns == -1).argmax(1)
    n_sites = patterns.shape[1] // 2
    return _Move(jnp.asarray(first), jnp.asarray(second), jnp.asarray(np.where((first < n_sites) == (second < n_sites), -1.0, 1.0)))


def _ratios(moves: Prepared, cache: _Inverses, e: jax.Array) -> jax.Array:
    """Of all exchanges with their signs e (K, n), (K, n): every pair of an up and a down site by three products of matrices."""
    tables, move = moves.fixed, moves.rows
    n_sites, v, walker = len(cache.up), len(cache.slot), jnp.arange(cache.up.shape[1])
    A = jnp.moveaxis(jax.lax.complex(cache.real, cache.imag), -1, 1)
    up, down = cache.up.T, cache.down.T
    gamma = A @ _minor(tables, up, up, v)
    F_down = _minor(tables, down, down, v)
    S = F_down @ gamma - _minor(tables, down, up, v)
    alpha = F_down @ A
    x, y = (jnp.where(e > 0, a[:, None], b[:, None]) for a, b in ((move.first, move.second), (move.second, move.first)))
    place = cache.slot[y, walker] * n_sites + cache.slot[x, walker]  # (K, n)
    A, alpha, gamma, S = (jnp.take_along_axis(z.reshape(*z.shape[:2], -1), place.T[None], axis=2) for z in (A, alpha, gamma, S))
    return move.sign[:, None] * (cache.share[..., None] * (alpha * gamma - A * S)).sum(0).T


def _complex_product(a: tuple, b: tuple) -> tuple:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _propose(v: int, tables: jax.Array, move: _Move, old: _Inverses, e: jax.Array) -> tuple[jax.Array, _Inverses]:
    """The exchange of an up site x and a down site y, for all walkers whether they can or not."""
    n_sites, walker = v // 2, jnp.arange(len(e))
    x, y = (jnp.where(e > 0, *sites).astype(old.up.dtype) for sites in ((move.first, move.second), (move.second, move.first)))
    column, row = old.slot[x, walker], old.slot[y, walker]
    at_column, at_row = (jnp.arange(n_sites)[:, None] == s for s in (column, row))
    A = old.real, old.imag

    def parts(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        return z.real, z.imag

    def pick(mask: jax.Array, z: tuple, axis: int) -> tuple[jax.Array, jax.Array]:
        return tuple((jnp.where(mask, part, 0)).sum(axis) for part in z)

    F_y, F_x = (parts(tables[:, index]) for index in (y * v + old.down, old.up * v + x))  # (G, N, n) each
    F_y, F_x = jax.lax.optimization_barrier((F_y, F_x))
    gamma = tuple(part.sum(2) for part in _complex_product(A, tuple(z[:, None] for z in F_x)))  # (G, N, n) over D
    alpha = tuple(part.sum(1) for part in _complex_product(A, tuple(z[:, :, None] for z in F_y)))  # over U
    A_x = tuple(jnp.take_along_axis(z, column[None, None, None], axis=2)[:, :, 0] for z in A)
    A_y = tuple(jnp.take_along_axis(z, row[None, None, None], axis=1)[:, 0] for z in A)
    corner, gamma_y, alpha_x = pick(at_row, A_x, 1), pick(at_row, gamma, 1), pick(at_column, alpha, 1)
    rest = tuple(part.sum(1) for part in _complex_product(F_y, gamma))
    S = tuple(a - b for a, b in zip(rest, parts(tables[:, y * v + x]), strict=True))
    determinant = tuple(a - b for a, b in zip(_complex_product(alpha_x, gamma_y), _complex_product(corner, S), strict=True))
    terms = old.share * jax.lax.complex(*determinant)
    ratio = terms.sum(0)
    size = determinant[0] ** 2 + determinant[1] ** 2
    safe = size > NODE**2
    scale = 1 / jnp.where(safe, size, 1.0)
    inverse = jnp.where(safe, determinant[0] * scale, 1 / NODE), jnp.where(safe, -determinant[1] * scale, 0)
    # q = ((-S, gamma), (-alpha, A_yx)) / determinant; left = L q, a pair of columns
    L_2 = tuple(at_row * real - g for real, g in zip((1.0, 0.0), gamma, strict=True))
    R_2 = tuple(a - at_column * real for real, a in zip((1.0, 0.0), alpha, strict=True))
    q = [
        tuple(sign * z for z in _complex_product(inverse, element)) for sign, element in ((-1, S), (1, gamma_y), (-1, alpha_x), (1, corner))
    ]
    q = [tuple(z[:, None] for z in element) for element in q]
    left = [tuple(a + b for a, b in zip(_complex_product(A_x, q[k]), _complex_product(L_2, q[k + 2]), strict=True)) for k in (0, 1)]
    left, A_y, R_2, terms = jax.lax.optimization_barrier((left, A_y, R_2, terms))
    change = [
        _complex_product(tuple(z[:, :, None] for z in column), tuple(z[:, None] for z in row))
        for column, row in zip(left, (A_y, R_2), strict=True)
    ]
    real, imag = (a - b - c for a, b, c in zip(A, *change, strict=True))
    new = _Inverses(
        real,
        imag,
        terms / jnp.where(ratio == 0, 1, ratio),
        jnp.where(at_column, y, old.up),
        jnp.where(at_row, x, old.down),
        old.slot.at[x, walker].set(row).at[y, walker].set(column),
    )
    return ratio * move.sign, new

"""Projected pair products: the trial state of sums of determinants (`determinants`), whose inverses follow the moves of walkers.

With A = F[U, D]^-1 of rows in D, the exchange of an up site x and a down site y multiplies a determinant by

    alpha gamma - A_yx S,   alpha = (F[D, D] A)_yx,   gamma = (A F[U, U])_yx,   S = (F[D, D] A F[U, U] - F[D, U])_yx,

and takes A to A - L q R with L = (A_.x, -gamma_.x + e_y), R = (A_y.; alpha_y. - e_x) and q the inverse of ((A_yx, -gamma), (alpha, -S)).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from thermodbm.network.ansatz.determinants import (
    NODE,
    Evaluated,
    Terms,
    derivs_of,
    evaluate,
    in_blocks,
    log_amplitude,
    log_derivs,
    minor,
    pair_terms,
    tables_of,
)
from thermodbm.network.ansatz.symmetry import SymmetryGroup
from thermodbm.network.ansatz.trial import Everything, Prepared, TrialState, Unravel, match

REFRESH = 64
"""Moves after which inverses are computed anew: what updates have lost until then stays below 1e-6 (tests/test_pair_product.py)."""


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
    def _terms(self) -> Terms:
        return Terms(pair_terms(self.group, self.tied, self.singlets))

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state, with inverses that follow a move by updates of rank two."""
        return _updated(self._terms(), lambda theta: theta.reshape(self.n_products, -1), unravel)


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
        return Prepared(_exchanges(patterns), tables_of(terms, shaped(theta)))

    def cache(theta: jax.Array, visible: jax.Array) -> _Inverses:
        return _inverses(evaluate(tables_of(terms, shaped(theta)), visible.T, invert=True))

    def everything(theta: jax.Array, visible: jax.Array, moves: Prepared, patterns: jax.Array) -> Everything:
        F = shaped(theta)

        def block(v: jax.Array) -> Everything:
            done = evaluate(moves.fixed, v, invert=True)
            sign, _ = jax.vmap(match, (0, None))(patterns, v.T)
            return Everything(done.log_psi, _ratios(moves, _inverses(done), sign).T, derivs_of(terms, len(F), v, done))

        return in_blocks(block, visible, len(moves.fixed))

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


def _inverses(done: Evaluated) -> _Inverses:
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
    gamma = A @ minor(tables, up, up, v)
    F_down = minor(tables, down, down, v)
    S = F_down @ gamma - minor(tables, down, up, v)
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

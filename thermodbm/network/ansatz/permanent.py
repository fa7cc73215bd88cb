"""Sums over pairings of the sites at which spins and ancillas differ from a state of infinite temperature.

At infinite temperature every ancilla is opposite to its spin. Exchange makes defects in pairs: sites U with both up and as many sites D
with both down. Each way to pair them by exchanges adds to the amplitude, so that at high temperature

    Psi(v) = perm a(U, D) = sum_pi prod_k a(U_k, D_pi(k)),

with a = -2 tau xy on bonds. No product over pairs is such a sum. For k pairs the permanent is the average over signs of Glynn's formula,

    perm M = 2^(1-k) sum_{s = +-1, s_1 = 1} prod_l s_l sum_m s_m M_ml,

in 2^(k-1) k operations beyond the sums, which differ from each other by few terms. An exchange removes a defect here and makes one there:
the amplitudes of all configurations next to v follow from the k^2 minors perm(M less row m and column l) = d perm M / d M_ml, expanded
along the rows and columns that are new. Source: Glynn, Eur. J. Comb. 31, 1887 (2010).
"""

from collections.abc import Callable
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from thermodbm.network.ansatz.rbm import deep_configurations
from thermodbm.network.ansatz.symmetry import SymmetryGroup, pair_orbits
from thermodbm.network.ansatz.trial import Prepared, TrialState, Unravel, generic_trial

NODE = 1e-100
"""In place of a permanent that vanishes, so that ratios to it are numbers, and their squares too."""
BLOCK = 64
"""Configurations that are worked through together."""
ROWS = 7
"""Of Glynn's signs so many are summed over at once."""


Parts = tuple[jax.Array, jax.Array]
"""Real and imaginary part: side by side they make real products of matrices."""


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
        """The trial state: full evaluation for single moves, minors for derivatives and for all moves of a configuration."""
        return _with_minors(self.group, generic_trial(self, unravel, holomorphic=True))


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


def find_defects(visible: jax.Array, rows: int | None = None) -> Defects:
    """The defects of visible units (V, n), of each kind as many as there can be, or so many rows."""
    n_sites = len(visible) // 2
    spins, ancillas = visible[:n_sites] > 0, visible[n_sites:] > 0
    index, up = jnp.arange(n_sites, dtype=jnp.int32)[:, None], spins & ancillas

    def sites(where: jax.Array) -> jax.Array:
        rank = jnp.where(where, jnp.cumsum(where, 0, dtype=jnp.int32), 0)
        return jnp.stack([jnp.where(rank == k, index, 0).sum(0) for k in range(1, (n_sites // 2 if rows is None else rows) + 1)])

    return Defects(sites(up), sites(~spins & ~ancillas), up.sum(0))


def site_amplitudes(amplitudes: jax.Array, group: SymmetryGroup) -> jax.Array:
    """a(i, j) of all sites, (n_sites, n_sites), of the amplitudes of all classes of pairs; zero on the diagonal."""
    classes = site_pair_orbits(group)
    return jnp.where(classes >= 0, amplitudes[classes], 0)


def pair_matrix(amplitudes: jax.Array, group: SymmetryGroup, defects: Defects) -> jax.Array:
    """a(U, D) filled up with the unit matrix, (K, K, n), of the amplitudes of all classes of pairs."""
    table = site_amplitudes(amplitudes, group)
    matrix = table.reshape(-1)[defects.up[:, None] * len(table) + defects.down[None, :]]
    return jnp.where(inside(defects), matrix, jnp.eye(len(defects.up))[..., None])


def inside(defects: Defects) -> jax.Array:
    """Which elements of the matrix belong to defects, (K, K, n)."""
    index = jnp.arange(len(defects.up))
    return jnp.maximum(index[:, None], index)[..., None] < defects.count


def occupied(sites: jax.Array, count: jax.Array, n_sites: int) -> jax.Array:
    """Which sites are among the first `count` (n,) of the lists `sites` (K, n), (n_sites, n)."""
    counts = jnp.arange(len(sites))[:, None] < count
    return ((sites == jnp.arange(n_sites)[:, None, None]) & counts).any(1)


@jax.custom_jvp
def permanent(matrix: jax.Array) -> jax.Array:
    """perm, (n,), of complex matrices (k, k, n)."""
    if len(matrix) == 0:
        return jnp.ones(matrix.shape[-1], matrix.dtype)

    def product_(columns: list[Parts]) -> Parts:
        return reduce(_times, columns)

    found = _over_signs(matrix, product_, lambda signs: signs.prod(1)[None], lambda outer, total: total[0])
    return jnp.where(found == 0, NODE, found)


@permanent.defjvp
def _along(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # all signs that were summed over would be kept, otherwise
    (matrix,), (change,) = primals, tangents
    return permanent(matrix), (minors(matrix) * change).sum((0, 1))


def minors(matrix: jax.Array) -> jax.Array:
    """perm of complex matrices (k, k, n) less a row and a column, for all of these, (k, k, n)."""

    def all_but_one(columns: list[Parts]) -> Parts:
        none = jnp.ones_like(columns[0][0]), jnp.zeros_like(columns[0][0])
        before, after = (list(accumulate(x[:-1], _times, initial=none)) for x in (columns, columns[::-1]))
        return tuple(jnp.stack(x, 1) for x in zip(*map(_times, before, after[::-1]), strict=True))

    def with_rows(signs: np.ndarray) -> np.ndarray:  # d sum_m s_m M_ml / d M_ml = s_m; of the rows that are summed over later, 1
        return signs.prod(1) * np.concatenate([signs, np.ones((len(signs), 1))], axis=1).T

    def each_row(outer: jax.Array, total: jax.Array) -> jax.Array:
        return jnp.concatenate([total[:-1], outer[:, None, None] * total[-1]])

    return _over_signs(matrix, all_but_one, with_rows, each_row)


def _times(x: Parts, y: Parts) -> Parts:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _over_signs(matrix: jax.Array, of_columns: Callable, weights: Callable, collect: Callable) -> jax.Array:
    """2^(1-k) sum_s prod_l s_l collect(w(s) of_columns(sum_m s_m M_m1, ..)), for matrices (k, k, n), k > 0.

    Args:
        of_columns: of k columns (S, n), a sign vector a row, to (S, ..., n).
        weights: of the signs (S, ROWS) of the first rows of the matrix, with their product, (W, S).
        collect: (signs (k - ROWS,) of the other rows, (W, ..., n)) -> what is summed.
    """
    k = len(matrix)
    inner = min(k, ROWS)
    signs = np.concatenate([np.ones((1 << (inner - 1), 1)), deep_configurations(inner - 1)], axis=1)
    weighed, parts = weights(signs), (matrix.real, matrix.imag)
    first = [_dot(signs, x[:inner]) for x in parts]

    def chunk(outer: jax.Array) -> jax.Array:
        sums = [a + _dot(outer[None], x[inner:]) for a, x in zip(first, parts, strict=True)] if k > inner else first
        done = of_columns([(sums[0][:, column], sums[1][:, column]) for column in range(k)])
        return collect(outer, jax.lax.complex(*(_dot(weighed, x) for x in done)))

    if k == inner:
        return chunk(jnp.zeros(0)) / len(signs)
    n_others = 1 << (k - inner)

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        outer = 1.0 - 2 * ((index >> jnp.arange(k - inner)) & 1)
        return total + outer.prod() * chunk(outer)

    zero = jnp.zeros_like(jax.eval_shape(chunk, jnp.zeros(k - inner)))
    return jax.lax.fori_loop(0, n_others, add, zero) / len(signs) / n_others


def _matmul(rows: jax.Array, x: jax.Array) -> jax.Array:
    """Complex (r, m) by (m, ..., n)."""
    (a, b), (c, d) = ((z.real, z.imag) for z in (rows, x))
    return jax.lax.complex(_dot(a, c) - _dot(b, d), _dot(a, d) + _dot(b, c))


def _dot(rows: jax.Array, x: jax.Array) -> jax.Array:
    """(r, m) by (m, ..., n)."""
    return (rows @ x.reshape(len(x), -1)).reshape(len(rows), *x.shape[1:])


def pair_permanent(amplitudes: jax.Array, group: SymmetryGroup, visible: jax.Array) -> jax.Array:
    """perm a(U, D), (n,), of visible units (V, n)."""
    return _in_blocks(lambda defects: permanent(pair_matrix(amplitudes, group, defects)), visible)


def pair_log_derivs(amplitudes: jax.Array, group: SymmetryGroup, visible: jax.Array) -> jax.Array:
    """d ln perm / d a, (n, classes), of visible units (V, n)."""
    classes = jnp.asarray(site_pair_orbits(group))

    def derivs(defects: Defects) -> jax.Array:
        matrix = pair_matrix(amplitudes, group, defects)
        change = jnp.where(inside(defects), minors(matrix) / permanent(matrix), 0)
        found = jnp.maximum(classes[defects.up[:, None], defects.down[None]], 0)
        walker = jnp.arange(found.shape[-1])
        return jnp.zeros((len(walker), len(amplitudes)), change.dtype).at[walker, found].add(change)

    return _in_blocks(derivs, visible)


class _Move(NamedTuple):
    """Patterns, and of each the sites that lose and gain a unit up, spin or ancilla, where v agrees with it: the same where none do."""

    pattern: jax.Array  # (..., V)
    loses: jax.Array
    gains: jax.Array


def _with_minors(group: SymmetryGroup, generic: TrialState) -> TrialState:
    def moves(amplitudes: jax.Array, patterns: np.ndarray) -> Prepared:
        net = np.asarray(patterns, int).reshape(len(patterns), 2, -1).sum(1)
        if np.any(np.abs(net).sum(1) > 2) or np.any(net.sum(1)):
            raise ValueError("a move changes two sites at most, and no total")
        return Prepared(_Move(*map(jnp.asarray, (patterns, (net > 0).argmax(1), (net < 0).argmax(1)))), amplitudes)

    def propose(amplitudes: jax.Array, move: _Move, cache: dict[str, jax.Array], sign: jax.Array) -> tuple[jax.Array, dict]:
        return generic.propose(amplitudes, move.pattern, cache, sign)

    def ratios(moves: Prepared, cache: dict[str, jax.Array], sign: jax.Array) -> jax.Array:
        found = pair_ratios(moves.fixed, group, cache["visible"]).reshape(len(sign[0]), -1)
        _, loses, gains = moves.rows
        n = len(group.perm[0]) // 2
        loses, gains = (jnp.where(sign > 0, *x) for x in ((loses[:, None], gains[:, None]), (gains[:, None], loses[:, None])))
        return jnp.where(loses == gains, 1.0, jnp.take_along_axis(found.T, loses * n + gains, axis=0))

    def log_derivs(amplitudes: jax.Array, visible: jax.Array) -> jax.Array:
        return pair_log_derivs(amplitudes, group, visible.T)

    return generic._replace(log_derivs=log_derivs, moves=moves, propose=propose, ratios=ratios)


def pair_ratios(amplitudes: jax.Array, group: SymmetryGroup, visible: jax.Array) -> jax.Array:
    """Psi(v')/Psi(v), (n, N, N), where site i loses a unit of its spin or ancilla and j gains one, for visible units (V, n).

    With M the matrix of v, m its minors and A that of all sites, perm M times the ratio is

    m_ij                       i was up and j down: both defects go,
    (m A)_ij                   i was up and j is up then: row i becomes row j,
    (A m)_ij                   j was down and i is down then: column j becomes column i,
    A_ij perm M + (A m A)_ij   neither was a defect: j is up then and i down.
    """
    table = site_amplitudes(amplitudes, group)
    n = len(table)

    def block(defects: Defects) -> jax.Array:
        matrix = pair_matrix(amplitudes, group, defects)
        value, walker = permanent(matrix), jnp.arange(matrix.shape[-1])
        found = jnp.where(inside(defects), minors(matrix), 0)
        m = jnp.zeros((n, n, len(walker)), found.dtype).at[defects.up[:, None], defects.down[None], walker].add(found)
        am, ma = _matmul(table, m), _matmul(table, m.swapaxes(0, 1)).swapaxes(0, 1)
        new_pair = table[..., None] * value + _matmul(table, ma)
        up, down = (occupied(sites, defects.count, n) for sites in (defects.up, defects.down))
        changed = jnp.where(up[:, None], jnp.where(down, m, ma), jnp.where(down, am, new_pair))
        return jnp.moveaxis(changed / value, -1, 0)

    return _in_blocks(block, visible)


def _in_blocks(apply: Callable[[Defects], jax.Array], visible: jax.Array) -> jax.Array:
    """`apply`, (n, ...), to blocks of visible units (V, n) of like numbers of defects, with fewer rows where these fit into them."""
    n_sites, n = len(visible) // 2, visible.shape[1]
    sizes = [*range(4, n_sites // 2, 2), n_sites // 2]
    rows = [lambda v, k=k: apply(find_defects(v, k)) for k in sizes]

    def count(visible: jax.Array) -> jax.Array:
        return ((visible[:n_sites] > 0) & (visible[n_sites:] > 0)).sum(0)

    def block(visible: jax.Array) -> jax.Array:
        return jax.lax.switch(jnp.searchsorted(jnp.asarray(sizes), count(visible).max()), rows, visible)

    if n <= BLOCK:
        return block(visible)
    order = jnp.argsort(count(visible))
    padded = jnp.concatenate([visible[:, order], jnp.repeat(visible[:, order[:1]], -n % BLOCK, axis=1)], axis=1)
    done = jax.lax.map(block, padded.reshape(2 * n_sites, -1, BLOCK).swapaxes(0, 1))
    return done.reshape(-1, *done.shape[2:])[jnp.argsort(order)]

"""Trainable purified states: a two-body factor times a deep Boltzmann machine whose filters are summed over a symmetry group.

    Psi(v) = exp(a.v + 1/2 v A v) prod_{f,g} sum_{d = +-1} exp(c_f.d) prod_m 2 cosh(b_fm + W_fm.(g v) + W_deep_fm.d)

Each block (f, g), filter f under group element g, has m hidden units and k <= 6 deep units of its own, which are summed exactly over
their 2^k configurations. With k = 0 and m = 1 this is a restricted Boltzmann machine. a and A are equal on the orbits of the group.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from thermodbm.errors import InputError
from thermodbm.network.ansatz.symmetry import SymmetryGroup, pair_orbits, site_orbits
from thermodbm.network.ansatz.trial import Prepared, TrialState, Unravel


class Weights(NamedTuple):
    """The same state without its symmetry: every block written out. B = filters x group elements, D = 2^k."""

    a: jax.Array  # (V,)
    A: jax.Array  # (V, V) symmetric, zero diagonal
    offset: jax.Array  # (B, m, D)  b + W_deep d
    W: jax.Array  # (B, m, V)
    log_deep: jax.Array  # (B, D)  c.d


class PurifiedDBM(nn.Module):
    """Visible units (..., 2 n_sites) of +-1 to the complex log-amplitude (...).

    Without biases (`even`) it is symmetric under the reversal of all spins. All parameters are complex and enter holomorphically.
    """

    group: SymmetryGroup
    n_filters: int
    n_hidden: int = 1  # m, of each block
    n_deep: int = 0  # k, of each block
    even: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.n_deep <= 6:
            raise InputError("method.layers", expected="0 to 6 deep units in a block", found=self.n_deep)
        super().__post_init__()

    def setup(self) -> None:
        n_visible = self.group.perm.shape[1]
        f, m, k = self.n_filters, self.n_hidden, self.n_deep
        zeros, small = nn.initializers.zeros, nn.initializers.normal(0.01)
        self.pairs = self.param("pairs", zeros, (pair_orbits(self.group).max() + 1,), jnp.complex128)
        self.W = self.param("W", small, (f, m, n_visible), jnp.complex128)
        if k:
            self.W_deep = self.param("W_deep", small, (f, m, k), jnp.complex128)
        if not self.even:
            self.a = self.param("a", zeros, (site_orbits(self.group)[0].max() + 1,), jnp.complex128)
            self.b = self.param("b", zeros, (f, m), jnp.complex128)
            if k:
                self.c = self.param("c", zeros, (f, k), jnp.complex128)

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        return log_amplitude(self.weights(), visible)

    def weights(self) -> Weights:
        """The blocks written out, in the order (filter, group element)."""
        group, f, m, k = self.group, self.n_filters, self.n_hidden, self.n_deep
        n_group, n_visible = group.perm.shape
        classes = pair_orbits(group)
        A = jnp.where(classes >= 0, self.pairs[classes], 0)
        W = jnp.moveaxis(self.W[..., group.inverse], 2, 1) * group.sign[:, None, None]
        offset = jnp.zeros((f, m, 1 << k), jnp.complex128)
        log_deep = jnp.zeros((f, 1 << k), jnp.complex128)
        a = jnp.zeros(n_visible, jnp.complex128)
        if k:
            offset = offset + self.W_deep @ deep_configurations(k).T
        if not self.even:
            orbit, sign = site_orbits(group)
            a = self.a[orbit] * sign
            offset = offset + self.b[..., None]
            if k:
                log_deep = log_deep + self.c @ deep_configurations(k).T
        return Weights(
            a, A, jnp.repeat(offset, n_group, axis=0), W.reshape(f * n_group, m, n_visible), jnp.repeat(log_deep, n_group, axis=0)
        )

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state, with tables of every hidden unit's cosh and sinh that follow a move by the addition theorem."""
        return _tabulated(self, unravel)

    def kernel(self, visible: jax.Array) -> jax.Array:
        """O O*, (n, n), of visible units (n, V), without symmetries: O_s of W is the outer product of <h> and v, that of A is v v.

        (V + blocks) n^2 operations in place of n^2 times the number of parameters.
        """
        v = visible.astype(float)
        n, overlap = len(v), v @ v.T
        tanh, deep_weight = _mean_hidden(self.weights(), v)
        hidden = (tanh * deep_weight[..., None, :]).sum(-1).reshape(n, -1)
        # W alone, or with b; A alone, or with a
        kernel = (overlap + (not self.even)) * gram(hidden) + (overlap**2 - v.shape[1]) / 2 + (0 if self.even else overlap)
        if self.n_deep:
            derivs = self.log_derivs(visible)
            deep = ["W_deep"] if self.even else ["W_deep", "c"]
            kernel = kernel + gram(jnp.concatenate([derivs[name].reshape(n, -1) for name in deep], axis=1))
        return kernel

    def log_derivs(self, visible: jax.Array) -> dict[str, jax.Array]:
        """d ln Psi / d theta in the shapes of the parameters, each (n, ...), of visible units (n, V)."""
        group, f, m, k = self.group, self.n_filters, self.n_hidden, self.n_deep
        v = visible.astype(float)
        n, g = len(v), len(group.perm)
        tanh, deep_weight = _mean_hidden(self.weights(), v)
        tanh = tanh.reshape(n, f, g, m, 1 << k)
        deep_weight = deep_weight.reshape(n, f, g, 1 << k)
        hidden = (tanh * deep_weight[..., None, :]).sum(-1)  # (n, f, g, m)
        images = v[:, group.perm] * group.sign[:, None]  # (n, g, V)
        # a product of complex and real arrays would convert the real one: parts below each other are half the work
        by_filter = jnp.moveaxis(hidden, 2, -1).reshape(n, f * m, g)
        real, imag = jnp.split(jnp.concatenate([by_filter.real, by_filter.imag], 1) @ images, 2, axis=1)
        derivs = {
            "pairs": pair_sums(pair_orbits(group), v),
            "W": jax.lax.complex(real, imag).reshape(n, f, m, v.shape[1]),
        }
        if k:
            derivs["W_deep"] = jnp.einsum("nfgmd,nfgd,dk->nfmk", tanh, deep_weight, deep_configurations(k).astype(float))
        if not self.even:
            orbit, sign = site_orbits(group)
            derivs["a"] = v @ (sign[:, None] * np.eye(orbit.max() + 1)[orbit])
            derivs["b"] = hidden.sum(2)
            if k:
                derivs["c"] = deep_weight.sum(2) @ deep_configurations(k).astype(float)
        return derivs


def pair_sums(classes: np.ndarray, v: jax.Array) -> jax.Array:
    """Sums of v_i v_j over the pairs of each class, (n, C), of v (n, V) and classes (V, V): a program whose size knows nothing of C."""
    i, j = np.triu_indices(len(classes), 1)
    label = classes[i, j]
    order, size = np.argsort(label, kind="stable"), np.bincount(label)
    place = np.arange(size.max(initial=0)) < size[:, None]  # (C, S): classes filled up to the largest
    members = np.zeros(place.shape, int)
    members[place] = order
    rows = v.T
    return (rows[i[members]] * rows[j[members]] * place[..., None]).sum(1).T


def gram(rows: jax.Array) -> jax.Array:
    """rows rows*, by three real products: several times faster than one of complex numbers."""
    if not jnp.iscomplexobj(rows):
        return rows @ rows.T
    x, y = rows.real, rows.imag
    yx = y @ x.T
    return jax.lax.complex(x @ x.T + y @ y.T, yx - yx.T)


def deep_configurations(k: int) -> np.ndarray:
    """All 2^k configurations of k deep units, (2^k, k) of +-1."""
    return 1 - 2 * ((np.arange(1 << k)[:, None] >> np.arange(k)) & 1)


def log_amplitude(weights: Weights, visible: jax.Array) -> jax.Array:
    """ln Psi, (...), of visible units (..., V) of +-1."""
    v = visible.astype(weights.A.real.dtype).reshape(-1, visible.shape[-1])
    cosh, _, scale = hyperbolic_tables(weights, v.T)
    log_psi = (v @ weights.a) + 0.5 * jnp.sum(v * (v @ weights.A), -1) + (scale + np.log(2)).sum((0, 1))
    log_psi = log_psi + jnp.log(grouped_blocks(cosh, jnp.exp(weights.log_deep)[..., None])).sum(0)
    return log_psi.reshape(visible.shape[:-1])


def hyperbolic_tables(weights: Weights, visible: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """cosh and sinh of every hidden unit's field times exp(-scale), each (B, m, D, n), and scale (B, m, n); visible is (V, n)."""
    # field x + iy of moduli at most one: with u = exp(-2|x|), 2 exp(-|x|) cosh = (1 + u) cos y + i sign(x) (1 - u) sin y
    x = (weights.W.real @ visible)[:, :, None] + weights.offset.real[..., None]
    y = (weights.W.imag @ visible)[:, :, None] + weights.offset.imag[..., None]
    modulus = jnp.where(x < 0, -x, x)  # unlike abs, of slope one at zero: derivatives are right there, too
    scale = modulus.max(2)
    rest = jnp.exp(modulus - scale[:, :, None]) / 2 if x.shape[2] > 1 else 0.5
    u, cos, sin = jnp.exp(-2 * modulus), jnp.cos(y), jnp.sin(y)
    even, odd = rest * (1 + u), rest * (1 - u)
    odd = jnp.where(x < 0, -odd, odd)
    return jax.lax.complex(even * cos, odd * sin), jax.lax.complex(odd * cos, even * sin), scale


def grouped_blocks(cosh: jax.Array, deep: jax.Array) -> jax.Array:
    """sum_d exp(c.d) prod_m cosh of tables (B, m, D, n) and exp(c.d) (B, D, 1), multiplied over as many blocks as stay far from the
    ends of double precision, (groups, n)."""
    blocks = (cosh.prod(1) * deep).sum(1) if cosh.shape[2] > 1 else cosh[:, :, 0].prod(1)
    n_blocks, n_hidden = cosh.shape[:2]
    if n_blocks == 0:  # the two-body factor alone
        return blocks
    size = max(k for k in range(1, n_blocks + 1) if k == 1 or (n_blocks % k == 0 and k * n_hidden <= 256))
    return blocks.reshape(n_blocks // size, size, -1).prod(1)


def _mean_hidden(weights: Weights, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
    """tanh of the fields (n, B, m, D) and the weight of each deep configuration within its block (n, B, D)."""
    cosh, sinh, _ = hyperbolic_tables(weights, visible.T)
    terms = cosh.prod(1) * jnp.exp(weights.log_deep)[..., None]
    tanh = sinh * (cosh.conj() / (cosh.real**2 + cosh.imag**2))  # several times faster than a complex division
    return jnp.moveaxis(tanh, -1, 0), jnp.moveaxis(terms / terms.sum(1, keepdims=True), -1, 0)


class _Move(NamedTuple):
    """Of K patterns d."""

    cosh: jax.Array  # (K, B, m) cosh(2 W d)
    sinh: jax.Array  # (K, B, m)
    linear: jax.Array  # (K, V) d
    shift: jax.Array  # (K, V) 2 A d
    constant: jax.Array  # (K,) 2 d A d


class _Tables(NamedTuple):
    """Of n walkers."""

    cosh: jax.Array  # (B, m, D, n) scaled
    sinh: jax.Array  # (B, m, D, n)
    blocks: jax.Array  # (groups, n): block amplitudes multiplied within groups that cannot overflow
    field: jax.Array  # (V, n) a + A v


def _tabulated(module: PurifiedDBM, unravel: Unravel) -> TrialState:
    def log_psi(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return module.apply({"params": unravel(theta)}, visible)

    def weights(theta: jax.Array) -> Weights:
        return module.apply({"params": unravel(theta)}, method="weights")

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        derivs = module.apply({"params": unravel(theta)}, visible, method="log_derivs")
        return jax.vmap(lambda d: ravel_pytree(d)[0])(derivs)

    def moves(theta: jax.Array, patterns: np.ndarray) -> Prepared:
        w, d = weights(theta), jnp.asarray(patterns, float)
        change = 2 * jnp.moveaxis(w.W @ d.T, -1, 0)
        shift = 2 * d @ w.A
        rows = _Move(jnp.cosh(change), jnp.sinh(change), d, shift, (shift * d).sum(-1))
        return Prepared(rows, jnp.exp(w.log_deep)[..., None])

    def cache(theta: jax.Array, visible: jax.Array) -> _Tables:
        w, v = weights(theta), visible.astype(float)
        cosh, sinh, _ = hyperbolic_tables(w, v)
        return _Tables(cosh, sinh, grouped_blocks(cosh, jnp.exp(w.log_deep)[..., None]), w.a[:, None] + w.A @ v)

    def propose(deep: jax.Array, move: _Move, tables: _Tables, sign: jax.Array) -> tuple[jax.Array, _Tables]:
        # addition theorem for a field that changes by -2 e W d: no transcendental function per hidden unit
        ch, sh = move.cosh[:, :, None, None], move.sinh[:, :, None, None] * sign
        cosh = tables.cosh * ch - tables.sinh * sh
        sinh = tables.sinh * ch - tables.cosh * sh
        blocks = grouped_blocks(cosh, deep)
        two_body = jnp.exp(move.constant - 2 * sign * (move.linear @ tables.field))
        ratio = two_body * (blocks / tables.blocks).prod(0)
        return ratio, _Tables(cosh, sinh, blocks, tables.field - move.shift[:, None] * sign)

    def kernel(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return module.apply({"params": unravel(theta)}, visible, method="kernel")

    alone = len(module.group.perm) == 1
    return TrialState(log_psi, log_derivs, moves, cache, propose, unravel, kernel if alone else None)

"""A trial state as pure functions of one flat vector of parameters, with what a sampler keeps in its cache to make moves cheap.

A move is a pattern d of 0, +1, -1 over the visible units: it takes v to v - 2 e d where v agrees with e d on the support of d, for a sign
e = +-1, and is void elsewhere. Flips, exchanges and joint flips are all of this form, and a hidden unit's field changes by -2 e W d.
"""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from thermodbm.errors import InputError
from thermodbm.network.ansatz import PurifiedDBM, Weights, grouped_blocks, hyperbolic_tables
from thermodbm.network.composition import Product, Superposition, log_sum
from thermodbm.network.permanent import PairPermanent, pair_log_derivs

Cache = Any
"""Pytree of arrays whose last axis runs over walkers."""


class TrialState(NamedTuple):
    """Psi(v; theta), theta flat (P,). Visible configurations are (n, V) unless said otherwise."""

    log_amplitude: Callable[[jax.Array, jax.Array], jax.Array]  # (theta, v) -> (n,) complex
    log_derivs: Callable[[jax.Array, jax.Array], jax.Array]  # (theta, v) -> (n, P)
    moves: Callable[[jax.Array, np.ndarray], Any]  # (theta, patterns (K, V)) -> pytree of leading axis K
    cache: Callable[[jax.Array, jax.Array], Cache]  # (theta, v (V, n))
    propose: Callable[[Any, Cache, jax.Array], tuple[jax.Array, Cache]]  # (row of moves, cache, e (n,)) -> Psi(v')/Psi(v), cache'
    unravel: Callable[[jax.Array], dict]  # theta -> parameters of the Flax module
    kernel: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # (theta, v) -> O O* (n, n), where O itself costs far more


class _Move(NamedTuple):
    cosh: jax.Array  # (K, B, m) cosh(2 W d)
    sinh: jax.Array  # (K, B, m)
    linear: jax.Array  # (K, V) d
    shift: jax.Array  # (K, V) 2 A d
    constant: jax.Array  # (K,) 2 d A d


class _Tables(NamedTuple):
    cosh: jax.Array  # (B, m, D, n) scaled
    sinh: jax.Array  # (B, m, D, n)
    blocks: jax.Array  # (groups, n): block amplitudes multiplied within groups that cannot overflow
    field: jax.Array  # (V, n) a + A v
    deep: jax.Array  # (B, D, 1) exp(c.d)


def trial_state(module: nn.Module, params: dict) -> TrialState:
    """The trial state of a Flax module: with hyperbolic tables for `PurifiedDBM`, in the way of its parts for a `Product` or a
    `Superposition`, by full evaluation for any other.

    Raises:
        InputError: if the module mixes real and complex parameters, or it or one of its parts has none.
    """
    theta, unravel = ravel_pytree(params)
    kinds = {jnp.iscomplexobj(x) for x in jax.tree.leaves(params)}
    if len(kinds) != 1:
        raise InputError("module", expected="parameters that are all real or all complex", found="both kinds" if kinds else "none")
    if isinstance(module, Product):
        return _product(*_parts(module.factors, "factors", params), unravel)
    if isinstance(module, Superposition):
        return _superposition(*_parts(module.terms, "terms", params), unravel)

    def log_amplitude(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return module.apply({"params": unravel(theta)}, visible)

    if isinstance(module, PurifiedDBM):
        return _tabulated(module, unravel, log_amplitude)
    if isinstance(module, PairPermanent):
        generic = _generic(unravel, log_amplitude, holomorphic=True)
        return generic._replace(log_derivs=lambda theta, visible: pair_log_derivs(theta, module.group, visible.T))
    return _generic(unravel, log_amplitude, holomorphic=jnp.iscomplexobj(theta))


def _tabulated(module: PurifiedDBM, unravel: Callable, log_amplitude: Callable) -> TrialState:
    def weights(theta: jax.Array) -> Weights:
        return module.apply({"params": unravel(theta)}, method="weights")

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        derivs = module.apply({"params": unravel(theta)}, visible, method="log_derivs")
        return jax.vmap(lambda d: ravel_pytree(d)[0])(derivs)

    def moves(theta: jax.Array, patterns: np.ndarray) -> _Move:
        w, d = weights(theta), jnp.asarray(patterns, float)
        change = 2 * jnp.moveaxis(w.W @ d.T, -1, 0)
        shift = 2 * d @ w.A
        return _Move(jnp.cosh(change), jnp.sinh(change), d, shift, (shift * d).sum(-1))

    def cache(theta: jax.Array, visible: jax.Array) -> _Tables:
        w, v = weights(theta), visible.astype(float)
        cosh, sinh, _ = hyperbolic_tables(w, v)
        deep = jnp.exp(w.log_deep)[..., None]
        return _Tables(cosh, sinh, grouped_blocks(cosh, deep), w.a[:, None] + w.A @ v, deep)

    def propose(move: _Move, tables: _Tables, sign: jax.Array) -> tuple[jax.Array, _Tables]:
        # addition theorem for a field that changes by -2 e W d: no transcendental function per hidden unit
        ch, sh = move.cosh[:, :, None, None], move.sinh[:, :, None, None] * sign
        cosh = tables.cosh * ch - tables.sinh * sh
        sinh = tables.sinh * ch - tables.cosh * sh
        blocks = grouped_blocks(cosh, tables.deep)
        two_body = jnp.exp(move.constant - 2 * sign * (move.linear @ tables.field))
        ratio = two_body * (blocks / tables.blocks).prod(0)
        return ratio, _Tables(cosh, sinh, blocks, tables.field - move.shift[:, None] * sign, tables.deep)

    def kernel(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return module.apply({"params": unravel(theta)}, visible, method="kernel")

    alone = len(module.group.perm) == 1
    return TrialState(log_amplitude, log_derivs, moves, cache, propose, unravel, kernel if alone else None)


def _parts(modules: tuple[nn.Module, ...], name: str, params: dict) -> tuple[list[TrialState], Callable[[jax.Array], list[jax.Array]]]:
    """The trial states of the parts of a module, and what cuts the last of a flat vector of parameters into theirs."""
    trees = [params.get(f"{name}_{k}", {}) for k in range(len(modules))]
    trials = [trial_state(module, tree) for module, tree in zip(modules, trees, strict=True)]
    ends = np.cumsum([0] + [ravel_pytree(tree)[0].size for tree in trees])
    return trials, lambda theta: [theta[len(theta) - ends[-1] + low : len(theta) - ends[-1] + high] for low, high in pairwise(ends)]


def _product(trials: list[TrialState], cut: Callable, unravel: Callable) -> TrialState:
    def log_amplitude(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return sum(trial.log_amplitude(x, visible) for trial, x in zip(trials, cut(theta), strict=True))

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return jnp.concatenate([trial.log_derivs(x, visible) for trial, x in zip(trials, cut(theta), strict=True)], axis=1)

    def moves(theta: jax.Array, patterns: np.ndarray) -> list:
        return [trial.moves(x, patterns) for trial, x in zip(trials, cut(theta), strict=True)]

    def cache(theta: jax.Array, visible: jax.Array) -> list:
        return [trial.cache(x, visible) for trial, x in zip(trials, cut(theta), strict=True)]

    def propose(move: list, cache: list, sign: jax.Array) -> tuple[jax.Array, list]:
        ratios, moved = zip(*(trial.propose(m, c, sign) for trial, m, c in zip(trials, move, cache, strict=True)), strict=True)
        return reduce(jnp.multiply, ratios), list(moved)

    return TrialState(log_amplitude, log_derivs, moves, cache, propose, unravel)


def _superposition(trials: list[TrialState], cut: Callable, unravel: Callable) -> TrialState:
    n_share = len(trials) - 1  # the first of the parameters

    def log_terms(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return jnp.stack([trial.log_amplitude(x, visible) for trial, x in zip(trials, cut(theta), strict=True)])

    def shares(theta: jax.Array, visible: jax.Array) -> jax.Array:
        """Each term's share of Psi, (C, n); they add up to one."""
        terms = log_terms(theta, visible)
        return jnp.exp(terms.at[1:].add(theta[:n_share, None]) - log_sum(terms, theta[:n_share]))

    def log_amplitude(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return log_sum(log_terms(theta, visible), theta[:n_share])

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        share = shares(theta, visible)[..., None]
        derivs = [s * trial.log_derivs(x, visible) for s, trial, x in zip(share, trials, cut(theta), strict=True)]
        return jnp.concatenate([share[1:, :, 0].T, *derivs], axis=1)

    def moves(theta: jax.Array, patterns: np.ndarray) -> list:
        return [trial.moves(x, patterns) for trial, x in zip(trials, cut(theta), strict=True)]

    def cache(theta: jax.Array, visible: jax.Array) -> tuple[jax.Array, list]:
        return shares(theta, visible.T), [trial.cache(x, visible) for trial, x in zip(trials, cut(theta), strict=True)]

    def propose(move: list, cache: tuple[jax.Array, list], sign: jax.Array) -> tuple[jax.Array, tuple[jax.Array, list]]:
        share, caches = cache
        ratios, moved = zip(*(trial.propose(m, c, sign) for trial, m, c in zip(trials, move, caches, strict=True)), strict=True)
        terms = share * jnp.stack(ratios)
        ratio = terms.sum(0)
        return ratio, (terms / ratio, list(moved))

    return TrialState(log_amplitude, log_derivs, moves, cache, propose, unravel)


def _generic(unravel: Callable, log_amplitude: Callable, *, holomorphic: bool) -> TrialState:
    def one(theta: jax.Array, v: jax.Array) -> jax.Array:
        return log_amplitude(theta, v[None])[0]

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        if holomorphic:
            return jax.vmap(jax.grad(one, holomorphic=True), (None, 0))(theta, visible)
        parts = jax.vmap(jax.jacrev(lambda t, v: jnp.stack([one(t, v).real, one(t, v).imag])), (None, 0))(theta, visible)
        return jax.lax.complex(parts[:, 0], parts[:, 1])

    def moves(theta: jax.Array, patterns: np.ndarray) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(patterns), jnp.broadcast_to(theta, (len(patterns), len(theta)))

    def cache(theta: jax.Array, visible: jax.Array) -> dict[str, jax.Array]:
        return {"visible": visible, "log_psi": log_amplitude(theta, visible.T)}

    def propose(move: tuple[jax.Array, jax.Array], cache: dict[str, jax.Array], sign: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        pattern, theta = move
        visible = cache["visible"] - (2 * pattern[:, None] * sign).astype(cache["visible"].dtype)
        log_psi = log_amplitude(theta, visible.T)
        return jnp.exp(log_psi - cache["log_psi"]), {"visible": visible, "log_psi": log_psi}

    return TrialState(log_amplitude, log_derivs, moves, cache, propose, unravel)

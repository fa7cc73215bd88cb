"""A trial state as pure functions of one flat vector of parameters, with what a sampler keeps in its cache to make moves cheap.

A move is a pattern d of 0, +1, -1 over the visible units: it takes v to v - 2 e d where v agrees with e d on the support of d, for a sign
e = +-1, and is void elsewhere. Flips, exchanges and joint flips are all of this form, and a hidden unit's field changes by -2 e W d.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from thermodbm.errors import InputError

BLOCK = 32
"""Walkers that share random keys, and on a CPU move together: their tables stay in the processor's second-level cache."""
Cache = Any
"""Pytree of arrays whose last axis runs over walkers."""
Unravel = Callable[[jax.Array], dict]
"""theta -> parameters of the Flax module."""


class Prepared(NamedTuple):
    """What theta and some patterns come to, before it is known where they act."""

    rows: Any  # pytree of leading axis K, one entry a pattern
    fixed: Any  # pytree of what all patterns share


class Everything(NamedTuple):
    """What a rate of change is made of, of configurations (n, V)."""

    log_psi: jax.Array  # (n,)
    ratios: jax.Array  # (n, K) of the patterns, with the signs e by which they agree with v; void moves included
    log_derivs: jax.Array  # (n, P)


class TrialState(NamedTuple):
    """Psi(v; theta), theta flat (P,). Visible configurations are (n, V) unless said otherwise."""

    log_amplitude: Callable[[jax.Array, jax.Array], jax.Array]  # (theta, v) -> (n,) complex
    log_derivs: Callable[[jax.Array, jax.Array], jax.Array]  # (theta, v) -> (n, P)
    moves: Callable[[jax.Array, np.ndarray], Prepared]  # (theta, patterns (K, V))
    cache: Callable[[jax.Array, jax.Array], Cache]  # (theta, v (V, n))
    propose: Callable[[Any, Any, Cache, jax.Array], tuple[jax.Array, Cache]]  # (fixed, a row, cache, e (n,)) -> Psi(v')/Psi(v), cache'
    unravel: Unravel
    kernel: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # (theta, v) -> O O* (n, n), where O itself costs far more
    ratios: Callable[[Prepared, Cache, jax.Array], jax.Array] | None = None  # (moves, cache, e (K, n)) -> (K, n); None: by `propose`
    everything: Callable[[jax.Array, jax.Array, Prepared, jax.Array], Everything] | None = None  # (theta, v, moves, patterns)
    largest_move: int | None = None  # units that a pattern may change; None: any number
    block: int = BLOCK  # walkers that move together, a divisor of it: fewer where tables are large
    refresh_every: int | None = None  # moves after which rounding errors of the cache ask for a new one; None: never


def trial_state(module: nn.Module, params: dict) -> TrialState:
    """The trial state of a Flax module: what its method `trial` gives, `(params, unravel)`, or by full evaluation where it has none.

    Raises:
        InputError: if the module mixes real and complex parameters, or it or one of its parts has none.
    """
    theta, unravel = ravel_pytree(params)
    kinds = {jnp.iscomplexobj(x) for x in jax.tree.leaves(params)}
    if len(kinds) != 1:
        raise InputError("module", expected="parameters that are all real or all complex", found="both kinds" if kinds else "none")
    if hasattr(module, "trial"):
        return module.trial(params, unravel)
    return generic_trial(module, unravel, holomorphic=jnp.iscomplexobj(theta))


def all_ratios(trial: TrialState, moves: Prepared, cache: Cache, sign: jax.Array) -> jax.Array:
    """Psi(v')/Psi(v) of every pattern with its signs e (K, n), void moves included, (K, n)."""
    if trial.ratios is not None:
        return trial.ratios(moves, cache, sign)
    return jax.lax.map(lambda x: trial.propose(moves.fixed, x[0], cache, x[1])[0], (moves.rows, sign))


def evaluate(trial: TrialState, theta: jax.Array, visible: jax.Array, moves: Prepared, patterns: jax.Array) -> Everything:
    """Everything at configurations (n, V), together where the trial state can."""
    if trial.everything is not None:
        return trial.everything(theta, visible, moves, patterns)

    def block(v: jax.Array) -> jax.Array:
        sign, _ = jax.vmap(match, (0, None))(patterns, v)
        return all_ratios(trial, moves, trial.cache(theta, v), sign)

    n, size = len(visible), min(trial.block, len(visible))
    padded = jnp.concatenate([visible, jnp.repeat(visible[:1], -n % size, axis=0)])
    ratios = jax.lax.map(block, padded.reshape(-1, size, visible.shape[1]).swapaxes(1, 2))
    ratios = ratios.swapaxes(1, 2).reshape(-1, ratios.shape[1])[:n]
    return Everything(trial.log_amplitude(theta, visible), ratios, trial.log_derivs(theta, visible))


def match(pattern: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sign e (n,) for which units v (V, n) agree with e d, d (V,), and whether they do on all of its support."""
    overlap = (pattern[:, None] * visible).sum(0, dtype=jnp.int32)
    return jnp.where(overlap < 0, -1.0, 1.0), jnp.abs(overlap) == jnp.abs(pattern).sum(dtype=jnp.int32)


def generic_trial(module: nn.Module, unravel: Unravel, *, holomorphic: bool) -> TrialState:
    """A trial state of which nothing is known but its amplitude."""

    def log_amplitude(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return module.apply({"params": unravel(theta)}, visible)

    def one(theta: jax.Array, v: jax.Array) -> jax.Array:
        return log_amplitude(theta, v[None])[0]

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        if holomorphic:
            return jax.vmap(jax.grad(one, holomorphic=True), (None, 0))(theta, visible)
        parts = jax.vmap(jax.jacrev(lambda t, v: jnp.stack([one(t, v).real, one(t, v).imag])), (None, 0))(theta, visible)
        return jax.lax.complex(parts[:, 0], parts[:, 1])

    def cache(theta: jax.Array, visible: jax.Array) -> dict[str, jax.Array]:
        return {"visible": visible, "log_psi": log_amplitude(theta, visible.T)}

    def propose(theta: jax.Array, pattern: jax.Array, cache: dict[str, jax.Array], sign: jax.Array) -> tuple[jax.Array, dict]:
        visible = cache["visible"] - (2 * pattern[:, None] * sign).astype(cache["visible"].dtype)
        log_psi = log_amplitude(theta, visible.T)
        return jnp.exp(log_psi - cache["log_psi"]), {"visible": visible, "log_psi": log_psi}

    return TrialState(log_amplitude, log_derivs, lambda theta, d: Prepared(jnp.asarray(d), theta), cache, propose, unravel)

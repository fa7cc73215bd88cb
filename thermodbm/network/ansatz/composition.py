"""Trial states made of trial states: products, and weighted sums."""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from thermodbm.network.ansatz.trial import Everything, Prepared, TrialState, Unravel, all_ratios, evaluate, trial_state


class Product(nn.Module):
    """Psi(v) = prod_k Psi_k(v)."""

    factors: tuple[nn.Module, ...]

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        return sum(factor(visible) for factor in self.factors)

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state, in the way of its factors."""
        return _product(*_parts(self.factors, "factors", params), unravel)


class Superposition(nn.Module):
    """Psi(v) = Psi_0(v) + sum_{k > 0} exp(c_k) Psi_k(v)."""

    terms: tuple[nn.Module, ...]

    def setup(self) -> None:
        self.log_share = self.param("log_share", nn.initializers.zeros, (len(self.terms) - 1,), jnp.complex128)

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        return log_sum(jnp.stack([term(visible) for term in self.terms]), self.log_share)

    @nn.nowrap
    def trial(self, params: dict, unravel: Unravel) -> TrialState:
        """The trial state, in the way of its terms."""
        return _superposition(*_parts(self.terms, "terms", params), unravel)


def log_sum(log_terms: jax.Array, log_share: jax.Array) -> jax.Array:
    """ln of the sum of terms (C, ...) with ln of the shares of all but the first."""
    log_terms = log_terms.at[1:].add(jnp.expand_dims(log_share, range(1, log_terms.ndim)))
    largest = jax.lax.stop_gradient(log_terms.real.max(0))
    return largest + jnp.log(jnp.exp(log_terms - largest).sum(0))


def _parts(modules: tuple[nn.Module, ...], name: str, params: dict) -> tuple[list[TrialState], Callable[[jax.Array], list[jax.Array]]]:
    """The trial states of the parts of a module, and what cuts the last of a flat vector of parameters into theirs."""
    trees = [params.get(f"{name}_{k}", {}) for k in range(len(modules))]
    trials = [trial_state(module, tree) for module, tree in zip(modules, trees, strict=True)]
    ends = np.cumsum([0] + [ravel_pytree(tree)[0].size for tree in trees])
    return trials, lambda theta: [theta[len(theta) - ends[-1] + low : len(theta) - ends[-1] + high] for low, high in pairwise(ends)]


def _product(trials: list[TrialState], cut: Callable, unravel: Unravel) -> TrialState:
    def log_amplitude(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return sum(trial.log_amplitude(x, visible) for trial, x in zip(trials, cut(theta), strict=True))

    def log_derivs(theta: jax.Array, visible: jax.Array) -> jax.Array:
        return jnp.concatenate([trial.log_derivs(x, visible) for trial, x in zip(trials, cut(theta), strict=True)], axis=1)

    def moves(theta: jax.Array, patterns: np.ndarray) -> Prepared:
        rows, fixed = zip(*(trial.moves(x, patterns) for trial, x in zip(trials, cut(theta), strict=True)), strict=True)
        return Prepared(list(rows), list(fixed))

    def cache(theta: jax.Array, visible: jax.Array) -> list:
        return [trial.cache(x, visible) for trial, x in zip(trials, cut(theta), strict=True)]

    def propose(fixed: list, move: list, cache: list, sign: jax.Array) -> tuple[jax.Array, list]:
        ratios, moved = zip(*(trial.propose(f, m, c, sign) for trial, f, m, c in zip(trials, fixed, move, cache, strict=True)), strict=True)
        return reduce(jnp.multiply, ratios), list(moved)

    def ratios(moves: Prepared, cache: list, sign: jax.Array) -> jax.Array:
        found = (all_ratios(trial, Prepared(*m), c, sign) for trial, *m, c in zip(trials, moves.rows, moves.fixed, cache, strict=True))
        return reduce(jnp.multiply, found)

    def everything(theta: jax.Array, visible: jax.Array, moves: Prepared, patterns: jax.Array) -> Everything:
        prepared = [Prepared(*m) for m in zip(moves.rows, moves.fixed, strict=True)]
        parts = [evaluate(trial, x, visible, m, patterns) for trial, x, m in zip(trials, cut(theta), prepared, strict=True)]
        log_psi, found, derivs = zip(*parts, strict=True)
        return Everything(sum(log_psi), reduce(jnp.multiply, found), jnp.concatenate(derivs, axis=1))

    refresh = [trial.refresh_every for trial in trials if trial.refresh_every]
    return TrialState(
        log_amplitude,
        log_derivs,
        moves,
        cache,
        propose,
        unravel,
        ratios=ratios if any(trial.ratios for trial in trials) else None,
        everything=everything if any(trial.everything for trial in trials) else None,
        largest_move=min((trial.largest_move for trial in trials if trial.largest_move), default=None),
        block=min(trial.block for trial in trials),
        refresh_every=min(refresh, default=None),
    )


def _superposition(trials: list[TrialState], cut: Callable, unravel: Unravel) -> TrialState:
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

    def moves(theta: jax.Array, patterns: np.ndarray) -> Prepared:
        rows, fixed = zip(*(trial.moves(x, patterns) for trial, x in zip(trials, cut(theta), strict=True)), strict=True)
        return Prepared(list(rows), list(fixed))

    def cache(theta: jax.Array, visible: jax.Array) -> tuple[jax.Array, list]:
        return shares(theta, visible.T), [trial.cache(x, visible) for trial, x in zip(trials, cut(theta), strict=True)]

    def propose(fixed: list, move: list, cache: tuple[jax.Array, list], sign: jax.Array) -> tuple[jax.Array, tuple[jax.Array, list]]:
        share, caches = cache
        ratios, moved = zip(
            *(trial.propose(f, m, c, sign) for trial, f, m, c in zip(trials, fixed, move, caches, strict=True)), strict=True
        )
        terms = share * jnp.stack(ratios)
        ratio = terms.sum(0)
        return ratio, (terms / ratio, list(moved))

    return TrialState(log_amplitude, log_derivs, moves, cache, propose, unravel)

"""What a sampler is: a start and a step, pure functions of a key, weights and a state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class SamplerKernel(NamedTuple):
    """A Markov chain, batched over chains along the last axis of its arrays.

    `init(key, n_chains) -> state`; `step(key, weights, state) -> (state, info)` leaves the distribution of `weights` invariant.
    Weights are an argument, so that new ones never recompile; `info` holds what the step learnt on its way (improved estimators).
    """

    init: Callable[[jax.Array, int], Any]
    step: Callable[[jax.Array, Any, Any], tuple[Any, dict[str, jax.Array]]]

"""What a sampler is: a start and a step, pure functions of a key, weights and a state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class SamplerKernel(NamedTuple):
    """A Markov chain, batched over chains along the last axis of its arrays.

    `init(key, n_chains) -> state`; `step(key, weights, state) -> (state, info)` leaves the distribution of `weights` invariant.
    Weights are an argument, so that new ones never recompile; `info` is what the step learnt on its way, a NamedTuple of each sampler's own
    (`ClusterInfo`, `LoopInfo`), or None.
    """

    init: Callable[[jax.Array, int], Any]
    step: Callable[[jax.Array, Any, Any], tuple[Any, Any]]


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform float32 in [0, 1), multiples of 2^-24, of a shape whose first axis is even.

    Both halves of 64 random bits are used: with 32-bit draws JAX computes 64 and throws half of them away.
    """
    bits = jax.random.bits(key, (shape[0] // 2, *shape[1:]), jnp.uint64)
    halves = jnp.concatenate([bits.astype(jnp.uint32), (bits >> 32).astype(jnp.uint32)])
    return (halves >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def random_bytes(key: jax.Array, n: int) -> jax.Array:
    """(n,) uint8, eight from each draw of 64 bits: JAX's own draws of bytes take ten times as long."""
    words = jax.random.bits(key, (-(-n // 8),), jnp.uint64)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:n]

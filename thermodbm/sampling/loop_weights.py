"""Exponents of the gates of a ring, and the weights of the graphs into which a gate's elements split."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermodbm.network.exchange import GateElements


class GraphWeights(NamedTuple):
    """Weights of the graphs of a plaquette, or their derivatives with respect to the duration of the gate; any shape."""

    vertical: jax.Array
    horizontal: jax.Array
    diagonal: jax.Array


class LoopParams(NamedTuple):
    """Exponents of every gate exp(-zz sz sz - xy (sx sx + sy sy)) of one step: arguments of the jitted step."""

    zz: jax.Array  # (n_sub, n_pairs) coupling times duration; zero where a gate does nothing
    xy: jax.Array  # (n_sub, n_pairs)
    field: jax.Array  # (n_sub, 2, n_pairs) of the field for each cell: weight exp(field * spin)


def graph_weights(elements: GateElements, share: jax.Array | None = None) -> GraphWeights:
    """v, h and x for elements a, b, |c|; what they leave of a, b and c is the weight of the frozen graph.

    Args:
        share: mixes the graphs of a bond that lacks one of h and x: v and the other are lowered by this share of the lesser of them, and
            the lacking one is raised; between 0 and 1, shaped like the elements.
    """
    a, b, c = elements.parallel, elements.kept, jnp.abs(elements.exchanged)
    easy_axis, easy_axis_fm = b >= a + c, a >= b + c
    v = jnp.where(easy_axis, a, jnp.where(easy_axis_fm, b, (a + b - c) / 2))
    h = jnp.where(easy_axis, c, jnp.where(easy_axis_fm, 0, (b + c - a) / 2))
    x = jnp.where(easy_axis, 0, jnp.where(easy_axis_fm, c, (a + c - b) / 2))
    if share is not None:
        shift = share * jnp.minimum(v, jnp.maximum(h, x))
        to_diagonal = jnp.where(h > x, shift, -shift)
        v, h, x = v - shift, h - to_diagonal, x + to_diagonal
    return GraphWeights(v, h, x)

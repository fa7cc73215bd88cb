"""The deep Boltzmann machine as data: its weights, its log-amplitude, and its state vector where that is small."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class DBMParams(NamedTuple):
    """Weights of Psi(v) = sum_{h, d} exp(a.v + b.h + c.d + h W v + h W_deep d); all units are +-1, V = 2 n_sites."""

    a: jax.Array  # (V,)    visible biases: spins, then ancillas
    b: jax.Array  # (M,)    hidden biases
    c: jax.Array  # (D,)    deep biases
    W: jax.Array  # (M, V)  hidden to visible
    W_deep: jax.Array  # (M, D)  hidden to deep

    def variables(self) -> dict:
        """The same weights as variables of the Flax module `layers.DBM`."""
        hidden = {"bias": self.b, "to_visible": self.W, "to_deep": self.W_deep}
        return {"params": {"visible": {"bias": self.a}, "hidden": hidden, "deep": {"bias": self.c}}}

    def _repr_svg_(self) -> str:
        from thermodbm.drawing import draw_network, svg

        return svg(draw_network(self))


def log_amplitude(params: DBMParams, visible: jax.Array, deep: jax.Array) -> jax.Array:
    """ln phi(v, d) = a.v + c.d + sum_j ln 2 cosh(b_j + W_j v + W_deep_j d), (...) complex, of (..., V) and (..., D) of +-1.

    Source: Nomura, Yoshioka, Nori, PRL 127, 060601 (2021), eq. (3), with the hidden units summed.
    """
    from thermodbm.network.layers import DBM  # Flax, which takes as long to import as a small curve to sample

    module = DBM(n_visible=len(params.a), n_hidden=len(params.b), n_deep=len(params.c), dtype=params.W.dtype)
    return module.apply(params.variables(), visible, deep)


def state_vector(params: DBMParams, *, block: int = 1 << 12) -> np.ndarray:
    """Psi(v) summed over every deep configuration, (2^N, 2^N): rows spins, columns ancillas, both numbered from all up.

    Site 0 is the most significant bit and a set bit is a down spin. For tests and small pictures: costs 2^(V + D).

    >>> from thermodbm.network.trotter import infinite_temperature
    >>> np.abs(state_vector(infinite_temperature(1))).round(3).tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """

    def configurations(n: int) -> np.ndarray:
        bits = (np.arange(1 << n)[:, None] >> np.arange(n)[::-1]) & 1
        return (1 - 2 * bits).astype(np.int8)

    visible, deep = configurations(len(params.a)), configurations(len(params.c))
    rows = max(1, block // len(deep))
    psi = np.concatenate([np.asarray(_summed_amplitude(params, visible[k : k + rows], deep)) for k in range(0, len(visible), rows)])
    n_states = 1 << (len(params.a) // 2)
    return psi.reshape(n_states, n_states)


@jax.jit
def _summed_amplitude(params: DBMParams, visible: jax.Array, deep: jax.Array) -> jax.Array:
    """Sum of the amplitude over the deep configurations (n, D), of visible ones (m, V): (m,)."""
    return jnp.exp(log_amplitude(params, visible[:, None], deep[None])).sum(-1)

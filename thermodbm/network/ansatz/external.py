"""A trial state with its parameters as a Flax module for other programs, such as NetKet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


@dataclass(frozen=True, eq=False)
class Amplitude:
    """ln Psi as a function of parameters and configurations. Compared by identity, so that programs that keep modules as keys can do so."""

    function: Callable[[Any, jax.Array], jax.Array]  # (params, visible (n, V) int8) -> (n,) complex
    params: Any  # those that `init` gives


class PurifiedState(nn.Module):
    """ln Psi, complex (...), of spins and ancillas (..., 2 n_sites) of +-1; `init` gives the parameters at hand, whatever the key."""

    amplitude: Amplitude

    @nn.compact
    def __call__(self, visible: jax.Array) -> jax.Array:
        params = self.param("state", lambda key: self.amplitude.params)
        flat = jnp.asarray(visible, jnp.int8).reshape(-1, jnp.shape(visible)[-1])
        return self.amplitude.function(params, flat).reshape(jnp.shape(visible)[:-1])

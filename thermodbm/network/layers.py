"""The three layers of a deep Boltzmann machine as Flax modules: pure functions of units +-1 and of their own weights."""

import jax
import jax.numpy as jnp
from flax import linen as nn


def log_2cosh(x: jax.Array) -> jax.Array:
    """ln(2 cosh x) for real or complex x without overflow: the sum over one hidden unit h = +-1 of exp(h x)."""
    x = jnp.where(jnp.real(x) < 0, -x, x)
    return x + jnp.log1p(jnp.exp(-2 * x))


class BiasLayer(nn.Module):
    """Visible or deep layer of units x: contributes a . x to the log-amplitude."""

    n_units: int
    dtype: jnp.dtype = jnp.complex128

    @nn.compact
    def __call__(self, units: jax.Array) -> jax.Array:
        """(..., n_units) of +-1 to (...)."""
        bias = self.param("bias", nn.initializers.zeros, (self.n_units,), self.dtype)
        return units.astype(self.dtype) @ bias


class HiddenLayer(nn.Module):
    """Hidden layer, summed over its units: sum_j ln 2 cosh(b_j + W_j v + W_deep_j d)."""

    n_units: int
    dtype: jnp.dtype = jnp.complex128

    @nn.compact
    def __call__(self, visible: jax.Array, deep: jax.Array) -> jax.Array:
        """(..., V) and (..., D) of +-1 to (...)."""
        small = nn.initializers.normal(0.01)
        bias = self.param("bias", nn.initializers.zeros, (self.n_units,), self.dtype)
        to_visible = self.param("to_visible", small, (self.n_units, visible.shape[-1]), self.dtype)
        to_deep = self.param("to_deep", small, (self.n_units, deep.shape[-1]), self.dtype)
        field = bias + visible.astype(self.dtype) @ to_visible.T + deep.astype(self.dtype) @ to_deep.T
        return log_2cosh(field).sum(-1)


class DBM(nn.Module):
    """Visible, hidden and deep layers together: (visible, deep) -> log-amplitude, with the hidden units summed."""

    n_visible: int
    n_hidden: int
    n_deep: int
    dtype: jnp.dtype = jnp.complex128

    def setup(self) -> None:
        self.visible = BiasLayer(self.n_visible, self.dtype)
        self.hidden = HiddenLayer(self.n_hidden, self.dtype)
        self.deep = BiasLayer(self.n_deep, self.dtype)

    def __call__(self, visible: jax.Array, deep: jax.Array) -> jax.Array:
        """(..., V) and (..., D) of +-1 to (...)."""
        return self.visible(visible) + self.hidden(visible, deep) + self.deep(deep)

"""Trial states made of trial states: products, and weighted sums."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Product(nn.Module):
    """Psi(v) = prod_k Psi_k(v)."""

    factors: tuple[nn.Module, ...]

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        return sum(factor(visible) for factor in self.factors)


class Superposition(nn.Module):
    """Psi(v) = Psi_0(v) + sum_{k > 0} exp(c_k) Psi_k(v)."""

    terms: tuple[nn.Module, ...]

    def setup(self) -> None:
        self.log_share = self.param("log_share", nn.initializers.zeros, (len(self.terms) - 1,), jnp.complex128)

    def __call__(self, visible: jax.Array) -> jax.Array:
        """(..., V) to (...)."""
        return log_sum(jnp.stack([term(visible) for term in self.terms]), self.log_share)


def log_sum(log_terms: jax.Array, log_share: jax.Array) -> jax.Array:
    """ln of the sum of terms (C, ...) with ln of the shares of all but the first."""
    log_terms = log_terms.at[1:].add(jnp.expand_dims(log_share, range(1, log_terms.ndim)))
    largest = jax.lax.stop_gradient(log_terms.real.max(0))
    return largest + jnp.log(jnp.exp(log_terms - largest).sum(0))

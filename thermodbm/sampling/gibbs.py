"""Block Gibbs sampling of the network itself: all hidden units given (v, d), then all (v, d) given the hidden units.

Source: Nomura, Yoshioka, Nori, PRL 127, 060601 (2021), supplement. Slow at low temperature; kept as the reference that the others are
held to.
"""

import jax
import jax.numpy as jnp

from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.ring import IsingFacts, RingWeights, Spins, random_spins


def gibbs_kernel(facts: IsingFacts, n_layers: int) -> SamplerKernel:
    """One step draws every hidden unit, then every visible and deep unit of both copies, of the ring."""
    i, j = facts.bonds.T

    def init(key: jax.Array, n_chains: int) -> Spins:
        return random_spins(key, facts, n_layers, n_chains)

    def draw(key: jax.Array, field: jax.Array) -> jax.Array:
        """Units +-1 with weight exp(field * unit)."""
        up = jax.random.uniform(key, field.shape, jnp.float32) < jax.nn.sigmoid(2 * field)
        return jnp.where(up, 1, -1).astype(jnp.int8)

    def step(key: jax.Array, weights: RingWeights, spins: Spins) -> tuple[Spins, None]:
        key_bond, key_time, key_units = jax.random.split(key, 3)
        # weights of the hidden units: cosh 2W = exp 2|K| across bonds, cosh 2W' = 1/t along imaginary time
        bond, t, z_field = (x[..., None] for x in weights)
        w_i = 0.5 * jnp.arccosh(jnp.exp(2 * jnp.abs(bond)))
        w_j = jnp.sign(bond) * w_i
        w_t = 0.5 * jnp.arccosh(1 / jnp.maximum(t, 1e-30))  # no kinks where there is no transverse field
        h_bond = draw(key_bond, w_i * spins[:, i] + w_j * spins[:, j])
        h_time = draw(key_time, w_t * (spins + jnp.roll(spins, -1, 0)))
        pull = w_t * h_time  # on the layer and on the next
        field = z_field + pull + jnp.roll(pull, 1, 0)
        field = field.at[:, i].add(w_i * h_bond).at[:, j].add(w_j * h_bond)
        return draw(key_units, field), None

    return SamplerKernel(init, step)

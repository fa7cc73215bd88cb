"""The default sampler of the Ising network: a cluster update for the slow modes, then column updates for all the others."""

import jax
import jax.numpy as jnp
from jax import lax

from thermodbm.sampling.cluster import ClusterInfo, cluster_kernel
from thermodbm.sampling.column import column_kernel
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.ring import IsingFacts, RingWeights, Spins

N_COLUMN = 2
"""Column updates per cluster update; error * sqrt(CPU time) is flat around it."""


def mixed_kernel(facts: IsingFacts, n_layers: int) -> SamplerKernel:
    """One step is a cluster update followed by `N_COLUMN` column updates; `info` is the cluster update's."""
    cluster, column = cluster_kernel(facts, n_layers), column_kernel(facts, n_layers)

    def step(key: jax.Array, weights: RingWeights, spins: Spins) -> tuple[Spins, ClusterInfo | None]:
        first, *rest = jax.random.split(key, 1 + N_COLUMN)
        spins, info = cluster.step(first, weights, spins)
        spins, _ = lax.scan(lambda spins, key: column.step(key, weights, spins), spins, jnp.stack(rest))
        return spins, info

    return SamplerKernel(cluster.init, step)

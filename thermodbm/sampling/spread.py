"""Blocks of independent work spread over the devices of a process, without a word between them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def over_devices(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`apply(shared, blocks)` compiled, from a pytree of arrays (n_blocks, ...) to another, each device with its share of the blocks.
    Results are the same whatever devices there are.

    The program sums nothing over devices: on CPUs such sums end the process when a busy machine holds one of its threads back for 40
    seconds. So results are brought to the first of them there; elsewhere they stay where they are.
    """
    alone = jax.jit(apply)

    @cache
    def on(n_devices: int) -> tuple[Callable, NamedSharding, NamedSharding]:
        mesh, split, whole = Mesh(jax.local_devices()[:n_devices], ("blocks",)), PartitionSpec("blocks"), PartitionSpec()
        spread = jax.shard_map(apply, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)
        return jax.jit(spread), NamedSharding(mesh, whole), NamedSharding(mesh, split)

    def run(shared: Any, blocks: Any) -> Any:
        n_blocks = len(jax.tree.leaves(blocks)[0])
        n_devices = min(jax.local_device_count(), n_blocks)
        if n_devices == 1:
            return alone(shared, blocks)
        spread, whole, split = on(n_devices)
        even = np.arange(n_blocks + -n_blocks % n_devices) % n_blocks  # a few are done twice, so that each device has as many
        done = spread(jax.device_put(shared, whole), jax.device_put(jax.tree.map(lambda x: x[even], blocks), split))
        if jax.default_backend() == "cpu":
            done = jax.device_put(done, jax.local_devices()[0])
        return jax.tree.map(lambda x: x[:n_blocks], done)

    return run

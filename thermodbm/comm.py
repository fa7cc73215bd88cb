"""What the numerical code needs to know of other processes: how many there are and how to add over them."""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Comm(NamedTuple):
    """A group of processes that hold equal shares of the chains.

    `sum` adds a pytree of arrays over the ranks and may be called inside `jax.jit`; `run.parallel` builds one on mpi4jax.
    """

    rank: int
    size: int
    sum: Callable[[jax.typing.ArrayLike], jax.Array]


SERIAL = Comm(rank=0, size=1, sum=lambda tree: tree)
"""The group of one process: sums are the identity."""

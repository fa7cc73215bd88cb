"""What a run needs to know of other processes: how many there are, how to add over them, and how to bring together what they hold."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Comm(NamedTuple):
    """A group of processes that hold equal shares of the chains.

    `sum` adds a pytree of arrays over the ranks and may be called inside `jax.jit`; `gather` gives rank 0 the objects of all ranks, in
    their order, and the others None; `share` gives them to all ranks. `run.parallel` builds one on mpi4jax.
    """

    rank: int
    size: int
    sum: Callable[[Any], Any]
    gather: Callable[[Any], list[Any] | None]
    share: Callable[[Any], list[Any]]


SERIAL = Comm(rank=0, size=1, sum=lambda tree: tree, gather=lambda x: [x], share=lambda x: [x])
"""The group of one process: sums are the identity."""

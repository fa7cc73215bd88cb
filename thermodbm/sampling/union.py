"""Joining nodes into clusters, for lists of joints whose length is known only at run time.

Arrays have static shapes, so a list is a pair of long arrays and a count. It is worked through block by block up to the count, and
joints that are settled are dropped: the work follows the number of joints that are still open.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_ROWS = 32
"""Ranks within a block are summed along rows, then across them."""


def block_length() -> int:
    """Joints handled at a time: few on CPUs, where their scratch space stays in the cache; many where every block is a launch."""
    return 1 << (9 if jax.default_backend() == "cpu" else 18)


def whole_blocks(size: int) -> int:
    """The next multiple of the length of a block."""
    return -(-size // block_length()) * block_length()


class Joints(NamedTuple):
    """Nodes a[k] and b[k] are joined, for k < count; what stands behind is void."""

    a: jax.Array  # (size,) int32
    b: jax.Array  # (size,) int32
    count: jax.Array  # () int32


def no_joints(size: int) -> Joints:
    """An empty list with room for `size` joints or more."""
    room = jnp.zeros(whole_blocks(size), jnp.int32)
    return Joints(room, room, jnp.int32(0))


def append(joints: Joints, keep: jax.Array, a: jax.Array, b: jax.Array) -> Joints:
    """The list with those joints a, b behind it that are to be kept; all three (rows, columns)."""
    rank = jnp.cumsum(keep, axis=0, dtype=jnp.int32)
    n_kept = rank[-1]
    before = jnp.cumsum(n_kept, dtype=jnp.int32) - n_kept
    place = jnp.where(keep, joints.count + before + rank - 1, joints.a.size)
    put = lambda x, new: x.at[place].set(new, mode="drop")  # noqa: E731
    return Joints(put(joints.a, a), put(joints.b, b), joints.count + n_kept.sum(dtype=jnp.int32))


def merge(n_nodes: int, joints: Joints, n_used: jax.Array | int | None = None) -> jax.Array:
    """Root of every node when all joints hold, the lowest of its cluster, (n_nodes,) int32; of the first n_used, if that is given.

    The room of the list is in whole blocks, as `no_joints` makes it. Each round hooks the larger end of every joint onto the smaller and
    moves both up to their roots; joints whose ends meet are done. After the first round, which leaves few open, and at the end all nodes
    are pointed at their roots.
    """
    length, n_used = block_length(), jnp.int32(n_nodes if n_used is None else n_used)
    within = jnp.arange(length, dtype=jnp.int32).reshape(_ROWS, -1)

    def block(joints: Joints, k: jax.Array) -> tuple[jax.Array, ...]:
        a, b = (lax.dynamic_slice_in_dim(x, k * length, length).reshape(_ROWS, -1) for x in joints[:2])
        return a, b, k * length + within < joints.count

    def round_of_all(state: tuple[jax.Array, jax.Array, jax.Array, Joints]) -> tuple[jax.Array, jax.Array, jax.Array, Joints]:
        first, _, parent, joints = state

        def hook(k: jax.Array, parent: jax.Array) -> jax.Array:
            a, b, present = block(joints, k)
            a, b = jnp.where(present, a, 0), jnp.where(present, b, 0)
            return parent.at[jnp.maximum(a, b)].min(jnp.minimum(a, b), mode="promise_in_bounds")

        def climb(k: jax.Array, left: Joints) -> Joints:
            *ends, present = block(left._replace(count=joints.count), k)  # what is left stands before block k
            a, b = climbed(parent, jnp.stack(ends))
            return append(left, present & (a != b), a, b)

        n_blocks = (joints.count + length - 1) // length
        parent = lax.fori_loop(jnp.int32(0), n_blocks, hook, parent)
        parent = roots_of(parent, jnp.where(first | (joints.count == 0), n_used, 0))
        left = lax.fori_loop(jnp.int32(0), n_blocks, climb, joints._replace(count=jnp.int32(0)))
        return jnp.bool_(False), jnp.where(first, left.count, joints.count) > 0, parent, left

    start = jnp.bool_(True), jnp.bool_(True), jnp.arange(whole_blocks(n_nodes), dtype=jnp.int32), joints
    return lax.while_loop(lambda state: state[1], round_of_all, start)[2][:n_nodes]


def roots_of(parent: jax.Array, n_used: jax.Array | int) -> jax.Array:
    """Root of every node, whose parents have lower numbers; of the first n_used. The array is in whole blocks."""
    length = block_length()

    def shorten(k: jax.Array, parent: jax.Array) -> jax.Array:
        """Point a block at its roots; those of the blocks before it are found already."""
        own = climbed(parent, lax.dynamic_slice_in_dim(parent, k * length, length))
        return lax.dynamic_update_slice_in_dim(parent, own, k * length, 0)

    return lax.fori_loop(jnp.int32(0), (jnp.int32(n_used) + length - 1) // length, shorten, parent)


def climbed(parent: jax.Array, nodes: jax.Array) -> jax.Array:
    """The roots of nodes."""
    up = lambda state: (at(parent, state[0]), state[0])  # noqa: E731
    return lax.while_loop(lambda state: jnp.any(state[0] != state[1]), up, up((nodes, nodes)))[0]


def at(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[index] for indices that are known to be in range."""
    return x.at[index].get(mode="promise_in_bounds")

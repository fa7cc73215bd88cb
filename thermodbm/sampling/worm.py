"""Directed loops: the update that moves the magnetisation of exchange magnets in a field along z, where whole loops hardly turn.

A loop whose spins point along the field turns over with a probability that falls exponentially with its length in imaginary time. Here a
loop is built step by step with the field in its weights. A head starts in a random cell, up or down in imaginary time, and turns over
every cell that it passes. In each plaquette it goes straight on, to the other worldline ahead, to the one beside it, or back: of a
plaquette whose leg is turned over three states have weight,

    P  all legs parallel,   K  antiparallel, kept,   X  antiparallel, exchanged,

and with half of the field of a cell at each of its ends, v = (P + K - X)/2, x = (P + X - K)/2 and h = (K + X - P)/2 are the weights of the
moves straight (P-K), diagonal (P-X) and horizontal (K-X), as of the graphs of `sampling.loop`. Where the triangle inequality fails, what
the largest exceeds the others by is the weight of turning back. The move is done when the head meets its tail.

Source: O. F. Syljuasen, A. W. Sandvik, Phys. Rev. E 66, 046701 (2002).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.network.exchange import gate_elements
from thermodbm.sampling.loop_labels import PlaquetteRing
from thermodbm.sampling.loop_weights import LoopParams
from thermodbm.sampling.union import at

TOGETHER = 32
"""Steps whose random numbers are drawn at once."""


class Ways(NamedTuple):
    """Of a head in each cell that goes down or up, (n_cells, 2) flattened: cells around the plaquette before it, and its own leg."""

    ahead: np.ndarray  # on its own worldline
    side: np.ndarray  # at the same end of the other
    across: np.ndarray  # at the far end of the other
    leg: np.ndarray  # number among the legs of a step, (n_sub, n_pairs, 2 worldlines, 2 ends: upper and lower)


class Walk(NamedTuple):
    """Heads of all chains, (n_chains,) each, and what they walk through."""

    spins: jax.Array  # (n_chains * n_cells,) int8, turned over from the start to just before the head
    head: jax.Array  # the cell from which it goes on
    up: jax.Array  # whether it goes up
    start: jax.Array  # the cell where it began
    start_up: jax.Array
    returned: jax.Array  # whether it came back to the start from where it went, which is then turned over once more
    done: jax.Array  # loops that are closed


def ways_of(ring: PlaquetteRing) -> Ways:
    """From the geometry alone."""
    n_pairs = ring.shape[2]
    cells = np.arange(ring.n_cells, dtype=np.int32).reshape(ring.shape)
    up, down, beside = ring.up.reshape(-1), ring.down.reshape(-1), cells[:, ::-1].reshape(-1)
    lower = np.stack([down, cells.reshape(-1)], axis=1)  # input, on the head's worldline, of the plaquette ahead
    upper, other, other_upper = up[lower], beside[lower], up[beside[lower]]
    goes_up = np.arange(2) == 1
    ahead, side, across = (np.where(goes_up, a, b) for a, b in ((upper, lower), (other, other_upper), (other_upper, other)))
    layer, worldline, pair = np.unravel_index(lower, ring.shape)
    leg = ((layer % len(ring.sites) * n_pairs + pair) * 2 + worldline) * 2 + goes_up
    return Ways(*(x.reshape(-1).astype(np.int32) for x in (ahead, side, across, leg)))


def turns(ring: PlaquetteRing, params: LoopParams) -> tuple[jax.Array, jax.Array]:
    """Probabilities by which a head goes the first of the two ways of a plaquette's state, and the first or the second, for each leg of a
    step and each state of three legs (n_legs * 8,): that by which it comes (before it is turned over), the one ahead and the one beside it,
    4, 2 and 1 if they are up. The ways are straight and across if all legs are parallel, straight and beside if they are antiparallel and
    kept, across and beside if they are exchanged."""
    n_sub, _, n_pairs = params.field.shape
    a, b, c = (jnp.abs(x)[..., None, None, None] for x in gate_elements(params.zz, params.xy, 1.0))
    below = params.field.transpose(0, 2, 1) / 2  # half fields of the inputs, (n_sub, n_pairs, worldline); those of outputs by site
    sites = ring.sites.reshape(n_sub, -1)
    cell_of = np.argsort(np.roll(sites, -1, axis=0), axis=1)  # of each site in the layer above
    next_field = jnp.roll(params.field, -1, axis=0).reshape(n_sub, -1) / 2
    above = jnp.take_along_axis(next_field, jnp.asarray(np.take_along_axis(cell_of, sites, axis=1)), axis=1)
    above = above.reshape(n_sub, 2, n_pairs).transpose(0, 2, 1)
    own = jnp.stack([above, below], axis=-1)[..., None]  # (n_sub, n_pairs, worldline, end, state): a head that goes up comes from below
    near = own[:, :, ::-1]
    ahead, across = own[:, :, :, ::-1], near[:, :, :, ::-1]
    came, far, side = ((np.arange(8) >> shift & 1) * 2 - 1 for shift in (2, 1, 0))
    parallel = came == side
    kept, exchanged = ~parallel & (came == far), ~parallel & (came != far)
    sign = np.where(parallel, came, -came)  # of the legs where all are parallel
    P = a * jnp.exp(sign * (own + ahead + near + across))
    K = b * jnp.exp(sign * np.where(exchanged, -1, 1) * (near + across - own - ahead))  # one worldline turned over
    X = c * jnp.exp(sign * np.where(kept, -1, 1) * (near + ahead - own - across))  # two legs across
    v, x, h = _between(P, K, X), _between(P, X, K), _between(K, X, P)
    first, second, whole = jnp.where(exchanged, x, v), jnp.where(parallel, x, h), jnp.where(parallel, P, jnp.where(kept, K, X))
    found = jnp.where(whole > 0, first / whole, 0), jnp.where(whole > 0, (first + second) / whole, 0)
    return tuple(x.reshape(-1).astype(jnp.float32) for x in found)


def _between(first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
    """The weight of the move from one of three states to another: no head turns back, or as few as may be."""
    return jnp.clip((first + second - third) / 2, 0, jnp.minimum(first, second))


def directed_loops(key: jax.Array, ring: PlaquetteRing, params: LoopParams, spins: jax.Array, n_loops: int) -> jax.Array:
    """Spins (n_chains, n_layers, 2, n_pairs) after `n_loops` directed loops in every chain."""
    shape, n_chains = spins.shape, len(spins)
    ways, chances = Ways(*map(jnp.asarray, ways_of(ring))), turns(ring, params)
    key, key_start = jax.random.split(key)
    starts = jax.random.randint(key_start, (n_loops + 1, n_chains), 0, 2 * ring.n_cells, jnp.int32)
    no, nowhere = jnp.zeros(n_chains, bool), jnp.zeros(n_chains, jnp.int32)
    walk = _begin(Walk(spins.reshape(-1), nowhere, no, nowhere, no, no, nowhere - 1), ~no, starts)

    def some(state: tuple[jax.Array, Walk]) -> tuple[jax.Array, Walk]:
        key, key_now = jax.random.split(state[0])
        bits = jax.random.bits(key_now, (TOGETHER, n_chains), jnp.uint32)
        drawn = (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)
        return key, jax.lax.fori_loop(0, TOGETHER, lambda k, walk: _begin(*_step(walk, drawn[k], ways, chances, n_loops), starts), state[1])

    walk = jax.lax.while_loop(lambda state: jnp.any(state[1].done < n_loops), some, (key, walk))[1]
    return walk.spins.reshape(shape)


def _begin(walk: Walk, where: jax.Array, starts: jax.Array) -> Walk:
    """Count the loops that closed, and begin others in their place; when all are done, heads are of no account."""
    done = walk.done + where
    start = at(starts.reshape(-1), done * len(done) + jnp.arange(len(done)))
    cell, goes_up = jnp.where(where, start >> 1, walk.head), jnp.where(where, start & 1 == 1, walk.up)
    begun = jnp.where(where, cell, walk.start), jnp.where(where, goes_up, walk.start_up)
    return Walk(walk.spins, cell, goes_up, *begun, walk.returned & ~where, done)


def _step(walk: Walk, drawn: jax.Array, ways: Ways, chances: tuple[jax.Array, jax.Array], n_loops: int) -> tuple[Walk, jax.Array]:
    """Through one plaquette; and which heads met their tails."""
    first_cell = jnp.arange(len(walk.head)) * (len(walk.spins) // len(walk.head))
    way = 2 * walk.head + walk.up
    ahead, side, across, leg = (at(x, way) for x in ways)

    def spin(cell: jax.Array) -> jax.Array:
        return at(walk.spins, first_cell + cell)

    # the start is not turned over at its tail: there it is ahead of heads that go the way it began, and beside those that come back
    here, along = spin(walk.head), walk.up == walk.start_up
    came, far = here > 0, (spin(ahead) > 0) ^ ((ahead == walk.start) & along)
    near = (spin(side) > 0) ^ ((side == walk.start) & ~along)
    parallel, kept = came == near, came == far
    first, either = (at(x, 8 * leg + 4 * came + 2 * far + near) for x in chances)
    is_first, is_second = drawn < first, (drawn >= first) & (drawn < either)
    straight, sideways = is_first & (parallel | kept), is_second & ~parallel
    over = (is_first | is_second) & ~straight & ~sideways
    cell = jnp.where(straight, ahead, jnp.where(over, across, jnp.where(sideways, side, walk.head)))
    goes_up = walk.up ^ ~(straight | over)

    turned = jnp.where(walk.done < n_loops, -1, 1).astype(walk.spins.dtype)
    place = jnp.where(cell < 0, cell, walk.head)  # none is: so that XLA sees that all was read before this, and need not copy
    spins = walk.spins.at[first_cell + place].multiply(turned, mode="promise_in_bounds", unique_indices=True)
    home = (cell == walk.start) & ~walk.returned
    met = walk.returned | (home & (goes_up == walk.start_up))
    moved = walk._replace(spins=spins, head=cell, up=goes_up, returned=home & ~met)
    return moved, met & (walk.done < n_loops)

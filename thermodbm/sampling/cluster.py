"""Cluster update (Swendsen-Wang): the hidden units of the network decide which spins are joined, and clusters flip as wholes.

A hidden unit whose two spins agree with its coupling joins them with probability 1 - exp(-2|K|) across a bond, 1 - t along imaginary time.
Joined runs along imaginary time are found by a scan; between runs there are few joints, drawn by jumping from one to the next, so that
the list from which runs are merged into clusters is short.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from thermodbm.sampling.kernel import SamplerKernel, random_bytes, uniform
from thermodbm.sampling.ring import IsingFacts, RingWeights, Spins, in_single, random_spins
from thermodbm.sampling.union import Joints, append, at, block_length, merge, no_joints

N_SIGNS = 8
"""Independent sign assignments over which the improved estimators average (the bits of one byte)."""


class ClusterInfo(NamedTuple):
    """Averages over the signs of all clusters, (n_chains,) each; None where they are not known."""

    order_parameter_squared: jax.Array  # <m_z^2> of a layer
    kubo_squared: jax.Array | None  # <(m_z averaged over layers)^2>, where all layers are alike
    order_parameter_fourth: jax.Array | None  # <m_z^4> of a layer, likewise


def number_runs(joined: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The number of its run along imaginary time for every (layer, site, chain), int32, and how many runs there are.

    joined[l] says that layer l is joined to layer l - 1; layer 0 follows the last. Runs are numbered from zero without gaps, those of a
    worldline one after the other: there are few, and tables of them stay in the cache.
    """

    def step(breaks: jax.Array, joined: jax.Array) -> tuple[jax.Array, jax.Array]:
        breaks = breaks + ~joined
        return breaks, breaks

    breaks, within = lax.scan(step, jnp.zeros(joined.shape[1:], jnp.int32), joined)
    runs = jnp.maximum(breaks, 1)  # an unbroken worldline is a run, too
    before = jnp.cumsum(runs.ravel(), dtype=jnp.int32).reshape(runs.shape)
    return before - runs + jnp.where(within == 0, runs, within) - 1, before.ravel()[-1]


def _joint_capacity(facts: IsingFacts, n_layers: int) -> int:
    """Joints of a chain for which there is room: their mean plus ten standard deviations where all bonds are as strong as they can be."""
    mean = n_layers * len(facts.bond_pairs) * -np.expm1(-2 * facts.max_bond)
    return int(mean + 10 * np.sqrt(mean)) + 16


def cluster_kernel(facts: IsingFacts, n_layers: int) -> SamplerKernel:
    """One step builds all clusters from the hidden units and flips each with probability 1/2, or as the longitudinal field has it.

    Without longitudinal field it says `ClusterInfo`.
    """
    n_bonds, n_sites = len(facts.bond_pairs), facts.n_sites
    bond_i, bond_j = (jnp.asarray(x, jnp.int32) for x in facts.bonds.T)
    capacity = _joint_capacity(facts, n_layers)

    def init(key: jax.Array, n_chains: int) -> Spins:
        return random_spins(key, facts, n_layers, n_chains)

    def joints(key: jax.Array, weights: RingWeights, spins: Spins, run: jax.Array) -> Joints:
        """The runs that hidden units join across bonds."""
        n_chains = spins.shape[-1]
        rows = max(1, min(block_length() // n_chains, capacity))
        chain = jnp.arange(n_chains, dtype=jnp.int32)
        flat, total = spins.reshape(-1), n_layers * n_bonds
        p, positive = -jnp.expm1(-2 * jnp.abs(weights.bond)).reshape(-1), (weights.bond > 0).reshape(-1)
        p_max = p.max()

        def more(state: tuple) -> tuple:
            k, last, found = state
            u, thinning = uniform(jax.random.fold_in(key, k), (2, rows, n_chains))
            # successes of a Bernoulli(p_max) trial per (layer, bond) come at geometric distances
            gap = jnp.log(jnp.maximum(u, jnp.float32(2**-25))) / jnp.log1p(-p_max)
            gap = jnp.minimum(jnp.floor(gap), total).astype(jnp.int32) + 1
            trial = jnp.minimum(last + jnp.cumsum(gap, axis=0, dtype=jnp.int64), total).astype(jnp.int32)  # sums far beyond the total
            trial_here = jnp.where(trial < total, trial, 0)
            layer, bond = jnp.divmod(trial_here, n_bonds)
            own = trial_here if len(weights.bond) > 1 else bond  # where its coupling stands
            i, j = ((layer * n_sites + end[bond]) * n_chains + chain for end in (bond_i, bond_j))
            agree = (at(flat, i) == at(flat, j)) == positive[own]
            a, b = at(run, i), at(run, j)
            joined = (trial < total) & (thinning * p_max < p[own]) & agree & (a != b)
            return k + 1, trial[-1], append(found, joined, a, b)

        start = (jnp.int32(0), jnp.full(n_chains, -1, jnp.int32), no_joints(capacity * n_chains))
        return lax.while_loop(lambda state: jnp.any(state[1] < total), more, start)[2]

    def step(key: jax.Array, weights: RingWeights, spins: Spins) -> tuple[Spins, ClusterInfo | None]:
        key_time, key_joint, key_flip = jax.random.split(key, 3)
        u, weights = uniform(key_time, spins.shape), in_single(weights)
        kink = jnp.roll(weights.t, 1, 0)[..., None]  # between a layer and the one before
        run, n_runs = number_runs((spins == jnp.roll(spins, 1, 0)) & (u >= kink))
        run = run.reshape(-1)
        if n_bonds:
            run = at(merge(spins.size, joints(key_joint, weights, spins, run), n_runs), run)
        if facts.with_field:
            pull = jnp.broadcast_to(weights.field[..., None] * spins, spins.shape).reshape(-1)
            pull = jnp.zeros(spins.size, jnp.float32).at[run].add(pull, mode="promise_in_bounds")
            flip = jax.random.uniform(key_flip, pull.shape, jnp.float32) < jax.nn.sigmoid(-2 * pull)
            return jnp.where(at(flip, run).reshape(spins.shape), -spins, spins), None
        signs = at(random_bytes(key_flip, spins.size), run).reshape(spins.shape)
        narrow = jnp.int16 if n_sites < 2**15 else jnp.int32

        def one(k: jax.Array, sums: tuple) -> tuple:
            square, kubo, fourth, _ = sums
            flipped = jnp.where((signs >> k.astype(jnp.uint8)) & 1 == 1, -spins, spins)
            thermal = flipped if facts.thermal is None else flipped[np.array(facts.thermal)]
            magnetisation = thermal.sum(1, dtype=narrow).astype(jnp.float32) / n_sites  # (n_layers, n_chains)
            moments = (magnetisation**2).mean(0), magnetisation.mean(0) ** 2, (magnetisation**4).mean(0)
            return *(x + moment / N_SIGNS for x, moment in zip((square, kubo, fourth), moments, strict=True)), flipped

        nothing = jnp.zeros(spins.shape[-1], jnp.float32)
        square, kubo, fourth, flipped = lax.fori_loop(0, N_SIGNS, one, (nothing, nothing, nothing, spins))
        return flipped, ClusterInfo(square, *((kubo, fourth) if facts.thermal is None else (None, None)))

    return SamplerKernel(init, step)

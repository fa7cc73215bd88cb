"""Everything that the deterministic method needs to know of a model at one number of slices, and the loop that runs its chains."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thermodbm import compilation
from thermodbm.programs import kept
from thermodbm.sampling.kernel import SamplerKernel

Values = dict[str, jax.Array]
Measure = Callable[[Any, Any, Any], Values]
Chains = Any
"""States of all chains of a process, in groups: a pytree of arrays (n_groups, ...)."""


class Ensemble(NamedTuple):
    """The classical ring of one network: its weights at a temperature, a sampler, and what to measure.

    `measure(weights, state, info)` gives (n_chains,) arrays after every sweep, per site: energy; score = -d ln w/d beta / N, whose
    covariance with the energy makes the specific heat; further scalars, slope (below) among them where it costs nothing; sign where
    weights have one.
    `measure_rarely` gives (n_chains, k) arrays now and then: slope (k = 1), the explicit derivative of the
    energy estimator in beta, or zero where it is among the scalars, and pair functions.

    Where derivatives are wanted `respond` takes the place of `measure`, and gives the series of `estimate.response` beside its values, and
    `respond_late` gives those that are measured now and then, (n_chains, k) arrays all.

    Only structure is fixed in it; couplings come with the weights, in a Hamiltonian of the same structure.
    """

    kernel: SamplerKernel
    weights: Callable[..., Any]  # of couplings and beta, or of couplings and a network
    measure: Measure
    measure_rarely: Measure
    resize: Callable[[Any], Any]  # a state of another number of slices -> one of this
    respond: Callable[..., tuple[Values, Values]] | None = None
    respond_late: Measure | None = None
    visible: Callable[[Any], jax.Array] | None = None  # the spins (n_chains, n_sites) of a state
    layers: Callable[[Any], jax.Array] | None = None  # spins at equally spaced times (n_chains, n_layers, n_sites), where all are alike


class Samples(NamedTuple):
    """What a stretch of sweeps of some chains gave; everything is multiplied by the sign where there is one."""

    values: Values  # (n_stretches, every, n_chains)
    rare: Values  # (n_stretches, n_chains, k), measured after each stretch
    response: Values  # (n_stretches, n_chains, k), averages over stretches or measured after each


MAX_STRETCHES = 16
"""Most stretches of a call; how many there are is an argument, so that no length of a run compiles anything."""


def group_mesh(n_groups: int) -> Mesh:
    """Devices of this process over which groups of chains are shared: as many as divide them."""
    devices = jax.local_devices()
    while n_groups % len(devices):
        devices = devices[:-1]
    return Mesh(devices, ("groups",))


def place_groups(mesh: Mesh, chains: Chains) -> Chains:
    """The states with their groups spread over the devices."""
    return jax.device_put(chains, NamedSharding(mesh, PartitionSpec("groups")))


def first_chains(ensemble: Ensemble, key: jax.Array, groups: jax.Array, n_chains: int) -> Chains:
    """A start for groups of n_chains chains with the given numbers (n_groups,)."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(groups)
    return jax.vmap(lambda key: ensemble.kernel.init(key, n_chains))(keys)


def resize_chains(ensemble: Ensemble, chains: Chains) -> Chains:
    """States of another number of slices as a start for this one."""
    return jax.vmap(ensemble.resize)(chains)


def run_chains(
    ensemble: Ensemble, mesh: Mesh, every: int, *, brief: bool = False, about: Hashable = None
) -> Callable[..., tuple[Chains, Samples]]:
    """A jitted (key, source, groups, chains, n_stretches) -> (chains, samples) that makes n_stretches <= MAX_STRETCHES stretches of
    `every` sweeps, with the weights that the ensemble makes from `source`.

    Keys belong to groups, by their numbers (n_groups,), and a device works through its groups one after the other: which device that is
    changes no bit of the result. Arrays of `Samples` have groups in front, and room for MAX_STRETCHES stretches.

    Args:
        brief: compile for a run of seconds, see `compilation`.
        about: what the ensemble is made of, for `programs`, which may keep the program then.
    """
    sweep_groups = _sweeping(ensemble, mesh, every)

    def flat(*arguments: Any) -> tuple[list[jax.Array], dict[str, Values]]:
        chains, samples = sweep_groups(*arguments)
        return jax.tree.leaves(chains), samples._asdict()

    options = compilation.brief() if brief else compilation.light()
    program = kept(flat, about and ("chains", about, every, mesh.size), options)

    def run(key: jax.Array, source: tuple, groups: jax.Array, chains: Chains, n_stretches: jax.Array) -> tuple[Chains, Samples]:
        leaves, samples = program(key, source, groups, chains, n_stretches)
        return jax.tree.unflatten(jax.tree.structure(chains), leaves), Samples(**samples)

    return run


def _sweeping(ensemble: Ensemble, mesh: Mesh, every: int) -> Callable[..., tuple[Chains, Samples]]:
    """What `run_chains` compiles."""
    step, measure_rarely = (jax.jit(f) for f in (ensemble.kernel.step, ensemble.measure_rarely))  # traced once
    measure = jax.jit(ensemble.respond or (lambda *of: (ensemble.measure(*of), {})))

    def signed(values: Values) -> Values:
        sign = values.get("sign")
        if sign is None:
            return values
        return {k: v if k == "sign" else v * sign.reshape(-1, *[1] * (v.ndim - 1)) for k, v in values.items()}

    def sweep(weights: Any, carry: tuple, key: jax.Array) -> tuple[tuple, tuple[Values, Values]]:
        state, _ = carry
        state, info = step(key, weights, state)
        values, series = jax.tree.map(lambda v: v.astype(float), measure(weights, state, info))
        values["energy_score"] = values["energy"] * values["score"]
        if series and "sign" in values:
            series = {**signed({**series, "sign": values["sign"]}), "sign": values["sign"][:, None]}
        return (state, info), (signed(values), series)

    def stretch(weights: Any, key: jax.Array, state: Any) -> tuple[Any, Samples]:
        no_info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, key, weights, state)[1])
        (state, info), (values, series) = jax.lax.scan(partial(sweep, weights), (state, no_info), jax.random.split(key, every))
        rare = {name: v.astype(float) for name, v in measure_rarely(weights, state, info).items()}
        if "sign" in values:
            rare["sign"] = values["sign"][-1]
        response = {name: v.mean(0) for name, v in series.items()}
        if ensemble.respond_late is not None:
            late = {name: v.astype(float) for name, v in ensemble.respond_late(weights, state, info).items()}
            sign = {"sign": rare["sign"]} if "sign" in rare else {}
            response |= {name: v for name, v in signed({**late, **sign}).items() if name != "sign"}
        return state, Samples(values, signed(rare), response)

    def group(weights: Any, n_stretches: jax.Array, key: jax.Array, state: Any) -> tuple[Any, Samples]:
        shapes = jax.eval_shape(partial(stretch, weights), key, state)[1]
        room = jax.tree.map(lambda x: jnp.zeros((MAX_STRETCHES, *x.shape), x.dtype), shapes)

        def one(k: jax.Array, carry: tuple[Any, Samples]) -> tuple[Any, Samples]:
            state, found = carry
            state, new = stretch(weights, jax.random.fold_in(key, k), state)
            return state, jax.tree.map(lambda all, x: jax.lax.dynamic_update_index_in_dim(all, x, k, 0), found, new)

        return jax.lax.fori_loop(0, n_stretches, one, (state, room))

    def local(key: jax.Array, source: tuple, n_stretches: jax.Array, groups: jax.Array, chains: Chains):
        weights = ensemble.weights(*source)
        one = lambda of_group: group(weights, n_stretches, jax.random.fold_in(key, of_group[0]), of_group[1])  # noqa: E731
        return jax.lax.map(one, (groups, chains))

    def run(key: jax.Array, source: tuple, groups: jax.Array, chains: Chains, n_stretches: jax.Array):
        shared, split = PartitionSpec(), PartitionSpec("groups")
        sharded = jax.shard_map(local, mesh=mesh, in_specs=(*[shared] * 3, split, split), out_specs=split, check_vma=False)
        return sharded(key, source, n_stretches, groups, chains)

    return run

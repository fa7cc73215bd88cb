"""Everything that the deterministic method needs to know of a model at one number of slices, and the loop that runs its chains."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thermodbm.models import SpinHamiltonian
from thermodbm.sampling.kernel import SamplerKernel

Values = dict[str, jax.Array]
Measure = Callable[[Any, Any, dict], Values]


class Ensemble(NamedTuple):
    """The classical ring of one network: its weights at a temperature, a sampler, and what to measure.

    `measure(weights, state, info)` gives (n_chains,) arrays after every sweep, per site: energy; score = -d ln w/d beta / N, whose
    covariance
    with it makes the specific heat; further scalars; sign where weights have one. `measure_rarely` gives (n_chains, k) arrays now and
    then: slope (k = 1), the explicit derivative of the energy estimator in beta, and pair functions.
    """

    kernel: SamplerKernel
    weights: Callable[[SpinHamiltonian, jax.Array], Any]  # of couplings, in a Hamiltonian of the same structure, and beta
    measure: Measure
    measure_rarely: Measure
    resize: Callable[[Any], Any]  # a state of another number of slices -> one of this
    chain_axis: int  # of all arrays in the state


def chain_mesh(n_chains: int) -> Mesh:
    """Devices of this process over which chains are shared: as many as divide them."""
    devices = jax.local_devices()
    while n_chains % len(devices):
        devices = devices[:-1]
    return Mesh(devices, ("chains",))


def place_chains(ensemble: Ensemble, mesh: Mesh, state: Any) -> Any:
    """The state with its chains spread over the devices."""
    return jax.device_put(state, jax.tree.map(lambda x: NamedSharding(mesh, _spec(ensemble, x.ndim)), state))


def _spec(ensemble: Ensemble, ndim: int) -> PartitionSpec:
    axes = [None] * ndim
    axes[ensemble.chain_axis] = "chains"
    return PartitionSpec(*axes)


def run_chains(ensemble: Ensemble, mesh: Mesh, n_sweeps: int, every: int) -> Callable[..., tuple[Any, Values, Values]]:
    """A jitted (key, hamiltonian, beta, state) -> (state, values, rare values) that makes n_sweeps sweeps of all chains.

    Values are (n_sweeps, n_chains), each multiplied by the sign where there is one; rare ones are averaged over the measurements made after
    every `every`-th sweep, (n_chains, k). Every device runs its own chains with its own key; nothing is exchanged.
    """
    kernel = ensemble.kernel

    def signed(values: Values) -> Values:
        sign = values.get("sign")
        if sign is None:
            return values
        return {k: v if k == "sign" else v * sign.reshape(-1, *[1] * (v.ndim - 1)) for k, v in values.items()}

    def sweep(weights: Any, carry: tuple, key: jax.Array) -> tuple[tuple, Values]:
        state, _ = carry
        state, info = kernel.step(key, weights, state)
        values = {name: v.astype(float) for name, v in ensemble.measure(weights, state, info).items()}
        values["energy_score"] = values["energy"] * values["score"]
        return (state, info), signed(values)

    def local(key: jax.Array, hamiltonian: SpinHamiltonian, beta: jax.Array, state: Any) -> tuple[Any, Values, Values]:
        key = jax.random.fold_in(key, jax.lax.axis_index("chains"))
        weights = ensemble.weights(hamiltonian, beta)

        no_info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(kernel.step, key, weights, state)[1])

        def stretch(state: Any, key: jax.Array) -> tuple[Any, tuple[Values, Values]]:
            (state, info), values = jax.lax.scan(partial(sweep, weights), (state, no_info), jax.random.split(key, every))
            rare = {name: v.astype(float) for name, v in ensemble.measure_rarely(weights, state, info).items()}
            if "sign" in values:
                rare["sign"] = values["sign"][-1]
            return state, (values, signed(rare))

        state, (values, rare) = jax.lax.scan(stretch, state, jax.random.split(key, n_sweeps // every))
        return state, jax.tree.map(lambda x: x.reshape(n_sweeps, -1), values), jax.tree.map(lambda x: x.mean(0), rare)

    def run(key: jax.Array, hamiltonian: SpinHamiltonian, beta: jax.Array, state: Any) -> tuple[Any, Values, Values]:
        in_state = jax.tree.map(lambda x: _spec(ensemble, x.ndim), state)
        out = (in_state, PartitionSpec(None, "chains"), PartitionSpec("chains"))
        sharded = jax.shard_map(local, mesh=mesh, in_specs=(*[PartitionSpec()] * 3, in_state), out_specs=out, check_vma=False)
        return sharded(key, hamiltonian, beta, state)

    return jax.jit(run)

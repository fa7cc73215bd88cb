"""What strings of all kinds have in common: the ensemble around their kernels, and averages over clusters and times."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermodbm.estimate.correlations import correlations, structure_factor
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.user import Functions, on_layers
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import Lattice
from thermodbm.sampling.kernel import SamplerKernel
from thermodbm.sampling.strings import Strings, resize_strings
from thermodbm.sampling.union import at


class StringMagnet(NamedTuple):
    """A Hamiltonian, beta, and the weights that they give to the parts of strings."""

    hamiltonian: SpinHamiltonian
    beta: jax.Array
    parts: Any  # `Graphs`, `Vertices` or `Cuts`


def ring_of_strings(kernel: SamplerKernel, n_slots: int, parts_of: Callable, measure: Measure, measure_rarely: Measure) -> Ensemble:
    """The ensemble of a kernel of `Strings`, which are kept as dicts, as checkpoints have them.

    Args:
        parts_of: (hamiltonian, beta) -> what the kernel takes as weights.
        measure, measure_rarely: as those of an `Ensemble`, of a `StringMagnet`.
    """

    def step(key: jax.Array, magnet: StringMagnet, state: dict) -> tuple[dict, Any]:
        strings, info = kernel.step(key, magnet.parts, Strings(**state))
        return strings._asdict(), info

    return Ensemble(
        kernel=SamplerKernel(lambda key, n_chains: kernel.init(key, n_chains)._asdict(), step),
        weights=lambda hamiltonian, beta: StringMagnet(hamiltonian, jnp.asarray(beta, float), parts_of(hamiltonian, beta)),
        measure=measure,
        measure_rarely=measure_rarely,
        resize=lambda state: resize_strings(Strings(**state), n_slots)._asdict(),
        visible=lambda state: state["spins"].T,
    )


def pair_functions(lattice: Lattice, moment: float, spins: jax.Array, functions: Functions) -> dict[str, jax.Array]:
    """Of spins (n_times, n_sites, n_chains) with a moment: correlation_zz (n_chains, n_sites), on a fully periodic lattice
    structure_factor_zz, and `functions` of a user."""
    layers = jnp.moveaxis(spins, -1, 0)
    field = moment * layers.astype(jnp.float32)
    values = {"correlation_zz": correlations(lattice, field).mean(1), **on_layers(functions, layers)}
    if lattice.wavevectors is not None:
        values["structure_factor_zz"] = structure_factor(lattice, field).mean(1)
    return values


def powers_of_sums(clusters: jax.Array, field: jax.Array, n_labels: int, powers: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """For each of the powers: the sum over clusters of that power of the sum of a field (n_times, n_sites, n_chains) over each, (n_times,
    n_chains); at the first times of the clusters.

    sum_L a_L^k = sum_i x_i a_L(i)^(k - 1): of the long list of sums only what spins point to is read, and set to zero again.
    """

    def of_time(sums: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple]:
        clusters, field = x
        sums = sums.at[clusters].add(field, mode="promise_in_bounds")
        own = at(sums, clusters)
        found = tuple((field * own ** (power - 1)).sum(0) for power in powers)
        return sums.at[clusters].set(0 * own, mode="promise_in_bounds"), found

    empty = jnp.zeros(n_labels, jnp.float32)
    return jax.lax.scan(of_time, empty, (clusters[: len(field)], field.astype(jnp.float32)))[1]

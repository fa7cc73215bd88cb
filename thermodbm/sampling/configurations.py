"""Configurations of spins and ancillas: all of them up to symmetry, or random ones to start from."""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError

MAX_CONFIGURATIONS = 1 << 21


def n_configurations(n_sites: int, *, conserve_sz: bool) -> float:
    """How many configurations spins and ancillas have: 4^N, or binomial(2N, N) with total sz of both together zero."""
    return comb(2 * n_sites, n_sites) if conserve_sz else 4.0**n_sites


def enumerate_configurations(n_sites: int, sites: np.ndarray, *, flip: bool, conserve_sz: bool) -> tuple[np.ndarray, np.ndarray]:
    """One configuration of each orbit under site permutations (n, n_sites) and the reversal of all units, and the orbits' sizes.

    Returns:
        (n, 2 n_sites) int8 +-1 and (n,) int.

    Raises:
        InputError: for more than 2^21 configurations.
    """
    if n_configurations(n_sites, conserve_sz=conserve_sz) > MAX_CONFIGURATIONS:
        raise InputError(
            "method.enumerate",
            expected=f"at most {MAX_CONFIGURATIONS} configurations of spins and ancillas",
            found=f"{n_sites} sites",
            hint="Larger systems are sampled.",
        )
    v = 2 * n_sites
    numbers = np.arange(1 << v)
    if conserve_sz:
        numbers = numbers[np.bitwise_count(numbers) == n_sites]
    bits = (numbers[:, None] >> np.arange(v)) & 1
    place = 1 << np.arange(v)
    lowest = numbers
    for perm in sites:
        image = bits @ place[np.concatenate([np.argsort(perm), np.argsort(perm) + n_sites])]
        lowest = np.minimum(lowest, image)
        if flip:
            lowest = np.minimum(lowest, image ^ ((1 << v) - 1))
    kept, multiplicity = np.unique(lowest, return_counts=True)
    return (1 - 2 * ((kept[:, None] >> np.arange(v)) & 1)).astype(np.int8), multiplicity


def random_configurations(key: jax.Array, n_walkers: int, n_sites: int) -> jax.Array:
    """Random spins with every ancilla opposite to its spin, (n_walkers, 2 n_sites) int8: samples of |Psi_inf|^2."""
    spins = jax.random.rademacher(key, (n_walkers, n_sites), jnp.int8)
    return jnp.concatenate([spins, -spins], axis=1)

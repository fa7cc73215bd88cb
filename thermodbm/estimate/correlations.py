"""Pair functions of a classical field on a lattice, by fast Fourier transforms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.models import Lattice


def correlations(lattice: Lattice, field: jax.Array) -> jax.Array:
    """C(j) = (1/n_T) sum_T x_T(0) x_T(j) over the translations T of the lattice, (..., n_sites) from (..., n_sites).

    >>> from thermodbm.models import make_lattice
    >>> correlations(make_lattice("chain", 4), jnp.array([1.0, -1.0, 1.0, -1.0])).round(6).tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    origin, waves, back = periodic_waves(lattice, field)
    return back(jnp.conj(origin) * waves)


def structure_factor(lattice: Lattice, field: jax.Array) -> jax.Array:
    """S(k) = |sum_i x_i exp(-i k r_i)|^2 / N at `lattice.wavevectors`, (..., n_cells) from (..., n_sites), of a fully periodic lattice."""
    return jnp.abs(momenta(lattice, field)) ** 2 / lattice.n_sites


def periodic_waves(lattice: Lattice, field: jax.Array) -> tuple[jax.Array, jax.Array, Callable[[jax.Array], jax.Array]]:
    """Fourier transforms along the periodic axes of the first site of a cell (at the end of the open axes) and of all sites, and what
    makes averages over translations (..., n_sites) of products of the two."""
    axes = tuple(-1 - len(lattice.extent) + a for a, flag in enumerate(lattice.periodic) if flag)
    if lattice.kind == "graph" or not axes:
        return field[..., :1], field, lambda product: product
    waves = jnp.fft.fftn(field.reshape(*field.shape[:-1], *lattice.extent, lattice.n_basis), axes=axes)
    origin = waves[..., :1]
    for a, flag in enumerate(lattice.periodic):
        if not flag:
            origin = jax.lax.slice_in_dim(origin, 0, 1, axis=origin.ndim - 1 - len(lattice.extent) + a)
    n_inner = len(lattice.extent) + 1

    def back(product: jax.Array) -> jax.Array:
        pairs = jnp.fft.ifftn(product, axes=axes).real
        return pairs.reshape(*product.shape[:-n_inner], lattice.n_sites) / len(lattice.translations)

    return origin, waves, back


def momenta(lattice: Lattice, field: jax.Array) -> jax.Array:
    """sum_i x_i exp(-i k r_i) at `lattice.wavevectors`, (..., n_cells) from (..., n_sites), of a fully periodic lattice."""
    axes = tuple(range(-1 - len(lattice.extent), -1))
    waves = jnp.fft.fftn(field.reshape(*field.shape[:-1], *lattice.extent, lattice.n_basis), axes=axes)
    waves = waves.reshape(*field.shape[:-1], -1, lattice.n_basis)
    phases = np.exp(-1j * lattice.wavevectors @ lattice.positions[: lattice.n_basis].T)
    return (waves * phases).sum(-1)

"""Pair functions of a classical field on a lattice, by fast Fourier transforms."""

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
    if lattice.kind == "graph":
        return field[..., :1] * field
    axes = tuple(-1 - len(lattice.extent) + a for a, flag in enumerate(lattice.periodic) if flag)
    cells = field.reshape(*field.shape[:-1], *lattice.extent, lattice.n_basis)
    n_translations = len(lattice.translations)
    if not axes:
        return field[..., :1] * field
    waves = jnp.fft.fftn(cells, axes=axes)
    origin = waves[..., :1]  # of the first site of a cell, at the end of the open axes
    for a, flag in enumerate(lattice.periodic):
        if not flag:
            origin = jax.lax.slice_in_dim(origin, 0, 1, axis=origin.ndim - 1 - len(lattice.extent) + a)
    pairs = jnp.fft.ifftn(jnp.conj(origin) * waves, axes=axes).real
    return pairs.reshape(field.shape) / n_translations


def structure_factor(lattice: Lattice, field: jax.Array) -> jax.Array:
    """S(k) = |sum_i x_i exp(-i k r_i)|^2 / N at `lattice.wavevectors`, (..., n_cells) from (..., n_sites), of a fully periodic lattice."""
    axes = tuple(range(-1 - len(lattice.extent), -1))
    waves = jnp.fft.fftn(field.reshape(*field.shape[:-1], *lattice.extent, lattice.n_basis), axes=axes)
    waves = waves.reshape(*field.shape[:-1], -1, lattice.n_basis)
    phases = np.exp(-1j * lattice.wavevectors @ lattice.positions[: lattice.n_basis].T)
    return jnp.abs((waves * phases).sum(-1)) ** 2 / lattice.n_sites

"""The exact partition function of a small magnet as a function of its couplings that JAX differentiates."""

import jax
import jax.numpy as jnp

from thermodbm.errors import InputError
from thermodbm.exact.diagonalisation import all_configurations
from thermodbm.models.hamiltonian import SpinHamiltonian

MAX_SITES = 11
"""Matrices of 2^11 rows: a second or two, and as much again for the derivatives."""


def log_partition(hamiltonian: SpinHamiltonian, beta: jax.Array | float) -> jax.Array:
    """ln Tr exp(-beta H), by dense diagonalisation; derivatives by `jax.grad` in beta and in every coupling are exact, levels being
    degenerate or not: the trace asks for eigenvalues alone.

    Raises:
        InputError: for more than `MAX_SITES` sites.

    >>> from thermodbm import graph, transverse_field_ising
    >>> spin = transverse_field_ising(graph(1, []), gamma=0.5)
    >>> round(float(jax.grad(log_partition)(spin, 2.0).x_field[0]), 6)  # beta tanh(beta gamma)
    1.523188
    """
    n = hamiltonian.n_sites
    if n > MAX_SITES:
        raise InputError("lattice", expected=f"at most {MAX_SITES} sites", found=f"{n} sites")
    spins = jnp.asarray(all_configurations(n))
    joined, elements = hamiltonian.connected(spins)
    columns = (joined < 0) @ (1 << jnp.arange(n)[::-1])
    rows = jnp.broadcast_to(jnp.arange(2**n)[:, None], columns.shape)
    matrix = jnp.diag(hamiltonian.diagonal_energy(spins)).at[rows, columns].add(elements)
    return jax.scipy.special.logsumexp(-beta * jnp.linalg.eigvalsh(matrix))


def free_energy(hamiltonian: SpinHamiltonian, beta: jax.Array | float) -> jax.Array:
    """-ln Z/(beta N) per site, as `log_partition`."""
    return -log_partition(hamiltonian, beta) / (beta * hamiltonian.n_sites)

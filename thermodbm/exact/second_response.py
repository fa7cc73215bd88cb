"""Exact second derivatives of ln Z in couplings and beta.

With A = beta H and B_a = dA/d lambda_a (beta V_a of a coupling, H of beta itself),

    d^2 ln Z / d lambda_a d lambda_b = int_0^1 <B_a(s) B_b> ds - <B_a> <B_b> - <d^2 A / d lambda_a d lambda_b>,

from all levels, in sectors of magnetisation where that is conserved, without other symmetries: a V of one bond has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from thermodbm.exact import free_fermions
from thermodbm.exact.kubo import boltzmann_integral
from thermodbm.exact.sectors import sector_matrix, transitions
from thermodbm.exact.whole_space import magnetisation_blocks
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.operators import Couplings
from thermodbm.models.parameters import Directions, Parameter, mixed_directions, stacked

MAX_ELEMENTS = 2**26
"""Elements of all V between the states of all sectors: 0.5 GB."""


class _Block(NamedTuple):
    """One sector."""

    energies: np.ndarray  # (n,)
    elements: np.ndarray  # (K, n, n) <n|V_a|m>
    mixed: np.ndarray  # (K, K, n) <n|d^2 H / d lambda_a d lambda_b|n>


def second_derivatives(hamiltonian: SpinHamiltonian, parameters: Sequence[Parameter]) -> Callable[[float], np.ndarray]:
    """A function from an inverse temperature > 0 to d^2 ln Z / d lambda_a d lambda_b / N, (K, K), of all parameters one after the other.

    Raises:
        InputError: for magnets that are too large.
    """
    directions = stacked(parameters)
    alike = not directions.z_field.any() and not any(p.shape for p in parameters)
    if alike and free_fermions.applicable(hamiltonian) and hamiltonian.n_sites > 12:
        return lambda beta: free_fermions.ising_ring_second(hamiltonian, directions, beta)
    blocks, of_beta = _solve(hamiltonian, directions, mixed_directions(hamiltonian, parameters)), directions.beta

    def at(beta: float) -> np.ndarray:
        ground = min(float(b.energies.min()) for b in blocks)
        log_z = logsumexp(np.concatenate([-beta * (b.energies - ground) for b in blocks]))
        first, second = np.zeros(len(of_beta)), np.zeros((len(of_beta),) * 2)
        for b in blocks:
            e = b.energies - ground
            p = np.exp(-beta * e - log_z)
            v = beta * b.elements * (1 - of_beta[:, None, None]) + of_beta[:, None, None] * np.diag(e)
            flat = v.reshape(len(v), -1)
            second += (flat * (boltzmann_integral(e[:, None], e, beta) / beta * np.exp(-log_z)).ravel()) @ flat.T
            first += np.einsum("ann,n->a", v, p)
            slope = np.einsum("ann,n->a", b.elements, p)  # of H along couplings: what beta and a coupling move together
            second -= beta * (b.mixed @ p) + np.outer(slope, of_beta) + np.outer(of_beta, slope)
        return (second - np.outer(first, first)) / hamiltonian.n_sites

    return at


def _solve(hamiltonian: SpinHamiltonian, directions: Directions, mixed: Directions) -> list[_Block]:
    n_parameters = len(directions.beta)
    orbits, sectors = magnetisation_blocks(hamiltonian, "response.second", n_parameters, MAX_ELEMENTS)
    blocks = []

    def matrices(of: Directions, rows: np.ndarray) -> list[np.ndarray]:
        found = []
        for zz, xy, x, z in zip(*of.leaves, strict=True):
            one = Couplings.of(replace(hamiltonian, zz=zz, xy=xy, x_field=x, z_field=z))
            found.append(sector_matrix(orbits, np.ones(1), rows, transitions(orbits, one)).toarray())
        return found

    operator = transitions(orbits, Couplings.of(hamiltonian))
    for rows in sectors:
        energies, v = np.linalg.eigh(sector_matrix(orbits, np.ones(1), rows, operator).toarray())
        elements = np.array([v.T @ m @ v for m in matrices(directions, rows)])
        diagonal = np.array([np.einsum("rn,rs,sn->n", v, m, v, optimize=True) for m in matrices(mixed, rows)])
        blocks.append(_Block(energies, elements, diagonal.reshape(n_parameters, n_parameters, len(energies))))
    return blocks

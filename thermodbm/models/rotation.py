"""The sublattice rotation: turning some spins by pi about z, which takes the signs of exchange away where that can be done.

With U = prod_{i: eta_i = -1} sz_i the rotated H' = U H U has xy_ij' = eta_i eta_j xy_ij; its spectrum and all that is diagonal in sz are
those of H. A purified state (spins sigma, ancillas sigma') of H is that of H' times a sign,

    Psi(sigma, sigma') = Psi'(sigma, sigma') prod_{i: eta_i = -1} (-sigma_i sigma'_i),

because ancillas are mirror images of a column index. Where all xy' <= 0, all amplitudes of the thermal state of H' are positive. Source:
Marshall, Proc. R. Soc. A 232, 48 (1955).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.lattice import two_coloring


def balanced_signs(n_sites: int, bonds: np.ndarray, couplings: np.ndarray) -> np.ndarray | None:
    """Signs (n_sites,) that differ across bonds of positive and agree across bonds of negative coupling; None where there are none.

    >>> balanced_signs(3, np.array([[0, 1], [1, 2]]), np.array([1.0, -1.0])).tolist()
    [1, -1, -1]
    """
    opposite: list[tuple[int, int]] = []
    n_nodes = n_sites
    for (i, j), coupling in zip(np.asarray(bonds).tolist(), couplings, strict=True):
        if coupling > 0:
            opposite.append((i, j))
        elif coupling < 0:  # an auxiliary site on the bond: opposite twice
            opposite += [(i, n_nodes), (n_nodes, j)]
            n_nodes += 1
    signs = two_coloring(n_nodes, np.array(opposite, int).reshape(-1, 2))
    return None if signs is None else signs[:n_sites]


def sublattice_rotation(hamiltonian: SpinHamiltonian) -> np.ndarray | None:
    """Signs eta (n_sites,) such that rotating the sites with eta = -1 by pi about z makes every exchange element positive.

    None if that cannot be: the magnet is frustrated, and has a sign problem.
    """
    return balanced_signs(hamiltonian.n_sites, hamiltonian.bonds, np.asarray(hamiltonian.xy))


def rotate(hamiltonian: SpinHamiltonian, eta: np.ndarray) -> SpinHamiltonian:
    """H' of spins turned by pi about z where eta (n_sites,) is -1.

    Raises:
        InputError: if a site with a transverse field is turned, which would change its sign.
    """
    if np.any((eta < 0) & (np.asarray(hamiltonian.x_field) != 0)):
        raise InputError("eta", expected="+1 on sites with a transverse field", found=eta)
    i, j = hamiltonian.bonds.T
    return dataclasses.replace(hamiltonian, xy=hamiltonian.xy * eta[i] * eta[j])


def rotation_sign(visible: jax.Array, eta: np.ndarray) -> jax.Array:
    """Psi/Psi' = prod_{i: eta_i = -1} (-sigma_i sigma'_i), (...), of spins and ancillas (..., 2 n_sites)."""
    n = len(eta)
    return jnp.where(eta < 0, -visible[..., :n] * visible[..., n:], 1).prod(-1)

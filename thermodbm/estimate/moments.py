"""What the couplings alone say of the energy: its first derivatives at beta = 0, and a bound from below."""

import numpy as np
import scipy.sparse

from thermodbm.models.hamiltonian import SpinHamiltonian


def high_temperature_moments(hamiltonian: SpinHamiltonian) -> tuple[float, float]:
    """Tr H^2 / (N 2^N) = -de/dbeta and Tr H^3 / (N 2^N) = d^2e/dbeta^2 at beta = 0, from the couplings.

    Products of three Pauli strings have a trace if they are the sides of a triangle, a bond and the fields at its ends, or
    XX, YY and ZZ of one bond, whose product is -1; each comes in six orders.
    """
    n, (i, j) = hamiltonian.n_sites, hamiltonian.bonds.T
    zz, xy, x, z = (np.asarray(c, float) for c in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    ends = np.concatenate([i, j]), np.concatenate([j, i])
    zz_matrix, xy_matrix = (scipy.sparse.coo_array((np.tile(c, 2), ends), shape=(n, n)).tocsr() for c in (zz, xy))
    triangles = sum(weight * (m @ m).multiply(m).sum() for weight, m in ((1, zz_matrix), (2, xy_matrix)))
    fields = 3 * (z @ (zz_matrix @ z) + x @ (xy_matrix @ x))
    second = zz @ zz + 2 * xy @ xy + x @ x + z @ z
    return float(second) / n, float(triangles + fields - 6 * zz @ xy**2) / n


def lowest_energy(hamiltonian: SpinHamiltonian) -> float:
    """A lower bound of the ground state energy per site: the ground state energies of all bonds, each with its share of the fields.

    Source: Anderson, Phys. Rev. 83, 1260 (1951).
    """
    n, bonds = hamiltonian.n_sites, hamiltonian.bonds
    zz, xy, x, z = (np.asarray(c, float) for c in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    coordination = np.bincount(bonds.ravel(), minlength=n)
    alone = coordination == 0
    share = 1 / np.maximum(coordination, 1)[bonds]
    (x_1, x_2), (z_1, z_2), none = (x[bonds] * share).T, (z[bonds] * share).T, 0 * zz
    rows = [  # of up up, up down, down up, down down
        [zz - z_1 - z_2, -x_2, -x_1, none],
        [-x_2, -zz - z_1 + z_2, 2 * xy, -x_1],
        [-x_1, 2 * xy, -zz + z_1 - z_2, -x_2],
        [none, -x_1, -x_2, zz + z_1 + z_2],
    ]
    pairs = np.linalg.eigvalsh(np.moveaxis(np.array(rows), -1, 0))[:, 0]
    return float(pairs.sum() - np.hypot(x, z)[alone].sum()) / n

"""What the couplings alone say of the energy: its first derivatives at beta = 0, and a bound from below."""

import numpy as np
import scipy.sparse

from thermodbm.models.hamiltonian import SpinHamiltonian


def high_temperature_moments(hamiltonian: SpinHamiltonian) -> tuple[float, float, float]:
    """Cumulants of H per site in the state of infinite temperature, kappa_n = (-d/dbeta)^n ln Z / N at beta = 0, from the couplings.

        -de/dbeta = kappa_2 = <H^2> / N,   d^2e/dbeta^2 = kappa_3 = <H^3> / N,   -d^3e/dbeta^3 = kappa_4 = (<H^4> - 3 <H^2>^2) / N

    With fields as bonds to one more site, the couplings of x, y and z are symmetric matrices. Products of three terms have a trace if
    they are sides of a triangle, or XX, YY and ZZ of one bond, whose product is -1. H^2 is <H^2> and Pauli strings, each with twice the
    sum of all products of commuting terms that make it, and <H^4> is the sum of squares of these coefficients: products that make the
    same string are opposite sides of a quadrilateral, two sides of a triangle over the third, and two letters on one bond, which make
    minus the third letter.

    Returns:
        kappa_2, kappa_3, kappa_4.
    """
    n, (i, j) = hamiltonian.n_sites, hamiltonian.bonds.T
    zz, xy, x, z = (np.asarray(c, float) for c in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    ends = np.concatenate([i, j]), np.concatenate([j, i])
    exchange, easy = (scipy.sparse.coo_array((np.tile(c, 2), ends), shape=(n, n)).tocsr() for c in (xy, zz))
    letters = (exchange, x), (exchange, 0 * x), (easy, z)  # couplings of sites, and those to one more site, which would fill products
    second = sum(m.multiply(m).sum() / 2 + b @ b for m, b in letters)
    third = sum((m @ m).multiply(m).sum() + 3 * b @ (m @ b) for m, b in letters) - 6 * zz @ xy**2
    fourth, around = 0.0, [m.multiply(m).sum(1) + b**2 for m, b in letters]
    for letter, (m, b) in enumerate(letters):
        (first, _), (other, _) = (letters[k] for k in range(3) if k != letter)
        square, product, pair = m.multiply(m), m @ m, first.multiply(other)
        strings, made = _off_diagonal(product - pair), _off_diagonal(square @ square + pair.multiply(pair))
        with_one_more = 2 * (b @ (strings @ b) + np.sum((m @ b) ** 2) - (square @ b**2).sum())
        strings = strings.multiply(strings).sum() - made.sum() + with_one_more
        walks = product.multiply(product).sum() + 2 * b @ (product @ b) + 2 * np.sum((m @ b) ** 2) + 2 * (b @ b) ** 2
        # fourth powers of couplings, which belong to walks and, with the other sign, to squares of single terms, cancel
        quadrilaterals = walks - 2 * (around[letter] @ around[letter] + (b @ b) ** 2)
        fourth += 2 * strings + quadrilaterals
        for k in range(letter + 1, 3):  # terms of different letters that share one site anticommute
            fourth -= 4 * (around[letter] @ around[k] - (m.multiply(letters[k][0])).power(2).sum())
    return float(second) / n, float(third) / n, float(fourth) / n


def _off_diagonal(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    return matrix - scipy.sparse.diags_array(matrix.diagonal(), format="csr")


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

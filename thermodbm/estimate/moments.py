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
    sites, zz, xy = np.arange(n), np.asarray(hamiltonian.zz, float), np.asarray(hamiltonian.xy, float)
    everywhere = np.concatenate([i, sites]), np.concatenate([j, np.full(n, n)])

    def matrix(of_bonds: np.ndarray, of_sites: np.ndarray) -> scipy.sparse.csr_array:
        half = scipy.sparse.coo_array((np.concatenate([of_bonds, of_sites]), everywhere), shape=(n + 1, n + 1)).tocsr()
        return half + half.T

    coupled = matrix(xy, hamiltonian.x_field), matrix(xy, 0 * sites), matrix(zz, hamiltonian.z_field)
    on_bonds = [matrix(of_bonds, 0 * sites) for of_bonds in (xy, xy, zz)]
    squares = [m.multiply(m) for m in coupled]
    second = sum(m.sum() for m in squares) / 2
    third = sum((m @ m).multiply(m).sum() for m in coupled) - 6 * zz @ xy**2
    fourth = -sum(m.multiply(m).sum() for m in squares)
    for letter, (m, square) in enumerate(zip(coupled, squares, strict=True)):
        others = [on_bonds[other] for other in range(3) if other != letter]
        pair = others[0].multiply(others[1])
        strings, made = (_off_diagonal(product) for product in (m @ m - pair, square @ square + pair.multiply(pair)))
        quadrilaterals = (m @ m).multiply(m @ m).sum() - 2 * (square.sum(0) ** 2).sum() + square.multiply(square).sum()
        fourth += 2 * (strings.multiply(strings).sum() - made.sum()) + quadrilaterals
        after = range(letter + 1, 3)  # terms of different letters that share one site anticommute
        fourth -= 4 * sum((square.sum(0) * squares[other].sum(0))[:n].sum() for other in after)
        fourth += 4 * sum((on_bonds[letter].multiply(on_bonds[other])).power(2).sum() for other in after)
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

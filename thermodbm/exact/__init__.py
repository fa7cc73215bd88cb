"""References: full diagonalisation and free fermions."""

from thermodbm.exact.curve import exact_curve, exact_solver
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian, sparse_hamiltonian

__all__ = ["all_configurations", "dense_hamiltonian", "exact_curve", "exact_solver", "sparse_hamiltonian"]

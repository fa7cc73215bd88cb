"""What is simulated: lattices and spin Hamiltonians."""

from thermodbm.models.hamiltonian import SpinHamiltonian, heisenberg, j1j2, transverse_field_ising, xxz
from thermodbm.models.lattice import Lattice, graph, make_lattice

__all__ = ["Lattice", "SpinHamiltonian", "graph", "heisenberg", "j1j2", "make_lattice", "transverse_field_ising", "xxz"]

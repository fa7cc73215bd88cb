"""What is simulated: lattices and spin Hamiltonians."""

from thermodbm.lazy import hand_on

__getattr__, __dir__, __all__ = hand_on(
    __name__,
    {
        "hamiltonian": ("SpinHamiltonian", "heisenberg", "j1j2", "transverse_field_ising", "xxz"),
        "lattice": ("Lattice", "graph", "make_lattice"),
    },
)

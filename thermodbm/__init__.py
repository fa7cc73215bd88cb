"""Quantum magnets at finite temperature with purified deep Boltzmann machines."""

from thermodbm.errors import InputError, NumericsError, ThermodbmError
from thermodbm.evolve.options import DeterministicOptions, ExactOptions, SamplingOptions, VariationalOptions
from thermodbm.models import Lattice, SpinHamiltonian, graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.run.results import ThermalCurve
from thermodbm.run.runner import thermal_curve

__all__ = [
    "DeterministicOptions",
    "ExactOptions",
    "InputError",
    "Lattice",
    "NumericsError",
    "SamplingOptions",
    "SpinHamiltonian",
    "ThermalCurve",
    "ThermodbmError",
    "VariationalOptions",
    "graph",
    "heisenberg",
    "j1j2",
    "make_lattice",
    "thermal_curve",
    "transverse_field_ising",
    "xxz",
]

"""Quantum magnets at finite temperature with purified deep Boltzmann machines."""

from thermodbm.lazy import hand_on

__getattr__, __dir__, __all__ = hand_on(
    __name__,
    {
        "errors": ("InputError", "NumericsError", "ThermodbmError"),
        "evolve.options": (
            "DeterministicOptions",
            "ExactOptions",
            "LearnedOptions",
            "SamplingOptions",
            "TypicalOptions",
            "VariationalOptions",
        ),
        "models.bonds": ("magnet_from_csv", "magnet_from_graph", "magnet_from_netket"),
        "models.hamiltonian": ("SpinHamiltonian", "heisenberg", "j1j2", "transverse_field_ising", "xxz"),
        "models.lattice": ("Lattice", "graph", "make_lattice"),
        "run.api": ("response", "thermal_curve"),
        "run.combine": ("merge",),
        "run.fit": ("FitResult", "fit"),
        "run.results": ("ThermalCurve",),
        "run.stored": ("load_state",),
    },
)

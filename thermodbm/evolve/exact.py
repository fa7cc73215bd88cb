"""method.kind = "exact": the exact curve in the clothes of a thermal method."""

from collections.abc import Sequence
from functools import cache

import jax
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.estimate.statistics import exact
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import ExactOptions
from thermodbm.exact import exact_solver
from thermodbm.exact.response import response_solver
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.parameters import Parameter


def exact_method(
    hamiltonian: SpinHamiltonian, options: ExactOptions, comm: Comm = SERIAL, response: Sequence[Parameter] = ()
) -> ThermalMethod:
    """A method without state or randomness; every call of `advance` finishes a temperature.

    The levels are found at the first temperature and kept for the others. All ranks do the same work.

    Args:
        response: parameters in which all is differentiated.

    Raises:
        InputError: at the first temperature, if the system is too large (see `exact_solver`).
    """
    solver = cache(lambda: exact_solver(hamiltonian))
    slopes = cache(lambda: response_solver(hamiltonian, response))

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        curve = solver()(np.array([beta]))
        observables = {name: exact(values[0]) for name, values in curve.items()}
        found = slopes()(np.array([beta])) if response else {}
        derivatives = {name: {parameter: exact(x[0]) for parameter, x in of.items()} for name, of in found.items()}
        return state, Info(1.0, "exact", Point(observables, {}, {}, derivatives))

    return ThermalMethod(init=lambda key: {}, advance=advance)

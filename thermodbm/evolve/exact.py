"""method.kind = "exact": the exact curve in the clothes of a thermal method."""

from collections.abc import Sequence
from functools import cache

import jax
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError
from thermodbm.estimate.statistics import exact
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import ExactOptions
from thermodbm.exact import exact_solver
from thermodbm.exact.imaginary_time import imaginary_time_solver
from thermodbm.exact.response import response_solver
from thermodbm.exact.second_response import second_derivatives
from thermodbm.exact.typical_averages import typical_averages
from thermodbm.exact.typicality import Observables, Typicality
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.observables import LOG_PARTITION, SECOND
from thermodbm.models.parameters import Parameter

MAX_SITES = 12
"""Up to which observables of a user are taken in all states."""


def exact_method(
    hamiltonian: SpinHamiltonian,
    options: ExactOptions,
    comm: Comm = SERIAL,
    observables: Observables | None = None,
    response: Sequence[Parameter] = (),
    second: bool = False,
) -> ThermalMethod:
    """A method without state or randomness; every call of `advance` finishes a temperature.

    The levels are found at the first temperature and kept for the others. All ranks do the same work. With observables of a user every
    sector is diagonalised at each temperature.

    Args:
        response: parameters in which all is differentiated.
        second: whether ln Z is differentiated twice.

    Raises:
        InputError: at the first temperature, if the system is too large (see `exact_solver`).
    """
    solver = cache(lambda: exact_solver(hamiltonian))
    slopes = cache(lambda: response_solver(hamiltonian, response))
    twice = cache(lambda: second_derivatives(hamiltonian, response))
    in_time = cache(lambda: imaginary_time_solver(hamiltonian, options.n_tau))

    def own(beta: float) -> dict[str, np.ndarray]:
        if not observables:
            return {}
        if hamiltonian.n_sites > MAX_SITES:
            raise InputError("observables", expected=f"at most {MAX_SITES} sites with method.kind = exact", found=hamiltonian.n_sites)
        problem = Typicality(hamiltonian, np.array([beta]), 2, 10, observables, small=2**MAX_SITES)
        found = typical_averages(problem, [problem.sample(sector, np.random.default_rng(0)) for sector in problem.sectors])
        return {name: found.values[name][0] for name in observables}

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        curve = solver()(np.array([beta])) | own(beta)
        observables = {name: exact(values[0]) for name, values in curve.items()}
        if options.n_tau:
            observables |= {name: exact(values) for name, values in in_time()(beta).items()}
        found = slopes()(np.array([beta])) if response else {}
        derivatives = {name: {parameter: exact(x[0]) for parameter, x in of.items()} for name, of in found.items()}
        if second:
            derivatives[LOG_PARTITION] = {SECOND: exact(twice()(beta))}
        return state, Info(1.0, "exact", Point(observables, {}, {}, derivatives))

    return ThermalMethod(init=lambda key: {}, advance=advance)

"""method.kind = "typical": thermal averages from random vectors in every symmetry sector, as a thermal method."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import TypicalOptions
from thermodbm.exact.orbit_space import MAX_SITES, OrbitSpace
from thermodbm.exact.typical_averages import typical_averages
from thermodbm.exact.typicality import Observables, Sector, Typicality
from thermodbm.models.hamiltonian import SpinHamiltonian

DOUBTFUL = 0.1
"""Relative error of Z above which errors to first order are a guess: the noise of a hundred independent samples."""


def typical_problem(
    hamiltonian: SpinHamiltonian, options: TypicalOptions, betas: Sequence[float], observables: Observables | None = None
) -> Typicality:
    """What is to be done, at all inverse temperatures above 0.

    Raises:
        InputError: for more sites than can be numbered.
    """
    if (n := hamiltonian.n_sites) > MAX_SITES:
        hint = 'Larger magnets: method.kind = "deterministic".'
        raise InputError("lattice", expected=f"at most {MAX_SITES} sites with method.kind = typical", found=f"{n} sites", hint=hint)
    positive = np.unique([beta for beta in betas if beta > 0])
    return Typicality(hamiltonian, positive, options.n_vectors, options.n_lanczos, observables or {})


def typical_method(
    hamiltonian: SpinHamiltonian,
    options: TypicalOptions,
    betas: Sequence[float],
    comm: Comm = SERIAL,
    observables: Observables | None = None,
) -> ThermalMethod:
    """A method that goes through the sectors, one on each rank at a time, at its first temperature; the others are then known.

    Random numbers follow from the key of `init` and the number of the sector, so that results are the same on any number of ranks.
    Its state, and so a checkpoint, holds what is known of all finished sectors.

    Raises:
        InputError: for more sites than can be numbered.
    """
    problem = typical_problem(hamiltonian, options, betas, observables)
    sectors = problem.sectors
    work = np.cumsum([problem.dimension(sector) * len(sector.characters) for sector in sectors])
    spaces: dict[tuple[int | None, bool], OrbitSpace] = {}  # the last one, which the next sector is likely to need

    def space_of(sector: Sector) -> OrbitSpace:
        kind = sector.n_down, sector.flip
        if kind not in spaces:
            spaces.clear()
            spaces[kind] = problem.space(sector)
        return spaces[kind]

    def sample(seed: np.ndarray, number: int) -> dict[str, Any] | None:
        if number >= len(sectors):
            return None
        rng = np.random.default_rng([*np.asarray(seed).tolist(), number])
        return problem.sample(sectors[number], rng, space_of(sectors[number]))

    def init(key: jax.Array) -> State:
        return {"seed": np.asarray(jax.random.key_data(key)), "records": {}}

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        if "curve" in state:
            return state, Info(1.0, "known", _point(state["curve"], int(np.argmin(np.abs(problem.betas - beta)))))
        done = len(state["records"])
        new = [record for record in comm.share(sample(state["seed"], done + comm.rank)) if record is not None]
        records = state["records"] | {f"{done + i:05d}": record for i, record in enumerate(new)}
        if len(records) < len(sectors):
            message = f"sector {len(records)} of {len(sectors)}, for all temperatures"
            return {**state, "records": records}, Info(float(work[len(records) - 1] / work[-1]), message, None)
        state = {"curve": _curve(problem, [records[name] for name in sorted(records)])}
        return advance(key, state, beta)

    return ThermalMethod(init=init, advance=advance)


def _curve(problem: Typicality, records: list[dict[str, Any]]) -> dict[str, Any]:
    """All averages, as plain arrays (n_T, ...)."""
    averages = typical_averages(problem, records)
    doubts = np.where(averages.noise > DOUBTFUL, float(Doubt.FEW), 0.0)
    diagnostics = {
        "partition_error": averages.noise,
        "sampled_weight": averages.sampled,
        "n_lanczos": np.full(len(problem.betas), float(averages.n_steps)),
        "doubts": doubts,
        "trusted": (doubts == 0).astype(float),
    }
    means, errors = ({name: values[i] for name, values in averages.values.items()} for i in (0, 1))
    return {"mean": means, "error": errors, "diagnostics": diagnostics}


def _point(curve: Mapping[str, Any], t: int) -> Point:
    observables = {name: Estimate(values[t], curve["error"][name][t]) for name, values in curve["mean"].items()}
    return Point(observables, {name: float(values[t]) for name, values in curve["diagnostics"].items()}, {})

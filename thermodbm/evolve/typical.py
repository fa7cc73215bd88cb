"""method.kind = "typical": thermal averages from random vectors in every symmetry sector, as a thermal method."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError
from thermodbm.estimate.response import known_response, response_by_scaling
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import TypicalOptions
from thermodbm.exact.orbit_space import MAX_SITES, OrbitSpace
from thermodbm.exact.typical_averages import typical_averages, typical_differences
from thermodbm.exact.typicality import Observables, Sector, Typicality
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.parameters import LEAVES, Parameter, moved, stacked, unstacked

SCALARS = (
    "free_energy",
    "energy",
    "entropy",
    "specific_heat",
    "susceptibility",
    "magnetization_x",
    "magnetization_z",
    "order_parameter_squared",
    "staggered_structure_factor",
)
"""Of which there are derivatives."""
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


STEP = 1e-3
"""Of differences, in units of beta; of couplings in units of the largest, or of the lowest temperature if that is less: a crossing of
levels is that sharp."""
LEAST_STEP = 1e-5
"""In units of the largest coupling: less is lost in rounding errors."""
THIRD_ORDER = 3e-4
"""What differences leave, at most, in units of the largest derivative at any temperature."""


def typical_method(
    hamiltonian: SpinHamiltonian,
    options: TypicalOptions,
    betas: Sequence[float],
    comm: Comm = SERIAL,
    observables: Observables | None = None,
    response: Sequence[Parameter] = (),
) -> ThermalMethod:
    """A method that goes through the sectors, one on each rank at a time, at its first temperature; the others are then known.

    Random numbers follow from the key of `init` and the number of the sector, so that results are the same on any number of ranks. With a
    `response` the sectors of magnets a little to either side are gone through, too, with the same random numbers: derivatives are
    differences, in which most of the noise cancels. Its state, and so a checkpoint, holds what is known of all finished sectors.

    Raises:
        InputError: for more sites than can be numbered.
    """
    problem, response = typical_problem(hamiltonian, options, betas, observables), tuple(response)
    pairs = _either_side(problem, response)
    problems = [problem, *(side for pair in pairs if pair for side in pair[:2])]
    tasks = [(k, number) for k, each in enumerate(problems) for number in range(len(each.sectors))]
    work = np.cumsum([problems[k].dimension(sector := problems[k].sectors[i]) * len(sector.characters) for k, i in tasks])
    spaces: dict[tuple, OrbitSpace] = {}  # the last one, which the next sector is likely to need

    def space_of(k: int, sector: Sector) -> OrbitSpace:
        kind = len(problems[k].shifts), sector.n_down, sector.flip
        if kind not in spaces:
            spaces.clear()
            spaces[kind] = problems[k].space(sector)
        return spaces[kind]

    def sample(seed: np.ndarray, task: int) -> dict[str, Any] | None:
        if task >= len(tasks):
            return None
        k, number = tasks[task]
        sector, rng = problems[k].sectors[number], np.random.default_rng([*np.asarray(seed).tolist(), number])
        return problems[k].sample(sector, rng, space_of(k, sector))

    def init(key: jax.Array) -> State:
        return {"seed": np.asarray(jax.random.key_data(key)), "records": {}}

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        if "curve" in state:
            return state, Info(1.0, "known", _point(state["curve"], int(np.argmin(np.abs(problem.betas - beta)))))
        done = len(state["records"])
        new = [record for record in comm.share(sample(state["seed"], done + comm.rank)) if record is not None]
        records = state["records"] | {f"{done + i:05d}": record for i, record in enumerate(new)}
        if len(records) < len(tasks):
            message = f"sector {len(records)} of {len(tasks)}, for all temperatures"
            return {**state, "records": records}, Info(float(work[len(records) - 1] / work[-1]), message, None)
        found = [[] for _ in problems]
        for (k, _), name in zip(tasks, sorted(records), strict=True):
            found[k].append(records[name])
        curve = _curve(problem, found[0])
        if response:
            curve["response"] = _response(problem, response, curve, pairs, found[1:])
        return advance(key, {"curve": curve}, beta)

    return ThermalMethod(init=init, advance=advance)


class _Pair(NamedTuple):
    """Two magnets, or one at two sets of temperatures, to either side of a direction."""

    above: Typicality
    below: Typicality
    width: np.ndarray | float  # of what lies between them, (n_T,) of beta


def _either_side(problem: Typicality, response: Sequence[Parameter]) -> list[_Pair | None]:
    """In every direction, with couplings or beta a step more and less; None where nothing but a first field along z is moved."""
    if not response:
        return []
    hamiltonian, pairs = problem.hamiltonian, []
    here = {leaf: np.asarray(getattr(hamiltonian, leaf), float) for leaf in LEAVES}
    largest = max(np.abs(x).max(initial=0.0) for x in here.values())
    for *leaves, of_beta in zip(*stacked(response), strict=True):
        if of_beta:
            sides = (replace(problem, betas=problem.betas * (1 + sign * STEP)) for sign in (1, -1))
            pairs.append(_Pair(*sides, 2 * STEP * problem.betas))
        elif np.any(leaves[-1]) and not np.any(here["z_field"]):
            pairs.append(None)
        else:
            energy = max(STEP * min(largest, 1 / problem.betas.max()), LEAST_STEP * largest)
            step = float(energy / max(np.abs(x).max(initial=0.0) for x in leaves))
            sides = (replace(problem, hamiltonian=moved(hamiltonian, leaves, sign * step)) for sign in (1, -1))
            pairs.append(_Pair(*sides, 2 * step))
    return pairs


def _response(
    problem: Typicality, response: Sequence[Parameter], curve: Mapping[str, Any], pairs: Sequence[_Pair | None], records: Sequence[list]
) -> dict[str, Any]:
    """Derivatives of all scalars, observable -> parameter -> mean and error, (n_T, ...); `records` are those of all sides in turn."""
    hamiltonian, betas, rows, rest = problem.hamiltonian, problem.betas, [], iter(records)
    scalars = [name for name in SCALARS if name in curve["mean"]]
    for pair in pairs:
        if pair is None:
            rows.append({name: np.zeros((2, len(betas))) for name in scalars})
            continue
        difference = typical_differences((pair.above, next(rest)), (pair.below, next(rest)))
        rows.append({})
        for name in scalars:
            mean, error = (x / pair.width for x in difference[name])
            rows[-1][name] = np.stack([mean, np.hypot(error, THIRD_ORDER * np.abs(mean).max(initial=0.0))])
    whole = {name: unstacked(response, np.stack([row[name] for row in rows], -1)) for name in scalars}
    found: dict[str, Any] = {name: {p.name: [] for p in response} for name in scalars}
    for t, beta in enumerate(betas):
        here = {name: Estimate(curve["mean"][name][t], curve["error"][name][t]) for name in curve["mean"]}
        of = {name: {p: Estimate(*x[:, t]) for p, x in whole[name].items()} for name in scalars}
        of = response_by_scaling(hamiltonian, known_response(hamiltonian, response, of, here), here, float(beta))
        for name in scalars:
            for p in response:
                found[name][p.name].append(np.stack([np.asarray(x, float) for x in of[name][p.name][:2]]))
    return {name: {p: {"mean": np.stack(x)[:, 0], "error": np.stack(x)[:, 1]} for p, x in of.items()} for name, of in found.items()}


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
    response = {name: {p: Estimate(x["mean"][t], x["error"][t]) for p, x in of.items()} for name, of in curve.get("response", {}).items()}
    return Point(observables, {name: float(values[t]) for name, values in curve["diagnostics"].items()}, {}, response)

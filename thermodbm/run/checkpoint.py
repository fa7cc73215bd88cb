"""Where a run stands, kept in its result file."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import Comm
from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.method import Point, State
from thermodbm.run.config import RunConfig, parse_config
from thermodbm.run.curve_file import program_version, read_fields
from thermodbm.run.hdf5 import Tree, fingerprint, flatten, read_file, read_tree
from thermodbm.run.results import ThermalCurve


class Checkpoint(NamedTuple):
    """All that a run needs to go on as if it had never stopped; random numbers follow from the seed and where it stands."""

    points: Mapping[int, Point]  # finished temperatures by their index in the config, each on its own, before `summarize`
    chunk: int  # calls of `advance` at the present temperature
    state: State  # of the method, on this rank
    seconds: float  # that the run has taken
    seconds_here: float  # at the present temperature


def checkpoint_tree(at: Checkpoint, config: RunConfig, comm: Comm) -> Tree | None:
    """The group /checkpoint of the result file: what all ranks share, and the state of each. On rank 0; the others contribute.

    /checkpoint/sha256 (of all the rest), thermodbm_version, config_sha256, n_ranks, chunk, seconds, seconds_here,
    points/<index of the temperature>/..., states/<rank>/...
    """
    states = comm.gather(_state_tree(at.state))
    if states is None:
        return None
    tree = {
        "thermodbm_version": program_version(),
        "config_sha256": fingerprint({"config": config.text}),
        "n_ranks": comm.size,
        "chunk": at.chunk,
        "seconds": at.seconds,
        "seconds_here": at.seconds_here,
        "points": {f"{index:05d}": _point_tree(point) for index, point in at.points.items()},
        "states": {f"{rank:05d}": state for rank, state in enumerate(states)},
    }
    return {**tree, "sha256": fingerprint(tree)}


def load_checkpoint(path: Path, comm: Comm) -> tuple[RunConfig, Checkpoint | None]:
    """Config and position of the run in a result file; None for the latter if the run is finished.

    What follows is bit for bit what would have followed without interruption, on as many ranks and devices of the same kind.

    Raises:
        InputError: if the file is damaged or holds no checkpoint, or one of another version, config or number of ranks.
    """
    curve, tree = read_file(path, lambda file, size: (ThermalCurve(**read_fields(file, size)), read_tree(file.get("checkpoint", {}), size)))
    config = replace(parse_config(tomllib.loads(curve.config)), output=path)
    if curve.finished:
        return config, None
    where, start_again = str(path), f"Or start again: `thermodbm run CONFIG.toml -o {path} --force`."
    if not tree:
        raise InputError(where, expected="a checkpoint", found="none: the run was driven from Python with an ansatz of its own")
    if tree.pop("sha256", None) != fingerprint(tree):
        raise InputError(where, expected="an intact checkpoint", found="a damaged one", hint=start_again)
    if (written_by := tree["thermodbm_version"]) != program_version():
        hint = f"Results of two versions do not mix: go on with version {written_by}. {start_again}"
        raise InputError(where, expected=f"a checkpoint of thermodbm {program_version()}", found=f"one of version {written_by}", hint=hint)
    if tree["config_sha256"] != fingerprint({"config": config.text}):
        raise InputError(where, expected="the config that the run began with", found="another one in the file", hint=start_again)
    if (n_ranks := tree["n_ranks"]) != comm.size:
        hint = f"Use `mpirun -n {n_ranks} thermodbm resume {path}`." if n_ranks > 1 else "Resume it without mpirun."
        raise InputError(where, expected=f"{n_ranks} rank(s), as before", found=f"{comm.size}", hint=hint)
    points = {int(index): _point(point) for index, point in tree["points"].items()}
    state = _state(tree["states"][f"{comm.rank:05d}"])
    return config, Checkpoint(points, tree["chunk"], state, tree["seconds"], tree["seconds_here"])


JAX = "jax"
"""Key under which an array of JAX lies in a group of its own: it comes back as one, since NumPy may round otherwise in the last digit."""


def _state_tree(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _state_tree(value) for name, value in state.items()}
    return {JAX: np.asarray(state)} if isinstance(state, jax.Array) else state


def _state(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return jnp.asarray(tree[JAX]) if tree.keys() == {JAX} else {name: _state(value) for name, value in tree.items()}


def _point_tree(point: Point) -> Tree:
    arrays = {part: {name: np.asarray(x) for name, x in getattr(point, part).items()} for part in ("diagnostics", "network")}
    response = {name: _estimates(of) for name, of in point.response.items()}
    return {
        "observables": _estimates(point.observables),
        **arrays,
        "response": response,
        "series": {name: np.asarray(x) for name, x in point.series.items()},
    }


def _estimates(estimates: Mapping[str, Estimate]) -> Tree:
    return {name: {f: np.asarray(x) for f, x in estimate._asdict().items() if x is not None} for name, estimate in estimates.items()}


def _point(tree: Mapping[str, Any]) -> Point:
    observables = {name: Estimate(**fields) for name, fields in tree["observables"].items()}
    response = {name: {p: Estimate(**fields) for p, fields in of.items()} for name, of in tree.get("response", {}).items()}
    return Point(observables, tree["diagnostics"], flatten(tree["network"]), response, series=tree.get("series", {}))

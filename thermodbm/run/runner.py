"""Drives a method through the temperatures, chunk by chunk, and keeps what is finished on disk."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, Interrupted, NumericsError
from thermodbm.estimate.levels import kept_series
from thermodbm.estimate.user import check_observables
from thermodbm.evolve.deterministic import deterministic_method
from thermodbm.evolve.exact import exact_method
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import (
    DeterministicOptions,
    ExactOptions,
    LearnedOptions,
    MethodOptions,
    SamplingOptions,
    TypicalOptions,
    VariationalOptions,
)
from thermodbm.models import SpinHamiltonian
from thermodbm.models.parameters import Parameter
from thermodbm.run.checkpoint import Checkpoint, checkpoint_tree
from thermodbm.run.collect import Joined, curve_of, known_points, next_point
from thermodbm.run.config import RunConfig
from thermodbm.run.curve_file import write_curve
from thermodbm.run.hdf5 import remove_litter
from thermodbm.run.networks import cache_folder, kept
from thermodbm.run.progress import Progress
from thermodbm.run.results import ThermalCurve

WRITING = 0.05
"""Share of the time of one process that may go into writing its file after a temperature, which takes as long however short that was."""


def start_jax() -> None:
    """Double precision, a compilation cache, and one device per CPU core, over which samplers share out their chains.

    For entry points, before any array. Compiled programs are kept in the user's cache folder (or JAX_COMPILATION_CACHE_DIR): a second
    run of the same shapes starts at once.
    """
    jax.config.update("jax_enable_x64", True)
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(RuntimeError):  # the backend runs already, as in a notebook that has used JAX before: its devices will do
        jax.config.update("jax_num_cpu_devices", cores or 1)


def make_method(
    hamiltonian: SpinHamiltonian,
    options: MethodOptions,
    sampling: SamplingOptions,
    comm: Comm = SERIAL,
    betas: Sequence[float] = (),
    observables: Mapping[str, Callable[[Any], Any]] | None = None,
    response: Sequence[Parameter] = (),
    second: bool = False,
) -> ThermalMethod:
    """The method that belongs to a set of options; `betas` are those that it will be asked for, `observables` of a user, `response` the
    parameters in which it differentiates, ln Z twice if it is to be `second` derivatives, too.

    What only some methods need, such as Flax, is imported for those alone: it takes as long as a short run.
    """
    check_observables(observables, hamiltonian.n_sites)
    if observables and isinstance(options, LearnedOptions | VariationalOptions):
        hint = "Learned and variational states are measured at their ends by estimators of their own."
        raise InputError("observables", expected="method deterministic, exact or typical", found=type(options).__name__, hint=hint)
    match options:
        case DeterministicOptions():
            own = tuple((observables or {}).items())
            return deterministic_method(hamiltonian, options, sampling, comm, betas, own, response, second)
        case LearnedOptions():
            from thermodbm.evolve.learned import learned_method, train_anew

            return learned_method(hamiltonian, options, sampling, betas, comm, kept if options.cache else train_anew, response)
        case VariationalOptions():
            from thermodbm.evolve.variational import variational_method

            return variational_method(hamiltonian, options, sampling, comm, betas=betas)
        case ExactOptions():
            return exact_method(hamiltonian, options, comm, observables, response, second)
        case TypicalOptions():
            from thermodbm.evolve.typical import typical_method

            return typical_method(hamiltonian, options, betas, comm, observables, response)
    raise InputError("method", expected="options of a method", found=options)


def run(
    config: RunConfig,
    comm: Comm = SERIAL,
    progress: Progress | None = None,
    method: ThermalMethod | None = None,
    *,
    begin: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ThermalCurve:
    """Visit all temperatures; what is known, and where the run stands, rank 0 keeps up to date in `config.output` (if any).

    The file is written after each temperature (after some, where that would take more than `WRITING` of the time of one process), every
    `output.checkpoint_every` seconds, when the run is asked to stop, and when it cannot go on.
    Keys are the same on all ranks: a method folds in its rank where ranks must differ.

    Args:
        method: in place of the one that belongs to `config.method`; such a run cannot be resumed.
        begin: where the run stopped before, from `load_checkpoint`.
        stop: asked after each chunk of work whether to stop; one rank that says so is enough.

    Raises:
        InputError: if the output cannot be written, or the method does not fit the model.
        Interrupted: if `stop` said so before the end.
        NumericsError: if the calculation cannot go on; finished temperatures are in the file.
    """
    resumable = method is None
    progress = progress or Progress()

    @lru_cache(maxsize=1)  # of the sweep at hand
    def method_of(number: int) -> ThermalMethod:
        part = config.sweeps[number]
        return method or make_method(part.hamiltonian, part.method, part.sampling, comm, part.betas, None, part.response, part.second)

    joined: Joined = {}
    at = begin or first_checkpoint(config, method_of)
    began = time.monotonic() - at.seconds
    if config.output is not None and comm.rank == 0:
        remove_litter(config.output)

    def record() -> tuple[float, float]:
        """When it was done, and how long it took."""
        since = time.monotonic()
        if config.output is not None:
            tree = checkpoint_tree(at, config, comm) if resumable and not curve.finished else None
            if comm.rank == 0:
                write_curve(replace(curve, wall_time=at.seconds), config.output, tree)
        return time.monotonic(), time.monotonic() - since

    curve = curve_of(config, method_of, at, joined)
    recorded, took = record()
    with _kept(record, alone=comm.size == 1):
        while not curve.finished:
            at, index, visit, advance = _begin(config, method_of, at)
            beta, since, point = float(config.betas[index]), time.monotonic() - at.seconds_here, None
            progress.start(float(config.temperatures[index]), where(config, index))
            while point is None:
                state, info = advance(jax.random.fold_in(visit, at.chunk), at.state, beta)
                progress.update(info)
                point, now = info.point, time.monotonic()
                if point is None:
                    at = Checkpoint(at.points, at.chunk + 1, state, now - began, now - since)
                else:
                    point = _finished(point, where(config, index) + f"T = {config.temperatures[index]:.6g}", now - since)
                    if config.sections["output"].get("series"):
                        point = point._replace(series=_joined_series(comm.share(kept_series(state["levels"]))))
                    at = Checkpoint({**at.points, index: point}, 0, state, now - began, 0.0)
                    curve = curve_of(config, method_of, at, joined)
                every = config.sections["output"]["checkpoint_every"]
                pause = every if point is None else min(every, took / WRITING) if comm.size == 1 else 0.0
                due = curve.finished or now - recorded > pause
                stopping, due = _any(comm, stop(), due)
                if stopping or due:
                    recorded, took = record()
                if stopping and not curve.finished:
                    _any(comm, True)  # all wait until rank 0 has written
                    raise Interrupted(f"Stopped by a signal. Go on with `thermodbm resume {config.output}`.")
    return curve


@contextmanager
def _kept(record: Callable[[], Any], *, alone: bool) -> Iterator[None]:
    """What was reached is in the file when the calculation cannot go on; of several ranks, which write together, it is there already."""
    try:
        yield
    except NumericsError:
        if alone:
            record()
        raise


def first_checkpoint(config: RunConfig, method_of: Callable[[int], ThermalMethod]) -> Checkpoint:
    """Where a run begins."""
    key = jax.random.key(config.sampling.seed)
    return Checkpoint(known_points(config), 0, method_of(0).init(jax.random.fold_in(key, 0)), 0.0, 0.0)


def _begin(
    config: RunConfig, method_of: Callable[[int], ThermalMethod], at: Checkpoint
) -> tuple[Checkpoint, int, jax.Array, Callable[..., tuple[State, Info]]]:
    """What comes next, with a fresh state where that is another value of a scan: the checkpoint, the number of the temperature, its key and
    the function that advances there."""
    key = jax.random.key(config.sampling.seed)
    number, index, begins = next_point(config, method_of, at.points)
    method = method_of(number)
    if number > 0 and begins and at.chunk == 0:
        at = at._replace(state=method.init(jax.random.fold_in(jax.random.fold_in(key, 0), number)))
    return at, index, jax.random.fold_in(key, len(at.points) + 1), method.advance


def _finished(point: Point, place: str, seconds: float) -> Point:
    """With its wall time. Its numbers are numbers; what is not trusted may be lost altogether, and is marked."""
    if point.diagnostics.get("trusted", 1.0) and not all(np.isfinite(e.mean).all() for e in point.observables.values()):
        raise NumericsError(f"The estimates at {place} are not finite.")
    return point._replace(diagnostics={**point.diagnostics, "wall_time_s": seconds})


def where(config: RunConfig, index: int) -> str:
    """The value of a scan at a temperature, such as "h = 0.5, "."""
    return "".join(f"{name} = {values[index]:.5g}, " for name, values in config.scan.items())


def _joined_series(ranks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Chains of all ranks side by side."""
    first = ranks[0]
    return {name: x if name == "length" else np.concatenate([of[name] for of in ranks], axis=1) for name, x in first.items()}


def _any(comm: Comm, *flags: bool) -> list[bool]:
    """For each flag whether some rank has raised it."""
    return list(flags) if comm.size == 1 else (np.asarray(comm.sum(jnp.asarray(flags, int))) > 0).tolist()

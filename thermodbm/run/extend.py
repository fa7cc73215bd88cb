"""Adding to a finished result: what is added is a run with a file of its own, until it is finished and goes into the result at once."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from thermodbm.comm import Comm
from thermodbm.errors import InputError
from thermodbm.run.checkpoint import Checkpoint, load_checkpoint
from thermodbm.run.combine import merge, part_config, with_temperatures
from thermodbm.run.config import RunConfig
from thermodbm.run.cost import check_machine
from thermodbm.run.curve_file import write_curve
from thermodbm.run.output import check_output, lock
from thermodbm.run.results import ThermalCurve
from thermodbm.run.runner import start_jax


def extend_file(
    path: Path,
    temperatures: Sequence[float],
    samples: int | None,
    target: Path,
    force: bool,
    comm: Comm,
    run: Callable[[RunConfig, Comm, Checkpoint | None], None],
) -> None:
    """Run what is to be added into `<target>.more.h5`, then write the whole to `target` and remove that file.

    Called again after it was stopped, it goes on with what is there. At any moment each of the two files is whole.

    Args:
        target: the same file as `path`, or another one.
        run: runs a config from a checkpoint, or from the beginning.

    Raises:
        InputError: as `part_config`; for an unfinished result, and for another extension that is under way.
    """
    start_jax()
    first = comm.rank == 0
    if first and target != path:
        check_output(target, force)
    with lock(target) if first else nullcontext():
        curve = ThermalCurve.load(path)
        if not curve.finished:
            hint = f"Finish it: `thermodbm resume {path}`."
            raise InputError(str(path), expected="a finished run", found="an unfinished one", hint=hint)
        part = target.with_name(f"{target.stem}.more.h5")
        config = part_config(curve, temperatures, samples, str(part))
        check_machine(config)
        with lock(part) if first else nullcontext():
            _run_part(config, part, comm, run)
        if first:
            more = ThermalCurve.load(part)
            whole = with_temperatures(curve, more) if temperatures else merge([curve, more], [str(path), str(part)])[0]
            write_curve(whole, target)
            part.unlink()


def _run_part(config: RunConfig, part: Path, comm: Comm, run: Callable[[RunConfig, Comm, Checkpoint | None], None]) -> None:
    """From the beginning, or from where it was stopped."""
    if not part.exists():
        run(config, comm, None)
        return
    begun, begin = load_checkpoint(part, comm)
    if {**begun.sections, "output": None} != {**config.sections, "output": None}:
        hint = f"Finish it with the command that began it, or remove {part}."
        raise InputError(str(part), expected="the extension that was asked for", found="another one, which was stopped", hint=hint)
    if begin is not None:
        run(begun, comm, begin)


def numbers(texts: list[str]) -> list[float]:
    """Of "0.5,1.0" and the like."""
    try:
        return [float(part) for text in texts for part in text.split(",")]
    except ValueError:
        raise InputError("--T", expected="numbers, separated by commas", found=" ".join(texts)) from None

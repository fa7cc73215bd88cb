"""The file that a run writes: what may be overwritten, and that one run alone writes it."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thermodbm.errors import InputError
from thermodbm.run.hdf5 import read_file
from thermodbm.run.results import ThermalCurve

try:
    import fcntl
except ImportError:  # a system without advisory locks
    fcntl = None  # type: ignore[assignment]

WHERE = "output.file"


def check_output(path: Path, force: bool = False) -> None:
    """Refuse an output that cannot be written, or that would destroy something.

    Raises:
        InputError: if `path` holds a run that has begun (without `force`), is any other file (always), or cannot be written.
    """
    try:
        occupied = path.exists() and path.stat().st_size > 0
        parent = next(p for p in path.absolute().parents if p.exists())
    except (OSError, ValueError) as error:
        raise InputError(WHERE, expected="the name of a file", found=str(error)) from None
    if path.is_dir():
        raise InputError(WHERE, expected="a file", found=f"the directory {path}")
    try:
        tempfile.TemporaryFile(dir=parent).close()  # permissions alone do not tell of read-only and other odd file systems
    except OSError as error:
        raise InputError(WHERE, expected="a file that can be written", found=f"{path} ({error.strerror} in {parent})") from None
    if not occupied:
        return
    try:
        curve = ThermalCurve.load(path)
        begun = read_file(path, lambda file, size: "checkpoint" in file and bool(file["checkpoint/chunk"][()] > 0))
    except InputError:
        hint = "Only results of thermodbm are overwritten; remove the file or choose another name."
        raise InputError(WHERE, expected="a new file", found=f"{path}, which is no intact result", hint=hint) from None
    if not force and (curve.done.any() or begun):
        state, hint = ("a finished run", "") if curve.finished else ("an unfinished run", "Go on with `thermodbm resume`, or ")
        hint = hint + ("o" if hint else "O") + "verwrite it with --force."
        raise InputError(WHERE, expected="a new file", found=f"{path}, which holds {state}", hint=hint)


@contextmanager
def reserve(path: Path, force: bool = False) -> Iterator[None]:
    """Within, no other run writes `path`, and nothing is there that a run would destroy.

    Raises:
        InputError: as `check_output` and `lock`.
    """
    check_output(path, force)
    made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
    with suppress(OSError):  # the writer will complain
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock(path):
            check_output(path, force)  # another run may have come to its end meanwhile
            yield
    finally:
        with suppress(OSError):  # of a run that never wrote
            for directory in made:
                directory.rmdir()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `.<name>.lock` beside a file. The system frees it when a process dies, however it dies.

    Where there are no such locks (some network file systems) or no file can be made, nothing is held.

    Raises:
        InputError: if another run holds it.
    """
    beside = lock_file(path)
    held = _held(beside) if fcntl else None
    try:
        yield
    finally:
        if held is not None:
            beside.unlink(missing_ok=True)
            os.close(held)


def lock_file(path: Path) -> Path:
    """The file whose lock stands for the lock of `path`, which is itself replaced with every write."""
    return path.with_name(f".{path.name}.lock")


def _held(beside: Path) -> int | None:
    """An open file with the lock on it; None where locks do not work."""
    while True:
        try:
            file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o644)
        except (OSError, ValueError):
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            by = os.pread(file, 200, 0).decode(errors="replace").strip()
            os.close(file)
            found = f"{beside.name.removeprefix('.').removesuffix('.lock')}, which another run is writing" + (f" ({by})" if by else "")
            hint = "Wait for it, stop it, or choose another name."
            raise InputError(WHERE, expected="a file of its own for each run", found=found, hint=hint) from None
        except OSError:  # locks are not supported here
            beside.unlink(missing_ok=True)
            os.close(file)
            return None
        with suppress(OSError):
            if os.fstat(file).st_ino == beside.stat().st_ino:
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return file
        os.close(file)  # its holder has removed it since it was opened: again

"""Trained networks in the user's cache folder: a second run of the same magnet at the same temperatures trains nothing."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thermodbm.errors import InputError

VERSION = 4
"""Of the training: networks of another one are not looked at."""


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/thermodbm, or ~/.cache/thermodbm."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thermodbm"


def kept(description: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays kept under a description, in learned/<its hash>.npz of `cache_folder`; made and kept where there are none.

    Raises:
        InputError: for a file that cannot be read, or that belongs to something else.
    """
    text = json.dumps({"version": VERSION, **description}, sort_keys=True)
    path = cache_folder() / "learned" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    if path.exists():
        return _read(path, text)
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, description=np.array(text), **arrays)
    temporary.replace(path)
    return arrays


def _read(path: Path, text: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _unusable(path, f"a file that cannot be read ({error})") from None
    if str(arrays.pop("description", "")) != text:
        raise _unusable(path, "those of another magnet")
    return arrays


def _unusable(path: Path, found: str) -> InputError:
    hint = "Delete the file, and the networks are trained anew; method.cache = false neither reads nor keeps any."
    return InputError(str(path), expected="trained networks kept by an earlier run", found=found, hint=hint)

"""HDF5 files: written all at once, read without trust, and nested dicts in them."""

import glob
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from thermodbm.errors import InputError

T = TypeVar("T")
Tree = Mapping[str, Any]
"""Nested dicts of arrays, numbers and text."""


def write_file(path: Path, write: Callable[[h5py.File], None]) -> None:
    """Write a file atomically: a reader, or a kill at any moment, finds the old file or the new one.

    The image is made in memory, so that a full disk is an OSError of a plain write; it is written beside `path`, forced to disk, renamed.

    Raises:
        InputError: if it cannot be written; what stood there before still does.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        write(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(memory.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        hint = f"{path} is as it was before." if path.exists() else ""
        raise InputError("output.file", expected="a file that can be written", found=f"{path} ({error.strerror})", hint=hint) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_litter(path: Path) -> None:
    """Remove what a kill in the middle of `write_file` has left."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def read_file(path: Path, read: Callable[[h5py.File, int], T]) -> T:
    """What `read(file, size in bytes)` makes of a file; the bytes are read at once, so that a writer may replace it meanwhile.

    Raises:
        InputError: if the file is missing, truncated or corrupt, or `read` raises anything else.
    """
    expected = "a thermodbm result file"
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(str(path), expected=expected, found=getattr(error, "strerror", None) or str(error)) from None
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return read(file, len(content))
    except InputError as error:
        raise InputError(f"{path}: {error.where}", expected=error.expected, found=error.found, hint=error.hint) from None
    except Exception as error:  # h5py raises almost anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(str(path), expected=expected, found=f"a foreign or damaged file ({reason[:200]})") from None


def read_array(dataset: h5py.Dataset, size: int) -> np.ndarray:
    """A dataset, unless it claims to be larger than the file."""
    if dataset.nbytes > size:
        raise ValueError(f"{dataset.name} claims to be larger than the file")
    return dataset[()]


def write_tree(group: h5py.Group, tree: Tree) -> None:
    """Dicts as groups, arrays as datasets; Python's own numbers and text as datasets marked by an attribute, to come back as they were.

    Raises:
        TypeError: for anything else.
    """
    for name, value in tree.items():
        if isinstance(value, Mapping):
            write_tree(group.create_group(name, track_order=True), value)
        elif isinstance(value, str) or type(value) in (bool, int, float):
            group[name] = value
            group[name].attrs["python"] = True
        elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            group[name] = value
        else:
            raise TypeError(f"{group.name}/{name}: {type(value).__name__} cannot be written")


def read_tree(group: h5py.Group, size: int) -> dict[str, Any]:
    """The inverse of `write_tree`."""
    tree: dict[str, Any] = {}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            tree[name] = read_tree(item, size)
            continue
        value = read_array(item, size)
        if "python" in item.attrs:
            value = value.decode() if isinstance(value, bytes) else value.item()
        elif value.dtype.kind not in "biufc":
            raise ValueError(f"{item.name} should hold numbers")
        tree[name] = value
    return tree


def write_fit(group: h5py.Group, tree: Tree) -> None:
    """A tree whose own numbers and text, but not those of its branches, are attributes."""
    group.attrs.update({name: int(x) if type(x) is bool else x for name, x in tree.items() if isinstance(x, bool | int | float | str)})
    write_tree(group, {name: x for name, x in tree.items() if not isinstance(x, bool | int | float | str)})


def read_fit(group: h5py.Group, size: int) -> dict[str, Any]:
    """The inverse of `write_fit`."""
    return {name: x.item() if hasattr(x, "item") else x for name, x in group.attrs.items()} | read_tree(group, size)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """The leaves by their paths; empty dicts vanish.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": 2})
    {'a/b': 1, 'd': 2}
    """
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def fingerprint(tree: Tree) -> str:
    """SHA-256 over all names, types, shapes and bytes: the same before and after a tree has been on disk."""
    digest = hashlib.sha256()
    for name, value in sorted(flatten(tree).items()):
        array = np.asarray(value)
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

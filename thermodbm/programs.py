"""Programs kept between processes: what JAX would trace and lower anew at every start is read from a file.

JAX's own cache keeps what its compiler makes of a program, and must have the program to find that. Here the program is found by what it is
made of: the structure it depends on, the shapes of its arguments, and the sources of this package.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

_folders: list[Path] = []
"""Where programs are kept; empty where they are not."""


@contextmanager
def kept_beside_jax() -> Iterator[None]:
    """Meanwhile programs are kept in a folder of JAX's cache, if it has one on this machine. For commands, whose code is that of the files:
    not where someone may try another."""
    cache = jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir
    before, _folders[:] = _folders[:], [Path(cache) / "programs"] if cache and "://" not in cache else []
    try:
        yield
    finally:
        _folders[:] = before


def kept(function: Callable[..., Any], about: Hashable | None, options: dict[str, int | bool] | None) -> Callable[..., Any]:
    """`jax.jit(function, compiler_options=options)` for arguments of any structure and results in dicts, lists and tuples; if programs are
    kept, from its file where there is one.

    Args:
        about: what the function is made of, in tuples, dataclasses, numbers and names, couplings and shapes of arguments apart; None: it
            cannot be told, and the program is not kept.
    """
    if about is None or not _folders:
        return jax.jit(function, compiler_options=options)
    folder, programs = _folders[-1], {}

    def call(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        leaves = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in leaves]
        form = tree, tuple((x.shape, x.dtype) for x in leaves)
        if form not in programs:
            flat = jax.jit(lambda leaves: function(*jax.tree.unflatten(tree, leaves)))
            name = hashlib.sha256(f"{_version()} {text_of(about)} {form}".encode()).hexdigest()[:32]
            programs[form] = jax.jit(_exported(flat, leaves, folder / f"{name}.program"), compiler_options=options)
        return programs[form](leaves)

    return call


def _exported(flat: Callable, leaves: list[jax.Array], path: Path) -> Callable:
    """The program for these arguments: read, or made and written; or the function itself, of which none can be written."""
    try:
        return export.deserialize(bytearray(path.read_bytes())).call
    except Exception:  # there is none, or it is damaged, in whatever way
        pass
    try:
        made = export.export(flat)(leaves)
        contents = made.serialize()
    except (NotImplementedError, ValueError):  # it calls what is not the same in every process
        return flat.__wrapped__
    with suppress(OSError):  # of a folder that is full or not ours
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:  # other ranks may write the same
            file.write(contents)
        Path(file.name).replace(path)
    return made.call


def text_of(about: Any) -> str:
    """All that a structure holds.

    Raises:
        TypeError: for parts that are not known to say all they hold.
    """
    if about is None or isinstance(about, bool | int | float | str):
        return repr(about)
    if isinstance(about, tuple):
        return f"{type(about).__name__}({', '.join(map(text_of, about))})"
    if is_dataclass(about):
        return f"{type(about).__name__}({', '.join(text_of(getattr(about, field.name)) for field in fields(about))})"
    raise TypeError(f"{type(about).__name__} cannot be described")


@lru_cache
def _version() -> str:
    """Of the code, of JAX and its settings, and of the devices."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    settings = jax.config.jax_enable_x64, jax.config.jax_default_prng_impl, jax.config.jax_threefry_partitionable
    devices = jax.default_backend(), len(jax.local_devices()), jax.process_count()
    return f"{sources.hexdigest()} {jax.__version__} {settings} {devices}"

"""How many threads work: the cores at hand, and linear algebra in one thread."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np


def cores() -> int:
    """CPU cores that this process may use."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """The OpenBLAS of NumPy and SciPy (of their wheels; no other) in one thread: for small matrices threads that spin cost ten times what
    they bring, more so where other processes want the cores."""
    found = list(_libraries())
    before = [get() for get, _ in found]
    for _, put in found:
        put(1)
    try:
        yield
    finally:
        for (_, put), n in zip(found, before, strict=True):
            put(n)


def _libraries() -> Iterator[tuple[Callable[[], int], Callable[[int], None]]]:
    from scipy.linalg import _fblas

    for path, suffix in ((np.linalg._umath_linalg.__file__, "64_"), (_fblas.__file__, "")):
        library = ctypes.CDLL(path)
        try:
            yield getattr(library, f"scipy_openblas_get_num_threads{suffix}"), getattr(library, f"scipy_openblas_set_num_threads{suffix}")
        except AttributeError:
            continue

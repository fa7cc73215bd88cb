"""Observables of a user on the samples of a ring: functions of configurations that JAX can trace."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.observables import OBSERVABLES

Function = Callable[[Any], Any]
Functions = tuple[tuple[str, Function], ...]
"""Names and functions of spins (n, n_sites) of +-1 that give (n,) or (n, ...)."""


def check_observables(observables: Mapping[str, Function] | None, n_sites: int) -> dict[str, tuple[int, ...]]:
    """The shape of each, () for a number, from what it makes of two configurations.

    Raises:
        InputError: for a name that is taken, and for functions that fail or give no number for each configuration.
    """
    shapes = {}
    for name, function in (observables or {}).items():
        where = f"observables[{name!r}]"
        if not (isinstance(name, str) and name.isidentifier()) or name in OBSERVABLES or name in ("sign", "slope"):
            raise InputError(where, expected="a name of its own, of letters, digits and underscores", found=name)
        try:
            values = np.asarray(function(np.array([[1] * n_sites, [-1] * n_sites], np.int8)), float)
        except Exception as error:
            raise InputError(where, expected="a function of spins (n, n_sites)", found=f"{type(error).__name__}: {error}") from None
        if values.shape[:1] != (2,):
            raise InputError(
                where, expected="one value for each of the n configurations, (n, ...)", found=f"shape {values.shape} for n = 2"
            )
        shapes[name] = values.shape[1:]
    return shapes


def on_layers(functions: Functions, spins: jax.Array) -> dict[str, jax.Array]:
    """Averages over layers, (n_chains, k) each, of configurations +-1 (n_chains, n_layers, n_sites).

    Raises:
        InputError: for a function that JAX cannot trace.
    """
    found = {}
    for name, function in functions:
        try:
            values = jnp.asarray(function(spins.reshape(-1, spins.shape[-1])), float)
        except jax.errors.JAXTypeError:
            hint = "Use operators and jax.numpy instead of numpy, and no branches on values."
            raise InputError(f"observables[{name!r}]", expected="a function that JAX can trace", found="another", hint=hint) from None
        found[name] = values.reshape(*spins.shape[:2], -1).mean(1)
    return found

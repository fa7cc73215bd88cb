"""What the runner knows of a method: how to start it and how to make it advance towards one temperature."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from thermodbm.estimate.statistics import Estimate

State = dict[str, Any]
"""Nested dicts (string keys) of arrays and numbers: all that must be kept to go on, ready to be written to a checkpoint as it is."""


class Point(NamedTuple):
    """What a method knows about one temperature when it is done with it."""

    observables: Mapping[str, Estimate]  # per site, names as in the contract
    diagnostics: Mapping[str, float | np.ndarray]  # names as in the contract: average_sign, acceptance, n_slices, ...
    network: Mapping[str, np.ndarray]  # the weights, enough to rebuild the state
    response: Mapping[str, Mapping[str, Estimate]] = MappingProxyType({})  # observable -> parameter -> derivative
    covariance: Mapping[str, np.ndarray] = MappingProxyType({})  # "a/b" -> of a here with b at all temperatures that were joined
    series: Mapping[str, np.ndarray] = MappingProxyType({})  # of chains, where they are kept, see `levels.kept_series`


class Info(NamedTuple):
    """How far a method has come at the present temperature."""

    fraction: float  # of the work at this temperature, 0 to 1, for the progress bar
    message: str  # a few words for the progress bar, such as "error 2.1e-4"
    point: Point | None  # the result, once it is there: the runner then goes on to the next temperature


class ThermalMethod(NamedTuple):
    """A pair of functions, pure in all that matters: the same key and state give the same new state.

    `init(key)` gives the state before the first temperature. `advance(key, state, beta)` does a few seconds of work (one chunk of
    sweeps, one integration step) towards inverse temperature `beta` and returns the new state and `Info`; it is called again with
    the state it returned, and a fresh key, until `Info.point` is there. State is carried from one temperature to the next, which
    come in the order of `order(betas)`.

    Raises:
        NumericsError: from `advance`, when it cannot go on.
    """

    init: Callable[[jax.Array], State]
    advance: Callable[[jax.Array, State, float], tuple[State, Info]]
    order: Callable[[np.ndarray], np.ndarray] = lambda betas: np.argsort(betas, kind="stable")  # from hot to cold
    summarize: Callable[[list[Point], np.ndarray], list[Point]] = lambda points, betas: points  # joint estimates over all temperatures

"""The tables of a config file: their keys, types, ranges and defaults, which come from the options and constructors themselves."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, create_model

from thermodbm.evolve.options import (
    DeterministicOptions,
    ExactOptions,
    LearnedOptions,
    SamplingOptions,
    TypicalOptions,
    VariationalOptions,
)
from thermodbm.models import heisenberg, j1j2, transverse_field_ising, xxz
from thermodbm.models.lattice import KINDS
from thermodbm.models.parameters import GROUPED

MAX_SITES = 2**17
MAX_TEMPERATURES = 10_000

METHODS: dict[str, type] = {
    "deterministic": DeterministicOptions,
    "learned": LearnedOptions,
    "variational": VariationalOptions,
    "exact": ExactOptions,
    "typical": TypicalOptions,
}
MODELS = {"tfim": transverse_field_ising, "xxz": xxz, "heisenberg": heisenberg, "j1j2": j1j2}


class Section(BaseModel):
    """A table of the config. Strict: a bool is no number, "8" is no integer, and no key is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class Regular(Section):
    kind: Literal[tuple(k for k in KINDS if k != "graph")]
    extent: tuple[Annotated[int, Field(ge=1, le=MAX_SITES)], ...]
    periodic: bool | tuple[bool, ...] = True


class Graph(Section):
    kind: Literal["graph"]
    n_sites: Annotated[int, Field(ge=1, le=MAX_SITES)]
    edges: tuple[tuple[int | str, ...], ...]  # two sites, and perhaps the name of a group


class Range(Section):
    start: PositiveFloat
    stop: PositiveFloat
    num: Annotated[int, Field(ge=1, le=MAX_TEMPERATURES)]
    spacing: Literal["log", "linear"] = "log"

    def values(self) -> np.ndarray:
        return (np.geomspace if self.spacing == "log" else np.linspace)(self.start, self.stop, self.num)


# infinite temperature is one of them: T = inf, beta = 0
Temperatures = tuple[Annotated[float, Field(gt=0, allow_inf_nan=True)], ...]
Betas = tuple[NonNegativeFloat, ...]


class Temperature(Section):
    T: Annotated[Temperatures, Field(min_length=1, max_length=MAX_TEMPERATURES)] | Range | None = None
    beta: Annotated[Betas, Field(min_length=1, max_length=MAX_TEMPERATURES)] | Range | None = None


class Response(Section):
    parameters: Annotated[tuple[str, ...], Field(min_length=1)]
    second: bool | None = None  # second derivatives of ln Z too; no key of a stored config unless asked for


class FitParameter(Section):
    start: float
    bounds: tuple[float, float] | None = None
    prior: tuple[float, PositiveFloat] | None = None  # mean and standard deviation


class FitUnits(Section):
    temperature: Literal["K", "J"] | None = None
    coupling: Literal["K", "meV", "1/cm", "J"] | None = None
    susceptibility: Literal["emu/mol", "m^3/mol", "reduced"] | None = None
    specific_heat: Literal["J/mol/K", "R"] | None = None
    magnetization: Literal["mu_B", "emu/mol", "reduced"] | None = None
    field: Literal["T", "reduced"] | None = None


class FitSection(Section):
    parameters: Annotated[dict[str, FitParameter], Field(min_length=1)]
    units: FitUnits = FitUnits()
    fixed: dict[str, float] = {}  # backgrounds and g that are known
    profile: bool = False  # besides errors, the interval of each parameter in which chi^2 rises by one


class Output(Section):
    file: Annotated[str, Field(min_length=1)] | None = None
    checkpoint_every: PositiveFloat = 300.0  # seconds
    series: bool | None = None  # keep the series of the chains; no key of a stored config unless asked for


def _options_section(kind: str | None, options: type) -> type[Section]:
    """The section whose keys, types, ranges and defaults are the fields of an options dataclass."""
    hints = get_type_hints(options, include_extras=True)
    keys = {f.name: (hints[f.name], f.default) for f in fields(options)}
    return create_model(options.__name__, __base__=Section, **({"kind": (Literal[kind], kind)} if kind else {}), **keys)


def _model_section(kind: str, constructor: Any) -> type[Section]:
    """The section whose keys and defaults are the couplings that a Hamiltonian constructor takes."""
    couplings = {n: p.default for n, p in inspect.signature(constructor).parameters.items() if n != "lattice"}
    by_bond = float | tuple[float, ...]
    types = {name: by_bond | dict[str, float] if name in GROUPED else by_bond for name in couplings}
    keys = {name: (types[name] if default is not None else types[name] | None, default) for name, default in couplings.items()}
    return create_model(kind, __base__=Section, kind=(Literal[kind], ...), **keys)


_MODEL_SECTIONS = {kind: _model_section(kind, constructor) for kind, constructor in MODELS.items()}
_METHOD_SECTIONS = {kind: _options_section(kind, options) for kind, options in METHODS.items()}
_SAMPLING_SECTION = _options_section(None, SamplingOptions)


def _one_of(sections: Mapping[str, type[Section]]) -> Any:
    first, *rest = sections.values()
    union = first
    for section in rest:
        union |= section
    return Annotated[union, Field(discriminator="kind")]


Document = create_model(
    "Document",
    __base__=Section,
    lattice=(Annotated[Regular | Graph, Field(discriminator="kind")], ...),
    model=(_one_of(_MODEL_SECTIONS), ...),
    method=(_one_of(_METHOD_SECTIONS), ...),
    temperature=(Temperature, ...),
    sampling=(_SAMPLING_SECTION, ...),
    output=(Output, ...),
    response=(Response | None, None),
    fit=(FitSection | None, None),
    scan=(None, None),  # taken apart before: run/scan.py
)

BY_NAME = {
    "": Document,
    **dict.fromkeys(KINDS, Regular),
    "graph": Graph,
    **_MODEL_SECTIONS,
    **_METHOD_SECTIONS,
    "sampling": _SAMPLING_SECTION,
    "temperature": Temperature,
    "Range": Range,
    "output": Output,
    "response": Response,
    "fit": FitSection,
    "parameters": FitParameter,
    "units": FitUnits,
}
"""Sections by the names under which they stand in the location of a pydantic error."""

"""From a TOML file (or the same nested dicts from Python) to a checked, frozen `RunConfig`: no run starts from a doubtful input."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from pydantic import ValidationError

from thermodbm.errors import InputError
from thermodbm.evolve.options import DeterministicOptions, LearnedOptions, MethodOptions, SamplingOptions, VariationalOptions
from thermodbm.models import Lattice, SpinHamiltonian, graph, make_lattice
from thermodbm.models.hamiltonian import no_field_along_x
from thermodbm.models.parameters import Parameter, parameters
from thermodbm.run.bond_table import with_bonds
from thermodbm.run.complaints import input_error
from thermodbm.run.scan import scanned
from thermodbm.run.sections import BY_NAME, MAX_SITES, METHODS, MODELS, Document, FitSection, Range, Temperature


@dataclass(frozen=True, eq=False)
class RunConfig:
    """All that a run depends on, checked and resolved: every default is filled in."""

    hamiltonian: SpinHamiltonian
    temperatures: np.ndarray  # (n_T,), in the order asked for
    betas: np.ndarray  # (n_T,)
    method: MethodOptions
    sampling: SamplingOptions
    output: Path | None
    sections: Mapping[str, Any]  # plain tables of numbers, strings and tuples
    response: tuple[Parameter, ...] = ()  # in which all is differentiated
    second: bool = False  # whether ln Z is differentiated twice
    fit: FitSection | None = None  # what `thermodbm fit` varies; runs look past it
    scan: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> (n_T,) value at each of the temperatures
    parts: tuple["RunConfig", ...] = ()  # of a scan, one for each value; all else above but temperatures and betas is of the first

    @property
    def sweeps(self) -> tuple["RunConfig", ...]:
        """One config for each value of a scan, or this one; their temperatures follow each other."""
        return self.parts or (self,)

    @property
    def method_kind(self) -> str:
        """deterministic, learned, variational, exact or typical."""
        return self.sections["method"]["kind"]

    @cached_property
    def text(self) -> str:
        """The resolved config as TOML; keys that are left to the method do not appear."""
        return tomli_w.dumps({name: table for name in self.sections if (table := _without_none(self.sections[name]))})


def load_config(path: Path, settings: Sequence[str] = (), output: Path | None = None) -> RunConfig:
    """Read a TOML file, apply `KEY=VALUE` settings, check everything.

    Args:
        settings: such as "model.J=0.5"; the value is read as TOML, and as a string where it is none.
        output: takes the place of output.file. Both count from the current directory; the default is the config with the suffix .h5,
            beside the config.

    Raises:
        InputError: for anything wrong, naming the key, and for keys that the method ignores.
    """
    data = read_tables(path, settings)
    if output is not None:
        table = data.setdefault("output", {})
        data["output"] = {**(table if isinstance(table, dict) else {}), "file": str(output)}
    elif isinstance(table := data.setdefault("output", {}), dict):
        table.setdefault("file", str(path.with_suffix(".h5")))
    return refuse_ignored(parse_config(data), data)


def read_tables(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a TOML file with `KEY=VALUE` settings applied, unchecked.

    Raises:
        InputError: for a file that is none.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise InputError(str(path), expected="a readable TOML file", found=error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), expected="valid TOML", found=f"an error ({error})") from None
    for setting in settings:
        _apply(data, setting)
    return with_bonds(data, path.parent)


_CHAINS = ("n_chains", "n_samples", "target_error", "n_thermal")
IGNORED = {
    "deterministic": {},
    "learned": {},
    "variational": {
        "sampling.n_chains": "method.n_walkers says how many configurations are carried along.",
        "sampling.n_thermal": "Walkers are carried from step to step, and discard nothing.",
    },
    "exact": {f"sampling.{key}": "Nothing is sampled." for key in _CHAINS},
    "typical": {f"sampling.{key}": "method.n_vectors says how many random vectors there are." for key in _CHAINS},
}
"""Keys that a method does not look at -> what to do instead. (The seed is kept with any result.)"""


def refuse_ignored(config: RunConfig, data: Mapping[str, Any]) -> RunConfig:
    """The config, unless the tables from which it was made set a key that the method ignores to anything but its default.

    Stored configs of older versions, in which such keys may stand, are not asked.

    Raises:
        InputError: naming the key, and what to use instead.
    """
    defaults = {
        "sampling": asdict(SamplingOptions()),
        "method": {f.name: f.default for f in fields(config.method)},
    }
    ignored = dict(IGNORED[config.method_kind])
    if config.sections["output"]["series"] and config.method_kind not in ("deterministic", "learned"):
        hint = "Only deterministic and learned runs have chains whose series can be kept."
        expected = f"no such key with method.kind = {config.method_kind}"
        raise InputError("output.series", expected=expected, found=True, hint=hint)
    if isinstance(config.method, VariationalOptions):
        ignored |= _ignored_by_ansatz(config.method)
    for where, hint in ignored.items():
        table, key = where.split(".")
        given = (data.get(table) or {}).get(key)
        if given is not None and given != defaults[table][key]:
            expected = f"no such key with method.kind = {config.method_kind}, which ignores it"
            raise InputError(where, expected=expected, found=given, hint=hint)
    return config


def _ignored_by_ansatz(options: VariationalOptions) -> dict[str, str]:
    ignored = {}
    if options.ansatz != "dbm":
        ignored["method.layers"] = 'Only ansatz = "dbm" has layers.'
    if options.ansatz == "jastrow":
        ignored["method.alpha"] = 'ansatz = "jastrow" has no hidden units.'
    if options.solver in ("cg", "minsr"):
        ignored["method.cutoff"] = "This solver shifts S instead: method.diag_shift."
    return ignored


def parse_config(data: Mapping[str, Any]) -> RunConfig:
    """Check and resolve nested tables as they come from TOML; a pure function, the same on every machine.

    Raises:
        InputError: for anything wrong, naming the key.
    """
    if data.get("scan") is not None:
        return scanned(data, parse_config)
    data = dict(data)
    for optional in ("method", "sampling", "output"):
        data.setdefault(optional, {})
    if isinstance(data["method"], Mapping):
        data["method"] = {"kind": "deterministic", **data["method"]}
    try:
        data = _tuples(data)
        document = Document.model_validate(data)
    except ValidationError as error:
        raise input_error(error, data, BY_NAME) from None
    except RecursionError:
        raise InputError("config", expected="tables and lists a few levels deep", found="hundreds of levels") from None
    sections = document.model_dump()
    hamiltonian = _hamiltonian(sections)
    temperatures, betas = _temperatures(document.temperature)
    del sections["fit"], sections["scan"]
    response = _response(hamiltonian, document.method.kind, sections)
    kind = "beta" if document.temperature.T is None else "T"
    sections["temperature"] = {kind: tuple((betas if kind == "beta" else temperatures).tolist())}
    method = METHODS[document.method.kind](**{k: v for k, v in sections["method"].items() if k != "kind"})
    sampling = SamplingOptions(**sections["sampling"])
    ignored = {where.partition(".")[2] for where in IGNORED[document.method.kind]}
    sections["sampling"] = {k: v for k, v in sections["sampling"].items() if k not in ignored}
    if hamiltonian.along_x and document.method.kind != "exact":
        raise no_field_along_x(f"method.kind = {document.method.kind}")
    if isinstance(method, DeterministicOptions | LearnedOptions):
        _check_sampler(hamiltonian, method, response)
    if isinstance(method, VariationalOptions):
        from thermodbm.evolve.ansatz import check_ansatz  # with Flax, which others can do without

        check_ansatz(hamiltonian, method)
    output = None if document.output.file is None else Path(document.output.file)
    second = bool(response and document.response.second)
    return RunConfig(hamiltonian, temperatures, betas, method, sampling, output, sections, response, second, document.fit)


NO_RESPONSE = "The weights of a trial state depend on the couplings through its whole evolution, which is not differentiated"
"""Why the variational method has no derivatives."""
NO_SECOND = {
    "learned": "The norm of a trained network is no partition function.",
    "typical": "Differences of differences between random vectors are noise.",
}


def _response(hamiltonian: SpinHamiltonian, method: str, sections: dict[str, Any]) -> tuple[Parameter, ...]:
    """The parameters of [response], which leaves the tables where nothing is asked for."""
    if sections["response"] is None:
        del sections["response"]
        return ()
    if method == "variational":
        hint = f'{NO_RESPONSE}. Use method.kind = "deterministic", "learned", "typical" or "exact".'
        raise InputError("response", expected=f"no derivatives with method.kind = {method}", found="[response]", hint=hint)
    if sections["response"]["second"] and method in NO_SECOND:
        expected, hint = f"no second derivatives with method.kind = {method}", NO_SECOND[method]
        raise InputError("response.second", expected=expected, found="true", hint=hint)
    return tuple(parameters(hamiltonian, sections["response"]["parameters"]))


def plain_options(where: str, options: Any) -> dict[str, Any]:
    """Options, a dataclass or a mapping, as they would stand in a config."""
    if not (is_dataclass(options) or isinstance(options, Mapping)):
        raise InputError(where, expected="options or a mapping of them", found=options)
    return _without_none(asdict(options) if is_dataclass(options) else options)


def _apply(data: dict[str, Any], setting: str) -> None:
    """Set one dotted key in nested tables."""
    key, equals, value = setting.partition("=")
    *tables, last = [part.strip() for part in key.split(".")]
    if not equals or not all((*tables, last)):
        raise InputError("--set", expected="KEY=VALUE with a dotted key, such as model.J=0.5", found=setting)
    for depth, name in enumerate(tables, start=1):
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise InputError("--set", expected=f"a key inside a table, but {'.'.join(tables[:depth])} is a value", found=setting)
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        parsed = {}
    data[last] = parsed["value"] if set(parsed) == {"value"} else value.strip()


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down: a checked config is immutable."""
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in table.items() if v is not None}


def _lattice(table: Mapping[str, Any]) -> Lattice:
    if table["kind"] == "graph":
        return graph(table["n_sites"], table["edges"])
    extent = table["extent"]
    if math.prod(extent) > MAX_SITES:  # before anything of that size is made
        raise InputError("lattice.extent", expected=f"a lattice of at most {MAX_SITES} sites", found=list(extent))
    return make_lattice(table["kind"], extent, table["periodic"])


def _hamiltonian(sections: Mapping[str, Any]) -> SpinHamiltonian:
    lattice = _lattice(sections["lattice"])
    couplings = dict(sections["model"])
    return MODELS[couplings.pop("kind")](lattice, **couplings)


def _temperatures(section: Temperature) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures and inverse temperatures in the order asked for, (n_T,) each."""
    if (section.T is None) == (section.beta is None):
        found = "neither" if section.T is None else "both"
        raise InputError("temperature", expected="either T or beta", found=found)
    name, grid = ("beta", section.beta) if section.T is None else ("T", section.T)
    values = grid.values() if isinstance(grid, Range) else np.array(grid, float)
    with np.errstate(over="ignore", divide="ignore"):
        inverse = 1 / values
    betas = values if name == "beta" else inverse
    if not np.isfinite(betas).all() or np.isinf(inverse[values > 0]).any():
        raise InputError(f"temperature.{name}", expected="values whose inverse is finite", found=float(values[values > 0].min()))
    ordered = np.argsort(betas, kind="stable")
    if (repeated := np.flatnonzero(np.diff(betas[ordered]) <= 1e-9 * betas[ordered][1:])).size:
        found = f"{float(values[ordered[repeated[0]]])} more than once"
        raise InputError(f"temperature.{name}", expected="each value once", found=found)
    return (inverse, values) if name == "beta" else (values, inverse)


def _check_sampler(hamiltonian: SpinHamiltonian, method: DeterministicOptions | LearnedOptions, response: tuple[Parameter, ...]) -> None:
    sampler = method.sampler
    if sampler is None:
        return
    if sampler == "series":
        from thermodbm.evolve.deterministic import check_series  # with the samplers, which others can do without

        check_series(hamiltonian, method, response)
        return
    fitting = ("loop",) if hamiltonian.conserves_sz else ("mixed", "cluster", "column", "gibbs")
    if sampler not in fitting:
        raise InputError("method.sampler", expected=f"{' | '.join(fitting)} for model {hamiltonian.model}", found=sampler)

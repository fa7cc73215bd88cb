"""The page of the config, made from the options themselves, and docstrings of plain text made fit for reStructuredText."""

import ast
import inspect
from dataclasses import MISSING, fields
from pathlib import Path

from thermodbm.evolve import options
from thermodbm.evolve.options import SamplingOptions
from thermodbm.models import make_lattice
from thermodbm.models.lattice import KINDS
from thermodbm.run.sections import METHODS, MODELS


def config_reference() -> str:
    """Every table of a config with keys, types, defaults and meanings."""
    written = _documentation(Path(options.__file__).read_text())
    parts = [
        "# Config reference",
        "A run is a TOML file; unknown keys are errors. This page is made from the options of the program. "
        "`thermodbm validate CONFIG.toml` prints a config with every default filled in.",
        "## `[lattice]`",
        "`kind` is `chain`, `dimer_chain`, `ladder`, `square`, `triangular`, `honeycomb`, `kagome`, `cubic`, with `extent` (unit "
        "cells along each axis; rungs of a ladder, which has two legs) and `periodic` (one flag or one per axis, default `true`); or "
        "`graph`, with `n_sites` and `edges`, a list of pairs of sites with or without the name of a group as a third entry. In place of "
        'edges `bonds = "bonds.csv"`, counted from the folder of the config, is a table with columns `i`, `j` and any of `J`, '
        "`Jz`, `group`; a result holds its content, not its name.",
        "Bonds between nearest neighbours have groups:",
        _groups(),
        "## `[model]`",
        "`kind` and couplings, each one number or one for every bond or site; `J`, `J1` and `delta` also a table of one for each group of "
        "bonds, such as `J = { leg = 1.0, rung = 0.5 }`:",
        *_models(),
        "## `[temperature]`",
        "Either `T` or `beta`: a list, or a table of `start`, `stop`, `num` and `spacing` (`log`, the default, or `linear`). `T = inf` and "
        "`beta = 0` are answered by what is known there.",
        "## `[scan]`",
        "One field or coupling with a list of values, or `start`, `stop` and `num`: `h = [0.0, 0.5]`, `J.rung = { start = 0.5, "
        "stop = 1.5, num = 11 }`. All temperatures are visited at each of them; what is scanned does not stand in `[model]`.",
        "## `[sampling]`",
        *_options(SamplingOptions, written),
    ]
    for kind, cls in METHODS.items():
        parts += [f'## `[method]`, `kind = "{kind}"`', written[cls.__name__, ""].partition(": ")[2], *_options(cls, written)]
    parts += [
        "## `[response]`",
        "`parameters`: names of couplings, `h` and `beta`, in which averages are differentiated; `second`: second derivatives of ln Z too "
        "(default `false`). Methods `deterministic` and `exact`.",
        "## `[output]`",
        "`file`: the result, from the current directory; without it beside the config, with the suffix `.h5`. `checkpoint_every`: seconds "
        "between two checkpoints, 300 by default. `series`: keep the series of the chains (deterministic, learned; default `false`).",
    ]
    return "\n\n".join(parts) + "\n"


def _groups() -> str:
    meaning = {"dimer_chain": " (in a cell of two sites, and between cells)"}
    meaning |= dict.fromkeys(("triangular", "honeycomb", "kagome"), " (at 0, 60 and 120 degrees to x)")
    lines = []
    for kind in KINDS:
        if kind == "graph":
            lines.append("- `graph`: those of its edges.")
        else:
            groups = make_lattice(kind, (2,) * (3 if kind == "cubic" else 1 if kind in ("chain", "dimer_chain", "ladder") else 2)).groups
            lines.append(f"- `{kind}`: {', '.join(f'`{group}`' for group in groups)}{meaning.get(kind, '')}.")
    return "\n".join(lines)


def _models() -> list[str]:
    lines = []
    for kind, constructor in MODELS.items():
        couplings = [p for p in inspect.signature(constructor).parameters.values() if p.name != "lattice"]
        keys = ", ".join(f"`{p.name}` ({p.default})" for p in couplings)
        lines.append(f"- `{kind}`: {keys}. {inspect.getdoc(constructor).splitlines()[0]}")
    return ["\n".join(lines).replace("<", "&lt;").replace("*", "\\*")]


def _options(cls: type, written: dict[tuple[str, str], str]) -> list[str]:
    hints = {
        name: annotation for (owner, name), annotation in _annotations(Path(options.__file__).read_text()).items() if owner == cls.__name__
    }
    found = []
    for field in fields(cls):
        default = "none" if field.default in (None, MISSING) else repr(field.default).replace("True", "true").replace("False", "false")
        found.append(
            f"`{field.name}` (`{hints[field.name]}`, default `{default}`)\n: {written[cls.__name__, field.name]}".replace("\n: ", " — ")
        )
    return ["\n".join(f"- {text}" for text in found)] if found else ["No keys."]


def _documentation(source: str) -> dict[tuple[str, str], str]:
    """(class, field) -> the text below the field; (class, "") -> that of the class."""
    found = {}
    for cls in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        found[cls.name, ""] = " ".join((ast.get_docstring(cls) or "").split())
        for field, text in zip(cls.body, cls.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[cls.name, field.target.id] = " ".join(text.value.value.split())
    return found


def _annotations(source: str) -> dict[tuple[str, str], str]:
    found = {}
    for cls in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for field in (node for node in cls.body if isinstance(node, ast.AnnAssign)):
            found[cls.name, field.target.id] = ast.unparse(field.annotation).replace("Annotated[", "").replace("Literal", "")
    return {key: text.split(", Field(")[0].replace("'", '"') for key, text in found.items()}


def escape_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Bars and stars of physics are no markup; names in backticks are code. Lines of doctests stay as they are."""
    example = False
    for k, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            lines[k] = line.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("``", "`").replace("`", "``")

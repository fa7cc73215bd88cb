"""Scans: one run at several values of a field or coupling, which are as many sweeps of temperatures in one file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.names import flat, nested
from thermodbm.models.parameters import BETA, group_names, parameter_names
from thermodbm.run.sections import MAX_TEMPERATURES

if TYPE_CHECKING:
    from thermodbm.run.config import RunConfig


def scanned(data: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], "RunConfig"]) -> "RunConfig":
    """The config of tables with [scan]: a sweep of all temperatures for each value, one after the other.

    [model] of the result is without the key that is scanned.

    Args:
        parse: what checks tables without [scan].

    Raises:
        InputError: for a scan that is none, and as `parse`.
    """
    rest = {key: table for key, table in data.items() if key != "scan"}
    name, values = _values(data["scan"])
    model = rest.get("model")
    base, _, group = name.partition(".")
    if isinstance(model, Mapping) and (name in model or (group and isinstance(model.get(base), Mapping) and group in model[base])):
        raise InputError(f"scan.{name}", expected=f"{name} in [scan] or in [model]", found="both")
    place = parse({**rest, "model": _without_groups(model, base)})
    magnet = place.hamiltonian
    along_x = ["h_x"] if "h_x" in place.sections["model"] else []
    known = [n for n in (*parameter_names(magnet), *group_names(magnet), *along_x) if n != BETA]
    if name not in known:
        raise InputError("scan", expected=f"one of {', '.join(known)}", found=name)
    given = {**{k: v for k, v in place.sections["model"].items() if k != base}, base: model.get(base, place.sections["model"][base])}
    if group and not isinstance(given[base], Mapping | float | int):
        raise InputError(f"model.{base}", expected="one number, or one for each other group of bonds, with such a scan", found="a list")
    others = {k: v for k, v in flat(given, magnet.lattice.groups, [name]).items() if k != name}
    n_T = len(place.betas)
    if len(values) * n_T > MAX_TEMPERATURES:
        raise InputError("scan", expected=f"at most {MAX_TEMPERATURES} values times temperatures", found=len(values) * n_T)
    sweeps = tuple(parse({**rest, "model": nested({**others, name: value})}) for value in values.tolist())
    return replace(
        sweeps[0],
        temperatures=np.tile(sweeps[0].temperatures, len(values)),
        betas=np.tile(sweeps[0].betas, len(values)),
        sections={**sweeps[0].sections, "model": nested(others), "scan": {name: tuple(values.tolist())}},
        scan={name: np.repeat(values, n_T)},
        parts=sweeps,
    )


def _values(table: Any) -> tuple[str, np.ndarray]:
    """The one name of [scan], and its values."""
    example = "one name of a field or coupling with a list of values, such as h = [0.0, 0.5]"
    if not isinstance(table, Mapping) or len(table) != 1:
        raise InputError("scan", expected=example, found=table if not isinstance(table, Mapping) else f"{len(table)} names")
    ((name, values),) = table.items()
    if isinstance(values, Mapping) and not {"start", "stop", "num"} & set(values):  # J.rung = [...] is a table in a table
        inner, found = _values(values)
        return f"{name}.{inner}", found
    if isinstance(values, Mapping):
        if set(values) != {"start", "stop", "num"} or not all(map(_is_number, values.values())) or not isinstance(values["num"], int):
            raise InputError(f"scan.{name}", expected="a list, or { start, stop, num }", found=dict(values))
        if not 1 <= values["num"] <= MAX_TEMPERATURES:
            raise InputError(f"scan.{name}.num", expected=f"1 to {MAX_TEMPERATURES}", found=values["num"])
        values = np.linspace(values["start"], values["stop"], values["num"]).tolist()
    if not isinstance(values, list | tuple) or not values or not all(map(_is_number, values)):
        raise InputError(f"scan.{name}", expected="a list of finite numbers", found=values)
    if len(set(values)) < len(values):
        repeated = next(value for value in values if list(values).count(value) > 1)
        raise InputError(f"scan.{name}", expected="each value once", found=f"{repeated} more than once")
    return str(name), np.array(values, float)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) < float("inf")


def _without_groups(model: Any, base: str) -> Any:
    """[model] that can be parsed before values are put in: a coupling of which a group is scanned stands at its default."""
    if not (isinstance(model, Mapping) and isinstance(model.get(base), Mapping)):
        return model
    return {key: value for key, value in model.items() if key != base}

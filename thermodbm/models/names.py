"""Couplings of a model by the names of parameters: "J", or "J.leg" for that of a group of bonds."""

from collections.abc import Mapping, Sequence
from typing import Any


def flat(couplings: Mapping[str, Any], groups: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Those of a model by the names of parameters: one for each group of bonds where they are given so, or `names` are of groups. What is
    None is no coupling.

    >>> flat({"J": 1.0, "h": 0.0}, ["leg", "rung"], ["J.rung"])
    {'J.leg': 1.0, 'J.rung': 1.0, 'h': 0.0}
    """
    found: dict[str, Any] = {}
    for name, value in couplings.items():
        if value is None:
            continue
        if not isinstance(value, Mapping) and isinstance(value, float | int) and any(n.startswith(f"{name}.") for n in names):
            value = dict.fromkeys(groups, value)
        found |= {f"{name}.{group}": v for group, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`.

    >>> nested({"J.leg": 1.0, "J.rung": 0.5, "h": 0.0})
    {'J': {'leg': 1.0, 'rung': 0.5}, 'h': 0.0}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        base, dot, group = name.partition(".")
        if dot:
            found.setdefault(base, {})[group] = value
        else:
            found[base] = value
    return found

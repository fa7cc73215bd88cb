"""What pydantic found wrong with a config, told as one `InputError`: the key, what was expected, what was found."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from thermodbm.errors import InputError

_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
    "missing": "a value",
    "union_tag_not_found": "a value",
    "string_too_short": "a name",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} value(s)",
    "too_long": "at most {max_length} values",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
}


def input_error(error: ValidationError, data: Mapping[str, Any], sections: Mapping[str, type[BaseModel]]) -> InputError:
    """The first complaint, with the others at its key (the branches of a union) folded in.

    Args:
        data: what was validated.
        sections: the section behind each name that may stand before a key in the location of an error.
    """
    complaints = [(_path(c, data), c) for c in error.errors(include_url=False)]
    complaints.sort(key=lambda found: found[1]["type"] != "extra_forbidden")  # a misspelt key also explains the one that is missing
    first = complaints[0][0]
    related = [(path, c) for path, c in complaints if path[: len(first)] == first or first[: len(path)] == path]
    path = max((path for path, _ in related), key=len)  # of the branches of a union, the one that got furthest was meant
    here = [c for p, c in related if p == path]
    if any(not c["type"].endswith(("_type", "literal_error")) for c in here):  # of the right type, but beyond its range
        here = [c for c in here if not c["type"].endswith("_type")]
    where, complaint = _dotted(path), here[0]
    if complaint["type"] == "extra_forbidden":
        return _unknown_key(where, complaint["loc"], sections)
    expected = " or ".join(dict.fromkeys(_EXPECTED.get(c["type"], c["msg"]).format(**c.get("ctx", {})) for c in here))
    found = "nothing" if complaint["type"] in ("missing", "union_tag_not_found") else show(_at(path, data))
    return InputError(where, expected=expected, found=found, hint=_example(path, here, found))


def _example(path: tuple[str | int, ...], complaints: list[Any], found: str) -> str:
    """How to write the number that stands where only a list will do."""
    kinds = {c["type"] for c in complaints}
    if "tuple_type" not in kinds or "float_type" in kinds or not found.lstrip("-+").replace(".", "", 1)[:1].isdecimal():
        return ""
    key = path[-1]
    table = f", or {key} = {{ start = 0.1, stop = 2.0, num = 20 }}" if path[0] == "temperature" else ""
    return f"Write {key} = [{found}]{table}."


def show(value: Any, width: int = 80) -> str:
    """A value as it would stand in TOML, cut to a line."""
    try:
        text = str(value).lower() if isinstance(value, bool) else repr(_lists(value))
    except ValueError:  # an integer of more digits than Python is willing to write
        text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else "numbers of thousands of digits"
    return text if len(text) <= width else text[: width - 3] + "..."


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


def _path(complaint: Any, data: Any) -> tuple[str | int, ...]:
    """The location without the names of union branches, which are no keys of the data."""
    path: list[str | int] = []
    for part in complaint["loc"]:
        if part in (data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, tuple) else ()):
            path.append(part)
            data = data[part]
    if complaint["type"] == "missing":
        path.append(complaint["loc"][-1])
    if complaint["type"].startswith("union_tag"):
        path.append("kind")
    return tuple(path)


def _at(path: tuple[str | int, ...], data: Any) -> Any:
    for part in path:
        data = data[part]
    return data


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def _unknown_key(where: str, loc: tuple[str | int, ...], sections: Mapping[str, type[BaseModel]]) -> InputError:
    """Names the keys that exist, the closest of them, or the kinds that the key belongs to."""
    key, owner = str(loc[-1]), str(loc[-2]) if len(loc) > 1 else ""
    if owner not in sections and len(loc) > 2:  # a table of any name
        owner = str(loc[-3])
    known = list(sections[owner].model_fields)
    siblings = [name for name, s in sections.items() if name != owner and len(loc) > 2 and {"kind", key} <= set(s.model_fields)]
    hint = ""
    if siblings:
        hint = f"The key belongs to kind = {' | '.join(siblings)}."
    elif close := get_close_matches(key, known, n=1):
        hint = f"Did you mean {close[0]!r}?"
    return InputError(where, expected=f"one of the keys {', '.join(known)}", found=f"the unknown key {show(key)}", hint=hint)

"""Measured curves: CSV files read with a complaint for everything that is not a clean table of numbers."""

import csv
import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError

QUANTITIES = ("specific_heat", "susceptibility", "energy", "entropy", "magnetization")
COLUMNS = ("temperature", "field", *QUANTITIES, *(f"{name}_error" for name in QUANTITIES))


class Points(NamedTuple):
    """Measured values of one quantity in one file."""

    file: str
    quantity: str
    temperature: np.ndarray  # (n,); NaN where the file has no temperatures
    field: np.ndarray  # (n,); NaN where it has no fields
    value: np.ndarray  # (n,)
    error: np.ndarray  # (n,); NaN where none is given


def read_points(paths: Sequence[str | Path]) -> list[Points]:
    """The points of all files, one entry per file and quantity.

    Raises:
        InputError: naming file, line and remedy, for anything that is no table of numbers as the contract has it.
    """
    return [points for path in paths for points in _read(Path(path))]


def _read(path: Path) -> list[Points]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(str(path), expected="a readable CSV file", found=error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise InputError(str(path), expected="a CSV file in UTF-8", found="other bytes", hint="Save it as plain CSV text.") from None
    rows = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        raise InputError(str(path), expected="a header and rows of numbers", found="an empty file")
    number, header = rows[0]
    names = _header(path, number, header)
    cells = [_row(path, n, line, names) for n, line in rows[1:]]
    if not cells:
        raise InputError(str(path), expected="rows of numbers below the header", found="none")
    where = [n for n, _ in rows[1:]]
    table = dict(zip(names, np.array(cells, float).T, strict=True))
    _check(path, where, table)
    nothing = np.full(len(cells), np.nan)
    temperature, field = table.get("temperature", nothing), table.get("field", nothing)
    found = []
    for quantity in QUANTITIES:
        if quantity in table and (there := np.isfinite(table[quantity])).any():
            error = table.get(f"{quantity}_error", nothing)
            found.append(Points(str(path), quantity, temperature[there], field[there], table[quantity][there], error[there]))
    if not found:
        raise InputError(str(path), expected=f"values of {', '.join(QUANTITIES[:-1])} or {QUANTITIES[-1]}", found="none")
    return found


def _header(path: Path, number: int, line: str) -> list[str]:
    where = f"{path}, line {number}"
    if ";" in line or "\t" in line:
        hint = "Separate columns by commas, and write decimals with a point."
        raise InputError(where, expected="columns separated by commas", found=line.strip()[:60], hint=hint)
    names = [cell.strip() for cell in next(csv.reader([line]))]
    for name in names:
        if name not in COLUMNS:
            close = get_close_matches(name.lower(), COLUMNS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "The first line that is no comment must name the columns."
            raise InputError(where, expected=f"columns among {', '.join(COLUMNS)}", found=repr(name), hint=hint)
        if names.count(name) > 1:
            raise InputError(where, expected="each column once", found=f"{name} {names.count(name)} times")
        if name.endswith("_error") and name.removesuffix("_error") not in names:
            raise InputError(where, expected=f"the column {name.removesuffix('_error')} beside its error", found=f"{name} alone")
    if not {"temperature", "field"} & set(names):
        raise InputError(where, expected="a column temperature (or field)", found=", ".join(names), hint="Add the missing column.")
    if not set(QUANTITIES) & set(names):
        hint = "Add the missing column, under one of these names."
        raise InputError(where, expected=f"one of the columns {', '.join(QUANTITIES)}", found=", ".join(names), hint=hint)
    return names


def _row(path: Path, number: int, line: str, names: list[str]) -> list[float]:
    where = f"{path}, line {number}"
    cells = [cell.strip() for cell in next(csv.reader([line]))]
    if len(cells) != len(names):
        hint = "Decimals need a point: 1.5, not 1,5." if len(cells) > len(names) else "Leave cells of missing values empty between commas."
        raise InputError(where, expected=f"{len(names)} values ({', '.join(names)})", found=f"{len(cells)}: {line.strip()[:60]}", hint=hint)
    values = []
    for name, cell in zip(names, cells, strict=True):
        if not cell:
            values.append(math.nan)
            continue
        try:
            value = float(cell)
        except ValueError:
            hint = "Decimals need a point: 1.5, not 1,5." if "," in cell else "Leave the cell empty where a value is missing."
            raise InputError(where, expected=f"a number for {name}", found=repr(cell), hint=hint) from None
        if not math.isfinite(value):
            raise InputError(
                where, expected=f"a finite number for {name}", found=cell, hint="Leave the cell empty where a value is missing."
            )
        values.append(value)
    return values


def _check(path: Path, lines: list[int], table: dict[str, np.ndarray]) -> None:
    n = len(lines)
    for name in ("temperature", "field"):
        if name in table and (missing := np.flatnonzero(np.isnan(table[name]))).size:
            raise InputError(f"{path}, line {lines[missing[0]]}", expected=f"a {name} in every row", found="an empty cell")
    if "temperature" in table and (bad := np.flatnonzero(table["temperature"] <= 0)).size:
        found = f"{table['temperature'][bad[0]]:g}"
        raise InputError(f"{path}, line {lines[bad[0]]}", expected="temperatures above 0", found=found, hint="Temperatures are absolute.")
    for quantity in QUANTITIES:
        if (error := table.get(f"{quantity}_error")) is not None:
            if (bad := np.flatnonzero(error <= 0)).size:
                where, found = f"{path}, line {lines[bad[0]]}", f"{error[bad[0]]:g}"
                raise InputError(where, expected=f"a positive {quantity}_error", found=found, hint="Errors are standard deviations.")
            if (bad := np.flatnonzero(np.isnan(error) & np.isfinite(table[quantity]))).size:
                where = f"{path}, line {lines[bad[0]]}"
                hint = "Give every value of the column an error, or leave the column out."
                raise InputError(where, expected=f"a {quantity}_error beside every {quantity}", found="an empty cell", hint=hint)
    keys = [tuple(table[name][k] for name in ("temperature", "field") if name in table) for k in range(n)]
    first: dict[tuple, int] = {}
    for k, key in enumerate(keys):
        if key in first:
            what = " and ".join(name for name in ("temperature", "field") if name in table)
            found = f"{', '.join(f'{x:g}' for x in key)} again, first in line {lines[first[key]]}"
            raise InputError(f"{path}, line {lines[k]}", expected=f"each {what} once", found=found, hint="Average repeated measurements.")
        first[key] = k

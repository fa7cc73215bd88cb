"""From the record of `peers.py` to tables in Markdown and a figure."""

import math
from collections.abc import Mapping
from pathlib import Path

OBSERVABLES = {"energy": "e", "specific_heat": "c", "susceptibility": "chi", "order_parameter_squared": "m_z^2"}
TARGET = 1e-3
"""Error of e for which times and sizes are told."""
MINUTES = 10.0
ROUNDING = 1e-9
"""Deviations below this are those of floating-point numbers."""


def error_of(found: Mapping, name: str, reference: Mapping | None) -> float:
    """The error that a program gives; of one without noise the deviation from the exact value, where that is known; 0 for an exact one."""
    value, error = found["values"][name]
    noise = "samples" in found["settings"] or "vectors" in found["settings"] or found["settings"].get("method") == "typical"
    if reference and name in reference and not noise:
        deviation = abs(value - reference[name][0])
        return deviation if deviation > ROUNDING else 0.0
    return error


def merit(found: Mapping, name: str, reference: Mapping | None) -> float | None:
    """Error x sqrt(CPU seconds of work); None where a program has no such observable."""
    if name not in found.get("values", {}):
        return None
    return error_of(found, name, reference) * math.sqrt(max(found["cpu"] - found["setup"], 0.0))


def seconds_to_target(found: Mapping, reference: Mapping | None, at_least: bool = False) -> float:
    """CPU seconds of a whole process that ends with an error of e of `TARGET`; inf for one without noise that misses it.

    Args:
        at_least: fewer samples than were drawn are no answer.
    """
    error, work = error_of(found, "energy", reference), found["cpu"] - found["setup"]
    share = (error / TARGET) ** 2
    if not {"samples", "vectors"} & set(found["settings"]):
        return found["cpu"] if share <= 1 else math.inf
    return found["setup"] + work * (max(share, 1.0) if at_least or "samples" not in found["settings"] else share)


def largest(ladder: Mapping) -> tuple[float, bool]:
    """Sites within `MINUTES`, by the growth between the last two sizes but at least by what is known of large ones, and whether that lies
    beyond what was run."""
    done = [x for x in ladder["found"] if "failed" not in x]
    sizes = [x["n_sites"] for x in done]
    work = [seconds_to_target(x, None, at_least=True) - x["setup"] for x in done]
    if not done:
        return 0.0, False
    room, least = max(MINUTES * 60 - done[-1]["setup"], 1.0) / work[-1], ladder["least"]
    growth = math.log(work[-1] / work[-2]) if len(done) > 1 else 0.0
    if ladder["law"] == "power":
        exponent = max(growth / math.log(sizes[-1] / sizes[-2]) if growth else 0.0, least)
        return sizes[-1] * room ** (1 / exponent), room > 1
    rate = max(growth / (sizes[-1] - sizes[-2]) if growth else 0.0, math.log(least))
    return sizes[-1] + math.log(room) / rate, room > 1


def tables(record: Mapping) -> str:
    """All of them, with versions and machine."""
    parts = ["; ".join(f"{n}: {', '.join(f'{p} {v}' for p, v in found.items())}" for n, found in record["versions"].items())]
    for name, row in record["rows"].items():
        machine = row["machine"]
        parts.append(f"**{name}** ({machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]} before)")
        parts.append("\n".join(_steps(row) if name.startswith("SR step") else _sizes(row) if "ladders" in row else _curve(row)))
    return "\n\n".join(parts)


def _curve(row: Mapping) -> list[str]:
    reference = row.get("reference")
    names = [name for name in OBSERVABLES if any(name in found.get("values", {}) for found in row["programs"].values())]
    symbols = [OBSERVABLES[name] for name in names]
    heads = ["program", *(f"{x} (error)" for x in symbols), "CPU s (set-up)", *(f"merit of {x}" for x in symbols), "s to 1e-3"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for label, found in row["programs"].items():
        if "failed" in found:
            lines.append(_line([label, found["failed"], *[""] * (len(heads) - 2)]))
            continue
        values = [_value(found, name, reference) for name in names]
        merits = [_number(merit(found, name, reference)) for name in names]
        time = seconds_to_target(found, reference)
        cpu = f"{found['cpu']:.1f} ({found['setup']:.1f})"
        lines.append(_line([label, *values, cpu, *merits, f"{time:.1f}" if time < math.inf else "-"]))
    lines += [_line([label, why, *[""] * (len(heads) - 2)]) for label, why in row["not run"].items()]
    return lines


def _steps(row: Mapping) -> list[str]:
    ours = row["programs"]["thermodbm"]["step"]
    lines = [_line(["program", "CPU s a step", "ratio"]), _line(["---"] * 3)]
    return lines + [
        _line([label, found["failed"], ""] if "failed" in found else [label, f"{found['step']:.3f}", f"{found['step'] / ours:.1f}"])
        for label, found in row["programs"].items()
    ]


def _sizes(row: Mapping) -> list[str]:
    lines = [_line(["program", "sites: CPU s to 1e-3 of e", f"sites in {MINUTES:.0f} CPU minutes"]), _line(["---"] * 3)]
    for label, ladder in row["ladders"].items():
        times = [x.get("failed") or f"{x['n_sites']}: {seconds_to_target(x, None, at_least=True):.1f}" for x in ladder["found"]]
        sites, beyond = largest(ladder)
        lines.append(_line([label, ", ".join(times), f"{sites:.2g} (extrapolated)" if beyond else f"{sites:.2g}"]))
    return lines


def _value(found: Mapping, name: str, reference: Mapping | None) -> str:
    if name not in found["values"]:
        return "none"
    error = error_of(found, name, reference)
    return f"{found['values'][name][0]:.6g}({error:.0e})" if error else f"{found['values'][name][0]:.8g}"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.1e}" if x else "exact"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def figure(record: Mapping, path: Path) -> None:
    """Error of e x sqrt(CPU seconds) of all programs that have one, row by row."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = {name: row for name, row in record["rows"].items() if not ("ladders" in row or name.startswith("SR step"))}
    bars = [
        (name, label, merit(found, "energy", row.get("reference")))
        for name, row in rows.items()
        for label, found in row["programs"].items()
        if "failed" not in found
    ]
    bars = [bar for bar in bars if bar[2]]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.28 * len(bars)), layout="constrained")
    axes.barh(range(len(bars)), [bar[2] for bar in bars], color=["C0" if bar[1].startswith("thermodbm") else "0.7" for bar in bars])
    axes.set_yticks(range(len(bars)), [f"{label}\n{name}" for name, label, _ in bars], fontsize=6)
    axes.set(xscale="log", xlabel="error of e per site × √(CPU seconds)")
    axes.invert_yaxis()
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""How far a run has come: a bar per temperature in terminals and notebooks, a line per finished temperature everywhere."""

import sys
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

from tqdm import TqdmWarning
from tqdm.auto import tqdm

from thermodbm.evolve.method import Info
from thermodbm.run.results import shorthand


class Progress(NamedTuple):
    """What the runner calls: `start(temperature)`, then `update(info)` after each chunk of work."""

    start: Callable[[float], None]
    update: Callable[[Info], None]


SILENT = Progress(start=lambda temperature: None, update=lambda info: None)


def reporter(n_temperatures: int) -> Progress:
    """Progress on standard error; where that is no terminal and no notebook, only the line per temperature."""
    interactive = sys.stderr.isatty() or "ipykernel" in sys.modules
    current: dict = {"number": 0}

    def start(temperature: float) -> None:
        current.update(number=current["number"] + 1, temperature=temperature, since=time.monotonic())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets the text bar
            current["bar"] = tqdm(
                total=1.0,
                desc=heading(),
                disable=not interactive,
                leave=False,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left {postfix}",
            )

    def heading() -> str:
        return f"[{current['number']}/{n_temperatures}] T = {current['temperature']:.5g}"

    def update(info: Info) -> None:
        bar = current["bar"]
        bar.set_postfix_str(info.message, refresh=False)
        bar.update(max(0.0, min(info.fraction, 1.0) - bar.n))
        if info.point is not None:
            bar.close()
            energy = info.point.observables.get("energy")
            result = "" if energy is None else f"  energy {shorthand(float(energy.mean), float(energy.error))}"
            seconds = time.monotonic() - current["since"]
            tqdm.write(f"{heading()}{result}  {seconds:.1f} s", file=sys.stderr)

    return Progress(start, update)

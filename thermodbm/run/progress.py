"""How far a run has come: a bar per temperature in terminals and notebooks, a line per finished temperature everywhere."""

import sys
import time
import warnings

from tqdm import TqdmWarning

from thermodbm.evolve.method import Info
from thermodbm.run.results import shorthand

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets the text bar
    from tqdm.auto import tqdm


class Progress:
    """What the runner tells: which temperature it starts, and how far it is after each chunk of work. This one keeps quiet."""

    def start(self, temperature: float) -> None:
        """A new temperature."""

    def update(self, info: Info) -> None:
        """A chunk of work is done; `info.point` is there when the temperature is finished."""


class Reporter(Progress):
    """Writes to standard error; where that is no terminal and no notebook, only the line per temperature."""

    def __init__(self, n_temperatures: int, n_done: int = 0):
        self.n_temperatures, self.n_started = n_temperatures, n_done
        self.interactive = sys.stderr.isatty() or "ipykernel" in sys.modules

    def start(self, temperature: float) -> None:
        self.n_started += 1
        self.since = time.monotonic()
        self.heading = f"[{self.n_started}/{self.n_temperatures}] T = {temperature:.5g}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmWarning)
            self.bar = tqdm(
                total=1.0,
                desc=self.heading,
                disable=not self.interactive,
                leave=False,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left{postfix}",
            )

    def update(self, info: Info) -> None:
        self.bar.set_postfix_str(info.message, refresh=False)
        self.bar.update(max(0.0, min(info.fraction, 1.0) - self.bar.n))
        if info.point is not None:
            self.bar.close()
            energy = info.point.observables.get("energy")
            result = "" if energy is None else f"  energy {shorthand(float(energy.mean), float(energy.error))}"
            tqdm.write(f"{self.heading}{result}  {time.monotonic() - self.since:.1f} s", file=sys.stderr)

"""How far a run has come: a bar per temperature in terminals and notebooks, a line a minute elsewhere, one per finished temperature."""

import sys
import threading
import time
import warnings
from typing import Any

from tqdm import TqdmWarning

from thermodbm.evolve.method import Info
from thermodbm.run.shorthand import shorthand

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets the text bar
    from tqdm.auto import tqdm


class Progress:
    """What the runner tells: which temperature it starts, and how far it is after each chunk of work. This one keeps quiet."""

    def start(self, temperature: float, where: str = "") -> None:
        """A new temperature; `where` tells the value of a scan, "h = 0.5, "."""

    def update(self, info: Info) -> None:
        """A chunk of work is done; `info.point` is there when the temperature is finished."""


class Reporter(Progress):
    """Writes to standard error: a bar in terminals and notebooks, elsewhere a line per temperature and one a minute.

    As a context manager it also writes the latter while nothing comes from the method, as when it compiles.
    """

    def __init__(self, n_temperatures: int, n_done: int = 0, every: float = 60.0):
        self.n_temperatures, self.n_started, self.every = n_temperatures, n_done, every
        self.interactive = sys.stderr.isatty() or _in_notebook()
        self.bar: tqdm | None = None
        self.ended = threading.Event()

    def __enter__(self) -> "Reporter":
        if not self.interactive:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.ended.set()
        if self.bar is not None:
            self.bar.close()

    def start(self, temperature: float, where: str = "") -> None:
        self.n_started += 1
        self.since = self.spoke = time.monotonic()
        self.heading = f"[{self.n_started}/{self.n_temperatures}] {where}T = {temperature:.5g}"
        self.info = Info(0.0, "starting", None)
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
        assert self.bar is not None
        self.info = info
        self.bar.set_postfix_str(info.message, refresh=False)
        self.bar.update(max(0.0, min(info.fraction, 1.0) - self.bar.n))
        if info.point is not None:
            bar, self.bar = self.bar, None
            bar.close()
            energy = info.point.observables.get("energy")
            result = "" if energy is None else f"  energy {shorthand(float(energy.mean), float(energy.error))}"
            tqdm.write(f"{self.heading}{result}  {time.monotonic() - self.since:.1f} s", file=sys.stderr)
        elif not self.interactive:
            self._speak()

    def _beat(self) -> None:
        while not self.ended.wait(min(self.every / 4, 1.0)):
            if self.bar is not None:
                self._speak()

    def _speak(self) -> None:
        """A line, unless the last one is not long ago."""
        now = time.monotonic()
        if now - self.spoke >= self.every:
            self.spoke = now
            words = f"  {self.info.message}" if self.info.message else ""
            tqdm.write(f"{self.heading}  {100 * self.info.fraction:.0f}%  {now - self.since:.0f} s gone{words}", file=sys.stderr)


def _in_notebook() -> bool:
    """Whether this is a kernel that draws for a notebook; its modules may be imported elsewhere, too."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython(), "kernel") if ipython else False

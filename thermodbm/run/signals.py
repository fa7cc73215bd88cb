"""The signals that ask a run to stop, acknowledged at once even where Python itself waits for a compiler."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
ABORTED = 130
"""Exit status after a second Ctrl-C, as of a process that SIGINT has ended."""
APART = 0.5
"""Seconds between two Ctrl-C that are meant as two: launchers may pass one on twice."""


@contextmanager
def heed_signals(tell: bool = True, clean: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM, SIGINT and SIGUSR1 only raise a flag; the function that is yielded tells whether one has come.

    A handler in Python waits until the main thread comes back from compiled code, which may take minutes. So a thread of its own listens
    to what the interpreter writes down of every signal (`signal.set_wakeup_fd`), and answers; a second Ctrl-C ends the process there.

    Args:
        tell: whether to answer on standard error.
        clean: called before the process is ended.
    """
    caught: list[int] = []
    handled = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, lambda number, frame: caught.append(number)) for number in handled}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reading, frozenset(handled), tell, clean), daemon=True)
    listener.start()
    try:
        yield lambda: bool(caught)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread
        listener.join()
        os.close(reading)


def _listen(reading: int, handled: frozenset[int], tell: bool, clean: Callable[[], None]) -> None:
    first: float | None = None  # when the first Ctrl-C came
    told = False
    while numbers := os.read(reading, 1):
        number, now = numbers[0], time.monotonic()
        if number not in handled:
            continue
        if number == signal.SIGINT and first is not None and now - first > APART:
            if tell:
                _say("Aborted. `thermodbm resume` goes on from what was written last.")
            clean()
            os._exit(ABORTED)
        if number == signal.SIGINT and first is None:
            first = now
        if tell and not told:
            again = " Press Ctrl-C again to abort." if number == signal.SIGINT else ""
            _say(f"Stopping after this chunk of work, with a checkpoint.{again}")
            told = True


def _say(text: str) -> None:
    sys.stderr.write(f"\nthermodbm: {text}\n")
    sys.stderr.flush()

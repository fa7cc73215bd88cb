"""Compiling ahead: what a sweep of temperatures will need later is made by other threads while the present temperature is sampled."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

AT_ONCE = 2
"""Programs that are compiled at the same time: one keeps hardly more than one core busy, and takes a few hundred megabytes."""


class Ahead:
    """Work that is known by a number and done once, in the background."""

    def __init__(self, work: Callable[[int], None]):
        self.work, self.pool = work, ThreadPoolExecutor(AT_ONCE, "compile")
        self.begun: dict[int, Future] = {}

    def begin(self, now: Iterable[int], later: Iterable[int] = ()) -> None:
        """Begin what is needed now, and of the rest, in its order, what threads are free for: a process that ends waits for no more."""
        for number in now:
            self._begin(number)
        for number in later:
            if sum(not future.done() for future in self.begun.values()) < AT_ONCE:
                self._begin(number)

    def wait(self, number: int) -> None:
        """Until work that was begun is done; errors in it are raised here."""
        self.begun[number].result()

    def _begin(self, number: int) -> None:
        if number not in self.begun:
            self.begun[number] = self.pool.submit(self.work, number)

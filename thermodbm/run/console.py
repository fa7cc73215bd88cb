"""What the command line writes."""

import os
import shutil
import sys
import textwrap
from typing import NoReturn

from thermodbm.run.launch import leave


def say(text: str) -> None:
    """Write to standard output; a reader that closes it early (`| head`) has seen enough."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes at exit


def paragraph(message: str) -> str:
    """A message as a paragraph of the terminal's width."""
    width = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(f"thermodbm: {message}", width, break_long_words=False, break_on_hyphens=False)


def fail(message: str, status: int) -> NoReturn:
    """One paragraph on standard error, and out; under MPI with all ranks."""
    leave(paragraph(message), status)

"""The three ways in which a run can end badly, each with the exit status the command line gives it."""


class ThermodbmError(Exception):
    """Base of all errors that are meant for the user: `exit_status` is what the process returns."""

    exit_status = 1


class InputError(ThermodbmError, ValueError):
    """Something the user gave is wrong: where it stands, what was expected, what was found.

    >>> str(InputError("lattice.extent", expected="positive integers", found=[-4]))
    'lattice.extent: expected positive integers, found [-4].'
    """

    exit_status = 2

    def __init__(self, where: str, *, expected: str, found: object, hint: str = ""):
        self.where, self.expected, self.found, self.hint = where, expected, found, hint
        found_text = found if isinstance(found, str) else repr(found)
        super().__init__(f"{where}: expected {expected}, found {found_text}." + (f" {hint}" if hint else ""))


class NumericsError(ThermodbmError, ArithmeticError):
    """The calculation cannot go on (NaN, a singular solve, a step that shrank to nothing); finished temperatures are kept."""

    exit_status = 3


class Interrupted(ThermodbmError):
    """A signal asked the run to stop; a checkpoint was written and `thermodbm resume` goes on from it."""

    exit_status = 75

"""Which inverse temperature a state is at that follows imaginary time with a lag.

Where parameters follow (H - E) Psi but for a share s of its square, the energy falls as dE = -Var (1 - s) dt over a time t = 2 tau. That of
a thermal state falls as dE/dbeta = -Var: the state has come to beta = int (1 - s) dt, and called by that beta instead of t, it has lost to
first order what its energy was off by. What was missed long ago is not all missing now, the less the colder, and a state that cannot
follow at all is at its lowest energy, not at a standstill: s (1 - s) is counted instead of s. Measured on small frustrated and other
magnets, all configurations summed: e is off by .3 to .6 of what it is at t = beta while s is below .3, c by half.
"""

from typing import NamedTuple


def pace(slow: float) -> float:
    """d beta/dt of a state that misses the share `slow` of its motion: from 3/4 to 1, but for chance."""
    slow = _share(slow)
    return 1 - slow * (1 - slow)


def _share(slow: float) -> float:
    """What chance may have made of a share, kept from what would turn time around."""
    return min(max(float(slow), -0.5), 1.0)


class Clock(NamedTuple):
    """What is known after a step."""

    beta: float  # of the state that it began at
    slow: float  # the share that was missed there
    elapsed: float  # 2 tau, of the step

    @property
    def pace(self) -> float:
        """As far as it is known, the present one."""
        return pace(self.slow)

    @property
    def now(self) -> float:
        """The inverse temperature that has been reached, as far as is known before `slow` is measured there."""
        return self.beta + self.elapsed * self.pace

    def stepped(self, slow: float, elapsed: float) -> "Clock":
        """After another step, at the beginning of which `slow` was measured."""
        mean = (self.pace + pace(slow)) / 2
        return Clock(float(self.beta + self.elapsed * mean), float(slow), float(elapsed))


def at_rest(beta: float) -> Clock:
    """Before the first step."""
    return Clock(float(beta), 0.0, 0.0)


def lost(slow: float) -> float:
    """Of what a unit of beta should have brought, the share that was missed."""
    return _share(slow) / pace(slow)


def kept(slow: float) -> float:
    """And the share that was not: de/dbeta = -Var kept/N."""
    return (1 - float(slow)) / pace(slow)

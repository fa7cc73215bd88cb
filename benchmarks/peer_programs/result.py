"""What every program of `peers.py` does alike: it is handed a problem as JSON, and prints its answer as the last line, as JSON.

A problem is {"magnet": {"model", "lattice", "extent", couplings ...}, "T": temperature, ...settings}. An answer has "values",
observable -> [value, error], "setup", the CPU seconds spent before the work proper (imports, compilation), "apart", those by which it was
measured and which do not count, and "versions". No program imports another.
"""

import json
import resource
import sys


def problem() -> dict:
    """The argument of the command line."""
    return json.loads(sys.argv[1])


def cpu_seconds() -> float:
    """Of this process and all that it has waited for, user and system."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def answer(values: dict, setup: float, **more) -> None:
    """Print it."""
    plain = {name: [float(x) for x in pair] for name, pair in values.items()}
    print(json.dumps({"values": plain, "setup": setup, **more}))

"""Whatever configs, arguments and files hold: an exit status of the contract, one clear message, no traceback and no hang.

FUZZ_EXAMPLES sets the number of cases of each test; benchmarks/fuzz.py runs thousands.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from thermodbm import cli
from thermodbm.errors import NumericsError
from thermodbm.estimate.statistics import exact
from thermodbm.evolve.method import Info, Point, ThermalMethod
from thermodbm.models.lattice import KINDS
from thermodbm.run import runner
from thermodbm.run.sections import METHODS, MODELS

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=20_000,  # ms
    suppress_health_check=list(HealthCheck),
)

CONFIG = """
lattice = { kind = "chain", extent = [4] }
model.kind = "tfim"
temperature.T = [1.0, 0.5, 2.0]
"""


def call(*arguments):
    """Exit status and standard error of the command line; anything but a status of the contract is a finding."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    status = caught.value.code or 0
    assert status in (0, 2, 3), status
    return status


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A fresh directory with a config, a finished and an unfinished result; runs take no time."""

    def advance(key, state, beta):
        if state["n"] == 3 and Path("stop").exists():
            raise NumericsError("stopped on purpose")
        state = {"n": state["n"] + 1, "chains": np.ones((2, 4), np.int8)}
        point = Point({"energy": exact(beta), "correlation_zz": exact(np.ones(4))}, {"average_sign": 1.0}, {"W": np.ones((2, 2))})
        return state, Info(0.5, "", point if state["n"] % 2 == 0 else None)

    monkeypatch.setattr(runner, "make_method", lambda *arguments: ThermalMethod(lambda key: {"n": 0}, advance))
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(CONFIG + "output.checkpoint_every = 1e-9")
    Path("stop").touch()
    assert call("run", "c.toml", "-o", "part.h5", "--quiet") == 3
    Path("stop").unlink()
    assert call("run", "c.toml", "-o", "ready.h5", "--quiet") == 0


number = st.one_of(st.integers(-3, 70), st.integers(), st.floats(), st.sampled_from([0, 1, 0.5, 1e308, 1e-308, 10**30]))
scalar = st.one_of(number, st.booleans(), st.text(max_size=8), st.sampled_from([*KINDS, *MODELS, *METHODS, "log", "auto", "loop", "cg"]))
value = st.recursive(scalar, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=4), x, max_size=3), max_leaves=6)

VALID = {
    "lattice": {
        "kind": st.sampled_from(KINDS),
        "extent": st.lists(st.integers(1, 5), min_size=1, max_size=3),
        "periodic": st.booleans(),
        "n_sites": st.integers(1, 8),
        "edges": st.lists(st.lists(st.integers(0, 8), min_size=2, max_size=2), max_size=8),
    },
    "model": {"kind": st.sampled_from([*MODELS]), **{name: number for name in ("J", "J1", "J2", "gamma", "delta", "h")}},
    "method": {
        "kind": st.sampled_from([*METHODS]),
        "d_tau": number,
        "extrapolate": st.booleans(),
        "sampler": st.sampled_from(["mixed", "cluster", "column", "loop", "gibbs"]),
        "alpha": number,
        "integrator": st.sampled_from(["bs3", "heun", "rk4"]),
        "tolerance": number,
    },
    "temperature": {
        "T": st.lists(st.floats(1e-3, 1e3), max_size=4),
        "beta": st.fixed_dictionaries({"start": number, "stop": number, "num": st.integers(-1, 5)}),
    },
    "sampling": {name: number for name in ("n_chains", "n_samples", "target_error", "n_thermal", "seed")},
    "output": {"file": st.sampled_from(["out.h5", "sub/out.h5", ".", "", "x" * 300, "\0"]), "checkpoint_every": number},
}
table = {
    name: st.fixed_dictionaries({}, optional={**{key: st.one_of(good, good, good, value) for key, good in keys.items()}, "nonsense": value})
    for name, keys in VALID.items()
}
needed = {name: table.pop(name) for name in ("lattice", "model", "temperature")}
document = st.fixed_dictionaries(needed, optional=table)


def toml(data):
    """As TOML, where it can be written so."""
    try:
        return tomli_w.dumps(data).encode()
    except (TypeError, ValueError, UnicodeError, AttributeError):
        assume(False)


@fuzz
@given(document | st.dictionaries(st.sampled_from([*VALID]) | st.text(max_size=4), value, max_size=4))
def test_configs(here, data):
    Path("f.toml").write_bytes(toml(data))
    call("validate", "f.toml")


@fuzz
@given(st.binary(max_size=60) | st.tuples(st.integers(0, len(CONFIG)), st.binary(max_size=4)))
def test_bytes_of_a_config(here, data):
    if isinstance(data, tuple):
        data = CONFIG.encode()[: data[0]] + data[1] + CONFIG.encode()[data[0] + len(data[1]) :]
    Path("f.toml").write_bytes(data)
    call("validate", "f.toml")


commands = ["run", "resume", "show", "plot", "compare", "validate", "doctor"]
options = ["-o", "--set", "--force", "--quiet", "--json", "--csv", "--help", "--", "-", "--version"]
words = ["c.toml", "ready.h5", "none.h5", ".", "", "/dev/null", "model.J=0.5", "temperature.T=[1,2]", "=", "a.b=", "fig.png"]
words += ["lattice.extent=[9,9]", "method.kind=exact", "output.file=/dev/full", "..=1", "a" * 400]
argument = st.one_of(st.sampled_from(words), st.sampled_from(options), st.text(st.characters(exclude_characters="\0/"), max_size=6))


@fuzz
@given(st.lists(st.sampled_from(commands), max_size=1), st.lists(argument, max_size=5))
def test_arguments(here, command, rest):
    assume("plot" not in command or "ready.h5" not in rest)  # seconds each
    call(*command, *rest)


damage = st.one_of(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),  # bytes changed
    st.floats(0, 1),  # truncated
    st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=64)),  # bytes put in
)


@fuzz
@given(st.integers(0, 1), damage, st.sampled_from(["show", "json", "csv", "compare", "resume", "overwrite"]))
@example(0, 0.0, "show")
def test_bytes_of_a_result(here, which, damage, command):
    content = bytearray(Path(("ready.h5", "part.h5")[which]).read_bytes())
    if isinstance(damage, list):
        for place, byte in damage:
            content[int(place * len(content))] = byte
    elif isinstance(damage, float):
        content = content[: int(damage * len(content))]
    else:
        place = int(damage[0] * len(content))
        content[place:place] = damage[1]
    Path("f.h5").write_bytes(content)
    match command:
        case "compare":
            call("compare", "f.h5", "ready.h5")
        case "resume":
            call("resume", "f.h5", "--quiet")
        case "overwrite":
            call("run", "c.toml", "-o", "f.h5", "--quiet")
        case _:
            call("show", "f.h5", *([f"--{command}"] if command != "show" else []))

"""Run by test_devices.py with a number of devices set in XLA_FLAGS: runs that must not know it, as a hash of every number."""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

from thermodbm import graph, heisenberg, thermal_curve, transverse_field_ising
from thermodbm.comm import SERIAL
from thermodbm.errors import Interrupted
from thermodbm.run.checkpoint import load_checkpoint
from thermodbm.run.config import parse_config
from thermodbm.run.describe import describe
from thermodbm.run.runner import run, start_jax

TRIANGLE = graph(3, [(0, 1), (1, 2), (0, 2)])
MAGNETS = {
    "clusters and columns": transverse_field_ising(TRIANGLE, [-1.0, 0.5, -0.7], 0.9, 0.2),
    "loops with a sign": heisenberg(TRIANGLE),
}
SAMPLING = {"n_chains": 250, "n_samples": 20_000, "seed": 3}  # eight groups of 32 chains


def fingerprint(curve):
    digest = hashlib.sha256()
    for estimate in curve.observables.values():
        digest.update(np.asarray(estimate.mean).tobytes() + np.asarray(estimate.error).tobytes())
    return digest.hexdigest()


def stopped(directory):
    """A run of two temperatures that is stopped on the way."""
    tables = {"method": {"extrapolate": False}, "temperature": {"T": [0.8, 1.5]}, "sampling": SAMPLING}
    config = parse_config({**describe(MAGNETS["clusters and columns"]), **tables, "output": {"file": str(directory / "stopped.h5")}})
    calls = []
    try:
        run(config, stop=lambda: calls.append(0) or len(calls) == 3)
    except Interrupted:
        return
    raise AssertionError("the run came to its end")


start_jax()
directory, resume = Path(sys.argv[1]), len(sys.argv) > 2
found = {"devices": len(jax.devices())}
if resume:
    config, begin = load_checkpoint(directory / "stopped.h5", SERIAL)
    found["resumed"] = fingerprint(run(config, begin=begin))
else:
    for name, magnet in MAGNETS.items():
        curve = thermal_curve(magnet, T=[0.8], method={"kind": "deterministic", "extrapolate": False}, sampling=SAMPLING, progress=False)
        found[name] = fingerprint(curve)
    magnet = MAGNETS["clusters and columns"]
    whole = thermal_curve(magnet, T=[0.8, 1.5], method={"kind": "deterministic", "extrapolate": False}, sampling=SAMPLING, progress=False)
    found["resumed"] = fingerprint(whole)
    stopped(directory)
    method = {"kind": "variational", "enumerate": False, "n_walkers": 2048}
    walkers = thermal_curve(MAGNETS["loops with a sign"], T=[2.0], method=method, sampling={"n_samples": 4096, "seed": 3}, progress=False)
    found["walkers"] = [float(walkers.energy.mean[0]), float(walkers.energy.error[0]), float(walkers.specific_heat.mean[0])]
print(json.dumps(found))

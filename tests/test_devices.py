"""Results do not depend on how many devices a process has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def checks(n_devices, directory, *arguments):
    flags = f"--xla_force_host_platform_device_count={n_devices} --xla_cpu_max_isa=AVX2"  # as in conftest
    script = Path(__file__).parent / "device_checks.py"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, script, directory, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("devices") == n_devices
    return found


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    directory = tmp_path_factory.mktemp("devices")
    return directory, checks(1, directory)


def test_every_array_is_the_same_bit_for_bit_on_one_and_eight_devices(one_device, tmp_path):
    alone, together = one_device[1], checks(8, tmp_path)
    np.testing.assert_allclose(together.pop("walkers"), alone["walkers"], rtol=1e-8)  # matrix products round as they are cut
    assert together == {name: value for name, value in alone.items() if name != "walkers"}


def test_a_checkpoint_of_one_device_resumes_on_two(one_device):
    directory, found = one_device
    assert checks(2, directory, "resume")["resumed"] == found["resumed"]

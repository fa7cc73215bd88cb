"""benchmarks/gpu.py runs anywhere, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_script_runs_without_an_accelerator(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "--small", "--json", tmp_path / "gpu.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert len(found[-1]["rows"]) == 8 and all(value > 0 for value in found[-1]["rows"].values())
    assert all(name in done.stdout for name in found[-1]["rows"])

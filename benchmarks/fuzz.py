"""Thousands of configs, command lines and damaged files: every case must end with a status of the contract, without a traceback.

    python benchmarks/fuzz.py [--cases 10000]

The cases are those of tests/test_fuzz.py, only more of them; a finding is printed with the smallest input that shows it.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "test_fuzz.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    options = parser.parse_args()
    n_tests = TESTS.read_text().count("@given(")
    each = -(-options.cases // n_tests)
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0", "--tb=short", str(TESTS)]
    status = subprocess.run(command, env=os.environ | {"FUZZ_EXAMPLES": str(each)}, check=False).returncode
    found = "no findings" if status == 0 else "findings above"
    print(f"{n_tests} tests of {each} cases, {n_tests * each} altogether: {found}, {time.monotonic() - began:.0f} s")
    raise SystemExit(status)


if __name__ == "__main__":
    main()

"""How long a start takes: `--help`, `show`, and the quickstart with an empty and with a filled compilation cache, each in its own process.

    python benchmarks/startup.py [--repeat 3] [--config configs/quickstart.toml]

The caches are those that work out of the box, in a folder of their own (XDG_CACHE_HOME).

Of every command: wall and CPU seconds and peak memory; of runs also what JAX says of its share: seconds of tracing and lowering, of
compilation (summed over threads, so that they may exceed the wall time) and of reading the cache, the number of programs, and the wall
seconds of those temperatures that needed no new number of slices: sampling alone. On a busy machine only CPU seconds count. Python's
own bytecode is there, as after any first use: PYTHONDONTWRITEBYTECODE, which has every process compile all sources, is taken back.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import atexit, collections, json, os, sys
spent, counts, begun = collections.Counter(), collections.Counter(), {}
def report():
    import resource
    use = resource.getrusage(resource.RUSAGE_SELF)
    with open(os.environ["STARTUP_REPORT"], "w") as file:
        json.dump({"cpu": use.ru_utime + use.ru_stime, "mb": use.ru_maxrss / 1024, "spent": spent, "counts": counts}, file)
atexit.register(report)
if os.environ.get("STARTUP_LISTEN"):
    import jax.monitoring
    def took(name, seconds, **_):
        spent[name] += seconds
        counts[name] += 1
    jax.monitoring.register_event_duration_secs_listener(took)
    jax.monitoring.register_event_listener(lambda name, **_: counts.update([name]))
from thermodbm.cli import main
main(sys.argv[1:])
"""

OURS = "PYTHONDONTWRITEBYTECODE", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OURS}
TRACING = "/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration"
EVERYTHING = """
import importlib, pkgutil, thermodbm
for module in pkgutil.walk_packages(thermodbm.__path__, "thermodbm."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
BACKEND = "/jax/core/compile/backend_compile_duration"
READING = "/jax/compilation_cache/cache_retrieval_time_sec"
MISSES = "/jax/compilation_cache/cache_misses"


def measure(arguments: list[str], cache: Path, listen: bool) -> dict:
    """Run the command line once in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(cache), "STARTUP_REPORT": str(report)}
        environment |= {"STARTUP_LISTEN": "1"} if listen else {}
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", CHILD, *arguments], env=environment, capture_output=True, text=True, check=False)
        wall = time.monotonic() - began
        if done.returncode:
            raise SystemExit(f"thermodbm {' '.join(arguments)} failed:\n{done.stderr}")
        return {"wall": wall, **json.loads(report.read_text())}


def row(name: str, runs: list[dict]) -> str:
    """A line of the table, of the repetition that took the least CPU time."""
    best = min(runs, key=lambda run: run["cpu"])
    spent, counts = best["spent"], best["counts"]
    cells = [f"{best['wall']:.1f}", f"{best['cpu']:.1f}", f"{best['mb']:.0f}"]
    if spent:
        reading = spent.get(READING, 0.0)
        cells += [
            f"{sum(spent.get(key, 0.0) for key in TRACING):.1f}",
            f"{spent.get(BACKEND, 0.0) - reading:.1f}",
            f"{reading:.1f}",
            f"{counts.get(BACKEND, 0)} ({counts.get(MISSES, 0)})",
            f"{best['sampling']:.1f}",
        ]
    else:
        cells += [""] * 5
    return f"| {name} | {' | '.join(cells)} |"


def temperatures(file: Path) -> float:
    """Wall seconds of all temperatures but those that needed a new number of slices: sampling without compilation."""
    import h5py
    import numpy as np

    with h5py.File(file) as data:
        seconds, slices = np.asarray(data["diagnostics/wall_time_s"]), np.asarray(data["diagnostics/n_slices"])
    order = np.argsort(slices, kind="stable")  # hot to cold, as they were run
    fresh = np.r_[True, np.diff(slices[order]) > 0]
    return float(seconds[order][~fresh].sum())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--config", default="configs/quickstart.toml")
    options = parser.parse_args()
    subprocess.run([sys.executable, "-c", EVERYTHING], env=ENVIRONMENT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        table, result = {}, Path(folder) / "result.h5"

        def run(cache: Path) -> dict:
            found = measure(["run", options.config, "-o", str(result), "--force"], cache, listen=True)
            return {**found, "sampling": temperatures(result)}

        for k in range(options.repeat):
            cache = Path(folder) / f"cache{k}"
            table.setdefault("quickstart, cold", []).append(run(cache))
            table.setdefault("quickstart, warm", []).append(run(cache))
            for name, arguments in (("--help", ["--help"]), ("show", ["show", str(result)])):
                table.setdefault(name, []).append(measure(arguments, cache, listen=False))
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| | wall s | CPU s | peak MB | tracing, lowering s | compiling s | reading s | programs (not cached) | sampling alone s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, runs in table.items():
        print(row(name, runs))


if __name__ == "__main__":
    main()

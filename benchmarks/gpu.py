"""What an accelerator is worth: everything that the project claims of a GPU, beside the same on the host's cores.

    python benchmarks/gpu.py [--small] [--json FILE]

Spins updated a second by the column, cluster and loop updates at the best of several numbers of chains; seconds of a step of stochastic
reconfiguration; seconds of a whole transverse-field Ising and a whole Heisenberg curve, second run, compilation apart. The default
device and, where that is no CPU, the CPU are measured in processes of their own; at most eight minutes together. Without an accelerator, or
with --small, sizes are small and the numbers mean nothing: it shows that the script runs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LARGE = {"extent": 64, "n_layers": 64, "chains": (64, 512, 4096), "loop": 32, "steps": 16, "loop_chains": (16, 128, 1024)}
LARGE |= {"walkers": 16384, "chain": 256, "samples": 200_000}
SMALL = {"extent": 8, "n_layers": 16, "chains": (32,), "loop": 8, "steps": 8, "loop_chains": (16,)}
SMALL |= {"walkers": 256, "chain": 8, "samples": 2000}


def seconds(call: Callable[[int], Any], repeat: int = 3) -> float:
    """Least wall time of a call, of which the first, which compiles, is left out."""
    import jax

    jax.block_until_ready(call(0))
    times = []
    for k in range(1, repeat + 1):
        start = time.perf_counter()
        jax.block_until_ready(call(k))
        times.append(time.perf_counter() - start)
    return min(times)


def updates(step: Callable, weights: Any, state: Any, n_spins: int, n_sweeps: int = 8) -> float:
    """Spins a second."""
    import jax

    run = jax.jit(lambda key, w, s: jax.lax.scan(lambda s, k: (step(k, w, s)[0], None), s, jax.random.split(key, n_sweeps))[0])
    return n_sweeps * n_spins / seconds(lambda k: run(jax.random.key(k), weights, state))


def samplers(sizes: dict) -> dict[str, float]:
    """Spins a second of each update at its best number of chains."""
    import jax

    from thermodbm import heisenberg, make_lattice, transverse_field_ising
    from thermodbm.estimate.exchange import exchange_ensemble
    from thermodbm.sampling.cluster import cluster_kernel
    from thermodbm.sampling.column import column_kernel
    from thermodbm.sampling.exchange_facts import exchange_facts
    from thermodbm.sampling.ring import ising_facts, ring_weights

    found: dict[str, float] = {}
    n_layers, delta = sizes["n_layers"], 0.05
    magnet = transverse_field_ising(make_lattice("square", (sizes["extent"],) * 2), 1.0, 2.0)
    weights = ring_weights(magnet, n_layers * delta, n_layers)
    for name, make in (("column", column_kernel), ("cluster", cluster_kernel)):
        kernel = make(ising_facts(magnet, delta), n_layers)
        for n_chains in sizes["chains"]:
            state = kernel.init(jax.random.key(0), n_chains)
            rate = updates(kernel.step, weights, state, state.size)
            found[f"{name} update, spins/s"] = max(found.get(f"{name} update, spins/s", 0.0), rate)
    magnet = heisenberg(make_lattice("square", (sizes["loop"],) * 2))
    ensemble = exchange_ensemble(exchange_facts(magnet), "loop", sizes["steps"])
    for n_chains in sizes["loop_chains"]:
        state = ensemble.kernel.init(jax.random.key(0), n_chains)
        rate = updates(ensemble.kernel.step, ensemble.weights(magnet, 2.0), state, state.size)
        found["loop update, spins/s"] = max(found.get("loop update, spins/s", 0.0), rate)
    return found


def sr_step(sizes: dict) -> dict[str, float]:
    """Seconds of an integration step of the variational method, sampled."""
    import jax

    from thermodbm import SamplingOptions, VariationalOptions, make_lattice, transverse_field_ising
    from thermodbm.evolve.variational import variational_method

    n = 4 if sizes["walkers"] < 1000 else 16
    options = VariationalOptions(enumerate=False, n_walkers=sizes["walkers"], alpha=1 if n == 4 else 4)
    method = variational_method(transverse_field_ising(make_lattice("chain", n)), options, SamplingOptions(n_samples=sizes["walkers"]))
    state, times = method.init(jax.random.key(0)), []
    for k in range(6):
        start = time.perf_counter()
        state, _ = method.advance(jax.random.key(k), state, 4.0)
        times.append(time.perf_counter() - start)
    return {f"SR step, {n} spins, {sizes['walkers']} walkers, s": min(times[2:])}


def curves(sizes: dict) -> dict[str, float]:
    """Seconds of a whole curve, the second of two."""
    from thermodbm import heisenberg, make_lattice, thermal_curve, transverse_field_ising

    lattice, found = make_lattice("chain", sizes["chain"]), {}
    for name, magnet in (("tfim", transverse_field_ising(lattice)), ("Heisenberg", heisenberg(lattice))):
        run = partial(thermal_curve, magnet, T=[0.5, 1.0, 2.0], progress=False)
        times = []
        for seed in (1, 2):
            start = time.perf_counter()
            run(sampling={"n_samples": sizes["samples"], "n_chains": 1024 if sizes["samples"] > 10_000 else 64, "seed": seed})
            times.append(time.perf_counter() - start)
        found[f"{name} curve, {sizes['chain']} spins, s"] = times[1]
        found[f"{name} curve, first time, s"] = times[0]
    return found


def measure(small: bool) -> dict:
    """All of it on the default device of this process."""
    import jax

    from thermodbm.run.runner import start_jax

    start_jax()
    sizes, device = SMALL if small else LARGE, jax.devices()[0]
    rows = samplers(sizes) | sr_step(sizes) | curves(sizes)
    return {"device": f"{device.device_kind} ({device.platform})", "platform": device.platform, "jax": jax.__version__, "rows": rows}


def child(small: bool, platform: str | None) -> dict:
    environment = os.environ | ({"JAX_PLATFORMS": platform} if platform else {})
    command = [sys.executable, __file__, "--child", *(["--small"] if small else [])]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def accelerated() -> bool:
    """Whether there is another device than CPUs, asked in a process of its own."""
    ask = "import jax; print(jax.default_backend() != 'cpu')"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip().endswith("True")


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.small)))
        return
    with_device = accelerated()
    small = arguments.small or not with_device
    found = [child(small, None), *([child(small, "cpu")] if with_device else [])]
    print(f"{found[0]['device']}, JAX {found[0]['jax']}, commit {commit()}{', small sizes' if small else ''}\n")
    print("| | " + " | ".join(f["device"] for f in found) + " |" + (" times faster |" if with_device else ""))
    print("|---|" + "---|" * (len(found) + with_device))
    for name, value in found[0]["rows"].items():
        cells = [f"{f['rows'][name]:.3g}" for f in found]
        if with_device:
            other = found[1]["rows"][name]
            cells.append(f"{(value / other if name.endswith('/s') else other / value):.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

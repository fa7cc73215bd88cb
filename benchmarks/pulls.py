"""Are error bars right? Deviations from diagonalisation in units of the error, over many seeds, for small magnets of every kind.

    python benchmarks/pulls.py [METHOD] [--seeds 50] [--magnets chain glass ...] [--json FILE]
    python benchmarks/pulls.py --frustrated --seeds 20
    python benchmarks/pulls.py walkers
    python benchmarks/pulls.py curves
    python benchmarks/pulls.py references --seeds 8

For each magnet and each observable of the file: mean and width (root mean square about the mean) of the pulls, over seeds, temperatures and
entries. Independent honest errors give 0 and 1; with n independent values they scatter by 1/sqrt(n) and 1/sqrt(2n), and entries of a
correlation function are not independent. Entries without an error must be exact. Only what is marked trusted counts; its share is printed.
Errors of variational runs hold what their states miss, which is bounded, and so is no random number: `walkers` tells of their sampling
alone, by deviations from sums over all configurations of the same network. Likewise the errors of entropy, free energy and joint specific
heat hold what may happen between temperatures, which is the same for every seed of one magnet: `curves` tells of it by many magnets and
sets of temperatures, exact values with noise. `references` holds `sampler = "series"` against the exact curves of tests/reference.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

from thermodbm import (
    SamplingOptions,
    SpinHamiltonian,
    ThermalCurve,
    VariationalOptions,
    graph,
    heisenberg,
    j1j2,
    make_lattice,
    thermal_curve,
    transverse_field_ising,
    xxz,
)
from thermodbm.comm import SERIAL
from thermodbm.estimate.moments import high_temperature_moments
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.thermodynamics import join_thermodynamics
from thermodbm.evolve.ansatz import make_ansatz
from thermodbm.evolve.averages import enumerated, sampled
from thermodbm.evolve.enumeration import all_configurations
from thermodbm.evolve.variational import variational_method
from thermodbm.exact import exact_curve
from thermodbm.network.ansatz.trial import trial_state

RANDOM = np.random.default_rng(7)
GAMMA = RANDOM.uniform(0.4, 1.2, 6)
GLASS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (1, 4)]
TRIANGLES = [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (3, 4), (2, 4), (4, 5), (3, 5)]
LONG = {"n_chains": 4, "n_samples": 20_000}  # series are blocked
SHORT = {"n_chains": 2048, "n_samples": 40_960}  # stretches of two sweeps
WARM = [0.5, 0.7, 1.0, 1.4, 2.0, 3.0]
MAGNETS: dict[str, tuple[SpinHamiltonian, list[float], dict]] = {
    "chain": (transverse_field_ising(make_lattice("chain", 8), 1.0, 1.0), WARM, {}),
    "torus": (transverse_field_ising(make_lattice("square", (3, 3)), 1.0, 2.5), [1.0, 1.5, 2.0, 3.0, 5.0], SHORT),
    "triangles": (transverse_field_ising(graph(6, TRIANGLES), -1.0, 0.8), WARM, LONG),
    "xxz": (xxz(make_lattice("chain", 6), 1.0, 1.7), [0.3, 0.5, 0.7, 1.0, 2.0], {}),
    "field": (heisenberg(make_lattice("chain", 6), 1.0, 0.7), [0.3, 0.5, 0.7, 1.0, 2.0], LONG),
    "frustrated": (j1j2(make_lattice("chain", 6), 1.0, 0.4), [0.7, 1.0, 1.5, 2.0, 4.0], {}),
    "open": (heisenberg(make_lattice("square", (2, 3), periodic=False)), [0.3, 0.5, 0.7, 1.0, 2.0], {}),
    "glass": (transverse_field_ising(graph(6, GLASS), RANDOM.normal(size=8), GAMMA, 0.3 * RANDOM.normal(size=6)), WARM, {}),
}  # fmt: skip
COLDER = [0.1, 0.3, 0.5, 1.0, 2.0]
LADDER = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]
UNEQUAL = [1.0, -0.7, -0.4, 1.2, -0.9, 0.5, -0.6], [0.5, -0.3, 0.2, 0.8, -0.6, 1.0, 0.0]  # J, delta: all signs of no frustration
FREE: dict[str, tuple[SpinHamiltonian, list[float], dict]] = {
    "ring": (heisenberg(make_lattice("chain", 8)), COLDER, {}),
    "xy ring": (xxz(make_lattice("chain", 6), 1.0, 0.0), COLDER, LONG),
    "unequal": (xxz(graph(6, LADDER), *UNEQUAL), COLDER, {"n_chains": 256}),
    "ferromagnet": (heisenberg(make_lattice("square", (2, 4), periodic=False), -1.0), COLDER, {}),
    "fields": (xxz(graph(6, LADDER), UNEQUAL[0], [0.5, -1.3, 1.8, 0.8, -0.6, 1.0, 0.0], RANDOM.normal(size=6)), COLDER, {"n_chains": 256}),
}
"""More magnets for "series"; all but the last have loops that turn over freely."""
COLD = [0.2, 0.3, 0.5, 0.7, 1.0]
FRUSTRATED: dict[str, tuple[SpinHamiltonian, list[float], dict]] = {
    "ladder": (heisenberg(make_lattice("square", (5, 2), periodic=(True, False))), COLD, {}),
    "ring of 7": (heisenberg(make_lattice("chain", 7)), COLD, {}),
    "triangular 3x3": (heisenberg(make_lattice("triangular", (3, 3))), COLD, {}),
    "j1j2 chain": (j1j2(make_lattice("chain", 8), 1.0, 0.5), COLD, {}),
    "strip": (heisenberg(graph(6, TRIANGLES)), COLD, {}),
}
COOL = [0.3, 0.5, 0.8, 1.2, 2.0, 4.0]
STORED: dict[str, tuple[SpinHamiltonian, list[float]]] = {
    "tfim_chain12_g1": (transverse_field_ising(make_lattice("chain", 12)), COOL),
    "tfim_square4x4_g3": (transverse_field_ising(make_lattice("square", (4, 4)), 1.0, 3.0), COOL),
    "heisenberg_chain16": (heisenberg(make_lattice("chain", 16)), COOL),
    "heisenberg_square4x4": (heisenberg(make_lattice("square", (4, 4))), COOL),
    "j1j2_square4x4_j2_0.5": (j1j2(make_lattice("square", (4, 4)), 1.0, 0.5), [1.0, 1.7, 2.9, 5.0]),
}
"""Of tests/reference."""
METHODS = {
    "deterministic": {"kind": "deterministic"},
    "series": {"kind": "deterministic", "sampler": "series"},
    "learned": {"kind": "learned"},
    "variational": {"kind": "variational", "enumerate": False, "n_walkers": 512},  # few walkers: noise in the path, too
    "enumerated": {"kind": "variational", "enumerate": True},
}
SAMPLING = {"variational": {"n_samples": 5_000}, "enumerated": {}}  # in place of that of the magnet
OF = {
    "learned": ("chain", "torus", "triangles", "open"),  # no fields along z, easy axes, frustrated exchange
    "series": (*FREE, "open", "xxz", "field", "frustrated", "chain", "torus", "triangles"),
    "references": tuple(STORED),
}
ROUNDING = 1e-12  # errors below it are none
MARK_MEAN, MARK_WIDTH = 0.45, (0.8, 1.25)


def pulls(curve: ThermalCurve, exact: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Deviations in units of the error, one value per trusted temperature and entry with an error.

    Raises:
        AssertionError: for an entry without an error that is not exact.
    """
    trusted = curve.diagnostics.get("trusted", np.ones(len(curve.beta))) == 1
    found = {}
    for name, estimate in curve.observables.items():
        key = "specific_heat" if name == "specific_heat_direct" else name
        if key not in exact:
            continue
        off, error = (estimate.mean - exact[key])[trusted], estimate.error[trusted]
        error = np.where(error > ROUNDING, error, 0.0)
        assert np.abs(off[error == 0]).max(initial=0.0) < 1e-6, f"{name} is not exact where its error is zero"
        found[name] = (off / np.where(error > 0, error, np.nan)).ravel()
    return found


def study(name: str, method: str, n_seeds: int) -> dict:
    """Pulls of one magnet."""
    magnet, T, sampling = (MAGNETS | FRUSTRATED | FREE)[name]
    return of_seeds(
        name, method, magnet, T, SAMPLING.get(method, sampling), exact_curve(magnet, 1 / np.array(T)), range(1000, 1000 + n_seeds)
    )


def references(name: str, n_seeds: int) -> dict:
    """Pulls of energy, and of what is joined, about a stored exact curve."""
    magnet, wanted = STORED[name]
    stored = json.loads((Path(__file__).parent.parent / "tests" / "reference" / f"{name}.json").read_text())
    at = [int(np.argmin(np.abs(np.array(stored["T"]) - T))) for T in wanted]
    keys = {"energy": "e", "specific_heat": "c", "entropy": "s", "free_energy": "f"}
    exact = {observable: np.array(stored[key])[at] for observable, key in keys.items()}
    return of_seeds(name, "series", magnet, list(np.array(stored["T"])[at]), {"n_samples": 20_000}, exact, range(40, 40 + n_seeds))


def of_seeds(name: str, method: str, magnet: SpinHamiltonian, T: list[float], sampling: dict, exact: dict, seeds: range) -> dict:
    """Pulls about exact values at the temperatures T."""
    began, trusted, table = time.monotonic(), [], {}
    for seed in seeds:
        curve = thermal_curve(magnet, T=T, method=METHODS[method], sampling={**sampling, "seed": seed}, progress=False)
        trusted.append(np.mean(curve.diagnostics.get("trusted", 1.0)))
        for observable, values in pulls(curve, exact).items():
            table.setdefault(observable, []).append(values)
    return {
        "magnet": name,
        "method": method,
        "seeds": len(seeds),
        "trusted": np.mean(trusted),
        "seconds": time.monotonic() - began,
        "rows": summary(table),
    }


def walkers(name: str, n_seeds: int) -> dict:
    """Pulls of walkers about the sums over all configurations of the same networks, which followed imaginary time without noise."""
    magnet, T, _ = (MAGNETS | FRUSTRATED | FREE)[name]
    began, options, table = time.monotonic(), VariationalOptions(enumerate=True), {}
    method, sampling = variational_method(magnet, options, SamplingOptions(), betas=1 / np.array(T)), SamplingOptions(n_samples=5000)
    ansatz = make_ansatz(magnet, options)
    trial = trial_state(ansatz.module, ansatz.start(jax.random.key(0), 0.1))
    every = all_configurations(ansatz.hamiltonian, options, conserve_sz=ansatz.conserves_sz, sites=ansatz.sites)
    summed, drawn = enumerated(ansatz, trial, every), sampled(ansatz, trial, options, sampling, 512, SERIAL)
    state = method.init(jax.random.key(0))
    for number, beta in enumerate(sorted(1 / np.array(T))):
        info = None
        while info is None or info.point is None:
            state, info = method.advance(jax.random.key(1), state, beta)
        theta = state["theta"]
        exact = summed.observe(jax.random.key(0), theta, None, beta)[1].estimates
        for seed in range(n_seeds):
            key_begin, key = jax.random.split(jax.random.key(1000 * number + seed))
            found, share = drawn.begin(key_begin, theta), 0.0
            while share < 1:
                key, key_round = jax.random.split(key)
                found, averages, share = drawn.observe(key_round, theta, found, beta)
            for observable, estimate in averages.estimates.items():
                error = np.asarray(estimate.error)
                off = (estimate.mean - exact[observable].mean) / np.where(error > ROUNDING, error, np.nan)
                table.setdefault(observable, []).append(np.ravel(off))
    seconds = time.monotonic() - began
    return {"magnet": name, "method": "walkers", "seeds": n_seeds, "trusted": 1.0, "seconds": seconds, "rows": summary(table)}


TEMPERATURES = {
    "warm": [0.7, 1.0, 1.5, 2.0, 4.0],
    "cold": [0.3, 0.5, 0.7, 1.0, 2.0],
    "six": [0.5, 0.7, 1.0, 1.4, 2.0, 3.0],
    "nine": np.geomspace(0.1, 4, 9),
}
CORRELATION = -0.7  # of the errors of energy and specific heat, as where a sign divides both


def curves(n_seeds: int) -> None:
    """Joint specific heat, entropy and free energy from exact energies and specific heats with noise, magnets and temperatures together."""
    magnets = {name: magnet for name, (magnet, _, _) in (MAGNETS | FRUSTRATED | FREE).items()}
    magnets |= {"ring of 64": transverse_field_ising(make_lattice("chain", 64)), "kagome": heisenberg(make_lattice("kagome", (1, 2)))}
    print("| error of e / w | observable | mean | r.m.s. | beyond 2, 3 | largest | values |\n|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(1)
    for noise in (1e-4, 1e-3, 6e-3):
        table: dict[str, list[np.ndarray]] = {}
        for magnet in magnets.values():
            w = np.sqrt(high_temperature_moments(magnet)[0])
            for T in TEMPERATURES.values():
                beta = 1 / (np.array(T) * w)  # in units in which the magnet's width is 1
                exact = exact_curve(magnet, beta)
                sigma = {"energy": np.full(len(beta), noise * w), "specific_heat": 2.5 * noise * np.maximum((beta * w) ** 1.5, 0.1)}
                for _ in range(n_seeds):
                    x, y = rng.normal(size=(2, len(beta)))
                    drawn = {"energy": x, "specific_heat": CORRELATION * x + np.sqrt(1 - CORRELATION**2) * y}
                    data = [Estimate(exact[name] + sigma[name] * drawn[name], sigma[name]) for name in sigma]
                    for name, found in join_thermodynamics(magnet, beta, *data, CORRELATION).estimates.items():
                        table.setdefault(name, []).append((found.mean - exact[name]) / np.maximum(found.error, ROUNDING))
        for name, values in table.items():
            p = np.concatenate(values)
            share = ", ".join(f"{np.mean(np.abs(p) > k):.1%}" for k in (2, 3))
            print(f"| {noise:g} | {name} | {p.mean():+.2f} | {np.sqrt(np.mean(p**2)):.2f} | {share} | {np.abs(p).max():.1f} | {p.size} |")


def summary(table: dict[str, list[np.ndarray]]) -> dict[str, dict[str, float]]:
    """Mean, width, largest and number of the pulls of every observable."""
    rows = {}
    for observable, values in table.items():
        p = np.concatenate(values)
        p = p[np.isfinite(p)]
        if p.size:
            rows[observable] = {"mean": p.mean(), "width": p.std(), "largest": np.abs(p).max(), "n": p.size}
    return rows


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", nargs="?", default="deterministic", choices=[*METHODS, "walkers", "curves", "references"])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--magnets", nargs="+", choices=[*MAGNETS, *FRUSTRATED, *FREE])
    parser.add_argument("--frustrated", action="store_true", help="Small frustrated exchange magnets down to T = 0.2.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.method in ("curves", "references") and (arguments.magnets or arguments.frustrated):
        parser.error(f"{arguments.method} has magnets of its own")
    if arguments.method == "curves":
        if arguments.json:
            parser.error("curves takes --seeds alone: all magnets stand in one table")
        curves(arguments.seeds)
        return
    studies = []
    print("| magnet | observable | mean | width | largest | values | within the marks |\n|---|---|---|---|---|---|---|")
    one = {"walkers": walkers, "references": references}.get(arguments.method, partial(study, method=arguments.method))
    for name in arguments.magnets or (FRUSTRATED if arguments.frustrated else OF.get(arguments.method, MAGNETS)):
        found = one(name, n_seeds=arguments.seeds)
        studies.append(found)
        for observable, row in found["rows"].items():
            good = abs(row["mean"]) < MARK_MEAN and MARK_WIDTH[0] <= row["width"] <= MARK_WIDTH[1]
            numbers = f"{row['mean']:+.2f} | {row['width']:.2f} | {row['largest']:.1f} | {row['n']}"
            print(f"| {name} | {observable} | {numbers} | {'yes' if good else 'NO'} |", flush=True)
        print(f"| {name} | trusted {found['trusted']:.0%}, {found['seconds']:.0f} s | | | | | |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(studies, default=float))


if __name__ == "__main__":
    main()

"""Derivatives in couplings: how small their errors are after a minute on two cores, and what asking for them costs.

    python benchmarks/response.py                   both tables; some ten minutes on one core
    python benchmarks/response.py errors --seeds 4 [--method learned]
    python benchmarks/response.py cost --repeat 5

Chains of 64 sites at beta = 4, by the deterministic method unless another is named. Seconds are those of the CPU, compilation (and
training) apart: every program has run before the clock starts. Chains run side by side, so that a minute on two cores is 120 of them;
errors go as their inverse root. Reference values: free fermions; the infinite Heisenberg chain by integral equations, with which the ring
agrees to far below the errors.
"""

import argparse
import time

import numpy as np
from infinite_chain import infinite_chain

import thermodbm as tb
from thermodbm.run.shorthand import shorthand

BETA, N, BUDGET = 4.0, 64, 120.0
CHAIN = tb.make_lattice("chain", N)
MAGNETS = {
    "tfim, gamma = J": (tb.transverse_field_ising(CHAIN, 1.0, 1.0), ["J", "gamma"]),
    "heisenberg": (tb.heisenberg(CHAIN), ["J"]),
}
COSTS = {
    "heisenberg": (tb.heisenberg(CHAIN), ["J"]),
    "xxz, delta = .6": (tb.xxz(CHAIN, 1.0, 0.6), ["J", "delta"]),
    "tfim, gamma = .8": (tb.transverse_field_ising(CHAIN, 1.0, 0.8), ["J", "gamma"]),
}
N_TAU = 8  # of exchange gates it doubles the rings at this beta and default steps


def measured(
    magnet: tb.SpinHamiltonian, n_samples: int, seed: int, response: list[str], n_tau: int | None = None, kind: str = "deterministic"
) -> tuple[tb.ThermalCurve, float]:
    """A curve of one temperature, and CPU seconds."""
    began = time.process_time()
    method, sampling = {"kind": kind, **({"n_tau": n_tau} if n_tau else {})}, {"n_samples": n_samples, "seed": seed}
    curve = tb.thermal_curve(magnet, beta=[BETA], method=method, sampling=sampling, response=response, progress=False)
    return curve, time.process_time() - began


def references(name: str) -> dict[tuple[str, str], float]:
    """What is known exactly: e = J eps(T/J) and chi = X(T/J)/J of the Heisenberg chain give derivatives in J from those in T."""
    if name != "heisenberg":
        known = tb.response(MAGNETS[name][0], beta=[BETA], parameters=["J", "gamma"], method="exact", progress=False)
        return {(observable, p): float(e.mean[0]) for observable, of in known.items() for p, e in of.items()}
    T = (1 + 0.02 * np.arange(-2, 3)) / BETA
    curve = infinite_chain(T)
    slope = lambda x: float(np.gradient(x, T)[2])  # noqa: E731
    of_scaling = {"energy": (1, slope(curve["energy"])), "susceptibility": (-1, slope(curve["susceptibility"]))}
    return {(o, "J"): float(power * curve[o][2] - T[2] * by_T) for o, (power, by_T) in of_scaling.items()}


def errors(n_samples: int, seeds: int, kind: str) -> None:
    """The table of errors."""
    print(f"| magnet | derivative | mean over seeds | exact | pull | relative error | CPU s | after {BUDGET:.0f} CPU s | mark |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (magnet, parameters) in MAGNETS.items():
        measured(magnet, 2000, 0, parameters, kind=kind)
        known, found, seconds = references(name), {}, []
        for seed in range(1, seeds + 1):
            curve, cpu = measured(magnet, n_samples, seed, parameters, kind=kind)
            seconds.append(cpu)
            for key, estimate in curve.derivatives.items():
                found.setdefault(key, []).append((float(estimate.mean[0]), float(estimate.error[0])))
        for observable, parameter in ((o, p) for o in ("energy", "susceptibility", "free_energy", "specific_heat") for p in parameters):
            if (observable, parameter) not in found:
                continue
            means, sigma = np.array(found[observable, parameter]).T
            mean, each = means.mean(), np.sqrt(np.mean(sigma**2))
            exact = known.get((observable, parameter))
            pull = "" if exact is None else f"{(mean - exact) / (each / np.sqrt(seeds)):.1f}"
            relative, cpu = each / abs(mean if exact is None else exact), np.mean(seconds)
            value = shorthand(mean, each / np.sqrt(seeds))
            limits = f"{relative:.2%} | {cpu:.1f} | {relative * np.sqrt(cpu / BUDGET):.2%} | " + (
                "2%" if observable in ("energy", "susceptibility") else ""
            )
            known_text = "" if exact is None else f"{exact:.5g}"
            print(f"| {name} | d {observable}/d {parameter} | {value} | {known_text} | {pull} | {limits} |", flush=True)


def cost(n_samples: int, repeat: int) -> None:
    """The table of what derivatives, and correlations in imaginary time, cost."""
    print("| magnet | beside averages | off, CPU s | on, CPU s | more | first call on, CPU s | error of e, on / off |")
    print("|---|---|---|---|---|---|---|")
    for name, (magnet, parameters) in COSTS.items():
        for words, options in ((f"[response] {', '.join(parameters)}", (parameters,)), (f"n_tau = {N_TAU}", ([], N_TAU))):
            measured(magnet, 2000, 0, [])
            _, first = measured(magnet, 2000, 0, *options)
            off, on, ratios = [], [], []
            for seed in range(1, repeat + 1):
                plain, cpu = measured(magnet, n_samples, seed, [])
                off.append(cpu)
                more, cpu = measured(magnet, n_samples, seed, *options)
                on.append(cpu)
                ratios.append(float(more.energy.error[0] / plain.energy.error[0]))
            spread = [f"{np.mean(x):.2f}({100 * np.std(x, ddof=1) / np.sqrt(repeat):.0f})" for x in (off, on)]
            share = np.mean(on) / np.mean(off) - 1
            print(f"| {name} | {words} | {spread[0]} | {spread[1]} | {share:.0%} | {first:.0f} | {np.mean(ratios):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["errors", "cost"])
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--method", default="deterministic", help="of the table of errors")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if "errors" in options.tables:
        errors(options.samples, options.seeds, options.method)
    if "cost" in options.tables:
        cost(options.samples, options.repeat)


if __name__ == "__main__":
    main()

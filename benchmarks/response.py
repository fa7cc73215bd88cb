"""Derivatives in couplings: how small their errors are after a minute on two cores, and what asking for them costs.

    python benchmarks/response.py                   both tables; some ten minutes on one core
    python benchmarks/response.py errors --seeds 4 [--method learned]
    python benchmarks/response.py cost --repeat 5
    python benchmarks/response.py pulls --method learned --seeds 12     (typical, series) about diagonalisation, of small magnets
    python benchmarks/response.py tangents                              of learned networks, without sampling

Chains of 64 sites at beta = 4, by the deterministic method unless another is named. Seconds are those of the CPU, compilation (and
training) apart: every program has run before the clock starts. Chains run side by side, so that a minute on two cores is 120 of them;
errors go as their inverse root. Reference values: free fermions; the infinite Heisenberg chain by integral equations, with which the ring
agrees to far below the errors.
"""

import argparse
import time
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from infinite_chain import infinite_chain

import thermodbm as tb
from thermodbm.evolve.learned import moved_error
from thermodbm.evolve.networks import classes_of, train_networks, unpacked
from thermodbm.evolve.tangents import network_tangents, tangents_at
from thermodbm.exact.layered_ring import momenta, network_modes, ring_averages
from thermodbm.exact.response import response_solver
from thermodbm.models.parameters import parameters as parameters_of_magnet
from thermodbm.models.parameters import stacked
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
RANDOM = np.random.default_rng(1)
BRANCHED = tb.graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)])
TWELVE = tb.graph(12, [(i, i + 1) for i in range(11)] + [(0, 5), (3, 9), (2, 11)])
TEN = tb.graph(10, [(i, (i + 1) % 10) for i in range(10)] + [(0, 4), (2, 7)])
MANY = {"n_samples": 50_000, "n_chains": 128}
FEW = {"n_samples": 10_000, "n_chains": 64}
SMALL = {
    "learned": {
        "tfim ring of 10": (
            tb.transverse_field_ising(tb.make_lattice("chain", 10), 1.0, 0.8),
            ["J", "gamma", "beta"],
            [0.25, 0.5, 1.0],
            FEW,
        ),
        "xxz ring of 8": (tb.xxz(tb.make_lattice("chain", 8), delta=0.5), ["J", "delta", "beta"], [0.25, 1.0], FEW),
        "tfim, branched": (
            tb.transverse_field_ising(BRANCHED, [1, -0.7, 0.5, 0.8, -1.1], [0.5, 0.8, 0.6, 0.9, 0.7]),
            ["J", "gamma", "J.each", "beta"],
            [0.4, 1.0],
            FEW,
        ),
    },
    "typical": {
        "xxz graph of 12": (tb.xxz(TWELVE, RANDOM.normal(size=14), 0.7), ["J", "delta", "h", "beta"], [0.2, 0.5, 1.0, 3.0], {}),
        "tfim graph of 10, h": (
            tb.transverse_field_ising(TEN, RANDOM.normal(size=12), 0.8, 0.2),
            ["J", "gamma", "h", "beta"],
            [0.25, 0.5, 1.0, 3.0],
            {},
        ),
    },
}
SMALL["series"] = {  # by graphs, and by vertices: at the isotropic point along delta, and in a field
    "xxz ring of 6": (tb.xxz(tb.make_lattice("chain", 6), delta=0.4), ["J", "delta", "h"], [0.4, 0.8, 2.0], MANY),
    "xxz ring of 6, delta = 1": (tb.xxz(tb.make_lattice("chain", 6)), ["J", "delta"], [0.4, 0.8, 2.0], MANY),
    "xxz ring of 6, h": (tb.xxz(tb.make_lattice("chain", 6), delta=0.6, h=0.8), ["J", "delta", "h"], [0.4, 0.8, 2.0], MANY),
}
METHODS = {
    "learned": {"kind": "learned", "layers": 4},
    "typical": {"kind": "typical"},
    "series": {"kind": "deterministic", "sampler": "series"},
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


def pulls(kind: str, seeds: int) -> None:
    """The table of pulls: root mean squares over seeds, observable by observable and temperature by temperature."""
    print("| magnet | r.m.s. of each derivative and temperature: least, median, largest | largest pull | values | s a seed |")
    print("|---|---|---|---|---|")
    for name, (magnet, parameters, T, sampling) in SMALL[kind].items():
        settings, began = {"T": T, "parameters": parameters, "progress": False}, time.process_time()
        exact, found = tb.response(magnet, method="exact", **settings), {}
        for seed in range(seeds):
            of_seed = tb.response(magnet, method=METHODS[kind], sampling={"seed": seed, **sampling}, **settings)
            for observable, parameter in ((o, p) for o in of_seed for p in parameters):
                estimate = of_seed[observable][parameter]
                off = (estimate.mean - exact[observable][parameter].mean) / np.maximum(estimate.error, 1e-9)
                found.setdefault((observable, parameter), []).append(off.ravel())
        values = [np.array(x) for x in found.values() if np.abs(x).max() > 1e-3]  # what symmetry fixes is exact
        rms = np.sort(np.concatenate([np.sqrt((x**2).mean(0)) for x in values]))
        cells = f"{rms[0]:.2f}, {np.median(rms):.2f}, {rms[-1]:.2f} | {max(np.abs(x).max() for x in values):.1f}"
        seconds = (time.process_time() - began) / seeds
        print(f"| {name} | {cells} | {sum(x.size for x in values)} | {seconds:.1f} |", flush=True)


def tangents(n: int = 32) -> None:
    """How far derivatives of e, m_x and c along the tangents of learned networks are from exact ones, in units of their stated error."""
    ks, betas, names = momenta(n), [0.5, 1.0, 2.0, 4.0, 8.0], ["J", "gamma", "beta"]
    print("| gamma, layers | largest deviation of de, dm_x, dc | in units of the stated error |\n|---|---|---|")
    for gamma, layers in product((0.5, 1.0, 1.5), (2, 4, 6)):
        magnet = tb.transverse_field_ising(tb.make_lattice("chain", n), 1.0, gamma)
        found = parameters_of_magnet(magnet, names)
        networks, directions = train_networks(magnet, betas, layers, 1e-3), stacked(found)
        arrays = network_tangents(magnet, networks, directions, classes_of(magnet))
        exact, off, ratio = response_solver(magnet, found)(np.array(betas)), np.zeros(3), np.zeros(3)
        for k, beta in enumerate(betas):
            network, moved = unpacked(networks, beta), tangents_at(arrays, networks, beta)

            def averages(K, g, K_beta, g_beta, J, gamma, beta=beta):
                def of(K, g):
                    found = ring_averages(ks, network_modes(ks, K, g), J, gamma, beta)
                    return jnp.stack([found.energy, found.magnetization_x])

                values, slopes = jax.jvp(of, (K, g), (K_beta, g_beta))
                return jnp.append(values, -(beta**2) * slopes[0])

            for j, name in enumerate(names):
                move = *(x[j][:, 0] for x in moved[:4]), float(name == "J"), float(name == "gamma")
                values, slopes = jax.jvp(averages, (*(x[:, 0] for x in network[1:5]), 1.0, gamma), move)
                slopes = np.array(slopes) + np.array([0, 0, (name == "beta") * 2 * float(values[2]) / beta])
                for i, observable in enumerate(("energy", "magnetization_x", "specific_heat")):
                    here = abs(slopes[i] - exact[observable][name][k])
                    off[i] = max(off[i], here)
                    ratio[i] = max(ratio[i], here / moved_error(magnet, observable, network, moved, directions)[j])
        print(f"| {gamma}, {layers} | {', '.join(f'{x:.0e}' for x in off)} | {', '.join(f'{x:.2f}' for x in ratio)} |", flush=True)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["errors", "cost"])
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--method", default="deterministic", help="of the table of errors")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if "errors" in options.tables:
        errors(options.samples, options.seeds, options.method)
    if "pulls" in options.tables:
        pulls(options.method, options.seeds)
    if "tangents" in options.tables:
        tangents()
    if "cost" in options.tables:
        cost(options.samples, options.repeat)


if __name__ == "__main__":
    main()

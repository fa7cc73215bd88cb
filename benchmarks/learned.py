"""What few trained layers are worth: errors against the number of layers, and what an error bar costs, beside Trotter products.

    python benchmarks/learned.py layers [--n-sites 64] [--betas 4 8]      no sampling: everything by free fermions
    python benchmarks/learned.py merit [--samples 60000] [--betas 4 8]    error x sqrt(CPU s), of e, m_z^2 and c, on one core
        [--magnet square | heisenberg-chain | heisenberg-square] [--layers 8]    64 spins; square: gamma = 3.04
        [--bare [--polish 200000]]    errors of sampling alone, of networks at hand that may be polished
    python benchmarks/learned.py sampled --magnet square --betas 4         e, order parameter and c against layers, sampled
    python benchmarks/learned.py figure FILE.png                          learned couplings and errors against layers

Chain N = 64, gamma = J, unless a magnet is given. `layers`: deviations of e, m_z^2 and c from the exact ones, of learned networks, of
symmetric Trotter products of as many layers, and of two of these combined (L and L/2: as many layers in both together are counted).
`merit`: the learned method with its networks at hand and with the training counted (m_z^2 is the staggered structure factor of a Heisenberg
magnet), and the deterministic method; compilation, once per shape, is left out. Errors of learned networks in `sampled` are those of
sampling alone; its networks are kept in the user's cache.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from thermodbm import (
    DeterministicOptions,
    LearnedOptions,
    SamplingOptions,
    SpinHamiltonian,
    heisenberg,
    make_lattice,
    transverse_field_ising,
)
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.deterministic import deterministic_method
from thermodbm.evolve.learned import Store, learned_method
from thermodbm.evolve.method import Point, ThermalMethod
from thermodbm.evolve.networks import classes_of, packed, unpacked
from thermodbm.evolve.polish import polished
from thermodbm.evolve.training import ring_problem, train_sweep
from thermodbm.exact.free_fermions import ising_ring
from thermodbm.exact.layered_ring import momenta, network_modes, order_parameter_squared, ring_averages, thermal_modes
from thermodbm.run.networks import kept

LAYERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
NAMES = ("energy", "order_parameter_squared", "specific_heat")
MAGNETS = {
    "chain": lambda n: transverse_field_ising(make_lattice("chain", n)),
    "square": lambda n: transverse_field_ising(make_lattice("square", (round(n**0.5),) * 2), 1.0, 3.04),
    "heisenberg-chain": lambda n: heisenberg(make_lattice("chain", n)),
    "heisenberg-square": lambda n: heisenberg(make_lattice("square", (round(n**0.5),) * 2)),
}


def averages(n: int, K: np.ndarray, g: np.ndarray, beta: float) -> np.ndarray:
    """e, m_z^2 and c = beta^2 (<H^2> - <H>^2)/N of a layered ring with J = gamma = 1."""
    ks = momenta(n)
    modes = network_modes(ks, K, g)
    found = ring_averages(ks, modes, 1.0, 1.0, beta)
    return np.array([float(found.energy), order_parameter_squared(ks, modes), float(found.specific_heat)])


def exact(n: int, beta: float) -> np.ndarray:
    curve, ks = ising_ring(n, 1.0, 1.0, np.array([beta])), momenta(n)
    return np.array([curve["energy"][0], order_parameter_squared(ks, thermal_modes(ks, 1.0, 1.0, beta)), curve["specific_heat"][0]])


def errors_by_layers(n: int, beta: float, most: int = 12) -> dict[str, dict[int, np.ndarray]]:
    """|deviation| of e, m_z^2 and c for each number of layers."""
    true, trotter, found = exact(n, beta), {}, {"learned": {}, "Trotter": {}, "combined": {}}
    for L in LAYERS:
        problem = ring_problem(n, 1.0, 1.0, L)
        trotter[L] = averages(n, beta * problem.rate_K[:, 0], beta * problem.rate_g[:, 0], beta)
        found["Trotter"][L] = np.abs(trotter[L] - true)
        if L // 2 in trotter and L % 2 == 0:
            found["combined"][L + L // 2] = np.abs((4 * trotter[L] - trotter[L // 2]) / 3 - true)
        if most >= L:
            betas = [b for b in (0.5, 1.0, 2.0, 4.0, 8.0) if b < beta]
            last = train_sweep(problem, [*betas, beta])[-1]
            found["learned"][L] = np.abs(averages(n, last.K[:, 0], last.g[:, 0], beta) - true)
    return found


def fewest(errors: dict[int, np.ndarray], k: int, tolerance: float) -> str:
    """The least number of layers from which on an error stays below a tolerance."""
    enough = [L for L in errors if all(errors[M][k] <= tolerance for M in errors if M >= L)]
    return str(min(enough)) if enough else f"> {max(errors)}"


def layers(n: int, betas: list[float]) -> None:
    print("| gamma, beta | tolerance | learned, e / m_z^2 / c | Trotter | two Trotter products combined |\n|---|---|---|---|---|")
    for beta in betas:
        errors = errors_by_layers(n, beta)
        for tolerance in (1e-3, 1e-4):
            cells = (" / ".join(fewest(errors[kind], k, tolerance) for k in range(3)) for kind in errors)
            print(f"| 1, {beta:g} | {tolerance:g} | " + " | ".join(cells) + " |", flush=True)


def sample(method: ThermalMethod, beta: float, seed: int) -> tuple[Point, float, float]:
    """The point, CPU seconds, and those of the first call, in which networks are trained."""
    start = time.process_time()
    state, info, calls, first = method.init(jax.random.key(seed)), None, 0, 0.0
    while info is None or info.point is None:
        calls += 1
        state, info = method.advance(jax.random.fold_in(jax.random.key(seed), calls), state, beta)
        first = first or time.process_time() - start
    return info.point, time.process_time() - start, first


def remembered(known: dict) -> Store:
    """A store that keeps what was trained in memory."""

    def store(description, make):
        key = repr(description)
        if key not in known:
            known[key] = make()
        return known[key]

    return store


def shown(estimate: Estimate, true: float) -> str:
    """With its deviation where the exact value is known."""
    off = f", off {float(estimate.mean) - true:+.1e}" if np.isfinite(true) else ""
    return f"{float(estimate.mean):.5f}({float(estimate.error):.1e}){off}"


def merit(magnet: str, n: int, betas: list[float], n_samples: int, options: LearnedOptions, *, bare: bool) -> None:
    print("| beta | method | e | m_z^2 | c | CPU s | error x sqrt(CPU s) of e | of m_z^2 | of c |\n|---|---|---|---|---|---|---|---|---|")
    hamiltonian, sampling = MAGNETS[magnet](n), SamplingOptions(n_samples=n_samples)
    names = [k if k != NAMES[1] or not hamiltonian.conserves_sz else "staggered_structure_factor" for k in NAMES]
    for beta in betas:
        true = exact(n, beta) if magnet == "chain" else np.full(3, np.nan)
        for name in ("learned", "deterministic"):
            if name == "learned":
                warmer = [b for b in (0.5, 1.0, 2.0, 4.0) if b < beta and not bare]
                arrays = network_at(hamiltonian, options, beta)[0] if bare else None
                store = (lambda *_, arrays=arrays: arrays) if bare else remembered({})
                method = learned_method(hamiltonian, LearnedOptions(layers=options.layers), sampling, [*warmer, beta], store=store)
            else:
                method = deterministic_method(hamiltonian, DeterministicOptions(), sampling)
            training = sample(method, beta, seed=0)[2]  # compiles
            point, cpu, found_again = sample(method, beta, seed=1)
            found = [point.observables[k] for k in names]
            rows = {f"{name}, {point.diagnostics.get('n_layers', point.diagnostics.get('n_slices')):.0f} layers": cpu}
            if name == "learned":
                rows = {f"{next(iter(rows))}, network at hand": cpu}
                rows |= {} if bare else {"with training and its compilation": cpu - found_again + training}
            for title, seconds in rows.items():
                values = " | ".join(shown(e, t) for e, t in zip(found, true, strict=True))
                merits = " | ".join(f"{float(e.error) * np.sqrt(seconds):.1e}" for e in found)
                print(f"| {beta:g} | {title} | {values} | {seconds:.1f} | {merits} |", flush=True)


def network_at(hamiltonian: SpinHamiltonian, options: LearnedOptions, beta: float) -> tuple[dict[str, np.ndarray], float]:
    """The network of one temperature, from the user's cache or trained with hotter ones, then polished; said to be without error, so that
    what it is off by is seen; and CPU seconds."""
    start, warmer = time.process_time(), [b for b in (0.5, 1.0, 2.0, 4.0) if b < beta]
    method = learned_method(hamiltonian, LearnedOptions(layers=options.layers), SamplingOptions(), [*warmer, beta], store=kept)
    trained = method.advance(jax.random.key(0), method.init(jax.random.key(0)), beta)[0]["networks"]
    arrays = packed([unpacked(trained, beta)])
    if options.polish:
        arrays = polished(hamiltonian, arrays, classes_of(hamiltonian), options.polish)
    return packed([unpacked(arrays, beta)._replace(infidelity=0.0, energy_off=0.0)]), time.process_time() - start


def sampled(magnet: str, n: int, beta: float, n_samples: int, learned_layers: list[int], slices: list[int], polish: int) -> None:
    """Learned networks and single Trotter products of several numbers of layers, and what the deterministic method extrapolates to."""
    hamiltonian = MAGNETS[magnet](n)
    order = "staggered_structure_factor" if hamiltonian.conserves_sz else NAMES[1]
    names = ("energy", order, "specific_heat")
    methods = {"deterministic, extrapolated": DeterministicOptions()}
    slices = sorted({2 ** int(np.ceil(np.log2(m))) for m in slices})  # the method knows powers of two alone
    methods |= {f"Trotter, {m} layers": DeterministicOptions(d_tau=beta / (2 * m), extrapolate=False) for m in slices}
    methods |= {f"learned, {m} layers": LearnedOptions(layers=m) for m in learned_layers}
    methods |= {f"learned, {m} layers, polished": LearnedOptions(layers=m, polish=polish) for m in learned_layers if polish}
    print(f"| {magnet}, beta = {beta:g} | e | {order} | c | off by |\n|---|---|---|---|---|")
    reference = None
    for title, options in methods.items():
        samples = SamplingOptions(n_samples=n_samples if reference else 4 * n_samples)
        if isinstance(options, LearnedOptions):
            arrays, seconds = network_at(hamiltonian, options, beta)
            title += f" ({seconds:.0f} s)" if seconds > 1 else ""
            method = learned_method(hamiltonian, options, samples, [beta], store=lambda description, make, arrays=arrays: arrays)
        else:
            method = deterministic_method(hamiltonian, options, samples)
        found = [sample(method, beta, seed=1)[0].observables[k] for k in names]
        reference = reference or found
        off = " / ".join(
            f"{float(e.mean - r.mean):+.1e}({float(np.hypot(e.error, r.error)):.0e})" for e, r in zip(found, reference, strict=True)
        )
        print(f"| {title} | " + " | ".join(f"{float(e.mean):.5f}({float(e.error):.1e})" for e in found) + f" | {off} |", flush=True)


def figure(n: int, beta: float, path: Path) -> None:
    """Couplings against the layer beside Trotter's, and errors against the number of layers."""
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    L = 8
    problem = ring_problem(n, 1.0, 1.0, L)
    last = train_sweep(problem, [b for b in (0.5, 1.0, 2.0, 4.0, 8.0) if b <= beta])[-1]
    for values, trotter, label, colour in (
        (last.K[:, 0], beta * problem.rate_K[:, 0], "bonds, K", "C0"),
        (last.g[:, 0], beta * problem.rate_g[:, 0], "transverse, g", "C1"),
    ):
        position = np.arange(len(values)) + (0 if label.startswith("bonds") else 0.5)
        left.plot(position, values, "o-", color=colour, label=f"{label}, learned")
        left.plot(position, trotter, ":", color=colour, label=f"{label}, Trotter")
    left.set(xlabel="layer, from ancillas to spins", ylabel="coupling", title=f"{L} layers, chain of {n}, beta = {beta:g}")
    left.legend()
    for (kind, errors), style in zip(errors_by_layers(n, beta).items(), ("o-", "s--", "^:"), strict=True):
        for k, name in enumerate(("e", "$m_z^2$", "c")):
            right.loglog(list(errors), [e[k] for e in errors.values()], style, color=f"C{k}", label=f"{name}, {kind}", markersize=4)
    right.set(xlabel="layers", ylabel="|deviation|", ylim=(1e-11, 2), title="Deviation from the exact value")
    right.legend(fontsize=7, ncols=3)
    plt.savefig(path, dpi=150)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["layers", "merit", "sampled", "figure"])
    parser.add_argument("file", nargs="?", type=Path, default=Path("learned.png"))
    parser.add_argument("--n-sites", type=int, default=64)
    parser.add_argument("--betas", nargs="+", type=float, default=[4.0, 8.0])
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--magnet", choices=MAGNETS, default="chain")
    parser.add_argument("--layers", type=lambda text: text if text == "auto" else int(text), default="auto")
    parser.add_argument("--learned", nargs="*", type=int, default=[8, 16, 24], help="Numbers of learned layers of `sampled`.")
    parser.add_argument("--slices", nargs="*", type=int, default=[16, 32, 64], help="Trotter layers of `sampled`, powers of two.")
    parser.add_argument("--polish", type=int, default=0, help="Samples by which learned networks of `sampled` and `--bare` are polished.")
    parser.add_argument("--bare", action="store_true", help="Errors of `merit` without what networks miss, and no training in it.")
    arguments = parser.parse_args()
    if arguments.what == "layers":
        layers(arguments.n_sites, arguments.betas)
    elif arguments.what == "merit":
        if arguments.polish and not arguments.bare:
            parser.error("--polish of `merit` wants --bare")
        options = LearnedOptions(layers=arguments.layers, polish=arguments.polish)
        merit(arguments.magnet, arguments.n_sites, arguments.betas, arguments.samples, options, bare=arguments.bare)
    elif arguments.what == "sampled":
        sizes = arguments.samples, arguments.learned, arguments.slices, arguments.polish
        sampled(arguments.magnet, arguments.n_sites, arguments.betas[-1], *sizes)
    else:
        figure(arguments.n_sites, arguments.betas[-1], arguments.file)


if __name__ == "__main__":
    main()

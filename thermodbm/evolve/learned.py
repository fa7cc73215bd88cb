"""Networks of few layers, trained to hold the thermal state, as a thermal method: all temperatures are trained at first, then sampled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import NumericsError
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.chains import (
    MOVED,
    Combine,
    Facts,
    Plan,
    advance_levels,
    chain_groups,
    ensemble_at,
    how_far,
    level_from,
    plain,
    point_of,
    progress_of,
    start_levels,
    sweeps_of_levels,
)
from thermodbm.evolve.cluster import is_power
from thermodbm.evolve.dense_layers import Classes
from thermodbm.evolve.deterministic import join_temperatures
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.networks import Network, classes_of, laid_out, largest_coupling, layers_of, root_share, train_networks, unpacked
from thermodbm.evolve.options import LearnedOptions, SamplingOptions
from thermodbm.evolve.polish import polished
from thermodbm.evolve.tangents import Tangents, check_parameters, network_tangents, tangents_at
from thermodbm.evolve.training import ROUNDING
from thermodbm.models import SpinHamiltonian
from thermodbm.models.parameters import Directions, Parameter, stacked
from thermodbm.sampling.exchange_facts import exchange_facts
from thermodbm.sampling.ring import VISIBLE, ising_facts

TARGET_ERROR = 1e-3
"""Of the order parameter, by which layers = "auto" is decided."""
DIFFERENCES = {"energy": 1e-5, "specific_heat": 5e-3}
LEAST_DIFFERENCE = 1e-4
"""What is left, at most, of tangents of networks along which their state hardly changes: of derivatives of these, and of all others."""
DOUBTFUL = 0.03
"""Expected error of the order parameter above which a network is not trusted."""


def moved_error(hamiltonian: SpinHamiltonian, name: str, network: Network, tangents: Tangents, directions: Directions) -> np.ndarray:
    """Of derivatives of an observable in all directions, (K,), from the infidelity I and how it moves: an error that is a multiple of I or
    of its root moves by d ln I and by the scale of the parameter.

    Upper ends of what was measured, exactly: tfim rings of 32 sites, gamma/J = .5, 1 and 1.5, beta J = .5 to 8, 2 to 6 layers, derivatives
    of e, m_x and c in J, gamma and beta.
    """
    sizes = np.max(np.abs(np.concatenate(directions.leaves, axis=1)), axis=1, initial=0.0)
    scale = sizes / largest_coupling(hamiltonian) + directions.beta / network.beta  # per unit of the parameter
    rate = np.abs(tangents.infidelity) / max(network.infidelity, ROUNDING) + 2 * scale

    def moved(name: str) -> np.ndarray:
        off = systematic_error(hamiltonian, name, network) * rate * (1.0 if name in DIFFERENCES else 0.5)
        return np.hypot(off, DIFFERENCES.get(name, LEAST_DIFFERENCE) * scale)

    if name not in ("free_energy", "entropy"):
        return moved(name)
    free = sizes * systematic_error(hamiltonian, "magnetization_x", network)  # an average of bonds and fields
    return free if name == "free_energy" else network.beta * np.hypot(moved("energy"), free)


Store = Callable[[Mapping[str, Any], Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]
"""Hands back what is kept under a description, or makes and keeps it."""


def train_anew(description: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The store that keeps nothing."""
    return make()


def facts_of(hamiltonian: SpinHamiltonian, network: Network) -> Facts:
    """What its sampler must know."""
    if hamiltonian.conserves_sz:
        return exchange_facts(hamiltonian)._replace(layered=True)
    n_layers, times = 2 * len(network.g), network.times if is_power(network, network.times) else 1
    # spins, and ancillas: it reads the same from there, and from where two of the networks meet of which it is composed
    thermal = tuple(range(VISIBLE, n_layers, n_layers // (2 * times))) if n_layers > 2 else (VISIBLE,)
    largest = 2 * np.abs(network.K).max(initial=0.0) / max(np.abs(np.asarray(hamiltonian.zz)).max(initial=0.0), 1e-300)
    return ising_facts(hamiltonian, largest)._replace(thermal=thermal)


def systematic_error(hamiltonian: SpinHamiltonian, name: str, network: Network) -> float:
    """Of an observable per site, from the infidelity I per site of the network: the energy and its slope are off by a multiple of I, as the
    network is nearest to the thermal state, or by what is known of it; all else by a part of its root.

    The numbers are upper ends of what was measured, exactly: tfim rings of 32 and 64 sites, gamma/J = .5 and 1, beta J .25 to 8, 2 to 8
    layers (energy up to 11/beta to 2.5 J times I, m_x .15 and m_z^2 .5 times its root); Heisenberg rings of 8.
    """
    infidelity = network.infidelity
    of_root = 0.15 if name == "magnetization_x" and not hamiltonian.conserves_sz else root_share(hamiltonian)
    if name == "energy":
        return float(np.hypot((12 / network.beta + 3 * largest_coupling(hamiltonian)) * infidelity, network.energy_off))
    return 60 * infidelity if name == "specific_heat" else of_root * np.sqrt(infidelity)


def learned_method(
    hamiltonian: SpinHamiltonian,
    options: LearnedOptions,
    sampling: SamplingOptions,
    betas: Sequence[float],
    comm: Comm = SERIAL,
    store: Store = train_anew,
    response: Sequence[Parameter] = (),
) -> ThermalMethod:
    """Train a network at every beta, each beginning from its neighbour, then sample them as the deterministic method does its own.

    The specific heat is -beta^2 de/dbeta along the trained networks. Only a conserved magnetisation has a susceptibility: layers of a
    learned network are no imaginary times. Derivatives in couplings are taken along networks trained beside, see `tangents`. The
    systematic error of the network is in all error bars.

    Raises:
        InputError: for a magnet that cannot be trained, or parameters that networks cannot follow.
    """
    classes, betas, response = classes_of(hamiltonian), sorted({float(beta) for beta in betas if beta > 0}), tuple(response)
    directions = stacked(response) if response else None
    by = check_parameters(hamiltonian, response, classes, options.polish)
    target = min(TARGET_ERROR, sampling.target_error or TARGET_ERROR)
    n_together, n_groups = chain_groups(hamiltonian.n_sites, sampling.n_chains, comm.size)
    wanted, n_thermal = sweeps_of_levels(sampling, n_together * n_groups)
    sampler = options.sampler or ("loop" if hamiltonian.conserves_sz else "mixed")

    def plan_of(network: Network) -> Plan:
        return Plan(
            hamiltonian,
            facts_of(hamiltonian, network),
            sampler,
            n_together,
            n_groups,
            wanted,
            n_thermal,
            response=response,
            derivatives=by,
            open_end=sampling.target_error is not None,
        )

    def init(key: jax.Array) -> State:
        facts = exchange_facts(hamiltonian) if hamiltonian.conserves_sz else ising_facts(hamiltonian, 1.0)
        ensemble_at(facts, sampler, 1)  # complains at once
        return {"beta": np.nan, "levels": {}, "networks": {}, "tangents": {}}

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        if not state["networks"]:
            made = _networks(hamiltonian, options, betas, target, classes, directions, store) if comm.rank == 0 else None
            trained, tangents = comm.share(made)[0]
            return {**state, "networks": trained, "tangents": tangents}, Info(0.0, f"trained {len(betas)} networks", None)
        network = unpacked(state["networks"], beta)
        tangents = tangents_at(state["tangents"], state["networks"], beta) if response else None
        plan = plan_of(network)
        key_start, key_sweep = jax.random.split(key)
        levels = {int(i): level_from(level) for i, level in state["levels"].items()}
        if state["beta"] != beta:
            levels = start_levels(key_start, plan, levels, [layers_of(hamiltonian, network)], comm)
        try:
            source = _source(hamiltonian, classes, network, directions, tangents)
            levels = advance_levels(key_sweep, plan, levels, source, comm)
        except NumericsError as error:
            raise NumericsError(f"{error} At beta = {beta:.6g}.") from None
        state = {**state, "beta": beta, "levels": {str(i): plain(level) for i, level in levels.items()}}
        fraction, message, point = min(progress_of(plan, levels)), "", None

        combine = _with_what_it_misses(hamiltonian, network, tangents, directions)
        if fraction >= 1 or sampling.target_error:
            fraction, message = how_far(plan, levels, beta, comm, sampling.target_error, combine)
        if fraction >= 1:
            point = _point(hamiltonian, point_of(plan, levels, beta, comm, combine), network, classes)
        return state, Info(min(fraction, 1.0), message, point)

    def summarize(points: list[Point], betas: np.ndarray) -> list[Point]:
        return join_temperatures(hamiltonian, points, betas)

    return ThermalMethod(init, advance, summarize=summarize)


def _with_what_it_misses(
    hamiltonian: SpinHamiltonian, network: Network, tangents: Tangents | None, directions: Directions | None
) -> Combine:
    """Puts the error of the network into those of sampling; what is exact stays so."""

    def combine(name: str, found: list[Estimate]) -> Estimate:
        error = np.asarray(found[0].error)
        if name.startswith(MOVED):
            off = moved_error(hamiltonian, name.removeprefix(MOVED), network, tangents, directions)
        else:
            off = systematic_error(hamiltonian, name, network)
        return found[0]._replace(error=np.where(error > 0, np.hypot(error, off), error))

    return combine


def _networks(
    hamiltonian: SpinHamiltonian,
    options: LearnedOptions,
    betas: Sequence[float],
    target_error: float,
    classes: Classes,
    directions: Directions | None,
    store: Store,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Those of all temperatures, polished where that is asked for, and their tangents where there are directions: kept, or made."""
    couplings = {name: np.asarray(getattr(hamiltonian, name), float).tolist() for name in ("zz", "xy", "x_field")}
    description = {"lattice": repr(hamiltonian.lattice), "bonds": hamiltonian.bonds.tolist(), **couplings}
    description |= {"betas": list(betas), "layers": options.layers, "target_error": target_error}
    trained = store(description, lambda: train_networks(hamiltonian, betas, options.layers, target_error))
    if options.polish:
        trained = store({**description, "polish": options.polish}, lambda: polished(hamiltonian, trained, classes, options.polish))
    if directions is None:
        return trained, {}
    ways = {"directions": [np.asarray(x).tolist() for x in directions]}
    return trained, store({**description, **ways}, lambda: network_tangents(hamiltonian, trained, directions, classes))


def _source(
    hamiltonian: SpinHamiltonian, classes: Classes, network: Network, directions: Directions | None, tangents: Tangents | None
) -> tuple[Any, ...]:
    """From what the weights of its ring are made."""
    lay = lambda K, g: laid_out(hamiltonian, K, g, classes)  # noqa: E731
    point = hamiltonian, lay(network.K, network.g), lay(network.K_beta, network.g_beta)
    if tangents is None:
        return point
    moved = jax.vmap(lay)(tangents.K, tangents.g), jax.vmap(lay)(tangents.K_beta, tangents.g_beta)
    return point, jax.tree.map(jnp.asarray, directions), moved, jnp.asarray(network.beta)


def _point(hamiltonian: SpinHamiltonian, point: Point, network: Network, classes: Classes) -> Point:
    """With the network, and what is to be thought of it."""
    infidelity = network.infidelity
    diagnostics = {**point.diagnostics, "n_layers": layers_of(hamiltonian, network), "infidelity": infidelity}
    diagnostics.pop("d_tau")
    diagnostics.pop("n_slices")
    doubts = Doubt(int(diagnostics["doubts"]))
    if np.sqrt(infidelity) > DOUBTFUL:
        doubts |= Doubt.STATE
    diagnostics |= {
        "doubts": float(doubts),
        "trusted": float(not doubts),
        "systematic_error": systematic_error(hamiltonian, "energy", network),
    }
    weights = {name: np.asarray(getattr(network, name)) for name in ("beta", "K", "g", "K_beta", "g_beta")}
    return point._replace(diagnostics=diagnostics, network=weights | {"bond_class": classes.bonds, "site_class": classes.sites})

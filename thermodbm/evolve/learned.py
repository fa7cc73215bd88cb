"""Networks of few layers, trained to hold the thermal state, as a thermal method: all temperatures are trained at first, then sampled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import InputError, NumericsError
from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.chains import (
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
from thermodbm.evolve.cluster import CARRIED, CARRIED_BLINDLY, clusters, is_uniform, uniform_classes
from thermodbm.evolve.dense_layers import MAX_VECTOR_SITES, Classes, coupling_classes, dense_network, dense_problem, unrotated
from thermodbm.evolve.deterministic import join_temperatures
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import LearnedOptions, SamplingOptions
from thermodbm.evolve.training import Problem, Trained, parameters_of, ring_problem, train_fewest, train_sweep
from thermodbm.exact.free_fermions import applicable
from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import GateLayers, gates_of_classes, trotter_step
from thermodbm.network.ring import RingNetwork, from_classes
from thermodbm.sampling.exchange_facts import exchange_facts
from thermodbm.sampling.ring import VISIBLE, ising_facts

TARGET_ERROR = 1e-3
"""Of the order parameter, by which layers = "auto" is decided."""
DOUBTFUL = 0.03
"""Expected error of the order parameter above which a network is not trusted."""


class Network(NamedTuple):
    """Couplings of all temperatures, the hottest first; plain arrays, as they are kept."""

    beta: np.ndarray  # (n_T,)
    K: np.ndarray  # (n_T, L + 1, classes)
    g: np.ndarray  # (n_T, L, classes)
    K_beta: np.ndarray  # d/dbeta
    g_beta: np.ndarray
    infidelity: np.ndarray  # (n_T,) per site


Store = Callable[[Mapping[str, Any], Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]
"""Hands back what is kept under a description, or makes and keeps it."""


def train_anew(description: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The store that keeps nothing."""
    return make()


def by_free_fermions(hamiltonian: SpinHamiltonian) -> bool:
    """Whether the network of a magnet is trained so, at any length: uniform tfim rings."""
    return applicable(hamiltonian) and bool(hamiltonian.zz[0] and hamiltonian.x_field[0])


def classes_of(hamiltonian: SpinHamiltonian) -> Classes:
    """Bonds and sites that share a coupling.

    Raises:
        InputError: for a magnet that cannot be trained.
    """
    if np.any(np.asarray(hamiltonian.z_field)):
        raise InputError("model.h", expected="0 with method.kind = learned", found="a field along z")
    n = hamiltonian.n_sites
    if by_free_fermions(hamiltonian):
        return Classes(np.zeros(len(hamiltonian.bonds), int), np.zeros(n, int), np.arange(n)[None])
    if unrotated(hamiltonian).conserves_sz and not exchange_facts(hamiltonian).by_loops:
        raise InputError("model", expected="|delta| <= 1 on every bond with method.kind = learned", found="an easy axis")
    if n <= MAX_VECTOR_SITES:
        return coupling_classes(hamiltonian)
    if not (is_uniform(hamiltonian) and clusters(hamiltonian)):
        raise InputError(
            "lattice",
            expected=f"at most {MAX_VECTOR_SITES} sites, or a uniform periodic lattice with clusters of so many (method.kind = learned)",
            found=f"{hamiltonian.lattice.kind} of {n} sites",
            hint='Use method.kind = "deterministic".',
        )
    return uniform_classes(hamiltonian)


def problem_of(hamiltonian: SpinHamiltonian, n_layers: int, classes: Classes) -> Problem:
    """The training of a magnet's network: by free fermions where it is a uniform ring, else written out."""
    if by_free_fermions(hamiltonian):
        return ring_problem(hamiltonian.n_sites, -float(hamiltonian.zz[0]), float(hamiltonian.x_field[0]), n_layers)
    return dense_problem(dense_network(hamiltonian, n_layers, classes))


def train_networks(hamiltonian: SpinHamiltonian, betas: Sequence[float], layers: int | str, target_error: float) -> Network:
    """Of all temperatures: on the magnet itself, or on a cluster of it.

    On a cluster, the infidelity is `CARRIED` times what it is there, or what couplings of a smaller cluster make of it if that is more.
    """
    betas, classes = sorted(set(map(float, betas))), classes_of(hamiltonian)
    if by_free_fermions(hamiltonian) or hamiltonian.n_sites <= MAX_VECTOR_SITES:
        found = _train(hamiltonian, betas, layers, target_error, classes)
        return Network(*(np.array([getattr(t, name) for t in found]) for name in Network._fields))
    cluster, *smaller = clusters(hamiltonian)
    found = _train(cluster, betas, layers, target_error / np.sqrt(CARRIED), uniform_classes(cluster))
    network = Network(*(np.array([getattr(t, name) for t in found]) for name in Network._fields))
    return network._replace(infidelity=carried_infidelity(network, cluster, smaller, layers_of(cluster, network)))


def carried_infidelity(network: Network, cluster: SpinHamiltonian, smaller: Sequence[SpinHamiltonian], n_layers: int) -> np.ndarray:
    """Per site (n_T,), of a network trained on a cluster where it is used on a large magnet."""
    if not smaller:
        return CARRIED_BLINDLY * network.infidelity
    problem = problem_of(cluster, n_layers, uniform_classes(cluster))
    small = train_sweep(problem_of(smaller[0], n_layers, uniform_classes(smaller[0])), network.beta)
    there = [problem.value_and_grad(parameters_of(problem, t.K, t.g), problem.target(t.beta))[0] for t in small]
    return CARRIED * np.maximum(network.infidelity, np.array(there, float))


def _train(hamiltonian: SpinHamiltonian, betas: Sequence[float], layers: int | str, target_error: float, classes: Classes) -> list[Trained]:
    if layers == "auto":
        return train_fewest(lambda n: problem_of(hamiltonian, n, classes), betas, target_error)[1]
    return train_sweep(problem_of(hamiltonian, layers, classes), betas)


def layers_of(hamiltonian: SpinHamiltonian, network: Network) -> int:
    """Layers of deep units, or Trotter steps of as many layers of gates as the colours of the bonds ask for."""
    if not hamiltonian.conserves_sz:
        return network.g.shape[1]
    return (network.g.shape[1] - 1) // len(trotter_step(hamiltonian.bonds))


def facts_of(hamiltonian: SpinHamiltonian, network: Network) -> Facts:
    """What its sampler must know."""
    if hamiltonian.conserves_sz:
        return exchange_facts(hamiltonian)._replace(layered=True)
    n_layers = 2 * network.g.shape[1]
    thermal = (VISIBLE, VISIBLE + n_layers // 2) if n_layers > 2 else (VISIBLE,)  # spins, and ancillas: it reads the same from there
    largest = 2 * np.abs(network.K).max() / max(np.abs(np.asarray(hamiltonian.zz)).max(initial=0.0), 1e-300)
    return ising_facts(hamiltonian, largest)._replace(thermal=thermal)


def laid_out(hamiltonian: SpinHamiltonian, K: np.ndarray, g: np.ndarray, classes: Classes) -> RingNetwork | GateLayers:
    """Couplings of classes bond by bond and site by site."""
    if not hamiltonian.conserves_sz:
        return from_classes(K, g, classes.bonds, classes.sites)
    return gates_of_classes(K, g, classes.bonds, hamiltonian.n_sites)


def systematic_error(hamiltonian: SpinHamiltonian, name: str, infidelity: float, beta: float) -> float:
    """Of an observable per site, from the infidelity I per site of the network: the energy and its slope are off by a multiple of I, as the
    network is nearest to the thermal state; all else by a part of its root.

    The numbers are upper ends of what was measured, exactly: tfim rings of 32 and 64 sites, gamma/J = .5 and 1, beta J .25 to 8, 2 to 8
    layers (energy up to 11/beta to 2.5 J times I, m_x .15 and m_z^2 .5 times its root); Heisenberg rings of 8.
    """
    scale = max(float(np.abs(np.asarray(x)).max(initial=0.0)) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field))
    of_root = 1.0 if hamiltonian.conserves_sz else 0.15 if name == "magnetization_x" else 0.5
    first_order = {"energy": (12 / beta + 3 * scale) * infidelity, "specific_heat": 60 * infidelity}
    return first_order.get(name, of_root * np.sqrt(infidelity))


def learned_method(
    hamiltonian: SpinHamiltonian,
    options: LearnedOptions,
    sampling: SamplingOptions,
    betas: Sequence[float],
    comm: Comm = SERIAL,
    store: Store = train_anew,
) -> ThermalMethod:
    """Train a network at every beta, each beginning from its neighbour, then sample them as the deterministic method does its own.

    The specific heat is -beta^2 de/dbeta along the trained networks. Only a conserved magnetisation has a susceptibility: layers of a
    learned network are no imaginary times. The systematic error of the network is in all error bars.

    Raises:
        InputError: for a magnet that cannot be trained.
    """
    classes, betas = classes_of(hamiltonian), sorted({float(beta) for beta in betas if beta > 0})
    target = min(TARGET_ERROR, sampling.target_error or TARGET_ERROR)
    n_together, n_groups = chain_groups(hamiltonian.n_sites, sampling.n_chains, comm.size)
    wanted, n_thermal = sweeps_of_levels(sampling, n_together * n_groups)
    sampler = options.sampler or ("loop" if hamiltonian.conserves_sz else "mixed")

    def train() -> dict[str, np.ndarray]:
        return train_networks(hamiltonian, betas, options.layers, target)._asdict()

    def networks() -> dict[str, np.ndarray]:
        couplings = {name: np.asarray(getattr(hamiltonian, name), float).tolist() for name in ("zz", "xy", "x_field")}
        magnet = {"lattice": repr(hamiltonian.lattice), "bonds": hamiltonian.bonds.tolist(), **couplings}
        return store({**magnet, "betas": betas, "layers": options.layers, "target_error": target}, train)

    def plan_of(network: Network) -> Plan:
        return Plan(hamiltonian, facts_of(hamiltonian, network), sampler, n_together, n_groups, wanted, n_thermal)

    def init(key: jax.Array) -> State:
        facts = exchange_facts(hamiltonian) if hamiltonian.conserves_sz else ising_facts(hamiltonian, 1.0)
        ensemble_at(facts, sampler, 1)  # complains at once
        return {"beta": np.nan, "levels": {}, "networks": {}}

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        if not state["networks"]:
            trained = comm.share(networks() if comm.rank == 0 else None)[0]
            return {**state, "networks": trained}, Info(0.0, f"trained {len(betas)} networks", None)
        network = Network(**{name: np.asarray(value) for name, value in state["networks"].items()})
        k, plan = int(np.argmin(np.abs(network.beta - beta))), plan_of(network)
        key_start, key_sweep = jax.random.split(key)
        levels = {int(i): level_from(level) for i, level in state["levels"].items()}
        if state["beta"] != beta:
            levels = start_levels(key_start, plan, levels, [layers_of(hamiltonian, network)], comm)
        try:
            weights, drift = (laid_out(hamiltonian, K[k], g[k], classes) for K, g in (network[1:3], network[3:5]))
            levels = advance_levels(key_sweep, plan, levels, (hamiltonian, weights, drift), comm)
        except NumericsError as error:
            raise NumericsError(f"{error} At beta = {beta:.6g}.") from None
        state = {**state, "beta": beta, "levels": {str(i): plain(level) for i, level in levels.items()}}
        infidelity, fraction, message, point = float(network.infidelity[k]), min(progress_of(plan, levels)), "", None

        def combine(name: str, found: list[Estimate]) -> Estimate:
            error = np.asarray(found[0].error)
            off = systematic_error(hamiltonian, name, infidelity, beta)
            return found[0]._replace(error=np.where(error > 0, np.hypot(error, off), error))

        if fraction >= 1 or sampling.target_error:
            fraction, message = how_far(plan, levels, beta, comm, sampling.target_error, combine)
        if fraction >= 1:
            point = _point(hamiltonian, point_of(plan, levels, beta, comm, combine), network, k, classes)
        return state, Info(min(fraction, 1.0), message, point)

    def summarize(points: list[Point], betas: np.ndarray) -> list[Point]:
        return join_temperatures(hamiltonian, points, betas)

    return ThermalMethod(init, advance, summarize=summarize)


def _point(hamiltonian: SpinHamiltonian, point: Point, network: Network, k: int, classes: Classes) -> Point:
    """With the network, and what is to be thought of it."""
    infidelity = float(network.infidelity[k])
    diagnostics = {**point.diagnostics, "n_layers": layers_of(hamiltonian, network), "infidelity": infidelity}
    diagnostics.pop("d_tau")
    diagnostics.pop("n_slices")
    doubts = Doubt(int(diagnostics["doubts"]))
    if np.sqrt(infidelity) > DOUBTFUL:
        doubts |= Doubt.STATE
    diagnostics |= {
        "doubts": float(doubts),
        "trusted": float(not doubts),
        "systematic_error": systematic_error(hamiltonian, "energy", infidelity, network.beta[k]),
    }
    weights = {name: np.asarray(getattr(network, name)[k]) for name in ("beta", "K", "g", "K_beta", "g_beta")}
    return point._replace(diagnostics=diagnostics, network=weights | {"bond_class": classes.bonds, "site_class": classes.sites})

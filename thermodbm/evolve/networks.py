"""The networks of all temperatures of a magnet: trained on the magnet itself, or on clusters of it and composed of what carries over."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.evolve.cluster import ALIKE, CARRIED, CARRIED_BLINDLY, carries_over, clusters, composed, is_uniform, uniform_classes
from thermodbm.evolve.dense_layers import MAX_VECTOR_SITES, Classes, coupling_classes, dense_network, dense_problem, unrotated
from thermodbm.evolve.training import Problem, Trained, parameters_of, ring_problem, sweep, train_fewest, train_sweep
from thermodbm.exact.free_fermions import applicable
from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import GateLayers, gates_of_classes, trotter_step
from thermodbm.network.ring import RingNetwork, from_classes
from thermodbm.sampling.exchange_facts import exchange_facts

PILOT_LAYERS = 6
"""Of the networks that tell down to which temperature couplings carry over: enough that what they lack is due to the size."""


PILOT_TOLERANCE = 1e-2


class Network(NamedTuple):
    """Couplings at one temperature."""

    beta: float
    K: np.ndarray  # (L + 1, classes) of tfim; of exchange (layers of gates, classes), and so is g
    g: np.ndarray  # (L, classes)
    K_beta: np.ndarray  # d/dbeta
    g_beta: np.ndarray
    infidelity: float  # per site
    energy_off: float = 0.0  # how far the energy may be off to first order, of a network that is not quite nearest to the thermal state
    times: int = 1  # of how many networks of a higher temperature it is composed


def packed(networks: Sequence[Network]) -> dict[str, np.ndarray]:
    """As they are kept, the hottest first: shorter ones are filled up with layers that do nothing."""
    networks = sorted(networks, key=lambda network: network.beta)
    arrays = {
        name: np.array([getattr(network, name) for network in networks], float) for name in ("beta", "infidelity", "energy_off", "times")
    }
    for name in ("K", "g", "K_beta", "g_beta"):
        values = [np.asarray(getattr(network, name)) for network in networks]
        most = max(map(len, values))
        arrays[name] = np.array([np.pad(x, ((0, most - len(x)), (0, 0))) for x in values])
    return {**arrays, "lengths": np.array([(len(network.K), len(network.g)) for network in networks])}


def unpacked(arrays: Mapping[str, np.ndarray], beta: float) -> Network:
    """The network nearest to a temperature."""
    k = int(np.argmin(np.abs(np.asarray(arrays["beta"]) - beta)))
    n_K, n_g = np.asarray(arrays["lengths"])[k]
    K, g, K_beta, g_beta = (np.asarray(arrays[name])[k] for name in ("K", "g", "K_beta", "g_beta"))
    energy_off, times = (arrays[name][k] if name in arrays else of_none for name, of_none in (("energy_off", 0.0), ("times", 1)))
    rest = float(arrays["infidelity"][k]), float(energy_off), int(times)  # older checkpoints have no more than the first
    return Network(float(arrays["beta"][k]), K[:n_K], g[:n_g], K_beta[:n_K], g_beta[:n_g], *rest)


def by_free_fermions(hamiltonian: SpinHamiltonian) -> bool:
    """Whether the network of a magnet is trained so, at any length: uniform tfim rings."""
    return applicable(hamiltonian) and bool(hamiltonian.zz[0] and hamiltonian.x_field[0])


def on_itself(hamiltonian: SpinHamiltonian) -> bool:
    """Whether the network of a magnet is trained on the magnet, and not on a cluster of it."""
    return by_free_fermions(hamiltonian) or hamiltonian.n_sites <= MAX_VECTOR_SITES


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


def train_networks(hamiltonian: SpinHamiltonian, betas: Sequence[float], layers: int | str, target_error: float) -> dict[str, np.ndarray]:
    """Of all temperatures, `packed`.

    Raises:
        InputError: for fewer layers than the coldest network is composed of.
    """
    betas, classes = sorted(set(map(float, betas))), classes_of(hamiltonian)
    if on_itself(hamiltonian):
        found = _train(hamiltonian, betas, layers, target_error, classes)
        return packed([Network(t.beta, t.K, t.g, t.K_beta, t.g_beta, t.infidelity) for t in found])
    return packed(train_on_clusters(clusters(hamiltonian), betas, layers, target_error))


def train_on_clusters(found: Sequence[SpinHamiltonian], betas: Sequence[float], layers: int | str, target_error: float) -> list[Network]:
    """exp(-beta H/2) = exp(-beta H/2m)^m: below the temperature down to which couplings carry over from the cluster, networks of beta/m are
    put one after the other, m a power of two; `layers` is the number of those of the lowest temperature.

    The infidelity is `CARRIED` times what it is on the cluster, or what couplings of the smaller cluster make of it if that is more; and
    m^2 times that of its factors, whose errors add up (a cluster that is cold itself would hide them).
    """
    cluster, *smaller = found
    reach = _reach(cluster, smaller, betas)
    times = [2 ** max(0, int(np.ceil(np.log2(beta / reach) - 1e-9))) for beta in betas]
    if layers != "auto" and layers < max(times):
        hint = f"Networks of beta = {betas[-1]:g} are composed of {max(times)} of a higher temperature."
        raise InputError("method.layers", expected=f"at least {max(times)} layers", found=layers, hint=hint)
    units = sorted({beta / m for beta, m in zip(betas, times, strict=True)})
    each = layers if layers == "auto" else layers // max(times)
    trained = _train(cluster, units, each, target_error / (max(times) * np.sqrt(CARRIED)), uniform_classes(cluster))
    n_layers = layers_of(cluster, trained[0])
    small = train_sweep(problem_of(smaller[0], n_layers, uniform_classes(smaller[0])), units) if smaller else []
    problem = problem_of(cluster, n_layers, uniform_classes(cluster))
    infidelity = [_carried_infidelity(problem, *pair) for pair in zip_longest(trained, small)]
    networks = []
    for beta, m in zip(betas, times, strict=True):
        k = units.index(beta / m)
        networks.append(Network(*composed(trained[k], m)[:5], m**2 * infidelity[k], times=m))
    return networks


def _reach(cluster: SpinHamiltonian, smaller: Sequence[SpinHamiltonian], betas: Sequence[float]) -> float:
    """The lowest temperature, as a beta, among those asked for and their halves, at which couplings carry over from the cluster."""
    if not smaller:
        return carries_over(cluster)
    halves = sorted({beta / 2**k for beta in betas for k in range(8) if beta / 2**k >= min(*betas, 1 / largest_coupling(cluster)) / 2})
    problems = [problem_of(magnet, PILOT_LAYERS, uniform_classes(magnet)) for magnet in (cluster, smaller[0])]
    reach = halves[0]
    for own, other in zip(*(sweep(problem, halves, tolerance=PILOT_TOLERANCE) for problem in problems), strict=True):
        there = problems[0].value_and_grad(parameters_of(problems[0], other.K, other.g), problems[0].target(own.beta))[0]
        if there > ALIKE * own.infidelity:
            break
        reach = own.beta
    return reach


def largest_coupling(hamiltonian: SpinHamiltonian) -> float:
    """The energy by which temperatures are called high or low."""
    return max(float(np.abs(np.asarray(x)).max(initial=0.0)) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field))


def root_share(hamiltonian: SpinHamiltonian) -> float:
    """How far the order parameter or staggered structure factor is off at most, in units of the root of the infidelity per site."""
    return 1.0 if hamiltonian.conserves_sz else 0.5


def _carried_infidelity(problem: Problem, network: Trained, other: Trained | None) -> float:
    """Per site, of a network trained on a cluster where it is used on a large magnet."""
    target = problem.target(network.beta)
    there = [float(problem.value_and_grad(parameters_of(problem, x.K, x.g), target)[0]) for x in (network, other) if x is not None]
    return max((CARRIED if other is not None else CARRIED_BLINDLY) * max(there), 0.0)


def _train(hamiltonian: SpinHamiltonian, betas: Sequence[float], layers: int | str, target_error: float, classes: Classes) -> list[Trained]:
    if layers == "auto":
        return train_fewest(lambda n: problem_of(hamiltonian, n, classes), betas, target_error)[1]
    return train_sweep(problem_of(hamiltonian, layers, classes), betas)


def layers_of(hamiltonian: SpinHamiltonian, network: Network | Trained) -> int:
    """Layers of deep units, or Trotter steps of as many layers of gates as the colours of the bonds ask for."""
    if not hamiltonian.conserves_sz:
        return len(network.g)
    return (len(network.g) - 1) // len(trotter_step(hamiltonian.bonds))


def laid_out(hamiltonian: SpinHamiltonian, K: np.ndarray, g: np.ndarray, classes: Classes) -> RingNetwork | GateLayers:
    """Couplings of classes bond by bond and site by site."""
    if not hamiltonian.conserves_sz:
        return from_classes(K, g, classes.bonds, classes.sites)
    return gates_of_classes(K, g, classes.bonds, hamiltonian.n_sites)

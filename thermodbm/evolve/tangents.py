"""How trained couplings move with those of the magnet: the derivative of a minimum.

A network depends on beta and the couplings h through beta h alone, N(beta, h) = Theta(beta h), so that d^2 N/dbeta^2 follows from how
dN/dbeta moves when all couplings are raised alike, h (1 + x): d(dN/dbeta)/dx = dN/dbeta + beta d^2 N/dbeta^2.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.response import WORLDLINES, derivatives_of
from thermodbm.evolve.cluster import clusters, composed, factor, uniform_classes
from thermodbm.evolve.dense_layers import Classes
from thermodbm.evolve.networks import Network, largest_coupling, layers_of, on_itself, problem_of, unpacked
from thermodbm.evolve.training import (
    ROUNDING,
    Problem,
    couplings_of,
    differences,
    followed,
    gradient_at,
    hessian,
    motion,
    parameters_of,
)
from thermodbm.models import SpinHamiltonian
from thermodbm.models.parameters import LEAVES, Directions, Parameter, moved

STEP = 0.01
"""Of differences, in units of the largest coupling."""

Beside = Callable[[bytes, float, int], Problem]
"""(a direction of couplings, how far along it, layers) -> the training of the magnet there."""


class Tangents(NamedTuple):
    """Derivatives of a network in K directions; the first axis is theirs."""

    K: np.ndarray
    g: np.ndarray
    K_beta: np.ndarray
    g_beta: np.ndarray
    infidelity: np.ndarray  # (K,)


def check_parameters(hamiltonian: SpinHamiltonian, parameters: Sequence[Parameter], classes: Classes, polish: int) -> str | None:
    """Of what derivatives are to be taken, see `derivatives_of`; None where none are.

    Raises:
        InputError: for a parameter that trained networks cannot follow: where bonds or sites that share a coupling would become different,
            |delta| would not stay below 1, or nothing of the field along z is measured; and for polished networks.
    """
    if not parameters:
        return None
    instead = 'Use method.kind = "deterministic".'
    if polish:
        raise InputError("response", expected="method.polish = 0", found=polish, hint="What polishing moves is not differentiated.")

    def refuse(expected: str, p: Parameter, hint: str) -> None:
        raise InputError("response.parameters", expected=f"{expected} with learned networks", found=p.name, hint=hint)

    for p in parameters:
        for leaf, labels in (("zz", classes.bonds), ("xy", classes.bonds), ("x_field", classes.sites)):
            way, here = getattr(p.directions, leaf), np.asarray(getattr(hamiltonian, leaf), float)
            if not _alike(way, here, labels):
                refuse("couplings of all bonds or sites alike", p, f"Those that share a trained coupling must move alike. {instead}")
            if np.any(way[:, here == 0]) and not hamiltonian.conserves_sz:
                refuse("a coupling that is nowhere zero", p, "A network has no couplings there. Give it a small value.")
        if p.directions.z_field.any() and (p.shape or not hamiltonian.conserves_sz):
            refuse("no field along z", p, instead)
    by = derivatives_of(hamiltonian, parameters, by_loops=True)
    if by == WORLDLINES:
        hint = f"At |delta| = 1 loops of another kind begin to occur. {instead}"
        raise InputError("response.parameters", expected="|delta| < 1 for derivatives in delta", found="1", hint=hint)
    return by


def _alike(way: np.ndarray, here: np.ndarray, labels: np.ndarray) -> bool:
    """Whether all members of a class move by the same, in the direction of their own sign."""
    way = way * np.where(here < 0, -1.0, 1.0)
    return all(np.ptp(way[:, labels == label], axis=1).max(initial=0.0) < 1e-9 for label in np.unique(labels))


def network_tangents(
    hamiltonian: SpinHamiltonian, networks: Mapping[str, np.ndarray], directions: Directions, classes: Classes
) -> dict[str, np.ndarray]:
    """`Tangents` of all networks, `packed`, stacked as they are; those of composed networks are trained on the cluster, too."""

    ends = np.cumsum([np.size(getattr(hamiltonian, leaf)) for leaf in LEAVES])[:-1]

    @cache
    def beside(way: bytes, step: float, n_layers: int) -> Problem:
        magnet = moved(hamiltonian, np.split(np.frombuffer(way), ends), step)
        if on_itself(hamiltonian):
            return problem_of(magnet, n_layers, classes)
        cluster = clusters(magnet)[0]
        return problem_of(cluster, n_layers, uniform_classes(cluster))

    found = [_tangents(hamiltonian, unpacked(networks, beta), directions, beside) for beta in networks["beta"]]
    sizes = {name: np.asarray(networks[name]).shape[1] for name in ("K", "g", "K_beta", "g_beta")}
    arrays = {name: np.array([_filled(getattr(t, name), size) for t in found]) for name, size in sizes.items()}
    return {**arrays, "infidelity": np.array([t.infidelity for t in found])}


def tangents_at(arrays: Mapping[str, np.ndarray], networks: Mapping[str, np.ndarray], beta: float) -> Tangents:
    """Those of the network nearest to a temperature."""
    k = int(np.argmin(np.abs(np.asarray(networks["beta"]) - beta)))
    n_K, n_g = np.asarray(networks["lengths"])[k]
    K, g, K_beta, g_beta = (np.asarray(arrays[name])[k] for name in Tangents._fields[:4])
    return Tangents(K[:, :n_K], g[:, :n_g], K_beta[:, :n_K], g_beta[:, :n_g], np.asarray(arrays["infidelity"])[k])


def _tangents(hamiltonian: SpinHamiltonian, network: Network, directions: Directions, beside: Beside) -> Tangents:
    known: dict[bytes, Tangents] = {}
    rows = []
    here = np.concatenate([np.asarray(getattr(hamiltonian, leaf), float) for leaf in LEAVES])
    for *leaves, z, of_beta in zip(*directions, strict=True):
        way = here if of_beta else np.concatenate([*leaves, 0 * z])
        size = np.abs(way).max(initial=0.0)
        if not size:  # a field along z alone
            rows.append(Tangents(*(np.zeros_like(value) for value in network[1:5]), np.zeros(())))
            continue
        key = np.round(way / size, 12).tobytes()
        if key not in known:
            known[key] = _along(hamiltonian, network, key, beside)
        row = Tangents(*(size * value for value in known[key]))
        if of_beta:
            second = ((row.K_beta - network.K_beta) / network.beta, (row.g_beta - network.g_beta) / network.beta)
            row = Tangents(network.K_beta, network.g_beta, *second, row.infidelity / network.beta)
        rows.append(row)
    return Tangents(*(np.stack(parts) for parts in zip(*rows, strict=True)))


def _along(hamiltonian: SpinHamiltonian, network: Network, way: bytes, beside: Beside) -> Tangents:
    """Along couplings the largest of which is 1: how the minimum of the infidelity moves, by second derivatives there; retrained beside, a
    network may end elsewhere in a valley of networks that are as good, and be no derivative."""
    scale, unit = largest_coupling(hamiltonian), factor(network, network.times)
    magnet = partial(beside, way, n_layers=layers_of(hamiltonian, unit))
    theta = parameters_of(magnet(0.0), unit.K, unit.g)

    def gradient(x: float) -> np.ndarray:
        problem = magnet(x * scale)
        return gradient_at(problem, problem.target(unit.beta))(theta)[1]

    here = gradient_at(magnet(0.0), magnet(0.0).target(unit.beta))
    slope = followed(hessian(here, theta), differences(gradient) / scale)

    def network_at(x: float) -> Network:
        problem, there = magnet(x), theta + x * slope
        (K, g), drift = couplings_of(there, problem), motion(problem, unit.beta, there)
        infidelity = gradient_at(problem, problem.target(unit.beta))(there)[0]
        found = Network(unit.beta, K, g, K * drift[problem.index_K], g * drift[problem.index_g], infidelity)
        return composed(found, network.times)

    step = STEP * scale
    ahead, behind = network_at(step), network_at(-step)
    *couplings, infidelity = [(a - b) / (2 * step) for a, b in zip(ahead[1:6], behind[1:6], strict=True)]
    mean = (ahead.infidelity + behind.infidelity) / 2
    return Tangents(*couplings, network.infidelity * infidelity / max(mean, ROUNDING))


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, size - x.shape[1]), (0, 0)))

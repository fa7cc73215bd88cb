"""Small clusters of a large magnet, on which its network is trained: couplings of layers carry over from size to size.

Uniform periodic lattices have one coupling a layer (tfim) or one a layer of gates (exchange), whatever their size. Measured by free
fermions, rings, gamma/J = .7 to 1.5, beta J = 1 to 8, 3 and 6 layers: trained on 16 sites and used on 64, networks have an infidelity
per site 1 to 3.5 times that of networks trained on 64; and at most 3 times the larger of what they have on 16 sites, and what networks
trained on 10 sites have on 16. The latter needs no large magnet, and so is the estimate, doubled (from 10 sites to 48 it is up to 5 times).

A torus of 4x4 spins near the quantum critical point shows how not to: its networks at beta J = 4 hold its own ground state, gapped as it
is, and are off by a quarter of <m_z^2> on 8x8. Couplings of 3x4 have 24 times the infidelity there, and that is how it is noticed.
"""

import dataclasses
from itertools import product
from typing import TypeVar

import numpy as np

from thermodbm.evolve.dense_layers import MAX_SITES, MAX_VECTOR_SITES, Classes, coupling_classes
from thermodbm.models import Lattice, SpinHamiltonian, make_lattice
from thermodbm.models.lattice import two_coloring
from thermodbm.network.exchange import trotter_step

ALIKE = 3.0
"""Couplings carry over where those of a smaller cluster have an infidelity per site on this one of at most this many times its own."""
MAX_RING_SITES = 12
"""Rings are trained on no more: a network of rings of 16 takes a quarter of an hour, of 12 less than a minute."""
CARRIED = 6.0
"""How much larger the infidelity per site may be than on the cluster, or than that of a smaller cluster's couplings on it."""
Couplings = TypeVar("Couplings", bound=tuple)
"""`training.Trained`, or `networks.Network`."""
CARRIED_BLINDLY = 30.0
"""The same where there is no smaller cluster: of rings, the latter is up to 60 times the former where both are below 1e-5."""


def is_uniform(hamiltonian: SpinHamiltonian) -> bool:
    """Whether all bonds are alike and all sites are, on a periodic lattice of nearest neighbours. Legs and rungs of a ladder never are."""
    lattice = hamiltonian.lattice
    if lattice.kind in ("graph", "ladder") or not all(lattice.periodic) or not np.array_equal(hamiltonian.bonds, lattice.bonds()):
        return False
    return all(np.ptp(np.asarray(leaf)) == 0 for leaf in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))


def uniform_classes(hamiltonian: SpinHamiltonian) -> Classes:
    """One coupling for all sites, and one for all bonds (tfim) or for each group of commuting gates (exchange)."""
    labels = np.zeros(len(hamiltonian.bonds), int)
    if hamiltonian.conserves_sz:
        for number, (members, _) in enumerate(trotter_step(hamiltonian.bonds)):
            labels[members] = number
        labels = np.unique(labels, return_inverse=True)[1].reshape(-1)
    n = hamiltonian.n_sites
    permutations = coupling_classes(hamiltonian).permutations if n <= MAX_SITES else np.arange(n)[None]
    return Classes(labels, np.zeros(n, int), permutations)


def clusters(hamiltonian: SpinHamiltonian) -> list[SpinHamiltonian]:
    """The largest cluster of at most `MAX_VECTOR_SITES` sites (rings: `MAX_RING_SITES`) that resembles a uniform magnet, and a smaller
    one if there is one.

    As many neighbours, as nearly square as can be, no frustration where the magnet has none, and as many groups of commuting gates.
    """
    lattice = hamiltonian.lattice
    coordination = 2 * len(hamiltonian.bonds) / lattice.n_sites
    antiferromagnetic = bool((np.asarray(hamiltonian.xy if hamiltonian.conserves_sz else hamiltonian.zz) > 0).any())
    bipartite = antiferromagnetic and two_coloring(lattice.n_sites, lattice.bonds()) is not None
    groups = len(trotter_step(hamiltonian.bonds))
    found = []
    most = min(MAX_RING_SITES, MAX_VECTOR_SITES) if len(lattice.extent) == 1 else MAX_VECTOR_SITES
    for extent in product(*(range(2, n + 1) for n in lattice.extent)):
        if np.prod(extent) * lattice.n_basis > most or tuple(sorted(extent)) != extent:
            continue
        small = make_lattice(lattice.kind, extent)
        if 2 * len(small.bonds()) / small.n_sites != coordination or (bipartite and two_coloring(small.n_sites, small.bonds()) is None):
            continue
        if not hamiltonian.conserves_sz or len(trotter_step(small.bonds())) == groups:
            found.append((min(extent), small.n_sites, small))
    ranked = sorted(found, key=lambda entry: entry[:2])
    largest = ranked[-1:]
    smaller = [entry for entry in ranked if largest and entry[1] <= 0.8 * largest[0][1]][-1:]
    return [_on(hamiltonian, small) for *_, small in largest + smaller]


def carries_over(cluster: SpinHamiltonian) -> float:
    """The lowest temperature, as a beta, where a cluster is all there is: spin waves cross its shortest axis in a time of 1.75 beta, as
    in the rings where a smaller cluster tells."""
    velocity = 1.66 * 4 * float(np.abs(np.asarray(cluster.xy)).max())  # of the square lattice; less for the chain
    return min(cluster.lattice.extent) / (1.75 * velocity)


def chained(x: np.ndarray, times: int, joint: np.ndarray) -> np.ndarray:
    """Layers x of one network so many times one after the other, with `joint` in place of the last and first layers where two meet."""
    return np.concatenate([x[:1], *[x[1:-1], joint] * (times - 1), x[1:-1], x[-1:]])


def composed(network: Couplings, times: int) -> Couplings:
    """The network of times beta from that of beta, as exp(-m beta H/2) = exp(-beta H/2)^m: where two meet, exponents add up."""

    def added(x: np.ndarray) -> np.ndarray:
        return chained(x, times, x[:1] + x[-1:])

    def between(x: np.ndarray) -> np.ndarray:
        return added(x) if len(network.g) == len(network.K) else np.tile(x, (times, 1))

    return network._replace(
        beta=times * network.beta,
        K=added(network.K),
        g=between(network.g),
        K_beta=added(network.K_beta) / times,
        g_beta=between(network.g_beta) / times,
    )


def factor(network: Couplings, times: int) -> Couplings:
    """The inverse of `composed`."""

    def first(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x[: (len(x) - 1) // times], x[-1:]])

    def between(x: np.ndarray) -> np.ndarray:
        return first(x) if len(network.g) == len(network.K) else x[: len(x) // times]

    return network._replace(
        beta=network.beta / times,
        K=first(network.K),
        g=between(network.g),
        K_beta=first(network.K_beta) * times,
        g_beta=between(network.g_beta) * times,
    )


def is_power(network: Couplings, times: int) -> bool:
    """Whether it is composed of so many equal networks."""
    again = composed(factor(network, times), times)
    return all(np.allclose(getattr(again, name), getattr(network, name), rtol=1e-9) for name in ("K", "g"))


def _on(hamiltonian: SpinHamiltonian, lattice: Lattice) -> SpinHamiltonian:
    """The same couplings on another lattice of its kind."""
    bonds = lattice.bonds()
    leaves = {name: np.full(len(bonds), np.asarray(getattr(hamiltonian, name))[0]) for name in ("zz", "xy")}
    leaves |= {name: np.full(lattice.n_sites, np.asarray(getattr(hamiltonian, name))[0]) for name in ("x_field", "z_field")}
    return dataclasses.replace(hamiltonian, lattice=lattice, bond_pairs=tuple(map(tuple, bonds.tolist())), **leaves)

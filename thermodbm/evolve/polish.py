"""Polishing a network on the magnet itself by Monte Carlo: couplings that were trained on a cluster are brought nearer to exp(-beta H/2).

F = Tr(A R)^2/(Tr A^2 Tr R^2), with R = exp(-beta H/2) written as fine Trotter products, is made larger by Newton steps

    delta theta = S^-1 G,  G_k = <O_k>_AR - <O_k>_AA,  S_kl = Cov(O_k, O_l') of the two copies in AA,  d ln F/d theta = 2 G

where O_k = d ln w/d theta_k of the layers of one copy, and the means with R come from two Trotter steps, combined so that their bias
vanishes to fourth order. An observable is off by 2 (<X>_AA - <X>_AR) to first order, whatever the cause: that is the error which a
polished network reports.

Noise: a direction v with v S v = 1 moves by (v W v/n)^(1/2), W the covariance of what O is estimated by, and the infidelity by its square,
and observables with it. So only directions are kept whose step is larger than two or three errors; the rest stays as trained. The first is
S^-1 dm/dtheta, m the order parameter: steps that are S-orthogonal to it leave m alone to first order, so that all that noise does to m, and
all of m that can be mended, is along it. The others are the axes of W.
All rounds say where the optimum is, theta + S^-1 G, and the mean of what they say is taken, by samples: most are drawn in the last.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.overlap import Found, Overlap, exchange_overlap, ising_overlap, sample
from thermodbm.evolve.chains import BRIEF_SECONDS, Facts
from thermodbm.evolve.cluster import chained, is_power
from thermodbm.evolve.dense_layers import Classes, free_couplings, trotter_rates
from thermodbm.evolve.networks import Network, laid_out, layers_of, packed, root_share, unpacked
from thermodbm.evolve.training import Layout, couplings_of, parameters_of
from thermodbm.models import SpinHamiltonian
from thermodbm.network.exchange import trotter_gates
from thermodbm.network.ring import trotter_ring
from thermodbm.network.trotter_step import default_d_tau, slices
from thermodbm.sampling.exchange_facts import ExchangeFacts, exchange_facts
from thermodbm.sampling.ring import ising_facts

N_CHAINS = 64
"""Of lattices of up to 256 sites; half of that beyond, for memory."""
ROUNDS = (1 / 16, 1 / 16, 1 / 8, 1 / 4)
"""Shares of the samples that are spent on steps; the rest tells what is left."""
COARSE = 0.3
"""Samples of the ring with the coarser target, as a part of those of each other ring: it has a third of the weight."""
SIGNIFICANT = 2.0
"""Errors by which the step that mends the order parameter must differ from zero."""
AMONG_MANY = 3.0
"""The same of steps along the other directions: one in twenty is beyond two errors by chance."""
CERTAIN = 4.0
"""Errors of S by which it must be positive along a direction."""
THERMAL = (100, 20)
"""Sweeps that are discarded at first, and after every step."""
LARGEST_SPECIFIC_HEAT = 0.5
"""Per site."""
LARGEST_STEP = 0.3
"""In the logarithm of a coupling."""


class Ring(NamedTuple):
    """A ring that is sampled, and what its means count."""

    run: Any  # see `overlap.sample`
    overlap: Overlap
    n_second: int | None  # steps of the target; None: the network itself is the second copy
    weight: float
    share: float  # of samples


class Seen(NamedTuple):
    """What a round has found at theta."""

    theta: np.ndarray
    n_samples: float
    gradient: np.ndarray  # G
    noise: np.ndarray  # its covariance
    between: np.ndarray  # S
    within: np.ndarray  # the covariance within one copy of what S is made of, which tells how well S is known
    quiet: np.ndarray  # W
    slope: np.ndarray  # of the order parameter, in theta
    off: dict[str, tuple[float, float]]  # energy, order: how far averages of the network are from those of the target, and the error


class Polished(NamedTuple):
    """A network and what is known of it."""

    network: Network
    off: dict[str, tuple[float, float]]  # energy, order: what is measured to be left, and its error
    n_directions: int  # that were changed
    gain: float  # infidelity per site that was seen to go
    noise: float  # infidelity per site that the noise of these directions brings


def polished(hamiltonian: SpinHamiltonian, arrays: Mapping[str, np.ndarray], classes: Classes, n_samples: int) -> dict[str, np.ndarray]:
    """The `packed` networks of all temperatures, polished. Random numbers are always the same."""
    found = []
    for k, beta in enumerate(arrays["beta"]):
        network = unpacked(arrays, float(beta))
        if network.infidelity * n_samples * hamiltonian.n_sites > 1:  # else less than any noise
            network = accepted(hamiltonian, network, polish(hamiltonian, network, classes, n_samples, jax.random.key(k)))
        found.append(network)
    return packed(found)


def accepted(hamiltonian: SpinHamiltonian, before: Network, after: Polished) -> Network:
    """The polished network with its errors as they were measured; that before, if all that was found is noise larger than its own error.

    The energy is off by at most 2 (c I)^(1/2)/beta to first order in what noise has moved, c the specific heat, or by what was measured.
    """
    share = root_share(hamiltonian)
    (energy, energy_error), (order, order_error) = after.off["energy"], after.off["order"]
    if max(abs(order), order_error) > share * np.sqrt(before.infidelity) and abs(order) < SIGNIFICANT * order_error:
        return before
    moved = 2 * np.sqrt(LARGEST_SPECIFIC_HEAT * after.noise) / before.beta
    return after.network._replace(
        infidelity=float((max(abs(order), order_error) / share) ** 2),
        energy_off=float(min(moved, max(abs(energy), energy_error))),
    )


def polish(hamiltonian: SpinHamiltonian, network: Network, classes: Classes, n_samples: int, key: jax.Array) -> Polished:
    """The network nearest to the thermal state, as far as n_samples samples of each ring tell."""
    layout = layout_of(hamiltonian, network, classes)
    rings = _rings(hamiltonian, network, classes, n_samples)
    start = theta = parameters_of(layout, network.K, network.g)
    states, seen, found = [None] * len(rings), [], None
    for k, share in enumerate((*ROUNDS, 1 - sum(ROUNDS))):
        own = laid_out(hamiltonian, *couplings_of(theta, layout), classes)
        states, sums = _sampled(jax.random.fold_in(key, k), hamiltonian, network.beta, rings, states, own, share * n_samples)
        seen.append(_joined(theta, share * n_samples, rings, sums, _derivatives(hamiltonian, theta, layout)))
        if k < len(ROUNDS):
            found = newton(seen, start, network.infidelity * hamiltonian.n_sites)
            theta = start + found.move * min(1.0, LARGEST_STEP / max(np.abs(found.move).max(), 1e-300))
    K, g = couplings_of(theta, layout)
    ratio = [np.divide(new, old, out=np.ones_like(new), where=old != 0) for new, old in ((K, network.K), (g, network.g))]
    changed = network._replace(K=K, g=g, K_beta=network.K_beta * ratio[0], g_beta=network.g_beta * ratio[1])
    n = hamiltonian.n_sites
    return Polished(changed, seen[-1].off, found.n_directions, found.gain / n, found.noise / n)


def layout_of(hamiltonian: SpinHamiltonian, network: Network, classes: Classes) -> Layout:
    """Of its couplings: the networks of which it is composed stay alike: fewer are free, and averages are thermal where any two meet."""
    times = network.times if is_power(network, network.times) else 1
    unit = free_couplings(hamiltonian, *trotter_rates(hamiltonian, classes, layers_of(hamiltonian, network) // times))

    def of_all(scale: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where two meet exponents add up, and both are the same parameter."""
        if len(scale) < len(unit.scale_K):  # transverse couplings, between the layers
            return np.tile(scale, (times, 1)), np.tile(index, (times, 1))
        return chained(scale, times, 2 * scale[:1]), chained(index, times, index[:1])

    K, g = of_all(unit.scale_K, unit.index_K), of_all(unit.scale_g, unit.index_g)
    return Layout(K[0], g[0], K[1], g[1])


class Step(NamedTuple):
    """From the start to where the optimum is seen, and of -ln(1 - I) what it gains and what its noise costs."""

    move: np.ndarray
    n_directions: int
    gain: float
    noise: float


def newton(seen: Sequence[Seen], start: np.ndarray, most: float = np.inf) -> Step:
    """The step to where all rounds together see the optimum, in directions in which it is significant.

    Args:
        most: -ln(1 - I) of the network, which no step gains more than: where noise alone is as large, nothing can be learnt.
    """
    n = np.array([s.n_samples for s in seen])
    weights = n / n.sum()
    between, within, quiet = (np.tensordot(weights, [getattr(s, name) for s in seen], 1) for name in ("between", "within", "quiet"))
    slope = weights @ [s.slope for s in seen]
    root = np.linalg.cholesky(quiet + 1e-9 * np.diag(np.diag(quiet)))
    overlap, axes = np.linalg.eigh(np.linalg.solve(root, np.linalg.solve(root, between).T))
    axes = np.linalg.solve(root.T, axes)  # v W v = 1, v S v = overlap
    usable = overlap > CERTAIN * np.einsum("ik,ij,jk->k", axes, within, axes) / np.sqrt(n.sum())
    if not usable.any():
        return Step(np.zeros_like(start), 0, 0.0, 0.0)
    axes = axes[:, usable] / np.sqrt(overlap[usable])  # v S v = 1
    first = np.linalg.qr((axes.T @ slope)[:, None], mode="complete")[0]  # and an orthonormal rest
    rest = np.linalg.eigh(first[:, 1:].T @ np.diag(1 / overlap[usable]) @ first[:, 1:])[1]
    axes = axes @ np.concatenate([first[:, :1], first[:, 1:] @ rest], axis=1)
    optimum, variance = np.zeros(axes.shape[1]), np.zeros(axes.shape[1])
    for w, s in zip(weights, seen, strict=True):
        optimum += w * (axes.T @ (between @ (s.theta - start) + s.gradient))
        variance += w**2 * np.einsum("ik,ij,jk->k", axes, s.noise, axes)
    errors = np.where(np.arange(len(optimum)) == 0, SIGNIFICANT, AMONG_MANY)
    kept = (optimum**2 > errors**2 * variance) & (errors**2 * variance < most)
    optimum, axes = optimum[kept], axes[:, kept]
    return Step(axes @ optimum, int(kept.sum()), float(optimum @ optimum), float(variance[kept].sum()))


def _rings(hamiltonian: SpinHamiltonian, network: Network, classes: Classes, n_samples: int) -> list[Ring]:
    """Of the network twice, and of it with a fine and a coarse target."""
    n_layers, exchange = layers_of(hamiltonian, network), hamiltonian.conserves_sz
    fine, coarse = slices(network.beta, default_d_tau(hamiltonian), True)[:2]
    if exchange:
        facts = exchange_facts(hamiltonian)._replace(layered=True)
    else:
        facts = ising_facts(hamiltonian, 3 * np.abs(network.K).max() / np.abs(np.asarray(hamiltonian.zz)).max())
        fine, coarse = fine + n_layers % 2, coarse + n_layers % 2  # samplers want an even number of layers
    total, rings = fine**2 - coarse**2, []
    for second, weight, share in ((None, -1.0, 1.0), (fine, fine**2 / total, 1.0), (coarse, -(coarse**2) / total, COARSE)):
        brief = 2e-7 * n_samples * share * (n_layers + (second or n_layers)) * hamiltonian.n_sites < BRIEF_SECONDS
        labels = tuple(classes.bonds.tolist()), tuple(classes.sites.tolist())
        rings.append(Ring(*_program(facts, (n_layers, second or n_layers), *labels, brief), second, weight, share))
    return rings


@lru_cache(maxsize=16)
def _program(facts: Facts, layers: tuple[int, int], bonds: tuple[int, ...], sites: tuple[int, ...], brief: bool) -> tuple[Any, Overlap]:
    """Kept, as networks of several temperatures may have as many layers."""
    if isinstance(facts, ExchangeFacts):
        overlap = exchange_overlap(facts, layers, np.array(bonds))
    else:
        overlap = ising_overlap(facts, layers, np.array(bonds), np.array(sites))
    return sample(overlap, brief=brief), overlap


def _sampled(
    key: jax.Array, hamiltonian: SpinHamiltonian, beta: float, rings: Sequence[Ring], states: Sequence, own: Any, n_samples: float
) -> tuple[list, list[Found]]:
    """Go on from the states of all rings (None: begin) with these couplings of the network."""
    target = trotter_gates if hamiltonian.conserves_sz else trotter_ring
    n_chains = N_CHAINS if hamiltonian.n_sites <= 256 else N_CHAINS // 2
    moved, found = [], []
    for k, (ring, state) in enumerate(zip(rings, states, strict=True)):
        key_start, key_warm, key_run = jax.random.split(jax.random.fold_in(key, k), 3)
        weights = ring.overlap.weights(hamiltonian, own, target(hamiltonian, beta, ring.n_second) if ring.n_second else own)
        n_sweeps, n_warm = max(4, int(np.ceil(n_samples * ring.share / n_chains))), THERMAL[state is not None]
        state = ring.overlap.kernel.init(key_start, n_chains) if state is None else state
        state, _ = ring.run(key_warm, weights, state, jnp.asarray(n_warm))
        state, sums = ring.run(key_run, weights, state, jnp.asarray(n_sweeps))
        moved.append(state)
        found.append(jax.tree.map(np.asarray, sums))
    return moved, found


def _derivatives(hamiltonian: SpinHamiltonian, theta: np.ndarray, layout: Layout) -> np.ndarray:
    """d(what statistics belong to)/d theta, (n_statistics, n_theta): of couplings of tfim, of the logarithm of durations of gates."""
    if hamiltonian.conserves_sz:
        exchanged = layout.scale_g != 0
        present = exchanged | (layout.scale_K != 0)
        parts = [(present, np.where(exchanged, layout.index_g, layout.index_K))]
    else:
        K, g = couplings_of(theta, layout)
        parts = [(K, layout.index_K), (np.abs(g), layout.index_g)]
    return np.concatenate([np.reshape(value, (-1, 1)) * np.eye(len(theta))[index.reshape(-1)] for value, index in parts])


def _joined(theta: np.ndarray, n_samples: float, rings: Sequence[Ring], found: Sequence[Found], derivative: np.ndarray) -> Seen:
    """Gradient, metric and what averages are off by, with errors from the scatter of chains."""

    def mean(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = x.reshape(len(x), -1)
        return x.mean(0), np.atleast_2d(np.cov(x.T)) / len(x)

    gradient, noise, off = np.zeros(len(theta)), np.zeros((len(theta),) * 2), {}
    for ring, sums in zip(rings, found, strict=True):
        first = sums.means["first"]
        statistics = (first + sums.means["second"]) / 2 if ring.n_second is None else first
        value, error = mean(statistics @ derivative)
        gradient, noise = gradient + ring.weight * value, noise + ring.weight**2 * error
    for name in ("energy", "order"):
        values = [(ring.weight, *mean(sums.means[name])) for ring, sums in zip(rings, found, strict=True)]
        error = np.sqrt(sum(w**2 * float(e[0, 0]) for w, _, e in values))
        off[name] = -2 * sum(w * float(m[0]) for w, m, _ in values), 2 * error
    own = found[0]
    covariance = own.part_squares - np.outer(own.parts, own.parts)
    n = len(derivative)
    between = derivative.T @ covariance[:n, n:-1] @ derivative
    within = derivative.T @ (covariance[:n, :n] + covariance[n:-1, n:-1]) @ derivative / 2
    slope = (covariance[:n, -1] + covariance[n:-1, -1]) @ derivative
    center = own.means["first"].mean(0)
    quiet = derivative.T @ (own.squares - np.outer(center, center)) @ derivative
    return Seen(theta, n_samples, gradient, noise, (between + between.T) / 2, within, quiet, slope, off)

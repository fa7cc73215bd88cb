"""Observables of the variational state: per-configuration values, and their averages over walkers or over all configurations."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.estimate.statistics import Estimate
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring

Values = Mapping[str, jax.Array]
"""Observable -> value for each configuration, (n, ...)."""


class Tally(NamedTuple):
    """Sums over the samples of each walker, and over all samples for the autocorrelation."""

    count: jax.Array  # samples of each walker so far
    sums: dict[str, jax.Array]  # (n_walkers, ...)
    squares: dict[str, jax.Array]  # (...)


def diagonal_observables(hamiltonian: SpinHamiltonian) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Observables diagonal in sz as a function of spins (n, n_sites), names and units of the contract."""
    lattice, n = hamiltonian.lattice, hamiltonian.n_sites
    translations = jnp.asarray(lattice.translations)
    signs = two_coloring(n, lattice.bonds())
    waves = None if lattice.wavevectors is None else np.exp(-1j * lattice.positions @ lattice.wavevectors.T)

    def values(spins: jax.Array) -> dict[str, jax.Array]:
        s = hamiltonian.moment * spins.astype(float)
        m = s.mean(-1)
        pairs, _ = jax.lax.scan(lambda total, t: (total + s[:, t[:1]] * s[:, t], None), jnp.zeros_like(s), translations)
        found = {"correlation_zz": pairs / len(translations), "magnetization_z": m}
        found["total_m_squared" if hamiltonian.conserves_sz else "order_parameter_squared"] = m**2
        if waves is not None:
            found["structure_factor_zz"] = ((s @ waves.real) ** 2 + (s @ waves.imag) ** 2) / n
        if signs is not None:
            found["staggered_structure_factor"] = (s @ signs) ** 2 / n
        return found

    return values


def energy_observables(hamiltonian: SpinHamiltonian, e_loc: jax.Array, ratios: jax.Array) -> dict[str, jax.Array]:
    """Local energy and its square per site, and sx where H has it, from total e_loc (n,) and amplitude ratios (n, K)."""
    n = hamiltonian.n_sites
    found = {"energy": e_loc.real / n, "energy_squared": jnp.abs(e_loc) ** 2 / n}
    if not hamiltonian.conserves_sz:
        found["magnetization_x"] = ratios.real.mean(-1)
    return found


def heat_bath_controls(hamiltonian: SpinHamiltonian) -> Callable[..., jax.Array]:
    """Functions of a configuration whose mean is exactly zero, because they change sign on average under a heat-bath update.

    A move between v and v' with |Psi(v')/Psi(v)| = r turns a quantity f into its mean over the two, and f - (f + r^2 f')/(1 + r^2)
    averages to zero in |Psi|^2. With f the terms of H off the diagonal and their own moves this removes the rare large ratios of high
    temperature; with f = sz_i sz_j, the flip of a spin and its ancilla, and j up to four bonds from i, the fluctuations of free spins.

    Returns:
        A function of spins (n, n_sites), ratios (n, K) of the terms of H and ratios (n, n_sites) of flips of antiparallel pairs
        to controls (n, 5), per site. Source: Assaraf and Caffarel, PRL 83, 4682 (1999).
    """
    n = hamiltonian.n_sites
    elements = np.asarray(2 * hamiltonian.xy if hamiltonian.conserves_sz else -hamiltonian.x_field)
    i, j = hamiltonian.bonds.T
    bonds = np.zeros((n, n))
    bonds[i, j] = bonds[j, i] = np.asarray(hamiltonian.zz)
    powers = [np.linalg.matrix_power(bonds, k) for k in range(1, 5)]
    reach = jnp.asarray(np.stack([(p - np.diag(np.diag(p))) / (np.abs(p).max() or 1.0) for p in powers]))

    def controls(spins: jax.Array, ratios: jax.Array, pair_ratios: jax.Array) -> jax.Array:
        square = jnp.abs(ratios) ** 2
        offdiagonal = (ratios.real * (square - 1) / (square + 1)) @ elements
        square = jnp.abs(pair_ratios) ** 2
        s = spins.astype(float)
        change = s * square / (1 + square)  # half of sz_i less its mean
        return jnp.concatenate([offdiagonal[:, None], jnp.einsum("ni,kij,nj->nk", change, reach, s)], axis=1) / n

    return controls


def empty_tally(values: Values) -> Tally:
    """Nothing counted yet, for observables of the given shapes (n_walkers, ...)."""
    zeros = {name: jnp.zeros_like(v) for name, v in values.items()}
    return Tally(jnp.zeros((), int), zeros, {name: v[0] for name, v in zeros.items()})


def add_to_tally(tally: Tally, values: Values) -> Tally:
    """Count one sample of each walker."""
    return Tally(
        tally.count + 1,
        {name: tally.sums[name] + v for name, v in values.items()},
        {name: tally.squares[name] + (v**2).sum(0) for name, v in values.items()},
    )


def walker_estimates(
    hamiltonian: SpinHamiltonian, beta: float, tally: Tally, comm: Comm = SERIAL, distance: float = 0.0
) -> dict[str, Estimate]:
    """Means and errors from the scatter of the walkers' own means: walkers are uncorrelated, samples of one walker need not be.
    There is no r_hat: walkers number thousands and each gives few samples.

    From plain averages, what the entry "controls" explains is taken off by linear regression among the walkers. Fluctuations are left as
    they are: they would gain little, and the regression of a square has a bias. A state that is off by `distance` adds
    2 distance sqrt(Var) to every error but the energy's, whose systematic error is told apart.
    """
    samples = {name: s / tally.count for name, s in tally.sums.items()}
    n_walkers = len(samples["energy"]) * comm.size
    mean = {name: x / n_walkers for name, x in comm.sum({name: s.sum(0) for name, s in samples.items()}).items()}
    controls, mean_controls = samples.pop("controls"), np.asarray(mean.pop("controls"))
    derived, linear = _derived(hamiltonian, beta, mean, samples)
    flat = {name: (x - mean_x).reshape(len(x), -1) for name, (x, mean_x) in linear.items()}
    centered = controls - mean_controls
    gram, cross = comm.sum((centered.T @ centered, {name: centered.T @ x for name, x in flat.items()}))
    squares, spread = comm.sum((tally.squares, {name: (x**2).sum(0) for name, x in flat.items()}))
    total, scale = float(n_walkers * tally.count), 1 / (max(n_walkers - 1, 1) * n_walkers)  # from a sum of squares to that of the mean
    found = {}
    for name, value in derived.items():
        value, variance = np.asarray(value), np.asarray(spread[name]).reshape(np.shape(value)) * scale
        off = 0.0 if name == "energy" else 2 * distance * np.sqrt(total * variance)
        if name not in mean:
            found[name] = Estimate(value, np.hypot(np.sqrt(variance), off))
            continue
        slopes = np.linalg.lstsq(np.asarray(gram), np.asarray(cross[name]), rcond=1e-10)[0]
        explained = np.sum(slopes * np.asarray(cross[name]), 0).reshape(value.shape) * scale
        left = np.maximum(variance - explained, 0)
        single = np.maximum(np.asarray(squares[name]) / total - np.asarray(mean[name]) ** 2, 0)
        n_eff = np.divide(single, left, out=np.full(value.shape, total), where=left > 0)
        tau_int = 0.5 * np.divide(total * variance, single, out=np.ones(value.shape), where=single > 0)
        found[name] = Estimate(value - (mean_controls @ slopes).reshape(value.shape), np.hypot(np.sqrt(left), off), tau_int, None, n_eff)
    return found


def exact_estimates(
    hamiltonian: SpinHamiltonian, beta: float, weights: jax.Array, values: Values, distance: float = 0.0
) -> dict[str, Estimate]:
    """The same from all configurations and their weights, of sum 1. Nothing is left to chance but the state itself: one that is off by
    `distance` has averages off by up to 2 distance sqrt(Var). The energy's error is zero, as its systematic error is told apart.
    """
    mean = {name: jnp.tensordot(weights, x, 1) for name, x in values.items()}
    derived, linear = _derived(hamiltonian, beta, mean, values)
    spread = {name: jnp.sqrt(jnp.tensordot(weights, (x - mean_x) ** 2, 1)) for name, (x, mean_x) in linear.items()}
    spread["energy"] = jnp.zeros(())
    return {name: Estimate(np.asarray(v), np.asarray(2 * distance * spread[name])) for name, v in derived.items()}


def _derived(hamiltonian: SpinHamiltonian, beta: float, mean: Values, samples: Values) -> tuple[dict, dict]:
    """Observables of the contract from means, and for each a linearisation (samples, their mean) that has the same error."""
    n = hamiltonian.n_sites
    derived = {name: x for name, x in mean.items() if name not in ("energy_squared", "total_m_squared")}
    linear = {name: (samples[name], mean[name]) for name in derived}

    def fluctuation(name: str, scale: float, square: str, first: str) -> None:
        derived[name] = scale * (mean[square] - n * mean[first] ** 2)
        linear[name] = (scale * (samples[square] - 2 * n * mean[first] * samples[first]), scale * (mean[square] - 2 * n * mean[first] ** 2))

    fluctuation("specific_heat", beta**2, "energy_squared", "energy")
    if hamiltonian.conserves_sz:
        scaled = {"m2": n * mean["total_m_squared"]}
        mean, samples = {**mean, **scaled}, {**samples, "m2": n * samples["total_m_squared"]}
        fluctuation("susceptibility", beta, "m2", "magnetization_z")
    return derived, linear

"""Observables of the variational state: per-configuration values, and their averages over walkers or over all configurations."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import SERIAL, Comm
from thermodbm.estimate.kubo_bounds import kubo_bounds, kubo_gradient
from thermodbm.estimate.statistics import Estimate, exact
from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import bond_matrix, spin_flip_symmetric
from thermodbm.sampling.metropolis import hamiltonian_patterns, log_neighbour_weights, random_neighbours

Values = Mapping[str, jax.Array]
"""Observable -> value for each configuration, (n, ...)."""


class Averages(NamedTuple):
    """Observables of the contract in a trial state that is taken as it is."""

    estimates: dict[str, Estimate]  # with statistical errors
    spread: dict[str, np.ndarray]  # sqrt(<O^2> - <O>^2), by which a state a little off changes <O>


class Tally(NamedTuple):
    """Sums over the samples of each walker, and over all samples for the autocorrelation."""

    count: jax.Array  # samples of each walker so far
    sums: dict[str, jax.Array]  # (n_walkers, ...)
    squares: dict[str, jax.Array]  # (...)


def energy_observables(hamiltonian: SpinHamiltonian, e_loc: jax.Array, ratios: jax.Array) -> dict[str, jax.Array]:
    """Local energy per site, and sx where H has it, from total e_loc (n,) and amplitude ratios (n, K)."""
    found = {"energy": e_loc.real / hamiltonian.n_sites}
    if not hamiltonian.conserves_sz:
        found["magnetization_x"] = ratios.real.mean(-1)
    return found


def kubo_observables(hamiltonian: SpinHamiltonian, visible: jax.Array, ratios: jax.Array) -> dict[str, jax.Array]:
    """Of the magnetisation m of tfim per site, what `estimate.kubo_bounds` asks for beside its square: `kubo_slope`, twice the energy per
    site in the transverse fields, and `kubo_halfway`, m on the spins times m on the ancillas, which are turned over.

    Args:
        visible: spins and ancillas (n, 2 n_sites) of a state that is a matrix between spins and reversed ancillas.
    """
    if hamiltonian.conserves_sz:
        return {}
    n, elements = hamiltonian.n_sites, np.asarray(hamiltonian.off_diagonal[1])
    s = visible.astype(float)
    return {"kubo_slope": -2 * (ratios.real @ elements) / n, "kubo_halfway": -s[:, :n].mean(1) * s[:, n:].mean(1)}


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
    elements = np.asarray(hamiltonian.off_diagonal[1])
    bonds = bond_matrix(hamiltonian, hamiltonian.zz)
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


def variance_observables(
    hamiltonian: SpinHamiltonian, e_loc: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
) -> Callable[[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]:
    """Parts of Var(H) = sum_v |Psi(v)|^2 |e_loc(v) - E|^2 that are bounded, however small the amplitude.

    Where Psi(v) is small |e_loc|^2 is large, and samples of |Psi|^2 never see it. So half of the samples make a move of H, and
    all count with the weight w of `sampling.metropolis.log_neighbour_weights`.

    Returns:
        A function (key, theta, samples (n, V)) -> w, w Re e_loc / N and w |e_loc|^2 / N, (n,) each, of the configurations come to.
    """
    n, patterns = hamiltonian.n_sites, hamiltonian_patterns(hamiltonian)[0]

    def values(key: jax.Array, theta: jax.Array, visible: jax.Array) -> dict[str, jax.Array]:
        moved = random_neighbours(key, visible, patterns)
        energies, ratios = e_loc(theta, moved)
        root = jnp.exp(log_neighbour_weights(patterns, moved, ratios) / 2)
        energies = root * energies  # which the root keeps from overflow
        return {"moved": root**2, "moved_energy": root * energies.real / n, "moved_square": jnp.abs(energies) ** 2 / n}

    return values


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


def walker_estimates(hamiltonian: SpinHamiltonian, beta: float, tally: Tally, comm: Comm = SERIAL) -> Averages:
    """Means and errors from the scatter of the walkers' own means: walkers are uncorrelated, samples of one walker need not be.
    There is no r_hat: walkers number thousands and each gives few samples.

    From plain averages, what the entry "controls" explains is taken off by linear regression among the walkers. Fluctuations are left as
    they are: they would gain little, and the regression of a square has a bias.
    """
    samples = {name: s / tally.count for name, s in tally.sums.items()}
    n_walkers = len(samples["energy"]) * comm.size
    mean = {name: x / n_walkers for name, x in comm.sum({name: s.sum(0) for name, s in samples.items()}).items()}
    controls, mean_controls = samples.pop("controls"), np.asarray(mean.pop("controls"))
    linear = {name: (samples[name], mean[name]) for name in mean if name not in _PARTS}
    linear |= _susceptibility(hamiltonian, beta, mean, samples)
    flat = {name: (x - mean_x).reshape(len(x), -1) for name, (x, mean_x) in linear.items()}
    centered = controls - mean_controls
    gram, cross = comm.sum((centered.T @ centered, {name: centered.T @ x for name, x in flat.items()}))
    squares, scatter = comm.sum((tally.squares, {name: (x**2).sum(0) for name, x in flat.items()}))
    total, scale = float(n_walkers * tally.count), 1 / (max(n_walkers - 1, 1) * n_walkers)  # from a sum of squares to that of the mean
    found, spread = {}, {}
    for name in linear:
        value = np.asarray(mean[name] if name in mean else _fluctuation(hamiltonian, beta, mean))
        variance = np.asarray(scatter[name]).reshape(value.shape) * scale
        spread[name] = np.sqrt(total * variance)
        if name not in mean:
            found[name] = Estimate(value, np.sqrt(variance))
            continue
        slopes = np.linalg.lstsq(np.asarray(gram), np.asarray(cross[name]), rcond=1e-10)[0]
        explained = np.sum(slopes * np.asarray(cross[name]), 0).reshape(value.shape) * scale
        left = np.maximum(variance - explained, 0)
        single = np.maximum(np.asarray(squares[name]) / total - np.asarray(mean[name]) ** 2, 0)
        n_eff = np.divide(single, left, out=np.full(value.shape, total), where=left > 0)
        tau_int = 0.5 * np.divide(total * variance, single, out=np.ones(value.shape), where=single > 0)
        spread[name] = np.sqrt(single)
        found[name] = Estimate(value - (mean_controls @ slopes).reshape(value.shape), np.sqrt(left), tau_int, None, n_eff)
    if "susceptibility" in found:
        found["susceptibility"] = _between_bounds(hamiltonian, beta, mean, found["susceptibility"])
    found["specific_heat"] = _sampled_heat(hamiltonian, beta, float(found["energy"].mean), samples, n_walkers, comm)
    spread["specific_heat"] = np.sqrt(2) * found["specific_heat"].mean
    return Averages(found, spread)


def _sampled_heat(hamiltonian: SpinHamiltonian, beta: float, energy: float, samples: Values, n_walkers: int, comm: Comm) -> Estimate:
    """c = beta^2 Var(H)/N about the energy per site, from the parts of `variance_observables`; an error in E enters it squared."""
    n = hamiltonian.n_sites
    x = beta**2 * (samples["moved_square"] - 2 * n * energy * samples["moved_energy"] + n * energy**2 * samples["moved"])
    mean = comm.sum(x.sum()) / n_walkers
    variance = comm.sum(((x - mean) ** 2).sum()) / (max(n_walkers - 1, 1) * n_walkers)
    return Estimate(np.asarray(mean), np.sqrt(np.asarray(variance)))


def exact_estimates(hamiltonian: SpinHamiltonian, beta: float, weights: jax.Array, e_loc: jax.Array, values: Values) -> Averages:
    """The same from all configurations and their weights, of sum 1, and total local energies: nothing is left to chance."""
    n = hamiltonian.n_sites
    mean = {name: jnp.tensordot(weights, x, 1) for name, x in values.items()}
    linear = {name: (values[name], mean[name]) for name in mean if name not in _PARTS}
    linear |= _susceptibility(hamiltonian, beta, mean, values)
    heat = beta**2 * (weights @ jnp.abs(e_loc - n * mean["energy"]) ** 2) / n
    derived = {name: mean[name] if name in mean else _fluctuation(hamiltonian, beta, mean) for name in linear}
    spread = {name: np.asarray(jnp.sqrt(jnp.tensordot(weights, (x - mean_x) ** 2, 1))) for name, (x, mean_x) in linear.items()}
    found = {name: exact(np.asarray(x)) for name, x in {**derived, "specific_heat": heat}.items()}
    if "susceptibility" in found:
        found["susceptibility"] = _between_bounds(hamiltonian, beta, mean, found["susceptibility"])
    return Averages(found, {**spread, "specific_heat": np.sqrt(2) * found["specific_heat"].mean})


_PARTS = {"magnetization_z_squared", "moved", "moved_energy", "moved_square", "kubo_slope", "kubo_halfway"}
"""Averages that are no observables themselves."""


def _fluctuation(hamiltonian: SpinHamiltonian, beta: float, mean: Values) -> float:
    """The susceptibility per site: beta N (<m^2> - <m>^2) of a conserved magnetisation, of another one the middle of its bounds."""
    if hamiltonian.conserves_sz:
        return beta * hamiltonian.n_sites * float(mean["magnetization_z_squared"] - mean["magnetization_z"] ** 2)
    return float(np.mean(kubo_bounds(*_kubo_averages(hamiltonian, mean), beta))) * hamiltonian.n_sites


def _between_bounds(hamiltonian: SpinHamiltonian, beta: float, mean: Values, susceptibility: Estimate) -> Estimate:
    """With half the distance between the bounds, if it has any, as an independent error."""
    if hamiltonian.conserves_sz:
        return susceptibility
    one, other = kubo_bounds(*_kubo_averages(hamiltonian, mean), beta)
    return susceptibility._replace(error=np.hypot(susceptibility.error, abs(one - other) / 2 * hamiltonian.n_sites))


def _kubo_averages(hamiltonian: SpinHamiltonian, mean: Values) -> tuple[float, float, float]:
    """<m^2> - <m>^2, the slope and the value half way, of the magnetisation per site."""
    drift = 0.0 if spin_flip_symmetric(hamiltonian) else float(mean["magnetization_z"]) ** 2
    slope = float(mean["kubo_slope"]) / hamiltonian.n_sites
    return float(mean["order_parameter_squared"]) - drift, slope, float(mean["kubo_halfway"]) - drift


def _susceptibility(hamiltonian: SpinHamiltonian, beta: float, mean: Values, samples: Values) -> dict[str, tuple]:
    """Where it is known, a linearisation of it, (samples, their mean), that has the same error."""
    n, m = hamiltonian.n_sites, mean["magnetization_z"]
    if hamiltonian.conserves_sz:
        linear = [beta * n * (x["magnetization_z_squared"] - 2 * m * x["magnetization_z"]) for x in (samples, mean)]
    elif "kubo_halfway" in mean:
        square, slope, halfway = n * kubo_gradient(*_kubo_averages(hamiltonian, mean), beta)
        m = 0.0 if spin_flip_symmetric(hamiltonian) else m

        def combined(x: Values) -> jax.Array:
            moved = square * x["order_parameter_squared"] + slope / n * x["kubo_slope"] + halfway * x["kubo_halfway"]
            return moved - (square + halfway) * 2 * m * x["magnetization_z"]

        linear = [combined(x) for x in (samples, mean)]
    else:
        return {}
    return {"susceptibility": tuple(linear)}


def with_systematic(averages: Averages, share: float, energy: float, residual: float, start: float = 0.0) -> dict[str, Estimate]:
    """Estimates whose errors hold what is wrong with the state itself, as an independent error.

    Args:
        share: an average <O> is off by this share of the spread sqrt(<O^2> - <O>^2); of (H - E)^2 the spread is taken as that of a
            normal distribution, sqrt(2) Var(H).
        energy: by this much the energy per site is off.
        residual: r^2, by which share Var(H) and -dE/d beta differ.
        start: (H - E)^2 is off by this share besides.
    """
    off = {name: share * spread for name, spread in averages.spread.items()}
    spread, heat = averages.spread["specific_heat"], averages.estimates["specific_heat"].mean
    off |= {"energy": energy, "specific_heat": np.hypot(np.hypot(share, start) * spread, residual * heat)}
    return {name: x._replace(error=np.asarray(np.hypot(x.error, off[name]))) for name, x in averages.estimates.items()}

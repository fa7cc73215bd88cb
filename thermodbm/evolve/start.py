"""Where the variational evolution begins: the thermal state at a small beta, with extra filters that do nothing yet."""

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import Comm
from thermodbm.estimate.moments import high_temperature_moments
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.step import Cloud, cloud_weights, local_energy, reweight
from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import bond_matrix
from thermodbm.network.ansatz.composition import Product, Superposition
from thermodbm.network.ansatz.determinants import pair_terms
from thermodbm.network.ansatz.permanent import site_pair_orbits
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import pair_orbits, site_orbits
from thermodbm.network.ansatz.trial import TrialState

SHARE = 0.1
"""Share of the second of two terms at the start."""
FREE = 1e-5
"""Amplitude of a pair of defects of spins without exchange, which has none: a logarithm stands for it."""
PAIR_NOISE = 0.01
"""Width of the noise of pair amplitudes at the start, in units in which that of a bond is about one."""
MAX_DEVIATION = 0.1
"""Of energy, variance or correlations from a thermal state at small beta, in their natural units, above which a start is no such state."""


def pair_amplitudes(hamiltonian: SpinHamiltonian, beta: float) -> np.ndarray:
    """The amplitude a_ij, (n_sites, n_sites), of a pair of defects at small tau = beta/2: -2 tau xy_ij on bonds, and tau^2/2 sum_k
    (2 xy_ik)(2 xy_kj) elsewhere.

    A defect is a site whose spin and ancilla, opposite at infinite temperature, are both up or both down: exchange makes one of each.
    """
    exchange = bond_matrix(hamiltonian, -beta * np.asarray(hamiltonian.xy))
    amplitude = np.where(exchange != 0, exchange, exchange @ exchange / 2)
    np.fill_diagonal(amplitude, 0)
    return amplitude


def raise_to_floor(amplitude: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """Amplitudes of at least this share of the largest in modulus, also on the diagonal, so that nothing is cut off; and that least one."""
    largest = amplitude.flat[np.abs(amplitude).argmax()]
    floor = share * (largest if largest else FREE)
    return np.where(np.abs(amplitude) > abs(floor), amplitude, floor), floor


def high_temperature_couplings(hamiltonian: SpinHamiltonian, beta: float, *, defects: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """One- and two-body couplings a (V,) and A (V, V) of exp(-tau H)|Psi_inf> at small tau = beta/2.

    * Diagonal part of H: -tau zz and tau z_field, shared equally by spins and ancillas. With the transverse field, tanh(tau x_i) for a
      parallel pair (sigma_i, sigma'_i), this is the network of one symmetric Trotter slice with its deep units summed.
    * Exchange: keeping the spins costs tau^2/2 (2 xy)^2 per antiparallel bond. A pair of defects has `pair_amplitudes`, or a fifth of the
      largest where that is more in modulus; several get the product of the factors of all pairs. Without `defects` all this is left out.
    """
    tau, n = beta / 2, hamiltonian.n_sites
    zz, xy, x_field, z_field = (np.asarray(x, float) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    layer, across = bond_matrix(hamiltonian, -(tau * zz + tau**2 * xy**2) / 2).astype(complex), np.zeros((n, n), complex)
    if hamiltonian.conserves_sz and defects:
        amplitude, floor = raise_to_floor(pair_amplitudes(hamiltonian, beta), 0.2)
        factors = -np.log(amplitude / floor + 0j) / 4  # of m_i m_j with m = (sigma + sigma')/2
        layer, across = layer + factors, factors + np.eye(n) * np.log(floor + 0j) / 4
    elif not hamiltonian.conserves_sz:
        parallel = np.tanh(tau * x_field)
        across = np.diag(np.log(np.where(np.abs(parallel) > 1e-6, parallel, 1e-6) + 0j) / 2)
    a = tau / 2 * np.concatenate([z_field, -z_field])
    return a.astype(complex), np.block([[layer, across], [across, layer]])


def rotated_couplings(hamiltonian: SpinHamiltonian) -> tuple[np.ndarray, np.ndarray]:
    """|Psi_inf> at beta = 0 with every ancilla turned by exp(i pi/4 sx): all amplitudes have one modulus, a phase i per parallel pair.

    Source: Nys, Denis, Carleo, arXiv:2309.07063.
    """
    n = hamiltonian.n_sites
    zero, across = np.zeros((n, n)), np.eye(n) * 0.25j * np.pi
    return np.zeros(2 * n, complex), np.block([[zero, across], [across, zero]])


def pair_start_params(
    key: jax.Array, module: Product | Superposition, hamiltonian: SpinHamiltonian, beta: float, noise: float, *, positive: bool
) -> dict:
    """Parameters of `module` at small beta: a permanent of pairs times a two-body factor, and patterns that add nothing yet; or the sum
    of this and of a deep Boltzmann machine.

    Both terms describe the thermal state. Where spins and ancillas are opposite, the second has the share `SHARE` of the first.
    """
    pairs_alone = module.terms[0] if isinstance(module, Superposition) else module
    permanent, two_body, *patterns = pairs_alone.factors
    classes = site_pair_orbits(permanent.group)
    amplitude, _ = raise_to_floor(pair_amplitudes(hamiltonian, beta), 0.02)
    pairs = np.array([amplitude[classes == c].mean() for c in range(classes.max() + 1)], complex)
    if not positive:  # pairings of opposite signs are kept from cancelling to zero exactly
        pairs *= 1 + 1e-3 * np.random.default_rng(np.asarray(jax.random.key_data(key))).normal(size=(len(pairs), 2)) @ [1, 1j]
    bare, full = (high_temperature_couplings(hamiltonian, beta, defects=x) for x in (False, True))
    first = {"factors_0": {"amplitudes": pairs}, "factors_1": start_params(key, two_body, bare, noise, positive=positive)}
    first |= {f"factors_{2 + k}": {"f": np.zeros(p.clusters.n_classes, complex)} for k, p in enumerate(patterns)}
    if pairs_alone is module:
        return first
    second = start_params(key, module.terms[1], full, noise, positive=positive)
    opposite = np.repeat([1, -1], hamiltonian.n_sites)
    excess = module.terms[1].apply({"params": second}, opposite) - pairs_alone.apply({"params": first}, opposite)
    return {"log_share": np.log(SHARE) - np.atleast_1d(excess), "terms_0": first, "terms_1": second}


def pair_product_start(key: jax.Array, module: Product, hamiltonian: SpinHamiltonian, beta: float, noise: float) -> dict:
    """Parameters of `module`, a `PairProduct` times a `PurifiedDBM`, at small tau = beta/2.

    F = 1 between a spin and its ancilla, sqrt(2 tau xy) exp(i phi) between spins of a bond and -sqrt(2 tau xy) exp(-i phi) between their
    ancillas, is exp(-tau H) of isotropic bonds to first order in tau. With random phases phi, each pair its own, pairings that the exact
    state has not, of several bonds, average away in the sum over determinants. All of F has Gaussian noise of width `PAIR_NOISE` sqrt(tau).
    What the bonds have of sz sz beyond isotropy, and the field, are a two-body and a one-body factor.
    """
    pairs, network = module.factors
    tau, n = beta / 2, hamiltonian.n_sites
    zz, xy, z_field = (np.asarray(x, float) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.z_field))
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    classes = pair_terms(*pairs.of_first_term())[0]
    representative = np.unique(classes, return_index=True)[1][1:]  # the first, -1, is that of the diagonal
    i, j = hamiltonian.bonds.T
    F = []
    for _ in range(pairs.n_products):
        table = np.zeros((2 * n, 2 * n), complex)
        amplitude = np.sqrt(2 * tau * xy + 0j) * np.exp(2j * np.pi * random.random(len(xy)))
        table[i, j] = table[j, i] = amplitude
        table[n + i, n + j] = table[n + j, n + i] = -2 * tau * xy / np.where(amplitude == 0, 1, amplitude)
        table[range(n), range(n, 2 * n)] = table[range(n, 2 * n), range(n)] = 1
        size = PAIR_NOISE * np.sqrt(2 * tau * np.abs(xy).max(initial=0.0) * 2)
        shape = (2, len(representative))
        F.append(table.reshape(-1)[representative] + size * (random.normal(size=shape).T @ [1, 1j]))
    layer = bond_matrix(hamiltonian, -tau * (zz - xy) / 2).astype(complex)
    a, zero = tau / 2 * np.concatenate([z_field, -z_field]), np.zeros((n, n))
    couplings = a.astype(complex), np.block([[layer, zero], [zero, layer]])
    return {"factors_0": {"F": np.array(F)}, "factors_1": start_params(key, network, couplings, noise, positive=False)}


def start_params(key: jax.Array, module: PurifiedDBM, couplings: tuple[np.ndarray, np.ndarray], noise: float, *, positive: bool) -> dict:
    """Parameters of `module` that have the given couplings and filters without effect.

    Filters come in fours z exp(i pi k/4), k = 0..3, with z Gaussian of width `noise`: the even function ln Psi of their fields cancels
    through z^6, while their derivatives stay independent.
    """
    a, A = couplings
    shapes = jax.eval_shape(module.init, key, jax.ShapeDtypeStruct((1, len(a)), np.int8))["params"]
    params = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    classes = pair_orbits(module.group)
    params["pairs"] = np.array([A[classes == c].mean() for c in range(classes.max() + 1)])
    if "a" in params:
        orbit, sign = site_orbits(module.group)
        params["a"] = np.array([(a * sign)[orbit == c].mean() for c in range(orbit.max() + 1)])
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    phases = np.exp(0.25j * np.pi * np.arange(4))
    for name in ("W", "W_deep"):
        if name in params:
            shape = params[name].shape
            size = (-(-shape[0] // 4), 1, *shape[1:])
            z = noise * (random.normal(size=size) if positive else (random.normal(size=size) + 1j * random.normal(size=size)) / np.sqrt(2))
            params[name] = (z * phases.reshape(-1, *np.ones(len(shape) - 1, int))).reshape(-1, *shape[1:])[: shape[0]]
    return params


def distance_from_thermal_state(
    hamiltonian: SpinHamiltonian, trial: TrialState, theta: jax.Array, cloud: Cloud, beta: float, comm: Comm
) -> tuple[float, Doubt]:
    """How far a state that is meant to be thermal at a small beta can be from it, judged by what is known there, per site:

        e = -beta Tr H^2 + beta^2/2 Tr H^3,   Var(H) = Tr H^2 - beta Tr H^3,   <sz_i sz_j> of order beta

    A state that is off by a distance D of normalised states has an energy off by up to 2 D sqrt(Var), and so on: D is the least that
    explains what is found. Averages cannot tell more, so that a state that passes need not be the thermal one.

    Returns:
        D, at most the root of two; and `Doubt.STATE` where a deviation is above `MAX_DEVIATION`.
    """
    n, (second, third, _) = hamiltonian.n_sites, high_temperature_moments(hamiltonian)
    weights = reweight(cloud_weights(hamiltonian, trial, comm)(theta, cloud), comm)
    energies = local_energy(hamiltonian, trial)(theta, cloud.visible)[0]
    spins = cloud.visible[:, :n].astype(float)
    sums = comm.sum((weights.sum(), (weights**2).sum(), weights @ energies, (spins.T * weights) @ spins))
    norm, squares, energy, pairs = (np.asarray(x) for x in sums)
    energy = (energy / norm).real
    variance = float(comm.sum(weights @ jnp.abs(energies - energy) ** 2) / norm)
    chance = 0.0 if cloud.power == 0 else 3 * np.sqrt(squares) / norm
    scale, order = np.sqrt(second) or 1.0, beta * np.sqrt(second)
    correlations = np.abs(pairs / norm - np.eye(n)).max(initial=0.0) - beta * np.abs(np.asarray(hamiltonian.zz)).max(initial=0.0)
    found = [
        abs(energy / n + beta * second - beta**2 * third / 2) / scale - chance * np.sqrt(variance / n / n) / scale,
        abs(variance / n - second + beta * third) / scale**2 - 2 * chance,
        correlations - chance,
    ]
    off = np.maximum(np.nan_to_num(np.array(found) - order**2, nan=np.inf), 0)
    distance = max(np.sqrt(n) * off[0] / 2, off[1] / np.sqrt(8), off[2] / 2)
    return float(min(distance, np.sqrt(2))), Doubt.STATE if off.max() > MAX_DEVIATION else Doubt.NONE

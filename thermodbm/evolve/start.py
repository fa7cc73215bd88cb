"""Where the variational evolution begins: the thermal state at a small beta, with extra filters that do nothing yet."""

import dataclasses

import jax
import numpy as np

from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import two_coloring
from thermodbm.network.ansatz import PurifiedDBM
from thermodbm.network.symmetry import pair_orbits, site_orbits


def remove_signs(hamiltonian: SpinHamiltonian) -> SpinHamiltonian:
    """The same model with every exchange xy <= 0, where a rotation of spins by pi about z can do that; otherwise unchanged.

    The rotation (Marshall's) multiplies xy of a bond by the signs of its two sites; it leaves the spectrum and everything diagonal in
    sz as it was, and makes all amplitudes of the thermal state positive.
    """
    xy = np.asarray(hamiltonian.xy)
    n_vertices, edges = hamiltonian.n_sites, []
    for (i, j), coupling in zip(hamiltonian.bonds.tolist(), xy, strict=True):
        if coupling > 0:
            edges.append((i, j))
        elif coupling < 0:  # equal signs: two steps through a vertex of its own
            edges += [(i, n_vertices), (n_vertices, j)]
            n_vertices += 1
    signs = two_coloring(n_vertices, np.array(edges).reshape(-1, 2))
    if signs is None:
        return hamiltonian
    i, j = hamiltonian.bonds.T
    return dataclasses.replace(hamiltonian, xy=hamiltonian.xy * signs[i] * signs[j])


def high_temperature_couplings(hamiltonian: SpinHamiltonian, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """One- and two-body couplings a (V,) and A (V, V) of exp(-tau H)|Psi_inf> at small tau = beta/2.

    * Diagonal part of H: -tau zz and tau z_field, shared equally by spins and ancillas. With the transverse field, tanh(tau x_i) for a
      parallel pair (sigma_i, sigma'_i), this is the network of one symmetric Trotter slice with its deep units summed.
    * Exchange: a pair of defects (sigma_i = sigma'_i up, sigma_j = sigma'_j down) has the amplitude a_ij = -2 tau xy_ij on bonds and
      tau^2/2 sum_k (2 xy_ik)(2 xy_kj) elsewhere, or a fifth of the largest where that is more in modulus, so that no configuration is cut
      off; several pairs get the product of their factors. Keeping the spins costs tau^2/2 (2 xy)^2 per antiparallel bond.
    """
    tau, n = beta / 2, hamiltonian.n_sites
    zz, xy, x_field, z_field = (np.asarray(x, float) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field))
    layer, across, exchange = np.zeros((n, n), complex), np.zeros((n, n), complex), np.zeros((n, n))
    for (i, j), z, x in zip(hamiltonian.bonds.tolist(), zz, xy, strict=True):
        layer[i, j] = layer[j, i] = -(tau * z + tau**2 * x**2) / 2
        exchange[i, j] = exchange[j, i] = -2 * tau * x
    if hamiltonian.conserves_sz:
        amplitude = np.where(exchange != 0, exchange, exchange @ exchange / 2)
        np.fill_diagonal(amplitude, 0)
        largest = amplitude.flat[np.abs(amplitude).argmax()]
        floor = 0.2 * (largest if largest else 1.0)
        amplitude = np.where(np.abs(amplitude) > abs(floor), amplitude, floor)
        defects = -np.log(amplitude / floor + 0j) / 4  # of m_i m_j with m = (sigma + sigma')/2
        np.fill_diagonal(defects, 0)
        layer, across = layer + defects, defects + np.eye(n) * np.log(floor + 0j) / 4
    else:
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

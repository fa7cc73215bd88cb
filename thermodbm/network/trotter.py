"""Analytic weights: a Trotter product written as a deep Boltzmann machine."""

import numpy as np

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.network.builder import NetworkBuilder
from thermodbm.network.dbm import DBMParams
from thermodbm.network.exchange import exchange_network
from thermodbm.network.ring import ring_params, trotter_ring


def infinite_temperature(n_sites: int) -> DBMParams:
    """|Psi_inf> = prod_i (|up, down'> + |down, up'>): a hidden unit a site with W = i pi/4 to spin and ancilla; no deep units."""
    return NetworkBuilder(n_sites).params()


def trotter_network(hamiltonian: SpinHamiltonian, beta: float, n_slices: int) -> DBMParams:
    """The purified thermal state exp(-beta H/2)|Psi_inf> in the symmetric Trotter splitting, with delta = beta/(2 n_slices).

    For the transverse-field Ising model: a hidden unit per bond and slice (one more layer for the split first half step), and a deep and a
    hidden unit per site and slice; for models that conserve the magnetisation see `exchange.exchange_network`. Exact for the Trotter
    product, which differs from the exponential by O(delta^2).

    Raises:
        InputError: for a negative beta or no slices.

    Source: Nomura, Yoshioka, Nori, PRL 127, 060601 (2021), Method I; Carleo, Nomura, Imada, Nat. Commun. 9, 5322 (2018).

    >>> from thermodbm import make_lattice, transverse_field_ising
    >>> trotter_network(transverse_field_ising(make_lattice("chain", 3)), 1.0, n_slices=2).W_deep.shape
    (18, 6)
    """
    if not (np.isfinite(beta) and beta >= 0):
        raise InputError("beta", expected="a finite number >= 0", found=beta)
    if n_slices < 1:
        raise InputError("n_slices", expected="a positive integer", found=n_slices)
    if hamiltonian.conserves_sz:
        return exchange_network(hamiltonian, beta, n_slices)
    if beta == 0:
        return infinite_temperature(hamiltonian.n_sites)
    return ring_params(trotter_ring(hamiltonian, beta, n_slices), hamiltonian.bonds)


def network_record(hamiltonian: SpinHamiltonian, beta: float, n_slices: int) -> dict[str, np.ndarray]:
    """What a file must hold to rebuild a network of any size: `trotter_network` of the same couplings, beta and n_slices."""
    couplings = {name: np.asarray(getattr(hamiltonian, name), float) for name in ("zz", "xy", "x_field", "z_field")}
    return {**couplings, "bonds": hamiltonian.bonds, "beta": np.asarray(beta), "n_slices": np.asarray(n_slices)}

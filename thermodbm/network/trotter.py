"""Analytic weights: a Trotter product written as a deep Boltzmann machine."""

import numpy as np

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.network.builder import NetworkBuilder, bond_weights, field_weight
from thermodbm.network.dbm import DBMParams
from thermodbm.network.exchange import exchange_network


def infinite_temperature(n_sites: int) -> DBMParams:
    """|Psi_inf> = prod_i (|up, down'> + |down, up'>): a hidden unit a site with W = i pi/4 to spin and ancilla; no deep units."""
    return NetworkBuilder(n_sites).params()


def apply_ising_slices(builder: NetworkBuilder, hamiltonian: SpinHamiltonian, delta: float, n_slices: int) -> None:
    """Append [exp(-delta Hz/2) exp(-delta Hx) exp(-delta Hz/2)]^n_slices for H = Hz + Hx of the transverse-field Ising model."""
    zz, x_field, z_field = (np.asarray(x, float) for x in (hamiltonian.zz, hamiltonian.x_field, hamiltonian.z_field))

    def diagonal(step: float) -> None:
        for (i, j), coupling in zip(hamiltonian.bonds.tolist(), zz, strict=True):
            w_i, w_j = bond_weights(-step * coupling)
            builder.couple({builder.ends[i]: w_i, builder.ends[j]: w_j})
        for i, field in enumerate(z_field):
            builder.bias(builder.ends[i], step * field)

    diagonal(delta / 2)
    for k in range(n_slices):
        for i in np.flatnonzero(x_field):
            old, new = builder.lengthen(int(i))
            w = field_weight(delta * x_field[i])
            builder.couple({old: w, new: w})
        diagonal(delta if k < n_slices - 1 else delta / 2)


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
    builder = NetworkBuilder(hamiltonian.n_sites)
    if beta > 0:
        apply_ising_slices(builder, hamiltonian, beta / (2 * n_slices), n_slices)
    return builder.params()


def network_record(hamiltonian: SpinHamiltonian, beta: float, n_slices: int) -> dict[str, np.ndarray]:
    """What a file must hold to rebuild a network of any size: `trotter_network` of the same couplings, beta and n_slices."""
    couplings = {name: np.asarray(getattr(hamiltonian, name), float) for name in ("zz", "xy", "x_field", "z_field")}
    return {**couplings, "bonds": hamiltonian.bonds, "beta": np.asarray(beta), "n_slices": np.asarray(n_slices)}

"""Analytic weights: a Trotter product written as a deep Boltzmann machine, gate by gate.

Every site has a worldline of units, from its ancilla to its spin. A gate that is diagonal couples the present ends of worldlines by
hidden units; a gate that is not lengthens them: the old end becomes a deep unit and keeps all its couplings, the new end is the spin.
"""

import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.network.dbm import DBMParams


class NetworkBuilder:
    """Grows a network gate by gate from the infinite-temperature state prod_i (|up, down'> + |down, up'>)."""

    def __init__(self, n_sites: int):
        self.n_sites = n_sites
        self.ends = list(range(n_sites, 2 * n_sites))  # unit that is the present end of each worldline; units 0..n_sites-1 are ancillas
        self._n_units = 2 * n_sites
        self._biases: dict[int, complex] = {}
        self._couplings: list[dict[int, complex]] = []  # of each hidden unit
        for ancilla, spin in enumerate(self.ends):
            self.couple({ancilla: 0.25j * np.pi, spin: 0.25j * np.pi})

    def couple(self, weights: dict[int, complex]) -> None:
        """Add a hidden unit with the given weights to units."""
        self._couplings.append(weights)

    def bias(self, unit: int, value: complex) -> None:
        """Add to the bias of a unit."""
        self._biases[unit] = self._biases.get(unit, 0.0) + value

    def lengthen(self, site: int) -> tuple[int, int]:
        """Put a new unit at the end of a worldline; returns (old end, new end)."""
        old, self.ends[site] = self.ends[site], self._n_units
        self._n_units += 1
        return old, self.ends[site]

    def params(self) -> DBMParams:
        """The network: ends of worldlines are spins, all other units but the ancillas are deep."""
        n = self.n_sites
        visible = [*self.ends, *range(n)]
        deep = sorted(set(range(self._n_units)) - set(visible))
        column = {unit: k for k, unit in enumerate([*visible, *deep])}
        weights = np.zeros((len(self._couplings), self._n_units), complex)
        for row, couplings in enumerate(self._couplings):
            for unit, weight in couplings.items():
                weights[row, column[unit]] += weight
        biases = np.zeros(self._n_units, complex)
        for unit, value in self._biases.items():
            biases[column[unit]] = value
        v = 2 * n
        return DBMParams(*map(jnp.asarray, (biases[:v], np.zeros(len(weights), complex), biases[v:], weights[:, :v], weights[:, v:])))


def bond_weights(exponent: float) -> tuple[float, float]:
    """Weights of the hidden unit that writes exp(K s1 s2): W = 1/2 arccosh(exp 2|K|) to both spins, with opposite signs for K < 0.

    >>> bool(np.isclose(np.cosh(2 * bond_weights(0.3)[0]), np.exp(0.6)))
    True
    """
    w = 0.5 * np.arccosh(np.exp(2 * abs(exponent)))
    return w, w if exponent >= 0 else -w


def field_weight(exponent: float) -> complex:
    """Weight W' = 1/2 arccosh(coth g) of the hidden unit that writes exp(g sx), to the old and to the new end of the worldline."""
    return 0.5 * np.arccosh(complex(1 / np.tanh(exponent)))


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
        from thermodbm.network.exchange import exchange_network  # built with this module's NetworkBuilder

        return exchange_network(hamiltonian, beta, n_slices)
    builder = NetworkBuilder(hamiltonian.n_sites)
    if beta > 0:
        apply_ising_slices(builder, hamiltonian, beta / (2 * n_slices), n_slices)
    return builder.params()


def network_record(hamiltonian: SpinHamiltonian, beta: float, n_slices: int) -> dict[str, np.ndarray]:
    """What a file must hold to rebuild a network of any size: `trotter_network` of the same couplings, beta and n_slices."""
    couplings = {name: np.asarray(getattr(hamiltonian, name), float) for name in ("zz", "xy", "x_field", "z_field")}
    return {**couplings, "bonds": hamiltonian.bonds, "beta": np.asarray(beta), "n_slices": np.asarray(n_slices)}

"""Growing a network gate by gate: worldlines of units from ancillas to spins, and the hidden units that couple them.

Every site has a worldline of units, from its ancilla to its spin. A gate that is diagonal couples the present ends of worldlines by
hidden units; a gate that is not lengthens them: the old end becomes a deep unit and keeps all its couplings, the new end is the spin.
"""

import jax.numpy as jnp
import numpy as np

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

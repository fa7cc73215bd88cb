"""Exchange gates: the Trotter product of Heisenberg and XXZ magnets, as numbers and as hidden and deep units.

The gate of a bond H_b = zz sz sz + xy (sx sx + sy sy) over an imaginary time delta has three kinds of matrix elements <s1 s2|.|d1 d2>:

    a = exp(-delta zz)                        s1 = s2 = d1 = d2          both spins parallel
    b = exp(+delta zz) cosh(2 delta xy)       s1 = d1 = -s2 = -d2        antiparallel, kept
    c = -exp(+delta zz) sinh(2 delta xy)      s1 = d2 = -s2 = -d1        antiparallel, exchanged

Source: Nomura, Yoshioka, Nori, PRL 127, 060601 (2021), Method I; Carleo, Nomura, Imada, Nat. Commun. 9, 5322 (2018).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models import SpinHamiltonian
from thermodbm.models.lattice import bond_coloring
from thermodbm.models.rotation import sublattice_rotation
from thermodbm.network.builder import NetworkBuilder, bond_weights
from thermodbm.network.dbm import DBMParams


class GateElements(NamedTuple):
    """Matrix elements a, b, c of the gate of a bond, or their derivatives with respect to delta; any shape."""

    parallel: jax.Array
    kept: jax.Array
    exchanged: jax.Array


def gate_elements(zz: jax.Array, xy: jax.Array, delta: jax.Array) -> GateElements:
    """The elements a, b, c of exp(-delta H_b); c is positive for xy < 0."""
    up = jnp.exp(delta * zz)
    return GateElements(1 / up, up * jnp.cosh(2 * delta * xy), -up * jnp.sinh(2 * delta * xy))


def trotter_step(bonds: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """One step of the symmetric splitting, begun and ended in the middle of the first group of commuting bonds.

        exp(-delta H) = G_1^(1/2) G_2^(1/2) ... G_k ... G_2^(1/2) G_1^(1/2) + O(delta^3)

    Returns the gates met on a ring of such steps, where G_1^(1/2) G_1^(1/2) merge: [(bond numbers, fraction of delta)], namely
    G_1, G_2^(1/2), ..., G_k, ..., G_2^(1/2).
    """
    groups = bond_coloring(bonds) or [np.zeros(0, int)]
    inner = [(group, 0.5) for group in groups[1:-1]]
    last = [(groups[-1], 1.0)] if len(groups) > 1 else []
    return [(groups[0], 1.0), *inner, *last, *inner[::-1]]


def exchange_network(hamiltonian: SpinHamiltonian, beta: float, n_slices: int) -> DBMParams:
    """The purified state exp(-beta H/2)|Psi_inf> of a magnet that conserves S^z_tot, up to a constant, with delta = beta/(2 n_slices).

    H is split symmetrically as in `trotter_step`; a field along z acts for delta/2 just inside G_1^(1/2) on either side. Without
    frustration, all phases are biases of the visible units (the sublattice rotation) and the constraints; otherwise exchange with
    xy > 0 has complex weights.

    Raises:
        InputError: for a model that does not conserve the magnetisation, a negative beta, or no slices.
    """
    if not hamiltonian.conserves_sz:
        raise InputError("model.kind", expected="xxz, heisenberg or j1j2", found=hamiltonian.model)
    if not (np.isfinite(beta) and beta >= 0):
        raise InputError("beta", expected="a finite number >= 0", found=beta)
    if n_slices < 1:
        raise InputError("n_slices", expected="a positive integer", found=n_slices)
    builder = NetworkBuilder(hamiltonian.n_sites)
    delta = beta / (2 * n_slices)
    rotation = sublattice_rotation(hamiltonian)
    zz, xy, z_field = (np.asarray(x, float) for x in (hamiltonian.zz, hamiltonian.xy, hamiltonian.z_field))
    if rotation is not None:
        xy = -np.abs(xy)
    (first, _), *inner = trotter_step(hamiltonian.bonds)

    def gates(group: np.ndarray, step: float) -> None:
        for b in group:
            _apply_gate(builder, tuple(hamiltonian.bonds[b]), zz[b], xy[b], step)

    def field(step: float) -> None:
        for site in np.flatnonzero(z_field):
            builder.bias(builder.ends[site], step * z_field[site])

    gates(first, delta / 2)
    for k in range(n_slices):
        field(delta / 2)
        for group, fraction in inner:
            gates(group, fraction * delta)
        field(delta / 2)
        gates(first, delta if k < n_slices - 1 else delta / 2)
    if rotation is not None:
        for site in np.flatnonzero(rotation < 0):  # (-1)^(number of down spins) of the row, and of the column -sigma'
            builder.bias(builder.ends[site], -0.5j * np.pi)
            builder.bias(int(site), 0.5j * np.pi)
    return builder.params()


def _apply_gate(builder: NetworkBuilder, sites: tuple[int, int], zz: float, xy: float, delta: float) -> None:
    """Append exp(-delta H_b) up to a constant: two deep units and four hidden ones, one of which drops out.

    Two hidden units are the constraint s1 + s2 = d1 + d2: cos(pi k/4) cos(pi k/8) vanishes for k = s1 + s2 - d1 - d2 = +-2, +-4. Units with
    coupling 1/2 arccosh(gain) multiply by their gain where the two units they join agree: X for (s1, d1), Y for (s1, d2) and Z for
    (s1, -s2), so that a : b : c = XY : XZ : YZ.
    """
    i, j = (int(s) for s in sites)
    if delta == 0 or (zz == 0 and xy == 0):
        return
    if xy == 0:
        w_i, w_j = bond_weights(-delta * zz)
        builder.couple({builder.ends[i]: w_i, builder.ends[j]: w_j})
        return
    a, b, c = (float(x) for x in gate_elements(zz, xy, delta))
    (d1, s1), (d2, s2) = builder.lengthen(i), builder.lengthen(j)
    for quarter in (0.25j * np.pi, 0.125j * np.pi):
        builder.couple({s1: quarter, s2: quarter, d1: -quarter, d2: -quarter})
    gains = {(d1, 1): b / c, (s2, -1): b / a} if a <= b else {(d1, 1): a / c, (d2, 1): a / b}
    for (unit, orientation), gain in gains.items():
        w = 0.5 * np.arccosh(complex(gain))
        builder.couple({s1: w, unit: orientation * w})

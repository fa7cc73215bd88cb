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


class GateLayers(NamedTuple):
    """Layers of gates from the ancillas (first) to the spins (last): exponents of exp(-zz sz sz - xy (sx sx + sy sy)) of the bonds of each,
    zero for those without a gate in it, and of the field between it and the next. Groups follow each other as in `trotter_step`, begun and
    ended in the middle of the first: 1 + n_steps (gates of a step) layers."""

    zz: jax.Array  # (n_layers, n_bonds)
    xy: jax.Array  # (n_layers, n_bonds)
    field: jax.Array  # (n_layers - 1, n_sites)  f of exp(f sz)


def gates_of_classes(K: np.ndarray, g: np.ndarray, bond_class: np.ndarray, n_sites: int) -> GateLayers:
    """Exponents K and g (n_layers, classes) of zz and xy, bond by bond, without fields."""
    return GateLayers(jnp.asarray(K)[:, bond_class], jnp.asarray(g)[:, bond_class], jnp.zeros((len(K) - 1, n_sites)))


def gate_groups(bonds: np.ndarray, n_steps: int) -> list[tuple[np.ndarray, float]]:
    """The bonds of every layer of gates, and their duration in units of a step."""
    (first, _), *inner = trotter_step(bonds)
    return [(first, 0.5), *[*inner, (first, 1.0)] * (n_steps - 1), *inner, (first, 0.5)]


def trotter_gates(hamiltonian: SpinHamiltonian, beta: jax.Array | float, n_slices: int) -> GateLayers:
    """Of the symmetric splitting, delta = beta/(2 n_slices); a field acts for delta/2 just inside G_1^(1/2) on either side.

    Differentiable in all couplings and in beta.
    """
    groups, delta = gate_groups(hamiltonian.bonds, n_slices), beta / (2 * n_slices)
    durations, shares = np.zeros((len(groups), len(hamiltonian.bonds))), np.zeros((len(groups) - 1, 1))
    for layer, (members, fraction) in enumerate(groups):
        durations[layer, members] = fraction
    n_gates = (len(groups) - 1) // n_slices
    shares[::n_gates] += 0.5
    shares[n_gates - 1 :: n_gates] += 0.5
    parts = durations * hamiltonian.zz, durations * hamiltonian.xy, shares * hamiltonian.z_field
    return GateLayers(*(jnp.asarray(delta * x) for x in parts))


def gate_params(network: GateLayers, hamiltonian: SpinHamiltonian) -> DBMParams:
    """The same network unit by unit, up to a constant.

    Without frustration, all phases are biases of the visible units (the sublattice rotation) and the constraints; otherwise exchange with
    xy > 0 has complex weights.
    """
    rotation, builder = sublattice_rotation(hamiltonian), NetworkBuilder(hamiltonian.n_sites)
    zz, xy, field = (np.asarray(x, float) for x in network)
    if rotation is not None:
        xy = -np.abs(xy)
    for layer in range(len(zz)):
        for b in np.flatnonzero((zz[layer] != 0) | (xy[layer] != 0)):
            _apply_gate(builder, tuple(hamiltonian.bonds[b]), zz[layer, b], xy[layer, b])
        if layer < len(field):
            for site in np.flatnonzero(field[layer]):
                builder.bias(builder.ends[site], field[layer, site])
    if rotation is not None:
        for site in np.flatnonzero(rotation < 0):  # (-1)^(number of down spins) of the row, and of the column -sigma'
            builder.bias(builder.ends[site], -0.5j * np.pi)
            builder.bias(int(site), 0.5j * np.pi)
    return builder.params()


def exchange_network(hamiltonian: SpinHamiltonian, beta: float, n_slices: int) -> DBMParams:
    """The purified state exp(-beta H/2)|Psi_inf> of a magnet that conserves S^z_tot, up to a constant, by `trotter_gates`.

    Raises:
        InputError: for a model that does not conserve the magnetisation, a negative beta, or no slices.
    """
    if not hamiltonian.conserves_sz:
        raise InputError("model.kind", expected="xxz, heisenberg or j1j2", found=hamiltonian.model)
    if not (np.isfinite(beta) and beta >= 0):
        raise InputError("beta", expected="a finite number >= 0", found=beta)
    if n_slices < 1:
        raise InputError("n_slices", expected="a positive integer", found=n_slices)
    return gate_params(trotter_gates(hamiltonian, beta, n_slices), hamiltonian)


def _apply_gate(builder: NetworkBuilder, sites: tuple[int, int], zz: float, xy: float) -> None:
    """Append a gate up to a constant: two deep units and four hidden ones, one of which drops out.

    Two hidden units are the constraint s1 + s2 = d1 + d2: cos(pi k/4) cos(pi k/8) vanishes for k = s1 + s2 - d1 - d2 = +-2, +-4. Units with
    coupling 1/2 arccosh(gain) multiply by their gain where the two units they join agree: X for (s1, d1), Y for (s1, d2) and Z for
    (s1, -s2), so that a : b : c = XY : XZ : YZ.
    """
    i, j = (int(s) for s in sites)
    if xy == 0:
        w_i, w_j = bond_weights(-zz)
        builder.couple({builder.ends[i]: w_i, builder.ends[j]: w_j})
        return
    a, b, c = (float(x) for x in gate_elements(zz, xy, 1.0))
    (d1, s1), (d2, s2) = builder.lengthen(i), builder.lengthen(j)
    for quarter in (0.25j * np.pi, 0.125j * np.pi):
        builder.couple({s1: quarter, s2: quarter, d1: -quarter, d2: -quarter})
    gains = {(d1, 1): b / c, (s2, -1): b / a} if a <= b else {(d1, 1): a / c, (d2, 1): a / b}
    for (unit, orientation), gain in gains.items():
        w = 0.5 * np.arccosh(complex(gain))
        builder.couple({s1: w, unit: orientation * w})

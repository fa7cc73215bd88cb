"""Layered networks of small magnets of any lattice, written out: what is minimised in `training` where free fermions do not apply.

Up to `MAX_SITES` sites these are rows A[r] of one configuration r of every orbit, weighed by the size of its orbit: A and the target
commute with the flip of all spins and with the permutations of sites that map every layer onto itself. Beyond, it is A on a few random
vectors v: the fidelity of the states A v and R v is greatest where A is R, whatever the vectors.

Transverse-field Ising: the layers of `exact.layered_ring`, one K a class of bonds and one g a class of sites. Exchange, after the
sublattice rotation: gates exp(-K sz sz - g (sx sx + sy sy)) on the groups of commuting bonds of `trotter_step`, from the middle of the
first group at the ancillas to its middle at the spins.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import expm_multiply

from thermodbm.errors import InputError
from thermodbm.evolve.training import Layout, Problem, free_parameters, ising_trotter
from thermodbm.exact import all_configurations, sparse_hamiltonian
from thermodbm.models import SpinHamiltonian
from thermodbm.models.rotation import rotate, sublattice_rotation
from thermodbm.network.ansatz.symmetry import symmetry_group
from thermodbm.network.exchange import gate_groups, trotter_step

MAX_SITES = 10
"""More are not written out as matrices."""
MAX_VECTOR_SITES = 16
"""More are not written out as vectors."""
SITES_TOGETHER = 4
"""In a Kronecker product of transverse layers."""
N_NUMBERS = 2**16
"""Of all random vectors together, but there are four at least."""


class Classes(NamedTuple):
    """Which bonds and sites share a coupling, and which permutations of sites leave the classes as they are."""

    bonds: np.ndarray  # (n_bonds,) from 0
    sites: np.ndarray  # (n_sites,)
    permutations: np.ndarray  # (n, n_sites), the identity first


class Rows(NamedTuple):
    """The vectors that A is applied to: one configuration of every orbit, or random ones."""

    vectors: np.ndarray  # (n_rows, 2^N)
    weights: np.ndarray  # (n_rows,) sizes of orbits, or 1


class DenseNetwork(NamedTuple):
    """All that depends on the magnet, its classes of couplings and the number of layers."""

    hamiltonian: SpinHamiltonian  # with positive exchange elements
    rows: Rows
    rate_K: np.ndarray  # (layers of K, classes): Trotter couplings at beta = 1
    rate_g: np.ndarray
    tables: tuple[np.ndarray, ...]
    product: Callable  # (n_sites, K, g, tables, rows) -> rows of A
    order: np.ndarray  # (2^N,) of configurations


def coupling_classes(hamiltonian: SpinHamiltonian) -> Classes:
    """Bonds and sites that a symmetry of the magnet maps on each other; for exchange, only within a group of commuting gates.

    >>> from thermodbm import heisenberg, make_lattice
    >>> coupling_classes(heisenberg(make_lattice("chain", 4))).bonds.tolist()
    [0, 1, 1, 0]
    """
    n = hamiltonian.n_sites
    permutations = symmetry_group(hamiltonian, point_group=True, exchange=False).perm[:, :n]
    sites = np.unique(permutations.min(0), return_inverse=True)[1]
    images = np.array([_bond_images(hamiltonian.bonds, p) for p in permutations], int).reshape(len(permutations), -1)
    bonds = images.min(0, initial=len(hamiltonian.bonds))
    if hamiltonian.conserves_sz:
        group = np.zeros(len(bonds), int)
        for number, (members, _) in enumerate(trotter_step(hamiltonian.bonds)):
            group[members] = number
        bonds = bonds + len(bonds) * group
    bonds = np.unique(bonds, return_inverse=True)[1]
    kept = [p for p, image in zip(permutations, images, strict=True) if np.array_equal(bonds[image], bonds)]
    return Classes(bonds.reshape(-1), sites.reshape(-1), np.array(kept))


def dense_network(hamiltonian: SpinHamiltonian, n_layers: int, classes: Classes | None = None) -> DenseNetwork:
    """The network of a small magnet, of L = n_layers deep layers (tfim) or Trotter steps (exchange).

    Args:
        classes: `coupling_classes` by default.

    Raises:
        InputError: for too many sites, no layers, a field along z, or a frustrated magnet.
    """
    n = hamiltonian.n_sites
    if n > MAX_VECTOR_SITES:
        raise InputError("lattice", expected=f"at most {MAX_VECTOR_SITES} sites", found=f"{n} sites")
    if n_layers < 1:
        raise InputError("layers", expected="a positive integer", found=n_layers)
    if np.any(hamiltonian.z_field):
        raise InputError("model.h", expected="no field along z", found=np.asarray(hamiltonian.z_field).tolist())
    classes = classes or coupling_classes(hamiltonian)
    eta = sublattice_rotation(hamiltonian) if hamiltonian.conserves_sz else None
    hamiltonian = unrotated(hamiltonian)
    rows = orbit_rows(n, classes.permutations) if n <= MAX_SITES else random_rows(n)
    spins, bonds = all_configurations(n).astype(float), hamiltonian.bonds
    if hamiltonian.conserves_sz:
        rate_K, rate_g, members = exchange_trotter(hamiltonian, classes, n_layers)
        order = (hamiltonian.moment * spins @ eta) ** 2 / n
        return DenseNetwork(hamiltonian, rows, rate_K, rate_g, _exchange_tables(hamiltonian, classes, members), _exchange_rows, order)
    rates = trotter_rates(hamiltonian, classes, n_layers)
    zz = np.zeros((rates[0].shape[1], 2**n))
    np.add.at(zz, classes.bonds, (spins[:, bonds[:, 0]] * spins[:, bonds[:, 1]]).T)
    return DenseNetwork(hamiltonian, rows, *rates, (zz, classes.sites), _ising_rows, spins.mean(1) ** 2)


def dense_problem(network: DenseNetwork) -> Problem:
    """The training of such a network, palindromic. An exchange gate is exp(-t H_b) of a trained duration t: the ratio of K and g is that of
    the bond, so that gates have no other symmetry, and no other loops, than the magnet."""
    n, matrix = network.hamiltonian.n_sites, sparse_hamiltonian(network.hamiltonian)
    layout = free_couplings(network.hamiltonian, network.rate_K, network.rate_g)

    def target(beta: float) -> np.ndarray:
        root = thermal_rows(network, beta) * np.sqrt(network.rows.weights)[:, None]
        return root / np.linalg.norm(root)

    def drift(root: np.ndarray) -> np.ndarray:
        acted = (matrix @ root.T).T
        return (np.sum(root * acted) * root - acted) / 2

    return Problem(
        n, network.rate_K, network.rate_g, *layout,
        value_and_grad=lambda theta, root: _loss(network.product, n, theta, layout, network.tables, network.rows, root),
        target=target,
        drift=drift,
        curvature=lambda theta: np.asarray(_curvature(network.product, n, theta, layout, network.tables, network.rows)),
    )  # fmt: skip


def free_couplings(hamiltonian: SpinHamiltonian, rate_K: np.ndarray, rate_g: np.ndarray) -> Layout:
    """Palindromic; an exchange gate has one parameter, its duration."""
    scales, index = [np.sign(rate_K), np.sign(rate_g)], free_parameters(rate_K, rate_g)
    if hamiltonian.conserves_sz:
        exchanged = rate_g != 0
        scales[0] = np.where(exchanged, rate_K / np.where(exchanged, np.abs(rate_g), 1), scales[0])
        index = np.stack([np.where(exchanged, index[1], index[0]), index[1]])
        present = np.stack(scales) != 0
        index = np.where(present, np.searchsorted(np.unique(index[present]), index), 0)
    return Layout(*scales, *index)


def trotter_rates(hamiltonian: SpinHamiltonian, classes: Classes, n_layers: int) -> tuple[np.ndarray, np.ndarray]:
    """K and g (layers, classes) at beta = 1 of the symmetric Trotter product of n_layers layers or steps."""
    hamiltonian = unrotated(hamiltonian)
    if hamiltonian.conserves_sz:
        return exchange_trotter(hamiltonian, classes, n_layers)[:2]
    return ising_trotter(
        _class_means(-np.asarray(hamiltonian.zz), classes.bonds), _class_means(hamiltonian.x_field, classes.sites), n_layers
    )


def network_rows(network: DenseNetwork, K: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Rows of A, (n_rows, 2^N)."""
    return np.asarray(network.product(network.hamiltonian.n_sites, K, g, network.tables, network.rows))


def thermal_rows(network: DenseNetwork, beta: float) -> np.ndarray:
    """Rows of exp(-beta H/2)."""
    return expm_multiply(-beta / 2 * sparse_hamiltonian(network.hamiltonian), network.rows.vectors.T).T


def dense_averages(network: DenseNetwork, rows: np.ndarray, beta: float) -> dict[str, float]:
    """energy, specific_heat (of fluctuations) and order (tfim: <m_z^2>; exchange: staggered structure factor) of rows of A = A^T."""
    h, n = sparse_hamiltonian(network.hamiltonian), network.hamiltonian.n_sites
    weights, acted = network.rows.weights[:, None], (h @ rows.T).T
    total = np.sum(weights * rows**2)
    energy, square = np.sum(weights * rows * acted) / total, np.sum(weights * acted**2) / total
    order = float(np.sum(weights * rows**2, 0) @ network.order / total)
    return {"energy": energy / n, "specific_heat": beta**2 * (square - energy**2) / n, "order": order}


def unrotated(hamiltonian: SpinHamiltonian) -> SpinHamiltonian:
    """The magnet of positive exchange elements that a sublattice rotation turns into this one; itself for tfim.

    Raises:
        InputError: for a frustrated magnet.
    """
    if not hamiltonian.conserves_sz:
        return hamiltonian
    eta = sublattice_rotation(hamiltonian)
    if eta is None:
        hint = "A learned network has positive weights, and frustrated magnets have none; the variational method may do."
        raise InputError("model", expected="a magnet without frustration", found=hamiltonian.model, hint=hint)
    return rotate(hamiltonian, eta)


def exchange_trotter(hamiltonian: SpinHamiltonian, classes: Classes, n_steps: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """K and g (layers, classes) at beta = 1 of the symmetric Trotter product of n_steps steps, and the bonds of every layer of gates."""
    gates = gate_groups(hamiltonian.bonds, n_steps)
    n_classes = classes.bonds.max(initial=-1) + 1
    zz, xy = (_class_means(c, classes.bonds) for c in (hamiltonian.zz, hamiltonian.xy))
    fractions = np.zeros((len(gates), n_classes))
    for layer, (members, fraction) in enumerate(gates):
        fractions[layer, classes.bonds[members]] = fraction / (2 * n_steps)
    return fractions * zz, fractions * xy, [members for members, _ in gates]


def orbit_rows(n_sites: int, permutations: np.ndarray) -> Rows:
    """Orbits of configurations under permutations of sites and the flip of all spins."""
    digits = (1 - all_configurations(n_sites).astype(int)) // 2
    powers = 2 ** np.arange(n_sites)[::-1]
    lowest = np.min([digits[:, p] @ powers for p in permutations], axis=0)
    lowest = np.minimum(lowest, lowest[::-1])  # the flip reverses the order of configurations
    representatives, orbit = np.unique(lowest, return_inverse=True)
    vectors = np.zeros((len(representatives), 2**n_sites))
    vectors[np.arange(len(vectors)), representatives] = 1
    return Rows(vectors, np.bincount(orbit.reshape(-1)).astype(float))


def random_rows(n_sites: int, seed: int = 0) -> Rows:
    """Normal numbers: sum_v <v|O|v> is an estimate of the trace of O, and always the same one."""
    n_vectors = max(N_NUMBERS >> n_sites, 4)
    return Rows(np.random.default_rng(seed).normal(size=(n_vectors, 2**n_sites)), np.ones(n_vectors))


def _class_means(couplings: Any, labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels, np.asarray(couplings, float)) / np.bincount(labels)


def _bond_images(bonds: np.ndarray, permutation: np.ndarray) -> list[int]:
    number = {frozenset(pair): b for b, pair in enumerate(bonds.tolist())}
    return [number[frozenset(pair)] for pair in permutation[bonds].tolist()]


def _state(product: Callable, n: int, theta: jax.Array, layout: tuple, static: Any, rows: Rows) -> jax.Array:
    """A applied to the vectors, of norm 1."""
    scale_K, scale_g, index_K, index_g = layout
    amplitude = product(n, scale_K * jnp.exp(theta[index_K]), scale_g * jnp.exp(theta[index_g]), static, rows)
    amplitude = amplitude * jnp.sqrt(rows.weights)[:, None]
    return amplitude / jnp.linalg.norm(amplitude)


def _infidelity(product: Callable, n: int, theta: jax.Array, layout: tuple, static: Any, rows: Rows, root: jax.Array) -> jax.Array:
    """-ln(1 - I)/N = -2 ln(1 - |a - r|^2/2)/N of normalised a and r."""
    return -2 * jnp.log1p(-jnp.sum((_state(product, n, theta, layout, static, rows) - root) ** 2) / 2) / n


def _metric(product: Callable, n: int, theta: jax.Array, layout: tuple, static: Any, rows: Rows) -> jax.Array:
    """2 (da/dtheta).(da/dtheta)/N: the Hessian of `_infidelity` where a is r."""
    tangents = jax.jacfwd(lambda x: _state(product, n, x, layout, static, rows).reshape(-1))(theta)
    return 2 * tangents.T @ tangents / n


_loss = jax.jit(jax.value_and_grad(_infidelity, 2), static_argnums=(0, 1))
_curvature = jax.jit(_metric, static_argnums=(0, 1))


def _ising_rows(n: int, K: jax.Array, g: jax.Array, static: tuple[jax.Array, jax.Array], rows: Rows) -> jax.Array:
    """Rows of D(K_0) X(g_1) D(K_1) ... X(g_L) D(K_L): X as Kronecker products over groups of sites, each moved to the back when done."""
    zz, sites = static
    groups = np.array_split(np.arange(n), -(-n // SITES_TOGETHER))

    def kron(exponents: jax.Array) -> jax.Array:
        matrix = jnp.ones((1, 1))
        for x in exponents:
            matrix = jnp.kron(matrix, jnp.stack([jnp.stack([jnp.cosh(x), jnp.sinh(x)]), jnp.stack([jnp.sinh(x), jnp.cosh(x)])]))
        return matrix

    def layer(amplitude: jax.Array, couplings: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        K_l, g_l = couplings
        for group in groups:
            front = amplitude.reshape(len(amplitude), 2 ** len(group), -1)
            amplitude = jnp.einsum("rax,ab->rxb", front, kron(g_l[sites[group]]))
        return amplitude.reshape(len(amplitude), -1) * jnp.exp(K_l @ zz), None

    start = jnp.asarray(rows.vectors) * jnp.exp(K[0] @ zz)
    return jax.lax.scan(layer, start, (jnp.asarray(K)[1:], jnp.asarray(g)))[0]


def _exchange_tables(hamiltonian: SpinHamiltonian, classes: Classes, members: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Of every gate in turn: its layer, class and bond; of every bond: whether parallel (n_bonds, 2^N), and configurations exchanged."""
    n, bonds = hamiltonian.n_sites, hamiltonian.bonds
    number = np.arange(2**n)
    high, low = (number >> (n - 1 - bonds[:, end, None]) & 1 for end in (0, 1))
    mask = (1 << (n - 1 - bonds[:, 0, None])) | (1 << (n - 1 - bonds[:, 1, None]))
    swapped = np.where(high == low, number, number ^ mask)
    layer = np.repeat(np.arange(len(members)), [len(m) for m in members])
    bond = np.concatenate(members)
    return layer, classes.bonds[bond], bond, high == low, swapped


def _exchange_rows(n: int, K: jax.Array, g: jax.Array, static: tuple[jax.Array, ...], rows: Rows) -> jax.Array:
    """Rows of the product of all gates, from the ancillas to the spins."""
    layer, label, bond, parallel, swapped = map(jnp.asarray, static)

    def gate(amplitude: jax.Array, which: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        k, x, b = which
        kept = jnp.where(parallel[b], jnp.exp(-k), jnp.exp(k) * jnp.cosh(2 * x))
        exchanged = jnp.where(parallel[b], 0.0, -jnp.exp(k) * jnp.sinh(2 * x))
        return amplitude * kept + amplitude[:, swapped[b]] * exchanged, None

    return jax.lax.scan(gate, jnp.asarray(rows.vectors), (jnp.asarray(K)[layer, label], jnp.asarray(g)[layer, label], bond))[0]

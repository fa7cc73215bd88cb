"""Spin-1/2 Hamiltonians with differentiable couplings, their diagonal energies and connected configurations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.lattice import Lattice

Coupling = float | Sequence[float] | jax.Array
"""One number for all, or one per bond (site) in the order of `Lattice.bonds(shell)` (of sites)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SpinHamiltonian:
    """All models in one form, in Pauli matrices (Ising and Heisenberg conventions differ only in the constructors below):

        H = sum_b [ zz_b sz_i sz_j + xy_b (sx_i sx_j + sy_i sy_j) ] - sum_i [ x_field_i sx_i + z_field_i sz_i ]

    The four couplings are pytree leaves, so `jax.grad` reaches them; lattice, model and bonds are static.
    """

    lattice: Lattice = field(metadata={"static": True})
    model: str = field(metadata={"static": True})  # tfim | xxz | heisenberg | j1j2
    bond_pairs: tuple[tuple[int, int], ...] = field(metadata={"static": True})
    zz: jax.Array  # (n_bonds,)
    xy: jax.Array  # (n_bonds,)
    x_field: jax.Array  # (n_sites,)
    z_field: jax.Array  # (n_sites,)

    @property
    def n_sites(self) -> int:
        """Number of spins N."""
        return self.lattice.n_sites

    @cached_property
    def bonds(self) -> np.ndarray:
        """Sites of every bond, (n_bonds, 2)."""
        return np.array(self.bond_pairs, int).reshape(-1, 2)

    @property
    def conserves_sz(self) -> bool:
        """Whether the total magnetisation along z is conserved: exchange moves only, no spin flips."""
        return self.model != "tfim"

    @property
    def moment(self) -> float:
        """Value of the spin operator for an up spin: 1 where the convention is Pauli matrices (tfim), 1/2 where it is S = sigma/2."""
        return 0.5 if self.conserves_sz else 1.0

    def diagonal_energy(self, spins: jax.Array) -> jax.Array:
        """Energy of the part diagonal in sz, (...), of configurations +-1 of shape (..., n_sites)."""
        s = jnp.asarray(spins, jnp.result_type(float))
        i, j = self.bonds.T
        return (s[..., i] * s[..., j]) @ self.zz - s @ self.z_field

    @property
    def off_diagonal(self) -> tuple[np.ndarray, jax.Array]:
        """Terms of H off the diagonal: the sites whose spins one turns over, (K, 1), or exchanges, (K, 2), and their elements (K,).

        Elements are -x_field of a flip, and 2 xy of the exchange of an antiparallel pair.
        """
        return (self.bonds, 2 * self.xy) if self.conserves_sz else (np.arange(self.n_sites)[:, None], -self.x_field)

    def connected(self, spins: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Configurations that H joins off-diagonally to `spins`, and the matrix elements.

        Args:
            spins: +-1, (..., n_sites).

        Returns:
            spins' (..., n_connected, n_sites) and <spins|H|spins'> (..., n_connected): one flip per site where H has transverse
            fields, one exchange per bond where it has spin exchange (element zero for a parallel pair).
        """
        spins = jnp.asarray(spins)
        sites, elements = self.off_diagonal
        turned = np.zeros((len(sites), self.n_sites), bool)
        turned[np.arange(len(sites))[:, None], sites] = True
        allowed = spins[..., sites[:, 0]] != spins[..., sites[:, -1]] if self.conserves_sz else True
        signs = jnp.where(turned & jnp.expand_dims(allowed, -1), -1, 1).astype(spins.dtype)
        return spins[..., None, :] * signs, jnp.broadcast_to(jnp.where(allowed, elements, 0.0), (*spins.shape[:-1], len(sites)))

    def _repr_svg_(self) -> str:
        from thermodbm.drawing import draw_hamiltonian, svg

        return svg(draw_hamiltonian(self))


def check_hamiltonian(hamiltonian: object) -> None:
    """Refuse what is no Hamiltonian, or one inside a JAX transformation where numbers are needed.

    Raises:
        InputError: saying how to make one.
    """
    if not isinstance(hamiltonian, SpinHamiltonian):
        hint = "Make one of it by transverse_field_ising, xxz, heisenberg or j1j2." if isinstance(hamiltonian, Lattice) else ""
        raise InputError("hamiltonian", expected="a SpinHamiltonian, such as heisenberg(lattice)", found=_kind(hamiltonian), hint=hint)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(hamiltonian)):
        hint = "Curves cannot be differentiated or compiled from outside: call them on numbers."
        raise InputError("hamiltonian", expected="couplings that are numbers", found="couplings traced by jax.grad, jit or vmap", hint=hint)


def check_lattice(lattice: object) -> None:
    """Refuse what is no lattice.

    Raises:
        InputError: saying how to make one.
    """
    if not isinstance(lattice, Lattice):
        expected = 'a Lattice, such as make_lattice("chain", 8) or graph(n_sites, edges)'
        raise InputError("lattice", expected=expected, found=_kind(lattice))


def _kind(thing: object) -> str:
    return f"{type(thing).__module__.partition('.')[0]} {type(thing).__name__}".removeprefix("builtins ")


def _leaf(name: str, value: Coupling, n: int, per: str) -> jax.Array | np.ndarray:
    """`value` as a float array (n,). Tracers are let through; concrete values are checked, and stay NumPy arrays in double precision
    whatever JAX is set to, so that a Hamiltonian made before x64 is switched on is none the worse.
    """
    if isinstance(value, jax.core.Tracer):
        return jnp.broadcast_to(value, (n,))
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise InputError(f"model.{name}", expected=f"a number or one per {per}", found=value) from None
    if not np.isfinite(array).all():
        raise InputError(f"model.{name}", expected="finite numbers", found=float(array[~np.isfinite(array)].flat[0]))
    if array.ndim and array.shape != (n,):
        raise InputError(f"model.{name}", expected=f"a number or {n} numbers, one per {per}", found=f"shape {array.shape}")
    return np.broadcast_to(array, (n,))


def _pairs(bonds: np.ndarray) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(j)) for i, j in bonds)


def transverse_field_ising(lattice: Lattice, J: Coupling = 1.0, gamma: Coupling = 1.0, h: Coupling = 0.0) -> SpinHamiltonian:
    """H = -J sum_<ij> sz_i sz_j - gamma sum_i sx_i - h sum_i sz_i, in Pauli matrices.

    Args:
        J: one coupling or one per bond, of either sign (J > 0 is ferromagnetic).
        gamma, h: transverse and longitudinal field, one or one per site.

    Raises:
        InputError: for couplings that are no finite numbers, or not as many as bonds or sites.

    >>> from thermodbm import make_lattice
    >>> transverse_field_ising(make_lattice("chain", 4), J=[1.0, -1.0, 0.5, 1.0]).zz.tolist()
    [-1.0, 1.0, -0.5, -1.0]
    """
    check_lattice(lattice)
    bonds, n = lattice.bonds(), lattice.n_sites
    zz = -_leaf("J", J, len(bonds), "bond")
    return SpinHamiltonian(lattice, "tfim", _pairs(bonds), zz, 0 * zz, _leaf("gamma", gamma, n, "site"), _leaf("h", h, n, "site"))


def _exchange(lattice: Lattice, model: str, bonds: np.ndarray, jz: jax.Array, jxy: jax.Array, h: Coupling) -> SpinHamiltonian:
    """H = sum_b Jz SzSz + Jxy (SxSx + SySy) - h sum Sz with S = sigma/2."""
    n = lattice.n_sites
    z_field = _leaf("h", h, n, "site") / 2
    return SpinHamiltonian(lattice, model, _pairs(bonds), jz / 4, jxy / 4, 0 * z_field, z_field)


def xxz(lattice: Lattice, J: Coupling = 1.0, delta: Coupling = 1.0, h: Coupling = 0.0) -> SpinHamiltonian:
    """H = sum_<ij> J [ SxSx + SySy + delta SzSz ] - h sum_i Sz_i, with S = sigma/2; J > 0 is antiferromagnetic."""
    check_lattice(lattice)
    bonds = lattice.bonds()
    jxy = _leaf("J", J, len(bonds), "bond")
    return _exchange(lattice, "xxz", bonds, jxy * _leaf("delta", delta, len(bonds), "bond"), jxy, h)


def heisenberg(lattice: Lattice, J: Coupling = 1.0, h: Coupling = 0.0) -> SpinHamiltonian:
    """H = J sum_<ij> S_i . S_j - h sum_i Sz_i, with S = sigma/2; J > 0 is antiferromagnetic.

    >>> from thermodbm import make_lattice
    >>> float(heisenberg(make_lattice("chain", 4)).diagonal_energy(np.array([1, -1, 1, -1])))
    -1.0
    """
    check_lattice(lattice)
    bonds = lattice.bonds()
    j = _leaf("J", J, len(bonds), "bond")
    return _exchange(lattice, "heisenberg", bonds, j, j, h)


def j1j2(lattice: Lattice, J1: Coupling = 1.0, J2: Coupling = 0.5, h: Coupling = 0.0) -> SpinHamiltonian:
    """H = J1 sum_<ij> S_i . S_j + J2 sum_<<ij>> S_i . S_j - h sum_i Sz_i over first and second neighbours, with S = sigma/2."""
    check_lattice(lattice)
    first, second = lattice.bonds(1), lattice.bonds(2)
    parts = [_leaf("J1", J1, len(first), "bond"), _leaf("J2", J2, len(second), "second-neighbour bond")]
    j = (np if all(isinstance(part, np.ndarray) for part in parts) else jnp).concatenate(parts)
    return _exchange(lattice, "j1j2", np.concatenate([first, second]), j, j, h)

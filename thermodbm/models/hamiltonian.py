"""Spin-1/2 Hamiltonians with differentiable couplings, their diagonal energies and connected configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.models.lattice import Lattice

Coupling = float | Sequence[float] | Mapping[str, float] | jax.Array
"""One number for all, or one per bond (site) in the order of `Lattice.bonds(shell)` (of sites); of bonds to nearest neighbours also one by
the name of each of `Lattice.groups`."""


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
    along_x: bool = field(default=False, metadata={"static": True})  # an exchange model has a field along x, too

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
        return self.model != "tfim" and not self.along_x

    @property
    def moment(self) -> float:
        """Value of the spin operator for an up spin: 1 where the convention is Pauli matrices (tfim), 1/2 where it is S = sigma/2."""
        return 1.0 if self.model == "tfim" else 0.5

    def diagonal_energy(self, spins: jax.Array) -> jax.Array:
        """Energy of the part diagonal in sz, (...), of configurations +-1 of shape (..., n_sites)."""
        s = jnp.asarray(spins, jnp.result_type(float))
        i, j = self.bonds.T
        return (s[..., i] * s[..., j]) @ self.zz - s @ self.z_field

    @property
    def off_diagonal(self) -> tuple[np.ndarray, jax.Array]:
        """Terms of H off the diagonal: the sites whose spins one turns over, (K, 1), or exchanges, (K, 2), and their elements (K,).

        Elements are -x_field of a flip, and 2 xy of the exchange of an antiparallel pair.

        Raises:
            InputError: for an exchange model in a field along x, which has both.
        """
        if self.along_x:
            raise no_field_along_x("this method")
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


def no_field_along_x(method: str) -> InputError:
    """The complaint of what needs a conserved magnetisation."""
    hint = "Exact diagonalisation takes it. Where all couplings are isotropic, a uniform field may as well point along z: h."
    return InputError(
        "model.h_x", expected=f"no field along x with {method}, which needs a conserved magnetisation", found="one", hint=hint
    )


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


def _of_bonds(name: str, value: Coupling, lattice: Lattice) -> jax.Array | np.ndarray:
    """A coupling of nearest neighbours, (n_bonds,), of one number, one per bond, or one per group."""
    if not isinstance(value, Mapping):
        return _leaf(name, value, len(lattice.bonds()), "bond")
    groups = lattice.groups
    if not groups:
        hint = "The third entry of an edge names its group."
        raise InputError(f"model.{name}", expected="a number or one per bond: the edges have no groups", found=dict(value), hint=hint)
    if set(value) != set(groups):
        missing, unknown = [g for g in groups if g not in value], [str(g) for g in value if g not in groups]
        found = [f"{word} {', '.join(names)}" for word, names in (("no", missing), ("the unknown", unknown)) if names]
        expected = f"a number for each group of bonds of a {lattice.kind.replace('_', ' ')}: {', '.join(groups)}"
        raise InputError(f"model.{name}", expected=expected, found=" and ".join(found))
    parts = [_leaf(f"{name}.{group}", value[group], 1, "group") for group in groups]
    return (np if all(isinstance(part, np.ndarray) for part in parts) else jnp).concatenate(parts)[lattice.bond_groups]


def _leaf(name: str, value: Coupling, n: int, per: str) -> jax.Array | np.ndarray:
    """`value` as a float array (n,). Tracers are let through; concrete values are checked, and stay NumPy arrays in double precision
    whatever JAX is set to, so that a Hamiltonian made before x64 is switched on is none the worse.
    """
    if isinstance(value, jax.core.Tracer):
        return jnp.broadcast_to(value, (n,))
    if isinstance(value, Mapping):
        hint = "Groups are of bonds between nearest neighbours."
        raise InputError(f"model.{name}", expected=f"a number or one per {per}", found=dict(value), hint=hint)
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
        J: one coupling, one per bond, or one per group of bonds, of either sign (J > 0 is ferromagnetic).
        gamma, h: transverse and longitudinal field, one or one per site.

    Raises:
        InputError: for couplings that are no finite numbers, or not as many as bonds or sites.

    >>> from thermodbm import make_lattice
    >>> transverse_field_ising(make_lattice("chain", 4), J=[1.0, -1.0, 0.5, 1.0]).zz.tolist()
    [-1.0, 1.0, -0.5, -1.0]
    """
    check_lattice(lattice)
    bonds, n = lattice.bonds(), lattice.n_sites
    zz = -_of_bonds("J", J, lattice)
    return SpinHamiltonian(lattice, "tfim", _pairs(bonds), zz, 0 * zz, _leaf("gamma", gamma, n, "site"), _leaf("h", h, n, "site"))


def _exchange(
    lattice: Lattice, model: str, bonds: np.ndarray, jz: jax.Array, jxy: jax.Array, h: Coupling, h_x: Coupling | None
) -> SpinHamiltonian:
    """H = sum_b Jz SzSz + Jxy (SxSx + SySy) - h sum Sz - h_x sum Sx with S = sigma/2."""
    n = lattice.n_sites
    z_field, x_field = (_leaf(name, value, n, "site") / 2 for name, value in (("h", h), ("h_x", 0.0 if h_x is None else h_x)))
    return SpinHamiltonian(lattice, model, _pairs(bonds), jz / 4, jxy / 4, x_field, z_field, h_x is not None)


def xxz(lattice: Lattice, J: Coupling = 1.0, delta: Coupling = 1.0, h: Coupling = 0.0, h_x: Coupling | None = None) -> SpinHamiltonian:
    """H = sum_<ij> J [ SxSx + SySy + delta SzSz ] - h sum_i Sz_i - h_x sum_i Sx_i, with S = sigma/2; J > 0 is antiferromagnetic.

    Without h_x (None) the magnetisation along z is conserved; with it, 0 included, only exact diagonalisation takes the magnet.
    """
    check_lattice(lattice)
    jxy = _of_bonds("J", J, lattice)
    return _exchange(lattice, "xxz", lattice.bonds(), jxy * _of_bonds("delta", delta, lattice), jxy, h, h_x)


def heisenberg(lattice: Lattice, J: Coupling = 1.0, h: Coupling = 0.0, h_x: Coupling | None = None) -> SpinHamiltonian:
    """H = J sum_<ij> S_i . S_j - h sum_i Sz_i - h_x sum_i Sx_i, with S = sigma/2; J > 0 is antiferromagnetic; h_x as of `xxz`.

    >>> from thermodbm import make_lattice
    >>> float(heisenberg(make_lattice("chain", 4)).diagonal_energy(np.array([1, -1, 1, -1])))
    -1.0
    >>> (4 * heisenberg(make_lattice("ladder", 2, periodic=False), J={"leg": 1.0, "rung": 0.5}).zz).tolist()
    [0.5, 1.0, 1.0, 0.5]
    """
    check_lattice(lattice)
    j = _of_bonds("J", J, lattice)
    return _exchange(lattice, "heisenberg", lattice.bonds(), j, j, h, h_x)


def j1j2(lattice: Lattice, J1: Coupling = 1.0, J2: Coupling = 0.5, h: Coupling = 0.0, h_x: Coupling | None = None) -> SpinHamiltonian:
    """H = J1 sum_<ij> S_i . S_j + J2 sum_<<ij>> S_i . S_j - h sum_i Sz_i - h_x sum_i Sx_i over first and second neighbours, with
    S = sigma/2; h_x as of `xxz`.

    J1 may be given by groups of bonds; J2 has none. Second neighbours of a ladder are its diagonals.
    """
    check_lattice(lattice)
    first, second = lattice.bonds(1), lattice.bonds(2)
    parts = [_of_bonds("J1", J1, lattice), _leaf("J2", J2, len(second), "second-neighbour bond")]
    j = (np if all(isinstance(part, np.ndarray) for part in parts) else jnp).concatenate(parts)
    return _exchange(lattice, "j1j2", np.concatenate([first, second]), j, j, h, h_x)

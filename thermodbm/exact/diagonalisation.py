"""Full diagonalisation in symmetry sectors: every level of a small magnet, and its thermal averages."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import logsumexp

from thermodbm.errors import InputError
from thermodbm.exact.kubo import boltzmann_integral
from thermodbm.exact.sectors import (
    Orbits,
    characters,
    inversion_of,
    magnetisation_sectors,
    real_basis,
    sector_matrix,
    spins_of,
    transitions,
)
from thermodbm.exact.transverse import Response, Solved, affordable, transverse_elements
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.operators import Couplings, diagonal_observables, isotropic, spin_flip_symmetric

MAX_SITES = 18
"""More configurations than 2^18 are not enumerated."""
MAX_COST = 2.0**42
"""Most that the cubes of the sector dimensions may add up to (a complex sector counts fourfold): 14 sites without any symmetry."""
MAX_COST_VECTORS = 2.0**39
"""The same where eigenvectors are wanted too: 12 sites without symmetry, or a 4x4 torus in a transverse field."""


class Sectors(NamedTuple):
    """The invariant subspaces of a Hamiltonian."""

    orbits: Orbits
    inversion: np.ndarray | None
    members: list[tuple[int, list[tuple[np.ndarray, np.ndarray]]]]  # multiplicity, and character and orbits of each parity under flips
    cost: float  # sum of the cubes of the dimensions


class Spectrum(NamedTuple):
    """All levels of a Hamiltonian, with what is needed for thermal averages at any temperature."""

    n_sites: int
    conserves_sz: bool
    energies: np.ndarray  # (n_levels,), of the whole system
    degeneracy: np.ndarray  # (n_levels,), copies of a level in sectors related to its own
    values: dict[str, np.ndarray]  # observable -> <n|O|n>, (n_levels, ...), per site; total_sz and total_sz_squared where conserved
    response: list[Response]  # of M = sum_i s_i along z, or along x where that is conserved; empty where it is not known
    isotropic: bool  # all axes are alike


def all_configurations(n_sites: int) -> np.ndarray:
    """Every configuration of `n_sites` spins, (2^n_sites, n_sites) of int8 +-1.

    Row c holds the binary digits of c, site 0 being the most significant one and 0 standing for up: the order of
    `np.kron(site 0, site 1, ...)` with up before down. Row 0 is all up.

    >>> all_configurations(2).tolist()
    [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    """
    return spins_of(np.arange(2**n_sites), n_sites)


def sparse_hamiltonian(hamiltonian: SpinHamiltonian) -> csr_array:
    """Matrix of H, (2^N, 2^N) of float64, rows and columns in the order of `all_configurations`."""
    orbits = Orbits.of(hamiltonian.n_sites, np.arange(hamiltonian.n_sites)[None], flip=False)
    return csr_array(sector_matrix(orbits, np.ones(1), orbits.representatives, transitions(orbits, Couplings.of(hamiltonian))))


def dense_hamiltonian(hamiltonian: SpinHamiltonian) -> np.ndarray:
    """`sparse_hamiltonian` with its zeros."""
    return sparse_hamiltonian(hamiltonian).toarray()


def diagonalise(hamiltonian: SpinHamiltonian) -> Spectrum:
    """All levels of H; with expectation values of the observables where eigenvectors are within `MAX_COST_VECTORS`.

    Raises:
        InputError: if the system is too large.
    """
    n, flip = hamiltonian.n_sites, spin_flip_symmetric(hamiltonian)
    orbits, inversion, sectors, cost = sectors_of(hamiltonian, flip)
    if cost > MAX_COST:
        raise too_large(n)
    vectors = cost <= MAX_COST_VECTORS
    spins = spins_of(orbits.representatives, n)
    table = conserved_values(spins, flip) if hamiltonian.conserves_sz else {}
    if vectors:
        table |= diagonal_values(hamiltonian, spins, flip)
        if hamiltonian.model == "tfim":
            table["order_parameter_fourth"] = spins.mean(-1) ** 4
    transverse = vectors and hamiltonian.conserves_sz and not isotropic(hamiltonian) and affordable(sectors)
    operators = transitions(orbits, Couplings.of(hamiltonian)), transitions(orbits, Couplings.transverse(n))

    energies, degeneracy, response = [], [], []
    values: dict[str, list[np.ndarray]] = {name: [] for name in table}
    if vectors and not hamiltonian.conserves_sz:
        values["magnetization_x"] = []
    before: list[Solved] = []
    for multiplicity, parities in sectors:
        solved: list[Solved] = []
        for chi, rows in parities:
            basis = real_basis(orbits, chi, rows, inversion)
            h, x = (basis.conj().T @ sector_matrix(orbits, chi, rows, operator) @ basis for operator in operators)
            if is_real(chi, inversion):
                h, x = h.real, x.real
            e, v = np.linalg.eigh(h.toarray()) if vectors else (np.linalg.eigvalsh(h.toarray()), None)
            energies.append(e)
            degeneracy.append(np.full(len(e), float(multiplicity)))
            if not vectors:  # what is conserved is the same for all states of a sector
                for name, per_state in table.items():
                    values[name].append(per_state[rows])
                continue
            states = basis @ v
            weights = (np.abs(states) ** 2).T
            for name, per_state in table.items():
                values[name].append(np.tensordot(weights, per_state[rows], 1))
            if "magnetization_x" in values:
                values["magnetization_x"].append(hamiltonian.moment * np.einsum("rn,rn->n", v.conj(), x @ v).real / n)
            if transverse or not hamiltonian.conserves_sz:
                solved.append(Solved(multiplicity, chi, rows, e, states))
        if transverse:
            for first, second in [*zip(before, solved, strict=False), *zip(solved, solved, strict=True)]:
                response += transverse_elements(orbits, operators[1], first, second)
            before = solved
        elif solved:
            response.append(_longitudinal_elements(hamiltonian.moment * spins, solved[0], solved[-1]))
    stacked = {name: np.concatenate(parts) for name, parts in values.items()}
    levels = np.concatenate(energies), np.concatenate(degeneracy)
    return Spectrum(n, hamiltonian.conserves_sz, *levels, stacked, response, isotropic(hamiltonian))


def _longitudinal_elements(spins: np.ndarray, first: Solved, second: Solved) -> Response:
    """Of M = sum_i s_i, which is odd under the flip: it joins the first parity to the last, or a sector with itself."""
    common, left, right = np.intersect1d(first.rows, second.rows, return_indices=True)
    element = first.states[left].conj().T @ (spins[common].sum(-1, dtype=float)[:, None] * second.states[right])
    return first.energies, second.energies, first.multiplicity * (1 if first is second else 2) * np.abs(element) ** 2


def sectors_of(hamiltonian: SpinHamiltonian, flip: bool) -> Sectors:
    """What H falls into by the symmetries that its couplings have; characters that differ in the parity under flips stay together, as the
    magnetisation joins them.

    Args:
        flip: whether the flip of all spins is a symmetry.

    Raises:
        InputError: if there are too many configurations.
    """
    n = hamiltonian.n_sites
    if n > MAX_SITES:
        raise too_large(n)
    orbits, inversion = _symmetries(hamiltonian, flip)
    sectors = [
        (multiplicity, [(chi, np.flatnonzero(states & orbits.allowed(chi))) for chi in parities])
        for multiplicity, translation in characters(hamiltonian.lattice, len(orbits.shifts))
        for parities in [[np.concatenate([translation, p * translation]) for p in (1, -1)] if flip else [translation]]
        for states in magnetisation_sectors(orbits, hamiltonian.conserves_sz)
    ]
    cost = sum((1 if is_real(chi, inversion) else 4) * float(len(rows)) ** 3 for _, parities in sectors for chi, rows in parities)
    return Sectors(orbits, inversion, sectors, cost)


def thermal_averages(spectrum: Spectrum, betas: np.ndarray) -> dict[str, np.ndarray]:
    """Thermal averages per site at every inverse temperature, under the names of the contract.

    e = <H>/N, c = beta^2 (<H^2> - <H>^2)/N, s = ln Z/N + beta e, f = e - s/beta. The susceptibility is beta (<M^2> - <M>^2)/N of the
    conserved M = sum_i Sz_i; for tfim, with M = sum_i sz_i, it is the Kubo response beta/N (int_0^1 <M(tau) M> - <M>^2), as is
    susceptibility_x with M = sum_i Sx_i of a magnet that conserves M_z.

    Args:
        spectrum: of `diagonalise`.
        betas: inverse temperatures, (n_T,).

    Returns:
        Arrays (n_T, ...): energy, specific_heat, entropy, free_energy; susceptibility and magnetization_z if the magnetisation is
        conserved; and, if the spectrum holds expectation values, also correlation_zz (n_T, n_sites), structure_factor_zz
        (n_T, n_cells) on a periodic lattice, staggered_structure_factor on a bipartite one, for tfim magnetization_x,
        magnetization_z, order_parameter_squared, binder_ratio, susceptibility, and for others susceptibility_x up to some 14 sites.
    """
    betas, n = np.asarray(betas, float), spectrum.n_sites
    ground = spectrum.energies.min()
    excitation = spectrum.energies - ground
    log_weights = np.log(spectrum.degeneracy) - betas[:, None] * excitation
    log_z = logsumexp(log_weights, axis=1)  # of exp(-beta (H - E_0))
    p = np.exp(log_weights - log_z[:, None])

    average = p @ excitation
    variance = np.einsum("tn,tn->t", p, (excitation - average[:, None]) ** 2)
    entropy = (log_z + betas * average) / n
    energy = (ground + average) / n
    with np.errstate(divide="ignore"):
        free_energy = energy - entropy / betas
    curve = {"energy": energy, "specific_heat": betas**2 * variance / n, "entropy": entropy, "free_energy": free_energy}

    values = {k: np.tensordot(p, v, 1) for k, v in spectrum.values.items()}
    if spectrum.conserves_sz:
        m, m_squared = values.pop("total_sz"), values.pop("total_sz_squared")
        curve |= {"susceptibility": betas * (m_squared - m**2) / n, "magnetization_z": m / n}
    if "order_parameter_fourth" in values:
        curve["binder_ratio"] = values.pop("order_parameter_fourth") / values["order_parameter_squared"] ** 2
    curve |= values
    if spectrum.isotropic:
        curve["susceptibility_x"] = curve["susceptibility"].copy()
    if spectrum.response:
        kubo = [_kubo(spectrum.response, beta, ground) for beta in betas] / np.exp(log_z) / n
        if spectrum.conserves_sz:
            curve["susceptibility_x"] = kubo
        else:
            curve["susceptibility"] = kubo - betas * n * curve["magnetization_z"] ** 2
    return curve


def _symmetries(hamiltonian: SpinHamiltonian, flip: bool) -> tuple[Orbits, np.ndarray | None]:
    """Orbits under the translations (all or none) and flips that leave H as it is; and inversion, if it leaves H as it is too."""
    n, lattice, couplings = hamiltonian.n_sites, hamiltonian.lattice, Couplings.of(hamiltonian)
    if not all(map(couplings.invariant, lattice.translations)):
        return Orbits.of(n, lattice.translations[:1], flip), None
    inversion = inversion_of(lattice)
    kept = inversion is not None and couplings.invariant(inversion)
    return Orbits.of(n, lattice.translations, flip), inversion if kept else None


def is_real(character: np.ndarray, inversion: np.ndarray | None) -> bool:
    """Whether H is real in a sector."""
    return np.isrealobj(character) or inversion is not None


def _kubo(response: list[tuple[np.ndarray, np.ndarray, np.ndarray]], beta: float, ground: float) -> float:
    """sum_nm |<n|M|m>|^2 (exp(-beta E_n) - exp(-beta E_m)) / (E_m - E_n), energies above the ground state."""
    return sum(float(np.sum(weight * boltzmann_integral(e_n[:, None] - ground, e_m - ground, beta))) for e_n, e_m, weight in response)


def diagonal_values(hamiltonian: SpinHamiltonian, spins: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
    """Observables diagonal in sz that are not conserved, of configurations (n, n_sites), averaged over flips if asked: arrays (n, ...)."""
    values = diagonal_observables(hamiltonian)(spins)
    if hamiltonian.model != "tfim":
        del values["magnetization_z_squared"]
    if hamiltonian.conserves_sz:
        del values["magnetization_z"]
    elif flip:
        values["magnetization_z"] = np.zeros(len(spins))
    return values


def conserved_values(spins: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
    """Total Sz = sum sigma/2 and its square, averaged over the flip where that is a symmetry."""
    m = spins.sum(-1) / 2
    return {"total_sz": np.zeros_like(m) if flip else m, "total_sz_squared": m**2}


def too_large(n_sites: int) -> InputError:
    return InputError(
        "lattice",
        expected=f"a system small enough for full diagonalisation (14 sites, up to {MAX_SITES} with symmetries)",
        found=f"{n_sites} sites",
        hint="Larger systems: the uniform periodic tfim chain is exact at any size; up to about 24 sites method.kind = "
        '"typical"; beyond, "deterministic".',
    )

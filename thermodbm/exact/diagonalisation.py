"""Full diagonalisation in symmetry sectors: every level of a small magnet, and its thermal averages.

The symmetries used are those that the couplings have: translations along periodic axes, the flip of all spins where there is no
field along z, and the total magnetisation where it is conserved. Within a sector the basis states are

    |r> = (|G| |Stab_r|)^(-1/2) sum_g chi(g)^* g |r>,   <r'|H|r> = sum_c <c|H|r> chi(l_c)^* (|Stab_r'| / |Stab_r|)^(1/2),   l_c c = r',

with r the first configuration of an orbit of the (abelian) group G, and chi a character of G.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.special import logsumexp

from thermodbm.errors import InputError
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.lattice import two_coloring

MAX_SITES = 18
"""More configurations than 2^18 are not enumerated."""
MAX_COST = 2.0**42
"""Most that the cubes of the sector dimensions may add up to (a complex sector counts fourfold): 14 sites without any symmetry."""
MAX_COST_VECTORS = 2.0**39
"""The same where eigenvectors are wanted too: 12 sites without symmetry, or a 4x4 torus in a transverse field."""


class Spectrum(NamedTuple):
    """All levels of a Hamiltonian, with what is needed for thermal averages at any temperature."""

    n_sites: int
    conserves_sz: bool
    energies: np.ndarray  # (n_levels,), of the whole system
    degeneracy: np.ndarray  # (n_levels,), copies of a level in sectors related to its own
    values: dict[str, np.ndarray]  # observable -> <n|O|n>, (n_levels, ...), per site; total_sz and total_sz_squared where conserved
    response: list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # of M = sum_i sz_i: energies (n,), energies (m,), |<n|M|m>|^2 (n, m)


def all_configurations(n_sites: int) -> np.ndarray:
    """Every configuration of `n_sites` spins, (2^n_sites, n_sites) of int8 +-1.

    Row c holds the binary digits of c, site 0 being the most significant one and 0 standing for up: the order of
    `np.kron(site 0, site 1, ...)` with up before down. Row 0 is all up.

    >>> all_configurations(2).tolist()
    [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    """
    return _spins(np.arange(2**n_sites), n_sites)


def dense_hamiltonian(hamiltonian: SpinHamiltonian) -> np.ndarray:
    """Matrix of H, (2^N, 2^N) of float64, rows and columns in the order of `all_configurations`."""
    orbits = _Orbits.of(hamiltonian.n_sites, np.arange(hamiltonian.n_sites)[None], flip=False)
    return _sector_matrix(orbits, np.ones(1), _transitions(orbits, _Couplings.of(hamiltonian))).toarray()


def diagonalise(hamiltonian: SpinHamiltonian) -> Spectrum:
    """All levels of H; with expectation values of the observables where eigenvectors are within `MAX_COST_VECTORS`.

    Raises:
        InputError: if the system is too large.
    """
    n, couplings = hamiltonian.n_sites, _Couplings.of(hamiltonian)
    if n > MAX_SITES:
        raise _too_large(n)
    translations = hamiltonian.lattice.translations
    symmetric = all(couplings.invariant(p) for p in translations)
    flip = not couplings.z.any()
    orbits = _Orbits.of(n, translations if symmetric else translations[:1], flip)
    characters = _characters(hamiltonian, len(orbits.shifts))
    sectors = [  # characters that differ in the parity under flips stay together: M joins them
        (multiplicity, [(chi, states & orbits.allowed(chi)) for chi in parities])
        for multiplicity, translation in characters
        for parities in [[np.concatenate([translation, p * translation]) for p in (1, -1)] if flip else [translation]]
        for states in _magnetisation_sectors(orbits, hamiltonian.conserves_sz)
    ]
    cost = sum((1 if np.isreal(chi).all() else 4) * float(states.sum()) ** 3 for _, parities in sectors for chi, states in parities)
    if cost > MAX_COST:
        raise _too_large(n)
    vectors = cost <= MAX_COST_VECTORS
    spins = _spins(orbits.representatives, n)
    table = _diagonal_observables(hamiltonian, spins, flip) if vectors else {}
    conserved = _magnetisation(spins, flip) if hamiltonian.conserves_sz else {}
    transitions, magnetization = _transitions(orbits, couplings), spins.sum(-1, dtype=float)
    flips = _transitions(orbits, _Couplings.transverse(n))

    energies, degeneracy, response = [], [], []
    values: dict[str, list[np.ndarray]] = {}
    for multiplicity, parities in sectors:
        solved = []
        for chi, states in parities:
            rows = np.flatnonzero(states)
            if not len(rows):
                continue
            h = _sector_matrix(orbits, chi, transitions)[rows][:, rows].toarray()
            e, v = np.linalg.eigh(h) if vectors else (np.linalg.eigvalsh(h), None)
            energies.append(e)
            degeneracy.append(np.full(len(e), multiplicity))
            for name, per_state in conserved.items():
                values.setdefault(name, []).append(np.full(len(e), per_state[rows[0]]))
            if not vectors:
                continue
            weights = (np.abs(v) ** 2).T
            for name, per_state in table.items():
                flat = weights @ per_state[rows].reshape(len(rows), -1)
                values.setdefault(name, []).append(flat.reshape(len(e), *per_state.shape[1:]))
            if not hamiltonian.conserves_sz:
                x = _sector_matrix(orbits, chi, flips)[rows][:, rows]
                values.setdefault("magnetization_x", []).append(np.einsum("rn,rn->n", v.conj(), x @ v).real / n)
                solved.append((rows, e, v))
        if len(solved) == len(parities):  # M is odd under the flip: it joins the first parity to the last
            (rows, e, v), (rows_m, e_m, v_m) = solved[0], solved[-1]
            common, left, right = np.intersect1d(rows, rows_m, return_indices=True)
            element = v[left].conj().T @ (magnetization[common, None] * v_m[right])
            response.append((e, e_m, multiplicity * len(parities) * np.abs(element) ** 2))
    return Spectrum(
        n,
        hamiltonian.conserves_sz,
        np.concatenate(energies),
        np.concatenate(degeneracy).astype(float),
        {name: np.concatenate(parts) for name, parts in values.items()},
        response,
    )


def thermal_averages(spectrum: Spectrum, betas: np.ndarray) -> dict[str, np.ndarray]:
    """Thermal averages per site at every inverse temperature, under the names of the contract.

    e = <H>/N, c = beta^2 (<H^2> - <H>^2)/N, s = ln Z/N + beta e, f = e - s/beta. The susceptibility is beta (<M^2> - <M>^2)/N of the
    conserved M = sum_i Sz_i; for tfim, with M = sum_i sz_i, it is the Kubo response beta/N (int_0^1 <M(tau) M> - <M>^2).

    Args:
        spectrum: of `diagonalise`.
        betas: inverse temperatures, (n_T,).

    Returns:
        Arrays (n_T, ...): energy, specific_heat, entropy, free_energy; susceptibility and magnetization_z if the magnetisation is
        conserved; and, if the spectrum holds expectation values, also correlation_zz (n_T, n_sites), structure_factor_zz
        (n_T, n_cells) on a periodic lattice, staggered_structure_factor on a bipartite one, and for tfim magnetization_x,
        magnetization_z, order_parameter_squared, susceptibility.
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
    curve |= values
    if spectrum.response:
        kubo = [_kubo(spectrum.response, beta, ground) for beta in betas] / np.exp(log_z)
        curve["susceptibility"] = kubo / n - betas * n * curve["magnetization_z"] ** 2
    return curve


def _kubo(response: list[tuple[np.ndarray, np.ndarray, np.ndarray]], beta: float, ground: float) -> float:
    """sum_nm |<n|M|m>|^2 (exp(-beta E_n) - exp(-beta E_m)) / (E_m - E_n), energies above the ground state."""
    total = 0.0
    for e_n, e_m, weight in response:
        low = np.minimum(e_n[:, None], e_m) - ground
        x = beta * np.abs(e_n[:, None] - e_m)
        slope = np.where(x > 1e-12, -np.expm1(-x) / np.where(x > 1e-12, x, 1.0), 1.0)
        total += np.sum(weight * beta * np.exp(-beta * low) * slope)
    return total


def _diagonal_observables(hamiltonian: SpinHamiltonian, spins: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
    """Observables diagonal in sz for configurations (n, n_sites), averaged over translations (and flips): arrays (n, ...)."""
    lattice, n = hamiltonian.lattice, hamiltonian.n_sites
    s = hamiltonian.moment * spins.astype(float)
    pairs = sum(s[:, t[:1]] * s[:, t] for t in lattice.translations) / len(lattice.translations)
    observables = {"correlation_zz": pairs}
    if lattice.wavevectors is not None:
        waves = s @ np.exp(-1j * lattice.positions @ lattice.wavevectors.T)
        observables["structure_factor_zz"] = np.abs(waves) ** 2 / n
    if (signs := two_coloring(n, lattice.bonds())) is not None:
        observables["staggered_structure_factor"] = (s @ signs) ** 2 / n
    if not hamiltonian.conserves_sz:
        m = s.mean(-1)
        observables |= {"order_parameter_squared": m**2, "magnetization_z": np.zeros_like(m) if flip else m}
    return observables


def _magnetisation(spins: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
    """Total Sz = sum sigma/2 and its square, averaged over the flip where that is a symmetry."""
    m = spins.sum(-1) / 2
    return {"total_sz": np.zeros_like(m) if flip else m, "total_sz_squared": m**2}


class _Couplings(NamedTuple):
    """H as dense float64 arrays, in the form of `SpinHamiltonian`."""

    zz: np.ndarray  # (N, N), upper triangle
    xy: np.ndarray  # (N, N), upper triangle
    x: np.ndarray  # (N,)
    z: np.ndarray  # (N,)

    @classmethod
    def of(cls, hamiltonian: SpinHamiltonian) -> "_Couplings":
        n = hamiltonian.n_sites
        zz, xy = np.zeros((2, n, n))
        low, high = np.sort(hamiltonian.bonds, axis=1).T
        np.add.at(zz, (low, high), np.asarray(hamiltonian.zz, float))
        np.add.at(xy, (low, high), np.asarray(hamiltonian.xy, float))
        return cls(zz, xy, np.asarray(hamiltonian.x_field, float), np.asarray(hamiltonian.z_field, float))

    @classmethod
    def transverse(cls, n: int) -> "_Couplings":
        """sum_i sx_i."""
        return cls(np.zeros((n, n)), np.zeros((n, n)), -np.ones(n), np.zeros(n))

    def invariant(self, permutation: np.ndarray) -> bool:
        """Whether relabelling the sites leaves every coupling as it is."""
        whole = [self.zz + self.zz.T, self.xy + self.xy.T]
        moved = [m[np.ix_(permutation, permutation)] for m in whole]
        return all(map(np.array_equal, [*whole, self.x, self.z], [*moved, self.x[permutation], self.z[permutation]]))


class _Orbits(NamedTuple):
    """Configurations, as the numbers of their rows in `all_configurations`, sorted into orbits of G = translations (x flips)."""

    n_sites: int
    shifts: np.ndarray  # (n_translations, N) site permutations
    representatives: np.ndarray  # (n_orbits,) lowest configuration of each orbit
    orbit: np.ndarray  # (2^N,) orbit of every configuration
    to_representative: np.ndarray  # (2^N,) number of a group element that maps the configuration to its representative
    stabiliser: np.ndarray  # (n_orbits, |G|) whether an element leaves the representative where it is

    @classmethod
    def of(cls, n: int, shifts: np.ndarray, flip: bool) -> "_Orbits":
        configurations = np.arange(2**n)
        lowest, element = configurations.copy(), np.zeros(2**n, int)
        for g, image in enumerate(_images(configurations, n, shifts, flip)):
            better = image < lowest
            lowest[better], element[better] = image[better], g
        representatives, orbit = np.unique(lowest, return_inverse=True)
        stabiliser = np.stack([image == representatives for image in _images(representatives, n, shifts, flip)], 1)
        return cls(n, shifts, representatives, orbit, element, stabiliser)

    def allowed(self, character: np.ndarray) -> np.ndarray:
        """Orbits (n_orbits,) that have a state in the sector: the character must be 1 on the whole stabiliser."""
        return np.abs(self.stabiliser @ character - self.stabiliser.sum(1)) < 1e-6


def _images(configurations: np.ndarray, n: int, shifts: np.ndarray, flip: bool):
    """Where each element of G takes the configurations; translations first, then those followed by a flip."""
    bits = configurations[:, None] >> np.arange(n)[::-1] & 1
    place = 1 << np.arange(n)[::-1]
    for mask in (0, 2**n - 1)[: 1 + flip]:
        for shift in shifts:
            yield (bits @ place[shift]) ^ mask


def _spins(configurations: np.ndarray, n: int) -> np.ndarray:
    return (1 - 2 * (configurations[:, None] >> np.arange(n)[::-1] & 1)).astype(np.int8)


def _characters(hamiltonian: SpinHamiltonian, n_shifts: int) -> list[tuple[int, np.ndarray]]:
    """Characters (n_shifts,) of the translations with their multiplicity: k and -k have the same levels, as H is real."""
    if n_shifts == 1:
        return [(1, np.ones(1))]
    extent = [n if p else 1 for n, p in zip(hamiltonian.lattice.extent, hamiltonian.lattice.periodic, strict=True)]
    shifts = np.array(list(product(*map(range, extent))))  # the order of Lattice.translations
    found = []
    for momentum in shifts:
        opposite = tuple(-momentum % extent)
        if tuple(momentum) > opposite:
            continue
        phase = np.exp(2j * np.pi * shifts @ (momentum / extent))
        real = tuple(momentum) == opposite
        found.append((1, np.round(phase.real)) if real else (2, phase))
    return found


def _magnetisation_sectors(orbits: _Orbits, conserved: bool) -> list[np.ndarray]:
    """Masks (n_orbits,) of the invariant subspaces: one, or one per magnetisation (a representative has one that is not negative
    where flips are a symmetry, since up is 0 and the lowest number stands first)."""
    m = _spins(orbits.representatives, orbits.n_sites).sum(-1)
    if not conserved:
        return [np.ones(len(m), bool)]
    if orbits.stabiliser.shape[1] > len(orbits.shifts):
        m = np.abs(m)
    return [m == value for value in np.unique(m)]


def _transitions(orbits: _Orbits, couplings: _Couplings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """H on the representatives: (orbit, orbit reached, group element l, amplitude), each (n_transitions,)."""
    n, start = orbits.n_sites, orbits.representatives
    s = _spins(start, n).astype(float)
    bit = 1 << np.arange(n)[::-1]
    number = np.arange(len(start))
    diagonal = np.einsum("ri,ij,rj->r", s, couplings.zz, s) - s @ couplings.z
    rows, reached, amplitude = [number], [start], [diagonal]
    for i in np.flatnonzero(couplings.x):
        rows, reached, amplitude = [*rows, number], [*reached, start ^ bit[i]], [*amplitude, np.full(len(start), -couplings.x[i])]
    for i, j in np.argwhere(couplings.xy):
        opposite = s[:, i] != s[:, j]
        rows.append(number[opposite])
        reached.append(start[opposite] ^ (bit[i] | bit[j]))
        amplitude.append(np.full(opposite.sum(), 2 * couplings.xy[i, j]))
    ends = np.concatenate(reached)
    return np.concatenate(rows), orbits.orbit[ends], orbits.to_representative[ends], np.concatenate(amplitude)


def _sector_matrix(
    orbits: _Orbits, character: np.ndarray, transitions: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
) -> scipy.sparse.csr_array:
    """Matrix of the operator in the sector of `character`, over all orbits; only the rows of allowed orbits have a meaning."""
    start, end, element, amplitude = transitions
    size = orbits.stabiliser.sum(1)
    data = amplitude * character[element].conj() * np.sqrt(size[end] / size[start])
    return scipy.sparse.coo_array((data, (end, start)), shape=(len(size), len(size))).tocsr()


def _too_large(n_sites: int) -> InputError:
    return InputError(
        "lattice",
        expected=f"a system small enough for full diagonalisation (14 sites, up to {MAX_SITES} with symmetries)",
        found=f"{n_sites} sites",
        hint='Larger systems: the uniform periodic tfim chain is exact at any size; otherwise method.kind = "deterministic".',
    )

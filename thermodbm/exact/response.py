"""Exact derivatives of thermal averages in the couplings and in beta, by perturbation of all levels at once.

With V = dH/dlambda and f(E) = exp(-beta E), traces are differentiated in the eigenbasis by divided differences, which know no difference
between degenerate levels and others:

    d Tr f(H)/dlambda = sum_n f'(E_n) V_nn        d Tr(O f(H))/dlambda = sum_nm O_mn V_nm f[E_n, E_m]
    (1/beta) d^3 Tr f(H - h M)/dh^2 dlambda = -2 sum_nml V_ln M_nm M_ml f[E_n, E_m, E_l]

The first serves all functions of H and of a conserved magnetisation, the second all other observables, the third the Kubo susceptibility.
Observables are averages over the symmetries of H, so V is averaged over them too; a field along z where there is none breaks the flip.
Source: Higham, Functions of Matrices (2008), section 3.2; Daleckii and Krein (1965).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from thermodbm.errors import InputError
from thermodbm.exact import free_fermions
from thermodbm.exact.diagonalisation import (
    MAX_COST_VECTORS,
    Sectors,
    conserved_values,
    diagonal_values,
    is_real,
    sectors_of,
    too_large,
)
from thermodbm.exact.sectors import Transitions, real_basis, sector_matrix, spins_of, transitions
from thermodbm.models.hamiltonian import SpinHamiltonian
from thermodbm.models.operators import Couplings
from thermodbm.models.parameters import Directions, Parameter, stacked, unstacked

Derivatives = dict[str, dict[str, np.ndarray]]
"""Observable -> parameter -> derivative per site, (n_T, ...)."""
MAX_ELEMENTS = 2**27
"""Numbers that matrices of all parameters and observables may hold: 1 GB."""
CLOSE = 1e-5
"""Levels nearer than this, in units of the temperature or of the spread, are treated as degenerate, to second order in their distance."""


class _Block(NamedTuple):
    """One sector: its levels, and matrix elements between them."""

    multiplicity: int
    energies: np.ndarray  # (n,)
    diagonal: np.ndarray  # (K, n) <n|V|n>
    conserved: dict[str, np.ndarray]  # (n,) total_sz and its square where they are
    averages: dict[str, np.ndarray]  # (n,) <n|O|n>
    products: dict[str, np.ndarray]  # (K, n, n) Re O_mn V_nm
    perturbation: np.ndarray | None  # (K, n, n) V where a Kubo response needs it


class _Joined(NamedTuple):
    """Two sectors that M = sum_i sz_i joins, or one with itself."""

    first: int  # numbers of the blocks
    second: int
    elements: np.ndarray  # (n_first, n_second) <n|M|m>


def response_solver(
    hamiltonian: SpinHamiltonian, parameters: Sequence[Parameter], observables: Sequence[str] | None = None
) -> Callable[[np.ndarray], Derivatives]:
    """A function from inverse temperatures > 0, (n_T,), to the derivatives of free_energy, energy, entropy, specific_heat, susceptibility
    and all other scalars of the exact curve; the costly work is done here.

    Args:
        observables: those that are wanted, if not all: those that do not commute with H take most of the time.

    Raises:
        InputError: if neither full diagonalisation with eigenvectors nor free fermions are possible.
    """
    if hamiltonian.along_x:
        raise InputError("response", expected="a magnet without field along x", found="model.h_x")
    if free_fermions.applicable(hamiltonian) and hamiltonian.n_sites > 12:
        correlations = observables is None or "order_parameter_squared" in observables
        return lambda betas: free_fermions.ising_ring_response(hamiltonian, parameters, betas, correlations=correlations)
    directions = stacked(parameters)
    blocks, joined = _solve(hamiltonian, directions, observables)

    def solver(betas: np.ndarray) -> Derivatives:
        found = [_at(hamiltonian, blocks, joined, directions.beta, float(beta)) for beta in betas]
        return {name: unstacked(parameters, np.array([each[name] for each in found])) for name in found[0]}

    return solver


def _solve(hamiltonian: SpinHamiltonian, directions: Directions, wanted: Sequence[str] | None) -> tuple[list[_Block], list[_Joined]]:
    """All levels, with the elements of every V."""
    n = hamiltonian.n_sites
    flip = not (np.any(hamiltonian.z_field) or directions.z_field.any())
    found = sectors_of(hamiltonian, flip)
    n_off = 0 if hamiltonian.conserves_sz else 4
    n_elements = sum(float(len(rows)) ** 2 for _, parities in found.members for _, rows in parities)
    if found.cost > MAX_COST_VECTORS:
        raise too_large(n)
    if n_elements * len(directions.beta) * (1 + n_off) > MAX_ELEMENTS:
        hint = 'Fewer parameters at a time, or method.kind = "deterministic".'
        raise InputError("response", expected="matrices of all parameters that fit into memory", found=f"{n} sites", hint=hint)
    operators = [Couplings.of(hamiltonian), *_perturbations(hamiltonian, directions, found.orbits.shifts)]
    steps = [transitions(found.orbits, c) for c in (*operators, Couplings.transverse(n))]
    blocks: list[_Block] = []
    joined: list[_Joined] = []
    for multiplicity, parities in found.members:
        solved = []
        for chi, rows in parities:
            block, states = _block(hamiltonian, found, flip, (multiplicity, chi, rows), steps, wanted)
            solved.append((len(blocks), rows, states))
            blocks.append(block)
        if not hamiltonian.conserves_sz:
            (a, rows, left), (b, rows_b, right) = solved[0], solved[-1]
            common, p, q = np.intersect1d(rows, rows_b, return_indices=True)
            moment = spins_of(found.orbits.representatives, n).sum(-1, dtype=float)[common]
            joined.append(_Joined(a, b, left[p].conj().T @ (moment[:, None] * right[q])))
    return blocks, joined


def _perturbations(hamiltonian: SpinHamiltonian, directions: Directions, shifts: np.ndarray) -> list[Couplings]:
    """dH/dlambda averaged over the translations that are used."""
    found = []
    for zz, xy, x, z in zip(*directions.leaves, strict=True):
        one = Couplings.of(replace(hamiltonian, zz=zz, xy=xy, x_field=x, z_field=z))
        whole = [m + m.T for m in one[:2]]
        pairs = [np.triu(np.mean([m[np.ix_(t, t)] for t in shifts], axis=0)) for m in whole]
        found.append(Couplings(*pairs, *(np.mean([x[t] for t in shifts], axis=0) for x in one[2:])))
    return found


def _block(
    hamiltonian: SpinHamiltonian,
    found: Sectors,
    flip: bool,
    sector: tuple[int, np.ndarray, np.ndarray],
    operators: list[Transitions],
    wanted: Sequence[str] | None,
) -> tuple[_Block, np.ndarray]:
    """A sector diagonalised, and its states over the orbits."""
    multiplicity, chi, rows = sector
    orbits, n = found.orbits, hamiltonian.n_sites
    basis = real_basis(orbits, chi, rows, found.inversion)
    matrices = [basis.conj().T @ sector_matrix(orbits, chi, rows, operator) @ basis for operator in operators]
    if is_real(chi, found.inversion):
        matrices = [m.real for m in matrices]
    h, *perturbing, transverse = matrices
    e, v = np.linalg.eigh(h.toarray())
    states = basis @ v
    elements = [v.conj().T @ (m @ v) for m in perturbing]
    diagonal = np.array([np.diag(m).real for m in elements]).reshape(len(elements), len(e))
    spins = spins_of(orbits.representatives[rows], n)
    conserved = {}
    if hamiltonian.conserves_sz:  # the same for all states of a sector
        conserved = {name: np.full(len(e), x[0] if len(x) else 0.0) for name, x in conserved_values(spins, flip).items()}
    scalars = {name: x for name, x in diagonal_values(hamiltonian, spins, flip).items() if x.ndim == 1}
    observables = {name: states.conj().T @ (x[:, None] * states) for name, x in scalars.items()}
    if not hamiltonian.conserves_sz:
        observables["magnetization_x"] = v.conj().T @ (transverse @ v) / n
    if wanted is not None:  # the susceptibility needs the magnetisation
        observables = {n: o for n, o in observables.items() if n in wanted or (n == "magnetization_z" and "susceptibility" in wanted)}
    products = {
        name: np.array([(o.T * m).real for m in elements]).reshape(len(elements), len(e), len(e)) for name, o in observables.items()
    }
    averages = {name: np.diag(o).real for name, o in observables.items()}
    kept = None if hamiltonian.conserves_sz else np.array(elements).reshape(len(elements), len(e), len(e))
    return _Block(multiplicity, e, diagonal, conserved, averages, products, kept), states


def _at(
    hamiltonian: SpinHamiltonian, blocks: list[_Block], joined: list[_Joined], of_beta: np.ndarray, beta: float
) -> dict[str, np.ndarray]:
    """Derivatives (K,) of all scalars at one temperature. A direction along beta is V = (H - E_0)/beta in the Boltzmann factors alone."""
    n, ground = hamiltonian.n_sites, min(b.energies.min() for b in blocks if len(b.energies))
    excitation = np.concatenate([b.energies for b in blocks]) - ground
    log_w = np.log(np.concatenate([np.full(len(b.energies), float(b.multiplicity)) for b in blocks])) - beta * excitation
    log_z = logsumexp(log_w)
    p = np.exp(log_w - log_z)
    along = of_beta[:, None]
    v = np.concatenate([b.diagonal for b in blocks], axis=1) + along * excitation / beta

    def mean(x: np.ndarray) -> np.ndarray:
        return x @ p

    u, w = excitation - mean(excitation), v - mean(v)[:, None]
    explicit = 1 - of_beta  # H itself moves with a coupling, but not with beta
    variance, covariance, third = mean(u**2), mean(u * w), mean(u**2 * w)
    energy = explicit * mean(v) - beta * covariance
    found = {"energy": energy / n}
    heat = beta**2 * (2 * explicit * covariance - beta * third) + of_beta * 2 * beta * variance
    entropy_0 = (log_z + beta * mean(excitation)) / n
    free = explicit * mean(v) / n
    found |= {
        "specific_heat": heat / n,
        "entropy": np.where(of_beta > 0, beta * energy / n, beta * (energy / n - free)),
        "free_energy": free + of_beta * entropy_0 / beta**2,
    }
    if hamiltonian.conserves_sz:
        m, m2 = (np.concatenate([b.conserved[k] for b in blocks]) for k in ("total_sz", "total_sz_squared"))
        dm, dm2 = -beta * mean(m * w), -beta * mean(m2 * w)
        chi = (mean(m2) - mean(m) ** 2) / n
        found |= {"magnetization_z": dm / n, "susceptibility": beta * (dm2 - 2 * mean(m) * dm) / n + of_beta * chi}
    boltzmann = [b.multiplicity * np.exp(-beta * (b.energies - ground) - log_z) for b in blocks]
    found |= _of_observables(blocks, boltzmann, mean(v), of_beta, ground, beta)
    if joined and "magnetization_z" in found:
        kubo, slope = _of_kubo(blocks, joined, of_beta, ground, beta, log_z)
        m = float(mean(np.concatenate([b.averages["magnetization_z"] for b in blocks])))
        dm = found["magnetization_z"]
        spread = (of_beta * n * m**2) + 2 * beta * n * m * dm
        found["susceptibility"] = (slope + kubo * beta * mean(v)) / n - spread
    return found


def _of_observables(
    blocks: list[_Block], boltzmann: list[np.ndarray], v_mean: np.ndarray, of_beta: np.ndarray, ground: float, beta: float
) -> dict[str, np.ndarray]:
    """d<O>/dlambda = beta <O> <V> - sum_nm Re(O_mn V_nm) K_nm / Z with K = -f[E_n, E_m]."""
    found: dict[str, np.ndarray] = {}
    for name in blocks[0].averages:
        average, total = 0.0, np.zeros(len(v_mean))
        for b, p in zip(blocks, boltzmann, strict=True):
            average += p @ b.averages[name]
            total -= np.tensordot(b.products[name], beta * _first(b.energies, b.energies, p, p, beta), 2)
            total -= of_beta * float((p * (b.energies - ground)) @ b.averages[name])
        found[name] = total + beta * average * v_mean
    return found


def _of_kubo(
    blocks: list[_Block], joined: list[_Joined], of_beta: np.ndarray, ground: float, beta: float, log_z: float
) -> tuple[float, np.ndarray]:
    """R = sum_nm |M_nm|^2 K_nm / Z, and the derivative (K,) of its numerator over Z."""
    value, slope = 0.0, np.zeros(len(of_beta))
    for first, second, elements in joined:
        ways = [(first, second, elements)] + ([(second, first, elements.conj().T)] if first != second else [])
        for outer, inner, m in ways:
            a, b = blocks[outer], blocks[inner]
            p, q = (np.exp(-beta * (x.energies - ground) - log_z) for x in (a, b))
            part = a.multiplicity * float(np.sum(np.abs(m) ** 2 * beta * _first(a.energies, b.energies, p, q, beta)))
            g = _second_products(a.energies, m, b.energies, p, q, beta)
            value += part
            slope -= 2 * a.multiplicity * np.sum(a.perturbation * g.T, axis=(1, 2)).real
            of_own = part / beta - 2 * a.multiplicity * float(np.diag(g).real @ (a.energies - ground)) / beta
            slope += of_beta * of_own
    return value, slope


def _first(x: np.ndarray, y: np.ndarray, f_x: np.ndarray, f_y: np.ndarray, beta: float) -> np.ndarray:
    """-f[x, y]/beta of f = exp(-beta E), (n, m), from f at both: between f(x) and f(y)."""
    d = beta * (y - x[:, None])
    far = np.abs(d) > CLOSE
    # (1 - exp(-d))/d of the lower level, where neither cancels
    low = np.where(d > 0, f_x[:, None], f_y)
    size = np.where(far, np.abs(d), 1.0)
    return low * np.where(far, -np.expm1(-size) / size, 1 - np.abs(d) / 2)


def _twice(x: np.ndarray, y: np.ndarray, f_x: np.ndarray, f_y: np.ndarray, beta: float) -> np.ndarray:
    """f[x, x, y]/beta^2, (n, m): (exp(-d) - 1 + d)/d^2 f(x) with d = beta (y - x)."""
    d = beta * (y - x[:, None])
    near = np.abs(d) < 0.02
    safe = np.where(near, 1.0, d)
    direct = (f_y - f_x[:, None] + safe * f_x[:, None]) / safe**2
    series = f_x[:, None] * (1 / 2 - d / 6 + d**2 / 24 - d**3 / 120 + d**4 / 720)
    return np.where(near, series, direct)


def _second_products(x: np.ndarray, m: np.ndarray, y: np.ndarray, f_x: np.ndarray, f_y: np.ndarray, beta: float) -> np.ndarray:
    """G_nl = sum_k M_nk M*_lk f[x_n, y_k, x_l], (n, n), hermitian."""
    once = -beta * _first(x, y, f_x, f_y, beta)
    a = (m * once) @ m.conj().T
    difference = x[:, None] - x
    same = np.abs(difference) < CLOSE * max(1 / beta, np.ptp(x) if len(x) else 0.0)
    apart = (a - a.conj().T) / np.where(same, 1.0, difference)
    b = (m * beta**2 * _twice(x, y, f_x, f_y, beta)) @ m.conj().T
    return np.where(same, (b + b.conj().T) / 2, apart)

"""Trotter errors of small Ising magnets, exactly: fourth order over second order in units of (d_tau kappa)^2, at default steps.

    python benchmarks/tfim_trotter.py

The prior of the extrapolation (`TROTTER_PRIOR` of thermodbm.estimate.extrapolation) rests on it. Columns: m_z^2, its average over layers
(Kubo), m_x, <sz sz> of a bond and of two distant sites; in brackets the second order over the value itself.
"""

import numpy as np

from thermodbm.models import SpinHamiltonian, graph, make_lattice, transverse_field_ising
from thermodbm.network.trotter_step import commutator_scale, default_d_tau, slices


def values(magnet: SpinHamiltonian, beta: float, n_layers: int | None) -> np.ndarray:
    """The five expectation values with so many layers, or without Trotter error."""
    n, bonds = magnet.n_sites, magnet.bonds
    states = np.arange(1 << n)
    s = 1 - 2 * ((states[:, None] >> np.arange(n)) & 1)
    diagonal = (s[:, bonds[:, 0]] * s[:, bonds[:, 1]]) @ np.asarray(magnet.zz)
    flips = np.zeros((len(states), len(states)))
    for i, gamma in enumerate(np.asarray(magnet.x_field)):
        flips[states, states ^ (1 << i)] -= gamma
    if n_layers is None:
        energy, vectors = np.linalg.eigh(np.diag(diagonal) + flips)
    else:
        delta = beta / n_layers
        w, v = np.linalg.eigh(flips)
        half = np.exp(-delta * diagonal / 2)
        eigenvalues, vectors = np.linalg.eigh(half[:, None] * ((v * np.exp(-delta * w)) @ v.T) * half)
        energy = -np.log(eigenvalues) / delta
    energy -= energy.min()
    p = np.exp(-beta * energy)
    p /= p.sum()
    m = s.sum(1) / n
    squares = (vectors.T @ (m[:, None] * vectors)) ** 2
    layers = np.arange(n_layers or 4096)  # many layers of the exact weights stand for the integral over imaginary time
    kubo = sum(np.exp(-beta * energy * (1 - k / len(layers))) @ squares @ np.exp(-beta * energy * k / len(layers)) for k in layers)
    kubo /= len(layers) * np.exp(-beta * energy).sum()
    rho = (vectors * p) @ vectors.T
    m_x = sum(rho[states, states ^ (1 << i)].sum() for i in range(n)) / n
    pairs = [np.diag(rho) @ (s[:, i] * s[:, j]) for i, j in (bonds[0], (0, n // 2))]
    return np.array([np.diag(rho) @ m**2, kubo, m_x, *pairs])


def report(title: str, magnet: SpinHamiltonian, beta: float) -> None:
    """A line of ratios."""
    finest, middle, _ = slices(beta, default_d_tau(magnet), True)
    exact = values(magnet, beta, None)
    errors = np.stack([values(magnet, beta, 2 * n) - exact for n in (finest, middle)])
    second, fourth = np.linalg.solve([[1, 1], [4, 16]], errors)
    small = (beta / (2 * finest) * commutator_scale(magnet)) ** 2
    columns = (f"{r:7.2f} ({a:+.0e})" for r, a in zip(fourth / second / small, second / exact, strict=True))
    print(f"{title:22} beta {beta:4.2f}  " + " ".join(columns), flush=True)


def main() -> None:
    rng = np.random.default_rng(0)
    square = make_lattice("square", (3, 3))
    for J, gamma in ((1.0, 0.5), (1.0, 1.0), (1.0, 2.0)):
        for beta in (0.5, 1.0, 2.0, 8.0):
            report(f"ring 8, J = 1, {gamma}", transverse_field_ising(make_lattice("chain", 8), J, gamma), beta)
    for J, gamma in ((1.0, 1.0), (1.0, 3.04), (-1.0, 2.0)):
        for beta in (0.25, 0.5, 1.0, 4.0):
            report(f"3x3, J = {J:.0f}, {gamma}", transverse_field_ising(square, J, gamma), beta)
    for beta in (0.5, 1.0, 4.0):
        report("ring 7, J = -1, 1", transverse_field_ising(make_lattice("chain", 7), -1.0, 1.0), beta)
    for k in range(4):
        edges = [(i, j) for i in range(8) for j in range(i) if rng.random() < 0.4]
        magnet = transverse_field_ising(graph(8, edges), rng.normal(size=len(edges)), 1.0)
        for beta in (0.5, 2.0, 4.0):
            report(f"random graph {k}", magnet, beta)


if __name__ == "__main__":
    main()

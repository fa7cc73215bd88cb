"""QuSpin: full diagonalisation (`eigvalsh`) and the finite-temperature Lanczos method (`lanczos_full`), sector by sector.

Sectors are those of magnetisation and momentum; of sectors with the same levels (spin reversal, momenta that reflections turn into
each other) one is done. The Lanczos method draws `vectors` random vectors from every sector, with `steps` steps each, and
diagonalises sectors of at most `SMALL` states; errors are those of a jackknife over the vectors.
"""

from collections import Counter

import numpy as np
from quspin.basis import spin_basis_general
from quspin.operators import hamiltonian
from quspin.tools.lanczos import lanczos_full
from result import answer, cpu_seconds, problem

SMALL = 100


def geometry(magnet: dict) -> tuple[int, dict, list, list]:
    """Sites, translations by name, and pairs of sites at J1 and J2."""
    extent = magnet["extent"]
    n, sites = int(np.prod(extent)), np.arange(int(np.prod(extent))).reshape(extent)
    shift = lambda *by: np.roll(sites, [-b for b in by], range(len(extent))).ravel()  # noqa: E731
    if magnet["lattice"] == "chain":
        return n, {"k": shift(1)}, [shift(1)], [shift(2)]
    return n, {"kx": shift(1, 0), "ky": shift(0, 1)}, [shift(1, 0), shift(0, 1)], [shift(1, 1), shift(1, -1)]


def momenta(extent: list[int]) -> Counter:
    """One of those that reflections and, on a square, exchange of axes turn into each other, and how many they are."""
    square = len(set(extent)) == 1
    alike = Counter()
    for k in np.ndindex(*extent):
        folded = tuple(min(x, length - x) for x, length in zip(k, extent, strict=True))
        alike[tuple(sorted(folded)) if square else folded] += 1
    return alike


def sectors(magnet: dict):
    """(matrix of the sector, magnetisation, how many sectors it stands for)."""
    n, translations, first, second = geometry(magnet)
    h, delta = magnet.get("h", 0.0), magnet.get("delta", 1.0)
    bonds = [(magnet.get("J", magnet.get("J1")), first), (magnet.get("J2", 0.0), second)]
    pairs = [(J, i, int(image[i])) for J, images in bonds if J for image in images for i in range(n)]
    terms = [["zz", [[J * delta, i, j] for J, i, j in pairs]], *([s, [[J / 2, i, j] for J, i, j in pairs]] for s in ("+-", "-+"))]
    if h:
        terms.append(["z", [[-h, i] for i in range(n)]])
    quiet = {"check_herm": False, "check_symm": False, "check_pcon": False}
    for n_up in range(n + 1) if h else range(n // 2 + 1):
        for k, count in momenta(magnet["extent"]).items():
            blocks = {f"{name}block": (image, int(x)) for (name, image), x in zip(translations.items(), k, strict=True)}
            basis = spin_basis_general(n, Nup=n_up, pauli=False, **blocks)
            if basis.Ns:
                times = count * (1 if h or 2 * n_up == n else 2)
                yield hamiltonian(terms, [], basis=basis, dtype=np.complex128, **quiet), n_up - n / 2, times


def spectral_sums(energies: np.ndarray, weights: np.ndarray, m: float, beta: float, shift: float, symmetric: bool) -> np.ndarray:
    """Z, <H>, <H^2>, <M>, <M^2> times Z."""
    w = weights * np.exp(-beta * (energies - shift))
    return np.array([w.sum(), w @ energies, w @ energies**2, 0.0 if symmetric else m * w.sum(), m**2 * w.sum()])


def averages(sums: np.ndarray, beta: float, n: int) -> np.ndarray:
    """e, c, chi."""
    e, e2, m, m2 = (sums / sums[0])[1:]
    return np.array([e / n, beta**2 * (e2 - e * e) / n, beta * (m2 - m * m) / n])


def main() -> None:
    task = problem()
    magnet, beta = task["magnet"], 1 / task["T"]
    n, symmetric = int(np.prod(magnet["extent"])), not magnet.get("h")
    vectors, rng = task.get("vectors", 0), np.random.default_rng(task.get("seed", 1))
    setup, spectra = cpu_seconds(), []  # (magnetisation, per vector: energies, weights)
    for matrix, m, times in sectors(magnet):
        if not vectors or matrix.Ns <= SMALL:
            energies = matrix.eigvalsh() if matrix.Ns > 1 else np.real(matrix.toarray()).ravel()
            spectra.append((m, [(energies, np.full(len(energies), float(times)))] * max(vectors, 1)))
            continue
        runs = []
        for _ in range(vectors):
            v = rng.normal(size=matrix.Ns) + 1j * rng.normal(size=matrix.Ns)
            energies, states, _ = lanczos_full(matrix, v / np.linalg.norm(v), min(task["steps"], matrix.Ns - 1))
            runs.append((energies, times * matrix.Ns * np.abs(states[0]) ** 2))
        spectra.append((m, runs))
    shift = min(energies.min() for _, runs in spectra for energies, _ in runs)
    sums = np.array([[spectral_sums(*run, m, beta, shift, symmetric) for run in runs] for m, runs in spectra]).sum(0)  # (vectors, 5)
    values, errors = averages(sums.mean(0), beta, n), np.zeros(3)
    if vectors:
        left_out = np.array([averages(np.delete(sums, r, 0).mean(0), beta, n) for r in range(vectors)])
        errors = np.sqrt((vectors - 1) / vectors * ((left_out - left_out.mean(0)) ** 2).sum(0))
    answer(dict(zip(("energy", "specific_heat", "susceptibility"), zip(values, errors, strict=True), strict=True)), setup, n_sites=n)


if __name__ == "__main__":
    main()

"""The Kubo response of a magnetisation that is not conserved, from eigenstates and Krylov spaces.

K(beta) = int_0^beta dtau Tr exp(-(beta - tau) H) M exp(-tau H) M = sum_nm |<n|M|m>|^2 F(E_n, E_m),
F(x, y) = (exp(-beta x) - exp(-beta y)) / (y - x), with M = sum_i sz_i. The states apart are summed exactly, among themselves and, by the
Krylov space of (1 - P) M|n>, with the rest; random vectors stand for the rest alone.
"""

from typing import TYPE_CHECKING

import numpy as np

from thermodbm.exact.lanczos import lanczos

if TYPE_CHECKING:
    from thermodbm.exact.typicality import Part


def boltzmann_integral(x: np.ndarray, y: np.ndarray, beta: np.ndarray | float) -> np.ndarray:
    """int_0^beta exp(-(beta - tau) x - tau y) dtau = beta exp(-beta min) (1 - exp(-d))/d with d = beta |x - y|, elementwise."""
    d = beta * np.abs(x - y)
    slope = np.where(d > 1e-12, -np.expm1(-d) / np.where(d > 1e-12, d, 1.0), 1.0)
    return beta * np.exp(-beta * np.minimum(x, y)) * slope


def kubo_response(
    first: "Part", second: "Part", magnetisation: np.ndarray, factor: int, *, betas: np.ndarray, n_lanczos: int
) -> dict[str, np.ndarray]:
    """K of one sector, or, times two, between two that M joins, in units of exp(-beta `reference`).

    Args:
        first, second: solved sectors, the same one twice where M does not change it.
        magnetisation: of every orbit.
        factor: number of sectors that M joins.

    Returns:
        reference; exact (n_T,), the part without noise; sampled (R, n_T), of which the mean is to be added, empty where all is exact.
    """
    reference = min(first.low.energies[0], second.low.energies[0])
    common, left, right = np.intersect1d(first.rows, second.rows, return_indices=True)
    m = magnetisation[common]

    def joined(x: np.ndarray, back: bool = False) -> np.ndarray:
        """M x, from the first sector to the second, or back."""
        source, target, part = (right, left, first) if back else (left, right, second)
        out = np.zeros((len(part.rows), *x.shape[1:]), x.dtype)
        out[target] = m[:, None] * x[source]
        return out

    def integral(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """F of all temperatures, (n_T, ...), in units of exp(-beta reference)."""
        return boltzmann_integral(x - reference, y - reference, betas.reshape(-1, *(1,) * np.ndim(x - y)))

    def with_the_rest(one: "Part", other: "Part", back: bool) -> np.ndarray:
        """sum over states n apart in one sector and all states of the other that are not apart, (n_T,)."""
        if other.krylov is None:
            return np.zeros(len(betas))
        start = other.low.without(joined(one.low.vectors, back))
        norms = np.linalg.norm(start, axis=0)
        start = start * np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 1e-10)
        steps = min(n_lanczos, len(other.rows) - len(other.low.energies))
        k = lanczos(other.matrix, start, steps, apart=other.low, betas=betas, keep=False)
        return np.einsum("tnj,nj->t", integral(one.low.energies[:, None], k.energies), norms[:, None] ** 2 * k.weights)

    elements = np.abs(second.low.vectors.conj().T @ joined(first.low.vectors)) ** 2
    exact = sum(np.tensordot(f, elements[i], 1) for i, f in enumerate(_rows_of(integral, second.low.energies, first.low.energies)))
    rest = with_the_rest(first, second, False)
    exact = exact + rest + (rest if first is second else with_the_rest(second, first, True))
    sampled = np.zeros((0, len(betas)))
    if first.krylov is not None and second.krylov is not None:
        start = second.low.without(joined(first.start))
        norms = np.linalg.norm(start, axis=0)
        steps = min(n_lanczos, len(second.rows) - len(second.low.energies))
        k, own = lanczos(second.matrix, start / norms, steps, apart=second.low, betas=betas), first.krylov
        each = []
        for r in range(len(norms)):
            over = (own.basis[r][:, left].conj() * m.astype(np.float32)) @ k.basis[r][:, right].T
            over = own.ritz[r].T @ over.real @ k.ritz[r] * np.outer(own.ritz[r, 0], norms[r] * k.ritz[r, 0])
            each.append(np.tensordot(integral(own.energies[r][:, None], k.energies[r]), over, 2))
        sampled = (len(first.rows) - len(first.low.energies)) * np.array(each)
    return {"reference": np.asarray(reference), "exact": factor * exact, "sampled": factor * sampled}


def _rows_of(integral, x, y):
    """One level of x at a time: all at once would be large."""
    return (integral(energy, y) for energy in x)

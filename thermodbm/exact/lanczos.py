"""Krylov spaces of many vectors at once: Lanczos recurrences, the lowest states, and the exponentials that thermal averages need."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from scipy.linalg import eigh_tridiagonal

from thermodbm.threads import cores

_BREAKDOWN = 1e-9  # of a recurrence coefficient in units of the largest: the Krylov space is complete
_CHECK_EVERY = 10  # steps
_TAIL = 1e-12
_TEMPERATURES = 16  # at which that is asked, of all
_TOLERANCE = 1e-9  # of eigenstates
_MIN_ELEMENTS = 2**20  # of a matrix for which a second thread pays


class Rows:
    """A sparse matrix cut into blocks of rows, one for each core, which multiply at the same time."""

    def __init__(self, matrix: scipy.sparse.csr_array):
        n, n_threads = matrix.shape[0], cores() if matrix.nnz >= _MIN_ELEMENTS else 1
        edges = np.linspace(0, n, n_threads + 1).astype(int)
        self.shape, self.dtype = matrix.shape, matrix.dtype
        self._blocks = [matrix[a:b] for a, b in pairwise(edges)] if n_threads > 1 else [matrix]

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        if len(self._blocks) == 1:
            return self._blocks[0] @ x
        return np.concatenate(list(_pool().map(lambda block: block @ x, self._blocks)))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores())


class States(NamedTuple):
    """Eigenstates of H."""

    energies: np.ndarray  # (n,)
    vectors: np.ndarray  # (dim, n), orthonormal

    def without(self, x: np.ndarray) -> np.ndarray:
        """The part of x (dim, ...) that is orthogonal to them."""
        return x - self.vectors @ (self.vectors.conj().T @ x)


def all_states(matrix: np.ndarray) -> States:
    """Of a small dense matrix."""
    return States(*np.linalg.eigh(matrix))


def lowest_states(matrix: Rows, n_states: int, rng: np.random.Generator) -> States:
    """The lowest ones, as many as have been found, at most n_states.

    Nothing depends on whether one has been missed, as may happen to one of a degenerate pair: the others are eigenstates all the same.
    """
    start = rng.normal(size=matrix.shape[0]).astype(matrix.dtype)
    operator = scipy.sparse.linalg.LinearOperator(matrix.shape, lambda x: matrix @ x.reshape(-1), dtype=matrix.dtype)
    try:
        _, vectors = scipy.sparse.linalg.eigsh(operator, n_states, which="SA", v0=start, tol=_TOLERANCE)
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        vectors = error.eigenvectors
    vectors, _ = np.linalg.qr(vectors)  # those of one level need not be orthogonal
    energies, turn = np.linalg.eigh(vectors.conj().T @ (matrix @ vectors))
    return States(energies, vectors @ turn)


class Krylov(NamedTuple):
    """Lanczos recurrences of R vectors: H V_r = V_r T_r + a rest, with T_r tridiagonal, and the spectrum of each T_r."""

    energies: np.ndarray  # (R, M)
    ritz: np.ndarray  # (R, M, M), eigenvectors of T_r as columns; ritz[:, 0] are the overlaps of the start with the Ritz vectors
    basis: np.ndarray | None  # (R, M, dim), V_r in half the precision, where it was kept

    @property
    def weights(self) -> np.ndarray:
        """|<start|Ritz vector>|^2, (R, M)."""
        return self.ritz[:, 0] ** 2


def lanczos(matrix: Rows, start: np.ndarray, n_steps: int, *, apart: States, betas: np.ndarray, keep: bool = True) -> Krylov:
    """Krylov spaces of H from vectors orthogonal to the eigenstates `apart`.

    It ends before n_steps where exp(-beta H / 2) |start> is within the spaces already at all temperatures: the weight of their last
    vectors is below `_TAIL` of the whole trace, that of the states apart included. Vectors are not orthogonalised again, which leaves
    averages as they are (Druskin and Knizhnerman, Zh. Vychisl. Mat. Mat. Fiz. 31, 970 (1991)).

    Args:
        start: (dim, R), columns normalised, or zero.
        apart: rounding would bring them back, so they are taken out in every step.
        betas: inverse temperatures that will be asked for; a state that counts for nothing at the coldest may count at others.
        keep: the vectors.
    """
    dim, n_vectors = start.shape
    half = np.complex64 if np.iscomplexobj(start) else np.float32
    basis = np.empty((n_vectors, n_steps, dim), half) if keep else None
    diagonal, beside = np.zeros((2, n_steps, n_vectors))
    v, before, b = start, np.zeros_like(start), np.zeros(n_vectors)
    for step in range(n_steps):
        if basis is not None:
            basis[:, step] = v.T
        w = matrix @ v
        diagonal[step] = a = np.einsum("dr,dr->r", v.conj(), w).real
        w -= a * v
        w -= b * before
        w = apart.without(w)
        b = np.sqrt(np.einsum("dr,dr->r", w.conj(), w).real)
        scale = max(np.abs(diagonal).max(), beside.max())
        beside[step] = b = np.where(b > _BREAKDOWN * scale, b, 0.0)
        spectra = None
        if not b.any() or ((step + 1) % _CHECK_EVERY == 0 or step + 1 == n_steps):
            spectra = _spectra(diagonal[: step + 1], beside[:step])
            if not b.any() or _complete(*spectra, apart.energies, dim, betas):
                break
        before, v = v, w * np.divide(1.0, b, out=np.zeros_like(b), where=b > 0)
    return Krylov(*spectra, None if basis is None else basis[:, : step + 1])


def _complete(energies: np.ndarray, ritz: np.ndarray, apart: np.ndarray, dim: int, betas: np.ndarray) -> bool:
    lowest = min(energies.min(), apart.min(initial=np.inf))
    chosen = np.unique(np.linspace(0, len(betas) - 1, _TEMPERATURES).astype(int))
    for beta in np.sort(betas)[chosen]:
        c = np.einsum("rmj,rj->rm", ritz, ritz[:, 0] * np.exp(-beta / 2 * (energies - lowest))) ** 2
        known = np.exp(-beta * (apart - lowest)).sum() / max(dim - len(apart), 1)
        if (c[:, -2:].sum(1) > _TAIL * (c.sum(1) + known)).any():
            return False
    return True


def _spectra(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (R, M) and eigenvectors (R, M, M) of the tridiagonal matrices (M, R), (M - 1, R)."""
    each = [eigh_tridiagonal(a, b) for a, b in zip(diagonal.T, beside.T, strict=True)]
    energies, ritz = np.array([e for e, _ in each]), np.array([u for _, u in each])
    reached = ritz[:, 0] ** 2 > 1e-30  # what stands behind a breakdown is nothing: let it have the energy of something
    return np.where(reached, energies, np.where(reached, energies, -np.inf).max(1, keepdims=True)), ritz

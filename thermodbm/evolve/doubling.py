"""Doubling: exp(-beta H/2) = exp(-beta H/4) exp(-beta H/4), so that two copies of the network at beta/2, joined by a layer of N deep units,
hold the state at beta.

    Psi_beta(sigma, sigma') = sum_d Psi_{beta/2}(sigma, -d) Psi_{beta/2}(d, sigma')

What is wrong with one copy the other filters, and the evolution need not go lower than beta/2. The joined state is no positive function
where the magnet is frustrated: averages are over the ring of `sampling.composed`, reweighted by its phase, which more copies would lose.
Without frustration amplitudes are positive, and where all configurations are summed four copies of the network at beta/4 are joined.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.comm import Comm
from thermodbm.estimate.statistics import Estimate, exact
from thermodbm.evolve.averages import settling_rounds
from thermodbm.evolve.measurement import Averages, with_systematic
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.step import local_energy
from thermodbm.exact.diagonalisation import all_configurations, sparse_hamiltonian
from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import diagonal_observables
from thermodbm.network.ansatz.trial import TrialState
from thermodbm.sampling.composed import links, log_ring, ring_moves, sweep_rings, visible_of

MAX_DENSE = 10
"""Sites up to which an enumerated state is joined as a matrix."""
MAX_RINGS = 1024
"""Rings that are sampled side by side."""
PHASES = 4
"""Samples of rings for every one that is asked for: their phase, and what their energies scatter, take so many more to be known as well."""
PATIENCE = 4
"""So many times more are drawn, at most, where chance leaves the energy more uncertain than half of what is wrong with the state."""
COPIES, COPIES_WITHOUT_SIGN = 2, 4
"""Networks that are joined: in general; without frustration where rings are summed, as sampled ones of eight layers settle slowly."""
BY_COPIES = 2.0
"""Averages over a joined state are off by at most so many times the share by which they are off in one of its networks, for every copy."""
FILTERED = 0.8
"""Where both networks are poor the joined state of two is the better one, still, by an unknown amount."""
FOLLOWS = 0.05
"""r^2 up to which the network at beta itself is as good as need be: networks are joined below that temperature, unless asked for."""
SETTLE = 120
"""Attempted moves per visible unit before rings count, at every temperature; they begin where those of the last one ended."""
MIN_SIGN = 3.0
"""Errors by which the average sign must differ from zero."""


class Rings(NamedTuple):
    """Sampled rings, and what they gave so far."""

    layers: jax.Array  # (n, 4, N) int8
    count: int  # rounds measured
    acceptance: float
    sums: dict[str, jax.Array]  # (n, ...) sums over rounds


class Roots(NamedTuple):
    """The networks on the way that are to be joined: m copies of that at beta/m hold the state at beta, for each beta that is asked for."""

    betas: np.ndarray  # (K,), ascending
    thetas: np.ndarray  # (K, P); NaN where the evolution has not been
    facts: np.ndarray  # (K, 3): `Path.systematic`, the share of their spread by which averages are off, r^2

    def next_stop(self, low: float, high: float) -> float:
        """The first of these, or else `high`, that is above `low`."""
        ahead = self.betas[self.betas > low * (1 + 1e-12)]
        return float(min(ahead.min(initial=np.inf), high))

    def noted(self, at: float, theta: jax.Array, known: float, facts: tuple[float, ...]) -> "Roots":
        """With the parameters at the inverse temperature `at`, and what is known of the state at `known`, if they are among these."""
        here, there = (np.isclose(self.betas, beta, rtol=1e-12, atol=0)[:, None] for beta in (at, known))
        return self._replace(thetas=np.where(here, theta, self.thetas), facts=np.where(there, facts, self.facts))

    def of(self, beta: float, copies: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Parameters and facts of the network of which so many copies hold the state at `beta`; None where there is none."""
        found = np.flatnonzero(np.isclose(copies * self.betas, beta, rtol=1e-12, atol=0) & np.isfinite(self.facts).all(1))
        return (self.thetas[found[0]], self.facts[found[0]]) if found.size else None


def roots(betas: Sequence[float], copies: int, lowest: float, theta: jax.Array) -> Roots:
    """Of all inverse temperatures of which this part is above `lowest`, where the evolution starts."""
    stops = np.unique([beta / copies for beta in betas if beta / copies > lowest])
    return Roots(stops, np.full((len(stops), theta.size), np.nan, theta.dtype), np.full((len(stops), 3), np.nan))


def systematic_error(root: float, plain: float, copies: int) -> float:
    """Of the energy per site of a joined state, from that of one of its networks and that of the plain one at beta: their geometric mean
    times the number of copies.

    What one copy is off by the other filters, so that the joined state is nearer than the plain one by about as much as the network at
    beta/2 is. Two are off by at most `FILTERED` of the plain one, however poor both are; what four lack adds up, and where the network
    misses what is of second order in beta they are worse than one. Measured in `benchmarks/joined.py`.
    """
    error = copies * float(np.sqrt(root * plain))
    return min(error, FILTERED * plain) if copies == COPIES else error


class Joining(NamedTuple):
    """How joined networks of one magnet are measured."""

    betas: tuple[float, ...]  # at which they are, if the evolution comes by what they are made of
    copies: int
    needed: float  # r^2 of the network at beta from which on they are
    n_rings: int  # of this rank
    n_rounds: int  # at least
    round: Callable[[jax.Array, jax.Array, Rings], Rings] | None  # (key, theta, rings); None: summed as matrices

    def share(self, hamiltonian: SpinHamiltonian, beta: float, rings: Rings, root: float, plain: float, comm: Comm) -> float:
        """How much of what has to be drawn has been: until chance is less than half of the error that the energy has besides, see
        `systematic_error`; or where the sign, as it stands, would not be known even with all of it."""
        if rings.count < self.n_rounds:
            return rings.count / (PATIENCE * self.n_rounds)
        found, done = ring_averages(hamiltonian, beta, rings, comm), rings.count / (PATIENCE * self.n_rounds)
        if "energy" not in found.estimates:
            hopeless = abs(found.sign.mean) < MIN_SIGN * found.sign.error * np.sqrt(done)
            return 1.0 if hopeless else done
        known = float(found.estimates["energy"].error) <= systematic_error(root, plain, self.copies) / 2
        return 1.0 if known else done

    def begin(self, key: jax.Array, n_sites: int) -> Rings | None:
        """Rings of infinite temperature: all layers alike, all spins free."""
        if self.round is None:
            return None
        spins = jax.random.rademacher(key, (self.n_rings, 1, n_sites), jnp.int8)
        return Rings(jnp.repeat(spins, 2 * self.copies, axis=1), 0, 1.0, {})


def joining(
    hamiltonian: SpinHamiltonian,
    trial: TrialState,
    betas: Sequence[float],
    options: VariationalOptions,
    n_samples: int,
    n_walkers: int | None,
    comm: Comm,
    *,
    positive: bool,
) -> Joining:
    """Of networks that are sampled by `n_walkers` walkers on this rank, or (None) whose configurations are summed.

    Args:
        positive: whether no amplitude of the trial state has a sign.
    """
    n, needed = hamiltonian.n_sites, FOLLOWS if options.compose == "auto" else 0.0
    copies = COPIES_WITHOUT_SIGN if positive and hamiltonian.conserves_sz and n_walkers is None else COPIES
    if n_walkers is None:
        return Joining(tuple(betas) if n <= MAX_DENSE else (), copies, needed, 0, 0, None)
    n_rings = min(n_walkers, MAX_RINGS)
    n_rounds = -(-PHASES * n_samples // (n_rings * comm.size))
    return Joining(tuple(betas), copies, needed, n_rings, n_rounds, measure_rings(hamiltonian, trial, options.n_sweeps, comm))


class Doubled(NamedTuple):
    """Averages over the joined state."""

    estimates: dict[str, Estimate]
    sign: Estimate


def dense_averages(hamiltonian: SpinHamiltonian, trial: TrialState, theta: jax.Array, beta: float, copies: int) -> Doubled:
    """Averages over the joined state of a few sites by its matrix, without chance; see `measure_rings` for what they are."""
    n = hamiltonian.n_sites
    spins = all_configurations(n)
    matrix = _matrix(hamiltonian, trial, theta, spins)
    ring = _round(matrix, copies)
    acted = _round(sparse_hamiltonian(hamiltonian) @ matrix, copies)  # H on the layer that an amplitude begins with
    joined = np.linalg.matrix_power(matrix, copies)
    norm = float((np.abs(joined) ** 2).sum())
    sign = norm / float((np.linalg.matrix_power(np.abs(matrix), copies) ** 2).sum())

    def average(operator: list[np.ndarray], *at: int) -> float:
        """With the operator in these places of the ring: a trace, of which the last product is not multiplied out."""
        links = [operator[k] if k in at else link for k, link in enumerate(ring)]
        return float((reduce(np.matmul, links[:-1]) * links[-1].T).sum().real) / norm

    turns = range(2 * copies)
    weights = np.mean([(reduce(np.matmul, np.roll(ring, -k, 0)[:-1]) * ring[k - 1].T).sum(1).real for k in turns], 0) / norm
    values = {name: weights @ x for name, x in diagonal_observables(hamiltonian)(spins).items()}
    values["energy"] = np.mean([average(acted, k) for k in turns]) / n
    values["energy_squared"] = np.mean([average(acted, k, j) for k in turns for j in range(k)]) / n
    if not hamiltonian.conserves_sz:
        flipped = _round(sum(matrix[np.arange(2**n) ^ (1 << i)] for i in range(n)), copies)
        values["magnetization_x"] = np.mean([average(flipped, k) for k in turns]) / n
    found = {name: exact(x) for name, x in _derived(hamiltonian, beta, values, values).items()}
    return Doubled(found, exact(sign))


def _round(matrix: np.ndarray, copies: int) -> list[np.ndarray]:
    """What stands in the links of a ring, see `sampling.composed`."""
    return [matrix] * copies + [matrix.conj().T] * copies


def _matrix(hamiltonian: SpinHamiltonian, trial: TrialState, theta: jax.Array, spins: np.ndarray) -> np.ndarray:
    """K(x, y) = Psi(x, -y) on all configurations, in units of its largest element."""
    rows, columns = np.nonzero(spins.sum(1)[:, None] == spins.sum(1)) if hamiltonian.conserves_sz else np.indices((len(spins),) * 2)
    visible = np.concatenate([spins[rows.ravel()], -spins[columns.ravel()]], axis=1).astype(np.int8)
    log_psi = np.concatenate([trial.log_amplitude(theta, jnp.asarray(part)) for part in np.array_split(visible, -(-len(visible) // 8192))])
    matrix = np.zeros((len(spins),) * 2, complex)
    matrix[rows.ravel(), columns.ravel()] = np.exp(log_psi - log_psi.real.max())
    return matrix


def measure_rings(
    hamiltonian: SpinHamiltonian, trial: TrialState, n_sweeps: int, comm: Comm
) -> Callable[[jax.Array, jax.Array, Rings], Rings]:
    """A function (key, theta, rings) -> rings after one round of `n_sweeps` attempted moves per visible unit, measured; the first
    round at a temperature settles.

    Measured are, with the phase of the ring, the local energies e_k that the 2m amplitudes have in the layers they begin with:
    E = Re mean_k e_k and E^2 = Re mean_{k < l} e_k e_l; and observables diagonal in sz of all layers. Those of the exact state are the
    same in all of them; those of a state that is off are to first order, of a symmetric K.
    """
    sweep = sweep_rings(trial, ring_moves(hamiltonian), -(-n_sweeps * hamiltonian.n_sites // 2))
    n, e_loc, diagonal = hamiltonian.n_sites, local_energy(hamiltonian, trial, comm), diagonal_observables(hamiltonian)

    @jax.jit
    def values(theta: jax.Array, layers: jax.Array) -> dict[str, jax.Array]:
        n_layers = layers.shape[1]
        phase = jnp.exp(1j * log_ring(trial, theta, layers).imag)
        visible = jnp.stack([visible_of(layers, link) for link in links(n_layers // 2)])
        energies, ratios = jax.lax.map(lambda v: e_loc(theta, v), visible)
        backward = jnp.arange(n_layers)[:, None] >= n_layers // 2
        energies = jnp.where(backward, energies.conj(), energies)
        found = {name: phase.real.reshape(-1, *[1] * (x.ndim - 1)) * x for name, x in _mean(layers).items()}
        found["sign"] = phase.real
        found["energy"] = (phase * energies.mean(0)).real / n
        pairs = (energies.sum(0) ** 2 - (energies**2).sum(0)) / (n_layers * (n_layers - 1))
        found["energy_squared"] = (phase * pairs).real / n
        if not hamiltonian.conserves_sz:
            found["magnetization_x"] = (phase * jnp.where(backward, ratios.mean(-1).conj(), ratios.mean(-1)).mean(0)).real
        return found

    def _mean(layers: jax.Array) -> dict[str, jax.Array]:
        found = diagonal(layers.reshape(-1, n))
        return jax.tree.map(lambda x: x.reshape(*layers.shape[:2], *x.shape[1:]).mean(1), found)

    def advance(key: jax.Array, theta: jax.Array, rings: Rings) -> Rings:
        layers = rings.layers
        for k in range(1 if rings.count else settling_rounds(n_sweeps, SETTLE)):
            layers, accepted = sweep(jax.random.fold_in(jax.random.fold_in(key, k), comm.rank), theta, layers)
        found = values(theta, layers)
        sums = {name: x + rings.sums[name] for name, x in found.items()} if rings.count else found
        return Rings(layers, rings.count + 1, float(accepted), sums)

    return advance


def ring_averages(hamiltonian: SpinHamiltonian, beta: float, rings: Rings, comm: Comm) -> Doubled:
    """Ratios to the sign, with errors from the scatter among rings, which are independent."""
    samples = {name: np.asarray(x) / rings.count for name, x in rings.sums.items()}
    n = len(samples["sign"]) * comm.size
    mean = {name: np.asarray(x) / n for name, x in comm.sum({name: x.sum(0) for name, x in samples.items()}).items()}

    def error(x: np.ndarray) -> np.ndarray:
        """Of a mean of x (n, ...), which is about zero."""
        return np.sqrt(np.asarray(comm.sum((x**2).sum(0))) / (max(n - 1, 1) * n))

    sign, signs = float(mean.pop("sign")), samples.pop("sign")
    sign_error = float(error(signs - sign))
    if not np.isfinite(sign) or abs(sign) < MIN_SIGN * sign_error:
        return Doubled({}, Estimate(np.asarray(sign), np.asarray(sign_error)))
    ratio = {name: x / sign for name, x in mean.items()}
    linear = {name: (x - signs.reshape(-1, *[1] * (x.ndim - 1)) * ratio[name]) / sign for name, x in samples.items()}
    values, changes = _derived(hamiltonian, beta, ratio, ratio), _derived(hamiltonian, beta, ratio, linear, linear=True)
    found = {name: Estimate(np.asarray(x), error(changes[name])) for name, x in values.items()}
    return Doubled(found, Estimate(np.asarray(sign), np.asarray(sign_error)))


def _derived(hamiltonian: SpinHamiltonian, beta: float, mean: dict, values: dict, *, linear: bool = False) -> dict[str, np.ndarray]:
    """The observables of the contract; or what small changes of all averages about their mean come to."""
    n, e, m = hamiltonian.n_sites, mean["energy"], mean["magnetization_z"]
    found = {name: x for name, x in values.items() if name not in ("energy_squared", "magnetization_z_squared")}
    found["specific_heat"] = beta**2 * (values["energy_squared"] - (2 if linear else 1) * n * e * values["energy"])
    if hamiltonian.conserves_sz:
        drift = (2 if linear else 1) * m * values["magnetization_z"]
        found["susceptibility"] = beta * n * (values["magnetization_z_squared"] - drift)
    return found


def better(plain: dict[str, Estimate], doubled: dict[str, Estimate]) -> tuple[dict[str, Estimate], float]:
    """Of each observable the estimate of the smaller error, and the share that are doubled.

    Where the two differ by more than both errors explain, the error of the one that is taken is raised by as much.
    """
    found, taken = dict(plain), 0
    for name, b in doubled.items():
        a = plain[name]
        apart = np.sqrt(np.maximum((a.mean - b.mean) ** 2 - a.error**2 - b.error**2, 0))
        doubling = bool(np.max(b.error) < np.max(a.error))
        best = Estimate(b.mean, b.error) if doubling else a
        found[name], taken = best._replace(error=np.hypot(best.error, apart)), taken + doubling
    return found, taken / max(len(doubled), 1)


def combined(
    plain: Averages, systematic: float, residual: float, doubled: Doubled, facts: np.ndarray, copies: int
) -> tuple[dict[str, Estimate], float, dict[str, float | np.ndarray]]:
    """The better of plain and joined estimates, r^2 of the state that gave the energy, and diagnostics.

    Diagnostics are both estimates of scalars as (mean, error), the sign, and the share of the observables that are those of the joined
    state.

    Args:
        plain: estimates with their systematic errors.
        systematic: that of the energy.
        facts: of the network of which `copies` were joined, see `Roots`.
    """
    estimates = doubled.estimates
    if estimates:
        off, (share, r2) = systematic_error(facts[0], systematic, copies), BY_COPIES * copies * facts[1:]
        spread = {name: plain.spread[name] for name in estimates}
        estimates = with_systematic(Averages(estimates, spread), share, off, r2)
    found, taken = better(plain.estimates, estimates)
    both = {f"{kind}_{name}": x for kind, of in (("plain", plain.estimates), ("doubled", estimates)) for name, x in of.items()}
    scalars = {name: np.array([x.mean, x.error]) for name, x in both.items() if np.ndim(x.mean) == 0}
    own = found["energy"].mean == plain.estimates["energy"].mean
    return found, residual if own else float(facts[2]), scalars | {"doubled_sign": float(doubled.sign.mean), "composed": taken}

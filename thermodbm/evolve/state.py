"""A thermal state that a network holds, to be sampled and measured with functions of one's own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from thermodbm.errors import InputError, NumericsError
from thermodbm.estimate.statistics import Estimate, append, from_blocks, from_chains, no_blocks
from thermodbm.estimate.user import check_observables
from thermodbm.evolve.averages import settling_rounds
from thermodbm.evolve.chains import Facts, ensemble_at
from thermodbm.models import SpinHamiltonian
from thermodbm.models.rotation import rotation_sign
from thermodbm.network.ansatz.external import Amplitude, PurifiedState
from thermodbm.network.ansatz.trial import BLOCK, TrialState
from thermodbm.sampling.configurations import random_configurations
from thermodbm.sampling.metropolis import Moves, metropolis

STRETCH = 16
"""Sweeps of one call of a sampler."""
THERMAL = 8
"""Stretches from random spins before the first sample of a ring."""
MOST_CHAINS = 128


class Draws(NamedTuple):
    """What chains gave, one after the other."""

    spins: np.ndarray  # (n_draws, n_chains, n_sites) int8 +-1
    sign: np.ndarray | None = None  # (n_draws, n_chains), by which averages are weighted


@dataclass(frozen=True, eq=False)
class ThermalState:
    """The purified thermal state that a network holds, as it stands: of a Trotter product at its own step, of a trained or variational
    network with what it misses. Nothing of that is in the errors of `measure`; those of a curve have it."""

    hamiltonian: SpinHamiltonian
    beta: float
    draw: Callable[[int, int], Draws]  # (how many, at least; seed)
    amplitude: Amplitude | None = None

    def sample(self, n: int, seed: int = 1) -> np.ndarray:
        """Spins (n, n_sites) int8 of +-1, by their thermal weight. At most 128 chains take turns: more samples than that are correlated.

        Raises:
            InputError: for a number that is none, and for frustrated exchange, whose samples have signs.
        """
        draws = self._draws(n, seed)
        if draws.sign is not None:
            hint = "`measure` weights them by it."
            raise InputError("state", expected="a magnet without frustrated exchange", found="samples with a sign", hint=hint)
        return draws.spins.reshape(-1, self.hamiltonian.n_sites)[:n]

    def measure(self, observable: Callable[[np.ndarray], Any], n: int = 20_000, seed: int = 1) -> Estimate:
        """The average of a function of spins (n, n_sites) of +-1 that gives (n,) or (n, ...), with an error that knows of autocorrelation.

        Raises:
            InputError: for a function that gives no number for each configuration.
            NumericsError: where the average sign is lost in noise.
        """
        shape = check_observables({"observable": observable}, self.hamiltonian.n_sites)["observable"]
        draws = self._draws(n, seed)
        n_draws, n_chains = draws.spins.shape[:2]
        values = np.asarray(observable(draws.spins.reshape(-1, self.hamiltonian.n_sites)), float).reshape(n_draws, n_chains, -1)
        if draws.sign is None:
            return _estimate(values, shape)
        sign = _estimate(draws.sign[..., None], ())
        if not abs(sign.mean) > 5 * sign.error:
            raise NumericsError(f"The average sign is {sign.mean:.2g} +- {sign.error:.1g}: draw more samples, or use a higher temperature.")
        mean = (values * draws.sign[..., None]).mean((0, 1)) / sign.mean
        ratio = mean + draws.sign[..., None] * (values - mean) / sign.mean  # linear in the samples, with the error of the ratio
        return _estimate(ratio, shape)

    def log_amplitude(self, visible: Any) -> jax.Array:
        """ln Psi, complex (n,), of spins and ancillas (n, 2 n_sites) of +-1, in the basis of the Hamiltonian, up to a constant; -inf
        where a conserved magnetisation forbids them. Ancillas are turned round: exp(-beta H/2) has the element <s|..|-ancillas>.

        Raises:
            InputError: for a network of layers, whose amplitude is a sum over all its deep units, and for another shape.
        """
        amplitude, visible = self._amplitude(), jnp.asarray(visible, jnp.int8)
        if visible.ndim != 2 or visible.shape[1] != 2 * self.hamiltonian.n_sites:
            raise InputError("visible", expected=f"spins and ancillas (n, {2 * self.hamiltonian.n_sites})", found=f"shape {visible.shape}")
        return amplitude.function(amplitude.params, visible)

    def to_flax(self) -> tuple[PurifiedState, dict[str, Any]]:
        """A Flax module that gives `log_amplitude`, and its variables: what NetKet's `MCState(..., model=, variables=)` takes, on
        `Spin(1/2, 2 n_sites)`, with total_sz = 0 where the magnetisation is conserved.

        Raises:
            InputError: for a network of layers.
        """
        amplitude = self._amplitude()
        return PurifiedState(amplitude), {"params": {"state": amplitude.params}}

    def _amplitude(self) -> Amplitude:
        if self.amplitude is None:
            raise InputError("state", expected="a variational network", found="layers of deep units, which are sampled")
        return self.amplitude

    def _draws(self, n: int, seed: int) -> Draws:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise InputError("n", expected="a positive number of samples", found=n)
        return self.draw(int(n), seed)


def _estimate(values: np.ndarray, shape: tuple[int, ...]) -> Estimate:
    """Of draws (n_draws, n_chains, k); the columns of an array are a (shape)."""
    if not shape:
        return from_chains(values[..., 0])
    found = from_blocks(append(no_blocks(values.shape[1:]), values, max(2, len(values))), values.var((0, 1)))
    return Estimate(*(x if x is None else np.reshape(x, shape) for x in found))


def ring_state(
    hamiltonian: SpinHamiltonian, beta: float, facts: Facts, sampler: str, n_slices: int, source: tuple[Any, ...]
) -> ThermalState:
    """Of a network of layers, by the sampler of its ring.

    Args:
        source: of what `Ensemble.weights` makes the weights.
    """
    ensemble = ensemble_at(facts, sampler, n_slices)
    frustrated = getattr(facts, "frustrated", False)

    @jax.jit
    def stretch(key: jax.Array, source: tuple, state: Any) -> tuple[Any, tuple]:
        weights = ensemble.weights(*source)

        def sweep(state: Any, key: jax.Array) -> tuple[Any, tuple]:
            state, info = ensemble.kernel.step(key, weights, state)
            sign = ensemble.measure(weights, state, info)["sign"] if frustrated else None
            return state, (ensemble.visible(state), sign)

        return jax.lax.scan(sweep, state, jax.random.split(key, STRETCH))

    def draw(n: int, seed: int) -> Draws:
        key_start, key = jax.random.split(jax.random.key(seed))
        n_chains = min(MOST_CHAINS, n)
        state, found = ensemble.kernel.init(key_start, n_chains), []
        for k in range(THERMAL + -(-n // (n_chains * STRETCH))):
            state, drawn = stretch(jax.random.fold_in(key, k), source, state)
            if k >= THERMAL:
                found.append(jax.device_get(drawn))
        n_draws = -(-n // n_chains)
        spins = np.concatenate([spins for spins, _ in found])[-n_draws:]
        return Draws(spins, np.concatenate([sign for _, sign in found])[-n_draws:] if frustrated else None)

    return ThermalState(hamiltonian, beta, draw)


def neural_state(
    hamiltonian: SpinHamiltonian,
    beta: float,
    trial: TrialState,
    theta: jax.Array,
    eta: np.ndarray,
    moves: Moves,
    n_sweeps: int,
    *,
    conserves_sz: bool,
) -> ThermalState:
    """Of a trial state, by Metropolis moves.

    Args:
        eta: signs (n_sites,) of `models.rotation` by which the trial state is turned.
        n_sweeps: attempted moves per visible unit between two samples.
        conserves_sz: whether the state is that of spins and ancillas of total zero alone, whatever the module gives for others.
    """
    n_moves = n_sweeps * 2 * hamiltonian.n_sites
    walk = jax.jit(partial(_walk, trial, moves, n_moves))

    def draw(n: int, seed: int) -> Draws:
        key_start, key = jax.random.split(jax.random.key(seed))
        n_walkers = n if n <= BLOCK else min(-(-n // BLOCK) * BLOCK, MOST_CHAINS)
        visible, found = random_configurations(key_start, n_walkers, hamiltonian.n_sites), []
        settled = settling_rounds(n_sweeps)
        for k in range(settled + -(-n // n_walkers)):
            visible = walk(jax.random.fold_in(key, k), theta, visible)
            if k >= settled:
                found.append(np.asarray(visible[:, : hamiltonian.n_sites]))
        return Draws(np.stack(found))

    @jax.jit
    def log_amplitude(params: Any, visible: jax.Array) -> jax.Array:
        log_psi = trial.log_amplitude(ravel_pytree(params)[0], visible) + jnp.log(rotation_sign(visible, eta).astype(complex))
        return jnp.where(conserves_sz & (visible.sum(-1, dtype=int) != 0), -jnp.inf, log_psi)

    return ThermalState(hamiltonian, beta, draw, Amplitude(log_amplitude, trial.unravel(theta)))


def _walk(trial: TrialState, moves: Moves, n_moves: int, key: jax.Array, theta: jax.Array, visible: jax.Array) -> jax.Array:
    return metropolis(key, trial, theta, visible, moves, n_moves)[0]

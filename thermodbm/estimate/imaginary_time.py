"""Correlations of sz in imaginary time, from the layers of a ring: the deep units of a network are spins at other times."""

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.correlations import momenta, periodic_waves
from thermodbm.estimate.ensemble import Ensemble
from thermodbm.models import Lattice


def in_imaginary_time(lattice: Lattice, field: jax.Array, n_tau: int) -> dict[str, jax.Array]:
    """Pair functions between layers that are k/n_tau of the ring apart, k = 0, 1, ... n_tau/2, averaged over all layers.

    H is real, so that C(beta - tau) = C(tau); of a Trotter product of exchange gates the two differ by odd orders of the step, and both
    ways round the ring are averaged over.

    Args:
        field: (n_chains, n_layers, n_sites), with n_layers a multiple of n_tau.

    Returns:
        imaginary_time_correlation_zz (n_chains, (n_tau/2 + 1) n_sites); on a fully periodic lattice also
        imaginary_time_structure_factor_zz (n_chains, (n_tau/2 + 1) n_cells) and static_squared_zz (n_chains, n_cells): |sum_i x_i
        exp(-i k r_i)|^2 / N of the x_i averaged over layers, which is the static susceptibility over beta.
    """
    n_chains, n_layers, n = field.shape
    shifts = np.arange(n_tau // 2 + 1) * (n_layers // n_tau)

    def between_layers(left: jax.Array, right: jax.Array) -> jax.Array:
        """Averages over layers of conj(left) times right, a shift later and earlier, (n_chains, n_tau/2 + 1, ...)."""
        left, right = (jnp.fft.fft(x, axis=1) for x in (left, right))
        apart = jnp.fft.ifft(jnp.conj(left) * right, axis=1) / n_layers
        return (apart[:, shifts] + apart[:, -shifts]) / 2

    origin, waves, back = periodic_waves(lattice, field)
    found = {"imaginary_time_correlation_zz": back(between_layers(origin, waves)).real.reshape(n_chains, -1)}
    if lattice.wavevectors is not None:
        q = momenta(lattice, field)
        found["imaginary_time_structure_factor_zz"] = between_layers(q, q).real.reshape(n_chains, -1) / n
        found["static_squared_zz"] = jnp.abs(q.mean(1)) ** 2 / n
    return found


def with_imaginary_time(ensemble: Ensemble, lattice: Lattice, moment: float, n_tau: int) -> Ensemble:
    """The ensemble that measures these beside its pair functions.

    Args:
        moment: of an up spin.
    """

    def measure_rarely(weights, state, info) -> dict[str, jax.Array]:
        field = moment * ensemble.layers(state).astype(jnp.float32)
        return {**ensemble.measure_rarely(weights, state, info), **in_imaginary_time(lattice, field, n_tau)}

    return ensemble._replace(measure_rarely=measure_rarely)

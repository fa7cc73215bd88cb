"""Sums over all configurations of spins and ancillas, up to symmetry, in place of samples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.evolve.options import VariationalOptions
from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import spin_flip_symmetric
from thermodbm.network.ansatz.trial import BLOCK
from thermodbm.sampling.configurations import enumerate_configurations, n_configurations

MAX_ENUMERATED = 1 << 13
"""Configurations up to symmetry that are summed rather than sampled by default."""


class ExactSum(NamedTuple):
    """All configurations, one of each orbit under the symmetries of the trial state that H shares."""

    visible: jax.Array  # (n, V)
    multiplicity: jax.Array  # (n,)
    sites: np.ndarray  # (n_operations, n_sites)
    flip: bool

    def diagonal(self, observables: Callable) -> dict[str, jax.Array]:
        """Diagonal observables averaged over each orbit."""
        spins = self.visible[:, : self.sites.shape[1]]
        images = jnp.concatenate([sign * spins[:, p] for p in self.sites for sign in ((1, -1) if self.flip else (1,))])
        return jax.tree.map(lambda x: x.reshape(-1, len(spins), *x.shape[1:]).mean(0), observables(images))


def all_configurations(
    hamiltonian: SpinHamiltonian, options: VariationalOptions, *, conserve_sz: bool, sites: np.ndarray
) -> ExactSum | None:
    """What to sum over for a trial state that is symmetric under permutations (n, n_sites) of sites, if there are any, and then under the
    reversal of all spins; or None where it is sampled."""
    n = hamiltonian.n_sites
    flip = len(sites) > 0 and spin_flip_symmetric(hamiltonian)
    sites = sites if len(sites) else np.arange(n)[None]
    few = n_configurations(n, conserve_sz=conserve_sz) / (len(sites) * (1 + flip)) <= MAX_ENUMERATED
    if not (few if options.enumerate is None else options.enumerate):
        return None
    visible, multiplicity = enumerate_configurations(n, sites, flip=flip, conserve_sz=conserve_sz)
    size = BLOCK if len(visible) <= 8 * BLOCK else 8 * BLOCK  # blocks are full, and 2, 4 or 8 devices can share them
    padding = -len(visible) % size if len(visible) > BLOCK else 0
    visible = np.concatenate([visible, np.repeat(visible[:1], padding, 0)])
    return ExactSum(jnp.asarray(visible), jnp.asarray(np.concatenate([multiplicity, np.zeros(padding)])), sites, flip)

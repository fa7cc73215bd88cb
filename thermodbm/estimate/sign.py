"""The average sign that samples of a frustrated exchange magnet will have, before any is drawn.

Configurations are drawn with the absolute values of their weights, which are the weights of another magnet, the same but for exchange of
xy' = -|xy| on every bond, and the average sign is the ratio of both partition functions. To leading order in beta,

    ln <sign> = ln Z - ln Z' = -beta^3 N (kappa_3 - kappa_3') / 6 + O(beta^4),

with the third cumulants of H and H' at beta = 0, whose first two are alike. Triangles have third cumulants; loops of five or more sites
come in higher orders. Source: Troyer and Wiese, PRL 94, 170201 (2005).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.moments import high_temperature_moments
from thermodbm.models.hamiltonian import SpinHamiltonian


def without_sign(hamiltonian: SpinHamiltonian) -> SpinHamiltonian:
    """The magnet whose weights are the absolute values of those of H."""
    return dataclasses.replace(hamiltonian, xy=-jnp.abs(jnp.asarray(hamiltonian.xy)))


def expected_sign(hamiltonian: SpinHamiltonian, betas: np.ndarray) -> np.ndarray:
    """<sign> to leading order, of the shape of the inverse temperatures: ln <sign> within a third of itself down to <sign> = .02, by small
    magnets of triangles and by samples of larger ones; below, signs are larger than this, as ln <sign> becomes linear in beta."""
    difference = high_temperature_moments(hamiltonian)[1] - high_temperature_moments(without_sign(hamiltonian))[1]
    return np.exp(-(np.asarray(betas, float) ** 3) * hamiltonian.n_sites * max(difference, 0.0) / 6)

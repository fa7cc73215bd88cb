"""Estimators of strings of vertices (`sampling.vertices`): of spins as they are, with the sign of the weight where there is one.

Energies by the number of vertices, which is the score too, and by spins and the number of exchanges; see `estimate.expansion`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.estimate.ensemble import Ensemble
from thermodbm.estimate.strings import StringMagnet, pair_functions, ring_of_strings
from thermodbm.estimate.user import Functions
from thermodbm.models.lattice import two_coloring
from thermodbm.sampling.strings import n_slots_of
from thermodbm.sampling.vertices import VertexFacts, VertexInfo, vertices_kernel, vertices_of


def vertex_ensemble(facts: VertexFacts, n_slices: int, functions: Functions = (), *, counted: bool = False) -> Ensemble:
    """Of strings that directed loops move; `counted` for derivatives."""
    n_slots, n = n_slots_of(facts.n_sites, n_slices), facts.n_sites
    i, j = np.array(facts.bond_pairs, int).reshape(-1, 2).T
    staggered, lattice = two_coloring(n, facts.lattice.bonds()), facts.lattice

    def measure(magnet: StringMagnet, _: dict, info: VertexInfo) -> dict[str, jax.Array]:
        (hamiltonian, beta, vertices), spins = magnet, info.spins
        zz = hamiltonian.zz[:, None]
        ising = jnp.where(spins[:, i] == spins[:, j], zz, -zz).sum(1).mean(0)
        field = (hamiltonian.z_field[:, None] * spins[0]).sum(0) if facts.with_field else 0.0
        by_number = -(info.n_vertices / beta + vertices.constant) / n
        moment = 0.5 * spins[0].sum(0, dtype=jnp.int32)
        values = {
            "energy": (ising - field - info.n_changes / beta) / n,
            "worldline_energy": by_number,
            "slope": info.n_changes / (beta**2 * n),
            "score": by_number,
            "magnetization_z": moment / n if facts.with_field else jnp.zeros_like(by_number),
            "magnetization_z_squared": moment**2 / n,
        }
        if staggered is not None:
            values["staggered_structure_factor"] = ((0.5 * staggered[:, None] * spins).sum(1) ** 2).mean(0) / n
        if facts.signed:
            values["sign"] = 1.0 - 2 * (info.odd & 1)
        return values

    def measure_rarely(magnet: StringMagnet, _: dict, info: VertexInfo) -> dict[str, jax.Array]:
        return {"slope": jnp.zeros((len(info.n_changes), 1)), **pair_functions(lattice, 0.5, info.spins, functions)}

    kernel = vertices_kernel(facts, n_slots, counted=counted)
    return ring_of_strings(kernel, n_slots, vertices_of, measure, measure_rarely)

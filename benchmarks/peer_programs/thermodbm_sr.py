"""thermodbm: the step of `sr_problem.py`. Sweeps of all walkers, local energies, log-derivatives and one solve, as in a stage of a
step."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from result import answer, cpu_seconds, problem
from sr_problem import ALPHA, CHAINS, SAMPLES, WIDTH, N, seconds_per_step

from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.start import high_temperature_couplings, start_params
from thermodbm.evolve.step import local_energy, natural_direction
from thermodbm.models import make_lattice, transverse_field_ising
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import symmetry_group
from thermodbm.network.ansatz.trial import trial_state
from thermodbm.sampling.configurations import random_configurations
from thermodbm.sampling.metropolis import metropolis, metropolis_moves


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    task, setup = problem(), cpu_seconds()
    hamiltonian = transverse_field_ising(make_lattice("chain", N))
    group = symmetry_group(hamiltonian, translations=task["symmetric"], exchange=False)
    module = PurifiedDBM(group, ALPHA * 2 * N // len(group.perm), even=False)
    params = start_params(jax.random.key(0), module, high_temperature_couplings(hamiltonian, 0.2), WIDTH, positive=False)
    trial, theta = trial_state(module, params), ravel_pytree(params)[0]
    e_loc, moves = local_energy(hamiltonian, trial), metropolis_moves(hamiltonian, conserve_sz=False)
    options = VariationalOptions(diag_shift=1e-3)

    @jax.jit
    def step(key, theta, walkers):
        def sweep(carry, key):
            walkers, _ = metropolis(key, trial, theta, carry, moves, 2 * N)
            return walkers, walkers

        walkers, samples = jax.lax.scan(sweep, walkers, jax.random.split(key, SAMPLES // CHAINS))
        samples = samples.reshape(SAMPLES, 2 * N)
        direction, info = natural_direction(trial, theta, samples, e_loc(theta, samples)[0], jnp.ones(SAMPLES), options)
        return theta - 0.001 * direction, walkers, info

    carried = (theta, random_configurations(jax.random.key(1), CHAINS, N))

    def once(k: int) -> None:
        nonlocal carried
        *carried, info = jax.block_until_ready(step(jax.random.key(k), *carried))
        assert jnp.isfinite(info.energy)

    answer({}, setup, step=seconds_per_step(once))


if __name__ == "__main__":
    main()

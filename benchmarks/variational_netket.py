"""Seconds per SR step of the ring of 16 spins with 16 ancillas, thermodbm and NetKet 3.23, alternating in one run; a table.

RBM with complex Gaussian weights of width 0.1, 32 visible spins, 1024 samples from 16 chains, one sweep of 32 moves between samples,
H = transverse-field Ising on the first 16 sites. NetKet runs in an interpreter of its own, as it may need other versions of the libraries:

python benchmarks/variational_netket.py PYTHON_WITH_NETKET
"""

import json
import subprocess
import sys
import time
from pathlib import Path

ALPHA, N, CHAINS, SAMPLES, STEPS, WIDTH = 4, 16, 16, 1024, 5, 0.1


def with_netket(symmetric: bool) -> dict[str, float]:
    """Seconds a step for each of NetKet's forms of S; the best of `STEPS`."""
    import jax
    import netket as nk
    import numpy as np

    hilbert = nk.hilbert.Spin(0.5, 2 * N)
    hamiltonian = sum(-nk.operator.spin.sigmaz(hilbert, i) @ nk.operator.spin.sigmaz(hilbert, (i + 1) % N) for i in range(N))
    hamiltonian += sum(-nk.operator.spin.sigmax(hilbert, i) for i in range(N))
    hamiltonian = hamiltonian.to_jax_operator()
    shifts = [[(i + t) % N + layer * N for layer in range(2) for i in range(N)] for t in range(N)]
    settings = {"alpha": ALPHA, "param_dtype": complex, "kernel_init": jax.nn.initializers.normal(WIDTH)}
    model = nk.models.RBMSymm(symmetries=nk.utils.HashableArray(np.array(shifts)), **settings) if symmetric else nk.models.RBM(**settings)
    seconds = {}
    for form in ("minSR", "S matrix", "on the fly"):
        sampler = nk.sampler.MetropolisLocal(hilbert, n_chains=CHAINS, sweep_size=2 * N)
        state = nk.vqs.MCState(sampler, model, n_samples=SAMPLES, n_discard_per_chain=0, seed=1)
        common = {"optimizer": nk.optimizer.Sgd(0.001), "variational_state": state}
        if form == "on the fly":
            sr = nk.optimizer.SR(diag_shift=1e-3, holomorphic=True)
            driver = nk.driver.VMC(hamiltonian, preconditioner=sr, **common)
        else:
            driver = nk.driver.VMC_SR(hamiltonian, diag_shift=1e-3, use_ntk=form == "minSR", mode="complex", **common)
        try:
            driver.run(1, out=None, show_progress=False)
            times = []
            for _ in range(STEPS):
                began = time.perf_counter()
                driver.run(1, out=None, show_progress=False)
                times.append(time.perf_counter() - began)
            seconds[f"NetKet, {form}"] = min(times)
        except Exception as error:
            print(f"NetKet, {form}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    return seconds


def with_thermodbm(symmetric: bool) -> dict[str, float]:
    """Sweeps of all walkers, local energies, log-derivatives and one solve, as in one stage of a step; the best of `STEPS`."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    from thermodbm.evolve.options import VariationalOptions
    from thermodbm.evolve.start import high_temperature_couplings, start_params
    from thermodbm.evolve.step import local_energy, natural_direction
    from thermodbm.models import make_lattice, transverse_field_ising
    from thermodbm.network.ansatz import PurifiedDBM
    from thermodbm.network.symmetry import symmetry_group
    from thermodbm.network.trial import trial_state
    from thermodbm.sampling.configurations import random_configurations
    from thermodbm.sampling.metropolis import metropolis, metropolis_moves

    hamiltonian = transverse_field_ising(make_lattice("chain", N))
    group = symmetry_group(hamiltonian, translations=symmetric, exchange=False)
    n_filters = ALPHA * 2 * N // len(group.perm)
    module = PurifiedDBM(group, n_filters, even=False)
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

    walkers = random_configurations(jax.random.key(1), CHAINS, N)
    times = []
    for k in range(STEPS + 1):
        began = time.perf_counter()
        theta, walkers, info = jax.block_until_ready(step(jax.random.key(k), theta, walkers))
        times.append(time.perf_counter() - began)
    assert jnp.isfinite(info.energy)
    return {"thermodbm": min(times[1:])}


def main() -> None:
    if sys.argv[1] in ("netket", "thermodbm"):
        run = with_netket if sys.argv[1] == "netket" else with_thermodbm
        print(json.dumps(run(symmetric=sys.argv[2] == "1")))
        return
    print(f"{'ansatz':24} {'program':24} {'seconds a step':>14} {'ratio':>6}")
    for symmetric in (False, True):
        seconds: dict[str, float] = {}
        for program, python in (("thermodbm", sys.executable), ("netket", sys.argv[1])):
            command = [python, str(Path(__file__).resolve()), program, str(int(symmetric))]
            seconds |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        for name, value in seconds.items():
            label = "translation-summed RBM" if symmetric else "RBM"
            print(f"{label:24} {name:24} {value:14.3f} {value / seconds['thermodbm']:6.1f}", flush=True)


if __name__ == "__main__":
    main()

"""NetKet: the step of `sr_problem.py` by its three forms of S; NetKet has no method for thermal states to compare more with."""

import jax
import netket as nk
import numpy as np
from result import answer, cpu_seconds, problem
from sr_problem import ALPHA, CHAINS, SAMPLES, WIDTH, N, seconds_per_step


def main() -> None:
    task, setup = problem(), cpu_seconds()
    hilbert = nk.hilbert.Spin(0.5, 2 * N)
    hamiltonian = sum(-nk.operator.spin.sigmaz(hilbert, i) @ nk.operator.spin.sigmaz(hilbert, (i + 1) % N) for i in range(N))
    hamiltonian += sum(-nk.operator.spin.sigmax(hilbert, i) for i in range(N))
    hamiltonian = hamiltonian.to_jax_operator()
    shifts = [[(i + t) % N + layer * N for layer in range(2) for i in range(N)] for t in range(N)]
    settings = {"alpha": ALPHA, "param_dtype": complex, "kernel_init": jax.nn.initializers.normal(WIDTH)}
    symmetries = nk.utils.HashableArray(np.array(shifts))
    model = nk.models.RBMSymm(symmetries=symmetries, **settings) if task["symmetric"] else nk.models.RBM(**settings)
    sampler = nk.sampler.MetropolisLocal(hilbert, n_chains=CHAINS, sweep_size=2 * N)
    state = nk.vqs.MCState(sampler, model, n_samples=SAMPLES, n_discard_per_chain=0, seed=1)
    common = {"optimizer": nk.optimizer.Sgd(0.001), "variational_state": state}
    if task["form"] == "on the fly":
        sr = nk.optimizer.SR(diag_shift=1e-3, holomorphic=True)
        driver = nk.driver.VMC(hamiltonian, preconditioner=sr, **common)
    else:
        driver = nk.driver.VMC_SR(hamiltonian, diag_shift=1e-3, use_ntk=task["form"] == "minSR", mode="complex", **common)
    step = seconds_per_step(lambda k: driver.run(1, out=None, show_progress=False))
    answer({}, setup, step=step)


if __name__ == "__main__":
    main()

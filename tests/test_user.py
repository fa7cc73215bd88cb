import jax.numpy as jnp
import numpy as np
import pytest

import thermodbm
from thermodbm.errors import InputError
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, make_lattice, transverse_field_ising, xxz

MAGNETS = {
    "ising": transverse_field_ising(graph(4, [(0, 1), (2, 1), (2, 3)]), [1.0, -0.6, 0.8], [0.7, 1.1, 0.9, 0.5], [0.2, 0.0, -0.3, 0.1]),
    "exchange": xxz(graph(4, [(0, 1), (2, 1), (2, 3)]), [1.0, -0.6, 0.8], 0.4, [0.2, 0.0, -0.3, 0.1]),
}
OBSERVABLES = {"string": lambda s: s[:, 0] * s[:, 1] * s[:, 2], "two": lambda s: jnp.stack([s[:, 0], s[:, 3] * s[:, 1]], -1)}


def averages(hamiltonian, beta):
    e, v = np.linalg.eigh(dense_hamiltonian(hamiltonian))
    p = np.exp(-beta * (e - e[0]))
    p = v**2 @ p / p.sum()
    spins = all_configurations(hamiltonian.n_sites)
    return {name: p @ np.asarray(function(spins)) for name, function in OBSERVABLES.items()}


@pytest.mark.parametrize("name", MAGNETS)
@pytest.mark.parametrize("method", ["exact", "typical", "deterministic"])
def test_observables_of_a_user(name, method):
    sampling = {"n_samples": 4000} if method == "deterministic" else None
    curve = thermodbm.thermal_curve(MAGNETS[name], T=[1.25], method=method, sampling=sampling, observables=OBSERVABLES, progress=False)
    for observable, value in averages(MAGNETS[name], 0.8).items():
        found = curve.observables[observable]
        assert found.mean[0].shape == np.shape(value) and found.error.max() < 0.1
        assert (np.abs(found.mean[0] - value) <= 4.5 * found.error[0] + 1e-10).all()
        assert (found.error > 0).all() == (method == "deterministic")


@pytest.mark.parametrize(
    ("observables", "method", "words"),
    [
        ({"energy": lambda s: s[:, 0]}, "exact", "a name of its own"),
        ({"x": lambda s: s.sum()}, "exact", "one value for each"),
        ({"x": lambda s: s[:, 99]}, "exact", "IndexError"),
        ({"x": lambda s: s[:, 0]}, "variational", "deterministic, exact or typical"),
        ({"x": lambda s: np.asarray(s)[:, 0]}, "deterministic", "JAX can trace"),
    ],
)
def test_what_cannot_be_measured_is_refused(observables, method, words):
    with pytest.raises(InputError, match=words):
        thermodbm.thermal_curve(MAGNETS["ising"], T=1.0, method=method, observables=observables, progress=False)


def test_exact_observables_have_a_limit():
    magnet = transverse_field_ising(make_lattice("chain", 64))
    with pytest.raises(InputError, match="at most 12 sites"):
        thermodbm.thermal_curve(magnet, T=1.0, method="exact", observables={"x": lambda s: s[:, 0]}, progress=False)

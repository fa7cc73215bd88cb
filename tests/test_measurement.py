import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thermodbm.estimate.statistics import Estimate
from thermodbm.evolve import measurement as measure
from thermodbm.evolve.ansatz import default_module
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.start import high_temperature_couplings, start_params
from thermodbm.evolve.step import local_energy
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising
from thermodbm.models.operators import diagonal_observables
from thermodbm.network.ansatz.trial import trial_state
from thermodbm.sampling.configurations import enumerate_configurations
from thermodbm.sampling.metropolis import antiparallel_flips, local_ratios

RING = make_lattice("chain", 4)
MODELS = [
    transverse_field_ising(graph(4, [(0, 1), (1, 2), (0, 2), (2, 3)]), J=[1.0, -0.8, 0.5, 0.3], gamma=[0.7, 1.2, -0.9, 1.0], h=0.3),
    heisenberg(RING, h=0.4),
    j1j2(RING, J2=0.5),
]


def everything(hamiltonian, beta=0.6, width=0.3):
    """Weights, total energies, ratios and controls of all configurations, of a state at beta with filters that matter."""
    options = VariationalOptions(alpha=1)
    module = default_module(hamiltonian, options)
    params = start_params(jax.random.key(2), module, high_temperature_couplings(hamiltonian, beta), width, positive=False)
    trial, theta = trial_state(module, params), ravel_pytree(params)[0]
    conserve = hamiltonian.conserves_sz
    visible, _ = enumerate_configurations(4, np.arange(4)[None], flip=False, conserve_sz=conserve)
    padding = -len(visible) % 32
    log_weight = np.append(2 * trial.log_amplitude(theta, visible).real, np.full(padding, -np.inf))
    visible = np.concatenate([visible, np.repeat(visible[:1], padding, 0)])
    weights = np.asarray(jax.nn.softmax(log_weight))
    energies, ratios = local_energy(hamiltonian, trial)(theta, visible)
    flips = local_ratios(trial, theta, visible, antiparallel_flips(4))
    controls = measure.heat_bath_controls(hamiltonian)(visible[:, :4], ratios, flips)
    return weights, visible, energies, ratios, np.asarray(controls), trial, theta


@pytest.mark.parametrize("hamiltonian", MODELS, ids=["tfim", "heisenberg", "j1j2"])
def test_controls_have_mean_zero_and_explain_most_of_the_energy(hamiltonian):
    """Summed over all configurations; the variance that a regression leaves at beta = 0.6 is below half."""
    weights, _, energies, _, controls, *_ = everything(hamiltonian)
    assert np.abs(weights @ controls).max() < 1e-14
    assert (weights @ controls**2 > 1e-4).sum() >= 3
    root, e = np.sqrt(weights), energies.real - weights @ energies.real
    left = root * (e - controls @ np.linalg.lstsq(root[:, None] * controls, root * e, rcond=None)[0])
    assert left @ left < 0.5 * (weights @ e**2)


def test_estimates_scatter_as_their_errors_say():
    """400 experiments of 256 independent walkers, two samples each; the spread is known to 1/sqrt(800) = 3.5 percent."""
    hamiltonian = MODELS[1]
    weights, visible, energies, ratios, controls, trial, theta = everything(hamiltonian)
    values = {
        **measure.energy_observables(hamiltonian, energies, ratios),
        **diagonal_observables(hamiltonian)(jnp.asarray(visible[:, :4])),
    }
    values = jax.tree.map(np.asarray, values)
    exact, exact_spread = measure.exact_estimates(hamiltonian, 0.6, weights, energies, values)
    values["controls"] = controls
    moved = jax.jit(measure.variance_observables(hamiltonian, local_energy(hamiltonian, trial)))
    rng, deviations, errors, shares = np.random.default_rng(0), [], [], []
    for _ in range(400):
        tally = None
        for _ in range(2):
            drawn = rng.choice(len(weights), 256, p=weights / weights.sum())
            found = {name: x[drawn] for name, x in values.items()}
            found |= moved(jax.random.key(rng.integers(1 << 31)), theta, visible[drawn])
            tally = measure.add_to_tally(measure.empty_tally(found) if tally is None else tally, found)
        estimates, spread = measure.walker_estimates(hamiltonian, 0.6, tally)
        names = ("energy", "specific_heat", "susceptibility")
        deviations.append([estimates[k].mean - exact[k].mean for k in names])
        errors.append([estimates[k].error for k in names])
        shares.append([estimates["energy"].n_eff, estimates["energy"].tau_int])
    error = np.sqrt(np.mean(np.square(errors), 0))
    assert (np.abs(np.mean(deviations, 0)) < 0.2 * error).all() and (np.abs(np.std(deviations, 0) / error - 1) < 0.15).all()
    n_eff, tau_int = np.mean(shares, 0)
    assert n_eff > 2 * 512 and tau_int == pytest.approx(0.5, rel=0.1)
    for name in exact:  # by which a state that is a little off changes averages, as with all configurations
        np.testing.assert_allclose(spread[name], exact_spread[name], rtol=0.3, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("hamiltonian", MODELS, ids=["tfim", "heisenberg", "j1j2"])
def test_variance_is_seen_where_amplitudes_are_small(hamiltonian):
    """Near beta = 0 most of Var(H) is in configurations that samples of |Psi|^2 do not hold: 20,000 of them, each after one move of H."""
    beta = 0.01
    weights, visible, energies, _, _, trial, theta = everything(hamiltonian, beta, 0.03)
    exact = weights @ np.abs(energies - weights @ energies) ** 2
    rng = np.random.default_rng(1)
    drawn = rng.choice(len(weights), 20_000, p=weights / weights.sum())
    plain = np.mean(np.abs(energies[drawn] - energies[drawn].mean()) ** 2)
    blocks = np.asarray(visible[drawn][: 20_000 // 32 * 32])
    found = measure.variance_observables(hamiltonian, local_energy(hamiltonian, trial))(jax.random.key(0), theta, blocks)
    n, e = 4, (weights @ energies).real
    x = n * (found["moved_square"] - 2 * e * found["moved_energy"]) + e**2 * found["moved"]
    error = np.std(x) / np.sqrt(len(x))
    assert error < 0.03 * exact and abs(np.mean(x) - exact) < 4 * error
    assert abs(np.mean(found["moved"]) - 1) < 0.1
    assert abs(plain - exact) > 4 * error  # what the samples themselves tell


def test_systematic_errors_join_the_statistical_ones():
    estimates = {name: Estimate(np.asarray(1.0), np.asarray(0.3)) for name in ("energy", "specific_heat", "magnetization_z")}
    averages = measure.Averages(
        estimates, {"energy": np.asarray(9.0), "specific_heat": np.asarray(2.0), "magnetization_z": np.asarray(4.0)}
    )
    found = measure.with_systematic(averages, 0.1, 0.4, 0.0)
    assert [float(found[name].error) for name in estimates] == pytest.approx([0.5, np.hypot(0.3, 0.2), 0.5])
    assert float(measure.with_systematic(averages, 0.0, 0.0, 0.4)["specific_heat"].error) == pytest.approx(0.5)

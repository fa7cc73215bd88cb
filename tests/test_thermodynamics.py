import time

import numpy as np
import pytest
from scipy.stats import chi2

from thermodbm.estimate.moments import high_temperature_moments, lowest_energy
from thermodbm.estimate.statistics import Estimate, exact
from thermodbm.estimate.thermodynamics import _positive, integrate_thermodynamics, join_thermodynamics
from thermodbm.exact import dense_hamiltonian, exact_curve
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz

RNG = np.random.default_rng(3)
FRUSTRATED = graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4)])
RANDOM_ISING = transverse_field_ising(FRUSTRATED, RNG.normal(size=6), RNG.normal(size=5), RNG.normal(size=5))
RANDOM_XXZ = xxz(FRUSTRATED, RNG.normal(size=6), RNG.normal(size=6), RNG.normal(size=5))
RING64 = transverse_field_ising(make_lattice("chain", 64))
HEISENBERG = heisenberg(make_lattice("chain", 10))
NAMES = ("entropy", "free_energy", "specific_heat")


@pytest.mark.parametrize(
    "hamiltonian",
    [
        RANDOM_ISING,
        RANDOM_XXZ,
        HEISENBERG,
        j1j2(make_lattice("square", (2, 4)), 1.0, 0.5),
        heisenberg(make_lattice("kagome", (1, 2)), -1.0, 0.4),
    ],
    ids=["ising", "xxz", "heisenberg", "j1j2", "kagome"],
)
def test_moments_are_traces(hamiltonian):
    n, h = hamiltonian.n_sites, dense_hamiltonian(hamiltonian)
    second, third, fourth = (np.mean(np.linalg.eigvalsh(h) ** k) for k in (2, 3, 4))
    expected = second / n, third / n, (fourth - 3 * second**2) / n
    np.testing.assert_allclose(high_temperature_moments(hamiltonian), expected, rtol=1e-12, atol=1e-14)


def noisy(curve, energy_error, heat_error, rng):
    n = len(curve["energy"])
    heat_error = np.broadcast_to(heat_error, n)
    return (
        Estimate(curve["energy"] + energy_error * rng.normal(size=n), np.full(n, energy_error)),
        Estimate(curve["specific_heat"] + heat_error * rng.normal(size=n), heat_error),
    )


@pytest.mark.parametrize(
    ("hamiltonian", "n_temperatures"),
    [(RING64, 8), (RING64, 20), (HEISENBERG, 12), (RANDOM_ISING, 8), (RANDOM_XXZ, 12)],
    ids=["ring sparse", "ring dense", "heisenberg", "ising", "xxz"],
)
def test_errors_are_one_standard_deviation(hamiltonian, n_temperatures):
    """Pulls over independent noise: their mean square is at most 1.1^2 (interpolation errors are conservative), up to its own scatter."""
    n_seeds = 60
    betas = 1 / np.geomspace(0.125, 4, n_temperatures)
    curve, rng = exact_curve(hamiltonian, betas), np.random.default_rng(1)
    heat_error = np.maximum(0.05 * (betas / 8) ** 2, 1e-3)
    pulls = []
    for _ in range(n_seeds):
        found = integrate_thermodynamics(hamiltonian, betas, *noisy(curve, 1e-4, heat_error, rng))
        pulls.append([(found[name].mean - curve[name]) / found[name].error for name in NAMES])
    mean_square = np.mean(np.square(pulls), axis=0)  # (names, temperatures)
    threshold = 1.1**2 * chi2.ppf(1 - 1e-3 / mean_square.size, n_seeds) / n_seeds
    assert mean_square.max() < threshold
    assert mean_square.mean() > 0.1  # an error bar that is far too large is wrong as well


def test_energies_of_all_temperatures_sharpen_the_specific_heat():
    betas = 1 / np.geomspace(0.125, 4, 16)
    curve = exact_curve(RING64, betas)
    energy, heat = noisy(curve, 1e-4, 0.05 * (betas / 8) ** 2 + 1e-3, np.random.default_rng(0))
    joint = integrate_thermodynamics(RING64, betas, energy, heat)["specific_heat"]
    assert (joint.error < 1.01 * heat.error).all()
    assert joint.error[0] < 0.3 * heat.error[0]


def test_exact_curves_are_integrated_within_the_interpolation_error():
    previous = np.inf
    for n_temperatures in (6, 12, 24):
        betas = 1 / np.geomspace(0.1, 4, n_temperatures)
        curve = exact_curve(RING64, betas)
        found = integrate_thermodynamics(RING64, betas, exact(curve["energy"]), exact(curve["specific_heat"]))
        for name in NAMES:
            assert (np.abs(found[name].mean - curve[name]) < 3 * found[name].error + 1e-6).all()
        assert found["entropy"].error.max() < previous  # denser grids determine the curve better
        previous = found["entropy"].error.max()
    assert previous < 1e-4


def test_temperatures_without_energy_are_predicted_from_the_others():
    betas = 1 / np.geomspace(0.1, 4, 14)
    curve = exact_curve(HEISENBERG, betas)
    energy, heat = noisy(curve, 1e-4, 1e-3, np.random.default_rng(2))
    missing = np.arange(14) % 5 == 1
    energy.mean[missing], heat.mean[missing] = np.nan, np.nan
    heat.mean[[0, 7]] = np.nan  # finished, but without a usable specific heat
    found = integrate_thermodynamics(HEISENBERG, betas, energy, heat)
    for name in NAMES:
        assert (np.abs(found[name].mean - curve[name]) < 4 * found[name].error).all()
    left = integrate_thermodynamics(HEISENBERG, betas[~missing], *(Estimate(x.mean[~missing], x.error[~missing]) for x in (energy, heat)))
    for name in NAMES:  # what is only asked for changes nothing
        assert (np.abs(found[name].mean[~missing] - left[name].mean) < 0.1 * left[name].error).all()
    nothing = integrate_thermodynamics(HEISENBERG, betas, exact(betas * np.nan), exact(betas * np.nan))
    for name in NAMES:  # moments of H and inequalities alone
        assert (np.abs(nothing[name].mean - curve[name]) < 4 * nothing[name].error).all()


@pytest.mark.parametrize("seed", range(3))
def test_two_scales_far_apart(seed):
    """What is known at beta = 0 is sharper by many digits than any datum, and curves that bend twice take short lengths."""
    magnet, betas = heisenberg(graph(6, [(0, 1), (2, 3), (4, 5), (1, 2), (3, 4)]), [3.0, 0.3, 0.1, 0.2, 0.1]), 1 / np.geomspace(0.1, 4, 16)
    curve = exact_curve(magnet, betas)
    found = integrate_thermodynamics(magnet, betas, *noisy(curve, 1e-3, np.maximum(0.01 * betas**2, 1e-3), np.random.default_rng(seed)))
    for name in NAMES:
        assert (np.abs(found[name].mean - curve[name]) < 4 * found[name].error).all()


def test_correlated_errors_sharpen_what_is_joined():
    """With the correlation of their errors told, free energies from the same energies and specific heats deviate less, and errors hold."""
    magnet, betas, rho, n_seeds = heisenberg(make_lattice("chain", 6), 1.0, 0.7), 1 / np.array([0.3, 0.5, 0.7, 1.0, 2.0]), -0.75, 40
    truth, rng, sigma = exact_curve(magnet, betas), np.random.default_rng(9), (np.full(5, 6e-3), 0.015 * betas**1.5)
    off = {rho: [], 0.0: []}
    pulls = []
    for _ in range(n_seeds):
        x, y = rng.normal(size=(2, 5))
        drawn = truth["energy"] + sigma[0] * x, truth["specific_heat"] + sigma[1] * (rho * x + np.sqrt(1 - rho**2) * y)
        data = [Estimate(*each) for each in zip(drawn, sigma, strict=True)]
        for told in off:
            found = join_thermodynamics(magnet, betas, *data, told).estimates
            off[told].append(found["free_energy"].mean - truth["free_energy"])
            if told:
                pulls.append([(found[name].mean - truth[name]) / found[name].error for name in NAMES])
    assert np.mean(np.square(off[rho])) < 0.7 * np.mean(np.square(off[0.0]))
    assert np.mean(np.square(pulls)) < 1.1**2


def test_warm_temperatures_do_not_decide_about_a_noisy_cold_one():
    """The coldest temperature is next to the peak of c and its data are the poorest, as where a sign divides: the straight run of the
    warmer ones is no reason to think that the curve goes on like that."""
    magnet, betas, rho = j1j2(make_lattice("chain", 8), 1.0, 0.5), 1 / np.array([0.7, 1.0, 1.5, 2.5]), -0.72
    truth, rng, sigma = exact_curve(magnet, betas), np.random.default_rng(11), ([8e-3, 6e-3, 5e-3, 4.5e-3], [0.04, 0.016, 6e-3, 3e-3])
    pulls = []
    for _ in range(40):
        x, y = rng.normal(size=(2, 4))
        drawn = truth["energy"] + sigma[0] * x, truth["specific_heat"] + sigma[1] * (rho * x + np.sqrt(1 - rho**2) * y)
        data = [Estimate(mean, np.array(error)) for mean, error in zip(drawn, sigma, strict=True)]
        found = join_thermodynamics(magnet, betas, *data, rho).estimates
        pulls.append([(found[name].mean - truth[name]) / found[name].error for name in NAMES])
    assert np.abs(np.mean(pulls, axis=(0, 2))).max() < 0.45
    assert np.sqrt(np.mean(np.square(pulls), axis=(0, 2))).max() < 1.1
    assert np.abs(pulls).max() < 4


def test_the_order_of_temperatures_is_free():
    betas = 1 / np.geomspace(0.1, 4, 9)
    order = np.random.default_rng(4).permutation(9)
    energy, heat = noisy(exact_curve(HEISENBERG, betas), 1e-4, 1e-2, np.random.default_rng(5))
    moved = (Estimate(v.mean[order], v.error[order]) for v in (energy, heat))
    expected, found = integrate_thermodynamics(HEISENBERG, betas, energy, heat), integrate_thermodynamics(HEISENBERG, betas[order], *moved)
    for name in NAMES:
        np.testing.assert_allclose(found[name].mean, expected[name].mean[order], rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found[name].error, expected[name].error[order], rtol=1e-4, atol=1e-9)


FEW = {"one": [0.5], "one cold": [0.1], "three cold": [0.1, 0.15, 0.2], "four": [0.25, 0.5, 1, 2]}
MAGNETS = {
    "critical": RING64,
    "gapped": transverse_field_ising(make_lattice("chain", 64), 1.0, 3.0),
    "ordered": transverse_field_ising(make_lattice("chain", 64), 1.0, 0.5),
    "heisenberg": HEISENBERG,
    "frustrated": j1j2(make_lattice("square", (2, 4)), 1.0, 0.5),
    "triangular": transverse_field_ising(make_lattice("triangular", (3, 3)), -1.0, 0.5),
    "random": RANDOM_XXZ,
}


@pytest.mark.parametrize("magnet", MAGNETS)
@pytest.mark.parametrize("temperatures", FEW)
def test_few_and_cold_temperatures(temperatures, magnet):
    """What is known of all magnets bounds the entropy: errors of less than ln 2 / 2, and true ones."""
    hamiltonian, betas = MAGNETS[magnet], 1 / np.array(FEW[temperatures])
    curve = exact_curve(hamiltonian, betas)
    found = integrate_thermodynamics(hamiltonian, betas, *noisy(curve, 1e-4, 0.05 * (betas / 8) ** 2 + 1e-3, np.random.default_rng(7)))
    for name in NAMES:
        assert (np.abs(found[name].mean - curve[name]) < 4 * found[name].error).all()
    entropy, heat = found["entropy"], found["specific_heat"]
    assert (entropy.error < np.log(2) / 2).all()
    assert ((entropy.mean >= 0) & (entropy.mean <= np.log(2)) & (heat.mean >= 0)).all()


def test_bounds_do_not_bias_what_is_zero():
    """Specific heat and entropy of a gapped magnet vanish at many of the temperatures: no c >= 0 pushes their integrals up."""
    gapped, betas, n_seeds = MAGNETS["gapped"], 1 / np.geomspace(0.1, 4, 25), 40
    curve, rng = exact_curve(gapped, betas), np.random.default_rng(8)
    pulls = []
    for _ in range(n_seeds):
        found = integrate_thermodynamics(gapped, betas, *noisy(curve, 1e-4, 0.05 * (betas / 8) ** 2 + 1e-3, rng))
        pulls.append([(found[name].mean - curve[name]) / found[name].error for name in NAMES])
    assert np.abs(np.mean(pulls, axis=0)).max() < 1
    assert np.sqrt(np.mean(np.square(pulls))) < 1.1
    assert np.abs(pulls).max() < 4


@pytest.mark.parametrize("hamiltonian", [RANDOM_ISING, RANDOM_XXZ, HEISENBERG, j1j2(make_lattice("square", (2, 4)), 1.0, 0.5)])
def test_lowest_energy_is_a_lower_bound(hamiltonian):
    lowest = np.linalg.eigvalsh(dense_hamiltonian(hamiltonian))[0] / hamiltonian.n_sites
    assert 4 * lowest < lowest_energy(hamiltonian) < lowest
    pair = xxz(graph(3, [(0, 1)]), 0.7, 0.4, [0.3, -0.8, 0.5])  # bond and lone site by themselves: the bound is exact
    np.testing.assert_allclose(lowest_energy(pair), np.linalg.eigvalsh(dense_hamiltonian(pair))[0] / 3, rtol=1e-12)


@pytest.mark.parametrize("mean", [3.0, 0.1, -2.0, -29.9, -30.1, -300.0])
def test_moments_of_a_cut_off_normal_distribution(mean):
    mean, variance = mean * 0.7, 0.49
    u = np.linspace(0, 8 if mean > -2 else 20 * variance / -mean, 200001)
    log_density = -((u - mean) ** 2) / (2 * variance)
    density = np.exp(log_density - log_density.max())
    expected = np.average(u, weights=density)
    found = _positive(np.array([mean]), np.array([variance]))
    np.testing.assert_allclose(found[0], expected, rtol=3e-3)
    np.testing.assert_allclose(found[1], np.average((u - expected) ** 2, weights=density), rtol=1e-2)
    log_probability = np.log(np.trapezoid(density, u) / np.sqrt(2 * np.pi * variance)) + log_density.max()
    np.testing.assert_allclose(found[2], log_probability, rtol=1e-4, atol=1e-4)


def test_infinite_temperature_is_known():
    betas = np.array([2.0, 0.0, 0.5])
    curve = exact_curve(HEISENBERG, np.array([2.0, 0.1, 0.5]))
    found = integrate_thermodynamics(HEISENBERG, betas, exact(np.where(betas > 0, curve["energy"], 0)), exact(np.full(3, np.nan)))
    np.testing.assert_allclose([found["entropy"].mean[1], found["specific_heat"].mean[1]], [np.log(2), 0], atol=1e-6)
    assert found["free_energy"].mean[1] == -np.inf
    assert found["free_energy"].error[1] == 0
    for name in NAMES:
        assert (np.abs(found[name].mean - curve[name]) < 4 * found[name].error)[[0, 2]].all()


def test_it_is_cheap_and_repeats_itself():
    betas = 1 / np.geomspace(0.1, 4, 100)
    arguments = RING64, betas, *noisy(exact_curve(RING64, betas), 1e-4, 1e-2, np.random.default_rng(9))
    began = time.process_time()
    first = integrate_thermodynamics(*arguments)
    assert time.process_time() - began < 1  # 0.2 on a quiet machine; 2.4 with one Cholesky factor per amplitude
    again = integrate_thermodynamics(*arguments)
    for name in NAMES:
        np.testing.assert_array_equal(first[name].mean, again[name].mean)
        np.testing.assert_array_equal(first[name].error, again[name].error)


def test_one_temperature_and_free_spins():
    betas = np.array([0.5])
    curve = exact_curve(HEISENBERG, betas)
    found = integrate_thermodynamics(HEISENBERG, betas, *noisy(curve, 1e-5, 1e-4, np.random.default_rng(6)))
    for name in NAMES:
        assert abs(found[name].mean - curve[name]) < 4 * found[name].error
    free = transverse_field_ising(make_lattice("chain", 4), 0.0, 0.0)
    found = integrate_thermodynamics(free, betas, exact(np.zeros(1)), exact(np.zeros(1)))
    np.testing.assert_allclose(found["entropy"].mean, np.log(2), atol=1e-6)


def test_covariances_of_joint_estimates():
    """Their diagonals are the errors; with energies they are how the estimates follow these; all blocks together are a covariance; and
    deviations from the exact curve over many draws of the noise are not larger than they say, in no combination of temperatures."""
    magnet = heisenberg(make_lattice("chain", 8))
    betas = 1 / np.array([2.0, 0.3, 0.5, 1.0, 0.7])
    truth, rng, n = exact_curve(magnet, betas), np.random.default_rng(5), len(betas)
    names = ("energy", "specific_heat", "entropy")

    def drawn():
        e, c = (truth[name] + sigma * rng.normal(size=n) for name, sigma in (("energy", 3e-3), ("specific_heat", 2e-2)))
        return Estimate(e, np.full(n, 3e-3)), Estimate(c, np.full(n, 2e-2))

    squares = []
    for _ in range(40):
        e, c = drawn()
        joint = join_thermodynamics(magnet, betas, e, c)
        block = {**joint.covariance, "energy/energy": np.diag(e.error**2)}
        whole = np.block([[block[f"{a}/{b}"] if f"{a}/{b}" in block else block[f"{b}/{a}"].T for b in names] for a in names])
        for name in ("specific_heat", "entropy", "free_energy"):
            np.testing.assert_allclose(np.sqrt(np.diag(block[f"{name}/{name}"])), joint.estimates[name].error, rtol=1e-9)
        assert np.linalg.eigvalsh(whole).min() > -1e-3 * np.linalg.eigvalsh(whole).max()
        found = {"energy": e.mean, **{name: joint.estimates[name].mean for name in names[1:]}}
        off = np.concatenate([found[name] - truth[name] for name in names])[n:]
        values, ways = np.linalg.eigh(whole[n:, n:])
        squares.append((ways.T @ off) ** 2 / values)
    assert np.mean(squares) < 1 + 5 * np.sqrt(2 / 400)
    assert np.mean(squares, 0).max() < 1 + 5 * np.sqrt(2 / 40)
    assert np.mean(squares) > 0.2  # and not much smaller
    up, down = (join_thermodynamics(magnet, betas, e._replace(mean=e.mean + s * 1e-5 * (np.arange(n) == 1)), c) for s in (1, -1))
    follows = (up.estimates["entropy"].mean - down.estimates["entropy"].mean) / 2e-5 * e.error[1] ** 2
    np.testing.assert_allclose(joint.covariance["energy/entropy"][1], follows, atol=0.15 * np.abs(follows).max())

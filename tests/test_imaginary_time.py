"""Correlations in imaginary time and static susceptibilities: exact ones against matrix exponentials, sampled ones against exact ones."""

import numpy as np
import pytest
import scipy.linalg

import thermodbm as tb
from thermodbm.errors import InputError
from thermodbm.exact import exact_curve
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.exact.imaginary_time import imaginary_time_solver
from thermodbm.models import graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.network.trotter_step import slices

RANDOM = np.random.default_rng(5)
BRANCHED = graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)])
MAGNETS = {
    "Ising ring": transverse_field_ising(make_lattice("chain", 6), 1.0, 0.8),
    "random Ising in a field": transverse_field_ising(BRANCHED, RANDOM.normal(size=5), RANDOM.normal(size=5), 0.3),
    "honeycomb in a field": xxz(make_lattice("honeycomb", (2, 2)), 1.0, 0.5, 0.4),
    "open ladder": transverse_field_ising(make_lattice("square", (3, 2), (True, False)), -1.0, 0.7),
    "random exchange": xxz(BRANCHED, RANDOM.normal(size=5), 0.4),
}


@pytest.mark.parametrize("name", MAGNETS)
def test_exact_correlations_are_those_of_matrix_exponentials(name):
    magnet, beta, n_tau = MAGNETS[name], 1.7, 8
    found, curve = imaginary_time_solver(magnet, n_tau)(beta), exact_curve(magnet, np.array([beta]))
    h, spins, lattice = dense_hamiltonian(magnet), magnet.moment * all_configurations(magnet.n_sites), magnet.lattice

    def pairs(tau):
        g, d = scipy.linalg.expm(-(beta - tau) * h), scipy.linalg.expm(-tau * h)
        return np.einsum("ab,bi,ba,aj->ij", g, spins, d, spins) / np.trace(g @ d)

    for k in (0, 1, 4):
        c = pairs(beta * k / n_tau)
        np.testing.assert_allclose(found["imaginary_time_correlation_zz"][k], np.mean([c[t[0], t] for t in lattice.translations], 0))
    np.testing.assert_allclose(found["imaginary_time_correlation_zz"][0], curve["correlation_zz"][0])
    assert ("static_susceptibility_zz" in found) == (lattice.wavevectors is not None)
    if lattice.wavevectors is None:
        return
    np.testing.assert_allclose(found["imaginary_time_structure_factor_zz"][0], curve["structure_factor_zz"][0])
    nodes, weights = np.polynomial.legendre.leggauss(16)
    integral = sum(w * pairs(beta * (1 + t) / 2) for w, t in zip(weights, nodes, strict=True)) * beta / 2
    waves = np.exp(-1j * lattice.positions @ lattice.wavevectors.T)
    static = np.einsum("ij,ik,jk->k", integral, waves, waves.conj()).real / magnet.n_sites
    np.testing.assert_allclose(found["static_susceptibility_zz"], static, rtol=1e-8)
    uniform = curve["susceptibility"] + beta * magnet.n_sites * curve["magnetization_z"] ** 2  # at wavevector 0
    np.testing.assert_allclose(found["static_susceptibility_zz"][0], uniform[0])


ONE_STEP = {"extrapolate": False, "d_tau": 0.02}
SAMPLED = {
    "Ising ring": (MAGNETS["Ising ring"], {}),
    "Ising by columns, bonds of both signs": (MAGNETS["random Ising in a field"], {"sampler": "column", **ONE_STEP}),
    "loops": (xxz(make_lattice("chain", 6), 1.0, -0.5), {}),
    "loops at one step": (xxz(make_lattice("chain", 4), -1.0, 0.7), ONE_STEP),
    "loops in a field": (MAGNETS["honeycomb in a field"], {}),
    "with a sign": (heisenberg(make_lattice("chain", 5)), {}),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_correlations_agree_with_exact_ones(name):
    """Within 4.5 error bars, entry by entry."""
    magnet, options = SAMPLED[name]
    T, n_tau = [0.7], 8
    curve = tb.thermal_curve(
        magnet,
        T=T,
        method={"kind": "deterministic", "n_tau": n_tau, **options},
        sampling={"n_samples": 16_000, "n_chains": 32, "seed": 2},
        progress=False,
    )
    exact = tb.thermal_curve(magnet, T=T, method={"kind": "exact", "n_tau": n_tau}, progress=False)
    names = [n for n in exact.observables if n.startswith(("imaginary_time", "static"))]
    assert len(names) == (1 if magnet.lattice.wavevectors is None else 3)
    for observable in [*names, *({"susceptibility_x", "binder_ratio"} & set(curve.observables))]:
        estimate, expected = getattr(curve, observable), exact.observables[observable].mean
        pulls = np.abs(estimate.mean - expected) / np.maximum(estimate.error, 1e-9)
        np.testing.assert_array_less(pulls, 4.5, err_msg=observable)
        assert np.max(estimate.error) < 0.3 * np.max(np.abs(expected)), observable
    fixed = curve.imaginary_time_correlation_zz
    assert (fixed.mean[:, 0, 0] == magnet.moment**2).all() and (fixed.error[:, 0, 0] == 0).all()
    assert (fixed.error[:, 1:] > 0).all()


def test_they_stand_in_file_and_dataset_with_their_axes_and_at_infinite_temperature(tmp_path):
    magnet = MAGNETS["Ising ring"]
    curve = tb.thermal_curve(magnet, T=[1.0, np.inf], method=tb.ExactOptions(n_tau=4), progress=False)
    curve.save(tmp_path / "curve.h5")
    loaded = tb.ThermalCurve.load(tmp_path / "curve.h5")
    assert loaded.imaginary_time_structure_factor_zz.mean.shape == loaded.imaginary_time_correlation_zz.error.shape == (2, 3, 6)
    np.testing.assert_allclose(loaded.imaginary_time_correlation_zz.mean[1], [[1, 0, 0, 0, 0, 0]] * 3)
    assert loaded.static_susceptibility_zz.mean[1].tolist() == [0.0] * 6
    assert loaded.binder_ratio.mean[1] == pytest.approx(3 - 2 / 6)
    dataset = loaded.to_xarray()
    assert dataset["imaginary_time_structure_factor_zz"].dims == ("temperature", "tau", "wavevector")
    assert dataset["imaginary_time_correlation_zz_error"].dims == ("temperature", "tau", "site")
    assert dataset["static_susceptibility_zz"].dims == ("temperature", "wavevector")
    assert dataset["tau"].values.tolist() == [0, 0.25, 0.5]
    again = tb.ThermalCurve.from_xarray(dataset)
    np.testing.assert_array_equal(again.imaginary_time_correlation_zz.mean, curve.imaginary_time_correlation_zz.mean)


def test_they_are_measured_on_request_alone():
    curve = tb.thermal_curve(MAGNETS["Ising ring"], T=[2.0], method="exact", progress=False)
    assert not any(name.startswith(("imaginary_time", "static")) for name in curve.observables) and "n_tau" not in curve.config
    assert slices(1.0, 0.1, True) == [8, 4, 2] and slices(1.0, 0.1, True, 16) == [32, 16, 8]


def test_what_cannot_have_them_is_refused():
    ring = make_lattice("chain", 13)
    with pytest.raises(InputError, match="at most 12 sites"):
        tb.thermal_curve(heisenberg(ring), T=1.0, method={"kind": "exact", "n_tau": 8}, progress=False)
    with pytest.raises(InputError, match=r"belongs to kind = deterministic \| exact"):
        tb.thermal_curve(heisenberg(ring), T=1.0, method={"kind": "typical", "n_tau": 8}, progress=False)
    with pytest.raises(InputError, match="n_tau"):
        tb.thermal_curve(heisenberg(ring), T=1.0, method={"kind": "deterministic", "n_tau": 7}, progress=False)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.linalg import expm

from thermodbm import thermal_curve
from thermodbm.errors import InputError, NumericsError
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.ansatz import default_module
from thermodbm.evolve.options import SamplingOptions, VariationalOptions
from thermodbm.evolve.start import high_temperature_couplings, pair_start_params, rotated_couplings, start_params
from thermodbm.evolve.variational import variational_method
from thermodbm.exact import exact_curve
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.models.rotation import rotate, rotation_sign, sublattice_rotation

RING = make_lattice("chain", 4)


def run(method, betas, key=0, state=None):
    """All points, and the state after each call of `advance`."""
    key = jax.random.key(key)
    state = method.init(key) if state is None else state
    points, states = [], [state]
    for beta in betas:
        point = None
        while point is None:
            state, info = method.advance(jax.random.fold_in(key, len(states)), state, beta)
            states.append(state)
            point = info.point
        points.append(point)
    return points, states


def rotated(hamiltonian):
    eta = sublattice_rotation(hamiltonian)
    return hamiltonian if eta is None else rotate(hamiltonian, eta)


def deviations(points, exact, name):
    return np.array([np.abs(p.observables[name].mean - exact[name][k]).max() for k, p in enumerate(points)])


@pytest.mark.parametrize(
    "hamiltonian",
    [
        transverse_field_ising(RING, gamma=0.8),
        transverse_field_ising(graph(3, [(0, 1), (1, 2), (0, 2)]), J=[1.0, -0.8, -0.5], gamma=[0.7, 1.2, -0.9], h=0.3),
        heisenberg(RING),
        xxz(RING, J=-1.0, delta=0.4, h=0.5),
        j1j2(RING, J2=0.5),
    ],
    ids=["ring", "random graph in fields", "heisenberg", "xxz in a field", "frustrated"],
)
def test_enumerated_evolution_follows_the_exact_curve(hamiltonian):
    """Every observable, without sampling noise; the small ansatz and the default tolerance leave at most 1.0e-3 (Heisenberg)."""
    betas = np.array([0.02, 0.3, 1.0])
    method = variational_method(hamiltonian, VariationalOptions(alpha=2), SamplingOptions())
    points, _ = run(method, betas)
    exact = exact_curve(hamiltonian, betas)
    assert deviations(points, exact, "energy").max() < 1.5e-3
    for name in set(exact) & set(points[0].observables):
        scale = np.abs(np.asarray(exact[name])).max() + 0.1
        if name != "susceptibility" or hamiltonian.conserves_sz:
            assert deviations(points, exact, name).max() < 5e-3 * scale, name
    assert {"energy", "specific_heat", "entropy", "free_energy", "correlation_zz", "magnetization_z"} <= set(points[0].observables)
    assert points[-1].diagnostics["residual"] < 0.05
    for name in set(exact) & set(points[0].observables):  # the state is known to be a little off: that is in all errors
        if name != "susceptibility" or hamiltonian.conserves_sz:
            for k, point in enumerate(points):
                estimate = point.observables[name]
                assert (np.abs(estimate.mean - exact[name][k]) <= 3 * estimate.error + 1e-9).all(), (name, k)
    assert all(p.observables["energy"].error == p.diagnostics["systematic_error"] > 0 for p in points)


def test_pairings_of_defects_follow_better_than_a_network():
    """Summed over all configurations: with fewer parameters, r^2 is much smaller at high temperature, where defects are few."""
    hamiltonian, betas = heisenberg(make_lattice("square", (2, 3))), np.array([0.3, 0.7])
    exact = exact_curve(hamiltonian, betas)["energy"]
    error, residual, n_params = {}, {}, {}
    for ansatz, alpha in (("pairs", 1), ("rbm", 3)):
        points, _ = run(variational_method(hamiltonian, VariationalOptions(ansatz=ansatz, alpha=alpha), SamplingOptions()), betas)
        error[ansatz] = np.abs([p.observables["energy"].mean for p in points] - exact)
        residual[ansatz], n_params[ansatz] = points[0].diagnostics["residual"], points[0].diagnostics["parameters"]
    assert n_params["pairs"] < n_params["rbm"] and residual["pairs"] < residual["rbm"] / 5
    assert (error["pairs"] < 2e-4).all()


def test_pairings_of_opposite_signs_do_not_cancel_at_the_start():
    """One ferromagnetic bond and no sublattices: a a - a a would be an amplitude of zero, from which every ratio is infinite."""
    hamiltonian = heisenberg(make_lattice("chain", 4), J=[1.0, 1.0, 1.0, -1.0])
    assert sublattice_rotation(hamiltonian) is None
    betas = np.array([0.3])
    options = VariationalOptions(ansatz="pairs", alpha=1, tolerance=1e-3)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions()), betas)
    assert deviations(points, exact_curve(hamiltonian, betas), "energy").max() < 1e-3


@pytest.mark.parametrize(
    ("hamiltonian", "start"),
    [(transverse_field_ising(RING), "trotter"), (heisenberg(RING), "rotated"), (heisenberg(make_lattice("chain", 66)), "trotter")],
    ids=["no conservation", "rotated", "large"],
)
def test_pairings_of_defects_have_limits(hamiltonian, start):
    with pytest.raises(InputError, match="ansatz = pairs"):
        default_module(hamiltonian, VariationalOptions(ansatz="pairs", start=start))


def test_what_happens_next_to_nodes_is_seen():
    """Amplitudes of a frustrated magnet pass through zero, where samples of |Psi|^2 are not but the residual is: few walkers follow all the
    same (by samples of |Psi|^2 alone e was off by .008 with r^2 = .001)."""
    hamiltonian, betas = j1j2(make_lattice("chain", 6), 1.0, 0.4), np.array([1.0])
    options = VariationalOptions(enumerate=False, n_walkers=512, compose=False)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions(n_samples=5000)), betas)
    off = abs(points[0].observables["energy"].mean - exact_curve(hamiltonian, betas)["energy"][0])
    assert off < 2e-3 and off < 2 * points[0].observables["energy"].error


def test_sampled_pairs_agree_within_their_errors():
    hamiltonian, betas = heisenberg(make_lattice("square", (2, 3))), np.array([0.5])
    options = VariationalOptions(ansatz="pairs", enumerate=False, alpha=1, n_walkers=2048)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions(n_samples=20_000)), betas)
    exact = exact_curve(hamiltonian, betas)
    for name in ("energy", "specific_heat", "susceptibility", "correlation_zz"):
        for k, point in enumerate(points):
            estimate = point.observables[name]
            assert (np.abs(estimate.mean - exact[name][k]) <= 4 * estimate.error + 1e-9).all(), name


@pytest.mark.parametrize(
    "hamiltonian",
    [j1j2(make_lattice("chain", 6), J2=0.5), xxz(graph(4, [(0, 1), (1, 2), (2, 3), (0, 2)]), J=[0.8, 1.0, -0.6, 0.5], delta=0.4, h=0.4)],
    ids=["frustrated ring", "graph in a field"],
)
def test_pair_products_follow_a_frustrated_magnet(hamiltonian):
    """Summed over all configurations, cold and hot; what is wrong is within the error that is stated."""
    betas = np.array([0.1, 1.0, 3.0])
    options = VariationalOptions(ansatz="pair_product", determinants=12, alpha=1)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions()), betas)
    exact = exact_curve(hamiltonian, betas)
    for k, limit in enumerate((3e-5, 3e-4, 1e-3)):
        assert deviations(points, exact, "energy")[k] < limit
        for name in ("energy", "specific_heat", "entropy", "susceptibility", "correlation_zz"):
            estimate = points[k].observables[name]
            assert (np.abs(estimate.mean - exact[name][k]) <= 3 * estimate.error + 1e-9).all(), (name, k)


def test_sampled_pair_products_agree_within_their_errors():
    hamiltonian, betas = j1j2(make_lattice("chain", 6), J2=0.5), np.array([0.3, 1.5])
    options = VariationalOptions(ansatz="pair_product", enumerate=False, determinants=12, alpha=1, n_walkers=1024, n_sweeps=1)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions(n_samples=10_000)), betas)
    exact = exact_curve(hamiltonian, betas)
    for name in ("energy", "specific_heat", "entropy", "susceptibility", "correlation_zz"):
        for k, point in enumerate(points):
            estimate = point.observables[name]
            assert (np.abs(estimate.mean - exact[name][k]) <= 4 * estimate.error + 1e-9).all(), (name, k)
            assert name != "energy" or estimate.error < 1e-2


def test_sampled_evolution_agrees_within_its_errors():
    """20,000 samples a temperature: 4 errors, plus 4e-3 for the noise that 2048 walkers leave in the parameters."""
    hamiltonian, betas = transverse_field_ising(RING), np.array([0.3, 0.8])
    options = VariationalOptions(enumerate=False, alpha=1, n_walkers=2048, point_group=False)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions(n_samples=20_000)), betas)
    exact = exact_curve(hamiltonian, betas)
    for name in ("energy", "specific_heat", "magnetization_x", "order_parameter_squared", "correlation_zz"):
        for k, point in enumerate(points):
            estimate = point.observables[name]
            assert (np.abs(estimate.mean - exact[name][k]) < 4 * estimate.error + 4e-3).all(), (name, k)
    energy = points[0].observables["energy"]
    assert 1e-4 < energy.error < 1e-3 and 0.3 < energy.tau_int < 5


def test_few_walkers_are_owned_up_to():
    """With fewer samples than it takes, parameters learn chance: the error of the energy says so, at 4 errors, for each of three seeds."""
    hamiltonian, betas = heisenberg(RING), np.array([0.5, 2.0])
    method = variational_method(hamiltonian, VariationalOptions(enumerate=False, n_walkers=256), SamplingOptions(n_samples=20_000))
    exact = exact_curve(hamiltonian, betas)["energy"]
    for seed in range(3):
        points, _ = run(method, betas, key=seed)
        for point, e in zip(points, exact, strict=True):
            energy = point.observables["energy"]
            assert abs(energy.mean - e) < 4 * energy.error
            assert point.diagnostics["residual"] > 0


def test_a_resumed_run_goes_on_bit_for_bit():
    hamiltonian, betas = heisenberg(RING), np.array([0.2, 0.4])
    options = VariationalOptions(enumerate=False, alpha=1, n_walkers=64, tolerance=1e-2)
    sampling = SamplingOptions(n_samples=200)
    points, states = run(variational_method(hamiltonian, options, sampling), betas)
    half = next(k for k, s in enumerate(states) if "tally" in s["walkers"])  # in the middle of the first measurement
    state = jax.tree.map(np.asarray, states[half])
    method, key = variational_method(hamiltonian, options, sampling), jax.random.key(0)
    target = iter(betas)
    beta = next(target)
    for k in range(half + 1, len(states)):
        state, info = method.advance(jax.random.fold_in(key, k), state, beta)
        if info.point:
            beta = next(target, None)
    assert beta is None
    for a, b in zip(jax.tree.leaves(info.point.observables), jax.tree.leaves(points[-1].observables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rotated_ancillas_start_at_infinite_temperature():
    hamiltonian, betas = transverse_field_ising(RING), np.array([0.2, 0.6])
    points, _ = run(variational_method(hamiltonian, VariationalOptions(start="rotated", tolerance=1e-4), SamplingOptions()), betas)
    assert deviations(points, exact_curve(hamiltonian, betas), "energy").max() < 5e-3


class TwoBody(nn.Module):
    """A user's module: real couplings of every pair."""

    @nn.compact
    def __call__(self, visible):
        n = visible.shape[-1]
        A = self.param("A", nn.initializers.zeros, (n, n), float)
        v = visible.astype(float)
        return (0.5 * jnp.sum(v * (v @ A), -1)).astype(complex)


def test_any_flax_module_evolves():
    hamiltonian = transverse_field_ising(graph(2, [(0, 1)]), J=0.9, gamma=0.6)
    options = VariationalOptions(tolerance=1e-4, beta_0=0.05)
    _, A = high_temperature_couplings(hamiltonian, options.beta_0 / 0.9)
    method = variational_method(hamiltonian, options, SamplingOptions(), module=TwoBody(), params={"A": A.real})
    points, _ = run(method, [0.5, 1.0])
    assert deviations(points, exact_curve(hamiltonian, np.array([0.5, 1.0])), "energy").max() < 5e-3
    with pytest.raises(InputError, match="parameters"):
        variational_method(hamiltonian, options, SamplingOptions(), module=TwoBody())


def test_a_users_module_follows_the_users_hamiltonian():
    """An antiferromagnet has amplitudes of both signs; the module starts at its state, not at that of the rotated one."""
    hamiltonian, betas = heisenberg(RING), np.array([0.3, 1.0])
    options = VariationalOptions(ansatz="rbm", alpha=2, tolerance=1e-3, beta_0=0.02)
    module = default_module(hamiltonian, options)
    params = start_params(jax.random.key(0), module, high_temperature_couplings(hamiltonian, options.beta_0), 0.03, positive=False)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions(), module=module, params=params), betas)
    exact = exact_curve(hamiltonian, betas)["energy"]
    for point, e in zip(points, exact, strict=True):
        assert abs(point.observables["energy"].mean - e) < min(2e-3, 3 * point.observables["energy"].error)
        assert point.diagnostics["trusted"] == 1 and (point.network["basis_signs"] == 1).all()


def test_the_file_says_which_basis_weights_are_in():
    """Amplitudes of the module times the sign of the stored rotation give the energy under the user's Hamiltonian."""
    hamiltonian = heisenberg(RING)
    options = VariationalOptions(ansatz="rbm", alpha=1, tolerance=1e-3)
    points, _ = run(variational_method(hamiltonian, options, SamplingOptions()), [0.5])
    network = dict(points[0].network)
    eta = network.pop("basis_signs")
    assert sorted(eta) == [-1, -1, 1, 1]
    spins, H = all_configurations(4), dense_hamiltonian(hamiltonian)
    v = np.concatenate([np.repeat(spins, 16, 0), -np.tile(spins, (16, 1))], 1)
    psi = np.exp(np.asarray(default_module(rotated(hamiltonian), options).apply({"params": network}, v)))
    psi = psi * (v.sum(1) == 0)
    energies = [
        np.vdot(x, H @ x).real / np.vdot(x, x).real / 4 for x in ((psi * sign).reshape(16, 16) for sign in (rotation_sign(v, eta), 1))
    ]
    assert energies[0] == pytest.approx(points[0].observables["energy"].mean, rel=1e-6)
    assert abs(energies[1] / energies[0] - 1) > 0.1


@pytest.mark.parametrize("enumerate_all", [True, False])
def test_a_start_that_is_not_the_thermal_state_is_not_trusted(enumerate_all):
    hamiltonian, rng = transverse_field_ising(RING), np.random.default_rng(0)
    options = VariationalOptions(tolerance=1e-2, enumerate=enumerate_all, n_walkers=512)
    A = 0.5 * rng.normal(size=(8, 8))
    method = variational_method(hamiltonian, options, SamplingOptions(n_samples=2000), module=TwoBody(), params={"A": A + A.T})
    betas = np.array([0.1, 0.5])
    points, _ = run(method, betas)
    exact = exact_curve(hamiltonian, betas)
    for k, point in enumerate(points):
        assert point.diagnostics["trusted"] == 0 and Doubt.STATE in Doubt(int(point.diagnostics["doubts"]))
        for name in ("energy", "specific_heat"):
            estimate = point.observables[name]
            assert abs(estimate.mean - exact[name][k]) < 3 * estimate.error, name
    _, info = method.advance(jax.random.key(1), method.init(jax.random.key(0)), 0.5)
    assert "not the thermal state" in info.message


def test_a_state_that_does_not_follow_is_not_trusted():
    """The two-body factor alone loses the state of a frustrated magnet on the way down; hot, it is trusted."""
    options = VariationalOptions(ansatz="jastrow", tolerance=1e-3)
    points, _ = run(variational_method(j1j2(RING, J2=0.5), options, SamplingOptions()), [0.02, 2.0])
    assert points[1].diagnostics["residual"] > 0.1
    assert [p.diagnostics["trusted"] for p in points] == [1, 0]


def test_an_evolution_that_breaks_down_says_so():
    """NaN from the trial state: every step is rejected, until the run stops with exit status 3."""
    hamiltonian = transverse_field_ising(graph(2, [(0, 1)]))
    method = variational_method(
        hamiltonian, VariationalOptions(), SamplingOptions(), module=TwoBody(), params={"A": np.full((4, 4), np.nan)}
    )
    with pytest.raises(NumericsError, match="stuck") as raised:
        run(method, [1.0])
    assert raised.value.exit_status == 3


def test_the_two_body_factor_alone_serves_at_high_temperature():
    hamiltonian, betas = transverse_field_ising(RING), np.array([0.1, 0.3])
    points, _ = run(variational_method(hamiltonian, VariationalOptions(ansatz="jastrow", tolerance=1e-3), SamplingOptions()), betas)
    assert set(points[0].network) == {"pairs", "W", "basis_signs"} and points[0].network["W"].size == 0
    assert deviations(points, exact_curve(hamiltonian, betas), "energy").max() < 5e-3


@pytest.mark.parametrize(
    ("hamiltonian", "ansatz"),
    [
        (transverse_field_ising(RING, J=-0.7, gamma=[1, 1, -1, 0.5]), "rbm"),
        (heisenberg(RING), "rbm"),
        (j1j2(RING, J2=0.4), "rbm"),
        (heisenberg(RING, h=0.6), "pairs"),
        (j1j2(RING, J2=0.4), "pairs"),
    ],
)
def test_start_is_the_thermal_state(hamiltonian, ansatz):
    """Energy of the start against the dense state: off by less than 1 percent at beta_0 = 0.05."""
    hamiltonian = rotated(hamiltonian)
    module, key = default_module(hamiltonian, VariationalOptions(ansatz=ansatz)), jax.random.key(0)
    if ansatz == "pairs":
        params = pair_start_params(key, module, hamiltonian, 0.05, 0.02, positive=False)
    else:
        params = start_params(key, module, high_temperature_couplings(hamiltonian, 0.05), 0.02, positive=False)
    spins, H = all_configurations(4), dense_hamiltonian(hamiltonian)
    v = np.concatenate([np.repeat(spins, 16, 0), -np.tile(spins, (16, 1))], 1)
    psi = np.exp(np.asarray(module.apply({"params": params}, v))).reshape(16, 16)
    if hamiltonian.conserves_sz:
        psi = psi * (spins.sum(1)[:, None] == spins.sum(1))
    exact = expm(-0.025 * H)
    energy = [np.vdot(p, H @ p).real / np.vdot(p, p).real for p in (psi, exact)]
    assert energy[0] == pytest.approx(energy[1], rel=1e-2)
    overlap = abs(np.vdot(psi, exact)) ** 2 / (np.vdot(psi, psi) * np.vdot(exact, exact)).real
    assert 1 - overlap < 1e-4


def test_rotated_start_is_a_rotated_bell_state():
    """One site: (1 + i sx)/sqrt 2 on the ancilla of |up,down> + |down,up>: amplitude i for a parallel pair."""
    _, A = rotated_couplings(transverse_field_ising(graph(2, [(0, 1)])))
    assert np.exp(2 * A[0, 2]) == pytest.approx(1j)
    assert A[0, 1] == A[0, 3] == 0


@pytest.mark.parametrize("enumerate", [True, False])
@pytest.mark.parametrize(("n", "edges"), [(1, []), (2, []), (3, [(0, 1)])])
def test_spins_without_partners(n, edges, enumerate):
    """Free spins in a field, alone or beside a bond: nothing moves them, and nothing is left of what keeps amplitudes from vanishing."""
    magnet, T = heisenberg(graph(n, edges), 1.0, 0.4), [0.5, 2.0]
    method = {"kind": "variational", "enumerate": enumerate, **({} if enumerate else {"n_walkers": 256})}
    curve, exact = thermal_curve(magnet, T=T, method=method, progress=False), exact_curve(magnet, 1 / np.array(T))
    for name in ("energy", "susceptibility", "magnetization_z", "correlation_zz"):
        off = np.abs(curve.observables[name].mean - exact[name])
        assert (off <= 4.5 * curve.observables[name].error + 3e-6).all(), name

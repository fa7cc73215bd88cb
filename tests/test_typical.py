import threading
from dataclasses import replace

import jax
import numpy as np
import pytest
from test_diagonalisation import HAMILTONIANS, brute_force, random_xxz

import thermodbm
from thermodbm.comm import SERIAL
from thermodbm.errors import InputError
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.options import TypicalOptions
from thermodbm.evolve.typical import typical_method
from thermodbm.exact import exact_curve, typicality
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian
from thermodbm.exact.lanczos import Rows, States, lanczos, lowest_states
from thermodbm.exact.orbit_space import OrbitSpace, sector_matrix
from thermodbm.exact.sectors import spins_of
from thermodbm.exact.typical_averages import typical_averages
from thermodbm.exact.typicality import Typicality
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.models.operators import Couplings
from thermodbm.run.config import parse_config
from thermodbm.run.cost import check_machine, describe_cost
from thermodbm.run.hdf5 import read_tree, write_tree

BETAS = np.array([0.1, 0.5, 2.0, 20.0])
FIELD = heisenberg(make_lattice("chain", 8), 1.0, h=0.7)


def averages(hamiltonian, seed, n_vectors=4, n_lanczos=100, observables=None, betas=BETAS):
    problem = Typicality(hamiltonian, betas, n_vectors, n_lanczos, observables or {})
    return typical_averages(problem, [problem.sample(s, np.random.default_rng([seed, i])) for i, s in enumerate(problem.sectors)])


def visit(hamiltonian, betas, options=None, comm=SERIAL, seed=1):
    method = typical_method(hamiltonian, options or TypicalOptions(), betas, comm)
    key = jax.random.key(seed)
    state, points = method.init(key), []
    for beta in betas:
        point = None
        while point is None:
            state, info = method.advance(key, state, beta)
            point = info.point
        points.append(point)
    return points


@pytest.mark.parametrize("name", [*(name for name, h in HAMILTONIANS.items() if not h.along_x), "uniform field"])
def test_small_sectors_are_exact(name):
    hamiltonian = HAMILTONIANS.get(name, FIELD)
    betas = np.array([0.1, 1.0, 7.0])
    found, expected = averages(hamiltonian, 0, betas=betas), exact_curve(hamiltonian, betas)
    expected = {name: values for name, values in expected.items() if name not in ("binder_ratio", "susceptibility_x")}
    assert set(found.values) == set(expected) and not found.noise.any() and found.n_steps == 0
    for observable, values in expected.items():
        np.testing.assert_allclose(found.values[observable][0], values, rtol=1e-9, atol=1e-11, err_msg=observable)


@pytest.mark.parametrize(
    "hamiltonian", [FIELD, random_xxz(graph(5, [(0, 1), (2, 1), (2, 3), (0, 3), (4, 1)]), 5), HAMILTONIANS["triangular torus"]]
)
def test_observables_of_a_user_need_no_symmetry(hamiltonian):
    weight = np.arange(hamiltonian.n_sites)
    functions = {"odd": lambda s: s @ weight, "pair": lambda s: np.stack([s[:, 0] * s[:, 2], s[:, 0] * (s[:, 1] > 0)], -1)}
    beta = 0.8
    found = averages(hamiltonian, 0, observables=functions, betas=np.array([beta])).values
    e, v = np.linalg.eigh(dense_hamiltonian(hamiltonian))
    p = np.exp(-beta * (e - e[0]))
    p = (v**2 @ p) / p.sum()
    for name, function in functions.items():
        np.testing.assert_allclose(found[name][0][0], p @ function(all_configurations(hamiltonian.n_sites)), atol=1e-12)


@pytest.mark.parametrize("name", ["frustrated", "field", "random", "ising", "ising in a field"])
def test_deviations_are_as_large_as_errors_say(name, monkeypatch):
    monkeypatch.setattr(typicality, "SMALL", 8)
    hamiltonian, n_seeds = {
        "frustrated": (j1j2(make_lattice("square", (2, 4), False), 1.0, 0.6), 6),
        "field": (heisenberg(make_lattice("chain", 10), 1.0, h=0.7), 3),
        "random": (random_xxz(graph(7, [(0, 1), (2, 1), (2, 3), (0, 3), (0, 2), (4, 1), (5, 4), (6, 5), (3, 6)]), 7), 4),
        "ising": (transverse_field_ising(make_lattice("triangular", (3, 3)), -1.0, 0.7), 6),
        "ising in a field": (transverse_field_ising(make_lattice("chain", 8), 1.0, 0.8, 0.2), 6),
    }[name]
    expected, pulls = exact_curve(hamiltonian, BETAS), {}
    for seed in range(n_seeds):
        found = averages(hamiltonian, seed)
        assert found.n_steps > 0
        for observable, (mean, error) in found.values.items():
            deviation = mean - expected[observable]
            seen = np.abs(deviation) > 1e-7  # the Krylov vectors are of single precision
            pulls.setdefault(observable, []).extend(deviation[seen] / error[seen])
    for observable, values in pulls.items():
        assert len(values) == 0 or (np.abs(values).max() < 8 and np.sqrt(np.mean(np.square(values))) < 1.7), observable
    everything = np.concatenate([values for values in pulls.values()])
    assert 0.5 < np.sqrt(np.mean(everything**2)) < 1.35  # few vectors in few sectors: on the safe side


@pytest.mark.parametrize(
    ("hamiltonian", "energy"),
    [
        (j1j2(make_lattice("square", (4, 4)), 1.0, 0.5), -0.5286202),
        (heisenberg(make_lattice("triangular", (4, 4))), -0.5347197),
        (heisenberg(make_lattice("kagome", (2, 3))), -0.4471262),
    ],
    ids=["square", "triangular", "kagome"],
)
def test_known_ground_states(hamiltonian, energy):
    found = averages(hamiltonian, 0, n_vectors=2, n_lanczos=10, betas=np.array([2000.0]))
    assert found.values["energy"][0][0] == pytest.approx(energy, abs=1.5e-7)
    assert found.sampled[0] < 1e-6 and found.values["energy"][1][0] < 1e-8


def test_more_vectors_make_smaller_errors(monkeypatch):
    monkeypatch.setattr(typicality, "SMALL", 8)
    chain = heisenberg(make_lattice("chain", 10))
    few, many = (averages(chain, 3, n_vectors=n).values for n in (8, 64))
    ratio = few["correlation_zz"][1][0, 1:] / many["correlation_zz"][1][0, 1:]
    assert 1.7 < ratio.mean() < 5  # (64/8)^(1/2)


def test_krylov_spaces_that_are_complete_end():
    lattice = make_lattice("chain", 8)
    diagonal = transverse_field_ising(lattice, 1.0, 0.0)  # three levels with flips and momentum zero
    space = OrbitSpace(8, None, lattice.translations, True)
    rows = space.allowed(np.ones(16))
    matrix = Rows(sector_matrix(space, np.ones(16), rows, Couplings.of(diagonal)))
    start = np.ones((len(rows), 1)) / np.sqrt(len(rows))
    nothing = States(np.zeros(0), np.zeros((len(rows), 0)))
    found = lanczos(matrix, start, 30, apart=nothing, betas=np.ones(1))
    levels = np.unique(diagonal.diagonal_energy(spins_of(space.representatives[rows], 8)))
    np.testing.assert_allclose(np.unique(np.round(found.energies[0][found.weights[0] > 1e-12], 9)), levels, atol=1e-9)


def test_a_cold_temperature_does_not_spoil_the_warm_ones(monkeypatch):
    monkeypatch.setattr(typicality, "SMALL", 8)
    hamiltonian = j1j2(make_lattice("chain", 12, False), 1.0, 0.4)
    alone, together = (averages(hamiltonian, 1, n_vectors=2, betas=np.array(b)).values for b in ([4.0], [4.0, 400.0]))
    for name in ("energy", "specific_heat", "entropy"):  # the same vectors: what differs is where the Krylov spaces end
        assert together[name][0][0] == pytest.approx(alone[name][0][0], abs=1e-9)


def test_lowest_states_are_eigenstates():
    hamiltonian = j1j2(make_lattice("square", (2, 4)), 1.0, 0.6)
    space = OrbitSpace(8, 4, np.arange(8)[None], False)
    matrix = Rows(sector_matrix(space, np.ones(1), np.arange(70), Couplings.of(hamiltonian)))
    found = lowest_states(matrix, 5, np.random.default_rng(0))
    np.testing.assert_allclose(matrix @ found.vectors, found.vectors * found.energies, atol=1e-7)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(len(found.energies)), atol=1e-12)
    assert found.energies[0] == pytest.approx(np.linalg.eigvalsh(matrix @ np.eye(70))[0], abs=1e-12)


def test_ranks_share_sectors(monkeypatch):
    monkeypatch.setattr(typicality, "SMALL", 6)
    betas, meeting, held = [0.5, 2.0], threading.Barrier(2), [None, None]

    def share(rank):
        def all_ranks(x):
            held[rank] = x
            meeting.wait()
            both = list(held)
            meeting.wait()
            return both

        return all_ranks

    results = [None, None]

    def work(rank):
        results[rank] = visit(FIELD, betas, comm=replace_comm(rank, share(rank)))

    def replace_comm(rank, all_ranks):
        return SERIAL._replace(rank=rank, size=2, share=all_ranks)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for alone, *others in zip(visit(FIELD, betas), *results, strict=True):
        for name, estimate in alone.observables.items():
            for other in others:
                np.testing.assert_array_equal(other.observables[name].mean, estimate.mean)


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(typicality, "SMALL", 6)
    betas = [0.5, 2.0]
    method, key = typical_method(FIELD, TypicalOptions(), betas), jax.random.key(1)
    state = method.init(key)
    for _ in range(5):
        state, info = method.advance(key, state, betas[0])
    assert info.point is None and 0 < info.fraction < 1
    with h5py.File(tmp_path / "c.h5", "w") as file:
        write_tree(file.create_group("state"), state)
    with h5py.File(tmp_path / "c.h5") as file:
        state = read_tree(file["state"], 10**9)
    while info.point is None:
        state, info = method.advance(key, state, betas[0])
    expected = visit(FIELD, betas)[0]
    for name, estimate in expected.observables.items():
        np.testing.assert_array_equal(info.point.observables[name].mean, estimate.mean)
        np.testing.assert_array_equal(info.point.observables[name].error, estimate.error)


def test_noise_of_the_partition_function_is_doubted(monkeypatch):
    monkeypatch.setattr(typicality, "SMALL", 2)
    monkeypatch.setattr(typicality, "N_LOWEST", 1)
    hamiltonian = xxz(graph(6, [(0, 1), (2, 1), (2, 3), (0, 3), (0, 2), (4, 1)]), 1.0, 0.3, [0.1, 0, 0, 0, 0, 0.3])
    points = visit(hamiltonian, [0.01, 1.0], TypicalOptions(n_vectors=2))
    assert [bool(Doubt(int(p.diagnostics["doubts"])) & Doubt.FEW) for p in points] == [
        p.diagnostics["partition_error"] > 0.1 for p in points
    ]


def config(**changes):
    tables = {
        "lattice": {"kind": "square", "extent": [4, 6]},
        "model": {"kind": "j1j2"},
        "method": {"kind": "typical"},
        "temperature": {"T": [0.1, 1.0]},
    }
    return parse_config({**tables, **changes})


def test_cost_is_told_beforehand():
    text = "\n".join(describe_cost(config()))
    assert "196 sectors" in text and "GB" in text and "min" in text
    check_machine(config(), available=4e9)
    with pytest.raises(InputError, match="sectors that fit"):
        check_machine(config(), available=1e8)


def test_too_many_sites_are_refused():
    with pytest.raises(InputError, match="at most 30 sites"):
        check_machine(config(lattice={"kind": "square", "extent": [6, 6]}))
    with pytest.raises(InputError, match="typical"):
        exact_curve(heisenberg(make_lattice("chain", 20)), [1.0])


def test_one_spin():
    point = visit(transverse_field_ising(graph(1, []), 1.0, 0.5), [2.0])[0]
    assert point.observables["magnetization_x"].mean == pytest.approx(np.tanh(1.0))
    assert replace(TypicalOptions(), n_vectors=3).n_vectors == 3
    np.testing.assert_allclose(
        point.observables["susceptibility"].mean, brute_force(transverse_field_ising(graph(1, []), 1.0, 0.5), 2.0)["susceptibility"]
    )


def differentiated(magnet, T, names, seed=0):
    method = {"kind": "typical"}
    return thermodbm.response(magnet, T=T, parameters=names, method=method, sampling={"seed": seed}, progress=False)


@pytest.mark.parametrize(
    ("magnet", "names"),
    [
        (j1j2(make_lattice("chain", 8), 1.0, 0.4, 0.3), ["J1", "J2", "h", "beta"]),
        (heisenberg(make_lattice("square", (4, 2))), ["J", "h", "J.each"]),
        (transverse_field_ising(graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]), 1.0, 0.7), ["J", "gamma", "gamma.each", "beta"]),
    ],
    ids=["in a field", "without", "Ising"],
)
def test_derivatives_where_every_sector_is_exact(magnet, names):
    """Differences leave their third order, and that stands in the error, near crossings of levels at low temperature, too."""
    T = [0.02, 0.4, 1.5]
    exact, found = (thermodbm.response(magnet, T=T, parameters=names, method="exact", progress=False), differentiated(magnet, T, names))
    for observable, of in found.items():
        for p in names:
            value, expected = of[p], exact[observable][p].mean
            assert value.mean.shape == expected.shape
            np.testing.assert_array_less(np.abs(value.mean - expected), value.error + 1e-7, err_msg=f"{observable}, {p}")
            np.testing.assert_array_less(value.error, 1e-3 * np.abs(expected).max() + 1e-7, err_msg=f"{observable}, {p}")


def test_derivatives_of_random_vectors_are_within_their_errors():
    """Of a magnet with both signs and no symmetry but that of flips; what vectors have in common cancels, or errors would be larger than
    derivatives by far."""
    bonds = [(i, i + 1) for i in range(11)] + [(0, 11), (0, 5), (3, 9), (2, 11)]
    magnet, names, T = xxz(graph(12, bonds), np.random.default_rng(1).normal(size=15), 0.7), ["J", "delta", "beta"], [0.5, 2.0]
    exact, pulls = thermodbm.response(magnet, T=T, parameters=names, method="exact", progress=False), []
    for seed in range(3):
        for observable, of in differentiated(magnet, T, names, seed).items():
            for p in names:
                expected, scale = exact[observable][p].mean, np.abs(exact[observable]["J"].mean).max()
                pulls.append((of[p].mean - expected) / np.maximum(of[p].error, 1e-9))
                assert np.all(of[p].error < 0.3 * scale + 1e-9), (observable, p)
    assert np.abs(pulls).max() < 7 and 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.6


def test_second_derivatives_of_random_vectors_are_refused():
    with pytest.raises(InputError, match="no second derivatives"):
        thermodbm.thermal_curve(FIELD, T=1.0, response=["J"], second=True, method="typical", progress=False)

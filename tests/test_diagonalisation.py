from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from thermodbm import ThermalCurve, thermal_curve
from thermodbm.errors import InputError
from thermodbm.exact.diagonalisation import all_configurations, dense_hamiltonian, diagonalise, thermal_averages
from thermodbm.exact.response import response_solver
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.models.operators import isotropic

SX, SY, SZ = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])
BETAS = np.array([0.1, 1.0, 7.0])


def operator(n, factors):
    out = np.eye(1)
    for i in range(n):
        out = np.kron(out, factors.get(i, np.eye(2)))
    return out


def dense(hamiltonian):
    """H from Kronecker products, written out independently of the package."""
    n = hamiltonian.n_sites
    h = np.zeros((2**n, 2**n), complex)
    for (i, j), zz, xy in zip(hamiltonian.bonds.tolist(), np.asarray(hamiltonian.zz), np.asarray(hamiltonian.xy), strict=True):
        h += zz * operator(n, {i: SZ, j: SZ}) + xy * (operator(n, {i: SX, j: SX}) + operator(n, {i: SY, j: SY}))
    for i, (x, z) in enumerate(zip(np.asarray(hamiltonian.x_field), np.asarray(hamiltonian.z_field), strict=True)):
        h -= x * operator(n, {i: SX}) + z * operator(n, {i: SZ})
    assert np.abs(h.imag).max() == 0
    return h.real


def brute_force(hamiltonian, beta):
    """Every observable from exp(-beta H) of the dense matrix; the Kubo integral by Gauss-Legendre quadrature."""
    n, lattice, moment = hamiltonian.n_sites, hamiltonian.lattice, hamiltonian.moment
    h = dense(hamiltonian)
    shift = np.linalg.eigvalsh(h)[0]

    def boltzmann(tau):
        return scipy.linalg.expm(-tau * (h - shift * np.eye(len(h))))

    rho = boltzmann(beta)
    z = np.trace(rho)
    mean = np.trace(rho @ h) / z
    log_z = np.log(z) - beta * shift
    expected = {
        "energy": mean / n,
        "specific_heat": beta**2 * (np.trace(rho @ h @ h) / z - mean**2) / n,
        "entropy": (log_z + beta * mean) / n,
        "free_energy": -log_z / beta / n,
    }
    p = np.diag(rho) / z
    s = moment * np.array([np.diag(operator(n, {i: SZ})) for i in range(n)])
    pairs = np.einsum("ic,jc,c->ij", s, s, p)
    m = p @ s.sum(0)
    expected["magnetization_z"] = m / n
    expected["correlation_zz"] = np.mean([pairs[t[0], t] for t in lattice.translations], axis=0)
    if lattice.wavevectors is not None:
        apart = lattice.positions[:, None] - lattice.positions
        expected["structure_factor_zz"] = np.array([np.sum(np.cos(apart @ k) * pairs) / n for k in lattice.wavevectors])
    nodes, weights = np.polynomial.legendre.leggauss(24)
    pieces = [boltzmann((t + 1) / 2 * beta) for t in nodes]  # the nodes are symmetric: 1 - t is one of them too

    def kubo(o):
        """int_0^1 <o(s beta) o> ds."""
        return sum(w / 2 * np.sum((a @ o) * (b @ o).T) / z for w, a, b in zip(weights, pieces, pieces[::-1], strict=True))

    x = sum(operator(n, {i: SX}) for i in range(n))
    if hamiltonian.conserves_sz:
        expected["susceptibility"] = beta * (pairs.sum() - m**2) / n
        expected["susceptibility_x"] = beta * kubo(x / 2) / n
        return expected
    expected["magnetization_x"] = moment * np.trace(rho @ x) / z / n
    if hamiltonian.model == "tfim":
        expected["order_parameter_squared"] = pairs.sum() / n**2
        expected["binder_ratio"] = n**4 * (p @ s.mean(0) ** 4) / pairs.sum() ** 2
    expected["susceptibility"] = beta * (kubo(np.diag(s.sum(0))) - m**2) / n
    return expected


def random_couplings(lattice, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=len(lattice.bonds())), rng.normal(size=lattice.n_sites), rng.normal(size=lattice.n_sites)


def random_tfim(lattice, seed, field):
    J, gamma, h = random_couplings(lattice, seed)
    return transverse_field_ising(lattice, J, gamma, h if field else 0.0)


def random_xxz(lattice, seed):
    J, _, h = random_couplings(lattice, seed)
    return xxz(lattice, J, np.random.default_rng(seed + 1).normal(size=len(J)), h)


EDGES = [(0, 1), (2, 1), (2, 3), (0, 3), (0, 2), (4, 1)]
HAMILTONIANS = {
    "random tfim": random_tfim(graph(5, EDGES), 1, field=False),
    "random tfim in a field": random_tfim(graph(5, EDGES), 2, field=True),
    "random xxz in a field": random_xxz(graph(5, EDGES), 3),
    "random open xxz": xxz(make_lattice("square", (2, 3), False), random_couplings(make_lattice("square", (2, 3), False), 4)[0], -0.4),
    "ring": transverse_field_ising(make_lattice("chain", 6), 0.8, 1.2),
    "frustrated odd ring": transverse_field_ising(make_lattice("chain", 5), -0.8, -1.2),
    "ring in a field": transverse_field_ising(make_lattice("chain", 6), -0.8, 1.2, 0.3),
    "ring in a staggered field": transverse_field_ising(make_lattice("chain", 6), 1.0, 0.7, [0.4, -0.4] * 3),
    "classical ring": transverse_field_ising(make_lattice("chain", 5), 1.0, 0.0),
    "free spins": transverse_field_ising(make_lattice("chain", 4), 0.0, 0.7),
    "square cylinder": transverse_field_ising(make_lattice("square", (3, 2), (True, False)), 1.0, 0.5),
    "triangular torus": transverse_field_ising(make_lattice("triangular", (2, 4)), -1.0, 0.9),
    "honeycomb torus": transverse_field_ising(make_lattice("honeycomb", (3, 1)), 1.0, 0.9, 0.2),
    "kagome torus": heisenberg(make_lattice("kagome", (2, 1))),
    "heisenberg ring": heisenberg(make_lattice("chain", 7)),
    "ferromagnetic ring in a field": heisenberg(make_lattice("chain", 6), -1.0, 0.6),
    "easy axis ring": xxz(make_lattice("chain", 6), -0.9, 1.7),
    "j1j2 torus": j1j2(make_lattice("square", (2, 4)), 1.0, 0.5),
    "easy plane in a field along x": xxz(make_lattice("chain", 6), 1.0, 0.4, h_x=0.7),
    "random xxz in fields along x and z": replace(random_xxz(graph(5, EDGES), 3), x_field=np.array([0.3, -0.5, 0.2, 0, 1]), along_x=True),
}


@pytest.mark.parametrize("hamiltonian", HAMILTONIANS.values(), ids=HAMILTONIANS)
def test_thermal_averages_are_those_of_the_dense_matrix(hamiltonian):
    curve = thermal_averages(diagonalise(hamiltonian), BETAS)
    for t, beta in enumerate(BETAS):
        expected = brute_force(hamiltonian, beta)
        assert set(expected) <= set(curve)
        for name, value in expected.items():
            np.testing.assert_allclose(curve[name][t], value, rtol=1e-9, atol=1e-9, err_msg=f"{name} at beta {beta}")


@pytest.mark.parametrize(("J", "h"), [(1.0, 0.7), (-1.0, 0.3)])
def test_in_a_field_along_z_an_isotropic_magnet_turns_as_a_whole_by_one_along_x(J, h):
    curve = thermal_averages(diagonalise(heisenberg(make_lattice("chain", 7), J, h)), BETAS)
    np.testing.assert_allclose(curve["susceptibility_x"], curve["magnetization_z"] / h, rtol=1e-10)


def test_a_field_along_x_is_one_along_z_of_an_isotropic_magnet(tmp_path):
    couplings, scan = {"lattice": make_lattice("chain", 6), "J": 1.0}, [0.0, 0.7]
    along_x, along_z = (
        thermal_curve(heisenberg(**couplings), T=[0.5, np.inf], method="exact", scan={name: scan}, progress=False) for name in ("h_x", "h")
    )
    along_x.save(tmp_path / "x.h5")
    found = ThermalCurve.load(tmp_path / "x.h5")
    for name, same in (("energy", "energy"), ("magnetization_x", "magnetization_z"), ("susceptibility", "susceptibility_x")):
        np.testing.assert_allclose(getattr(found, name).mean, getattr(along_z, same).mean, atol=1e-12)
    assert found.hamiltonian.along_x and not along_z.hamiltonian.along_x and "h_x" not in along_z.config


@pytest.mark.parametrize("method", ["deterministic", "learned", "variational", "typical"])
def test_a_field_along_x_is_refused_by_methods_that_conserve_the_magnetisation(method):
    with pytest.raises(InputError, match=f"no field along x with method.kind = {method}"):
        thermal_curve(heisenberg(make_lattice("chain", 4), h_x=0.1), T=1.0, method=method, progress=False)
    with pytest.raises(InputError, match="field along x"):
        response_solver(heisenberg(make_lattice("chain", 4), h_x=0.1), [])


def test_magnets_with_too_many_elements_have_no_response_along_x(monkeypatch):
    monkeypatch.setattr("thermodbm.exact.transverse.MAX_ELEMENTS", 10)
    curve = thermal_averages(diagonalise(HAMILTONIANS["easy axis ring"]), BETAS)
    assert "susceptibility_x" not in curve and "susceptibility" in curve


@pytest.mark.parametrize("name", ["random tfim in a field", "random xxz in a field", "j1j2 torus", "ring"])
def test_dense_hamiltonian_is_a_sum_of_kronecker_products(name):
    np.testing.assert_allclose(dense_hamiltonian(HAMILTONIANS[name]), dense(HAMILTONIANS[name]), atol=1e-14)


def test_configurations_are_in_the_order_of_kronecker_products():
    spins = all_configurations(4)
    assert spins.shape == (16, 4) and spins.dtype == np.int8
    for i in range(4):
        np.testing.assert_array_equal(spins[:, i], np.diag(operator(4, {i: SZ})))


def test_staggered_structure_factor_belongs_to_bipartite_lattices():
    ring = thermal_averages(diagonalise(heisenberg(make_lattice("chain", 6))), BETAS)
    np.testing.assert_allclose(ring["staggered_structure_factor"], ring["structure_factor_zz"][:, 3], rtol=1e-12)
    frustrated = thermal_averages(diagonalise(heisenberg(make_lattice("chain", 5))), BETAS)
    assert "staggered_structure_factor" not in frustrated


def test_infinite_temperature_limit():
    curve = thermal_averages(diagonalise(HAMILTONIANS["random tfim in a field"]), np.array([0.0]))
    np.testing.assert_allclose(curve["entropy"], np.log(2), rtol=1e-14)
    np.testing.assert_allclose([curve["energy"], curve["specific_heat"], curve["susceptibility"]], 0, atol=1e-14)


# T, e, c, s, f, chi from an independent program
REFERENCE = {
    "heisenberg_chain16": heisenberg(make_lattice("chain", 16)),
    "heisenberg_square4x4": heisenberg(make_lattice("square", (4, 4))),
    "j1j2_square4x4_j2_0.5": j1j2(make_lattice("square", (4, 4)), 1.0, 0.5),
    "tfim_chain12_g1": transverse_field_ising(make_lattice("chain", 12), 1.0, 1.0),
    "tfim_square4x4_g3": transverse_field_ising(make_lattice("square", (4, 4)), 1.0, 3.0),
}
COLUMNS = ["energy", "specific_heat", "entropy", "free_energy", "susceptibility"]
NUMBERS = {
    "heisenberg_chain16": [
        (0.1, -0.44289678467793, 0.09789782442879, 0.04774229803638, -0.44767101448156, 0.0732023012787),
        (0.316228, -0.40231330275013, 0.28561015246136, 0.24359686961788, -0.47934545363566, 0.1309255339797),
        (1.0, -0.20465160377931, 0.18865006536605, 0.59073661834664, -0.79538822212595, 0.13654264865372),
        (10.0, -0.01919776794507, 0.00196231208992, 0.6921800114122, -6.94099788206705, 0.02375107274423),
    ],
    "heisenberg_square4x4": [
        (0.1, -0.70145013365486, 0.0189255634066, 0.00387372453238, -0.7018375061081, 0.00380306463369),
        (0.316228, -0.68685503462818, 0.1079415264347, 0.07344371535382, -0.71007999384709, 0.04921714951054),
        (1.0, -0.41829080679604, 0.39834034008768, 0.48152865506854, -0.89981946186458, 0.09069285647296),
        (10.0, -0.0384025077685, 0.00392664658419, 0.69121232309186, -6.95052573868714, 0.02262093486274),
    ],
    "j1j2_square4x4_j2_0.5": [
        (0.1, -0.52773155007284, 0.0332235266395, 0.01152120060159, -0.528883670133, 0.00031183917146),
        (0.316228, -0.47103854578443, 0.39148237757479, 0.26296441640235, -0.55419525725451, 0.06509447238909),
        (1.0, -0.30468725801816, 0.1674640122901, 0.56655034692626, -0.87123760494442, 0.08346305178273),
        (10.0, -0.04513357698194, 0.00434032181439, 0.69091941675097, -6.9543277444916, 0.02162394573463),
    ],
    "tfim_chain12_g1": [
        (0.1, -1.2745600977732, 0.0242937348453, 0.04312223951055, -1.27887232172426),
        (0.316228, -1.26713011959816, 0.06878404499387, 0.07784336613478, -1.29174637158423),
        (1.0, -1.12094036109034, 0.31724247439173, 0.29482837549743, -1.41576873658777),
        (10.0, -0.19802629432843, 0.01941307377024, 0.68329499090384, -7.03097620336682),
    ],
    "tfim_square4x4_g3": [
        (0.1, -3.21550537006221, 0.00027154495057, 2.969373035e-05, -3.21550833943524),
        (0.316228, -3.21299716741629, 0.0242677526904, 0.01048789409205, -3.21631373318923),
        (1.0, -3.18673652987768, 0.07400581010013, 0.05070864867224, -3.23744517854992),
        (10.0, -1.05674014910633, 0.0974747962685, 0.64137222296536, -7.47046237875992),
    ],
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "tfim_square4x4_g3" else ()) for name in REFERENCE])
def test_reference_values(name):
    curve = thermal_averages(diagonalise(REFERENCE[name]), 1 / np.array([row[0] for row in NUMBERS[name]]))
    for t, (_, *numbers) in enumerate(NUMBERS[name]):
        found = [curve[column][t] for column in COLUMNS[: len(numbers)]]
        np.testing.assert_allclose(found, numbers, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_sites", [15, 24])
def test_too_many_sites_are_refused(n_sites):
    couplings = np.random.default_rng(1).normal(size=n_sites)
    with pytest.raises(InputError, match=f"found {n_sites} sites"):
        diagonalise(transverse_field_ising(make_lattice("chain", n_sites), couplings, 1.0, 0.1))


def test_larger_systems_keep_what_needs_no_eigenvectors(monkeypatch):
    hamiltonians = [HAMILTONIANS["ring in a field"], HAMILTONIANS["heisenberg ring"], HAMILTONIANS["ferromagnetic ring in a field"]]
    whole = [thermal_averages(diagonalise(h), BETAS) for h in hamiltonians]
    monkeypatch.setattr("thermodbm.exact.diagonalisation.MAX_COST_VECTORS", 0)
    for hamiltonian, expected in zip(hamiltonians, whole, strict=True):
        curve = thermal_averages(diagonalise(hamiltonian), BETAS)
        names = {"energy", "specific_heat", "entropy", "free_energy"}
        names |= {"susceptibility", "magnetization_z"} if hamiltonian.conserves_sz else set()
        assert set(curve) == names | ({"susceptibility_x"} if isotropic(hamiltonian) else set())
        for name, value in curve.items():
            np.testing.assert_allclose(value, expected[name], atol=1e-12)

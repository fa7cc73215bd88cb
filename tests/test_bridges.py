"""Bridges to NetKet and ArviZ: by stand-ins where they are not installed, and by their snippets in the documentation where they are."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import thermodbm
from thermodbm.errors import InputError
from thermodbm.evolve.method import Point
from thermodbm.exact.diagonalisation import dense_hamiltonian
from thermodbm.models import graph, transverse_field_ising, xxz
from thermodbm.run.checkpoint import _point, _point_tree
from thermodbm.run.collect import collect

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
PAGE = Path(__file__).parent.parent / "docs" / "interchange.md"
SNIPPETS = {
    re.search(r"import (netket|arviz_base)", text)[1]: text
    for text in re.findall(r"^```\{code-block\} python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
}
PAULI = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


def strings(terms):
    return SimpleNamespace(operators=np.array(list(terms)), weights=np.array(list(terms.values())))


def dense(terms):
    total = 0
    for string, weight in terms.items():
        product = np.eye(1)
        for letter in string:
            product = np.kron(product, PAULI[letter])
        total = total + weight * product
    return total


@pytest.mark.parametrize(
    "terms",
    [
        {"ZZI": 0.7, "IZZ": -0.4, "XII": -1.1, "IXI": 0.3, "IIZ": 0.2},
        {"XXI": -0.5, "YYI": -0.5, "ZZI": 0.8, "IXX": 1.2, "IYY": 1.2, "ZII": 0.3},
    ],
    ids=["ising", "exchange"],
)
def test_pauli_strings_make_the_same_hamiltonian(terms):
    magnet = thermodbm.magnet_from_netket(strings(terms))
    assert np.allclose(dense_hamiltonian(magnet), dense(terms))
    again = thermodbm.magnet_from_netket(
        SimpleNamespace(to_local_operator=lambda: SimpleNamespace(to_pauli_strings=lambda: strings(terms)))
    )
    assert np.allclose(dense_hamiltonian(again), dense(terms))


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"XYI": 1.0}, "XYI"),
        ({"ZZZ": 1.0}, "ZZZ"),
        ({"III": 1.0}, "III"),
        ({"ZZI": 1.0j}, "ZZI"),
        ({"XXI": 1.0, "YYI": 0.5}, "equal weights"),
        ({"XXI": 1.0, "YYI": 1.0, "IIX": 1.0}, "both kinds"),
        ({"XXI": 1.0, "YYI": 1.0, "IZZ": 1.0}, "both kinds"),
    ],
)
def test_other_operators_are_refused(terms, words):
    with pytest.raises(InputError, match=words):
        thermodbm.magnet_from_netket(strings(terms))


def test_graphs_make_magnets():
    ring = SimpleNamespace(n_nodes=4, edges=lambda: [(0, 1), (1, 2), (2, 3), (0, 3)])
    magnet = thermodbm.magnet_from_netket(ring, "xxz", J=0.5, delta=0.3, h=0.1)
    same = xxz(graph(4, ring.edges()), 0.5, 0.3, 0.1)
    assert np.allclose(dense_hamiltonian(magnet), dense_hamiltonian(same))
    with pytest.raises(InputError, match=r"heisenberg \| xxz"):
        thermodbm.magnet_from_netket(ring, "potts")
    with pytest.raises(InputError, match="a graph or an operator"):
        thermodbm.magnet_from_netket([1, 2])


@pytest.mark.skipif(find_spec("netket") is None, reason="NetKet is not installed")
def test_operators_of_netket():
    import netket as nk

    lattice = nk.graph.Graph(edges=[(0, 1, 0), (1, 2, 1), (2, 3, 0), (0, 2, 1)])
    hilbert = nk.hilbert.Spin(0.5, 4)
    operators = [nk.operator.Ising(hilbert, lattice, h=0.7, J=-0.6), nk.operator.Heisenberg(hilbert, lattice, J=[0.4, -0.3])]
    operators.append(nk.operator.Heisenberg(hilbert, nk.graph.Chain(4), J=0.5, sign_rule=True))
    for operator in operators:
        assert np.allclose(dense_hamiltonian(thermodbm.magnet_from_netket(operator)), np.asarray(operator.to_dense()))


@pytest.mark.parametrize("package", sorted(SNIPPETS))
def test_snippets_of_optional_packages(package, tmp_path):
    """In processes of their own: NetKet sets a mesh of devices for all of JAX."""
    pytest.importorskip(package)
    done = subprocess.run([sys.executable, "-c", SNIPPETS[package]], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_gives_the_amplitudes_of_its_state():
    from test_stored import BETA, MAGNETS, neural, written_down

    state = thermodbm.load_state(neural(MAGNETS["exchange"], BETA, noise=0.2), 1 / BETA)
    module, variables = state.to_flax()
    visible = np.array([[1, 1, -1, -1, 1, -1, -1, 1], [1, -1, 1, -1, -1, 1, -1, 1], [1, 1, 1, 1, 1, 1, 1, 1]])
    found = module.apply(variables, visible[:, None].astype(float))
    assert found.shape == (3, 1) and found[2, 0].real == -np.inf
    assert np.allclose(found[:2, 0], state.log_amplitude(visible)[:2]) and np.isfinite(found[:2]).all()
    assert jax.tree.all(jax.tree.map(np.array_equal, module.init(jax.random.key(5), visible), variables))
    assert hash(module) == hash(state.to_flax()[0])
    with pytest.raises(InputError, match="layers of deep units"):
        thermodbm.load_state(written_down(MAGNETS["ising"]), 1 / BETA).to_flax()


def test_a_kept_series_goes_through_checkpoints_files_and_arviz(tmp_path):
    series = {"energy": np.arange(6.0).reshape(3, 2), "length": np.asarray(4)}
    point = Point({}, {"wall_time_s": 1.0}, {}, series=series)
    again = _point(_point_tree(point))
    assert all(np.array_equal(again.series[name], series[name]) for name in series)
    curve = thermodbm.ThermalCurve(np.array([1.0, 2.0]), np.array([1.0, 0.5]), method="deterministic", config="", **collect([point, None]))
    curve.save(tmp_path / "a.h5")
    loaded = thermodbm.ThermalCurve.load(tmp_path / "a.h5")
    assert np.array_equal(loaded.series[0]["energy"], series["energy"]) and loaded.series[1] == {}
    with pytest.raises(InputError, match="the series of a sampled curve"):
        loaded.to_arviz(2.0)
    if find_spec("arviz_base") is None:
        with pytest.raises(InputError, match="arviz-base"):
            loaded.to_arviz(1.0)
        return
    posterior = loaded.to_arviz(1.0)["posterior"]
    assert posterior["energy"].dims == ("chain", "draw") and np.array_equal(posterior["energy"].values, series["energy"].T)
    assert posterior.attrs["length"] == 4


@pytest.mark.parametrize("method", ["exact", "variational", "typical"])
def test_series_of_other_methods_are_refused(method):
    with pytest.raises(InputError, match=r"output\.series"):
        thermodbm.thermal_curve(transverse_field_ising(graph(2, [(0, 1)])), T=1.0, method=method, series=True, progress=False)


def test_series_are_kept_on_request(tmp_path):
    magnet = transverse_field_ising(graph(3, [(0, 1), (1, 2)]), [1.0, -0.5], 0.8)
    method = {"kind": "deterministic", "extrapolate": False}
    sampling = {"n_samples": 640, "n_chains": 16}
    curve = thermodbm.thermal_curve(
        magnet, T=[np.inf, 1.0], method=method, sampling=sampling, series=True, progress=False, output=tmp_path / "a.h5"
    )
    loaded = thermodbm.ThermalCurve.load(tmp_path / "a.h5")
    assert loaded.series[0] == {} and set(loaded.series[1]) == set(curve.series[1])
    energies, length = loaded.series[1]["energy"], int(loaded.series[1]["length"])
    assert energies.shape[1] == 16 and energies.size * length >= 640
    assert energies.mean() == pytest.approx(float(curve.observables["energy"].mean[1]), abs=0.05)

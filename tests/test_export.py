import networkx as nx
import numpy as np
import pytest

import thermodbm
from thermodbm.errors import InputError
from thermodbm.models import heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.run.tables import as_csv

MAGNET = heisenberg(make_lattice("chain", 4))


@pytest.fixture(scope="module")
def curve():
    return thermodbm.thermal_curve(MAGNET, T=[0.5, 1.0], method="typical", progress=False, observables={"own": lambda s: s[:, :2]})


def test_netcdf_and_back(curve, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    curve.to_xarray().to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "c.nc", engine="h5netcdf") as dataset:
        assert dataset["energy"].attrs["units"] == "J" and dataset["susceptibility"].attrs["units"] == "1/J"
        assert dataset["correlation_zz"].dims == ("temperature", "site") and dataset["distance"].values.tolist() == [0, 1, 2, 1]
        assert dataset["structure_factor_zz"].dims == ("temperature", "wavevector") and dataset["momentum"].shape == (4, 1)
        back = thermodbm.ThermalCurve.from_xarray(dataset)
    assert (back.config, back.method, back.seed, back.finished) == (curve.config, curve.method, curve.seed, curve.finished)
    assert set(back.observables) == set(curve.observables) and set(back.diagnostics) == set(curve.diagnostics)
    for name, estimate in curve.observables.items():
        np.testing.assert_array_equal(back.observables[name].mean, estimate.mean)
        np.testing.assert_array_equal(back.observables[name].error, estimate.error)
    assert back.table() == curve.table()


def test_another_dataset_is_refused():
    xarray = pytest.importorskip("xarray")
    with pytest.raises(InputError, match="to_xarray"):
        thermodbm.ThermalCurve.from_xarray(xarray.Dataset({"x": ("t", [1.0])}))


def test_pandas_holds_the_columns_of_csv(curve):
    pytest.importorskip("pandas")
    frame = curve.to_pandas()
    assert [frame.index.name, *frame.columns] == as_csv(curve).splitlines()[0].split(",")
    assert frame.loc[0.5, "energy"] == curve.energy.mean[0] and "own" not in frame
    assert list(frame.columns[:5]) == ["beta", "energy", "energy_error", "specific_heat", "specific_heat_error"]


def test_magnets_from_graphs():
    edges = nx.Graph([("a", "b", {"J": -0.5}), ("b", "c")])
    magnet = thermodbm.magnet_from_graph(edges, "tfim", gamma=0.3)
    expected = transverse_field_ising(thermodbm.graph(3, [(0, 1), (1, 2)]), [-0.5, 1.0], 0.3)
    assert magnet.bonds.tolist() == expected.bonds.tolist() and magnet.zz.tolist() == expected.zz.tolist()
    with pytest.raises(InputError, match="heisenberg"):
        thermodbm.magnet_from_graph(edges, "potts")


def test_magnets_from_tables(tmp_path):
    (tmp_path / "b.csv").write_text("i, j, J, Jz\n0, 1, 1.0, 0.5\n2, 1, -2.0,\n")
    magnet = thermodbm.magnet_from_csv(tmp_path / "b.csv", h=0.1)
    expected = xxz(thermodbm.graph(3, [(0, 1), (1, 2)]), [1.0, -2.0], [0.5, 1.0], 0.1)
    for name in ("zz", "xy", "z_field"):
        np.testing.assert_allclose(getattr(magnet, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("i,j\n0,1\n", "columns i, j, J"),
        ("i,j,J\n0,x,1\n", "line 2"),
        ("i,j,J\n0,1,1\n1,0,2\n", "line 3"),
        ("i,j,J,Jz\n0,1,0,1\n", "other than 0"),
        ("i,j,J\n-1,1,0\n", "sites from 0"),
    ],
)
def test_what_is_no_table_of_bonds_is_refused(text, words, tmp_path):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        thermodbm.magnet_from_csv(tmp_path / "b.csv")


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="readable table"):
        thermodbm.magnet_from_csv(tmp_path / "none.csv")

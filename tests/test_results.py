"""Curves survive the disk unchanged, and nothing on disk can bring the reader down."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from thermodbm import InputError, ThermalCurve
from thermodbm.estimate.statistics import Estimate, exact
from thermodbm.estimate.trust import Doubt
from thermodbm.evolve.method import Point
from thermodbm.models.observables import OBSERVABLES
from thermodbm.run import output
from thermodbm.run.collect import collect
from thermodbm.run.config import parse_config
from thermodbm.run.output import check_output
from thermodbm.run.shorthand import shorthand
from thermodbm.run.tables import as_text

TEXT = parse_config({"lattice": {"kind": "chain", "extent": [4]}, "model": {"kind": "tfim"}, "temperature": {"T": [1.0, 0.5, 2.0]}}).text


def point(value, n_steps=2):
    return Point(
        observables={
            "energy": Estimate(np.array(value), np.array(0.01), np.array(0.7), np.array(1.001), np.array(900.0)),
            "correlation_zz": Estimate(value * np.arange(4.0), np.full(4, 0.02)),
        },
        diagnostics={"n_slices": 8 * value, "residual": np.full(n_steps, value)},
        network={"W": np.full((2, n_steps), value + 1j)},
    )


ALL = (point(1.0), point(2.0, 3), point(3.0))


def curve(points=ALL, **changes):
    values = {"finished": None not in points, "seed": 3, "wall_time": 1.5, **collect(points), **changes}
    T = np.array([1.0, 0.5, 2.0])
    return ThermalCurve(temperature=T, beta=1 / T, method="deterministic", config=TEXT, **values)


def test_a_curve_comes_back_from_disk_unchanged(tmp_path):
    original = curve()
    original.save(tmp_path / "new" / "c.h5")
    again = ThermalCurve.load(tmp_path / "new" / "c.h5")
    assert list(again.observables) == list(original.observables)
    for name, estimate in original.observables.items():
        for mine, theirs in zip(estimate, again.observables[name], strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, theirs)
    for name, values in original.diagnostics.items():
        np.testing.assert_array_equal(again.diagnostics[name], values)
    for mine, theirs in zip(original.network, again.network, strict=True):
        np.testing.assert_array_equal(mine["W"], theirs["W"])
    for name in ("method", "config", "seed", "finished", "wall_time"):
        assert getattr(again, name) == getattr(original, name)
    assert again.hamiltonian.n_sites == 4


def test_the_file_has_the_layout_of_the_contract(tmp_path):
    curve().save(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as file:
        wanted = {"format_version", "thermodbm_version", "method", "config", "seed", "finished", "wall_time_s", "error_includes_systematic"}
        assert set(file.attrs) == wanted and file.attrs["finished"] == 1
        assert set(file) == {"temperature", "beta", "observables", "diagnostics", "network"}
        assert file["temperature"].dtype == np.float64
        assert set(file["observables/energy"]) == {"mean", "error", "tau_int", "r_hat", "n_eff"}
        assert file["observables/correlation_zz/mean"].shape == (3, 4)
        assert set(file["observables/correlation_zz"]) == {"mean", "error"}


def test_what_is_not_finished_is_nan(tmp_path):
    curve((point(1.0), None, point(3.0))).save(tmp_path / "c.h5")
    again = ThermalCurve.load(tmp_path / "c.h5")
    assert not again.finished and again.done.tolist() == [True, False, True]
    assert np.isnan(again.correlation_zz.error[1]).all() and again.network[1] == {}
    nothing = curve((None, None, None))
    nothing.save(tmp_path / "n.h5")
    assert not ThermalCurve.load(tmp_path / "n.h5").done.any()
    with pytest.raises(AttributeError, match="no observables yet"):
        _ = nothing.energy
    assert "1 of them" in repr(curve((None, None, point(1.0)))) and "unfinished" in nothing._repr_html_()


def test_ragged_diagnostics_are_padded():
    padded = curve().diagnostics["residual"]
    np.testing.assert_array_equal(padded, [[1, 1, np.nan], [2, 2, 2], [3, 3, np.nan]])


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, broken):
    path = tmp_path / "c.h5"
    curve(seed=1).save(path)

    def fail(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    if broken == "write":
        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda file, mode="r", **keywords: fail() if "w" in mode else opened(file, mode=mode, **keywords))
    elif broken == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        curve(seed=2).save(path, force=True)
    monkeypatch.undo()
    assert ThermalCurve.load(path).seed == 1
    assert os.listdir(tmp_path) == ["c.h5"]


def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path):
    path = tmp_path / "c.h5"
    curve().save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    damaged = [content[: len(content) * k // 20] for k in range(20)]
    for _ in range(100):
        flipped = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            flipped[place] = rng.integers(256)
        damaged.append(bytes(flipped))
    refused = 0
    for trial in damaged:
        path.write_bytes(trial)
        try:
            ThermalCurve.load(path)
        except InputError:
            refused += 1
    assert refused >= 20  # all the truncated ones at least


def _foreign(path, change):
    curve().save(path)
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.attrs.pop("config"),
        lambda f: f.attrs.update(format_version=0),
        lambda f: f.attrs.update(format_version="x"),
        lambda f: f.pop("beta"),
        lambda f: f.pop("observables/energy/error"),
        lambda f: (f.pop("observables/energy/mean"), f.create_dataset("observables/energy/mean", data=[1.0])),
        lambda f: (f.pop("observables/energy/mean"), f.create_dataset("observables/energy/mean", data=["a", "b", "c"])),
        lambda f: (f.pop("observables/energy/mean"), f.create_dataset("observables/energy/mean", (10**9, 10**9), float)),
        lambda f: (f.pop("temperature"), f.create_group("temperature")),
        lambda f: f.create_dataset("observables/energy/surprise", data=[1.0, 2.0, 3.0]),
    ],
)
def test_hdf5_of_another_layout_is_refused(tmp_path, change):
    _foreign(tmp_path / "c.h5", change)
    with pytest.raises(InputError, match="thermodbm result file"):
        ThermalCurve.load(tmp_path / "c.h5")


def test_missing_files_and_directories_are_refused(tmp_path):
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(InputError, match="thermodbm result file"):
            ThermalCurve.load(path)


def read_only(**options):
    raise OSError(30, "Read-only file system")


def test_outputs_that_would_destroy_something_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.h5"
    check_output(path)
    curve().save(path)
    with pytest.raises(InputError, match=r"finished run.*--force"):
        check_output(path)
    check_output(path, force=True)
    curve((point(1.0), None, None)).save(path, force=True)
    with pytest.raises(InputError, match=r"unfinished run.*resume"):
        check_output(path)
    curve((None, None, None)).save(path, force=True)
    check_output(path)
    path.write_text("my thesis")
    with pytest.raises(InputError, match="no intact result"):
        check_output(path, force=True)
    path.write_bytes(b"")
    check_output(path)
    with pytest.raises(InputError, match="directory"):
        check_output(tmp_path)
    with pytest.raises(InputError, match="can be written"):
        check_output(path / "below_a_file.h5")
    with pytest.raises(InputError, match="name of a file"):
        check_output(tmp_path / ("x" * 5000))
    monkeypatch.setattr(output.tempfile, "TemporaryFile", read_only)
    with pytest.raises(InputError, match=r"can be written.*Read-only"):
        check_output(tmp_path / "new.h5")


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (-1.271441, 2.3e-4, "-1.2714(2)"),
        (0.5, 0.0, "0.5"),
        (np.nan, np.nan, "-"),
        (1.0, np.nan, "1(?)"),
        (1.0, 5e-324, "1"),
        (1.0, -1.0, "1(?)"),
        (12345.0, 678.0, "1.23(7)e+04"),
    ],
)
def test_shorthand(mean, error, text):
    assert shorthand(mean, error) == text


def test_tables_and_xarray():
    table = curve().table()
    assert table[0] == ["T", "energy"] and table[1] == ["1", "1.00(1)"]
    dataset = curve().to_xarray()
    assert dataset["energy_error"].sel(temperature=0.5) == 0.01
    assert dataset["correlation_zz"].dims == ("temperature", "site")
    assert dataset["distance"].values.tolist() == [0, 1, 2, 1] and dataset["momentum"].shape == (4, 1)
    assert dataset["n_slices"].dims == ("temperature",) and "<H>/N" in dataset["energy"].attrs["long_name"]
    assert "<td>1.00(1)</td>" in curve()._repr_html_()


def test_save_overwrites_nothing_unless_told(tmp_path):
    (tmp_path / "base.toml").write_text("my config")
    with pytest.raises(InputError, match=r"base\.toml, which exists.*force=True"):
        curve().save(tmp_path / "base.toml")
    assert (tmp_path / "base.toml").read_text() == "my config"
    curve().save(tmp_path / "base.toml", force=True)
    assert ThermalCurve.load(tmp_path / "base.toml").seed == 3


def test_every_observable_of_the_registry_is_an_attribute():
    full = curve(observables={name: exact(np.ones(3)) for name in OBSERVABLES})
    for name, observable in OBSERVABLES.items():
        assert getattr(full, name) is full.observables[name] and getattr(ThermalCurve, name).__doc__ == observable.doc
    with pytest.raises(AttributeError, match="no staggered_structure_factor; it has energy"):
        _ = curve().staggered_structure_factor


def test_a_newer_file_is_told_as_such(tmp_path):
    _foreign(tmp_path / "c.h5", lambda f: f.attrs.update(format_version=99, thermodbm_version="7.0"))
    with pytest.raises(InputError, match=r"c\.h5: format_version.*version 99 \(written by thermodbm 7\.0\)\. Update thermodbm") as caught:
        ThermalCurve.load(tmp_path / "c.h5")
    assert "damaged" not in str(caught.value)


def test_systematic_errors_of_old_files_are_folded_in_and_those_of_new_ones_are_there_already(tmp_path):
    systematic = {"systematic_error": np.array([0.0, 0.024, 0.0])}
    curve(diagnostics=systematic).save(tmp_path / "new.h5")
    np.testing.assert_array_equal(ThermalCurve.load(tmp_path / "new.h5").energy.error, 0.01)
    _foreign(
        tmp_path / "old.h5",
        lambda f: (f.attrs.pop("error_includes_systematic"), f.update({"diagnostics/systematic_error": [0.0, 0.024, 0.0]})),
    )
    old = ThermalCurve.load(tmp_path / "old.h5")
    np.testing.assert_allclose(old.energy.error, [0.01, 0.026, 0.01])
    old.save(tmp_path / "again.h5")
    np.testing.assert_array_equal(ThermalCurve.load(tmp_path / "again.h5").energy.error, old.energy.error)


DOUBTS = {"doubts": np.array([0.0, float(Doubt.SIGN | Doubt.FEW), np.nan]), "trusted": np.array([1.0, 0.0, np.nan])}


def test_doubts_are_said_with_the_temperatures_they_concern():
    doubtful = curve(diagnostics=DOUBTS)
    assert doubtful.doubts == [Doubt.NONE, Doubt.SIGN | Doubt.FEW, Doubt.NONE] and doubtful.trusted.tolist() == [True, False, True]
    first, second = doubtful.warnings()
    assert first.startswith("T = 0.5: The average sign") and second.startswith("T = 0.5: Fewer than")
    assert [row[-1] for row in doubtful.table()] == ["doubts", "-", "sign+few", "-"]
    assert "The average sign" in doubtful._repr_html_() and "The average sign" in as_text(doubtful)
    assert curve(diagnostics={}).warnings() == [] and "doubts" not in curve().table()[0]


def test_files_without_doubts_are_judged_by_their_sign_and_r_hat():
    energy = curve().energy._replace(r_hat=np.array([1.0, np.nan, 1.2]))
    old = curve(observables={"energy": energy}, diagnostics={"trusted": np.array([0.0, 1.0, 1.0])})
    assert old.doubts == [Doubt.SIGN, Doubt.NONE, Doubt.MIXING] and old.trusted.tolist() == [False, True, False]


def test_a_temperature_of_which_nothing_can_be_said_is_finished():
    lost = curve(diagnostics={"wall_time_s": np.array([1.0, 2.0, np.nan])})
    lost.energy.mean[1] = np.nan
    assert lost.done.tolist() == [True, True, False]


@pytest.mark.parametrize(("mean", "error", "text"), [(0.0, 9e-13, "0"), (3e-17, 0.0, "0"), (1e-12, 0.0, "1e-12"), (-np.inf, 0.0, "-inf")])
def test_zeros_by_symmetry_are_zero(mean, error, text):
    assert shorthand(mean, error) == text

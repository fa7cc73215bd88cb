"""Programs are found again by what they are made of, and by nothing less."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from thermodbm import make_lattice, programs
from thermodbm.cli import app
from thermodbm.evolve.chains import _compiled


@pytest.fixture
def cache(tmp_path):
    """JAX's, as it is told to the commands."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


class Facts(NamedTuple):
    lattice: object
    bound: float


def doubled(traced, factor=2):
    def function(x, pair):
        traced.append(x.shape)
        return [factor * x, {"sum": pair[0] + pair[1]}]

    return function


def test_a_program_is_traced_once_for_all_processes(cache):
    traced, x = [], jnp.arange(3.0)

    def in_a_new_process(x, about=("doubled", 1), function=None):
        with programs.kept_beside_jax():
            kept = programs.kept(function or doubled(traced), about, None)
        for _ in range(2):  # the folder is that of the time when it was made
            twice, other = kept(x, (np.float64(1), 2.0))
        assert other["sum"] == 3.0
        return np.asarray(twice)

    assert (in_a_new_process(x) == [0, 2, 4]).all() and len(traced) == 1
    assert (in_a_new_process(x + 1) == [2, 4, 6]).all() and len(traced) == 1
    in_a_new_process(jnp.arange(4.0))
    in_a_new_process(x.astype(jnp.float32))
    in_a_new_process(x, about=("doubled", 2))
    assert len(traced) == 4 and len(list((cache / "programs").iterdir())) == 4
    # what stands in the file is what runs: nothing else tells one function from another
    assert (in_a_new_process(x, function=doubled([], 3)) == [0, 2, 4]).all()


def test_other_code_and_damaged_files_are_not_run(cache, monkeypatch):
    def run(factor):
        with programs.kept_beside_jax():
            return float(programs.kept(doubled([], factor), ("f",), None)(jnp.ones(()), (0.0, 0.0))[0])

    assert run(2) == run(3) == 2
    (file,) = (cache / "programs").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert run(3) == run(4) == 3
    monkeypatch.setattr(programs, "_version", lambda: "another")
    assert run(4) == 4
    assert len(list((cache / "programs").iterdir())) == 2


def calls_back(x):
    return jax.pure_callback(lambda x: np.asarray(2 * x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@pytest.mark.parametrize("folder", [None, "", "a file"])
def test_nothing_is_kept_where_nobody_asks_for_it_or_it_cannot_be(cache, monkeypatch, folder):
    assert programs.kept(doubled([]), ("f",), None)(jnp.ones(()), (1.0, 2.0))[0] == 2
    with programs.kept_beside_jax():
        assert programs.kept(calls_back, ("f",), None)(jnp.ones(())) == 2
    (cache / "a file").write_text("")
    monkeypatch.chdir(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache / folder) if folder == "a file" else folder)
    with programs.kept_beside_jax():
        assert programs.kept(doubled([]), ("f",), None)(jnp.ones(()), (1.0, 2.0))[0] == 2
    assert [path.name for path in cache.iterdir()] == ["a file"]


def test_descriptions_say_everything_or_refuse():
    @dataclass(frozen=True)
    class Table:
        values: object

    ring, other = make_lattice("chain", 4), make_lattice("chain", 4, periodic=False)
    assert programs.text_of(Facts(ring, 0.5)) != programs.text_of(Facts(other, 0.5))
    assert programs.text_of((1, (2, 3))) != programs.text_of((1, 2, 3))
    assert programs.text_of((1,)) != programs.text_of((1.0,)) != programs.text_of(("1.0",))
    for opaque in (np.arange(3), Table(np.arange(3)), {"a": 1}, len):
        with pytest.raises(TypeError, match="cannot be described"):
            programs.text_of((opaque,))


CONFIG = """
[lattice]
kind = "chain"
extent = [6]
[model]
kind = "{model}"
[method]
kind = "deterministic"
sampler = "{sampler}"
[temperature]
T = [1.5]
[sampling]
n_chains = 8
n_samples = 640
[output]
file = "{file}"
"""


@pytest.mark.parametrize(("model", "sampler"), [("tfim", "mixed"), ("heisenberg", "loop"), ("xxz", "series")])
def test_runs_from_kept_programs_are_the_same(cache, tmp_path, model, sampler):
    from thermodbm import ThermalCurve

    found, written = [], []
    for name in ("made", "kept"):
        _compiled.cache_clear()
        (tmp_path / f"{name}.toml").write_text(CONFIG.format(model=model, sampler=sampler, file=tmp_path / f"{name}.h5"))
        done = CliRunner().invoke(app, ["run", str(tmp_path / f"{name}.toml"), "--quiet"])
        assert done.exit_code == 0, done.output
        found.append(ThermalCurve.load(tmp_path / f"{name}.h5"))
        written.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "programs").iterdir()})
    assert written[0] == written[1] and len(written[0]) == (1 if sampler == "series" else 3)
    for one, other in zip(*(curve.observables.values() for curve in found), strict=True):
        assert np.array_equal(one.mean, other.mean) and np.array_equal(one.error, other.error, equal_nan=True)
    _compiled.cache_clear()

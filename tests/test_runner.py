"""The runner: order, keys, what is kept on disk, and how a run can end. A method of one line stands in for the real ones."""

import time

import jax
import numpy as np
import pytest

import thermodbm
from thermodbm import InputError, NumericsError, ThermalCurve, make_lattice, transverse_field_ising
from thermodbm.comm import SERIAL
from thermodbm.estimate.statistics import exact
from thermodbm.evolve.method import Info, Point, ThermalMethod
from thermodbm.exact import exact_curve
from thermodbm.exact.infinite_temperature import infinite_temperature
from thermodbm.run import runner
from thermodbm.run.config import parse_config
from thermodbm.run.progress import Progress, Reporter

TEMPERATURES = [1.0, 0.25, 2.0]
BASE = {
    "lattice": {"kind": "chain", "extent": [4]},
    "model": {"kind": "tfim"},
    "temperature": {"T": TEMPERATURES},
    "sampling": {"seed": 5},
}


def fake(fail_at=None, value=lambda beta: beta, chunks=3, seen=None):
    """Needs `chunks` calls a temperature; the energy is the beta, `draw` shows the key of the last chunk."""

    def advance(key, state, beta):
        if beta == fail_at:
            raise NumericsError("the fake gave up")
        done = state["done"] + 1
        draw = float(jax.random.uniform(key))
        if seen is not None:
            seen.append((beta, draw))
        point = Point({"energy": exact(value(beta))}, {"draw": draw}, {}) if done % chunks == 0 else None
        return {"done": done}, Info((done - 1) % chunks / chunks, "fake", point)

    def summarize(points, betas):
        assert (np.diff(betas) > 0).all()
        return [p._replace(observables={**p.observables, "known": exact(float(len(points)))}) for p in points]

    return ThermalMethod(init=lambda key: {"done": 0}, advance=advance, summarize=summarize)


@pytest.fixture
def use(monkeypatch):
    return lambda method: monkeypatch.setattr(runner, "make_method", lambda *arguments: method)


def config(output=None):
    return parse_config({**BASE, **({"output": {"file": str(output)}} if output else {})})


def test_temperatures_are_visited_from_hot_to_cold_and_returned_as_asked(use):
    seen = []
    use(fake(seen=seen))
    curve = runner.run(config())
    assert [beta for beta, _ in seen] == [0.5] * 3 + [1.0] * 3 + [4.0] * 3
    np.testing.assert_array_equal(curve.energy.mean, [1.0, 4.0, 0.5])
    assert curve.finished and curve.done.all() and curve.method == "deterministic"
    assert (curve.diagnostics["wall_time_s"] >= 0).all()


def test_every_chunk_has_its_own_key_and_a_seed_repeats_the_run(use):
    first, second, other = [], [], []
    for seen, seed in ((first, 5), (second, 5), (other, 6)):
        use(fake(seen=seen))
        runner.run(parse_config({**BASE, "sampling": {"seed": seed}}))
    assert len({draw for _, draw in first}) == 9
    assert first == second and not {draw for _, draw in first} & {draw for _, draw in other}


def test_joint_estimates_see_all_that_is_finished(use, tmp_path):
    use(fake())
    assert (runner.run(config()).observables["known"].mean == 3).all()
    use(fake(fail_at=4.0))
    with pytest.raises(NumericsError):
        runner.run(config(tmp_path / "c.h5"))
    kept = ThermalCurve.load(tmp_path / "c.h5")
    np.testing.assert_array_equal(kept.observables["known"].mean, [2, np.nan, 2])
    assert kept.done.tolist() == [True, False, True] and not kept.finished


@pytest.mark.parametrize("often", [True, False])
def test_the_file_can_be_read_at_any_time(use, tmp_path, monkeypatch, often):
    """It is written after every temperature, or, where temperatures take less time than that would, at the beginning and at the end."""
    use(fake())
    path, counts = tmp_path / "c.h5", []
    monkeypatch.setattr(runner, "WRITING", np.inf if often else 1e-9)

    class Reader(Progress):
        def update(self, info):
            counts.append(int(ThermalCurve.load(path).done.sum()))

    runner.run(config(path), progress=Reader())
    assert counts == ([0] * 3 + [1] * 3 + [2] * 3 if often else [0] * 9)
    assert ThermalCurve.load(path).finished


def test_rank_zero_alone_writes(use, tmp_path):
    use(fake())
    curve = runner.run(config(tmp_path / "c.h5"), SERIAL._replace(rank=1, size=2))
    assert curve.finished and not (tmp_path / "c.h5").exists()


def test_nan_ends_the_run_with_the_rest_kept(use, tmp_path):
    use(fake(value=lambda beta: np.nan if beta == 1.0 else beta))
    with pytest.raises(NumericsError, match=r"T = 1 .*finite"):
        runner.run(config(tmp_path / "c.h5"))
    assert ThermalCurve.load(tmp_path / "c.h5").done.tolist() == [False, False, True]


def test_progress_is_one_line_per_temperature_where_there_is_no_terminal(use, capsys):
    import ipykernel.zmqshell  # noqa: F401  modules of a notebook make none

    use(fake())
    runner.run(config(), progress=Reporter(3))
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert out == "" and len(lines) == 3
    assert lines[0].startswith("[1/3] T = 2  energy 0.5  ") and lines[2].startswith("[3/3] T = 0.25  energy 4  ")


def test_progress_without_a_terminal_speaks_now_and_then_even_while_a_method_compiles(use, capsys):
    def advance(key, state, beta):
        time.sleep(0.5)
        return state, Info(1.0, "", Point({"energy": exact(beta)}, {}, {}))

    use(ThermalMethod(lambda key: {}, advance))
    with Reporter(3, every=0.1) as reporter:
        runner.run(config(), progress=reporter)
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(line.startswith("[1/3] T = 2  0%  ") and line.endswith("s gone  starting") for line in lines)
    assert sum("energy" in line for line in lines) == 3
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("extra", [[np.inf], []])
def test_infinite_temperature_is_put_in_and_no_method_sees_it(use, extra, tmp_path):
    seen = []
    use(fake(seen=seen))
    tables = {**BASE, "temperature": {"T": [1.0, *extra, 2.0]}, "output": {"file": str(tmp_path / "c.h5")}}
    curve = runner.run(parse_config(tables))
    assert [beta for beta, _ in seen] == [0.5] * 3 + [1.0] * 3 and curve.finished and curve.done.all()
    again = ThermalCurve.load(tmp_path / "c.h5")
    np.testing.assert_array_equal(again.energy.mean, [1.0, *([0.0] if extra else []), 0.5])
    assert (again.observables["known"].mean[[0, -1]] == 2).all()  # it is no part of joint estimates
    assert set(again.observables) == {"energy", "known"}  # nor says it what the method does not measure


def test_infinite_temperature_alone(use, tmp_path):
    use(fake())
    curve = runner.run(parse_config({**BASE, "temperature": {"beta": [0.0]}, "output": {"file": str(tmp_path / "c.h5")}}))
    assert curve.finished and ThermalCurve.load(tmp_path / "c.h5").finished
    assert curve.energy.mean == 0 and curve.entropy.mean == np.log(2) and curve.free_energy.mean == -np.inf
    np.testing.assert_array_equal(curve.correlation_zz.mean, [[1, 0, 0, 0]])


CHAIN = transverse_field_ising(make_lattice("chain", 4))


def test_thermal_curve_from_python_matches_the_exact_limits(tmp_path):
    curve = thermodbm.thermal_curve(CHAIN, T=[1e-2, 1e4], method="exact", progress=False, output=tmp_path / "c.h5")
    # the two lowest of the 16 levels from the free fermions of the ring: e_0 = -(1/N) sum_k sin(k/2), k = (2 m + 1) pi / N, times 2 / 2
    ground = -2 * np.sin((2 * np.arange(4) + 1) * np.pi / 8).sum() / 4
    np.testing.assert_allclose(curve.energy.mean, [ground, -2e-4], rtol=1e-3)
    np.testing.assert_allclose(curve.entropy.mean, [0, np.log(2)], atol=1e-6)
    assert ThermalCurve.load(tmp_path / "c.h5").hamiltonian.n_sites == 4
    with pytest.raises(InputError, match="force"):
        thermodbm.thermal_curve(CHAIN, T=1.0, method="exact", output=tmp_path / "c.h5")


def test_thermal_curve_takes_ranges_options_and_dicts():
    grid = {"start": 1.0, "stop": 4.0, "num": 3}
    curves = [
        thermodbm.thermal_curve(CHAIN, beta=grid, method=method, sampling=sampling, progress=False)
        for method, sampling in (
            ("exact", None),
            ({"kind": "exact"}, {"seed": 2}),
            (thermodbm.ExactOptions(), thermodbm.SamplingOptions(seed=2)),
        )
    ]
    for curve in curves:
        np.testing.assert_allclose(curve.beta, [1, 2, 4])
        np.testing.assert_array_equal(curve.energy.mean, curves[0].energy.mean)
    assert [curve.seed for curve in curves] == [1, 2, 2]


def test_what_is_no_hamiltonian_is_told(monkeypatch):
    for wrong, text in ((make_lattice("chain", 4), "transverse_field_ising, xxz"), (3, "heisenberg")):
        with pytest.raises(InputError, match="hamiltonian: expected a SpinHamiltonian") as caught:
            thermodbm.thermal_curve(wrong, T=1.0, progress=False)
        assert text in str(caught.value)
    for make in (transverse_field_ising, thermodbm.heisenberg, thermodbm.xxz, thermodbm.j1j2):
        with pytest.raises(InputError, match="lattice: expected a Lattice, such as make_lattice"):
            make("chain")

    def energy(J):
        return thermodbm.thermal_curve(transverse_field_ising(make_lattice("chain", 4), J=J), T=1.0, method="exact").energy.mean[0]

    with pytest.raises(InputError, match="traced by jax"):
        jax.grad(energy)(1.0)


def test_parameters_come_with_or_without_their_outer_name(monkeypatch):
    given = []
    monkeypatch.setattr(
        "thermodbm.evolve.variational.variational_method", lambda *arguments, module, params: given.append(params) or fake()
    )
    for params in ({"a": 1}, {"params": {"a": 1}}):
        thermodbm.thermal_curve(CHAIN, T=1.0, method="variational", module="a module", params=params, progress=False)
    assert given == [{"a": 1}] * 2
    with pytest.raises(InputError, match="collections batch_stats"):
        options = {"T": 1.0, "method": "variational", "module": "a module", "progress": False}
        thermodbm.thermal_curve(CHAIN, params={"params": {}, "batch_stats": {}}, **options)


SMALL = {
    "one site": transverse_field_ising(make_lattice("chain", 1), gamma=0.7, h=0.3),
    "no edges": transverse_field_ising(thermodbm.graph(2, []), gamma=0.7, h=0.3),
    "one site, exchange": thermodbm.heisenberg(make_lattice("chain", 1), h=0.5),
    "no edges, exchange": thermodbm.xxz(thermodbm.graph(2, []), h=0.5),
}


@pytest.mark.parametrize("name", SMALL)
def test_free_spins_are_exact(name):
    """e = -b tanh(b/T) with the field b on each spin, in units of the moment."""
    magnet = SMALL[name]
    b = np.hypot(float(magnet.x_field[0]), float(magnet.z_field[0]))
    curve = thermodbm.thermal_curve(magnet, T=[0.5, np.inf], method="exact", progress=False)
    np.testing.assert_allclose(curve.energy.mean, [-b * np.tanh(b / 0.5), 0], atol=1e-12)
    np.testing.assert_allclose(curve.entropy.mean[1], np.log(2))


@pytest.mark.parametrize(
    "magnet",
    [
        CHAIN,
        thermodbm.xxz(make_lattice("square", (2, 3)), delta=0.4, h=0.2),
        thermodbm.heisenberg(thermodbm.graph(3, [(0, 1), (1, 2), (0, 2)])),
    ],
    ids=lambda h: h.model,
)
def test_infinite_temperature_is_the_limit_of_exact_curves(magnet):
    known = infinite_temperature(magnet)
    hot = exact_curve(magnet, np.array([1e-9]))
    assert set(hot) == set(known) - {"specific_heat_direct"}
    for name, values in hot.items():
        if name != "free_energy":
            np.testing.assert_allclose(values[0], known[name], atol=1e-8, err_msg=name)
    assert hot["free_energy"][0] * 1e-9 == pytest.approx(-np.log(2))
    zero = exact_curve(magnet, np.array([0.0, 1.0]))
    assert all((zero[name][0] == known[name]).all() for name in zero)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({}, "temperature"),
        ({"T": [1.0], "beta": [1.0]}, "temperature"),
        ({"T": "warm"}, "temperature.T[0]"),
        ({"T": -1.0}, "temperature.T[0]"),
        ({"T": 1.0, "method": "magic"}, "method.kind"),
        ({"T": 1.0, "method": 3}, "method"),
        ({"T": 1.0, "method": thermodbm.DeterministicOptions(d_tau=-0.1)}, "method.d_tau"),
        ({"T": 1.0, "sampling": {"seeds": 1}}, "sampling.seeds"),
        ({"T": 1.0, "sampling": thermodbm.SamplingOptions(n_chains=0)}, "sampling.n_chains"),
    ],
)
def test_bad_arguments_are_named_as_in_a_config(arguments, where):
    with pytest.raises(InputError) as caught:
        thermodbm.thermal_curve(CHAIN, progress=False, **arguments)
    assert caught.value.where == where


def test_an_ansatz_of_ones_own_reaches_the_variational_method(monkeypatch):
    given = {}

    def variational(hamiltonian, options, sampling, **own):
        given.update(own, alpha=options.alpha)
        return fake()

    monkeypatch.setattr("thermodbm.evolve.variational.variational_method", variational)
    options = thermodbm.VariationalOptions(alpha=2)
    curve = thermodbm.thermal_curve(CHAIN, T=1.0, method=options, module="a module", params={"a": 1}, progress=False)
    assert curve.method == "variational" and given == {"module": "a module", "params": {"a": 1}, "alpha": 2}
    with pytest.raises(InputError, match="module: expected the variational method"):
        thermodbm.thermal_curve(CHAIN, T=1.0, module="a module", params={})

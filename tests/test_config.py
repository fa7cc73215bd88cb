"""A config is either resolved completely or refused with the key, what was expected and what was found."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thermodbm import InputError, SamplingOptions, graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.evolve.deterministic import default_d_tau, slices
from thermodbm.run.config import load_config, parse_config
from thermodbm.run.cost import check_machine, describe_cost, deterministic_cost
from thermodbm.run.describe import describe
from thermodbm.run.sections import MAX_SITES
from thermodbm.sampling.loop_labels import plaquette_ring

CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.toml"))

BASE = {"lattice": {"kind": "chain", "extent": [8]}, "model": {"kind": "tfim"}, "temperature": {"T": [0.5, 1.0]}}
GRAPH = {"lattice": {"kind": "graph", "n_sites": 3, "edges": [[0, 1], [1, 2]]}}
MAGNET = {"model": {"kind": "heisenberg"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_in_the_tree_is_valid(path):
    config = load_config(path)
    assert config.output is not None and len(config.betas) > 0


def test_every_config_has_been_found():
    assert {"quickstart", "tfim_chain64", "tfim_square16", "tfim_random_bonds"} <= {p.stem for p in CONFIGS}


def test_defaults_are_filled_in_and_the_text_parses_back_to_the_same():
    config = parse_config(BASE)
    assert config.sampling == SamplingOptions()
    resolved = tomllib.loads(config.text)
    assert resolved["model"] == {"kind": "tfim", "J": 1.0, "gamma": 1.0, "h": 0.0}
    assert resolved["method"]["kind"] == "deterministic"
    assert parse_config(resolved).text == config.text


@pytest.mark.parametrize("name", ["T", "beta"])
def test_temperatures_keep_their_order_and_values(name):
    config = parse_config({**BASE, "temperature": {name: [0.3, 2, 0.7]}})
    mine, other = (config.temperatures, config.betas) if name == "T" else (config.betas, config.temperatures)
    assert mine.tolist() == [0.3, 2.0, 0.7]
    np.testing.assert_allclose(mine * other, 1, rtol=1e-15)


def test_ranges():
    logarithmic = parse_config({**BASE, "temperature": {"T": {"start": 0.1, "stop": 10, "num": 3}}})
    np.testing.assert_allclose(logarithmic.temperatures, [0.1, 1, 10])
    linear = parse_config({**BASE, "temperature": {"beta": {"start": 1.0, "stop": 2.0, "num": 3, "spacing": "linear"}}})
    np.testing.assert_allclose(linear.betas, [1, 1.5, 2])


REFUSED = [  # what is changed, the key that is named, what the message holds
    ({"lattice": {"kind": "chain", "extnt": [8]}}, "lattice.extnt", "Did you mean 'extent'"),
    ({"latice": {}}, "latice", "Did you mean 'lattice'"),
    ({"lattice": {"kind": "chian", "extent": [8]}}, "lattice.kind", "'honeycomb'"),
    ({"lattice": {"extent": [8]}}, "lattice.kind", "nothing"),
    ({"lattice": {"kind": "chain"}}, "lattice.extent", "nothing"),
    ({"lattice": {"kind": "chain", "extent": 8}}, "lattice.extent", "Write extent = [8]."),
    ({"lattice": {"kind": "chain", "extent": ["8"]}}, "lattice.extent[0]", "an integer, found '8'"),
    ({"lattice": {"kind": "chain", "extent": [True]}}, "lattice.extent[0]", "an integer, found true"),
    ({"lattice": {"kind": "chain", "extent": [8.0]}}, "lattice.extent[0]", "an integer"),
    ({"lattice": {"kind": "chain", "extent": [-8]}}, "lattice.extent[0]", "at least 1, found -8"),
    ({"lattice": {"kind": "chain", "extent": []}}, "lattice.extent", "1 positive"),
    ({"lattice": {"kind": "chain", "extent": [4, 4]}}, "lattice.extent", "[4, 4]"),
    ({"lattice": {"kind": "chain", "extent": [10**9]}}, "lattice.extent[0]", "1000000000"),
    ({"lattice": {"kind": "chain", "extent": [1 << 20_000]}}, "lattice.extent[0]", "bits"),
    ({"lattice": {"kind": "cubic", "extent": [1000, 1000, 1000]}}, "lattice.extent", str(MAX_SITES)),
    ({"lattice": {"kind": "square", "extent": [4, 4], "periodic": [True]}}, "lattice.periodic", "2 flags"),
    ({"lattice": {"kind": "chain", "extent": [4], "periodic": 1}}, "lattice.periodic", "true or false"),
    ({"lattice": {"kind": "chain", "extent": [4], "edges": []}}, "lattice.edges", "kind = graph"),
    ({"lattice": {"kind": "graph", "n_sites": 3, "edges": [[0, 3]]}}, "lattice.edges[0]", "sites from 0 to 2, found [0, 3]"),
    ({"lattice": {"kind": "graph", "n_sites": 3, "edges": [[0, -1]]}}, "lattice.edges[0]", "sites from 0 to 2"),
    ({"lattice": {"kind": "graph", "n_sites": 3, "edges": [[0, 1], [1, 0]]}}, "lattice.edges[1]", "each pair once"),
    ({"lattice": {"kind": "graph", "n_sites": 3, "edges": [[1, 1]]}}, "lattice.edges[0]", "different"),
    ({"lattice": {"kind": "graph", "n_sites": 3, "edges": [[1, 1, 2]]}}, "lattice.edges[0]", "two site"),
    ({"lattice": {"kind": "graph", "n_sites": 3, "edges": [[0.0, 1]]}}, "lattice.edges[0][0]", "an integer"),
    ({"lattice": {"kind": "graph", "n_sites": 10**9, "edges": []}}, "lattice.n_sites", "1000000000"),
    ({"lattice": 3}, "lattice", "a table"),
    ({"model": {"kind": "xy"}}, "model.kind", "'tfim'"),
    ({"model": {"kind": "tfim", "J": float("nan")}}, "model.J", "finite"),
    ({"model": {"kind": "tfim", "gamma": float("inf")}}, "model.gamma", "finite"),
    ({"model": {"kind": "tfim", "J": "1"}}, "model.J", "a number or a list or a table, found '1'"),
    ({"model": {"kind": "tfim", "J": True}}, "model.J", "found true"),
    ({"model": {"kind": "tfim", "J": [1.0, 2.0]}}, "model.J", "8 numbers"),
    ({"model": {"kind": "tfim", "J": [1.0] * 7 + ["x"]}}, "model.J[7]", "a number, found 'x'"),
    ({"model": {"kind": "tfim", "J": [1.0] * 7 + [float("nan")]}}, "model.J[7]", "finite"),
    ({**GRAPH, "model": {"kind": "tfim", "J": [1.0, 2.0, 3.0]}}, "model.J", "2 numbers, one per bond"),
    ({**GRAPH, "model": {"kind": "j1j2"}}, "lattice.kind", "graph"),
    ({"model": {"kind": "tfim", "delta": 1.0}}, "model.delta", "kind = xxz"),
    ({"model": {"kind": "heisenberg", "J1": 1.0}}, "model.J1", "J"),
    ({"temperature": {}}, "temperature", "neither"),
    ({"temperature": {"T": [1.0], "beta": [1.0]}}, "temperature", "both"),
    ({"temperature": {"T": []}}, "temperature.T", "at least 1"),
    ({"temperature": {"T": [0]}}, "temperature.T[0]", "above 0"),
    ({"temperature": {"T": [1.0, -2.0]}}, "temperature.T[1]", "found -2.0"),
    ({"temperature": {"beta": [float("nan")]}}, "temperature.beta[0]", "finite"),
    ({"temperature": {"beta": [float("inf")]}}, "temperature.beta[0]", "finite"),
    ({"temperature": {"beta": [-0.5]}}, "temperature.beta[0]", "at least 0"),
    ({"temperature": {"beta": [1e-320]}}, "temperature.beta", "inverse"),
    ({"temperature": {"beta": [0.0, 1.0, 0.0]}}, "temperature.beta", "0.0 more than once"),
    ({"temperature": {"T": [float("inf"), 1.0, float("inf")]}}, "temperature.T", "inf more than once"),
    ({"temperature": {"T": [float("nan")]}}, "temperature.T[0]", "above 0"),
    ({"temperature": {"T": [1e-320]}}, "temperature.T", "inverse"),
    ({"temperature": {"T": [1.0, 0.5, 1.0]}}, "temperature.T", "1.0 more than once"),
    ({"temperature": {"T": 1.0}}, "temperature.T", "a list or a table"),
    ({"temperature": {"T": 0.5}}, "temperature.T", "Write T = [0.5], or T = { start"),
    ({"temperature": {"beta": 2}}, "temperature.beta", "Write beta = [2]"),
    ({"temperature": {"T": {"start": 1.0, "num": 3}}}, "temperature.T.stop", "nothing"),
    ({"temperature": {"T": {"start": 1.0, "stop": 2.0, "num": 10**9}}}, "temperature.T.num", "1000000000"),
    ({"temperature": {"T": {"start": 1.0, "stop": 2.0, "num": 3, "spacing": "cubic"}}}, "temperature.T.spacing", "'linear'"),
    ({"temperature": {"T": {"start": 0.0, "stop": 2.0, "num": 3}}}, "temperature.T.start", "above 0"),
    ({"method": {"kind": "magic"}}, "method.kind", "'exact'"),
    ({"method": {"kind": "exact", "d_tau": 0.1}}, "method.d_tau", "kind = deterministic"),
    ({"method": {"d_tau": 0.0}}, "method.d_tau", "above 0"),
    ({"method": {"extrapolate": 1}}, "method.extrapolate", "true or false"),
    ({"method": {"sampler": "loop"}}, "method.sampler", "for model tfim, found loop"),
    ({"method": {"kind": "variational", "ansatz": "pairs"}}, "method.ansatz", "found 8 sites, tfim"),
    ({"method": {"sampler": "lop"}}, "method.sampler", "'column'"),
    ({"method": {"kind": "learned", "sampler": "loop"}}, "method.sampler", "for model tfim, found loop"),
    ({"method": {"kind": "learned", "layers": "many"}}, "method.layers", "'auto' or an integer, found 'many'"),
    ({"method": {"kind": "learned", "layers": 0}}, "method.layers", "'auto' or a number of at least 1"),
    ({"method": {"kind": "learned", "polish": -1}}, "method.polish", "at least 0"),
    ({**MAGNET, "method": {"sampler": "cluster"}}, "method.sampler", "loop for model heisenberg"),
    ({"sampling": {"n_chain": 3}}, "sampling.n_chain", "Did you mean 'n_chains'"),
    ({"sampling": {"n_chains": 10**12}}, "sampling.n_chains", "1000000000000"),
    ({"sampling": {"n_chains": 0}}, "sampling.n_chains", "found 0"),
    ({"sampling": {"seed": -1}}, "sampling.seed", "found -1"),
    ({"sampling": {"target_error": 0.0}}, "sampling.target_error", "above 0"),
    ({"output": {"file": 3}}, "output.file", "a string"),
    ({"output": {"file": ""}}, "output.file", "a name"),
]


@pytest.mark.parametrize(("change", "where", "text"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_input_is_refused_with_key_expectation_and_finding(change, where, text):
    with pytest.raises(InputError) as caught:
        parse_config({**BASE, **change})
    assert caught.value.where == where
    assert text in str(caught.value)
    assert len(str(caught.value)) < 600


def test_deep_nesting_is_refused():
    deep = 1.0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="levels"):
        parse_config({**BASE, "model": {"kind": "tfim", "J": deep}})


@pytest.mark.parametrize("content", ["[lattice", "x = " + "[" * 5000, "a = 1\na = 2", "x = " + "9" * 5000, "\x00", b"\xff\xfe"])
def test_what_is_no_toml_is_refused(tmp_path, content):
    path = tmp_path / "c.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match="valid TOML"):
        load_config(path)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "magnet.toml"
    path.write_text('[lattice]\nkind="chain"\nextent=[8]\n[model]\nkind="tfim"\n[temperature]\nT=[1.0]\n')
    return path


def test_settings_change_keys(file):
    config = load_config(file, ["model.J=0.5", "lattice.extent=[6]", "method.kind=exact", "sampling.seed = 7"])
    assert np.all(config.hamiltonian.zz == -0.5)
    assert config.hamiltonian.n_sites == 6 and config.method_kind == "exact" and config.sampling.seed == 7


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("model.J", "--set"),
        ("=1", "--set"),
        ("model..J=1", "--set"),
        ("model.kind.x=1", "--set"),
        ("model.J=1\nx=2", "model.J"),
        ("x=1", "x"),
    ],
)
def test_bad_settings(file, setting, where):
    with pytest.raises(InputError) as caught:
        load_config(file, [setting])
    assert caught.value.where == where


def test_output_default_config_and_argument(file):
    assert load_config(file).output == file.with_suffix(".h5")  # beside the config, wherever one is
    assert load_config(file, ["output.file=a/b.h5"]).output == Path("a/b.h5")
    assert load_config(file, ["output.file=a/b.h5"], Path("c.h5")).output == Path("c.h5")


def random(n):
    return np.random.default_rng(5).normal(size=n)


SQUARE = make_lattice("square", (3, 4), (True, False))
RING = graph(4, [(0, 1), (2, 1), (3, 2), (0, 3)])


@pytest.mark.parametrize(
    "hamiltonian",
    [
        transverse_field_ising(SQUARE, J=random(len(SQUARE.bonds())), gamma=random(12), h=0.3),
        transverse_field_ising(RING, J=-0.1, gamma=random(4)),
        xxz(RING, J=random(4), delta=-0.7, h=0.2),
        heisenberg(make_lattice("kagome", (2, 2)), J=-0.3, h=random(12)),
        j1j2(SQUARE, J1=0.7, J2=random(len(SQUARE.bonds(2)))),
    ],
    ids=lambda h: f"{h.model}_{h.lattice.kind}",
)
def test_a_hamiltonian_is_rebuilt_from_its_description(hamiltonian):
    config = parse_config({**describe(hamiltonian), "temperature": {"T": [1.0]}})
    again = parse_config(tomllib.loads(config.text)).hamiltonian
    assert again.lattice == hamiltonian.lattice and again.model == hamiltonian.model and again.bond_pairs == hamiltonian.bond_pairs
    for name in ("zz", "xy", "x_field", "z_field"):
        np.testing.assert_allclose(getattr(again, name), getattr(hamiltonian, name), rtol=1e-14)


def test_a_checked_config_cannot_be_changed():
    config = parse_config(BASE)
    with pytest.raises(AttributeError):
        config.method = None
    assert replace(config, output=Path("x")).output == Path("x")


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": {"T": [1e-12]}},
        {"method": {"d_tau": 1e-14}},
        {"sampling": {"n_chains": 10**6}, "lattice": {"kind": "square", "extent": [300, 300]}},
        {"model": {"kind": "tfim", "J": 1e300}},
        {"model": {"kind": "tfim", "J": 1e300, "gamma": 1e300}},
    ],
)
def test_networks_larger_than_memory_are_refused(change):
    with pytest.raises(InputError, match="bytes of memory"):
        check_machine(parse_config({**BASE, **change}))


def test_parsing_never_looks_at_the_machine(monkeypatch):
    """A file written on a large machine is read on a small one."""
    monkeypatch.setattr("thermodbm.run.cost._physical_memory", lambda: 1.0)
    config = parse_config(BASE)
    with pytest.raises(InputError, match="bytes of memory"):
        check_machine(config)


IGNORED = [
    ("variational", "sampling.n_chains", 8, "method.n_walkers"),
    ("variational", "sampling.n_thermal", 10, "Walkers"),
    ("variational", "method.layers", 3, "dbm"),
    ("exact", "sampling.n_chains", 8, "Nothing is sampled"),
    ("exact", "sampling.n_samples", 10, "Nothing is sampled"),
    ("exact", "sampling.target_error", 0.1, "Nothing is sampled"),
]


@pytest.mark.parametrize(("method", "key", "value", "text"), IGNORED, ids=lambda v: str(v))
def test_keys_that_a_method_ignores_are_refused(file, method, key, value, text):
    with pytest.raises(InputError) as caught:
        load_config(file, [f"method.kind={method}", f"{key}={value}"])
    assert caught.value.where == key and text in str(caught.value) and method in str(caught.value)


def test_ignored_keys_are_left_out_of_the_resolved_config_and_their_defaults_are_no_harm(file):
    config = load_config(file, ["method.kind=exact", "sampling.n_chains=64"])
    assert tomllib.loads(config.text)["sampling"] == {"seed": 1}
    old = tomllib.loads(config.text)
    old["sampling"]["n_chains"] = 8  # as an older version may have stored it
    assert parse_config(old).text == config.text


@pytest.mark.parametrize("grid", [{"T": [0.5, float("inf"), 2.0]}, {"beta": [2.0, 0.0, 0.5]}])
def test_infinite_temperature_is_a_temperature(grid):
    config = parse_config({**BASE, "temperature": grid})
    assert config.temperatures.tolist() == [0.5, np.inf, 2.0] and config.betas.tolist() == [2.0, 0.0, 0.5]
    again = parse_config(tomllib.loads(config.text))
    assert again.text == config.text and again.betas.tolist() == [2.0, 0.0, 0.5]


def test_cost_counts_target_error_and_the_sublayers_of_exchange_models():
    finer = parse_config({**BASE, "temperature": {"T": [0.1]}, "sampling": {"target_error": 1e-7}})
    d_tau = default_d_tau(finer.hamiltonian, 1e-7)
    assert d_tau < default_d_tau(finer.hamiltonian)
    cost = deterministic_cost(finer.hamiltonian, finer.method, finer.sampling, finer.betas)
    assert cost.n_slices[0] == slices(10.0, d_tau, True)[0] > slices(10.0, default_d_tau(finer.hamiltonian), True)[0]
    square = parse_config({**BASE, **MAGNET, "lattice": {"kind": "square", "extent": [4, 4]}})
    cost = deterministic_cost(square.hamiltonian, square.method, square.sampling, square.betas)
    cells = [2 * n * 16 * len(plaquette_ring(16, square.hamiltonian.bonds, 2 * n).sites) for n in (8, 4, 2)]
    assert cost.n_slices.tolist() == [8, 8] and cost.n_spins[0] == sum(cells)


def test_cost_is_told_for_every_method():
    ising = " ".join(describe_cost(parse_config(BASE)))
    assert "slices" in ising and "MB" in ising and "of sampling on" in ising
    aimed = " ".join(describe_cost(parse_config({**BASE, "sampling": {"target_error": 1e-3}})))
    assert "every 10 000 samples" in aimed
    summed = " ".join(describe_cost(parse_config({**BASE, "method": {"kind": "variational"}})))
    assert "parameters" in summed and "are summed" in summed and "solver cholesky" in summed and "n_walkers" in summed
    walked = " ".join(describe_cost(parse_config({**BASE, "method": {"kind": "variational", "enumerate": False, "n_walkers": 77}})))
    assert "77 walkers, 64 attempted moves" in walked and "solver minsr" in walked
    known = " ".join(describe_cost(parse_config({**BASE, "temperature": {"beta": [0.0]}})))
    assert "known, not sampled" in known


def test_cost_counts_the_slices_that_the_method_sets_up():
    config = parse_config({**BASE, "method": {"d_tau": 0.05, "extrapolate": False}, "temperature": {"beta": [0.01, 1.6, 1.61]}})
    cost = deterministic_cost(config.hamiltonian, config.method, config.sampling, config.betas)
    assert cost.n_slices.tolist() == [8, 16, 32] and cost.n_spins.tolist() == [128, 256, 512]
    check_machine(config, available=1e9)
    with pytest.raises(InputError, match="32 slices"):
        check_machine(config, available=1e3)

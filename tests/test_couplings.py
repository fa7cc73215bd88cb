"""Couplings by groups of bonds: from Python, configs and tables of bonds, in derivatives, fits, drawings and files."""

import networkx as nx
import numpy as np
import pytest

import thermodbm as tb
from thermodbm import graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.drawing import draw_hamiltonian, draw_lattice
from thermodbm.errors import InputError
from thermodbm.exact import exact_curve
from thermodbm.exact.response import response_solver
from thermodbm.models import j1j2
from thermodbm.models.bonds import magnet_from_csv, magnet_from_graph
from thermodbm.models.parameters import parameters
from thermodbm.run.config import load_config, parse_config
from thermodbm.run.describe import describe

LADDER, DIMERS = make_lattice("ladder", 4), make_lattice("dimer_chain", 3)
TRIANGLE = graph(4, [(0, 1, "short"), (1, 2, "short"), (2, 0, "long"), (2, 3, "long")])
BETAS, STEP = np.array([0.4, 2.0]), 1e-3
ANGLES = {"square": {"x": 0, "y": 90}, "ladder": {"leg": 0, "rung": 90}}
ANGLES |= {kind: {"a": 0, "b": 60, "c": 120} for kind in ("triangular", "honeycomb", "kagome")}


@pytest.mark.parametrize(
    "lattice",
    [
        make_lattice("square", (2, 3)),
        make_lattice("triangular", (3, 4)),
        make_lattice("honeycomb", (2, 3)),
        make_lattice("kagome", (2, 2)),
        LADDER,
    ],
    ids=lambda lattice: lattice.kind,
)
def test_groups_are_directions(lattice):
    """Of open bonds, whose direction is that between their ends; translations carry every bond to one of its group."""
    opened = make_lattice(lattice.kind, lattice.size, periodic=False)
    for (i, j), number in zip(opened.bonds(), opened.bond_groups, strict=True):
        x, y = opened.positions[j] - opened.positions[i]
        assert round(np.degrees(np.arctan2(y, x))) % 180 == ANGLES[lattice.kind][opened.groups[number]]
    group = {tuple(bond): number for bond, number in zip(lattice.bonds().tolist(), lattice.bond_groups, strict=True)}
    for shift in lattice.translations:
        moved = np.sort(shift[lattice.bonds()], axis=1).tolist()
        np.testing.assert_array_equal([group[tuple(bond)] for bond in moved], lattice.bond_groups)


def test_a_cubic_lattice_and_a_chain_have_their_axes():
    lattice = make_lattice("cubic", (2, 3, 3))
    axis = [np.flatnonzero(lattice.cells[i] != lattice.cells[j]).item() for i, j in lattice.bonds()]
    np.testing.assert_array_equal(lattice.bond_groups, axis)
    assert lattice.groups == ("x", "y", "z") and make_lattice("chain", 4).groups == ("leg",)


@pytest.mark.parametrize("field", [0.0, 0.3])
def test_a_ladder_is_two_legs_and_rungs(field):
    """All that is known of it, against the same magnet as a graph without any symmetry."""
    rungs = [(2 * x, 2 * x + 1, 0.4) for x in range(4)]
    legs = [(2 * x + leg, (2 * x + 2 + leg) % 8, -1.1) for x in range(4) for leg in (0, 1)]
    bonds = rungs + legs
    plain = heisenberg(graph(8, [bond[:2] for bond in bonds]), J=[bond[2] for bond in bonds], h=field)
    found = exact_curve(heisenberg(LADDER, J={"leg": -1.1, "rung": 0.4}, h=field), BETAS)
    expected = exact_curve(plain, BETAS)
    for name in ("energy", "specific_heat", "entropy", "susceptibility", "magnetization_z", "correlation_zz"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-10, err_msg=name)
    k = found["structure_factor_zz"].reshape(2, 4, 2)  # of both legs in phase and out of phase
    c = expected["correlation_zz"].reshape(2, 4, 2)
    np.testing.assert_allclose(k, np.fft.fft2(c, axes=(1, 2)).real, atol=1e-10)


def test_dimers_alternate():
    """A dimer chain is a chain of bonds that are strong and weak in turn."""
    chain = make_lattice("chain", 6)
    inside = [1.0 if i % 2 == 0 and j == i + 1 else 0.3 for i, j in chain.bonds()]
    found = exact_curve(xxz(DIMERS, J={"intra": 1.0, "inter": 0.3}, delta=0.5), BETAS)
    expected = exact_curve(xxz(chain, J=inside, delta=0.5), BETAS)
    for name in ("energy", "specific_heat", "susceptibility"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-10)


MAGNETS = {
    "ladder": (heisenberg, LADDER, {"J": {"leg": 1.0, "rung": -0.6}}),
    "frustrated ladder in a field": (j1j2, make_lattice("ladder", 3), {"J1": {"leg": 1.0, "rung": 0.6}, "J2": 0.3, "h": 0.2}),
    "dimers": (xxz, DIMERS, {"J": {"intra": 1.0, "inter": 0.4}, "delta": {"intra": 0.5, "inter": -0.3}}),
    "Ising square": (transverse_field_ising, make_lattice("square", (4, 2)), {"J": {"x": 1.0, "y": -0.5}, "gamma": 0.8, "h": 0.1}),
    "graph": (transverse_field_ising, TRIANGLE, {"J": {"short": 0.7, "long": -1.0}, "gamma": 0.6}),
}


@pytest.mark.parametrize("name", MAGNETS)
def test_derivatives_in_groups_of_bonds(name):
    make, lattice, couplings = MAGNETS[name]
    magnet = make(lattice, **couplings)
    grouped = {f"{c}.{g}": (c, g) for c, v in couplings.items() if isinstance(v, dict) for g in v}
    found = response_solver(magnet, parameters(magnet, [*grouped, *couplings]))(BETAS)
    for p, (c, g) in grouped.items():
        a, b, d, e = (
            exact_curve(make(lattice, **{**couplings, c: {**couplings[c], g: couplings[c][g] + k * STEP}}), BETAS) for k in (-2, -1, 1, 2)
        )
        for observable in found:
            difference = (a[observable] - 8 * b[observable] + 8 * d[observable] - e[observable]) / (12 * STEP)
            np.testing.assert_allclose(found[observable][p], difference, rtol=1e-6, atol=2e-7, err_msg=f"{observable}/{p}")
    for c in {c for c, _ in grouped.values()}:
        parts = [f"{c}.{g}" for g in couplings[c]]
        np.testing.assert_allclose(sum(found["energy"][p] for p in parts), found["energy"][c], atol=1e-10)


def test_sampled_derivatives_in_groups_of_bonds():
    """Within 4.5 error bars of the exact ones, each; legs and rungs of both signs."""
    magnet, names, T = heisenberg(LADDER, J={"leg": 1.0, "rung": -0.6}), ["J.leg", "J.rung"], [0.7, 2.0]
    exact = tb.response(magnet, T=T, method="exact", parameters=names, progress=False)
    found = tb.response(magnet, T=T, parameters=names, sampling={"n_samples": 8000, "n_chains": 32, "seed": 5}, progress=False)
    for observable in ("free_energy", "energy", "specific_heat", "susceptibility"):
        for p in names:
            estimate = found[observable][p]
            pulls = np.abs(estimate.mean - exact[observable][p].mean) / estimate.error
            np.testing.assert_array_less(pulls, 4.5, err_msg=f"{observable}/{p}")
            assert np.all(estimate.error < 0.5)


@pytest.mark.parametrize("name", MAGNETS)
def test_a_config_gives_the_magnet_again_with_its_names(name):
    make, lattice, couplings = MAGNETS[name]
    magnet = make(lattice, **couplings)
    tables = describe(magnet)
    for coupling, value in couplings.items():
        assert tables["model"][coupling] == value
    config = parse_config({**tables, "temperature": {"T": [1.0]}, "method": {"kind": "exact"}})
    assert config.hamiltonian.lattice == lattice
    for leaf in ("zz", "xy", "x_field", "z_field"):
        np.testing.assert_allclose(getattr(config.hamiltonian, leaf), getattr(magnet, leaf), rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: heisenberg(LADDER, J={"leg": 1.0}),
            "model.J: expected a number for each group of bonds of a ladder: leg, rung, found no rung",
        ),
        (lambda: heisenberg(LADDER, J={"leg": 1.0, "rung": 1.0, "step": 2.0}), "unknown step"),
        (lambda: heisenberg(LADDER, J={"leg": 1.0, "rung": np.nan}), "model.J.rung: expected finite"),
        (lambda: heisenberg(graph(2, [(0, 1)]), J={"a": 1.0}), "the edges have no groups"),
        (lambda: j1j2(LADDER, J2={"leg": 1.0}), "nearest neighbours"),
        (lambda: heisenberg(LADDER, h={"leg": 1.0}), "one per site"),
        (lambda: graph(3, [(0, 1, "a"), (1, 2)]), "on all edges or on none"),
        (lambda: graph(3, [(0, 1, "each")]), "name of a group"),
        (lambda: graph(3, [(0, 1, "a/b")]), "name of a group"),
        (lambda: parameters(heisenberg(LADDER), ["J.step"]), "one of J, h, beta, J.leg, J.rung"),
        (lambda: parameters(j1j2(LADDER), ["J2.leg"]), "one of J1, J2, h, beta, J1.leg"),
    ],
)
def test_names_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_groups_of_graphs_from_tables(tmp_path):
    (tmp_path / "bonds.csv").write_text("i,j,group\n0,1,short\n1,2,short\n2,0,long\n2,3,long\n")
    magnet = magnet_from_csv(tmp_path / "bonds.csv", J={"short": 1.0, "long": 0.5})
    assert magnet.lattice == TRIANGLE and (4 * magnet.zz).tolist() == [1.0, 1.0, 0.5, 0.5]
    ladder = nx.ladder_graph(3)
    nx.set_edge_attributes(ladder, {e: "rung" if abs(e[0] - e[1]) == 3 else "leg" for e in ladder.edges}, "group")
    assert set(magnet_from_graph(ladder, J={"leg": 1.0, "rung": 2.0}).lattice.groups) == {"leg", "rung"}
    config = tmp_path / "a.toml"
    rest = '[method]\nkind = "exact"\n[temperature]\nT = [1.0]\n'
    config.write_text(
        '[lattice]\nkind = "graph"\nbonds = "bonds.csv"\n[model]\nkind = "heisenberg"\nJ = { short = 1.0, long = 0.5 }\n' + rest
    )
    found = load_config(config)
    assert found.hamiltonian.lattice == TRIANGLE and "bonds" not in found.text
    np.testing.assert_array_equal(found.hamiltonian.zz, magnet.zz)
    (tmp_path / "bonds.csv").write_text("i,j,J,Jz\n0,1,1.0,0.5\n1,2,0.8,\n")
    with pytest.raises(InputError, match="J from bonds\\.csv or from the config, found both"):
        load_config(config)
    config.write_text('[lattice]\nkind = "graph"\nbonds = "bonds.csv"\n[model]\nkind = "xxz"\n' + rest)
    np.testing.assert_allclose(load_config(config).hamiltonian.zz, [0.125, 0.2])
    with pytest.raises(InputError, match="a column Jz"):
        load_config(config, ['model.kind="heisenberg"'])
    with pytest.raises(InputError, match="either edges or bonds"):
        load_config(config, ["lattice.edges=[[0,1]]"])
    with pytest.raises(InputError, match="none\\.csv"):
        load_config(config, ['lattice.bonds="none.csv"'])


def test_fits_of_legs_and_rungs(tmp_path):
    """Both couplings of a ladder from its susceptibility and specific heat, with J given as one number or by groups."""
    T = np.linspace(0.3, 4.0, 12)
    truth = exact_curve(heisenberg(make_lattice("ladder", 3), J={"leg": 1.0, "rung": 0.4}), 1 / T)
    rows = zip(T, truth["susceptibility"], truth["specific_heat"], strict=True)
    (tmp_path / "a.csv").write_text("temperature,susceptibility,specific_heat\n" + "\n".join(f"{t},{x},{c}" for t, x, c in rows))
    starts = {"J.leg": {"start": 2.0}, "J.rung": {"start": 0.7}}
    tables = {"lattice": {"kind": "ladder", "extent": [3]}, "model": {"kind": "heisenberg"}, "method": {"kind": "exact"}}
    tables["fit"] = {"parameters": starts, "units": {"temperature": "J"}}
    found = tb.fit(tmp_path / "a.csv", tables)
    assert found.converged and found.parameters["J.leg"][0] == pytest.approx(1.0, rel=1e-4)
    assert found.parameters["J.rung"][0] == pytest.approx(0.4, rel=1e-3)
    found.save(tmp_path / "fit.h5")
    loaded = tb.ThermalCurve.load(tmp_path / "fit.h5")
    assert set(loaded.fit["parameters"]) == {"J.leg", "J.rung"}
    np.testing.assert_allclose(loaded.hamiltonian.zz.max() * 4, found.parameters["J.leg"][0])
    tables["model"]["J"] = {"leg": 1.0, "rung": 0.3}
    starts["J"] = {"start": 1.0}
    with pytest.raises(InputError, match="some of J\\.leg, J\\.rung, as J is given by groups"):
        tb.fit(tmp_path / "a.csv", tables)


def test_drawings_name_groups():
    texts = [t.get_text() for t in draw_lattice(LADDER).get_legend().get_texts()]
    assert texts == ["leg", "rung"] and draw_lattice(make_lattice("chain", 4)).get_legend() is None
    ax = draw_hamiltonian(heisenberg(LADDER, J={"leg": 1.0, "rung": -0.5}))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["leg, antiferromagnetic, |J| = 1", "rung, ferromagnetic, |J| = 0.5"]
    assert ax.get_title() == "heisenberg: ladder 4, 8 sites, 12 bonds"

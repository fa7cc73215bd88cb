"""Continuous imaginary time: strings of graphs against diagonalisation, and their loops against what a walk by hand finds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from thermodbm import thermal_curve
from thermodbm.errors import InputError
from thermodbm.estimate.series import series_facts
from thermodbm.exact import exact_curve
from thermodbm.models import SpinHamiltonian, graph, heisenberg, j1j2, make_lattice, transverse_field_ising, xxz
from thermodbm.sampling.cuts import cut_facts, cut_slices, cuts_kernel, cuts_of
from thermodbm.sampling.expansion import expansion_kernel
from thermodbm.sampling.strings import (
    CHUNK,
    DIAGONAL,
    EMPTY,
    HORIZONTAL,
    StringFacts,
    Strings,
    graphs_of,
    n_slots_of,
    resize_strings,
    string_facts,
    string_slices,
)
from thermodbm.sampling.vertices import VertexFacts, vertex_facts, vertex_slices, vertices_kernel, vertices_of, ways

SERIES = {"kind": "deterministic", "sampler": "series"}
CHAIN = make_lattice("chain", 6)


def unequal(seed: int, n_sites: int = 6) -> SpinHamiltonian:
    """A bipartite graph with exchange of both signs that is not frustrated, and every |delta| <= 1."""
    random = np.random.default_rng(seed)
    bonds = [(i, j) for i in range(0, n_sites, 2) for j in range(1, n_sites, 2) if random.random() < 0.8 or j == i + 1]
    turned = random.choice([-1, 1], n_sites)
    magnet = xxz(graph(n_sites, bonds), 1.0, 1.0)
    i, j = magnet.bonds.T
    xy = -turned[i] * turned[j] * random.uniform(0.1, 0.5, len(i))
    zz = np.abs(xy) * random.choice([-1.0, 1.0, random.uniform(-1, 1), 0.0], len(i))
    return dataclasses.replace(magnet, xy=jnp.asarray(xy), zz=jnp.asarray(zz))


def some_strings(magnet: SpinHamiltonian, n_chains: int = 3, n_sweeps: int = 6):
    """States and what the sweeps saw, and the graphs."""
    facts = string_facts(magnet)
    kernel = expansion_kernel(facts, n_slots_of(facts.n_sites, string_slices(magnet, 3.0)))
    graphs, state = graphs_of(facts, magnet, 3.0), kernel.init(jax.random.key(0), n_chains)
    step = jax.jit(kernel.step)
    for k in range(n_sweeps):
        state, info = step(jax.random.key(k), graphs, state)
        yield facts, state, info


def walk_by_hand(facts: StringFacts, state: Strings, chain: int):
    """Slots with a graph: its number, kind, sites, whether spins change, and the spins before it; and the spins behind the last."""
    spins, found = np.array(state.spins[:, chain]), []
    for slot, word in enumerate(np.asarray(state.slots[:, chain])):
        if word == EMPTY:
            continue
        sites, kind, changes = facts.sites[:, word >> 1], facts.kinds[word >> 1], bool(word & 1)
        found.append((slot, kind, sites, changes, spins[sites].copy()))
        spins[sites] = spins[sites][::-1] if kind == DIAGONAL else spins[sites] * (-1 if changes else 1)
    return found, spins


@pytest.mark.parametrize("magnet", [heisenberg(CHAIN), xxz(CHAIN, 1.0, 0.3), unequal(1), heisenberg(CHAIN, -1.0)])
def test_every_string_has_weight(magnet: SpinHamiltonian):
    for facts, state, info in some_strings(magnet):
        for chain in range(state.spins.shape[1]):
            found, last = walk_by_hand(facts, state, chain)
            np.testing.assert_array_equal(last, state.spins[:, chain])
            assert len(found) == info.n_graphs[chain]
            assert sum(changes for *_, changes, _ in found) == info.n_changes[chain]
            for slot, kind, _, changes, spins in found:
                np.testing.assert_array_equal(np.asarray(info.before[slot, :, chain]) & 1, spins < 0)
                assert spins[0] != spins[1] if kind == HORIZONTAL else changes == (spins[0] != spins[1])


@pytest.mark.parametrize("magnet", [heisenberg(CHAIN), xxz(CHAIN, 1.0, 0.3), unequal(2), heisenberg(CHAIN, -1.0)])
def test_loops_are_those_of_the_graphs(magnet: SpinHamiltonian):
    for facts, state, info in some_strings(magnet):
        loops, before, begun = (np.asarray(x) for x in (info.loops, info.before, info.begun))
        for chain in range(state.spins.shape[1]):
            here, n, joints, labelled = list(range(facts.n_sites)), facts.n_sites, [], []
            for slot, kind, (i, j), _, _ in walk_by_hand(facts, state, chain)[0]:
                labelled += zip((here[i], here[j]), before[slot, :, chain] >> 1, strict=True)
                if kind == DIAGONAL:
                    here[i], here[j] = here[j], here[i]
                    continue
                joints.append((here[i], here[j]))
                here[i] = here[j] = n
                labelled.append((n, begun[slot, chain]))
                n += 1
            joints += zip(here, range(facts.n_sites), strict=True)
            labelled += enumerate(loops[0, :, chain])
            pairs = np.array(joints).T
            n_loops, component = connected_components(coo_matrix((np.ones(len(joints)), pairs), (n, n)), directed=False)
            names = {(component[node], label) for node, label in labelled}
            assert len(names) == n_loops == len({label for _, label in names})


def test_chains_and_seeds_are_apart():
    *_, (_, state, info) = some_strings(heisenberg(CHAIN), 4)
    n_chains = state.spins.shape[1]
    np.testing.assert_array_equal(info.loops % n_chains, np.broadcast_to(np.arange(n_chains), info.loops.shape))
    assert not np.array_equal(state.slots[:, 0], state.slots[:, 1])


@pytest.mark.parametrize("seed", range(4))
def test_averages_of_unequal_magnets_are_those_of_diagonalisation(seed: int):
    magnet, T = unequal(seed + 10), np.array([0.25, 0.6, 2.0])
    curve = thermal_curve(magnet, T=T, method=SERIES, sampling={"n_samples": 40_000, "n_chains": 128, "seed": seed}, progress=False)
    exact = exact_curve(magnet, 1 / T)
    assert {"energy", "specific_heat", "susceptibility", "susceptibility_x", "correlation_zz", "entropy"} <= set(curve.observables) & set(
        exact
    )
    for name, estimate in curve.observables.items():
        if name in exact:
            off = np.abs(estimate.mean - exact[name])
            assert np.all(off <= 4.2 * estimate.error + 1e-9), name
    assert np.all(curve.diagnostics["d_tau"] == 0)


FIELDS = xxz(graph(5, [(0, 1), (1, 2), (2, 3), (3, 4)]), [1.0, -0.7, 0.6, -1.2], [0.5, -1.3, 1.8, 0.4], [0.5, -0.9, 0.2, 0.0, 0.7])
BY_LOOPS = {
    "fields": FIELDS,
    "easy axis": xxz(CHAIN, 1.0, 1.7),
    "ferromagnet in a field": heisenberg(make_lattice("square", (2, 3), periodic=False), -1.0, 0.4),
    "frustrated": j1j2(CHAIN, 1.0, 0.4),
}


@pytest.mark.parametrize("name", BY_LOOPS)
def test_averages_by_directed_loops_are_those_of_diagonalisation(name: str):
    magnet, T = BY_LOOPS[name], np.array([0.7, 2.0] if name == "frustrated" else [0.25, 0.6, 2.0])
    assert isinstance(series_facts(magnet), VertexFacts)
    curve = thermal_curve(magnet, T=T, method=SERIES, sampling={"n_samples": 60_000, "n_chains": 128}, progress=False)
    exact = exact_curve(magnet, 1 / T)
    assert {"energy", "specific_heat", "susceptibility", "magnetization_z", "correlation_zz"} <= set(curve.observables) & set(exact)
    for name, estimate in curve.observables.items():
        if name in exact:
            assert np.all(np.abs(estimate.mean - exact[name]) <= 4.2 * estimate.error + 1e-9), name
    assert np.all(curve.observables["energy"].error < 0.02)
    assert np.all(curve.diagnostics["trusted"] == 1)


@pytest.mark.parametrize("name", BY_LOOPS)
def test_strings_of_vertices_have_weight(name: str):
    """After directed loops every vertex conserves the magnetisation, and the string closes on itself."""
    magnet, beta = BY_LOOPS[name], 3.0
    facts = vertex_facts(magnet)
    kernel = vertices_kernel(facts, n_slots_of(magnet.n_sites, vertex_slices(magnet, beta)))
    vertices, state = vertices_of(magnet, beta), kernel.init(jax.random.key(0), 3)
    step, pairs, seen = jax.jit(kernel.step), np.array(facts.bond_pairs), set()
    for k in range(12):
        state, _ = step(jax.random.key(k), vertices, state)
        for chain in range(3):
            spins = np.array(state.spins[:, chain])
            for word in np.asarray(state.slots[:, chain]):
                if word != EMPTY:
                    sites = pairs[word >> 1]
                    assert not word & 1 or spins[sites].sum() == 0
                    spins[sites] *= -1 if word & 1 else 1
                    seen.add((int(spins[sites].sum()), int(word & 1)))
            np.testing.assert_array_equal(spins, state.spins[:, chain])
    assert seen == {(2, 0), (0, 0), (0, 1), (-2, 0)}


@pytest.mark.parametrize("name", BY_LOOPS)
def test_heads_keep_the_balance(name: str):
    """For every vertex and leg: chances are none below 0 or above 1, and what flows to another vertex flows back from it."""
    magnet, beta = BY_LOOPS[name], 0.7
    vertices, n_bonds = vertices_of(magnet, beta), len(magnet.bonds)
    kept = np.asarray(vertices.rate).reshape(n_bonds, 4) / (beta * n_bonds)
    assert np.all(kept >= 0)
    exchange, way = 2 * np.abs(np.asarray(magnet.xy)), ways()
    first, either = (np.asarray(x).reshape(n_bonds, 16, 4) for x in (vertices.first, vertices.either))
    weight = np.zeros((n_bonds, 16))
    for before in range(4):
        weight[:, before | before << 2] = kept[:, before]
    weight[:, 1 | 2 << 2] = weight[:, 2 | 1 << 2] = exchange
    flow: dict[tuple, np.ndarray] = {}
    for state in np.flatnonzero(weight.any(0)):
        for leg in range(4):
            one, both = weight[:, state] * first[:, state, leg], weight[:, state] * either[:, state, leg]
            assert np.all(
                (first[:, state, leg] >= 0) & (first[:, state, leg] <= either[:, state, leg] + 1e-6) & (either <= 1 + 1e-6)[:, state, leg]
            )
            for k, amount in enumerate((one, both - one)):
                flow[state, leg, way[k, state, leg]] = amount
    for (state, leg, out), amount in flow.items():
        np.testing.assert_allclose(amount, flow[state ^ 1 << leg ^ 1 << out, out, leg], atol=1e-6)


RESPONSES = {
    "by graphs": (xxz(CHAIN, 1.0, 0.4), ["J", "delta", "h"]),
    "each bond": (heisenberg(make_lattice("square", (2, 3), periodic=False)), ["J.each", "beta"]),
    "by vertices": (heisenberg(CHAIN, 1.0, 0.8), ["J", "h"]),
    "at the isotropic point": (xxz(CHAIN, 1.0, 1.0), ["delta"]),
    "frustrated": (j1j2(CHAIN, 1.0, 0.3), ["J1", "J2"]),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_derivatives_by_strings_are_those_of_diagonalisation(name: str):
    magnet, names = RESPONSES[name]
    settings = {"T": [0.8, 2.0], "response": names, "progress": False}
    curve = thermal_curve(magnet, method=SERIES, sampling={"n_samples": 100_000, "n_chains": 128}, **settings)
    exact = thermal_curve(magnet, method="exact", **settings)
    for observable in ("energy", "specific_heat", "free_energy", "entropy", "susceptibility"):
        for parameter, found in curve.response[observable].items():
            known = np.asarray(exact.response[observable][parameter].mean)
            assert np.all(np.abs(found.mean - known) <= 4.5 * found.error + 1e-8), (observable, parameter)
            assert np.all(found.error < 0.2)


def test_second_derivatives_by_strings():
    magnet = xxz(CHAIN, 1.0, 0.4, 0.3)
    settings = {"T": [1.0], "response": ["J", "h"], "second": True, "progress": False}
    curve = thermal_curve(magnet, method=SERIES, sampling={"n_samples": 100_000, "n_chains": 128}, **settings)
    exact = thermal_curve(magnet, method="exact", **settings)
    found, known = curve.log_partition_hessian, exact.log_partition_hessian
    assert found.mean.shape == (1, 2, 2)
    assert np.all(np.abs(found.mean - known.mean) < 4.5 * found.error + 1e-8)
    assert np.all(found.error < 0.05)


RANDOM = np.random.default_rng(5)
LADDER = graph(6, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (1, 4)])
ISING = {
    "unequal": transverse_field_ising(LADDER, RANDOM.normal(size=7), RANDOM.normal(size=6)),
    "frustrated": transverse_field_ising(LADDER, -1.0, 0.6),
    "some without field": transverse_field_ising(LADDER, 1.0, [0.5, 0.0, 1.0, -0.8, 0.0, 0.3]),
    "no bonds": transverse_field_ising(LADDER, 0.0, 0.7),
}


@pytest.mark.parametrize("name", ISING)
def test_averages_of_ising_magnets_are_those_of_diagonalisation(name: str):
    magnet, T = ISING[name], np.array([0.4, 1.0, 3.0])
    curve = thermal_curve(magnet, T=T, method=SERIES, sampling={"n_samples": 60_000, "n_chains": 128}, progress=False)
    exact = exact_curve(magnet, 1 / T)
    wanted = {"energy", "specific_heat", "susceptibility", "magnetization_x", "order_parameter_squared", "binder_ratio", "correlation_zz"}
    assert wanted <= set(curve.observables) & set(exact)
    for name, estimate in curve.observables.items():
        if name in wanted:
            assert np.all(np.abs(estimate.mean - exact[name]) <= 4.2 * estimate.error + 1e-6), name
    assert np.all(curve.diagnostics["trusted"] == 1)


@pytest.mark.parametrize("gamma", [0.01, 0.1])
def test_turns_that_were_not_seen_stand_in_the_error(gamma: float):
    """In a weak field nearly no sample has a turn: m_x = 0 is then no exact value."""
    magnet, T = transverse_field_ising(make_lattice("square", (2, 3)), 1.0, gamma), np.array([0.5, 5.0, 20.0])
    found = thermal_curve(magnet, T=T, method=SERIES, sampling={"n_samples": 20_000}, progress=False).observables
    exact = exact_curve(magnet, 1 / T)
    for name in ("magnetization_x", "energy"):
        assert np.all(np.abs(found[name].mean - exact[name]) <= 4 * found[name].error), name


@pytest.mark.parametrize("name", ISING)
def test_strings_of_joins_and_cuts_have_weight(name: str):
    """Joins find the spins that they want, the string closes on itself, and clusters are joined at joins and end at cuts alone."""
    magnet, beta = ISING[name], 2.0
    facts = cut_facts(magnet)
    kernel = cuts_kernel(facts, n_slots_of(magnet.n_sites, cut_slices(magnet, beta)))
    cuts, state, step = cuts_of(facts, magnet, beta), kernel.init(jax.random.key(0), 3), jax.jit(kernel.step)
    for k in range(8):
        state, info = step(jax.random.key(k), cuts, state)
        for chain in range(3):
            spins, n_turns = np.array(state.spins[:, chain]), 0
            cluster, n_labels, joints, labelled = list(range(6)), 6, [], []
            for slot, word in enumerate(np.asarray(state.slots[:, chain])):
                if word == EMPTY:
                    continue
                i, j = facts.sites[:, word >> 1]
                if word >> 1 < len(facts.joins):
                    assert (spins[i] != spins[j]) == bool(cuts.differ[word >> 1])
                    joints.append((cluster[i], cluster[j]))
                else:
                    assert bool(info.ended[slot, chain] & 1) == (spins[i] < 0)
                    labelled += [(cluster[i], int(info.ended[slot, chain]) >> 1), (n_labels, int(info.begun[slot, chain]))]
                    spins[i] *= -1 if word & 1 else 1
                    n_turns += word & 1
                    cluster[i], n_labels = n_labels, n_labels + 1
            np.testing.assert_array_equal(spins, state.spins[:, chain])
            assert n_turns == info.n_changes[chain]
            joints += zip(cluster, range(6), strict=True)
            labelled += enumerate(np.asarray(info.clusters[0, :, chain]).tolist())
            n_clusters, component = connected_components(
                coo_matrix((np.ones(len(joints)), np.array(joints).T), (n_labels,) * 2), directed=False
            )
            assert len({(component[node], label) for node, label in labelled}) == n_clusters == len({label for _, label in labelled})


def test_the_number_of_exchanges_of_a_kind_changes_its_parity():
    """Without redrawn graphs a pair of spins 1/2 in the XX chain has e = -.065, not -.1155."""
    magnet = xxz(make_lattice("chain", 2, periodic=False), 1.0, 0.0)
    curve = thermal_curve(magnet, beta=[2.0], method=SERIES, sampling={"n_samples": 20_000, "n_chains": 128}, progress=False)
    energy = curve.observables["energy"]
    assert abs(energy.mean[0] - exact_curve(magnet, np.array([2.0]))["energy"][0]) < 4 * energy.error[0]
    assert energy.error[0] < 3e-3


def test_strings_find_room():
    """Slots in use suffice for the longest string, from the start, and hardly more."""
    magnet, beta = heisenberg(make_lattice("chain", 16)), 16.0
    facts = string_facts(magnet)
    n_slots = n_slots_of(facts.n_sites, string_slices(magnet, beta))
    kernel = expansion_kernel(facts, n_slots)
    graphs, state = graphs_of(facts, magnet, beta), kernel.init(jax.random.key(0), 16)
    step = jax.jit(kernel.step)
    for k in range(40):
        state, info = step(jax.random.key(k), graphs, state)
        assert info.n_graphs.max() < n_slots
    assert 1.05 * info.n_graphs.max() < state.used[0] < 1.6 * info.n_graphs.max()
    assert state.used[0] % CHUNK == 0
    longer, shorter = resize_strings(state, n_slots + CHUNK), resize_strings(state, n_slots - CHUNK)
    np.testing.assert_array_equal(longer.slots[:n_slots], state.slots)
    assert np.all(np.asarray(shorter.slots) == EMPTY)


@pytest.mark.parametrize(
    ("magnet", "settings", "named"),
    [
        (heisenberg(CHAIN, 0.0, 1.0), {}, "exchange that is not zero"),
        (heisenberg(graph(3, [(0, 1)]), 1.0, 0.5), {}, "a bond at every site"),
        (transverse_field_ising(CHAIN, 1.0, 0.0), {}, "transverse field"),
        (transverse_field_ising(CHAIN, h=0.2), {}, "no field along z"),
        (heisenberg(CHAIN), {"d_tau": 0.1}, "d_tau"),
        (heisenberg(CHAIN), {"n_tau": 8}, "n_tau"),
    ],
)
def test_what_strings_cannot_do_is_said(magnet: SpinHamiltonian, settings: dict, named: str):
    with pytest.raises(InputError, match=named):
        thermal_curve(magnet, T=[1.0], method={**SERIES, **settings}, progress=False)
    with pytest.raises(InputError, match="response"):
        thermal_curve(transverse_field_ising(CHAIN), T=[1.0], method=SERIES, response=["J"], progress=False)


def test_observables_of_a_user_and_no_network():
    magnet = heisenberg(make_lattice("chain", 4))
    sampling = {"n_samples": 20_000, "n_chains": 128}
    functions = {"first_bond": lambda spins: 0.25 * spins[:, 0] * spins[:, 1]}
    curve = thermal_curve(magnet, T=[0.5], method=SERIES, sampling=sampling, observables=functions, progress=False)
    found, known = curve.observables["first_bond"], exact_curve(magnet, np.array([2.0]))["correlation_zz"][0, 1]
    assert abs(found.mean[0] - known) < 4 * found.error[0]
    assert not curve.network[0]

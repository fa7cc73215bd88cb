from itertools import product

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from exchange_ring import ring_averages, ring_in_time
from scipy.stats import chi2

from thermodbm.errors import InputError
from thermodbm.estimate.exchange import exchange_ensemble
from thermodbm.estimate.imaginary_time import with_imaginary_time
from thermodbm.estimate.levels import SQUARES
from thermodbm.estimate.statistics import from_chains
from thermodbm.models import SpinHamiltonian, graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.models.rotation import balanced_signs
from thermodbm.network.exchange import gate_elements
from thermodbm.sampling.exchange_facts import exchange_facts, least_violations, regime
from thermodbm.sampling.loop import draw_graphs, loop_kernel, loop_params
from thermodbm.sampling.loop_labels import (
    DIAGONAL,
    FROZEN,
    HORIZONTAL,
    VERTICAL,
    PlaquetteRing,
    label_clusters,
    n_labels,
    plaquette_ring,
)
from thermodbm.sampling.loop_weights import graph_weights
from thermodbm.sampling.worm import directed_loops

RANDOM = np.random.default_rng(11)
CHAIN, TRIANGLE, PAIR = make_lattice("chain", 4), graph(3, [(0, 1), (1, 2), (0, 2)]), graph(2, [(0, 1)])
COMPLETE = graph(4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
MAGNETS = {
    "antiferromagnet": heisenberg(CHAIN),
    "ferromagnet": heisenberg(CHAIN, -1.0),
    "easy plane": xxz(CHAIN, 1.0, 0.3),
    "easy plane, ferromagnetic": xxz(CHAIN, -1.0, 0.4),
    "easy axis": xxz(CHAIN, 1.0, 2.0),
    "easy axis, ferromagnetic": xxz(CHAIN, -1.0, 2.0),
    "Ising": xxz(CHAIN, 0.0, 1.0, RANDOM.normal(size=4)),
    "in a field": heisenberg(CHAIN, 1.0, 0.7),
    "random bonds": xxz(CHAIN, RANDOM.normal(size=4) ** 2 + 0.1, RANDOM.normal(size=4)),
    "random bonds and fields": xxz(CHAIN, 1 + RANDOM.random(4), RANDOM.normal(size=4), RANDOM.normal(size=4)),
    "star with an idle site": heisenberg(graph(5, [(0, 1), (0, 2), (0, 3)]), 1.0, 0.4),
    "frustrated": heisenberg(TRIANGLE),
    "bosons on a triangle": xxz(TRIANGLE, -1.0, -1.0),
    "frustrated, easy axis": xxz(TRIANGLE, 1.0, 2.0),
    "frustrated, random, in a field": xxz(COMPLETE, RANDOM.normal(size=6), RANDOM.normal(size=6), RANDOM.normal(size=4)),
}


def worldlines(h: SpinHamiltonian, ring: PlaquetteRing, beta: float) -> dict[bytes, float]:
    """Weight |w| of every configuration of cells of a small ring, by following all worldlines."""
    delta = beta / ring.n_steps
    n_layers, _, n_pairs = ring.shape
    field = np.asarray(loop_params(h, ring, beta).field)
    even = ring.sites.max() + 1
    found: dict[bytes, float] = {}

    def follow(layer: int, spins: np.ndarray, cells: np.ndarray, weight: float, first: np.ndarray) -> None:
        if layer == n_layers:
            if (spins == first).all():
                found[cells.tobytes()] = found.get(cells.tobytes(), 0.0) + weight
            return
        sub = layer % len(ring.sites)
        cells = cells.copy()
        cells[layer] = spins[ring.sites[sub]]
        weight = weight * np.exp(np.sum(field[sub] * cells[layer]))
        moves = []
        for k in range(n_pairs):
            b, (i, j) = ring.bonds[sub, k], ring.sites[sub, :, k]
            zz, xy = (float(h.zz[b]), float(h.xy[b])) if b >= 0 else (0.0, 0.0)
            a, kept, exchanged = (abs(float(x)) for x in gate_elements(zz, xy, delta * ring.fractions[sub]))
            antiparallel = [(kept, None), (exchanged, (i, j))]
            moves.append([(a, None)] if spins[i] == spins[j] else [m for m in antiparallel if m[0] > 0])
        for choice in product(*moves):
            new = spins.copy()
            for _, swap in choice:
                if swap:
                    new[list(swap)] *= -1
            follow(layer + 1, new, cells, weight * np.prod([w for w, _ in choice]), first)

    for start in product((1, -1), repeat=even):
        spins = np.array(start, np.int8)
        follow(0, spins, np.zeros(ring.shape, np.int8), 1.0, spins)
    return found


ENUMERATED = {
    "pair in a field": (xxz(PAIR, 1.0, 0.4, np.array([0.3, -0.5])), 2, 1.5),
    "random, with a field": (
        xxz(graph(3, [(0, 1), (1, 2)]), RANDOM.normal(size=2), RANDOM.normal(size=2), RANDOM.normal(size=3)), 2, 1.2,
    ),
    "frustrated triangle": (heisenberg(TRIANGLE), 2, 1.6),
    "random triangle": (xxz(TRIANGLE, RANDOM.normal(size=3), 3 * RANDOM.normal(size=3)), 2, 1.0),
    "ring of four": (heisenberg(CHAIN), 2, 2.0),
    "signs agree across two bonds": (xxz(TRIANGLE, [1.0, -1.0, -1.0], [1.0, 1.0, 1.5]), 2, 1.5),
    "ferromagnetic bonds are mixed, too": (xxz(TRIANGLE, -1.0, [1.0, 1.0, -1.0], 0.3), 2, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("name", ENUMERATED)
def test_samples_follow_the_enumerated_weights(name):
    """The last configuration of independent chains."""
    h, n_steps, beta = ENUMERATED[name]
    ring = plaquette_ring(h.n_sites, h.bonds, n_steps)
    kernel, params = loop_kernel(exchange_facts(h), ring), loop_params(h, ring, beta)
    step = jax.jit(lambda key, spins: kernel.step(key, params, spins)[0])
    spins = kernel.init(jax.random.key(1), 40_000)
    for key in jax.random.split(jax.random.key(2), 40):
        spins = step(key, spins)
    assert agreement(worldlines(h, ring, beta), spins) > 1e-4


@pytest.mark.parametrize("name", ["pair in a field", "random, with a field", "ring of four", "ferromagnetic bonds are mixed, too"])
def test_directed_loops_by_themselves_follow_the_enumerated_weights(name):
    h, n_steps, beta = ENUMERATED[name]
    ring = plaquette_ring(h.n_sites, h.bonds, n_steps)
    params = loop_params(h, ring, beta)
    spins = loop_kernel(exchange_facts(h), ring).init(jax.random.key(1), 10_000)
    spins = jax.jit(lambda spins: directed_loops(jax.random.key(2), ring, params, spins, 40))(spins)
    assert agreement(worldlines(h, ring, beta), spins) > 1e-4


def agreement(weights: dict[bytes, float], spins: jax.Array) -> float:
    """The probability of a larger chi-square. Configurations expected less than 20 times are pooled; one without weight is a KeyError."""
    counts: dict[bytes, int] = dict.fromkeys(weights, 0)
    for cells in np.asarray(spins):
        counts[cells.tobytes()] += 1
    observed = np.array([counts[c] for c in weights], float)
    expected = np.array(list(weights.values()))
    expected *= len(spins) / expected.sum()
    rare = expected < 20
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert len(expected) > 5
    return float(chi2.sf(np.sum((observed - expected) ** 2 / expected), len(expected) - 1))


@pytest.mark.parametrize("name", MAGNETS)
def test_estimators_agree_with_the_trotterised_ring(name):
    """Every estimator within 4.5 standard errors, taken from the scatter of independent chains, of dense matrix products."""
    h, n_slices, beta, n_chains, n_sweeps = MAGNETS[name], 2, 1.3, 256, 150
    ensemble = with_imaginary_time(exchange_ensemble(exchange_facts(h), "loop", n_slices), h.lattice, h.moment, 4)
    params = ensemble.weights(h, beta)

    @jax.jit
    def run(key, spins):
        def sweep(spins, key):
            spins, info = ensemble.kernel.step(key, params, spins)
            values = ensemble.measure(params, spins, info) | ensemble.measure_rarely(params, spins, info)
            values["slope"] = values["slope"][:, 0]
            values["energy_score"] = values["energy"] * values["score"]
            sign = values.pop("sign", jnp.ones(n_chains))
            return spins, {"sign": sign} | {k: v * sign.reshape(-1, *[1] * (v.ndim - 1)) for k, v in values.items()}

        return jax.lax.scan(sweep, spins, jax.random.split(key, n_sweeps))

    spins, _ = run(jax.random.key(3), ensemble.kernel.init(jax.random.key(2), n_chains))
    _, values = run(jax.random.key(4), spins)
    chains = {k: np.asarray(v).mean(0) for k, v in values.items()}

    def averages(keep: np.ndarray) -> dict[str, np.ndarray]:
        x = {k: v[keep].mean(0) / chains["sign"][keep].mean() for k, v in chains.items()}
        x["specific_heat"] = beta**2 * (h.n_sites * (x["energy_score"] - x["energy"] * x["score"]) - x["slope"])
        for name, square in SQUARES.items():
            if square in x:
                x[name] = beta * x[square]
        return x

    ring = h, 2 * n_slices, beta / (2 * n_slices)
    exact = ring_averages(*ring) | {name: np.ravel(value) for name, value in ring_in_time(*ring, 4).items()}
    everything, index = averages(np.ones(n_chains, bool)), np.arange(n_chains)
    without = [averages(index % 32 != k) for k in range(32)]
    for observable, value in {**exact, "score": exact["energy"]}.items():
        if observable not in everything:
            continue
        error = np.sqrt(31 * np.var([w[observable] for w in without], axis=0))
        np.testing.assert_array_less(np.abs(everything[observable] - value), 4.5 * error + 1e-9, err_msg=observable)
        assert np.all(error < 0.05)


def random_graphs(ring: PlaquetteRing, spins: np.ndarray, choices: dict[str, tuple[int, ...]]) -> np.ndarray:
    up = spins.reshape(len(spins), -1)[:, ring.up]
    parallel, kept = spins[:, :, 0] == spins[:, :, 1], spins[:, :, 0] == up[:, :, 0]
    draw = {kind: RANDOM.choice(allowed, size=parallel.shape) for kind, allowed in choices.items()}
    return np.where(parallel, draw["a"], np.where(kept, draw["b"], draw["c"])).astype(np.int8)


@pytest.mark.parametrize("frozen", [False, True])
def test_labels_are_the_connected_components(frozen):
    h = xxz(make_lattice("square", (3, 4), (False, True)), 1.0, 0.2)
    ring = plaquette_ring(h.n_sites, h.bonds, 4)
    kernel, params = loop_kernel(exchange_facts(h), ring), loop_params(h, ring, 3.0)
    step, spins = jax.jit(kernel.step), kernel.init(jax.random.key(0), 5)
    for key in jax.random.split(jax.random.key(1), 20):
        spins, _ = step(key, params, spins)
    spins = np.asarray(spins)
    more = (FROZEN,) if frozen else ()
    kinds = {"a": (VERTICAL, DIAGONAL, *more), "b": (VERTICAL, HORIZONTAL, *more), "c": (DIAGONAL, HORIZONTAL, *more)}
    graphs = random_graphs(ring, spins, kinds)
    labels = np.asarray(label_clusters(ring, jnp.asarray(graphs), frozen=frozen))
    cells = np.arange(ring.n_cells).reshape(ring.shape)
    for chain in range(len(spins)):
        joined = nx.Graph()
        joined.add_nodes_from(cells.ravel().tolist())
        for layer, pair in np.ndindex(graphs.shape[1:]):
            lower, upper = cells[layer, :, pair], ring.up[layer, :, pair]
            edges = {
                VERTICAL: [(lower[0], upper[0]), (lower[1], upper[1])],
                HORIZONTAL: [(lower[0], lower[1]), (upper[0], upper[1])],
                DIAGONAL: [(lower[0], upper[1]), (lower[1], upper[0])],
                FROZEN: [(lower[0], lower[1]), (lower[0], upper[0]), (lower[0], upper[1])],
            }[int(graphs[chain, layer, pair])]
            joined.add_edges_from((int(i), int(j)) for i, j in edges)
        found = labels[chain].ravel()
        components = [sorted(component) for component in nx.connected_components(joined)]
        assert all((found[component] == found[component[0]]).all() for component in components)
        assert len(set(found)) == len(components) and found.max() < n_labels(graphs)
        crossing = [component for component in components if component[0] < 2 * ring.shape[2]]
        assert all(found[component[0]] == component[0] + chain * 2 * ring.shape[2] for component in crossing)


def test_what_has_no_weight_is_never_drawn(monkeypatch):
    """Not even by the largest random number: diagonal graphs of an antiferromagnet would have no finite score."""
    h = heisenberg(CHAIN)
    ring = plaquette_ring(h.n_sites, h.bonds, 4)
    spins = loop_kernel(exchange_facts(h), ring).init(jax.random.key(0), 8)
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.full(shape, jnp.iinfo(dtype).max, dtype))
    graphs = draw_graphs(jax.random.key(1), ring, loop_params(h, ring, 1.0), spins, frozen=False)
    assert set(np.unique(graphs)) <= {VERTICAL, HORIZONTAL}


@pytest.mark.parametrize("zz, xy", [(1.0, 1.0), (-1.0, 1.0), (1.5, -1.0), (-1.5, 1.0), (0.2, 1.0)])
def test_mixed_graphs_have_no_negative_weight(zz, xy):
    """Shares of one included; a mixed bond has all three kinds of graphs, and what they leave is frozen."""
    elements = jax.tree.map(jnp.abs, gate_elements(zz, xy, jnp.array([1e-3, 0.1, 1.0])))
    for share in (0.5, 1.0):
        v, h, x = graph_weights(elements, jnp.array(share))
        left = np.array([elements.parallel - v - x, elements.kept - v - h, elements.exchanged - x - h])
        assert (np.array([v, h, x]) >= 0).all() and (left > -1e-12).all()
        assert share == 1 or (np.array([v, h, x]) > 0).all()


def test_other_couplings_of_the_same_structure_are_an_argument():
    """One program serves several magnets, and ln w can be differentiated in their couplings."""
    magnets = [xxz(CHAIN, [1.0, 0.7, 1.2, x], [0.5, -0.3, 0.2, 0.1]) for x in (0.9, 1.4)]
    assert len({exchange_facts(h) for h in magnets}) == 1
    ensemble = exchange_ensemble(exchange_facts(magnets[0]), "loop", 2)

    @jax.jit
    def sweep(key, hamiltonian, spins):
        weights = ensemble.weights(hamiltonian, 1.0)
        spins, info = ensemble.kernel.step(key, weights, spins)
        return spins, ensemble.measure(weights, spins, info)["energy"]

    spins = ensemble.kernel.init(jax.random.key(0), 4)
    energies = [sweep(jax.random.key(1), h, spins)[1] for h in magnets]
    assert sweep._cache_size() == 1 and not np.array_equal(*energies)
    ring = plaquette_ring(4, magnets[0].bonds, 4)
    slopes = jax.grad(lambda h: loop_params(h, ring, 1.0).xy.sum())(magnets[0])
    assert (np.asarray(slopes.xy) > 0).all()


@pytest.mark.parametrize(
    "h, beta", [(heisenberg(make_lattice("square", (5, 2), (True, False))), 5.0), (heisenberg(make_lattice("triangular", (3, 3))), 2.0)]
)
def test_frustrated_magnets_mix(h, beta):
    """Magnetisation and sign forget within some ten sweeps. With every bond mixed, tau_int was 62 and 4 of the sign, 285 and 37 of M^2."""
    ensemble = exchange_ensemble(exchange_facts(h), "loop", 12)
    weights = ensemble.weights(h, beta)

    def sweep(spins: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        spins, info = ensemble.kernel.step(key, weights, spins)
        values = ensemble.measure(weights, spins, info)
        return spins, (values["sign"], values["sign"] * values["magnetization_z_squared"])

    run = jax.jit(lambda key, spins: jax.lax.scan(sweep, spins, jax.random.split(key, 600)))
    spins, _ = run(jax.random.key(2), ensemble.kernel.init(jax.random.key(1), 16))
    _, series = run(jax.random.key(3), spins)
    for values in series:
        found = from_chains(np.asarray(values))
        assert found.tau_int < 12 and found.r_hat < 1.03


def test_a_magnetisation_in_a_field_does_not_freeze():
    """Half way up to saturation, far below the field: loops by themselves turn so rarely that tau_int was 180 sweeps."""
    h = xxz(make_lattice("chain", 16), 1.0, 0.5, 1.0)
    ensemble = exchange_ensemble(exchange_facts(h), "loop", 12)
    weights = ensemble.weights(h, 8.0)

    def sweep(spins: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        spins, info = ensemble.kernel.step(key, weights, spins)
        return spins, ensemble.measure(weights, spins, info)["magnetization_z"]

    run = jax.jit(lambda key, spins: jax.lax.scan(sweep, spins, jax.random.split(key, 150)))
    spins, _ = run(jax.random.key(2), ensemble.kernel.init(jax.random.key(1), 32))
    found = from_chains(np.asarray(run(jax.random.key(3), spins)[1]))
    assert found.tau_int < 10 and found.r_hat < 1.03


def test_new_temperatures_do_not_recompile():
    h = heisenberg(CHAIN)
    ensemble = exchange_ensemble(exchange_facts(h), "loop", 2)
    step = jax.jit(ensemble.kernel.step)
    spins = ensemble.kernel.init(jax.random.key(0), 4)
    for beta in (0.5, 1.0, 2.0):
        spins, _ = step(jax.random.key(1), ensemble.weights(h, beta), spins)
    assert step._cache_size() == 1


def test_resized_state_keeps_the_magnetisation():
    h = heisenberg(CHAIN)
    coarse, fine = exchange_ensemble(exchange_facts(h), "loop", 1), exchange_ensemble(exchange_facts(h), "loop", 3)
    step, spins = jax.jit(coarse.kernel.step), coarse.kernel.init(jax.random.key(0), 8)
    for key in jax.random.split(jax.random.key(1), 5):
        spins, _ = step(key, coarse.weights(h, 1.0), spins)
    resized = fine.resize(spins)
    assert resized.shape == fine.kernel.init(jax.random.key(0), 8).shape
    np.testing.assert_array_equal(resized.sum((2, 3))[:, 0], spins.sum((2, 3))[:, 0])


def test_regimes():
    assert regime(MAGNETS["antiferromagnet"]) == (False, ())
    assert regime(MAGNETS["easy plane"]) == (False, ())
    assert regime(MAGNETS["easy axis"]) == (True, ())
    one_of_three = ((False, False, True), (False, True, False), (True, False, False))
    assert regime(MAGNETS["frustrated"]) == (True, one_of_three)
    assert regime(MAGNETS["bosons on a triangle"]) == (True, one_of_three)


@pytest.mark.parametrize("seed", range(5))
def test_removing_the_mixed_bonds_leaves_balanced_signs(seed):
    """No set of fewer bonds does, where all can be tried."""
    rng = np.random.default_rng(seed)
    bonds = np.array([(i, j) for i in range(6) for j in range(i) if rng.random() < 0.7])
    couplings = rng.choice([-1.0, 1.0], len(bonds))
    signs = np.array(list(product((1, -1), repeat=6)))
    fewest = (couplings * signs[:, bonds[:, 0]] * signs[:, bonds[:, 1]] > 0).sum(1).min()
    choices = np.array(least_violations(6, bonds, couplings))
    assert len(np.unique(choices, axis=0)) == len(choices) > 0
    assert choices.sum(1)[0] == fewest and choices.sum(1).max() <= 1.25 * fewest
    for choice in choices:
        assert balanced_signs(6, bonds, np.where(choice, 0, couplings)) is not None


def test_wrong_model_or_sampler():
    with pytest.raises(InputError, match="loop"):
        exchange_ensemble(exchange_facts(heisenberg(CHAIN)), "column", 2)
    with pytest.raises(InputError, match="loop"):
        exchange_ensemble(exchange_facts(transverse_field_ising(CHAIN)), "loop", 2)

import os
import subprocess
import sys
from itertools import product

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from scipy.stats import chi2

from thermodbm.errors import InputError
from thermodbm.models import graph, heisenberg, make_lattice, transverse_field_ising, xxz
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import symmetry_group
from thermodbm.network.ansatz.trial import trial_state
from thermodbm.sampling.configurations import enumerate_configurations, n_configurations, random_configurations
from thermodbm.sampling.metropolis import (
    hamiltonian_patterns,
    local_ratios,
    log_neighbour_weights,
    metropolis,
    metropolis_moves,
    random_neighbours,
)

IDENTITY = np.arange(3)[None]


class Plain(nn.Module):
    """A user's own module: nothing that the sampler knows how to tabulate."""

    @nn.compact
    def __call__(self, visible):
        hidden = nn.Dense(5, param_dtype=float)(visible.astype(float))
        out = nn.Dense(2, param_dtype=float)(jnp.tanh(hidden))
        return jax.lax.complex(out[..., 0], out[..., 1])


def random_trial(hamiltonian, module=None, seed=0):
    module = module or PurifiedDBM(symmetry_group(hamiltonian), n_filters=2, n_hidden=2, n_deep=1, even=False)
    params = module.init(jax.random.key(seed), np.ones((1, 2 * hamiltonian.n_sites), np.int8))["params"]
    theta, unravel = ravel_pytree(params)
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=theta.size) + (1j * rng.normal(size=theta.size) if jnp.iscomplexobj(theta) else 0)
    theta = jnp.asarray(0.3 * noise)
    return trial_state(module, unravel(theta)), theta


@pytest.mark.parametrize(("own_module", "power"), [(False, 2.0), (True, 2.0), (False, 1.0)])
@pytest.mark.parametrize(
    "hamiltonian",
    [transverse_field_ising(graph(3, [(0, 1), (1, 2)]), J=[1.0, -0.7], h=0.2), xxz(graph(3, [(0, 1), (1, 2)]), J=[1.0, -0.7], delta=0.5)],
    ids=["tfim", "xxz"],
)
def test_histogram_of_walkers_is_the_enumerated_distribution(hamiltonian, own_module, power):
    """4096 independent walkers after 500 moves, chi^2 over all 64 or 20 configurations at a false alarm rate of 1e-4."""
    conserve = hamiltonian.conserves_sz
    trial, theta = random_trial(hamiltonian, Plain() if own_module else None)
    moves = metropolis_moves(hamiltonian, conserve_sz=conserve)
    walkers = random_configurations(jax.random.key(1), 4096, 3)
    walkers, acceptance = jax.jit(lambda k, w: metropolis(k, trial, theta, w, moves, 500, power))(jax.random.key(2), walkers)
    configurations, ones = enumerate_configurations(3, IDENTITY, flip=False, conserve_sz=conserve)
    assert (ones == 1).all() and len(ones) == n_configurations(3, conserve_sz=conserve)
    p = np.exp(power * np.asarray(trial.log_amplitude(theta, configurations)).real)
    expected = 4096 * p / p.sum()
    seen = (np.asarray(walkers)[:, None] == configurations[None]).all(-1).sum(0)
    assert seen.sum() == 4096
    likely = expected > 4
    seen, expected = (np.append(x[likely], x[~likely].sum()) for x in (seen, expected))
    statistic = ((seen - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert statistic < chi2.isf(1e-4, len(expected) - 1)
    assert 0.1 < acceptance < 1


@pytest.mark.parametrize(
    "lattice", [make_lattice("chain", 4), make_lattice("chain", 4, False), graph(4, [(0, 1), (0, 2), (0, 3)])], ids=["ring", "open", "star"]
)
@pytest.mark.parametrize(("conserve", "largest"), [(True, None), (True, 2), (False, None)])
def test_moves_join_all_configurations(lattice, conserve, largest):
    hamiltonian = heisenberg(lattice) if conserve else transverse_field_ising(lattice)
    patterns = metropolis_moves(hamiltonian, conserve_sz=conserve, largest=largest).patterns.astype(int)
    assert largest is None or np.abs(patterns).sum(1).max() == largest
    configurations, _ = enumerate_configurations(4, np.arange(4)[None], flip=False, conserve_sz=conserve)
    joined = nx.Graph()
    for v in configurations.astype(int):
        for sign in (1, -1):
            for d in patterns[((v * patterns * sign) >= 0).all(1)]:
                joined.add_edge(tuple(v), tuple(v - 2 * sign * d))
    assert len(joined) == len(configurations) and nx.is_connected(joined)


def test_orbits_add_up_to_all_configurations():
    ring = symmetry_group(heisenberg(make_lattice("chain", 4)), point_group=True, exchange=False).perm[:, :4]
    for conserve in (True, False):
        for flip in (True, False):
            kept, size = enumerate_configurations(4, ring, flip=flip, conserve_sz=conserve)
            assert size.sum() == n_configurations(4, conserve_sz=conserve)
            assert len(kept) < size.sum() / 4
            assert size.max() == 8 * (1 + flip) or not flip
    with pytest.raises(InputError, match="configurations"):
        enumerate_configurations(16, np.arange(16)[None], flip=False, conserve_sz=True)


@pytest.mark.parametrize("own_module", [False, True])
@pytest.mark.parametrize("model", [transverse_field_ising, heisenberg])
def test_local_ratios_give_the_local_energy(model, own_module):
    """e_loc = sum_v' <v|H (x) 1|v'> Psi(v')/Psi(v), with the connected configurations of the Hamiltonian itself."""
    hamiltonian = model(graph(3, [(0, 1), (1, 2)]), [0.7, -1.2], h=0.4)
    trial, theta = random_trial(hamiltonian, Plain() if own_module else None)
    v, _ = enumerate_configurations(3, IDENTITY, flip=False, conserve_sz=hamiltonian.conserves_sz)
    patterns, elements = hamiltonian_patterns(hamiltonian)
    if len(v) > 32:
        v = v[:32]
    found = local_ratios(trial, theta, jnp.asarray(v), patterns) @ elements
    spins, matrix = hamiltonian.connected(v[:, :3])
    connected = jnp.concatenate([spins, jnp.broadcast_to(v[:, None, 3:], spins.shape)], -1)
    psi = jnp.exp(trial.log_amplitude(theta, v))
    expected = (matrix * jnp.exp(trial.log_amplitude(theta, connected.reshape(-1, 6))).reshape(matrix.shape)).sum(1) / psi
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_caches_are_made_anew_and_all_ratios_come_at_once_where_a_trial_state_asks():
    """Of a state that counts its moves in its cache; and one that knows its own ratios."""
    hamiltonian = heisenberg(graph(3, [(0, 1), (1, 2)]))
    trial, theta = random_trial(hamiltonian)
    moves, walkers = metropolis_moves(hamiltonian, conserve_sz=True), random_configurations(jax.random.key(1), 64, 3)
    expected = metropolis(jax.random.key(2), trial, theta, walkers, moves, 60)

    def drifting(fixed, move, cache, sign):
        ratio, moved = trial.propose(fixed, move, cache["good"], sign)
        return jnp.where(cache["moves"] < 5, ratio, 0), {"good": moved, "moves": cache["moves"] + 1}

    def counted(theta, visible):
        return {"good": trial.cache(theta, visible), "moves": jnp.zeros(visible.shape[1], int)}

    worn = trial._replace(propose=drifting, cache=counted)
    alike = [metropolis(jax.random.key(2), t, theta, walkers, moves, 60)[0] for t in (worn, worn._replace(refresh_every=7))]
    assert not (alike[0] == expected[0]).all() and (alike[1] == expected[0]).all()
    patterns, _ = hamiltonian_patterns(hamiltonian)
    sevens = trial._replace(ratios=lambda moves, cache, sign: jnp.full(sign.shape, 7.0))
    assert set(np.unique(local_ratios(sevens, theta, walkers, patterns))) == {0.0, 7.0}


DEVICES = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from jax.flatten_util import ravel_pytree
from thermodbm import heisenberg, make_lattice
from thermodbm.evolve.ansatz import make_ansatz
from thermodbm.evolve.options import VariationalOptions
from thermodbm.network.ansatz.trial import trial_state
from thermodbm.sampling.configurations import random_configurations
from thermodbm.sampling.metropolis import hamiltonian_patterns, local_ratios, metropolis, metropolis_moves, shared_metropolis
magnet = heisenberg(make_lattice("chain", 4))
ansatz = make_ansatz(magnet, VariationalOptions(alpha=1))
params = ansatz.start(jax.random.key(0), 0.3)
trial, theta, moves = trial_state(ansatz.module, params), ravel_pytree(params)[0], metropolis_moves(ansatz.hamiltonian, conserve_sz=True)
walkers = random_configurations(jax.random.key(1), 11 * trial.block, 4)  # three blocks to a device, and one twice
patterns, _ = hamiltonian_patterns(ansatz.hamiltonian)
alone = jax.jit(lambda key, v: metropolis(key, trial, theta, v, moves, 64))
shared = shared_metropolis(trial, moves, 64)
for share, run in ((False, alone), (True, lambda key, v: shared(key, theta, v, 2.0))):
    v, accepted = run(jax.random.key(2), walkers)
    ratios = jax.jit(lambda v: local_ratios(trial, theta, v, patterns, share=share))(np.asarray(v)[: 8 * trial.block])
    print(len(ratios.sharding.device_set), np.asarray(v).tobytes().hex(), float(accepted), np.abs(np.asarray(ratios)).sum())
"""


def test_numbers_do_not_depend_on_the_number_of_devices():
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, env=environment, check=True)
    alone, shared = (line.split() for line in done.stdout.splitlines())
    assert (alone[0], shared[0]) == ("1", "4") and alone[1] == shared[1] != ""
    np.testing.assert_allclose([float(x) for x in shared[2:]], [float(x) for x in alone[2:]], rtol=1e-9)


@pytest.mark.parametrize("magnet", ["tfim", "exchange"])
def test_weights_of_neighbours_undo_their_law(magnet):
    """sum_u |Psi(u)|^2 P(u -> v) w(v) = |Psi(v)|^2 for every v, with P the law of `random_neighbours`, of random complex amplitudes."""
    lattice = make_lattice("chain", 3)
    hamiltonian = transverse_field_ising(lattice) if magnet == "tfim" else heisenberg(lattice)
    patterns = hamiltonian_patterns(hamiltonian)[0]
    visible = np.array(list(product((1, -1), repeat=6)), np.int8)
    number = {tuple(v): k for k, v in enumerate(visible.tolist())}
    random = np.random.default_rng(5)
    psi = (random.normal(size=(64, 2)) @ [1, 1j]) * 10.0 ** random.integers(-4, 1, 64)
    law, ratios = np.eye(64) / 2, np.zeros((64, len(patterns)), complex)
    for k, v in enumerate(visible):
        for move, pattern in enumerate(patterns):
            sign = np.sign(pattern @ v) or 1
            valid = (pattern[pattern != 0] * sign == v[pattern != 0]).all()
            reached = number[tuple((v - 2 * pattern * sign if valid else v).tolist())]
            law[k, reached] += 1 / (2 * len(patterns))
            ratios[k, move] = psi[reached] / psi[k] if valid else 0
    weights = jnp.exp(log_neighbour_weights(patterns, jnp.asarray(visible), jnp.asarray(ratios)))
    np.testing.assert_allclose((np.abs(psi) ** 2 @ law) * weights, np.abs(psi) ** 2, rtol=1e-12)
    assert weights.max() <= 2
    drawn = np.concatenate([random_neighbours(jax.random.key(k), jnp.asarray(visible), patterns) for k in range(400)])
    counts = np.zeros((64, 64))
    np.add.at(counts, (np.tile(np.arange(64), 400), [number[tuple(v)] for v in drawn.tolist()]), 1 / 400)
    assert np.abs(counts - law).max() < 5 * 0.5 / 20 and not counts[law == 0].any()


def test_weights_next_to_a_node_are_numbers():
    """Psi(v) = 0 or nearly so: w |sum_k r_k|^2 stays at 2 K |sum r|^2 / sum |r|^2."""
    patterns, _ = hamiltonian_patterns(heisenberg(make_lattice("chain", 4)))
    v = jnp.asarray([[1, -1, 1, -1, -1, 1, -1, 1]] * 3, jnp.int8)
    ratios = jnp.asarray([[1, 2, -1, 1]]) * jnp.asarray([[1.0], [1e100], [1e250]])
    found = jnp.exp(log_neighbour_weights(patterns, v, ratios) / 2) * ratios.sum(1)
    np.testing.assert_allclose(found**2, [8 * 9 / (4 + 7), 8 * 9 / 7, 8 * 9 / 7])

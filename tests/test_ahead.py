"""Programs that are compiled ahead."""

import threading

import jax
import jax.numpy as jnp
import pytest

from thermodbm import DeterministicOptions, SamplingOptions, graph, transverse_field_ising
from thermodbm.comm import SERIAL
from thermodbm.evolve import chains
from thermodbm.evolve.ahead import AT_ONCE, Ahead
from thermodbm.evolve.deterministic import make_plan


def test_work_is_done_once_and_only_what_threads_are_free_for():
    done, go_on = [], threading.Event()

    def work(number):
        go_on.wait(10)
        done.append(number)

    ahead = Ahead(work)
    for _ in range(2):
        ahead.begin([1, 2, 3], [4, 5])  # what is needed now is begun in any case
    assert len(ahead.begun) == 3 > AT_ONCE
    go_on.set()
    for number in (1, 2, 3):
        ahead.wait(number)
    ahead.begin([], [4])
    ahead.wait(4)
    assert sorted(done) == [1, 2, 3, 4]


def test_errors_come_where_the_work_is_needed():
    ahead = Ahead(lambda number: 1 // number)
    ahead.begin([1], [0])
    ahead.wait(1)
    with pytest.raises(ZeroDivisionError):
        ahead.wait(0)


def test_what_was_compiled_ahead_is_what_is_run():
    """Sweeping after `compile_level`, from a first start and from chains of another length, compiles nothing more."""
    hamiltonian = transverse_field_ising(graph(3, [(0, 1), (1, 2)]), 0.7, 1.1)
    options = DeterministicOptions(extrapolate=False, sampler="column")
    plan = make_plan(hamiltonian, options, SamplingOptions(n_samples=64, n_chains=8))
    key, source = jax.random.key(0), (hamiltonian, jnp.asarray(1.0))
    program = lambda n_slices: chains._runner(plan, n_slices, SERIAL)[1]  # noqa: E731
    levels = {}
    for n_slices in (2, 4):
        chains.compile_level(plan, n_slices, (hamiltonian, jnp.asarray(2.0)), SERIAL)
        before = program(n_slices)._cache_size()
        levels = chains.start_levels(key, plan, levels, [n_slices], SERIAL)
        levels = chains.advance_levels(key, plan, levels, source, SERIAL)
        assert levels[0].n_sweeps > 0
        assert program(n_slices)._cache_size() == before == 1

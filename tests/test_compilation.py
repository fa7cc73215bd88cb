"""Options of the compiler are those that it knows."""

import jax
import pytest

from thermodbm import DeterministicOptions, SamplingOptions, compilation, heisenberg, make_lattice
from thermodbm.evolve.deterministic import make_plan

ON_CPU = jax.default_backend() == "cpu"


@pytest.mark.skipif(not ON_CPU, reason="of CPUs")
def test_options_are_known_to_this_compiler_and_unknown_ones_are_left_out():
    for options in (compilation.light(), compilation.brief()):
        assert options["xla_backend_optimization_level"] == 1
        assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2.0
    assert compilation.brief() != compilation.light()
    assert compilation._known((("xla_no_such_option", 1),)) is None


def test_runs_of_seconds_compile_briefly_and_others_do_not():
    magnet = heisenberg(make_lattice("chain", 32))

    def plan(**sampling):
        return make_plan(magnet, DeterministicOptions(), SamplingOptions(**sampling))

    assert plan(n_samples=20_000).brief(16)
    assert not plan(n_samples=10**6).brief(16)
    assert not plan(n_samples=20_000).brief(512)
    assert not plan(n_samples=20_000, target_error=1e-4).brief(16)

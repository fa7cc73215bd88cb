"""How XLA compiles programs for CPUs: of most the compilation takes longer than what it could save.

On other devices, and where a compiler does not know an option, its own defaults are left alone.
"""

from functools import lru_cache

import jax

LIGHT = {"xla_backend_optimization_level": 1, "xla_cpu_prefer_vector_width": 512}
"""As fast as with all optimisations (measured on samplers of 32 to 64 sites), and a fifth to a quarter less to compile. Vectors as wide as
processors have them (XLA's own choice is at most 256 bits): 8% faster where there are such of 512 bits."""
_BRIEF = {**LIGHT, "xla_cpu_use_fusion_emitters": False}
"""A third to a half less to compile, and 8 to 25% slower: for what runs for seconds."""


def light() -> dict[str, int | bool] | None:
    """`compiler_options` of a program that may run for long."""
    return _known(tuple(LIGHT.items()))


def brief() -> dict[str, int | bool] | None:
    """`compiler_options` of a program that runs for seconds."""
    return _known(tuple(_BRIEF.items())) or light()


@lru_cache
def _known(options: tuple[tuple[str, int | bool], ...]) -> dict[str, int | bool] | None:
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=dict(options))(0.0)
    except (jax.errors.JaxRuntimeError, ValueError):  # "No such compile option"
        return None
    return dict(options)

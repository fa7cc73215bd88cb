"""Names of a package that are imported when they are first used, so that `thermodbm --help` need not wait for JAX."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def hand_on(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that hands on names from modules below it (PEP 562).

    Args:
        homes: module, without the name of the package -> the names that it defines.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    names = sorted(home_of)
    return get, lambda: names, names

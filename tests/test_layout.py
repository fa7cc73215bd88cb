"""Imports go one way, and MPI stays in one place."""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent / "thermodbm"
MODULES = sorted(ROOT.rglob("*.py"))

EVERYWHERE = {"errors", "comm", "drawing", "lazy", "threads", "compilation", "programs"}
CHAIN = ["models", "network", "sampling", "estimate", "evolve", "run", "cli"]
KNOWS = {part: {*CHAIN[: n + 1], *EVERYWHERE} for n, part in enumerate(CHAIN)}
KNOWS |= {"exact": {"exact", "models", *EVERYWHERE}, **{name: set() for name in EVERYWHERE}}
KNOWS["evolve"] |= {"exact"}
KNOWS["plotting"] = KNOWS["evolve"]
KNOWS["run"] |= {"exact", "plotting"}
KNOWS["cli"] |= {"exact", "plotting"}
KNOWS["__main__"] = {"cli"}
KNOWS["__init__"] = KNOWS["run"]


def imported(path):
    """(module, whether only for type checking) of every import in a file, also inside functions."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                is_module = node.module == "thermodbm" or (ROOT.parent / inside.replace(".", "/")).with_suffix(".py").exists()
                yield inside if is_module else node.module


HANDED = {"__all__", "__getattr__", "__dir__"}


def part(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    known = KNOWS[part(path)]
    for module in imported(path):
        top, *rest = module.split(".")
        if top == "thermodbm":
            assert rest and rest[0] in known, f"{path.relative_to(ROOT)} may not import {module}"


def test_imports_run_in_no_circle():
    """Between modules, imports inside functions included; the package itself, which hands names on as they are asked for, apart."""
    names = {".".join(("thermodbm", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p for p in MODULES}
    g = nx.DiGraph((name, module) for name, path in names.items() if name != "thermodbm" for module in imported(path) if module in names)
    shown = {(name, "thermodbm.drawing") for name in names}  # the picture of an object in a notebook, on demand
    g.remove_edges_from([edge for edge in g.edges if edge in shown])
    assert not (circle := next(nx.simple_cycles(g), None)), circle


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_mpi_is_imported_in_one_place(path):
    used = {module.split(".")[0] for module in imported(path)} & {"mpi4py", "mpi4jax"}
    assert not used or path == ROOT / "run" / "parallel.py"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_init_files_only_hand_names_on(path):
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        names = isinstance(node, ast.Assign) and {t.id for x in node.targets for t in ast.walk(x) if isinstance(t, ast.Name)} <= HANDED
        assert docstring or names or isinstance(node, ast.ImportFrom)


def test_the_rules_catch_what_they_forbid(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "def f():\n    import mpi4py.MPI\n    from thermodbm import run\nif TYPE_CHECKING:\n    from thermodbm.cli import app\n"
    )
    assert list(imported(file)) == ["mpi4py.MPI", "thermodbm.run"]
    assert "run" not in KNOWS["sampling"] and "network" not in KNOWS["exact"]

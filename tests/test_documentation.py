"""Every snippet and command of the documentation is run, page by page, in a folder of its own; the site is built by a slow test."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

from thermodbm import cli
from thermodbm.evolve.options import SamplingOptions
from thermodbm.run.sections import METHODS

matplotlib.use("agg")
ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(python|toml|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALLER = {'make_lattice("chain", 64)': 'make_lattice("chain", 4)', '"target_error": 5e-4': '"n_samples": 400'}
"""What README computes is the real thing: here it is made small."""


def blocks(page):
    return BLOCK.findall(page.read_text())


def run_commands(text, capsys):
    for line in text.splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if not program:
            continue
        assert program == "thermodbm", f"not to be run by a reader as it stands: {line}"
        try:
            cli.main(arguments)
        except SystemExit as end:
            assert not end.code, (line, capsys.readouterr().err)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.stem)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, text in blocks(page):
        if language == "toml":
            name = re.match(r"# (\S+\.toml)\n", text)
            assert name, f"{page.name}: a config needs its file name in a comment"
            Path(name[1]).write_text(text)
        elif language == "bash":
            run_commands(text, capsys)
        else:
            exec(compile(text, str(page), "exec"), names)
    plt.close("all")


def test_the_snippet_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    assert all(any(large in text for text in snippets) for large in SMALLER)
    names = {}
    for text in snippets:
        for large, small in SMALLER.items():
            text = text.replace(large, small)
        exec(compile(text, "README.md", "exec"), names)
    plt.close("all")


def test_the_config_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole, *_ = (text for language, text in blocks(ROOT / "README.md") if language == "toml" and "[lattice]" in text)
    Path("square.toml").write_text(whole)
    run_commands("thermodbm validate square.toml", capsys)


def test_commands_of_the_readme_exist():
    commands = set(re.findall(r"(?:`|uv run )thermodbm (\w+)", (ROOT / "README.md").read_text()))
    known = {command.callback.__name__ for command in cli.app.registered_commands}
    assert commands and commands <= known | {"run"}
    for config in re.findall(r"configs/\S+\.toml", (ROOT / "README.md").read_text()):
        assert (ROOT / config).exists()


def test_the_config_reference_names_every_option(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from reference import config_reference

    page = config_reference()
    for options in (SamplingOptions, *METHODS.values()):
        for name in options.__dataclass_fields__:
            assert f"- `{name}` (" in page
    assert all(f'`kind = "{kind}"`' in page for kind in METHODS)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(ROOT / "docs"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists() and "n_vectors" in (tmp_path / "_generated" / "config.html").read_text()

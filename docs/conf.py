"""Sphinx: sphinx-build -W docs docs/_build"""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from reference import config_reference, escape_docstring  # noqa: E402

project, author, copyright = "thermodbm", "the thermodbm authors", "the thermodbm authors"
try:
    release = metadata.version("thermodbm")
except metadata.PackageNotFoundError:
    release = "unknown"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "myst.header"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "thermodbm"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
add_module_names = False

generated = HERE / "_generated"
generated.mkdir(exist_ok=True)
(generated / "config.md").write_text(config_reference())


def setup(app):
    app.connect("autodoc-process-docstring", escape_docstring, priority=1)

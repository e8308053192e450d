"""Sphinx settings: `make docs` builds docs/_build/html without a network; a broken link is an error."""

import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
import generated

project = "orbit4d"
author = "orbit4d contributors"
release = metadata.version("orbit4d")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "orbit4d"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
suppress_warnings = ["myst.strikethrough"]
# Every reference must resolve, but for types in signatures that are not public names here: their pages lie
# on the network, or they have none.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!orbit4d\.\w+\.[A-Z]\w*$).*")]


def _untyped(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A field's sentence with a colon is no "type: text", which napoleon takes its first line for."""
    if what == "attribute":
        lines.insert(0, "")


def setup(app: Sphinx) -> None:
    """Pages that are made from the code are checked, not written: a stale one fails the build."""
    generated.check()
    app.connect("autodoc-process-docstring", _untyped, priority=400)

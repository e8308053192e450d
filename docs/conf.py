"""Sphinx settings: `make docs` builds docs/_build/html without a network; a broken link is an error."""

import sys
from importlib import metadata
from pathlib import Path

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


def setup(app: object) -> None:
    """Pages that are made from the code are checked, not written: a stale one fails the build."""
    generated.check()

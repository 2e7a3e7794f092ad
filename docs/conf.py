# The site of the documentation.  `nox -s docs` builds it without a network: the theme has
# its files with it, and links to other projects need no inventory (_ext/public_names.py).
from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

project = "trio_upgrade"
project_copyright = "The trio_upgrade developers. MIT or Apache-2.0, as you like."
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinxcontrib_trio",
    "myst_parser",
    "page_layout",
    "public_names",
]
exclude_patterns = ["_build"]

# Pages link to headings of other pages, as they do on GitHub.
myst_heading_anchors = 3
# Lists and tables of the generated pages are long; a dollar is a prompt, no formula.
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
# sphinxcontrib-trio is made of these classes.
autodoc_use_legacy_class_based = True
python_maximum_signature_line_length = 78

# Commands are copied without prompts and outputs; what a program prints has no button.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"trio_upgrade {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# What a reader of the sources wants is in the repository.
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# The site of the documentation: `nox -s docs` builds it, without a network.
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions = ["sphinx.ext.autodoc", "sphinxcontrib_trio", "myst_parser", "public_names"]
project = "trio_upgrade"
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 78
autodoc_use_legacy_class_based = True

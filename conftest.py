# Makes a test of each block in the README and the pages of the documentation.  It is here
# and not in tests/, because pytest asks only the files above a page.
from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# Without Sybil other tests can still be run; tests/docs then fails, which says so.
with suppress(ModuleNotFoundError):
    from sybil import Sybil

    from tests.docs.blocks import find_blocks

    pytest_collect_file = Sybil(
        parsers=[find_blocks], path=str(Path(__file__).parent), patterns=["*.md"]
    ).pytest()

"""Rules of the layout beside the import contracts, which are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trio_upgrade

PACKAGE = Path(trio_upgrade.__file__).parent
MODULES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
MAX_LINES = 600


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_is_too_large(module: Path) -> None:
    """A module that is too long is split, along the way of its data."""
    assert len((PACKAGE / module).read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_one_underscore_is_enough(module: Path) -> None:
    """Inside a private package no name needs a second underscore."""
    name = module.parts[-1]

    assert len(module.parts) == 1 or not name.removesuffix("__init__.py").startswith(
        "_"
    )


def test_no_needless_imports() -> None:
    """trio_upgrade imports no module that only tests or ASGI servers need."""
    script = (
        "import sys\nfrom trio_upgrade import *\n"
        "print(*{'asyncio', 'pytest', 'trio.testing', 'http.client'} & {*sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert found.stdout.split() == []

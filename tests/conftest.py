# Marks that every test may carry.  A peer program that is not there is no failure: its
# tests are skipped, on a desk and in CI alike, and say what is to be installed.
from __future__ import annotations

import shutil

import pytest

# Where Debian's package is not called as the program is.
_PACKAGES = {"node": "nodejs"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("peer"):
        (program,) = mark.args
        if shutil.which(program) is None:
            package = _PACKAGES.get(program, program)
            pytest.skip(f"needs {program}: install Debian's package {package}")

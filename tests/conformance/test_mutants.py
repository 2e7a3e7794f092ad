"""Every requirement can be broken by a named change, and the changes fit the sources."""

from __future__ import annotations

from pathlib import Path

import pytest

import trio_upgrade

from .mutants import MUTANTS, Mutant
from .mutate import break_source, find_path
from .requirements import PROXY, REQUIREMENTS

PACKAGE = Path(trio_upgrade.__file__).parent


def test_every_requirement_has_a_mutant() -> None:
    """All but those of intermediaries, which nothing here keeps yet."""
    rows = {row_id for row_id, row in REQUIREMENTS.items() if row.clause != PROXY}

    assert {*MUTANTS} == rows


@pytest.mark.parametrize("row_id", MUTANTS)
def test_mutant_fits(row_id: str) -> None:
    """Its old text stands in its room once, and what it makes is Python."""
    mutant = MUTANTS[row_id]
    broken = break_source(find_path(PACKAGE, mutant.room).read_text(), mutant)

    compile(broken, mutant.room, "exec")


@pytest.mark.parametrize("source", ["b", "aa"])
def test_mutant_that_does_not_fit(source: str) -> None:
    """A text that is gone, or not the only one, is no place for a mutation."""
    with pytest.raises(ValueError, match=r"in room \d times: 'a'"):
        break_source(source, Mutant("room", "a", "c"))

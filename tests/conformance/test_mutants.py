"""Each requirement has a mutant that fits the sources, however they are laid out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trio_upgrade

from .breaking import Mutant, break_package, read_sources
from .faults import FAULTS
from .mutants import MUTANTS
from .requirements import REQUIREMENTS

SOURCES = read_sources(Path(trio_upgrade.__file__).parent)
REFORMATTED = {path: ast.unparse(ast.parse(text)) for path, text in SOURCES.items()}
MODULE = Path("package", "module.py")
SOURCE = """\
LIMIT = 1

def check(value):
    if value > LIMIT:
        # Why.
        raise ValueError("too much", (value,))

class Thing:
    size: int = 1

    async def check(self):
        await send(
            self.size or 2
        )
        return self.size
"""


def test_every_requirement_has_a_mutant() -> None:
    """Each can be broken, and so can each fault that was mended."""
    assert {*MUTANTS} == {*REQUIREMENTS} | {*FAULTS}


@pytest.mark.parametrize("row_id", MUTANTS)
def test_mutant_fits(row_id: str) -> None:
    """The old code occurs once in one definition, and the broken module is Python."""
    path, broken = break_package(SOURCES, MUTANTS[row_id])
    compile(broken, path, "exec")

    assert broken != REFORMATTED[path]
    assert break_package(REFORMATTED, MUTANTS[row_id]) == (path, broken)


@pytest.mark.parametrize(
    ("mutant", "before", "after"),
    [
        (Mutant("LIMIT", "1", "2"), "LIMIT = 1", "LIMIT = 2"),
        (Mutant("Thing.size", "1", "2"), "size: int = 1", "size: int = 2"),
        (
            Mutant("module.check", "value > LIMIT", "True"),
            "if value > LIMIT",
            "if True",
        ),
        (
            Mutant("module.check", "... > LIMIT", "... < LIMIT"),
            " > LIMIT:",
            " < LIMIT:",
        ),
        (
            Mutant("module.check", "ValueError(..., (...,))", "..."),
            "ValueError('too much', (value,))",
            "'too much'",
        ),
        (Mutant("module.check", "if ...: ...", "while ...: ..."), "if", "while"),
        (Mutant("module.check", "(value,)"), ", (value,)", ""),
        (
            Mutant("Thing.check", "await send(...)"),
            "await send(self.size or 2)",
            "pass",
        ),
        (Mutant("Thing.check", "2"), " or 2", ""),
        (
            Mutant("Thing.check", "return ...", "a\nb"),
            "return self.size",
            "a\n        b",
        ),
    ],
)
def test_break_package(mutant: Mutant, before: str, after: str) -> None:
    """Code is replaced or deleted in its definition, ``...`` stands for any code."""
    source = ast.unparse(ast.parse(SOURCE))
    expected = source.replace(before, after, 1)

    assert expected != source
    assert break_package({MODULE: SOURCE}, mutant) == (
        MODULE,
        ast.unparse(ast.parse(expected)),
    )


@pytest.mark.parametrize(
    ("mutant", "match"),
    [
        (
            Mutant("check", "2"),
            r"check: package.module.check, package.module.Thing.che",
        ),
        (Mutant("other", "2"), "not one definition of other: none"),
        (Mutant("imit", "2"), "not one definition of imit: none"),
        (Mutant("LIMIT", "2"), "0 times in package.module.LIMIT: 2"),
        (Mutant("LIMIT", "True"), "0 times in package.module.LIMIT: True"),
        (Mutant("Thing.check", "self.size", "1"), r"2 times in .*\.Thing\.check"),
        (Mutant("LIMIT", "1"), "cannot replace an expression by ''"),
        (Mutant("LIMIT", "1", "pass"), "cannot replace an expression by 'pass'"),
    ],
)
def test_mutant_that_does_not_fit(mutant: Mutant, match: str) -> None:
    """A mutant that could break anything else, or nothing, is an error."""
    with pytest.raises(ValueError, match=match):
        break_package({MODULE: SOURCE}, mutant)

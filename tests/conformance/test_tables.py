"""The tables in docs are up to date, and each row that can have a test has one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from .faults import FAULTS
from .node import BETTER_THAN_NODE, CASES
from .requirements import REQUIREMENTS, ROLES, WEBSOCKET
from .tables import (
    CONFORMANCE,
    ENDS,
    NODE,
    ROOT,
    Mark,
    conformance_page,
    ends_page,
    find_marks,
    is_reference,
    node_page,
)

HERE = Path(__file__).parent
MARKS = find_marks()
FRESHEN = "run: nox -s tables"
# The rows that must be there.
LISTED = [
    *(f"U{number:02}" for number in range(1, 35)),
    *(f"C{number:02}" for number in range(1, 10)),
    *(f"M{number:02}" for number in range(1, 19)),
    *("O01", "O02", "O03", "O05"),
]


def test_conformance_page_is_fresh() -> None:
    """docs/topics/conformance.md has the current rows and tests."""
    assert CONFORMANCE.read_text() == conformance_page(MARKS), FRESHEN


def test_node_page_is_fresh() -> None:
    """docs/topics/node.md has the current rows and tests."""
    assert NODE.read_text() == node_page(MARKS), FRESHEN


def test_ends_page_is_fresh() -> None:
    """docs/topics/ends.md has the rows that test_ends.py compares with what happens."""
    assert ENDS.read_text() == ends_page(), FRESHEN


@pytest.mark.parametrize("page", [conformance_page, node_page])
def test_page_without_a_test_is_stale(page) -> None:
    """Removing or renaming a test changes the pages that name it."""
    fresh = page(MARKS)
    tables = {*REQUIREMENTS} if page is conformance_page else {*CASES}
    # Only the last test of each row: the others are handled alike.
    for mark in {mark.id: mark for mark in MARKS if mark.path.parent == HERE}.values():
        if mark.id in tables:
            rest = [other for other in MARKS if other is not mark]
            renamed = [*rest, mark._replace(test="other")]

            assert page(rest) != fresh, mark
            assert page(renamed) != fresh, mark


def test_every_row_is_there() -> None:
    """No row is missing, and there is no other row."""
    assert list(REQUIREMENTS) == LISTED
    assert list(WEBSOCKET) == [f"W{number:02}" for number in range(1, 9)]
    assert list(CASES) == [
        *(f"S{number}" for number in range(1, 44)),
        *(f"C{number}" for number in range(1, 28)),
    ]


@pytest.mark.parametrize("row_id", LISTED)
def test_every_requirement_is_proved(row_id: str) -> None:
    """Each row has a test here."""
    tests = [mark for mark in MARKS if mark.id == row_id and mark.path.parent == HERE]
    row = REQUIREMENTS[row_id]

    assert tests
    assert {*row.role.split(", ")} <= {*ROLES}


@pytest.mark.parametrize("row_id", WEBSOCKET)
def test_every_rule_of_websocket_is_proved(row_id: str) -> None:
    """Each row of RFC 6455 has a test that bears its id."""
    assert any(mark.id == row_id for mark in MARKS)


@pytest.mark.parametrize("row_id", FAULTS)
def test_every_fault_is_proved(row_id: str) -> None:
    """Each fault that was mended has a test that bears its id."""
    assert any(mark.id == row_id for mark in MARKS)


@pytest.mark.parametrize("row_id", CASES)
def test_every_case_is_proved(row_id: str) -> None:
    """Each case has a test, or says why it cannot have one."""
    tests = [mark for mark in MARKS if mark.id == row_id]

    assert bool(tests) != bool(CASES[row_id].why_untested)


@pytest.mark.parametrize("row_id", BETTER_THAN_NODE)
def test_case_that_node_fails_has_a_test(row_id: str) -> None:
    """Where we must do better than Node, the row says what Node does, and has a test."""
    assert CASES[row_id].node
    assert any(mark.id == row_id for mark in MARKS)


def test_every_mark_is_known() -> None:
    """Each id is that of a row, or a reference to something outside."""
    for mark in MARKS:
        tables = {*REQUIREMENTS, *WEBSOCKET, *CASES, *FAULTS}
        assert mark.id in tables or is_reference(mark.id), mark


def test_no_mark_twice() -> None:
    """A test has each id only once."""
    counts = Counter(MARKS)

    assert not [mark for mark, count in counts.items() if count > 1]


def test_marks_of_functions_and_methods(tmp_path: Path) -> None:
    """Marks of functions and methods are found, in order."""
    (tmp_path / "tests" / "inner").mkdir(parents=True)
    path = tmp_path / "tests" / "inner" / "test_it.py"
    path.write_text(
        "class TestA:\n"
        "    @pytest.mark.ids('S1', 'U01')\n"
        "    async def test_b(self): ...\n"
        "@pytest.mark.parametrize('x', [1])\n"
        "@pytest.mark.ids('S2')\n"
        "def test_c(x): ...\n"
        "def test_d(): ...\n"
    )

    assert find_marks(tmp_path) == [
        Mark("S1", path, "TestA::test_b"),
        Mark("U01", path, "TestA::test_b"),
        Mark("S2", path, "test_c"),
    ]
    assert str(find_marks(tmp_path)[0]) == "inner/test_it::TestA::test_b"
    assert find_marks(tmp_path)[0].name == "test_it::TestA::test_b"


def test_no_mark_elsewhere() -> None:
    """All marks are on functions and methods, where they are found."""
    for path in (ROOT / "tests").rglob("*.py"):
        written = re.findall(r"^ *@pytest\.mark\.ids\(", path.read_text(), re.MULTILINE)
        found = {mark.test for mark in MARKS if mark.path == path}

        assert len(written) == len(found), path

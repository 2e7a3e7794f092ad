"""Exceptions in groups: errors are told from what must go on its way."""

from __future__ import annotations

import pytest

from trio_upgrade._util import find_leaves, split_errors

VALUE, LOOKUP = ValueError("v"), LookupError("l")
INTERRUPT = KeyboardInterrupt()


def shape(exc: BaseException | None) -> object:
    """An exception as itself, a group as the list of what is in it."""
    if isinstance(exc, BaseExceptionGroup):
        return [shape(inner) for inner in exc.exceptions]
    return exc


@pytest.mark.parametrize(
    ("exc", "errors", "rest"),
    [
        (VALUE, VALUE, None),
        (INTERRUPT, None, INTERRUPT),
        (ExceptionGroup("", [VALUE, LOOKUP]), [VALUE, LOOKUP], None),
        (BaseExceptionGroup("", [INTERRUPT]), None, [INTERRUPT]),
        (BaseExceptionGroup("", [VALUE, INTERRUPT]), [VALUE], [INTERRUPT]),
        (
            BaseExceptionGroup(
                "", [BaseExceptionGroup("", [INTERRUPT, VALUE]), LOOKUP]
            ),
            [[VALUE], LOOKUP],
            [[INTERRUPT]],
        ),
    ],
)
def test_split_errors(exc: BaseException, errors: object, rest: object) -> None:
    """Errors on one side, Cancelled and its like on the other, none of them lost."""
    found = split_errors(exc)

    assert isinstance(found[0], Exception | None)
    assert (shape(found[0]), shape(found[1])) == (errors, rest)


def test_find_leaves() -> None:
    """However deep the groups are, what is in them is found in order."""
    group = ExceptionGroup("", [ExceptionGroup("", [VALUE]), LOOKUP])

    assert find_leaves(group) == [VALUE, LOOKUP]
    assert find_leaves(VALUE) == [VALUE]

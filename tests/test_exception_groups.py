"""Exception groups: errors are separated from exceptions that must propagate."""

from __future__ import annotations

import pytest

from trio_upgrade._util import find_leaves, split_errors

VALUE, LOOKUP = ValueError("v"), LookupError("l")
INTERRUPT = KeyboardInterrupt()


def shape(exc: BaseException | None) -> object:
    """Return an exception as itself, and a group as a list of its contents."""
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
    """Errors and other exceptions, like Cancelled, are separated; none is lost."""
    found = split_errors(exc)

    assert isinstance(found[0], Exception | None)
    assert (shape(found[0]), shape(found[1])) == (errors, rest)


def test_find_leaves() -> None:
    """All exceptions inside nested groups are returned in order."""
    group = ExceptionGroup("", [ExceptionGroup("", [VALUE]), LOOKUP])

    assert find_leaves(group) == [VALUE, LOOKUP]
    assert find_leaves(VALUE) == [VALUE]

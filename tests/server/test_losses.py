"""Errors that say only that a connection is lost."""

from __future__ import annotations

import pytest
import trio

from trio_upgrade._server.losses import comes_of_loss, is_loss

LOST = trio.BrokenResourceError("reset")
CLOSED = trio.ClosedResourceError("closed")


def caused(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


def circle() -> Exception:
    error = ValueError("its own cause")
    error.__cause__ = error
    return error


@pytest.mark.parametrize(
    ("error", "loss", "comes"),
    [
        (LOST, True, True),
        (ExceptionGroup("both", [LOST, CLOSED]), True, True),
        (ValueError("bad"), False, False),
        (ExceptionGroup("mixed", [LOST, ValueError("bad")]), False, False),
        (caused(ValueError("bad"), CLOSED), False, True),
        (caused(ValueError("bad"), caused(KeyError("k"), LOST)), False, True),
        (caused(ValueError("bad"), ExceptionGroup("all", [LOST])), False, True),
        (
            ExceptionGroup("mixed", [LOST, caused(ValueError("bad"), CLOSED)]),
            False,
            True,
        ),
        (caused(ValueError("bad"), KeyError("k")), False, False),
        (circle(), False, False),
    ],
)
def test_losses(error: Exception, loss: bool, comes: bool) -> None:
    """A group is a loss if all of its errors are; a cause counts for the second only."""
    assert is_loss(error) is loss
    assert comes_of_loss(error) is comes

# How a command ends that does not succeed: its exit status, and one line.
from __future__ import annotations

from typing import cast

NAME = "trio-upgrade"
SUCCESS = 0
FAILURE = 1
USAGE = 2
# As a shell reports a program that was ended by SIGINT (2) or SIGPIPE (13).
INTERRUPTED = 130
PIPE_CLOSED = 141


class CommandFailed(Exception):
    """A command failed for a reason that is no bug; the message is shown alone."""

    status = FAILURE


class UsageFailed(CommandFailed):
    """An argument cannot be used."""

    status = USAGE


class OutputClosed(Exception):
    """The reader of standard output is gone, as after ``| head``."""


def find_leaves(exc: BaseException) -> list[BaseException]:
    """Return all exceptions inside nested groups; a single exception as a list of one."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [leaf for inner in group.exceptions for leaf in find_leaves(inner)]
    return [exc]


def describe(exc: BaseException) -> str:
    """Return the message of an exception with its notes, for one line."""
    text = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    if isinstance(exc, OSError) and exc.filename is not None:
        text = f"{exc.filename}: {text}"
    notes = cast("list[str]", getattr(exc, "__notes__", []))
    return "; ".join([text, *notes])

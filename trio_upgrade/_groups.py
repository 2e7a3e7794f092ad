# Exceptions in groups.  Trio's nurseries wrap whatever leaves them, so each guard has to
# look inside.
from __future__ import annotations

from typing import cast


def split_errors(
    exc: BaseException,
) -> tuple[Exception | None, BaseException | None]:
    """Split what left a scope into errors and the rest.

    ``except Exception`` is not enough: a group of a ValueError and a Cancelled passes
    it by and takes the server along.

    Returns:
        The errors and what must go on its way (Cancelled, KeyboardInterrupt,
        SystemExit), each None where there is none of it.
    """
    if isinstance(exc, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exc).split(Exception)
    if isinstance(exc, Exception):
        return exc, None
    return None, exc


def find_leaves(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in a group of groups, or the one given."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [leaf for inner in group.exceptions for leaf in find_leaves(inner)]
    return [exc]

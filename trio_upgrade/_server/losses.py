# Errors that say only that a connection is lost or closed.  Once it is, they are no bugs.
from __future__ import annotations

import trio

from .._util import find_leaves

# What a stream raises when it is lost or closed.
_LOSSES = (trio.BrokenResourceError, trio.ClosedResourceError)


def is_loss(errors: BaseException) -> bool:
    """Tell whether errors say only that the connection is lost or closed."""
    return all(isinstance(leaf, _LOSSES) for leaf in find_leaves(errors))


def comes_of_loss(errors: BaseException) -> bool:
    """Tell whether each of the errors says so, or has a cause that does.

    Libraries above the stream raise their own errors from Trio's.
    """
    return all(map(_has_loss, find_leaves(errors)))


def _has_loss(error: BaseException) -> bool:
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if is_loss(cause):
            return True
        seen.append(cause)
        cause = cause.__cause__
    return False

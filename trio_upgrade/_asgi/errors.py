# The exceptions of this add-on, and how they are found in what an application raises.
from __future__ import annotations

from typing import cast

import trio

from .. import TrioUpgradeError


class ClientDisconnected(OSError):
    """The client is gone; ``send`` of an ASGI application raises it.

    An application need not catch it: when it comes out of the application, alone, as a
    ``__cause__`` or in an exception group, it is an ordinary end and is not logged. It is
    an OSError because the ASGI specification asks for one.
    """


class LifespanFailed(TrioUpgradeError):
    """The startup or the shutdown of an ASGI application failed.

    The message is the application's. If the application raised an exception, too, that
    exception is the ``__cause__``.

    Attributes:
        phase: ``"startup"`` or ``"shutdown"``.
    """

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(f"the {phase} of the ASGI application failed: {reason}")
        self.phase = phase


# Tracebacks, repr and help show the path that users import.
for _class in (ClientDisconnected, LifespanFailed):
    _class.__module__ = "trio_upgrade.asgi"


def remove_disconnects(exc: BaseException) -> BaseException | None:
    """Return an exception without the parts that only say that the client is gone.

    Returns:
        The exception itself if it has no such part, the group of the other parts, or None
        if there is no other part.
    """
    if not isinstance(exc, BaseExceptionGroup):
        return None if _comes_of_disconnect(exc) else exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    found, rest = group.split(_is_leaf_of_disconnect)
    return group if found is None else rest


def _is_leaf_of_disconnect(exc: BaseException) -> bool:
    # split() asks for the groups first. A group is judged by its leaves: its cause says
    # nothing about them.
    return not isinstance(exc, BaseExceptionGroup) and _comes_of_disconnect(exc)


def _comes_of_disconnect(exc: BaseException) -> bool:
    seen: list[BaseException] = []
    cause: BaseException | None = exc
    # A chain of causes may be a circle.
    while cause is not None and cause not in seen:
        if isinstance(cause, ClientDisconnected):
            return True
        if isinstance(cause, BaseExceptionGroup):
            # Litestar raises its own error from the group of its nursery.
            group = cast("BaseExceptionGroup[BaseException]", cause)
            return remove_disconnects(group) is None
        seen.append(cause)
        cause = cause.__cause__
    return False


def has_cancelled(exc: BaseException) -> bool:
    """Tell whether an exception is a Cancelled, or a group that has one."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return group.subgroup(trio.Cancelled) is not None
    return isinstance(exc, trio.Cancelled)


def choose_error(raised: BaseException, body: BaseException | None) -> BaseException:
    """Return what leaves an ``async with`` that has a nursery inside.

    Args:
        raised: What the nursery raised: a group, perhaps with what the body raised.
        body: What the body raised, None if it ended normally.

    Returns:
        What the body raised, as it was, unless a task of the nursery failed; then the
        failure of the task, or a group if both failed.
    """
    parts = list(cast("BaseExceptionGroup[BaseException]", raised).exceptions)
    failures = [part for part in parts if not _is_cancelled(part)]
    if body is not None and body not in parts and not _is_cancelled(body):
        failures.append(body)
    if not failures:
        return parts[0] if body is None else body
    if len(failures) == 1:
        return failures[0]
    return BaseExceptionGroup("the block and the lifespan failed", failures)


def _is_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return all(map(_is_cancelled, group.exceptions))
    return isinstance(exc, trio.Cancelled)

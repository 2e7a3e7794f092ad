# The part of a connection that the deadlines and the state of a server use.  Connection
# extends it.  So the other two modules need to know nothing of HTTP.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

    from .connection_records import ConnectionRecords
    from .end_reason import EndReason


class ConnectionTask:
    """A task that serves one connection, and the way to end it.

    Args:
        scope: Cancelled when the task must end.

    Attributes:
        scope: The cancel scope of the phase that the connection is in.
        expired: Why the scope was cancelled; None if it was not.
        idle: Whether no request is under way, so that the connection may be ended.
        requests: The number of requests received.
        task: The task, once it runs.
        depth: How many nurseries the task had open before it began to serve.
        records: Makes its records; None if there is no observer.
    """

    __slots__ = ("depth", "expired", "idle", "records", "requests", "scope", "task")

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope: trio.CancelScope = scope
        self.expired: EndReason | None = None
        # False until the task runs: before, the scope may be that of the whole server.
        self.idle: bool = False
        self.requests: int = 0
        self.task: trio.lowlevel.Task | None = None
        self.depth: int = 0
        self.records: ConnectionRecords | None = None

    def expire(self, reason: EndReason) -> None:
        """Cancel the present phase, for this reason."""
        self.expired = reason
        self.scope.cancel(reason=reason.value)

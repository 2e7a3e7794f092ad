# The user's observer of a server, and the log.
#
# A client that binds a Unix socket chooses its name: any bytes.  So each log line of this
# package writes a peer as %a, in ASCII: it adds no line, no escape in it acts on a
# terminal, and no encoding of a log file loses the record.
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar, final

from .records import ErrorRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._streams.underlying import Peer
    from .records import EndRecord, RequestRecord, SwitchRecord
    from .request import Request

RecordT = TypeVar("RecordT")

LOGGER = logging.getLogger("trio_upgrade.server")


@final
class Observers:
    """The methods of a user's observer, and the log of errors.

    A record is made only if the observer has a method for it, so none costs nothing.

    Args:
        observer: An object with any of the methods ``request``, ``switched``, ``ended``
            and ``error``, or None.
        strict: Whether exceptions of the app are raised, and so not logged.

    Attributes:
        on_request: The observer's method ``request``, None if it has none.
        on_switch: Its method ``switched``, None if it has none.
        on_end: Its method ``ended``, None if it has none.
        on_error: Its method ``error``, None if it has none.
        is_wanted: Whether it has any of them, so that records are made.
    """

    def __init__(self, observer: object | None, *, strict: bool) -> None:
        self._strict = strict
        self.on_request: Callable[[RequestRecord], object] | None
        self.on_request = getattr(observer, "request", None)
        self.on_switch: Callable[[SwitchRecord], object] | None
        self.on_switch = getattr(observer, "switched", None)
        self.on_end: Callable[[EndRecord], object] | None
        self.on_end = getattr(observer, "ended", None)
        self.on_error: Callable[[ErrorRecord], object] | None
        self.on_error = getattr(observer, "error", None)
        self.is_wanted: bool = any(
            (self.on_request, self.on_switch, self.on_end, self.on_error)
        )

    def notify(self, callback: Callable[[RecordT], object], record: RecordT) -> None:
        """Call a method of the observer; an exception that it raises is only logged."""
        try:
            callback(record)
        except Exception as exc:
            LOGGER.error("error in the observer, at %a", record, exc_info=exc)

    def report_error(
        self, peer: Peer, request: Request | None, error: Exception
    ) -> None:
        """Report an exception of an app, or of serving itself.

        It is not logged if the server is strict, because then it is raised as well.
        """
        if self.on_error is not None:
            self.notify(self.on_error, ErrorRecord(peer, request, error))
        if self._strict:
            return
        if request is None:
            LOGGER.error("error while serving a connection", exc_info=error)
        else:
            message = "error in the app, serving %r to %a"
            LOGGER.error(message, request, peer, exc_info=error)

# What the records of one connection need, and the calls of the observer with them.  An
# object of its own, so that a connection without an observer keeps none of it.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .records import EndRecord, RequestRecord, SwitchRecord

if TYPE_CHECKING:
    from .._streams.underlying import Peer
    from .._streams.upgraded import UpgradedStream
    from .end_reason import EndReason
    from .observers import Observers
    from .request import Request

_TUNNEL = "CONNECT"


@final
class ConnectionRecords:
    """Makes the records of one connection, from accept to close.

    Args:
        observers: The user's observer.

    Attributes:
        peer: The address of the client; it may be unknown once the connection is broken.
        request: The request that is under way, or was the last one; None while another
            is awaited, and at the end.
        cause: The exception that the connection ends with, None if there was none.

    Request and cause refer back to the connection: :meth:`report_end` drops them.
    """

    __slots__ = ("_began", "_observers", "_request_began", "cause", "peer", "request")

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._began = self._request_began = trio.current_time()
        self.peer: Peer = None
        self.request: Request | None = None
        self.cause: Exception | None = None

    @property
    def wants_responses(self) -> bool:
        """Whether the observer gets records of requests, so that answers are measured."""
        return self._observers.on_request is not None

    def begin_request(self, request: Request) -> None:
        """Note a request whose header section has just been received."""
        self.request = request
        self._request_began = trio.current_time()

    def report_response(
        self,
        status: int,
        content: int,
        sent: int,
        began: float,
        cause: BaseException | None,
    ) -> None:
        """Report a final response that was begun; see :class:`RequestRecord`.

        Args:
            status: Its status.
            content: Bytes of content sent.
            sent: All its bytes sent.
            began: When it was begun.
            cause: The exception that cut it, None if it is whole.
        """
        callback, request = self._observers.on_request, self.request
        assert callback is not None
        since = began if request is None else self._request_began
        seconds = trio.current_time() - since
        record = RequestRecord(
            self.peer, request, status, content, sent, seconds, cause
        )
        self._observers.notify(callback, record)

    def report_switch(self, request: Request, protocol: str) -> None:
        """Report that the connection has switched."""
        callback = self._observers.on_switch
        if callback is None:
            return
        status = 200 if request.method == _TUNNEL else 101
        seconds = trio.current_time() - self._request_began
        record = SwitchRecord(self.peer, request, status, protocol, seconds)
        self._observers.notify(callback, record)

    def report_end(
        self,
        reason: EndReason,
        switched: UpgradedStream | None,
        protocol: str | None,
        requests: int,
        *,
        answered: bool,
    ) -> None:
        """Report that the connection is closed; see :class:`EndRecord`. The last call.

        Args:
            reason: Why it ended.
            switched: The stream after the switch, None if there was none.
            protocol: The protocol that it had switched to.
            requests: The number of requests received.
            answered: Whether an answer was begun since the last request, or it switched.
        """
        callback = self._observers.on_end
        request, self.request = self.request, None
        cause, self.cause = self.cause, None
        if callback is None:
            return
        record = EndRecord(
            peer=self.peer,
            reason=reason,
            cause=cause,
            request=request,
            answered=answered and request is not None,
            protocol=protocol,
            requests=requests,
            received=0 if switched is None else switched.received,
            sent=0 if switched is None else switched.sent,
            seconds=trio.current_time() - self._began,
        )
        self._observers.notify(callback, record)

# What a server lets others see of its work: why connections end, records for an observer,
# and counts.  Nothing here does anything; whoever does something writes it down.
#
# Annotations are evaluated here: of strings NamedTuple compiles each one at the import.

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from .._streams.underlying import Peer
from .._util import public

if TYPE_CHECKING:
    from .request import Request


@public
class EndReason(Enum):
    """Why a connection of a server ended."""

    PEER = "the peer ended it"
    """Between two requests, or before the first."""
    ANSWERED = "the last answer ended it"
    """It said ``Connection: close``, or the request did."""
    RETURNED = "the handler returned"
    """After a switch."""
    LOST = "the connection broke"
    """The peer reset it, or has vanished."""
    MALFORMED = "what came was not HTTP"
    """It was answered with the status that says so."""
    ERROR = "the app or the handler raised"
    """After a switch it was reset."""
    IDLE = "no request came"
    """``Limits.keep_alive_timeout``; nothing was sent."""
    SLOW_HEADER = "a head took too long"
    """``Limits.header_timeout``; 408 if some of it had come."""
    SLOW_RESPONSE = "the app took too long"
    """``Limits.response_timeout``; 503."""
    SLOW_READER = "the peer did not read"
    """``Limits.send_timeout``; it was reset."""
    DRAINED = "the server drained"
    """It was idle, or the grace was over."""
    CANCELLED = "the server was cancelled"
    """Or whoever called :func:`serve_stream`."""


@public
class RequestRecord(NamedTuple):
    """A request was answered by a :class:`Response`; for ``observer.request``.

    Attributes:
        request: The request, whose connection is out of its reach by now.
        status: The status of the answer.
        seconds: From its whole head to the end of the answer.
    """

    request: "Request"
    status: int
    seconds: float


@public
class SwitchRecord(NamedTuple):
    """A connection has switched; for ``observer.switched``.

    Attributes:
        request: The request that asked for it.
        protocol: What was switched to, as the 101 says it; ``"CONNECT"`` for a tunnel.
        seconds: From the request's whole head.
    """

    request: "Request"
    protocol: str
    seconds: float


@public
class EndRecord(NamedTuple):
    """A connection has ended; for ``observer.ended``.

    Attributes:
        peer: Where the client was.
        reason: Why it ended.
        protocol: What it had switched to, ``"CONNECT"`` for a tunnel, None if it was
            HTTP to the end.
        requests: How many requests came on it.
        received: Bytes received after the switch, through the stream.
        sent: Bytes sent after the switch, through the stream.
        seconds: From accept to close.
    """

    peer: Peer
    reason: EndReason
    protocol: str | None
    requests: int
    received: int
    sent: int
    seconds: float


@public
class ErrorRecord(NamedTuple):
    """Something raised that is nobody's business but ours; for ``observer.error``.

    The log has it too.

    Attributes:
        peer: Where the client is.
        request: The request it was raised for, None if for none.
        error: The exception, a group perhaps.
    """

    peer: Peer
    request: "Request | None"
    error: Exception


@public
class ServerStatistics(NamedTuple):
    """What a server does and has done; from ``Server.statistics()``.

    Attributes:
        connections: Open connections, upgraded ones included.
        idle: Those of them on which no request is under way.
        upgraded: Those of them that have switched.
        total_connections: Connections since the start.
        total_requests: Requests, each with its whole head.
        total_upgraded: Switches.
        total_errors: Exceptions of apps and handlers.
        is_draining: Whether the server is on its way to its end.
    """

    connections: int
    idle: int
    upgraded: int
    total_connections: int
    total_requests: int
    total_upgraded: int
    total_errors: int
    is_draining: bool

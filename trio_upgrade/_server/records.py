# The records that an observer of a server gets, each made by the code that it reports on.
#
# Annotations are evaluated in this module: NamedTuple would compile each that is a string
# at import.

from typing import TYPE_CHECKING, NamedTuple

from .._streams.underlying import Peer
from .._util import public
from .end_reason import EndReason

if TYPE_CHECKING:
    from .request import Request


@public
class RequestRecord(NamedTuple):
    """A final answer was sent, or cut after it was begun; for ``observer.request``.

    There is one for every answer on the wire: of the app, and of the library itself, such
    as the 400 to a malformed request. A switch has a :class:`SwitchRecord` instead.

    Bytes are counted when the transport takes them, which does not mean that the client
    has received them. Of a piece that was not taken whole because the answer was cut, at
    most 64 KiB, nothing is counted.

    Attributes:
        peer: The address of the client.
        request: The request. It can no longer read from its connection, nor answer. None
            if the header section was refused, or came too slowly: there is no request
            then.
        status: The status of the answer.
        content: Bytes of content sent, without framing, as in Common Log Format; 0 to
            HEAD. Of a chunk of an iterable body that was cut nothing is counted.
        sent: All bytes sent of the answer: header section, content and its framing. The
            bytes that TLS adds, and a 100 before the answer, do not count.
        seconds: From the end of the request's header section to the end of the answer;
            without a request from its refusal.
        cause: The exception that cut the answer, for example the BrokenResourceError if
            the client has left, that of an iterable body, or Cancelled. None if the
            answer is whole.
    """

    peer: Peer
    request: "Request | None"
    status: int
    content: int
    sent: int
    seconds: float
    cause: BaseException | None


@public
class SwitchRecord(NamedTuple):
    """A connection has switched; for ``observer.switched``.

    Attributes:
        peer: The address of the client.
        request: The request that asked for the switch.
        status: 101; 200 for a tunnel.
        protocol: The new protocol, as the 101 spells it; ``"CONNECT"`` for a tunnel.
        seconds: From the end of the request's header section to the switch.
    """

    peer: Peer
    request: "Request"
    status: int
    protocol: str
    seconds: float


@public
class EndRecord(NamedTuple):
    """A connection has ended; for ``observer.ended``.

    Attributes:
        peer: The address of the client.
        reason: Why it ended.
        cause: The exception that it ended with, for example the ``ssl.SSLError`` of a
            failed TLS handshake, or that of the app. None if there was none.
        request: The request that the connection ended with: it has switched, its answer
            was the last one, or it had no whole answer. None if the connection ended
            before its first request, between two, or with one that was refused.
        answered: Whether an answer to that request was begun, or the switch made.
        protocol: The protocol that it had switched to, ``"CONNECT"`` for a tunnel, None
            if it was HTTP to the end.
        requests: The number of requests received on it.
        received: Bytes received after the switch, through the stream.
        sent: Bytes sent after the switch, through the stream.
        seconds: From accept to close.
    """

    peer: Peer
    reason: EndReason
    cause: Exception | None
    request: "Request | None"
    answered: bool
    protocol: str | None
    requests: int
    received: int
    sent: int
    seconds: float


@public
class ErrorRecord(NamedTuple):
    """An app, a handler or the server itself raised; for ``observer.error``.

    The error is also logged, or raised if the server is strict.

    Attributes:
        peer: The address of the client.
        request: The request that was served, None if there was none.
        error: The exception, which may be a group.
    """

    peer: Peer
    request: "Request | None"
    error: Exception

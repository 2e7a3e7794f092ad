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
    """A request was answered by a :class:`Response`; for ``observer.request``.

    Attributes:
        request: The request. It can no longer read from its connection, nor answer.
        status: The status of the answer.
        seconds: From the end of the request's header section to the end of the answer.
    """

    request: "Request"
    status: int
    seconds: float


@public
class SwitchRecord(NamedTuple):
    """A connection has switched; for ``observer.switched``.

    Attributes:
        request: The request that asked for the switch.
        protocol: The new protocol, as the 101 spells it; ``"CONNECT"`` for a tunnel.
        seconds: From the end of the request's header section to the switch.
    """

    request: "Request"
    protocol: str
    seconds: float


@public
class EndRecord(NamedTuple):
    """A connection has ended; for ``observer.ended``.

    Attributes:
        peer: The address of the client.
        reason: Why it ended.
        protocol: The protocol that it had switched to, ``"CONNECT"`` for a tunnel, None
            if it was HTTP to the end.
        requests: The number of requests received on it.
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

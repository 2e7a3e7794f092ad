# Why connections of a server end.  A module of its own, because the deadlines, the state
# of the server and the records all use it.
from __future__ import annotations

from enum import Enum

from .._util import public


@public
class EndReason(Enum):
    """Why a connection of a server ended."""

    PEER = "the peer ended it"
    """Between two requests, or before the first."""
    ANSWERED = "the last answer ended it"
    """It said ``Connection: close``, or the request did."""
    RETURNED = "the handler returned"
    """After a switch."""
    RESET = "the handler reset it"
    """By :meth:`UpgradedStream.reset`."""
    LOST = "the connection broke"
    """The peer reset it, or has vanished."""
    TLS_FAILED = "TLS failed"
    """In the handshake, or later while no request was under way. A client that has only
    hung up in the handshake is PEER or LOST."""
    MALFORMED = "the request was not HTTP"
    """It was refused with a 4xx or 5xx. Or no PROXY protocol header came, or a malformed
    one, from a peer that has to send it: nothing was sent."""
    ERROR = "the app or the handler raised"
    """After a switch the connection was reset, unless ``send_eof`` had returned."""
    IDLE = "no request came"
    """``Limits.keep_alive_timeout``; nothing was sent."""
    SLOW_HEADER = "a message head took too long"
    """``Limits.header_timeout``; 408 if a part of it had come. A PROXY protocol header
    has the same time, and gets no answer."""
    SLOW_RESPONSE = "the app took too long"
    """``Limits.response_timeout``; 503."""
    SLOW_READER = "the peer did not read"
    """``Limits.send_timeout``; the connection was reset."""
    DRAINED = "the server drained"
    """The connection was idle, or the grace was over. After a switch it was reset."""
    CANCELLED = "the server was cancelled"
    """Or the caller of :func:`serve_stream` was. After a switch it was reset."""

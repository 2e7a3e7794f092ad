# The exception tree.  It is split by what the caller can do about an error, not by where
# the error was found.  Trio's own resource errors are not in it: they pass through
# unchanged and keep their meaning (Broken: the peer or the network; Closed: this side;
# Busy: two tasks).
"""Every exception that trio_upgrade raises.

::

    TrioUpgradeError
    ├── OpenError               a client exchange brought no response or no switch
    │   ├── Refused             the server answered with an ordinary response
    │   │   ├── UpgradeRefused  the answer to an offer
    │   │   └── TunnelRefused   the answer to a CONNECT
    │   ├── SocksRefused        the SOCKS proxy opened no tunnel
    │   ├── TLSFailed           the TLS handshake failed, or TLS broke before the answer
    │   ├── IllegalSwitch       the server switched in a way that the RFC forbids
    │   ├── BadResponse         the server's answer is not valid HTTP
    │   └── PeerGone            the connection ended before the answer was complete
    ├── BodyError               reading a message body failed
    │   ├── BadBody             its framing is broken, or it is incomplete
    │   ├── BodyTimeout         it came too slowly
    │   └── BodyTooLarge        it is longer than the reader's limit
    ├── NotOffered              the app accepted a protocol that was not offered
    ├── Unavailable             the server accepts no more switches now
    ├── MalformedMessage        the peer sent no HTTP/1.1 message that we accept
    ├── HalfCloseUnsupported    the transport cannot end one direction only
    ├── EndOfStream             the peer ended before the bytes that were wanted
    ├── TooLong                 the separator is not within the limit
    └── UsageError              the state of the object does not allow the call

``Refused`` and its two subclasses carry a :class:`ClientResponse`; therefore they are
defined beside it, in ``_client/response.py``.
"""

from __future__ import annotations

from ._util import public


@public
class TrioUpgradeError(Exception):
    """The base class of all exceptions that trio_upgrade defines."""

    def __reduce__(self) -> tuple[object, ...]:
        # For copy and pickle: by __init__, as exceptions are restored otherwise, a
        # message would be made of a message.
        return _restore, (type(self), self.args, vars(self).copy())


def _restore(
    kind: type[TrioUpgradeError], args: tuple[object, ...], state: dict[str, object]
) -> TrioUpgradeError:
    exc = kind.__new__(kind, *args)
    vars(exc).update(state)
    return exc


@public
class OpenError(TrioUpgradeError):
    """A client exchange ended without the response or the switch that it asked for.

    The message names the URL or the proxy, without userinfo and query, and the stage.
    What came from the peer is escaped in it. An ``OSError`` of connecting has the same
    as a note (``__notes__``).

    If :func:`open_upgrade`, :func:`open_tunnel` or :func:`open_connection` raises it,
    nothing is left open.
    """


@public
class SocksRefused(OpenError):
    """A SOCKS proxy opened no tunnel, or its reply is not SOCKS5.

    Attributes:
        proxy: ``host:port`` of that proxy, which may be any proxy of a chain.
        code: The reply code (RFC 1928 §6), for example 2 forbidden, 4 host unreachable,
            5 connection refused. None if there was no reply to the request, for example
            because the credentials were wrong.
    """

    def __init__(self, reason: str, proxy: str, code: int | None) -> None:
        super().__init__(f"the SOCKS proxy {proxy} refused: {reason}")
        self.proxy = proxy
        self.code = code


@public
class TLSFailed(OpenError):
    """The TLS handshake failed, or TLS broke before the answer; the connection is closed.

    Reasons: the certificate is not trusted or has another name, the peer does not speak
    TLS, the two sides have no TLS version or protocol in common, or the peer refuses our
    certificate. In TLS 1.3 the last is known only when the answer is awaited. The
    :exc:`ssl.SSLError`, if there is one, is the ``__cause__``; the message has its name.
    """


@public
class IllegalSwitch(OpenError):
    """The server sent a 101 that RFC 9110 §7.8 does not allow; the connection is closed.

    Attributes:
        defect: What is wrong with the 101, as a short clause.
    """

    def __init__(self, defect: str) -> None:
        super().__init__(f"illegal 101: {defect}")
        self.defect = defect


@public
class BadResponse(OpenError):
    """The server's answer breaks HTTP/1.1 or a limit; the connection is closed."""


@public
class PeerGone(OpenError):
    """The server ended or reset the connection before its answer was complete.

    The error of the transport, if there was one, is the ``__cause__``.

    Attributes:
        request_sent: Whether any byte of the request was given to the transport. If not,
            the server cannot have acted on it, so it may be made again on another
            connection, whatever its method (RFC 9110 §9.2.2). The CONNECT that opens the
            way through a proxy of ``via`` does not count.
    """

    def __init__(self, reason: str = "", *, request_sent: bool = False) -> None:
        super().__init__(reason)
        self.request_sent = request_sent


@public
class BodyError(TrioUpgradeError):
    """Reading a message body failed.

    An app need not catch it for its own request, and it is not logged as a bug: the
    server answers with :attr:`status`, and closes the connection if it cannot find the
    end of the body any more.

    Attributes:
        status: The status code for the peer.
    """

    status = 400


@public
class BadBody(BodyError):
    """The framing of the body is broken, or the connection ended inside it (400)."""


@public
class BodyTimeout(BodyError):
    """The body came more slowly than ``Limits.body_timeout`` allows (408)."""

    status = 408

    def __init__(self) -> None:
        super().__init__("the body came too slowly")


@public
class BodyTooLarge(BodyError):
    """The body is longer than its reader allows (413).

    Attributes:
        limit: The limit of the reader, in bytes.
    """

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


@public
class NotOffered(TrioUpgradeError):
    """The app accepted a protocol that the request did not offer (RFC 9110 §7.8).

    Nothing was sent. An app need not catch it, and it is not logged as a bug: the server
    answers with a 426 that names the protocol (RFC 9110 §15.5.22), and the connection
    goes on.

    Attributes:
        protocol: The protocol that the app named.
    """

    def __init__(self, protocol: str) -> None:
        super().__init__(f"the request does not offer {protocol!r}")
        self.protocol = protocol


@public
class Unavailable(TrioUpgradeError):
    """The server accepts no more switches now.

    Either it is draining, or ``Limits.upgraded`` is reached. Nothing was sent. An app
    need not catch it, and it is not logged as a bug: the client gets a 503.
    """


@public
class MalformedMessage(TrioUpgradeError):
    """The peer sent bytes that are not an HTTP/1.1 message, or one that we refuse.

    Attributes:
        status: The status code for a client.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@public
class HalfCloseUnsupported(TrioUpgradeError):
    """``send_eof`` was called on a stream whose transport cannot end one direction only.

    The usual case is TLS. The call did nothing; ``aclose`` ends both directions.
    """


@public
class EndOfStream(TrioUpgradeError, EOFError):
    """The peer ended its direction before all the bytes that were wanted had come.

    :meth:`UpgradedStream.receive_exactly` and :meth:`UpgradedStream.receive_until` raise
    it. All bytes that have come are again the next to be read, and then the end.

    Attributes:
        available: How many bytes there are before the end; 0 if the peer ended between
            two messages.
    """

    def __init__(self, wanted: str, available: int) -> None:
        super().__init__(f"the peer ended before {wanted}, after {available} bytes")
        self.available = available


@public
class TooLong(TrioUpgradeError):
    """The separator did not come within the limit of the caller.

    :meth:`UpgradedStream.receive_until` raises it. All bytes that have come are again the
    next to be read.

    Attributes:
        limit: The limit, in bytes.
    """

    def __init__(self, separator: bytes, limit: int) -> None:
        super().__init__(f"{separator!r} did not come within {limit} bytes")
        self.limit = limit


@public
class UsageError(TrioUpgradeError, RuntimeError):
    """The state of an object does not allow the call, for example a second accept.

    It is a bug in the calling code. The call did nothing.
    """

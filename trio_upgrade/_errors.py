# The exception tree.  Split by what the reader can do about it, not by where it was
# found.  Trio's own resource errors are not in it: they pass through untouched and keep
# their meaning (Broken: the peer or the network; Closed: this side; Busy: two tasks).
"""Every exception that trio_upgrade raises.

::

    TrioUpgradeError
    ├── OpenError               a client exchange gave no response or no switch
    │   ├── Refused             the server answered with an ordinary response
    │   │   ├── UpgradeRefused  to an offer
    │   │   └── TunnelRefused   to a CONNECT
    │   ├── SocksRefused        the SOCKS proxy opened no tunnel
    │   ├── TLSFailed           no TLS could be agreed on
    │   ├── IllegalSwitch       the server switched in a way the RFC forbids
    │   ├── BadResponse         the server's answer is not HTTP
    │   └── PeerGone            the server went away before its answer was complete
    ├── BodyError               reading a message body failed
    │   ├── BadBody             its framing is broken, or the peer left in the middle
    │   ├── BodyTimeout         it came too slowly
    │   └── BodyTooLarge        it is longer than the reader's limit
    ├── NotOffered              the app accepted a protocol that was not offered
    ├── Unavailable             the server takes no more switches now
    ├── MalformedMessage        what came is not an HTTP/1.1 message we can accept
    ├── HalfCloseUnsupported    the transport has no way to end one direction only
    └── UsageError              a call that the state of its object does not permit
"""

from __future__ import annotations

from ._util import public


@public
class TrioUpgradeError(Exception):
    """The root of every exception that is trio_upgrade's own."""


@public
class OpenError(TrioUpgradeError):
    """A client exchange ended without the response or the switch it was made for.

    Whatever its kind, nothing is left open by it when it comes out of
    :func:`open_upgrade`.
    """


@public
class SocksRefused(OpenError):
    """A SOCKS proxy opened no tunnel, or what it said is not SOCKS5.

    Attributes:
        proxy: ``host:port`` of that proxy, which may be any of a chain.
        code: The reply code (RFC 1928 §6): 2 forbidden, 4 host unreachable, 5 refused
            and so on; None where it did not get so far, for want of credentials say.
    """

    def __init__(self, reason: str, proxy: str, code: int | None) -> None:
        super().__init__(f"the SOCKS proxy {proxy} refused: {reason}")
        self.proxy = proxy
        self.code = code


@public
class TLSFailed(OpenError):
    """TLS could not be agreed on; the connection is closed.

    The certificate is not trusted or of another name, the other side does not speak
    TLS, no version or protocol is spoken by both. The :exc:`ssl.SSLError`, where there
    is one, is the ``__cause__``.
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

    The transport's own error, where there was one, is the ``__cause__``.
    """


@public
class BodyError(TrioUpgradeError):
    """Reading a message body failed.

    Of the app's own request and left uncaught it is no bug: the server answers with
    :attr:`status`, and closes the connection if what follows cannot be told from the
    body any more.

    Attributes:
        status: The status code that tells the peer.
    """

    status = 400


@public
class BadBody(BodyError):
    """The body's framing is broken, or the peer left in the middle of it (400)."""


@public
class BodyTimeout(BodyError):
    """The body came more slowly than ``Limits.body_timeout`` allows (408)."""

    status = 408

    def __init__(self) -> None:
        super().__init__("the body came too slowly")


@public
class BodyTooLarge(BodyError):
    """The body is longer than the limit of whoever reads it (413).

    Attributes:
        limit: That limit, in bytes.
    """

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


@public
class NotOffered(TrioUpgradeError):
    """The app accepted a protocol that the request did not offer (RFC 9110 §7.8).

    Nothing was sent. Left uncaught in an app it is no bug: the server answers with
    a 426 that names the protocol (RFC 9110 §15.5.22) and the connection goes on.

    Attributes:
        protocol: The protocol that the app named.
    """

    def __init__(self, protocol: str) -> None:
        super().__init__(f"the request does not offer {protocol!r}")
        self.protocol = protocol


@public
class Unavailable(TrioUpgradeError):
    """The server takes no more switches: it drains, or has as many as it may.

    Nothing was sent. Left uncaught in an app it is no bug: the client gets a 503.
    """


@public
class MalformedMessage(TrioUpgradeError):
    """What the peer sent is not an HTTP/1.1 message that we accept.

    Attributes:
        status: The status code that tells a client so.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@public
class HalfCloseUnsupported(TrioUpgradeError):
    """``send_eof`` on a stream whose transport cannot end one direction only.

    TLS is the usual case. Nothing was done; ``aclose`` ends both directions.
    """


@public
class UsageError(TrioUpgradeError, RuntimeError):
    """A call that the state of its object does not permit, a second accept say.

    It is a bug of the caller's, and the call did nothing.
    """

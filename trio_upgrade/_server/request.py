# The request that an app gets.  It reaches the connection only by methods of Exchange.
from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import trio

from .._body import NO_BODY
from .._errors import BodyError, UsageError
from .._http.headers import Headers, find_head
from .._http.messages import SWITCHING_PROTOCOLS, check_reason, standard_reason
from .._http.switching import (
    find_offers,
    informational_fields,
    switch_fields,
    tunnel_fields,
)
from .._http.targets import (
    Authority,
    Target,
    check_scheme,
    parse_authority,
    parse_target,
)
from .._streams.underlying import (
    find_local,
    find_peer,
    find_tls,
    find_transport_peer,
    is_secure,
)
from .._util import name_kind, public
from .disconnect_scope import DisconnectScope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from .._body import Body
    from .._http.headers import HeadersLike
    from .._http.messages import RequestHead
    from .._http.tokens import Offers
    from .._streams.underlying import Peer
    from .._streams.upgraded import UpgradedStream
    from .exchange import Exchange
    from .server import Server
    from .streamed_response import StreamedResponse

# Not 100 and 101, which the library sends by itself.
_FIRST_INFORMATIONAL, _LAST_INFORMATIONAL = 102, 199


@public
@final
class Request:
    """A request, as an app gets it.

    Attributes:
        method: The method, in the client's case.
        target: The request target as received.
        http_version: ``"1.1"`` or ``"1.0"``.
        server: The server that this connection belongs to.
    """

    __slots__ = (
        "_body",
        "_exchange",
        "_fields",
        "_parts",
        "_peer",
        "_transport",
        "_upgrades",
        "http_version",
        "method",
        "server",
        "target",
    )

    def __init__(
        self,
        head: RequestHead,
        body: Body,
        exchange: Exchange,
        transport: trio.abc.Stream,
        server: Server,
    ) -> None:
        self.method: str = head.method
        self.target: str = head.target
        self.http_version: str = head.http_version
        # The raw header section after a switch, until the fields are read again.
        self._fields: Headers | bytes = head.headers
        # Both None after a switch, until they are read again.
        self._upgrades: Offers | None = find_offers(
            head.method, head.http_version, head.headers
        )
        parts = parse_target(head.method, head.target)
        if parts.scheme is not None:
            check_scheme(parts.scheme, secure=is_secure(transport))
        self._parts: Target | None = parts
        # Once it was read: a connection that is closed does not know its peer any more.
        self._peer: Peer = None
        self._body = body
        # None after a switch.
        self._exchange: Exchange | None = exchange
        self._transport = transport
        self.server: Server = server

    @property
    def headers(self) -> Headers:
        """The fields."""
        if isinstance(self._fields, bytes):
            self._fields = Headers(head=self._fields)
        return self._fields

    @property
    def upgrades(self) -> Offers:
        """The protocols that the request offers to switch to, in the client's order.

        Empty when there is nothing to accept (RFC 9110 §7.8). ``in`` compares names
        without case.
        """
        if self._upgrades is None:
            self._upgrades = find_offers(self.method, self.http_version, self.headers)
        return self._upgrades

    @property
    def _target(self) -> Target:
        if self._parts is None:
            self._parts = parse_target(self.method, self.target)
        return self._parts

    @property
    def path(self) -> str:
        """The path, percent-encoding kept; empty for CONNECT, ``*`` for ``OPTIONS *``."""
        return self._target.path

    @property
    def query(self) -> str:
        """The part after the ``?``, not decoded; empty if there is none."""
        return self._target.query

    @property
    def scheme(self) -> str:
        """``"https"`` over TLS, else ``"http"``.

        It is never taken from the target: an absolute target with a scheme that needs
        TLS is refused in clear text with a 421.
        """
        return "https" if is_secure(self._transport) else "http"

    @property
    def authority(self) -> Authority:
        """Host and port, of the target if it has them, else of the Host field.

        An absolute target overrides Host (RFC 9112 §3.2.2).
        """
        if self._target.authority is not None:
            return self._target.authority
        return parse_authority(self.headers.get("host", ""))

    @property
    def peer(self) -> Peer:
        """The client's address: host and port, a Unix socket's path, None if unknown.

        A client that binds a Unix socket chooses its path or abstract name: any bytes,
        decoded as :func:`os.fsdecode` does. In a log write it by :func:`ascii`. Once the
        connection is closed, it is known only if it was read before.

        With ``proxy_protocol=`` it is what the load balancer says. :func:`forwarded`
        finds the client behind proxies that speak HTTP.
        """
        # A system call, so it is made only when the address is read.
        if self._peer is None:
            self._peer = find_peer(self._transport)
        return self._peer

    @property
    def local(self) -> Peer:
        """The address of our side that the client has connected to, as :attr:`peer`.

        It tells the addresses of a server with several of them apart.
        """
        return find_local(self._transport)

    @property
    def transport_peer(self) -> Peer:
        """The address that the connection comes from, as :attr:`peer` has it.

        It differs from :attr:`peer` only with ``proxy_protocol=``: it is the load
        balancer's.
        """
        return find_transport_peer(self._transport)

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The client's certificate, as :meth:`ssl.SSLSocket.getpeercert` describes it.

        None without TLS, and if the client has sent no certificate. A server only asks
        for one if its ``ssl_context.verify_mode`` is ``ssl.CERT_REQUIRED`` or
        ``ssl.CERT_OPTIONAL``, and refuses one that its authorities have not signed. It is
        that of the connection: it stays readable after a switch and after the end.
        """
        tls = find_tls(self._transport)
        return None if tls is None else tls.getpeercert()

    @property
    def has_body(self) -> bool:
        """Whether the request came with a body, by its framing (RFC 9112 §6.3).

        True also if the body has been read. A Content-Length of 0 is no body; a chunked
        body may turn out to be empty.
        """
        return self._body is not NO_BODY

    @property
    def trailers(self) -> Headers:
        """The fields after a chunked body; empty until its end was read."""
        return self._body.trailers

    async def read(self, limit: int | None = None) -> bytes:
        """Read the whole body and keep it: a second call returns the same bytes.

        Sends the 100 that an ``Expect: 100-continue`` asks for. A cancelled call loses
        nothing, and the next call goes on; only a cancellation in the middle of that 100
        leaves the connection broken.

        Args:
            limit: The most bytes to read; None means ``Limits.body_bytes``.

        Raises:
            BodyTooLarge: The body is longer. If uncaught it is answered with a 413.
            BadBody: The framing is broken or the client left. If uncaught it is answered
                with a 400.
            UsageError: The body is gone: the request was answered, or a switch dropped
                its body.
            trio.BrokenResourceError: The client left before the 100 was sent.
        """
        try:
            return await self._body.read(limit)
        except BodyError as exc:
            if self._exchange is not None:
                self._exchange.note_client_error(exc)
            raise

    def stream(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it is received, without a limit on its length.

        Sends the 100 that an ``Expect: 100-continue`` asks for. The pieces are not kept
        for :meth:`read`.

        Raises:
            BadBody: As :meth:`read` does, from the iteration.
        """
        return self._body.stream()

    async def wait_disconnect(self) -> bool:
        """Wait until the client is gone, for apps that take long to answer.

        The client is gone when it resets the connection, and when it ends its side,
        unless the request makes an offer or is a CONNECT: then the client may mean a
        half-close, and the stream after the switch gets its end. But an end inside a
        body with a Content-Length always means that the client is gone. An app whose
        client is gone may return None.

        Any number of tasks may wait, also while a task reads the body or accepts a
        switch. Only reading sends a 100. Bytes that the client sends meanwhile are kept,
        up to ``Limits.read_ahead`` bytes; a client that has sent more is not watched
        until the app reads the body. Costs nothing unless called.

        A cancelled call loses nothing. A wait that outlives the request receives no
        bytes of the next one, nor of the protocol after a switch.

        Returns:
            True if the client is gone before it was answered. False if the request was
            answered, the connection switched, or the server ended it first; also if that
            was before the call.
        """
        if self._exchange is None:
            await trio.lowlevel.checkpoint()
            return False
        return await self._exchange.wait_disconnect()

    def cancelled_on_disconnect(
        self,
    ) -> AbstractAsyncContextManager[trio.CancelScope, bool]:
        """Return a block that is cancelled when the client is gone.

        ::

            async with request.cancelled_on_disconnect():
                return Response(200, await search(request.query))
            return None  # The client has left.

        The client is gone by the rules of :meth:`wait_disconnect`, which tell when a
        client is watched at all: a mere end of its side counts, unless the request makes
        an offer or is a CONNECT. The block is not cancelled once the request was
        answered or the connection has switched.

        A block of :meth:`respond` watches the client by itself, and lets a client that
        has only ended its side read on. Inside this block the answer is cut instead.

        Entering is a checkpoint. What the block raises comes out as it is. The client is
        watched from 0.05 seconds after entering on, so that a short block costs no task.

        Returns:
            An async context manager that gives the :class:`trio.CancelScope` of the
            block; its ``cancelled_caught`` tells afterwards whether the client was gone.
        """
        if self._exchange is None:
            return DisconnectScope(self.wait_disconnect, None)
        return self._exchange.cancelled_on_disconnect()

    async def send_informational(self, status: int, headers: HeadersLike = ()) -> None:
        """Send an informational response before the answer (RFC 9110 §15.2).

        For example a 103 with Link fields (RFC 8297). To HTTP/1.0 nothing is sent, as it
        knows no 1xx. The 100 is sent by reading the body, the 101 by a switch.

        Cancelled before the first byte, nothing has happened; in the middle, the
        connection is broken.

        Args:
            status: 102 to 199.
            headers: Pairs or a mapping.

        Raises:
            TypeError: An argument has another type.
            ValueError: The status is another one; a field is malformed, hop-by-hop or
                about framing (§8.6).
            UsageError: The answer was begun, or the connection has switched.
            trio.BusyResourceError: Another task is sending on this connection.
            trio.BrokenResourceError: The client is gone.
        """
        fields = informational_fields(headers)
        if not _FIRST_INFORMATIONAL <= _check_status(status) <= _LAST_INFORMATIONAL:
            raise ValueError(f"not the status of an informational response: {status}")
        exchange = self._get_exchange()
        await exchange.send_informational(status, standard_reason(status), fields)

    def respond(
        self,
        status: int,
        headers: HeadersLike = (),
        *,
        reason: str | None = None,
        first: bytes = b"",
        cancel_on_disconnect: bool = True,
    ) -> StreamedResponse:
        """Answer by a response whose content the app sends piece by piece.

        ::

            async with request.respond(200, {"Content-Type": "text/plain"}) as answer:
                await answer.send(b"one, ")
                await answer.send(b"two")

        Entering sends the header section at once. With a Content-Length that much content
        has to follow. Otherwise the content is chunked, and to HTTP/1.0 it ends with the
        connection. Leaving the block ends the answer; the app then returns None. An
        exception or a cancellation in the block cuts the answer: the connection is reset.

        The body of the request may be read in the block. If a part of it is unread, it is
        handled as for :class:`Response`: no 100 is sent for it any more.
        ``Limits.response_timeout`` ends with the header section; ``Limits.send_timeout``
        holds for what is sent.

        Args:
            status: 200 to 999.
            headers: As for :class:`Response`.
            reason: As for :class:`Response`.
            first: Content to send together with the header section, for an answer that
                begins with some: one packet less.
            cancel_on_disconnect: Whether the block is cancelled if the client leaves
                while the app sends nothing: at a reset at once; after an end of the
                client's side only when nothing was sent for ``Limits.linger`` seconds, as
                the client may read on. The block then raises BrokenResourceError. With
                False the block waits on, and it opens no cancel scope, so it can be
                entered in one task and left in another.

        Returns:
            An async context manager that gives the :class:`StreamedResponse`.

        Raises:
            TypeError: As for :class:`Response`.
            ValueError: As for :class:`Response`.
            UsageError: The connection has switched, or this is a CONNECT and the status
                would promise a tunnel. From entering: the answer was begun already.
            trio.BusyResourceError: From entering: another task is sending.
            trio.BrokenResourceError: From entering: the client is gone. A cancellation
                in the middle of the header section breaks the connection, too.
        """
        return self._get_exchange().respond(
            status, headers, reason, first, cancel_on_disconnect=cancel_on_disconnect
        )

    async def accept_upgrade(
        self,
        protocol: str,
        *,
        headers: HeadersLike = (),
        reason: str = SWITCHING_PROTOCOLS,
    ) -> tuple[UpgradedStream, bytes]:
        """Switch this connection inside the app (RFC 9110 §7.8, §15.2.2).

        In order: the 100, if one was expected; the rest of the body, read and dropped;
        the 101. The app then returns None; the stream is closed when it does, and
        reset when it raises.

        If it is cancelled before the first byte of the 101, nothing has happened and any
        answer is possible, but a body that was dropped in part can no longer be read. If
        the 101, or a 100 before it, fails or is cancelled in the middle, the connection
        is broken and no other answer can be sent.

        Args:
            protocol: One of :attr:`upgrades`, in the spelling for the 101.
            headers: Further fields for the 101.
            reason: Its reason phrase.

        Returns:
            The stream, and a snapshot of the bytes that are first in it.

        Raises:
            NotOffered: The request does not offer the protocol.
            Unavailable: The server accepts no switch now.
            ValueError: A field or the reason is malformed, or a field is hop-by-hop or
                about framing.
            BodyTooLarge: More than ``Limits.drain_body`` bytes of body are unread.
            BadBody: The body is broken.
            UsageError: The request was answered already.
            trio.BrokenResourceError: The client is gone.
        """
        fields = switch_fields(protocol, headers)
        stream = await self._get_exchange().accept_upgrade(
            protocol, fields, check_reason(reason)
        )
        # The 101 may have been sent without a checkpoint.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return stream, stream.head

    async def accept_connect(
        self, *, headers: HeadersLike = ()
    ) -> tuple[UpgradedStream, bytes]:
        """Make this CONNECT a tunnel inside the app (RFC 9110 §9.3.6).

        For an app that connects to :attr:`authority` first, and sends the 200 only if
        that succeeded. Everything else is as for :meth:`accept_upgrade`.

        Args:
            headers: Fields for the 200.

        Returns:
            The stream, and a snapshot of the bytes that are first in it.

        Raises:
            ValueError: A field is malformed, hop-by-hop or about framing.
            Unavailable: The server accepts no switch now.
            UsageError: The request is no CONNECT, or was answered already.
            trio.BrokenResourceError: The client is gone.
        """
        stream = await self._get_exchange().accept_connect(tunnel_fields(headers))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return stream, stream.head

    def _get_exchange(self) -> Exchange:
        if self._exchange is None:
            raise UsageError("the connection has switched protocols already")
        return self._exchange

    def _release_http(self) -> None:
        # Frees the HTTP state, and all values that can be computed again: the connection
        # has switched, so the request may be held for days.
        self._exchange = None
        self._upgrades = self._parts = None
        fields = self._fields
        assert isinstance(fields, Headers)
        self._fields = find_head(fields) or fields

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path or self.target}>"


def _check_status(status: object) -> int:
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"a status must be an int such as 103, not {name_kind(status)}")
    return status

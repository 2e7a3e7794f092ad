# One request on its way through the app: read, decided, answered or switched.  It
# decides nothing about the rules (_handshake does) and closes nothing (_session does).
# When it is over it lets go of the connection, so that a Request which somebody kept
# can neither read nor answer the next one.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast, final

from ._body import Body
from ._closing import find_socket
from ._errors import BodyError, BodyTooLarge, MalformedMessage, NotOffered, UsageError
from ._groups import find_leaves
from ._handshake import find_offers, must_close
from ._headers import field_values
from ._messages import RequestHead, Response
from ._request import Request
from ._stream import UpgradedStream

if TYPE_CHECKING:
    import trio

    from ._connection import HTTPConnection
    from ._dates import DateClock
    from ._headers import Field
    from ._server import Server

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@final
class ServerExchange:
    """A request and what became of it.

    Args:
        http: The connection, until the exchange is over.
        transport: What it runs on.
        head: Of the request.
        server: What the request is told of its server.
        secure: Whether the transport is TLS.

    Attributes:
        request: What the app gets.
        stream: What the connection has become; None while it is HTTP.

    Raises:
        MalformedMessage: The target has no form that the method permits.
    """

    def __init__(
        self,
        http: HTTPConnection,
        transport: trio.abc.Stream,
        head: RequestHead,
        server: Server,
        *,
        secure: bool,
    ) -> None:
        self._http: HTTPConnection | None = http
        self._transport = transport
        self._dropped = False
        self._clients_faults: list[Exception] = []
        self.server: Server = server
        self.secure: bool = secure
        self.stream: UpgradedStream | None = None
        offers = find_offers(head.method, head.http_version, head.headers)
        limit = server.limits.body_bytes
        codec = http.codec
        body = Body(self._receive_body, codec.body_left, limit, lambda: codec.trailers)
        try:
            self.request = Request(head, offers, body, self)
        except ValueError as exc:
            raise MalformedMessage(f"the request target is malformed: {exc}") from exc

    @property
    def peer(self) -> tuple[str, int] | str | None:
        """Where the client is; asked of the kernel only when somebody wants to know."""
        return find_peer(self._transport)

    @property
    def http(self) -> HTTPConnection:
        """The HTTP side.

        Raises:
            UsageError: The exchange is over, or it has none any more.
        """
        if self._http is None:
            raise UsageError(
                "the request was answered already"
                if self.stream is None
                else "the connection has switched protocols already"
            )
        return self._http

    def finish(self) -> None:
        """End the exchange: what is kept of it has no hold on the connection."""
        self._http = None

    async def _receive_body(self) -> bytes:
        http = self.http
        if self._dropped:
            raise UsageError("a part of the body was dropped for a switch")
        if http.codec.client_waits:
            await http.send_informational(100, "Continue", ())
        try:
            return await http.receive_body()
        except BodyError as exc:
            self.blame_client(exc)
            raise

    async def accept_upgrade(
        self, protocol: str, fields: tuple[Field, ...], reason: str
    ) -> UpgradedStream:
        """Switch; see :meth:`Request.accept_upgrade`."""
        http = self.http
        if not http.may_answer:
            raise UsageError("the request was answered already")
        if protocol not in self.request.upgrades:
            raise self._clients_fault(NotOffered(protocol))
        if http.codec.body_left is not None:
            # Refused before a 100 invites it.
            self._check_drain(http.codec.body_left)
        if http.codec.continue_owed:
            # Also for a request without content: with an Upgrade field beside it the
            # 100 is a MUST (RFC 9110 §7.8).
            await http.send_informational(100, "Continue", ())
        await self._drain_body(http)
        await http.send_informational(101, reason, fields)
        return self._hand_over(http)

    async def accept_connect(self, fields: tuple[Field, ...]) -> UpgradedStream:
        """Make it a tunnel; see :meth:`Request.accept_connect`."""
        http = self.http
        if not http.may_answer:
            raise UsageError("the request was answered already")
        if self.request.method != "CONNECT":
            raise UsageError(f"no tunnel was asked for by {self.request!r}")
        await http.send_tunnel("OK", (self.server.dates.field(), *fields))
        return self._hand_over(http)

    def _hand_over(self, http: HTTPConnection) -> UpgradedStream:
        rest, ended = http.hand_over()
        self.stream = UpgradedStream(self._transport, rest, ended=ended)
        self._http = None
        return self.stream

    async def _drain_body(self, http: HTTPConnection) -> None:
        drained = 0
        while not http.codec.body_ended:
            try:
                chunk = await http.receive_body()
            except BodyError as exc:
                self.blame_client(exc)
                raise
            self._dropped = self._dropped or bool(chunk)
            drained += len(chunk)
            self._check_drain(drained)

    def _check_drain(self, size: int) -> None:
        limit = self.server.limits.drain_body
        if size > limit:
            raise self._clients_fault(BodyTooLarge(limit))

    async def answer(self, response: Response, *, close: bool = False) -> bool:
        """Send a final response and leave the connection ready for the next request.

        Args:
            response: The answer.
            close: Whether the connection ends with it, whatever else speaks for it.

        Returns:
            Whether there can be a next request.

        Raises:
            BodyError: What the client sends of its body cannot be skipped; the response
                was sent.
        """
        http = self.http
        server = self.server
        close = close or must_close(
            self.request.method,
            client_waits=http.codec.client_waits,
            unread=http.codec.body_left,
            drain_body=server.limits.drain_body,
        )
        if server.close_refused_early and self.request.upgrades:
            # Somebody took the switch for granted: what follows may be anything.
            close = close or http.codec.has_next
        await send_response(http, response, server.dates, close=close)
        if http.codec.must_close:
            # Nothing that follows would be processed: no need to find its beginning.
            return False
        await self._drain_body(http)
        return http.reusable

    ################################################################
    # Whose fault it is
    ################################################################

    def blame_client(self, error: BodyError) -> None:
        """Take in that this error, should the app let it out, is the client's fault."""
        self._clients_faults.append(error)

    def _clients_fault(self, error: Exception) -> Exception:
        self._clients_faults.append(error)
        return error

    def find_refusal(self, errors: Exception) -> Response | None:
        """Return the answer to errors that are the client's fault, None for a bug.

        The same kinds of error from an app's own client are the app's to handle.
        """
        leaves = find_leaves(errors)
        faults = {id(fault) for fault in self._clients_faults}
        if not all(id(leaf) in faults for leaf in leaves):
            return None
        return refuse(leaves[0])


async def send_response(
    http: HTTPConnection, response: Response, dates: DateClock, *, close: bool
) -> None:
    """Send a :class:`Response` as it is, with a Date unless it has one."""
    fields = response.fields
    if not field_values(fields, b"date"):
        fields = (dates.field(), *fields)
    await http.send_response(
        response.status, response.reason, fields, response.body, close=close
    )


def find_peer(transport: trio.abc.Stream) -> tuple[str, int] | str | None:
    """Return the address at the other end, None if it has none or is gone."""
    sock = find_socket(transport)
    if sock is None:
        return None
    try:
        address: object = sock.getpeername()
    except OSError:
        # Gone by now.
        return None
    if isinstance(address, tuple):
        return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])
    # A Unix socket: usually without a name, on Linux perhaps an abstract one.
    return os.fsdecode(cast("str | bytes", address)) or None


def refuse(error: BaseException) -> Response:
    """Return the plain-text answer that tells a client what was wrong."""
    text = f"{error}\n"
    if isinstance(error, NotOffered):
        return Response(426, text, {**_TEXT, "Upgrade": error.protocol})
    assert isinstance(error, BodyError | MalformedMessage)
    return Response(error.status, text, _TEXT)

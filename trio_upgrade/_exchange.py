# One request on its way through the app: read, decided, answered or switched.  It
# decides nothing about the rules (_handshake does) and closes nothing (_server does).
from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

from ._body import Body
from ._closing import find_socket
from ._errors import (
    BodyError,
    BodyTooLarge,
    MalformedMessage,
    NotOffered,
    UsageError,
)
from ._groups import find_leaves
from ._handshake import find_offers, must_close
from ._messages import RequestHead, Response
from ._request import Request
from ._stream import UpgradedStream

if TYPE_CHECKING:
    import trio

    from ._connection import HTTPConnection
    from ._headers import Field
    from ._server import Server

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@final
class ServerExchange:
    """A request and what became of it.

    Attributes:
        request: What the app gets.
        stream: What the connection has become; None while it is HTTP.
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
        self.server: Server = server
        self.secure: bool = secure
        self.stream: UpgradedStream | None = None
        offers = find_offers(head.method, head.http_version, head.headers)
        body = Body(
            self._receive_body, http.codec.body_length, server.limits.body_bytes
        )
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
            UsageError: There is none any more.
        """
        if self._http is None:
            raise UsageError("the connection has switched protocols already")
        return self._http

    async def _receive_body(self) -> bytes:
        http = self.http
        if http.codec.client_waits:
            await http.send_informational(100, "Continue", ())
        return await http.receive_body()

    async def accept_upgrade(
        self, protocol: str, fields: list[Field], reason: str
    ) -> UpgradedStream:
        """Switch; see :meth:`Request.accept_upgrade`."""
        http = self.http
        if not http.may_answer:
            raise UsageError("the request was answered already")
        if protocol not in self.request.upgrades:
            raise NotOffered(protocol)
        limit = self.server.limits.drain_body
        if http.codec.body_length is not None and http.codec.body_length > limit:
            # Refused before a 100 invites it.
            raise BodyTooLarge(limit)
        if http.codec.continue_owed:
            # Also for a request without content: with an Upgrade field beside it the
            # 100 is a MUST (RFC 9110 §7.8).
            await http.send_informational(100, "Continue", ())
        await self._drain_body(http, limit)
        await http.send_informational(101, reason, fields)
        return self._hand_over(http)

    def _hand_over(self, http: HTTPConnection) -> UpgradedStream:
        rest, ended = http.hand_over()
        self.stream = UpgradedStream(self._transport, rest, ended=ended)
        self._http = None
        return self.stream

    async def _drain_body(self, http: HTTPConnection, limit: int) -> None:
        drained = 0
        while not http.codec.body_ended:
            drained += len(await http.receive_body())
            if drained > limit:
                raise BodyTooLarge(limit)

    async def answer(self, response: Response) -> bool:
        """Send a final response and leave the connection ready for the next request.

        Returns:
            Whether there can be a next request.

        Raises:
            BodyError: What the client sends of its body cannot be skipped; the response
                was sent.
        """
        http = self.http
        limit = self.server.limits.drain_body
        unread = 0 if http.codec.body_ended else http.codec.body_length
        close = must_close(
            self.request.method,
            client_waits=http.codec.client_waits,
            unread=unread,
            drain_body=limit,
        )
        await send_response(http, response, method=self.request.method, close=close)
        if close:
            return False
        await self._drain_body(http, limit)
        return http.reusable


async def send_response(
    http: HTTPConnection, response: Response, *, method: str, close: bool
) -> None:
    """Send a :class:`Response` as it is."""
    await http.send_response(
        response.status,
        response.reason,
        response.fields,
        response.body,
        method=method,
        close=close,
    )


def find_peer(transport: trio.abc.Stream) -> tuple[str, int] | str | None:
    """Return the address at the other end, None if the kernel does not know it."""
    sock = find_socket(transport)
    if sock is None:
        return None
    try:
        address: object = sock.getpeername()
    except OSError:
        # Gone by now.
        return None
    if isinstance(address, str):
        return address
    return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])


def find_refusal(errors: Exception) -> Response | None:
    """Return the answer to errors that are the client's fault, None for a bug."""
    leaves = find_leaves(errors)
    if not all(isinstance(leaf, BodyError | NotOffered) for leaf in leaves):
        return None
    return refuse(leaves[0])


def refuse(error: BaseException) -> Response:
    """Return the plain-text answer that tells a client what was wrong."""
    text = f"{error}\n"
    if isinstance(error, NotOffered):
        return Response(426, text, {**_TEXT, "Upgrade": error.protocol})
    assert isinstance(error, BodyError | MalformedMessage)
    return Response(error.status, text, _TEXT)

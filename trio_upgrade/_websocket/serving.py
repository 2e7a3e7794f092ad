# A WebSocket in answer to a request.  The library's own switch writes the 101; the
# protocol of websockets only says which fields of WebSocket it has, or which refusal is
# due (RFC 6455 §4.2.2).
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast, final

from websockets.datastructures import Headers as WebSocketHeaders
from websockets.exceptions import NegotiationError, ProtocolError
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.frames import Close, CloseCode
from websockets.http11 import Request as Handshake, Response as HandshakeResponse
from websockets.protocol import State
from websockets.server import ServerProtocol

from .. import Response, Upgrade
from .arguments import (
    Origins,
    Timing,
    check_headers,
    check_server_arguments,
    check_subprotocols,
)
from .connections import AddressedServerConnection
from .keepalive import start_keepalive
from .logger import LOGGER, QuietLogger
from .options import public
from .scope import WebSocketScope, says_closed
from .transport import WebSocketTransport

if TYPE_CHECKING:
    import re

    import trio
    from websockets.trio.server import Server, ServerConnection
    from websockets.typing import Origin, Subprotocol

    from .. import HeadersLike, Request, UpgradedStream
    from .arguments import Bounds

WebSocketHandler: TypeAlias = Callable[["ServerConnection"], Awaitable[object]]
"""Called with each WebSocket that a server accepts; its return closes it."""
SelectSubprotocol: TypeAlias = Callable[["Request", Sequence[str]], str | None]

_NAME = "websocket"
_VERSION = "13"
_WANTED = "it must be an async function, await handler(websocket)"
_SWITCHING_PROTOCOLS = 101
# The fields of a handshake that say how HTTP goes on: our own switch, or the response,
# writes them.
_OURS = frozenset({"connection", "content-length", "date", "upgrade"})
_SWITCH_FIELDS = frozenset({b"connection", b"upgrade"})
_EXTENSIONS = enable_server_permessage_deflate(None)
_LOGGER = QuietLogger(LOGGER)


@public
def accept_websocket(
    request: Request,
    handler: WebSocketHandler,
    *,
    origins: Origins | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: str | None = "deflate",
    max_size: Bounds = 2**20,
    max_queue: Bounds = 16,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    headers: HeadersLike = (),
    drain_code: int | None = CloseCode.GOING_AWAY,
) -> Upgrade | Response:
    """Return the answer that makes a request a WebSocket, or refuses it (RFC 6455 §4.2).

    ::

        async def echo(websocket):
            async for message in websocket:
                await websocket.send(message)

        async def app(request):
            return accept_websocket(request, echo)

    Nothing is sent before the app returns the answer, and to another path, or without a
    login, the app may give any other answer. A refusal is an ordinary response, and the
    connection goes on: 405 unless the method is GET; 426 without an offer of WebSocket,
    or with another version than 13; 403 for an origin that is not wanted; 400 for a
    handshake that is malformed, or has no subprotocol of ours.

    A page of any site can open a WebSocket here, with the cookies that its user has for
    this server: where cookies matter, give ``origins`` (RFC 6455 §10.2).

    The handler gets the Trio connection of the ``websockets`` library, opened. Its ends:

    - It returns: a Close with 1000, and up to ``close_timeout`` seconds for the peer's.
      Messages that were not received are dropped.
    - It raises, and the WebSocket is over: :exc:`websockets.exceptions.ConnectionClosed`
      alone is an end, no error.
    - It raises anything else: a Close with 1011, and at most a second for the peer's.
      Then the error is the server's, as from any handler: one log record, and a reset
      unless the peer has answered.
    - It is cancelled, at the end of a grace for example: no Close, but a reset.
    - Its ``send`` is cancelled, by a timeout for example: a part of the message may be on
      the way, so the WebSocket is over, by a reset at the next use.
    - The server drains: a Close with ``drain_code`` at once, or at the turn of the
      connection if the drain has a ``jitter``. The handler learns it as from any close
      of the peer. It never lasts longer than the grace.

    Args:
        request: The request. Its fields and its target are ``websocket.request``.
        handler: Called with the WebSocket, in the task of the connection.
        origins: The values of Origin that are accepted: str with the scheme, and with the
            port if it is not the default, such as ``"https://example.com"``; or compiled
            patterns that match all of it. None among them admits requests without an
            Origin, which browsers do not make. None, the default, admits all.
        subprotocols: The subprotocols, most wanted first. If there are any, a client
            that offers none of them is refused. None, the default: no subprotocol.
        select_subprotocol: Chooses instead: called with the request and the offer,
            returns one of the offer, or None for no subprotocol. It may raise
            :exc:`websockets.exceptions.NegotiationError`, which refuses.
        compression: ``"deflate"`` compresses if the client offers it (RFC 7692); None
            never does.
        max_size: The most bytes of a message, decompressed; a longer one ends the
            WebSocket with 1009. Or a pair: of a message and of a frame. None disables
            the limit.
        max_queue: The most frames that are received before the handler asks for them;
            then no more are read. Or a pair: where reading stops, and where it goes on.
            None disables the limit.
        ping_interval: Seconds between pings. None sends none.
        ping_timeout: Seconds for the pong, after which the WebSocket ends with 1011; by a
            reset if the peer reads so little that the ping could not be sent. None
            disables the limit.
        close_timeout: Seconds that the peer has for its part of the closing handshake.
            None disables the limit.
        headers: Further fields for the 101.
        drain_code: The code of the Close when the server drains: 1001, going away, or
            for example 1012, service restart. None leaves it to the handler, which
            waits for :meth:`Server.wait_draining` to say its last words.

    Returns:
        The :class:`Upgrade` or the refusal, both to be returned by the app. To switch
        in the app, give the protocol and the fields of the first to
        :meth:`Request.accept_upgrade` and call its handler with the result.

    Raises:
        TypeError: An argument has another type.
        ValueError: An argument has no such value, ``select_subprotocol`` chose what was
            not offered, or a field is one that the library writes.
    """
    offered = check_subprotocols(subprotocols)
    timing: Timing = {
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "close_timeout": close_timeout,
        "max_queue": max_queue,
    }
    deflate = check_server_arguments(origins, compression, max_size, timing)
    if not callable(handler):
        raise TypeError(
            f"the handler cannot be called: {_WANTED}, not {type(handler).__name__}"
        )
    if select_subprotocol is not None and not callable(select_subprotocol):
        kind = type(select_subprotocol).__name__
        raise TypeError(f"select_subprotocol cannot be called: {kind}")
    if drain_code is not None and drain_code != CloseCode.GOING_AWAY:
        try:
            Close(drain_code, "").check()
        except ProtocolError as exc:
            raise ValueError(f"drain_code cannot be sent: {drain_code}") from exc
    given = check_headers(headers)
    handshake = _describe(request)
    refusal = _refuse(request, handshake.headers)
    if refusal is not None:
        return refusal
    choice = None
    if select_subprotocol is not None:
        choice = _Choice(request, select_subprotocol)
    protocol = ServerProtocol(
        origins=cast("Sequence[Origin | re.Pattern[str] | None] | None", origins),
        extensions=_EXTENSIONS if deflate else None,
        subprotocols=offered,
        # A plain function: the protocol binds it, which a method does not take part in.
        select_subprotocol=choice and (lambda _protocol, names: choice.choose(names)),
        # accept() negotiates in any state, and no HTTP is to be parsed.
        state=State.OPEN,
        max_size=max_size,
        logger=_LOGGER,
    )
    response = protocol.accept(handshake)
    if choice is not None and choice.failure is not None:
        raise choice.failure
    fields = [
        (name, value)
        for name, value in response.headers.raw_items()
        if name.lower() not in _OURS
    ]
    if response.status_code != _SWITCHING_PROTOCOLS:
        return Response(response.status_code, bytes(response.body), fields)
    run = partial(_run, handler, protocol, handshake, response, timing, drain_code)
    return Upgrade(_NAME, run, [*fields, *given])


def _refuse(request: Request, headers: WebSocketHeaders) -> Response | None:
    # The refusals that the library words differently, or with fields that ours checks.
    if request.method != "GET":
        text = f"a WebSocket is opened by GET, not by {request.method}\n"
        return Response(405, text, {"Allow": "GET"})
    if _NAME not in request.upgrades:
        return Response(426, "this is a WebSocket\n", {"Upgrade": _NAME})
    versions = headers.get_all("Sec-WebSocket-Version")
    if len(versions) == 1 and versions[0] != _VERSION:
        # RFC 6455 §4.4.
        fields = {"Upgrade": _NAME, "Sec-WebSocket-Version": _VERSION}
        return Response(426, f"only version {_VERSION} of WebSocket is here\n", fields)
    return None


def _describe(request: Request) -> Handshake:
    # The request as the protocol wants it: it refuses a second offer beside ours, which
    # is for the server to choose from (RFC 9110 §7.8).
    headers = WebSocketHeaders()
    for name, value in request.headers.raw:
        if name.lower() not in _SWITCH_FIELDS:
            headers[name.decode("latin-1")] = value.decode("latin-1")
    headers["Upgrade"] = _NAME
    headers["Connection"] = "Upgrade"
    return Handshake(request.target, headers)


@final
class _Choice:
    # Chooses a subprotocol by a function of the app.  The protocol would log what it
    # raises and make a 500 of it; but it is the app's, as anything that the app raises.
    __slots__ = ("_request", "_select", "failure")

    def __init__(self, request: Request, select: SelectSubprotocol) -> None:
        self._request = request
        self._select = select
        self.failure: Exception | None = None

    def choose(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        try:
            chosen = self._select(self._request, offered)
            if chosen is not None and chosen not in offered:
                raise ValueError(f"the subprotocol {chosen!r} was not offered")
        except NegotiationError:
            raise
        except Exception as exc:
            self.failure = exc
            raise NegotiationError from exc
        return cast("Subprotocol | None", chosen)


async def _run(
    handler: WebSocketHandler,
    protocol: ServerProtocol,
    handshake: Handshake,
    response: HandshakeResponse,
    timing: Timing,
    drain_code: int | None,
    request: Request,
    stream: UpgradedStream,
    _head: bytes,
) -> None:
    server = request.server
    # Read for the log: when the handler's error comes there, the stream is closed.
    _ = request.peer

    def make(nursery: trio.Nursery) -> AddressedServerConnection:
        websocket = AddressedServerConnection(
            nursery,
            WebSocketTransport(stream, protocol, timing["close_timeout"]),
            protocol,
            cast("Server", None),  # A server of websockets; nothing asks for it here.
            **timing,
        )
        websocket.http_request = request
        websocket.request = handshake
        websocket.response = response
        if drain_code is None:
            start_keepalive(websocket, timing)
        else:
            start_keepalive(websocket, timing, server.wait_draining, drain_code)
        return websocket

    def find_code() -> int:
        if server.is_draining:
            return CloseCode.GOING_AWAY if drain_code is None else drain_code
        return CloseCode.NORMAL_CLOSURE

    scope = WebSocketScope(make, find_code)
    try:
        async with scope as websocket:
            try:
                await handler(websocket)
            except TypeError as exc:
                below = exc.__traceback__ and exc.__traceback__.tb_next
                # Raised by the call itself: no frame of the handler.
                if below is None:
                    exc.add_note(f"the handler: {_WANTED}")
                raise
    except Exception as exc:
        # Of another connection, while this one is open, it is an error.
        if scope.state_left is not State.CLOSED or not says_closed(exc):
            raise

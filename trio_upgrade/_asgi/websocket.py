# One call of an application for one WebSocket: what receive() and send() do.
#
#    CONNECTING --accept--> OPEN --close, or the end of the WebSocket--> CLOSED
#        |                                                                 ^
#        +--close: a 403---------------------------------------------------+
#        +--http.response.start--> DENYING --last http.response.body-------+
#
# The application runs in the task of the connection from the beginning, because it
# chooses the answer.  The WebSocket is a block that a handler runs in, and it closes when
# the handler ends; so from the accept on, a second task runs a handler, which only waits
# for the end of the application.
from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, final

import trio
from websockets.exceptions import ConnectionClosed

from .. import BodyError, Response, Unavailable, Upgrade, UsageError
from ..websocket import accept_websocket
from .errors import ClientDisconnected, choose_error, remove_disconnects
from .http import HTTPCall
from .websocket_messages import parse_accept, parse_close, parse_send

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.trio.server import ServerConnection

    from .. import Request, UpgradedStream, UpgradeHandler
    from ..websocket import WebSocketOptions
    from .types import ASGIApp, Message, Scope

# RFC 6455 §7.4.1: no Close was received.
_ABNORMAL_CLOSURE = 1006
# The registry of IANA: for clients that should come again, to another process perhaps.
_SERVICE_RESTART = 1012
# A message for a denial response is one of an answer to HTTP with this before its type.
_PREFIX = "websocket."
_DENIAL: dict[str, Any] = {
    "type": "http.response.start",
    "status": 403,
    "headers": [(b"content-length", b"0")],
}


class _State(Enum):
    CONNECTING = auto()
    DENYING = auto()
    OPEN = auto()
    CLOSED = auto()


class _ApplicationFailed(Exception):
    # Tells the block of the WebSocket how to close. The error of the application itself
    # goes on in the application's task.
    pass


@final
class WebSocketCall:
    """One call of an application for one WebSocket.

    Args:
        request: A request that offers a WebSocket.
        start_soon: Starts a task beside the request, when one is needed.
        options: For :func:`trio_upgrade.websocket.accept_websocket`.

    Attributes:
        refusal: The answer to an offer that is malformed or not wanted; then there is
            nothing to call the application for.
    """

    __slots__ = (
        "_denial",
        "_ended",
        "_error",
        "_gone",
        "_has_failed",
        "_is_connect_received",
        "_is_disconnect_received",
        "_nursery",
        "_opened",
        "_options",
        "_receiving",
        "_request",
        "_start_soon",
        "_state",
        "_upgrade",
        "_websocket",
        "refusal",
    )

    def __init__(
        self,
        request: Request,
        start_soon: Callable[..., object],
        options: WebSocketOptions,
    ) -> None:
        self._request = request
        self._start_soon = start_soon
        self._options = options
        answer = accept_websocket(
            request, self._hold, drain_code=_SERVICE_RESTART, **options
        )
        self.refusal: Response | None = None
        if isinstance(answer, Response):
            self.refusal = answer
        # What the accept switches to, if it chooses no subprotocol.
        self._upgrade = answer
        self._state = _State.CONNECTING
        self._denial: HTTPCall | None = None
        self._nursery: trio.Nursery
        self._websocket: ServerConnection | None = None
        # Set when there is a WebSocket, and when there will be none any more.
        self._opened = trio.Event()
        # Set when the application has ended.
        self._ended = trio.Event()
        self._has_failed = False
        # For one task at a time.
        self._receiving = trio.Lock()
        self._is_connect_received = False
        self._is_disconnect_received = False
        # Whether the application was told that the client is gone, and the error that
        # made it so, which the server answers.
        self._gone = False
        self._error: BodyError | Unavailable | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call the application, and close the WebSocket as it has ended.

        Raises:
            BodyError: The body of the request is too long or broken, and nothing was
                answered: the server does.
            Unavailable: The server accepts no WebSocket now, and nothing was answered.
            UsageError: The application returned without an answer.
            Exception: Whatever the application raised, without the parts that only say
                that the client is gone.
        """
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                failure = await self._call(app, scope)
                if failure is None or isinstance(failure, Exception):
                    self._has_failed = failure is not None
                    self._ended.set()
                else:
                    # No closing handshake. A group with a Cancelled is no Exception.
                    nursery.cancel_scope.cancel()
        except BaseException as raised:
            failure = choose_error(raised, failure)
        try:
            self._opened.set()
            if self._denial is not None and self._state is _State.DENYING:
                await self._denial.cut_answer(
                    failure or ClientDisconnected("the client is gone")
                )
            if failure is not None and self._gone:
                failure = remove_disconnects(failure)
            if failure is None and self._websocket is None:
                failure = self._error
            if failure is not None:
                raise failure
        finally:
            # A frame that an exception has passed must not keep a reference to it.
            del failure

    async def _call(self, app: ASGIApp, scope: Scope) -> BaseException | None:
        # Returns what the application raised: in the nursery it would become a group.
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exc:
            return exc
        if self._gone:
            return None
        if self._state is _State.CONNECTING:
            return UsageError(
                "the ASGI application returned before it accepted or closed the WebSocket"
            )
        if self._state is _State.DENYING:
            return UsageError(
                "the ASGI application returned before its response was complete"
            )
        return None

    async def _run_websocket(
        self, handler: UpgradeHandler, stream: UpgradedStream, head: bytes
    ) -> None:
        try:
            with suppress(_ApplicationFailed):
                await handler(self._request, stream, head)
        finally:
            self._opened.set()

    async def _hold(self, websocket: ServerConnection) -> None:
        self._websocket = websocket
        self._opened.set()
        await self._ended.wait()
        if self._has_failed:
            raise _ApplicationFailed

    ################################################################
    # receive()
    ################################################################

    async def receive(self) -> Message:
        """Return the next message to the application.

        There is no checkpoint when the message is ``websocket.connect``, or the first
        ``websocket.disconnect`` after the end was known.
        """
        if not self._is_connect_received:
            self._is_connect_received = True
            return {"type": "websocket.connect"}
        if self._is_disconnect_received:
            # Else an application that does not look at the type would stop the program.
            await trio.lowlevel.checkpoint()
            return self._disconnect()
        if self._gone:
            return self._disconnect()
        is_answered = self._state not in (_State.CONNECTING, _State.DENYING)
        if not is_answered and await self._request.wait_disconnect():
            self._gone = True
            return self._disconnect()
        # It is answered now.
        if self._websocket is None and self._denial is None:
            await self._opened.wait()
        if self._websocket is None:
            return self._disconnect()
        return await self._receive_from(self._websocket)

    async def _receive_from(self, websocket: ServerConnection) -> Message:
        # Several tasks may call receive(); each message goes to one of them.
        try:
            self._receiving.acquire_nowait()
        except trio.WouldBlock:
            await self._receiving.acquire()
        try:
            data = await websocket.recv()
        except ConnectionClosed:
            self._gone = True
            return self._disconnect()
        finally:
            self._receiving.release()
        kind = "text" if isinstance(data, str) else "bytes"
        return {"type": "websocket.receive", kind: data}

    def _disconnect(self) -> Message:
        self._is_disconnect_received = True
        code, reason = _ABNORMAL_CLOSURE, ""
        if self._websocket is not None:
            code = self._websocket.close_code or code
            reason = self._websocket.close_reason or reason
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    ################################################################
    # send()
    ################################################################

    async def send(self, message: Message) -> None:
        """Take a message from the application.

        A ``websocket.send`` that is cancelled before its first byte sends nothing; in the
        middle, the WebSocket is cut.

        Raises:
            ClientDisconnected: The client is gone.
            UsageError: The message is not expected now, or unknown.
            TypeError: A value in it has another type.
            ValueError: A value in it cannot be sent.
        """
        kind: object = message["type"]
        if self._gone:
            if kind == "websocket.close":
                # Nothing is left to do. Starlette would make an error of its own of an
                # OSError, which is not known here as an ordinary end.
                return
            raise ClientDisconnected("the client is gone")
        if kind == "websocket.send" and self._state is _State.OPEN:
            await self._send(message)
        elif kind == "websocket.close" and self._state is _State.OPEN:
            await self._close(message)
        elif kind == "websocket.accept" and self._state is _State.CONNECTING:
            await self._accept(message)
        elif kind == "websocket.close" and self._state is _State.CONNECTING:
            await self._deny(_DENIAL)
            await self._deny({"type": "http.response.body"})
        elif (
            kind == "websocket.http.response.start" and self._state is _State.CONNECTING
        ) or (kind == "websocket.http.response.body" and self._state is _State.DENYING):
            await self._deny({**message, "type": str(kind).removeprefix(_PREFIX)})
        else:
            raise UsageError(f"{kind!r} sent while the WebSocket is {self._state.name}")

    async def _accept(self, message: Message) -> None:
        subprotocol, fields = parse_accept(message)
        upgrade = self._upgrade
        if subprotocol is not None:
            upgrade = accept_websocket(
                self._request,
                self._hold,
                select_subprotocol=lambda _request, _offered: subprotocol,
                drain_code=_SERVICE_RESTART,
                **self._options,
            )
        # The same request was found well-formed before.
        assert isinstance(upgrade, Upgrade)
        try:
            stream, head = await self._request.accept_upgrade(
                upgrade.protocol, headers=[*upgrade.headers.raw, *fields]
            )
        except (BodyError, Unavailable) as exc:
            self._error = exc
            self._gone = True
            raise ClientDisconnected("the WebSocket cannot be opened") from exc
        except trio.BrokenResourceError as exc:
            self._gone = True
            raise ClientDisconnected("the client is gone") from exc
        self._state = _State.OPEN
        self._nursery.start_soon(
            self._run_websocket,
            upgrade.handler,
            stream,
            head,
            name="WebSocket of an ASGI application",
        )

    async def _deny(self, message: Message) -> None:
        if self._denial is None:
            self._denial = HTTPCall(self._request, self._start_soon)
        try:
            await self._denial.send(message)
        except ClientDisconnected:
            self._gone = True
            raise
        self._state = _State.CLOSED if self._denial.is_complete else _State.DENYING

    async def _send(self, message: Message) -> None:
        data, is_text = parse_send(message)
        websocket = self._websocket or await self._wait_opened()
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await websocket.send(data, text=is_text)
        except ConnectionClosed as exc:
            self._gone = True
            raise ClientDisconnected("the client is gone") from exc
        except trio.Cancelled:
            # A part of the message may have been sent, or be lost for the compression of
            # the next one; nothing can follow it. This reset does not wait.
            await websocket.stream.aclose()
            raise

    async def _close(self, message: Message) -> None:
        code, reason = parse_close(message)
        websocket = self._websocket or await self._wait_opened()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._state = _State.CLOSED
        # With a full queue of messages the Close of the client would not be read.
        self._nursery.start_soon(self._discard, websocket)
        await websocket.aclose(code, reason)

    async def _wait_opened(self) -> ServerConnection:
        await self._opened.wait()
        if self._websocket is None:
            # It has failed before it began.
            raise ClientDisconnected("the client is gone")
        return self._websocket

    async def _discard(self, websocket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async with self._receiving:
                while True:
                    await websocket.recv(decode=False)

# The WebSocket of a carrier.  Importing this needs the extra; the other modules of the
# package do not, and get this class from load_websocket().
from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypedDict, final

from .. import IllegalSwitch
from ..websocket import accept_websocket, check_websocket_options, open_websocket
from .names import Pair, name_subprotocol, show_url
from .stream import MESSAGE_BYTES, WebSocketStream, is_loss, send_pings

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AsyncExitStack
    from types import TracebackType

    import trio
    from websockets.trio.client import ClientConnection
    from websockets.trio.server import ServerConnection

    from .. import DialOptions, Request, Response, Upgrade

    Origins: TypeAlias = Sequence[str | re.Pattern[str] | None] | None


class _Settings(TypedDict):
    compression: None
    max_size: int
    max_queue: int
    ping_interval: None
    close_timeout: float


_SETTINGS: _Settings = {
    # What is carried is mostly encrypted.
    "compression": None,
    "max_size": MESSAGE_BYTES,
    # Messages that are received before the program asks for them: 320 KiB.
    "max_queue": 4,
    # See send_pings().
    "ping_interval": None,
    "close_timeout": 10,
}


@final
class WebSocketCarrier:
    """What open_carrier() and accept_carrier() do by WebSocket.

    Args:
        url: The URL.
        protocol: The protocol.
        fields: Further fields.
        options: The options of dialling.

    Raises:
        ValueError: The protocol is no token.
    """

    __slots__ = ("_block", "_shown_url", "_subprotocol")
    name = "WebSocket"

    def __init__(
        self, url: str, protocol: str, fields: list[Pair], options: DialOptions
    ) -> None:
        self._subprotocol = name_subprotocol(protocol)
        self._shown_url = show_url(url)
        self._block: AbstractAsyncContextManager[ClientConnection] = open_websocket(
            url,
            subprotocols=[self._subprotocol],
            headers=fields,
            **_SETTINGS,
            **options,
        )

    async def open(self, stack: AsyncExitStack) -> trio.abc.HalfCloseableStream:
        """Dial, and return the stream, which leaving the stack ends.

        Raises:
            OpenError: As :func:`open_upgrade` raises it.
            OSError: The server, or the first proxy, cannot be reached.
        """
        websocket = await stack.enter_async_context(self._block)
        if websocket.subprotocol is None:
            # RFC 6455 §4.1 allows that, but the server did not say that it knows what
            # is carried.
            exc = IllegalSwitch(f"no subprotocol {self._subprotocol!r}")
            exc.args = (f"{self._shown_url}, reading the answer: {exc}",)
            raise exc
        websocket.nursery.start_soon(send_pings, websocket)
        stream = WebSocketStream(websocket)

        async def end(
            _type: type[BaseException] | None,
            exc: BaseException | None,
            _traceback: TracebackType | None,
        ) -> None:
            if exc is None:
                await stream.aclose()

        stack.push_async_exit(end)
        return stream

    @staticmethod
    def check_origins(origins: Origins) -> None:
        """Check the origins before there is an offer; see accept_carrier()."""
        check_websocket_options({"origins": origins})

    @staticmethod
    def accept(
        request: Request,
        protocol: str,
        handler: Callable[[Request, trio.abc.HalfCloseableStream], Awaitable[object]],
        origins: Origins,
    ) -> Upgrade | Response:
        """Return the answer to an offer of WebSocket."""

        async def run(websocket: ServerConnection) -> None:
            websocket.nursery.start_soon(send_pings, websocket)
            stream = WebSocketStream(websocket)
            try:
                await handler(request, stream)
            except Exception as exc:
                if stream.loss is not None and is_loss(exc):
                    # An end, no error of the handler; accept_websocket() knows this one.
                    raise stream.loss from exc
                raise
            await stream.aclose()

        return accept_websocket(
            request,
            run,
            origins=origins,
            subprotocols=[name_subprotocol(protocol)],
            # As after any other switch, the handler goes on until the grace is over.
            drain_code=None,
            **_SETTINGS,
        )

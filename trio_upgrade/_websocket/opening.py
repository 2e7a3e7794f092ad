# One WebSocket of a client, as a block.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, final

from .arguments import Timing
from .dialling import WebSocketDialler
from .options import check_dial_options, declare_dial_options, public
from .scope import WebSocketScope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Unpack

    from websockets.trio.client import ClientConnection

    from .. import DialOptions, HeadersLike, UpgradedConnection
    from .arguments import Bounds
    from .connections import AddressedClientConnection


@public
@declare_dial_options
def open_websocket(
    url: str,
    *,
    origin: str | None = None,
    subprotocols: Sequence[str] | None = None,
    compression: str | None = "deflate",
    max_size: Bounds = 2**20,
    max_queue: Bounds = 16,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    headers: HeadersLike = (),
    **options: Unpack[DialOptions],
) -> AbstractAsyncContextManager[ClientConnection]:
    """Return a block that dials a WebSocket, and closes it when it is left (RFC 6455).

    ::

        async with open_websocket("wss://example.com/chat") as websocket:
            await websocket.send("hello")
            print(await websocket.recv())

    The block has the Trio connection of the ``websockets`` library. To bound the opening
    and not the session::

        with trio.fail_after(10) as scope:
            async with open_websocket(url) as websocket:
                scope.deadline = math.inf
                ...

    Leaving the block closes the WebSocket: normally with 1000 and up to
    ``close_timeout`` seconds for the peer's Close, after an error with 1011 and at most a
    second; after a cancellation it is reset without a Close. Messages that were not
    received are dropped. What the block raises leaves it as it is, in no group,
    :exc:`websockets.exceptions.ConnectionClosed` included.

    If the opening fails or is cancelled, nothing is left open.

    Args:
        url: As for :func:`trio_upgrade.open_upgrade`: ``ws``, ``wss``, ``http`` or
            ``https``, also with ``+unix``.
        origin: The value of Origin, for servers that want one. None sends none.
        subprotocols: The subprotocols to offer, most wanted first; the choice of the
            server is ``websocket.subprotocol``. None offers none.
        compression: ``"deflate"`` offers compression (RFC 7692); None does not.
        max_size: The most bytes of a message; as for :func:`accept_websocket`.
        max_queue: The most frames received ahead; as for :func:`accept_websocket`.
        ping_interval: Seconds between pings. None sends none.
        ping_timeout: Seconds for the pong, after which the WebSocket ends with 1011.
            None disables the limit.
        close_timeout: Seconds that the peer has for its part of the closing handshake.
            None disables the limit.
        headers: Further fields of the request.
        options: Those of :class:`trio_upgrade.DialOptions`.

    Raises:
        TypeError: An argument has another type, or there is no such option. From the
            call, not from the block.
        ValueError: An argument has no such value. From the call, but for the URL and the
            fields: these are checked when the block is entered, and nothing was opened.
        OSError: Entering: the server, or the first proxy, cannot be reached.
        UpgradeRefused: Entering: the server answered with an ordinary response.
        IllegalSwitch: Entering: its 101 is not legal, or not for this WebSocket: another
            Sec-WebSocket-Accept, a subprotocol or an extension that was not offered.
        OpenError: Entering: anything else that :func:`trio_upgrade.open_upgrade` raises.
    """
    check_dial_options(open_websocket, options)
    dialler = WebSocketDialler(
        url,
        origin=origin,
        subprotocols=subprotocols,
        compression=compression,
        max_size=max_size,
        timing=Timing(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
        ),
        headers=headers,
        options=options,
    )
    return _OpenWebSocket(dialler)


@final
class _OpenWebSocket(AbstractAsyncContextManager["ClientConnection", None]):
    __slots__ = ("_connection", "_dialler", "_scope")

    def __init__(self, dialler: WebSocketDialler) -> None:
        self._dialler = dialler
        self._connection: UpgradedConnection
        self._scope: WebSocketScope[AddressedClientConnection]

    async def __aenter__(self) -> ClientConnection:
        opening = await self._dialler.dial()
        self._connection = opening.connection
        self._scope = WebSocketScope(opening.make)
        # No checkpoint before the block: then nothing but the block closes it.
        return await self._scope.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._scope.__aexit__(exc_type, exc, traceback)
        finally:
            await self._connection.__aexit__(exc_type, exc, traceback)

# Handshakes and frames, byte for byte, and servers of WebSockets.
from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
from websockets.frames import Frame, Opcode

from trio_upgrade import serve_tcp
from trio_upgrade.websocket import accept_websocket

from ..wire import get

if TYPE_CHECKING:
    from trio_upgrade import Server
    from trio_upgrade.websocket import WebSocketHandler

HOST = "127.0.0.1"
# The example of RFC 6455 §1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
VERSION = "Sec-WebSocket-Version: 13"
FIELDS = (*UPGRADE, f"Sec-WebSocket-Key: {KEY}", VERSION)
OFFER = get("/chat?x=1", *FIELDS)
SWITCHED = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


def masked(data: str | bytes, opcode: Opcode | None = None) -> bytes:
    """Return a frame of a client; text for a str, else binary."""
    return _serialize(data, opcode, mask=True)


def plain(data: str | bytes, opcode: Opcode | None = None) -> bytes:
    """Return a frame of a server; text for a str, else binary."""
    return _serialize(data, opcode, mask=False)


def _serialize(data: str | bytes, opcode: Opcode | None, *, mask: bool) -> bytes:
    kind = Opcode.TEXT if isinstance(data, str) else Opcode.BINARY
    content = data.encode() if isinstance(data, str) else data
    return Frame(opcode or kind, content).serialize(mask=mask)


def close(code: int) -> bytes:
    """Return the content of a Close frame without a reason."""
    return code.to_bytes(2, "big")


def masked_close(code: int) -> bytes:
    """Return a Close frame of a client."""
    return masked(close(code), Opcode.CLOSE)


def plain_close(code: int) -> bytes:
    """Return a Close frame of a server."""
    return plain(close(code), Opcode.CLOSE)


async def echo(websocket) -> None:
    """Send back each message."""
    async for message in websocket:
        await websocket.send(message)


async def wait(websocket) -> None:
    """Do not look at the WebSocket."""
    await trio.sleep_forever()


async def echo_or_burst(websocket) -> None:
    """Echo on the path /echo; on others send 50 messages at once and close."""
    if websocket.request.path == "/echo":
        await echo(websocket)
        return
    for number in range(50):
        await websocket.send(str(number))
    await websocket.aclose(4001, "theirs")


def app_for(handler: WebSocketHandler, **options):
    """Return an app that makes a WebSocket of each request."""

    async def app(request):
        return accept_websocket(request, handler, **options)

    return app


async def serve(
    nursery: trio.Nursery, handler: WebSocketHandler, **options
) -> tuple[Server, str]:
    """Serve WebSockets on TCP; return the server and the URL for clients."""
    app = app_for(handler, **options)
    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST, strict=True))
    return server, server.url.replace("http", "ws", 1)

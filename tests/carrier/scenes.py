# Servers and clients of carriers: on sockets, of which some carriers are blocked, and in
# memory.
from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upgrade import Response, serve_tcp
from trio_upgrade.carrier import accept_carrier, open_carrier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio_upgrade import Request, Server
    from trio_upgrade.carrier import CarrierHandler

HOST = "127.0.0.1"
UPGRADE, WEBSOCKET, CONNECT = CARRIERS = ("Upgrade", "WebSocket", "CONNECT")


def find_carrier(request: Request) -> str:
    """Return the carrier that a request is for."""
    if request.method == "CONNECT":
        return CONNECT
    return WEBSOCKET if "websocket" in request.upgrades else UPGRADE


def refuse(status: int) -> Callable[[Request], Awaitable[Response]]:
    """Return an app that refuses with a status."""

    async def app(request: Request) -> Response:
        fields = {"Upgrade": "other"} if status == 426 else {}
        return Response(status, b"", fields)

    return app


async def stay_silent(request: Request) -> Response:
    """Never answer."""
    await trio.sleep_forever()
    raise AssertionError


async def echo(request: Request, stream: trio.abc.HalfCloseableStream) -> None:
    """Send back all that comes, and an end after the end."""
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


class Carriers:
    """A server of carriers; each may be blocked by an app that answers instead.

    Attributes:
        tried: The carriers of the requests that came.
        requests: These requests.
    """

    def __init__(self, handler: CarrierHandler = echo) -> None:
        self.handler = handler
        self.blocked: dict[str, Callable[[Request], Awaitable[object]]] = {}
        self.tried: list[str] = []
        self.requests: list[Request] = []
        self.server: Server

    async def app(self, request: Request):
        """Accept, unless this carrier is blocked."""
        carrier = find_carrier(request)
        self.tried.append(carrier)
        self.requests.append(request)
        if carrier in self.blocked:
            return await self.blocked[carrier](request)
        return accept_carrier(request, "ssh", self.handler)

    async def start(self, nursery: trio.Nursery, **options) -> str:
        """Serve on TCP; return the URL."""
        options = {"host": HOST, "strict": True, **options}
        self.server = await nursery.start(partial(serve_tcp, self.app, 0, **options))
        return f"{self.server.url}/ssh"

    def allow_only(self, carrier: str, status: int = 404) -> None:
        """Block the other carriers by a status."""
        self.blocked = {name: refuse(status) for name in CARRIERS if name != carrier}


@asynccontextmanager
async def linked(
    nursery: trio.Nursery, carrier: str, **options
) -> AsyncIterator[tuple[trio.abc.HalfCloseableStream, Far]]:
    """Open a stream by one carrier; the other end is controlled by the test."""
    far = Far()
    carriers = Carriers(far.run)
    carriers.allow_only(carrier)
    far.carriers = carriers
    url = await carriers.start(nursery)
    async with open_carrier(url, "ssh", **options) as stream:
        await far.opened.wait()
        yield stream, far
    far.leave.set()


class Far:
    """The server's end of a stream, in the hands of a test."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.leave = trio.Event()
        self.over = trio.Event()
        self.failure: Exception | None = None
        self.stream: trio.abc.HalfCloseableStream
        self.carriers: Carriers

    async def run(self, request: Request, stream: trio.abc.HalfCloseableStream) -> None:
        """Handle: give the stream to the test until it is to end."""
        self.stream = stream
        self.opened.set()
        try:
            await self.leave.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.over.set()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Read to the end."""
    return b"".join([bytes(chunk) async for chunk in stream])

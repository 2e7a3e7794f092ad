# trio-upgrade echo: a server that accepts every offer, and sends back what it receives.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from .. import Request, Response, Tunnel, Upgrade, pipe
from .listening import Place
from .serving import Serving

if TYPE_CHECKING:
    from argparse import Namespace

    from websockets.trio.server import ServerConnection

    from .. import App, UpgradedStream

_WEBSOCKET = "websocket"
# Clients offer these in ordinary requests, and then speak HTTP/2 or TLS.
_IGNORED = frozenset({"h2", "h2c", "http", "tls"})
_ANSWER = "offer any protocol, or open a tunnel: its bytes come back\n"


def run(arguments: Namespace) -> int:
    """Run the subcommand, and return its exit status."""
    place = Place.from_arguments(arguments)
    return Serving.from_arguments(arguments).run(place, open_echo)


def open_echo() -> AbstractAsyncContextManager[App]:
    """Return a block with the app."""
    return nullcontext(answer)


async def answer(request: Request) -> Response | Tunnel | Upgrade:
    """Accept the first offer, or any CONNECT, and echo."""
    if request.method == "CONNECT":
        return Tunnel(_echo)
    for protocol in request.upgrades:
        name = protocol.partition("/")[0].lower()
        if name == _WEBSOCKET:
            return _accept_websocket(request)
        if name not in _IGNORED:
            return Upgrade(protocol, _echo)
    return Response(200, _ANSWER)


def _accept_websocket(request: Request) -> Response | Upgrade:
    try:
        from ..websocket import accept_websocket
    except ModuleNotFoundError:
        return Response(
            501, 'WebSockets need the extra: pip install "trio-upgrade[websocket]"\n'
        )
    return accept_websocket(request, _echo_messages)


async def _echo(_request: Request, stream: UpgradedStream, head: bytes) -> None:
    # The early bytes are in the stream: do not keep this copy as long as it is open.
    del head
    await pipe(stream, stream, tls_ends=True)


async def _echo_messages(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)

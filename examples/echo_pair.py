# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Server, client and echo over one upgraded connection, in one program.

    python examples/echo_pair.py [PORT]

PORT is 1337 unless given; 0 takes any free port.

The server responds to ordinary requests with 200. If a request offers ``websocket``, it
switches and echoes. (It does not speak WebSocket frames: the token is just the best known
one.) A client makes one request of each kind. Then a raw peer sends a request and further
bytes in one packet, and shows that the bytes are not lost. The program ends by itself.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from urllib.parse import urlsplit

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_upgrade,
    pipe,
    serve_tcp,
)

HOST = "127.0.0.1"
RAW_REQUEST = (
    b"GET / HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b"Connection: Upgrade\r\n"
    b"Upgrade: websocket\r\n"
    b"\r\n"
)


async def echo(request: Request, stream: UpgradedStream, head: bytes) -> None:
    print(f"server: switched to {request.upgrades[0]}; early bytes: {head!r}")
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    if "websocket" in request.upgrades:
        return Upgrade("websocket", echo, reason="Web Socket Protocol Handshake")
    return Response(200, "okay")


async def ask(url: str) -> None:
    async with await open_connection(url) as connection:
        response = await connection.request("GET", "/")
        body = await response.read()
        print(f"client: GET / gave {response.status} {response.reason}: {body!r}")


async def upgrade(url: str) -> None:
    async with await open_upgrade(url, "websocket") as (response, stream, _head):
        print(f"client: got upgraded! {response.status} {response.reason}")
        await stream.send_all(b"hello, echo")
        print(f"client: the echo is {await stream.receive_some()!r}")
        await stream.send_eof()
        end = await stream.receive_some()
        print(f"client: half-closed; the server has ended too: {end!r}")


async def send_early(url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(RAW_REQUEST + b"early")
        await stream.send_eof()
        answer = b"".join([bytes(chunk) async for chunk in stream])
        _, _, echoed = answer.partition(b"\r\n\r\n")
        print(f"raw peer: sent b'early' with the request, got back {echoed!r}")


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve_tcp, app, port, host=HOST))
        print(f"server: listening at {server.url}")
        await ask(server.url)
        await upgrade(server.url)
        await send_early(server.url)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", metavar="PORT", type=int, nargs="?", default=1337)
    given = parser.parse_args().port
    try:
        trio.run(main, given)
    except* OSError as group:
        sys.exit(f"port {given}: {group.exceptions[0]}; 0 takes any free port")

"""The library as a target of the fuzz, in its own process; prints its two ports.

python benchmarks/fuzz/target.py

Each answer says in its field ``Seen`` which request was seen: method, target in
hexadecimal, the number of bytes of its body, and the beginning of their SHA-1. The
server of the second port switches every offer and every CONNECT, and then says in
``Rest: …`` how many bytes came after the request.
"""

from __future__ import annotations

import hashlib
import signal
from functools import partial

import trio

from trio_upgrade import (
    Limits,
    Request,
    Response,
    Server,
    Tunnel,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    serve_tcp,
)

HOST = "127.0.0.1"


def summarise(data: bytes) -> str:
    """Return the length and the beginning of the hash of bytes."""
    return f"{len(data)} {hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]}"


def describe(request: Request, body: bytes) -> dict[str, str]:
    """Return the field that says which request was seen."""
    target = request.target.encode().hex()
    return {"Seen": f"{request.method} {target} {summarise(body)}"}


async def report_rest(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Say which bytes came after the request, up to the client's end."""
    rest = b"".join([bytes(chunk) async for chunk in stream])
    await stream.send_all(f"Rest: {summarise(rest)}\r\n".encode())


async def answer(request: Request) -> Response:
    """Answer every request, offers too; CONNECT gets no tunnel."""
    body = await request.read()
    status = 403 if request.method == "CONNECT" else 200
    return Response(status, b"", describe(request, body))


async def switch(request: Request) -> Response | Upgrade | Tunnel:
    """Switch whenever the client wants it."""
    if request.method == "CONNECT":
        return Tunnel(report_rest, describe(request, b""))
    if request.upgrades:
        body = await request.read()
        protocol = str(request.upgrades[0])
        return Upgrade(protocol, report_rest, describe(request, body))
    return await answer(request)


async def serve() -> None:
    """Serve both apps until SIGTERM."""
    async with trio.open_nursery() as nursery:
        servers: list[Server] = [
            await nursery.start(
                partial(serve_tcp, app, 0, host=HOST, limits=Limits(linger=0.5))
            )
            for app in (answer, switch)
        ]
        print(*(server.url.rpartition(":")[2] for server in servers), flush=True)
        await drain_on_signal(servers[0], signal.SIGTERM, grace=0)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve)

# A server whose process can import nothing once it accepts connections: it has no
# descriptor left but one for a connection, or its root directory is empty.  A program,
# run by test_bare_server.py.
#
# Arguments: "descriptors" and any path, or "root" and the path of an empty directory; and
# a file with a certificate and its key.  It prints the ports of TCP and of TLS; after a
# SIGTERM and its drain it prints the modules that were imported meanwhile.
from __future__ import annotations

import json
import logging
import os
import resource
import signal
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upgrade import (
    Response,
    Tunnel,
    Upgrade,
    drain_on_signal,
    pipe,
    serve_ssl_over_tcp,
    serve_tcp,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_upgrade import Request, Server, UpgradedStream


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    await pipe(stream, stream)


async def count() -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


async def app(request: Request) -> Response | Upgrade | Tunnel:
    if request.method == "CONNECT":
        return Tunnel(echo)
    match request.path:
        case "/upgrade":
            return Upgrade("echo", echo)
        case "/chunks":
            return Response(200, count())
        case "/read":
            return Response(200, await request.read())
        case "/404":
            return Response(404)
        case "/raise":
            raise LookupError("oops")
    return Response(200, f"été {request.peer is None}")


def report(value: object) -> None:
    """Write a line for the test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def restrict(means: str, root: str) -> None:
    """Make imports impossible."""
    if means == "root":
        os.chroot(root)
        return
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, most))


async def main(means: str, root: str, certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with trio.open_nursery() as nursery:
        servers: list[Server] = [
            await nursery.start(partial(serve, app, 0, *rest, host="127.0.0.1"))
            for serve, *rest in ((serve_tcp,), (serve_ssl_over_tcp, context))
        ]
        before = {*sys.modules}
        restrict(means, root)
        report([int(server.url.split(":")[2]) for server in servers])
        await drain_on_signal(servers[0], signal.SIGTERM, grace=60)
        await servers[1].drain(grace=60)
    report(sorted({*sys.modules} - before))


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    trio.run(partial(main, *sys.argv[1:]))

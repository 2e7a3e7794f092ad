"""An echo server by hand, with Trio and h11, as small as possible: no deadline, no limit.

python benchmarks/compare/peers/floor.py PORT [CERTIFICATE]
"""

from __future__ import annotations

import ssl
import sys
from contextlib import suppress
from functools import partial

import h11
import trio

CHUNK = 65536
HOST = "127.0.0.1"


async def receive(
    stream: trio.abc.Stream, http: h11.Connection
) -> h11.Event | type[h11.PAUSED]:
    """Return the next event."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(CHUNK)))
    assert not isinstance(event, type) or event is h11.PAUSED
    return event


async def answer(stream: trio.abc.Stream) -> None:
    """Respond to requests until one of them offers an upgrade, then echo."""
    http = h11.Connection(h11.SERVER)
    while isinstance(request := await receive(stream, http), h11.Request):
        await receive(stream, http)  # the end: no request of the load has a body
        if (b"upgrade", b"echo") in request.headers:
            fields = [("Connection", "Upgrade"), ("Upgrade", "echo")]
            switch = h11.InformationalResponse(status_code=101, headers=fields)
            await stream.send_all(http.send(switch) or b"")
            data = http.trailing_data[0] or await stream.receive_some(CHUNK)
            while data:
                await stream.send_all(data)
                data = await stream.receive_some(CHUNK)
            return
        assert request.method == b"GET"
        fields = [("Content-Type", "text/plain"), ("Content-Length", "5")]
        head = http.send(h11.Response(status_code=200, headers=fields)) or b""
        body = http.send(h11.Data(data=b"okay\n")) or b""
        await stream.send_all(head + body + (http.send(h11.EndOfMessage()) or b""))
        http.start_next_cycle()


async def handle(stream: trio.abc.Stream) -> None:
    """Serve one connection; a reset or garbage by the peer ends it quietly."""
    async with stream:
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
            await answer(stream)


async def main(port: int, certificate: str = "") -> None:
    """Serve for ever."""
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        await trio.serve_ssl_over_tcp(handle, port, context, host=HOST)
    else:
        await trio.serve_tcp(handle, port, host=HOST)


if __name__ == "__main__":
    _, port, *certificate = sys.argv
    trio.run(partial(main, int(port), *certificate))

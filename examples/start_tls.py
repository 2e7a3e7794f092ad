# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
r"""A protocol that continues in TLS after its greeting; server and client in one program.

    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
    python examples/start_tls.py cert.pem key.pem

After the switch both sides send their greeting in clear text, like SMTP's STARTTLS and
PostgreSQL, and then make the TLS handshake on the same connection. A client need not wait
for the server's greeting: bytes that it sent early are given to TLS.
"""

from __future__ import annotations

import ssl
import sys
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Server,
    Upgrade,
    UpgradedStream,
    open_upgrade,
    serve_tcp,
)

# The longest greeting.
MOST_BYTES = 1000


async def read_line(stream: UpgradedStream) -> bytes:
    # Bytes after the line may be TLS: they stay in the stream.
    line = await stream.receive_until(b"\n", MOST_BYTES)
    return line.rstrip()


async def talk(
    _request: Request, stream: UpgradedStream, _head: bytes, *, context: ssl.SSLContext
) -> None:
    greeting = await read_line(stream)
    print(f"server: in clear text {greeting!r}")
    await stream.send_all(b"ready for TLS\n")
    tls = await stream.start_tls(context, server_side=True)
    async for chunk in tls:
        print(f"server: in TLS {bytes(chunk)!r}")
        await tls.send_all(chunk)
    # The server closes the TLS stream when this returns.


async def main(certificate: str, key: str) -> None:
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificate, key)
    client_context = ssl.create_default_context(cafile=certificate)
    handler = partial(talk, context=server_context)

    async def app(_request: Request) -> Upgrade:
        return Upgrade("greeting", handler)

    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, app, 0, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        upgraded = await open_upgrade(server.url, "greeting")
        # Leaving the block closes the TLS stream, and the connection below it.
        async with upgraded as (_response, stream, _head):
            await stream.send_all(b"hello, may we talk?\n")
            answer = await read_line(stream)
            print(f"client: in clear text {answer!r}")
            tls = await stream.start_tls(client_context, server_hostname="localhost")
            await tls.send_all(b"a secret")
            echo = await tls.receive_some()
            print(f"client: in TLS {bytes(echo)!r}")
        await server.drain(grace=5)


if __name__ == "__main__":
    certificate, key = sys.argv[1:]
    trio.run(main, certificate, key)

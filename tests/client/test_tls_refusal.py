"""A server that breaks TLS before the switch, for example because of our certificate."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_upgrade import (
    Proxy,
    TLSFailed,
    TLSStream,
    open_connection,
    open_tunnel,
    open_upgrade,
)

from ..sockets import tcp_pair
from ..tls import make_tls_contexts, wrap_tls
from ..wire import okay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
POSTED = 3_000_000


class Refusing:
    """A server that wants a certificate of its own authority, and sends the alert.

    Not Trio's SSLStream, which does not send the alert of a handshake that fails here.
    """

    def __init__(self, context: ssl.SSLContext, then: str) -> None:
        self.context = context
        self.then = then

    async def handle(self, stream: trio.SocketStream) -> None:
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(received, to_send, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await stream.send_all(to_send.read())
                received.write(await stream.receive_some())
            except ssl.SSLError:
                await stream.send_all(to_send.read())
                if self.then == "silence":
                    await trio.sleep_forever()
                if self.then == "end":
                    await stream.send_eof()
                    async for _ in stream:
                        pass
                # Otherwise closed, with unread input: a reset.
                return


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_refused_by_us(nursery: trio.Nursery, version: str) -> None:
    """A server whose certificate we refuse gets the alert, not a mere end or a reset."""
    context = make_tls_contexts()[1]
    context.maximum_version = ssl.TLSVersion[version]
    reasons: list[str] = []

    async def handler(stream: trio.SocketStream) -> None:
        tls = TLSStream(stream, context, server_side=True)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await tls.do_handshake()
            await tls.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        reasons.append(caught.value.__cause__.reason)
        await tls.aclose()

    listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host=HOST))
    url = f"https://{HOST}:{listeners[0].socket.getsockname()[1]}"
    with pytest.raises(TLSFailed):
        await open_upgrade(url, "echo", server_hostname="localhost")
    await trio.testing.wait_all_tasks_blocked()

    assert reasons == ["TLSV1_ALERT_UNKNOWN_CA"]


def make_contexts(
    authority: trustme.CA, version: str, ours: str
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client = ssl.create_default_context()
    authority.configure_trust(client)
    if ours == "unknown":
        trustme.CA().issue_cert("me").configure_cert(client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    authority.issue_cert("localhost").configure_cert(server)
    server.minimum_version = server.maximum_version = ssl.TLSVersion[version]
    return client, server


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(POSTED // 100_000):
        yield bytes(100_000)


async def ask(url: str, method: str, body, **options) -> None:
    async with await open_connection(url, **options) as connection:
        await connection.request(method, "/", body=body)


async def tunnel_through(url: str, ssl_context: ssl.SSLContext) -> None:
    await open_upgrade("http://h", "echo", via=Proxy(url, ssl_context=ssl_context))


OPENINGS: dict[str, Any] = {
    "upgrade": lambda url, **options: open_upgrade(url, "echo", **options),
    "upgrade with a body": lambda url, **options: open_upgrade(
        url, "echo", body=bytes(60_000), **options
    ),
    "request": partial(ask, method="GET", body=b""),
    "post": partial(ask, method="POST", body=bytes(POSTED)),
    "chunks": lambda url, **options: ask(url, "POST", pieces(), **options),
    "tunnel": lambda url, **options: open_tunnel(url, "h:1", **options),
    "via": tunnel_through,
}
# The names are OpenSSL's.
ALERTS = {
    ("TLSv1_3", "none"): "ALERT_CERTIFICATE_REQUIRED",
    ("TLSv1_3", "unknown"): "ALERT_UNKNOWN_CA",
    ("TLSv1_2", "none"): "ALERT_HANDSHAKE_FAILURE",
    ("TLSv1_2", "unknown"): "ALERT_UNKNOWN_CA",
}


@pytest.mark.ids("F2")
@pytest.mark.parametrize("then", ["end", "reset", "silence"])
@pytest.mark.parametrize("how", OPENINGS)
@pytest.mark.parametrize(("version", "ours"), ALERTS)
async def test_refused_certificate(
    nursery, authority: trustme.CA, version: str, ours: str, how: str, then: str
) -> None:
    """The alert is in the TLSFailed, also when it follows the handshake (RFC 8446)."""
    client, server = make_contexts(authority, version, ours)
    refusing = Refusing(server, then)
    serve = partial(trio.serve_tcp, refusing.handle, 0, host=HOST)
    listeners = await nursery.start(serve)
    port = listeners[0].socket.getsockname()[1]
    match = rf"localhost:{port}.*: \w*{ALERTS[version, ours]}(\n|$)"
    with pytest.raises(TLSFailed, match=match) as caught:
        await OPENINGS[how](f"https://localhost:{port}", ssl_context=client)

    assert isinstance(caught.value.__cause__, ssl.SSLError)


@pytest.mark.ids("F2")
async def test_refused_later(nursery, authority: trustme.CA) -> None:
    """The alert is reported although the request comes long after the handshake."""
    client, server = make_contexts(authority, "TLSv1_3", "none")
    refusing = Refusing(server, "end")
    listeners = await nursery.start(
        partial(trio.serve_tcp, refusing.handle, 0, host=HOST)
    )
    port = listeners[0].socket.getsockname()[1]
    url = f"https://localhost:{port}"
    async with await open_connection(url, ssl_context=client) as connection:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TLSFailed, match="ALERT_CERTIFICATE_REQUIRED"):
            await connection.request("GET", "/")
        with pytest.raises(trio.ClosedResourceError):
            await connection.request("GET", "/")


@pytest.mark.ids("F2")
async def test_broken_between_requests() -> None:
    """Bytes that are no TLS, after an answer, are TLSFailed at the next request."""
    near, far = wrap_tls(await tcp_pair(), make_tls_contexts(), https_compatible=True)

    async def serve() -> None:
        await far.receive_some()
        await far.send_all(okay(b"1"))

    async with await open_connection("http://localhost", stream=near) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            assert await (await connection.request("GET", "/")).read() == b"1"
        await far.transport_stream.send_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        with pytest.raises(TLSFailed, match="before the request: TLS failed: "):
            await connection.request("GET", "/")
        with pytest.raises(trio.ClosedResourceError):
            await connection.request("GET", "/")
    await trio.aclose_forcefully(far)


@pytest.mark.ids("F2")
@pytest.mark.parametrize("body", [b"", bytes(POSTED)])
async def test_handshake_within_the_request(body: bytes) -> None:
    """A given TLS stream whose handshake fails in the first send is TLSFailed, too."""
    _, server = make_tls_contexts()
    contexts = ssl.create_default_context(), server
    near, far = wrap_tls(await tcp_pair(), contexts, https_compatible=True)

    async def serve() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await far.do_handshake()
        await trio.aclose_forcefully(far)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(TLSFailed, match=r"unable to get local issuer|self.signed"):
            await open_upgrade("http://localhost", "echo", body=body, stream=near)

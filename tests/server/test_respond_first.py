"""request.respond(): content with the header section, and the end of a last answer."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from trio_upgrade import Request, serve_ssl_over_tcp, serve_stream, serve_tcp
from trio_upgrade.testing import ScriptedPeer

from ..recording import Recorder
from ..tls import make_tls_contexts, wrap_tls
from ..wire import DATE, get, okay

HOST = "127.0.0.1"
HEAD = b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = bytes(1024 * 1024)


async def test_first_is_sent_with_the_header_section() -> None:
    """`first` is sent before the block begins, as a chunk of its own."""
    peer = ScriptedPeer(get("/"))
    sent = []

    async def app(request: Request) -> None:
        async with request.respond(200, first=b"one") as answer:
            sent.append(bytes(peer.sent))
            await answer.send(b"two")

    await serve_stream(app, peer, strict=True)
    assert sent == [HEAD + b"3\r\none\r\n"]
    assert peer.sent == HEAD + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("content", [b"okay", LARGE], ids=len)
@pytest.mark.parametrize("observed", [True, False])
async def test_first_is_all(content: bytes, observed: bool) -> None:
    """It may be the whole content, of any size, and it is counted."""
    recorder = Recorder() if observed else None
    peer = ScriptedPeer(get("/") * 2)

    async def app(request: Request) -> None:
        length = {"Content-Length": str(len(content))}
        async with request.respond(200, length, first=content):
            pass

    await serve_stream(app, peer, observer=recorder, strict=True)
    assert peer.sent == okay(content) * 2
    if recorder is not None:
        counts = {record.content for record in recorder.requests}
        assert counts == {len(content)}


async def test_first_to_head() -> None:
    """To HEAD it is dropped (RFC 9110 §9.3.2)."""
    peer = ScriptedPeer(get("/").replace(b"GET", b"HEAD"))

    async def app(request: Request) -> None:
        async with request.respond(200, first=b"one"):
            pass

    await serve_stream(app, peer, strict=True)
    assert peer.sent == HEAD


async def test_first_is_checked() -> None:
    """A status without content has no `first`, and bytes are bytes."""
    peer = ScriptedPeer(get("/"))

    async def app(request: Request) -> None:
        with pytest.raises(ValueError, match="a 204 has no content"):
            request.respond(204, first=b"one")
        with pytest.raises(TypeError, match="first must be bytes, not str"):
            request.respond(200, first="one")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="longer than its Content-Length"):
            async with request.respond(200, {"Content-Length": "1"}, first=b"one"):
                raise AssertionError

    await serve_stream(app, peer, strict=True)
    assert peer.sent == b""


@pytest.mark.parametrize("secure", [True, False])
async def test_last_answer_ends_our_direction(nursery, secure: bool) -> None:
    """A client that reads to the end does not wait for what the app does afterwards."""
    go_on = trio.Event()
    client, server_context = make_tls_contexts()

    async def app(request: Request) -> None:
        async with request.respond(200, first=b"okay"):
            pass
        await go_on.wait()

    serve = partial(serve_tcp, app, 0, host=HOST)
    if secure:
        serve = partial(serve_ssl_over_tcp, app, 0, server_context, host=HOST)
    server = await nursery.start(serve)
    stream: trio.abc.Stream
    port = urlsplit(server.url).port
    if secure:
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=client, https_compatible=True
        )
    else:
        stream = await trio.open_tcp_stream(HOST, port)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        received = b"".join([bytes(chunk) async for chunk in stream])
        assert received.endswith(b"\r\n\r\nokay")
        go_on.set()
    await server.drain(grace=1)


async def test_last_answer_on_a_stream_without_half_close() -> None:
    """A stream that cannot end one direction is closed, when the app has returned."""
    client, served = wrap_tls(
        trio.testing.memory_stream_pair(), make_tls_contexts(), https_compatible=True
    )

    async def app(request: Request) -> None:
        async with request.respond(200, first=b"okay"):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, served, strict=True))
        await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        received = b"".join([bytes(chunk) async for chunk in client])
        await client.aclose()

    assert received.endswith(b"\r\n\r\nokay")

"""What a server answers to each request, and how its handlers end."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, open_upgrade, serve_tcp
from trio_upgrade.carrier import accept_carrier, open_carrier
from trio_upgrade.testing import split_points

from ..recording import Recorder
from ..servers import run_script
from ..websocket.wires import (
    FIELDS,
    SWITCHED as WEBSOCKET_SWITCHED,
    masked,
    plain,
    plain_close,
)
from ..wire import get
from .scenes import CARRIERS, HOST, WEBSOCKET, Carriers, echo, read_all

OFFER = get("/ssh", "Connection: Upgrade", "Upgrade: ssh")
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ssh\r\n\r\n"
)
CONNECT = b"CONNECT elsewhere:22 HTTP/1.1\r\nHost: elsewhere:22\r\n\r\n"
SUBPROTOCOL = "Sec-WebSocket-Protocol: other, carrier.ssh"
WEBSOCKET_OFFER = get("/ssh", *FIELDS, SUBPROTOCOL)


async def app(request):
    """Accept the carriers of one protocol."""
    return accept_carrier(request, "ssh", echo)


@pytest.mark.parametrize("early", [b"", b"early"])
async def test_upgrade(early) -> None:
    """An offer is switched, however the bytes are cut; early ones are first."""
    for packets in split_points(OFFER + early):
        peer = await run_script(app, *packets)

        assert peer.sent == SWITCHED + early, packets


async def test_connect() -> None:
    """A CONNECT is the handler's, whatever host it names; nothing is dialled."""
    for packets in split_points(CONNECT + b"early"):
        peer = await run_script(app, *packets)

        assert peer.sent.startswith(b"HTTP/1.1 200 ")
        assert peer.sent.endswith(b"\r\n\r\nearly")


async def test_websocket(autojump_clock) -> None:
    """Binary messages are bytes, an empty one the end, in both directions."""
    chosen = b"Sec-WebSocket-Protocol: carrier.ssh\r\n"
    fields = WEBSOCKET_SWITCHED.replace(b"\r\n\r\n", b"\r\n" + chosen + b"\r\n")
    frames = masked(b"early") + masked(b"")
    for packets in split_points(WEBSOCKET_OFFER + frames):
        peer = await run_script(app, *packets, then="silence")

        assert peer.sent == fields + plain(b"early") + plain(b"") + plain_close(1000)


PAGE = "https://page.example"


@pytest.mark.parametrize(
    ("options", "origin", "accepted"),
    [
        ({}, None, True),
        ({}, PAGE, False),
        ({}, "null", False),
        ({"origins": [PAGE]}, PAGE, True),
        ({"origins": [PAGE]}, "https://other.example", False),
        ({"origins": [PAGE]}, None, False),
        ({"origins": None}, PAGE, True),
    ],
)
async def test_cross_site_websocket_hijack(options, origin, accepted) -> None:
    """No page in a browser opens a carrier, unless it is allowed (RFC 6455 §10.2)."""

    async def serve(request):
        return accept_carrier(request, "ssh", echo, **options)

    fields = [] if origin is None else [f"Origin: {origin}"]
    peer = await run_script(
        serve, get("/ssh", *FIELDS, SUBPROTOCOL, *fields) + masked(b""), then="silence"
    )

    assert peer.sent.startswith(b"HTTP/1.1 101 " if accepted else b"HTTP/1.1 403 ")


async def test_wrong_origins() -> None:
    """They are an error for each request, not only for an offer."""
    caught = []

    async def wrong(request):
        with pytest.raises(TypeError, match="origins must be a sequence") as info:
            accept_carrier(request, "ssh", echo, origins=PAGE)
        caught.append(info)
        return await app(request)

    await run_script(wrong, get("/"))

    assert caught


async def test_both_offers() -> None:
    """Without frames is better: of two offers, the protocol itself is accepted."""
    both = get("/ssh", *FIELDS, SUBPROTOCOL).replace(
        b"Upgrade: websocket", b"Upgrade: websocket, ssh"
    )
    peer = await run_script(app, both)

    assert peer.sent == SWITCHED


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (get("/ssh"), b"426", b"Upgrade: ssh, websocket\r\n"),
        (get("/", "Connection: Upgrade", "Upgrade: b"), b"426", b"Upgrade: ssh, web"),
        (get("/ssh", *FIELDS), b"400", b""),
        (get("/ssh", *FIELDS, "Sec-WebSocket-Protocol: other"), b"400", b""),
        (WEBSOCKET_OFFER.replace(b"13\r\n", b"8\r\n"), b"426", b"Version: 13"),
    ],
)
async def test_refusal(request_, status, word) -> None:
    """What is no carrier gets an ordinary answer (RFC 9110 §15.5.22, RFC 6455 §4.4)."""
    peer = await run_script(app, request_)

    assert peer.sent.startswith(b"HTTP/1.1 " + status)
    assert word in peer.sent


async def test_version_of_a_protocol(nursery) -> None:
    """A name with a version is a subprotocol, too; names compare without case."""

    async def versioned(request):
        if "websocket" in request.upgrades:
            return accept_carrier(request, "SSH/2.0", echo)
        return await app(request)

    serve = partial(serve_tcp, versioned, 0, host=HOST, strict=True)
    server = await nursery.start(serve)
    async with open_carrier(server.url, "ssh/2.0") as stream:
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        assert type(stream).__name__ == "WebSocketStream"
    await server.drain(5)


async def test_without_the_extra(monkeypatch) -> None:
    """Without the extra only the protocol itself is named."""
    monkeypatch.setattr("trio_upgrade._carrier.serving.load_websocket", lambda: None)

    async def careful(request):
        return accept_carrier(request, "ssh", echo, origins=[PAGE])

    for each in (app, careful):
        peer = await run_script(each, WEBSOCKET_OFFER)

        assert peer.sent.startswith(b"HTTP/1.1 426 ")
        assert b"\r\nUpgrade: ssh\r\n" in peer.sent


@pytest.mark.parametrize(
    ("protocol", "handler", "error"),
    [
        (1, echo, "a protocol must be a str"),
        ("websocket/13", echo, "WebSocket is one of the carriers"),
        ("a b", echo, "protocol"),
        ("ssh", None, "the handler cannot be called"),
    ],
)
async def test_arguments(protocol, handler, error) -> None:
    """Wrong arguments are errors for each request, not only for an offer."""
    caught = []

    async def wrong(request):
        with pytest.raises((TypeError, ValueError), match=error) as info:
            accept_carrier(request, protocol, handler)
        caught.append(info)
        return await app(request)

    await run_script(wrong, get("/"))

    assert caught


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("polite", [False, True])
async def test_drain(nursery, carrier, polite, autojump_clock) -> None:
    """A drain leaves the handler the grace, and then resets; it may end earlier."""

    async def handler(request, stream) -> None:
        await stream.send_all(b"begin")
        await request.server.wait_draining()
        if not polite:
            await trio.sleep_forever()
        await stream.send_all(b"end")

    recorder = Recorder()
    carriers = Carriers(handler)
    carriers.allow_only(carrier)
    url = await carriers.start(nursery, observer=recorder)
    async with open_carrier(url, "ssh", attempt_timeout=None) as stream:
        assert await stream.receive_some() == b"begin"
        began = trio.current_time()
        carriers.server.start_drain(30)
        if polite:
            assert await read_all(stream) == b"end"
            assert trio.current_time() - began < 1
        else:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
            assert trio.current_time() - began == pytest.approx(30)
    assert not recorder.errors


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_one_handler(nursery, carrier) -> None:
    """The handler gets the request and a half-closeable stream; its return ends it."""
    seen = []
    recorder = Recorder()

    async def handler(request, stream) -> None:
        seen.append(request)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        assert await read_all(stream) == b"hello"
        await stream.send_all(b"late")

    carriers = Carriers(handler)
    carriers.allow_only(carrier)
    url = await carriers.start(nursery, observer=recorder)
    async with open_carrier(url, "ssh") as stream:
        await stream.send_all(b"hello")
        await stream.send_eof()
        assert await read_all(stream) == b"late"
    await carriers.server.drain(5)

    assert seen == carriers.requests[-1:]
    assert recorder.reasons[-1] is EndReason.RETURNED


async def test_client_of_another_kind(nursery) -> None:
    """A client that knows only Upgrade needs nothing of ours."""
    carriers = Carriers()
    url = await carriers.start(nursery)
    async with await open_upgrade(url, "ssh") as (_, stream, _):
        await stream.send_all(b"hello")
        await stream.send_eof()
        assert await read_all(stream) == b"hello"
    assert WEBSOCKET not in carriers.tried
    await carriers.server.drain(5)

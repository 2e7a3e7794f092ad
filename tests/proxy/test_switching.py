"""Offers, switches and tunnels through a reverse proxy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Limits
from trio_upgrade.testing import split_points

from .scenes import End, answer, okay, open_scene, settle, split_head

if TYPE_CHECKING:
    from trio_upgrade.proxy import TunnelRecord


def offer(*lines: str, token: str = "websocket", body: bytes = b"") -> bytes:
    """Return a request with an offer."""
    fields = ["GET /chat HTTP/1.1", "Host: x", "Connection: Upgrade"]
    fields += [f"Upgrade: {token}", *lines, "", ""]
    return "\r\n".join(fields).encode() + body


def switched(*lines: str, token: str = "websocket") -> bytes:
    """Return a 101."""
    fields = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
    return "\r\n".join([*fields, f"Upgrade: {token}", *lines, "", ""]).encode()


async def echo(end: End) -> None:
    """Switch, and send back what comes, in capitals, to the end."""
    await end.receive_until(b"\r\n\r\n")
    await end.stream.send_all(switched())
    async for chunk in end.stream:
        await end.stream.send_all(bytes(chunk).upper())
    await end.stream.send_eof()


async def test_both_directions_and_half_close() -> None:
    """After the 101 both sides are relayed, and an end is passed on as an end (§7.8)."""
    records: list[TunnelRecord] = []
    async with open_scene(echo, on_tunnel=records.append) as scene:
        async with scene.client() as client:
            await client.send(offer())
            await client.receive_until(b"\r\n\r\n")
            assert scene.proxy.statistics().tunnels == 1
            await client.send(b"one ", b"two")
            await client.stream.send_eof()

            assert (await client.receive_all()).endswith(b"\r\n\r\nONE TWO")
            assert client.ended
        await settle()
        numbers = scene.proxy.statistics()

    (record,) = records
    assert (record.protocol, record.request.path) == ("websocket", "/chat")
    assert (record.from_client, record.from_upstream) == (7, 7)
    assert (record.ended_by, record.cause) == ("client", "eof")
    assert record.seconds >= 0
    assert (numbers.tunnels, numbers.total_tunnels, numbers.requests) == (0, 1, 1)
    assert (numbers.from_clients, numbers.from_upstreams) == (7, 7)


async def test_the_upstream_ends_first() -> None:
    """The client's last bytes still arrive after the upstream's end."""
    records: list[TunnelRecord] = []

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched() + b"bye")
        await end.stream.send_eof()
        await end.receive_all()

    async with open_scene(handle, on_tunnel=records.append) as scene:
        async with scene.client() as client:
            await client.send(offer())
            assert (await client.receive_all()).endswith(b"bye")
            await client.send(b"late")
        await settle()

    assert scene.upstream.received.endswith(b"\r\n\r\nlate")
    assert (records[0].ended_by, records[0].cause) == ("upstream", "eof")


async def test_early_bytes_of_both_sides_at_every_split() -> None:
    """Bytes after the request and after the 101 are the first of the tunnel."""
    wire, back = offer() + b"early", switched() + b"hello"
    packets: tuple[bytes, ...] = (back,)

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await settle()
        # Nothing but the request before the 101.
        assert end.received.endswith(b"\r\n\r\n")
        await end.send(*packets)
        await end.receive_until(b"early")
        await end.stream.send_eof()

    async with open_scene(handle) as scene:
        for cut in split_points(back):
            packets = cut
            await check_early(scene, wire)
        packets = (back,)
        for cut in [*split_points(wire)][::5]:
            await check_early(scene, *cut)


async def check_early(scene, *packets: bytes) -> None:
    async with scene.client() as client:
        await client.send(*packets)
        got = await client.receive_until(b"hello")
        await client.stream.send_eof()
        await client.receive_all()

    assert got == switched() + b"hello"
    assert bytes(scene.upstream.ends.pop().received).endswith(b"\r\n\r\nearly")


async def test_request_as_the_upstream_gets_it() -> None:
    """The offer is written anew from what is allowed; all else is as it came."""
    async with (
        open_scene(
            echo, upgrades=("websocket", "chat/2"), trusted=["127.0.0.1"]
        ) as scene,
        scene.client() as client,
    ):
        await client.send(
            offer(
                "Connection: HTTP2-Settings, X-Hop",
                "HTTP2-Settings: AAMAAABk",
                "X-Hop: 1",
                "Sec-WebSocket-Key: k",
                "Origin: http://x",
                "X-Forwarded-For: 9.9.9.9",
                token="h2c, TLS/1.3, chat/2, chat/1, WebSocket",
            )
        )
        await settle()

    first, fields, _ = split_head(scene.upstream.received)

    assert first == b"GET /chat HTTP/1.1"
    assert fields == [
        b"Host: x",
        b"Connection: Upgrade",
        b"Upgrade: chat/2, WebSocket",
        b"Sec-WebSocket-Key: k",
        b"Origin: http://x",
        b"X-Forwarded-For: 9.9.9.9, 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: x",
        b"Via: 1.1 us",
    ]


async def test_predicate_decides() -> None:
    """A function gets the request and one protocol."""
    asked = []

    def allows(incoming, protocol):
        asked.append((incoming.path, protocol))
        return False

    async with open_scene(answer(okay()), upgrades=allows) as scene:
        async with scene.client() as client:
            await client.send(offer("Connection: close", token="a, h2c"))
            got = await client.receive_all()

    assert got.endswith(b"okay")
    assert asked == [("/chat", "a")]
    assert b"Upgrade" not in scene.upstream.received


async def test_more_fields_of_the_101() -> None:
    """The user can name fields that another protocol needs."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched("X-Mine: 1", "X-Other: 2", "Sec-WebSocket-Accept: a"))
        await end.receive_all()

    async with open_scene(handle, switch_fields=["X-MINE"]) as scene:
        async with scene.client() as client:
            await client.send(offer())
            got = await client.receive_until(b"\r\n\r\n")

    assert split_head(got)[1] == [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"X-Mine: 1",
        b"Sec-WebSocket-Accept: a",
    ]


async def test_body_before_the_switch() -> None:
    """It is framed anew and sent whole; the switch comes after it (docker exec)."""

    async def handle(end: End) -> None:
        await end.receive_until(b"0\r\n\r\n")
        await end.send(switched(token="tcp"))
        await end.receive_all()

    wire = offer(
        "Transfer-Encoding: chunked", token="tcp", body=b"2\r\n{}\r\n0\r\n\r\nearly"
    ).replace(b"GET", b"POST")
    async with open_scene(handle, upgrades=("tcp",)) as scene, scene.client() as client:
        await client.send(wire)
        await client.receive_until(b"\r\n\r\n")
        await client.stream.send_eof()
        await client.receive_all()

    assert split_head(scene.upstream.received)[2] == b"2\r\n{}\r\n0\r\n\r\nearly"


@pytest.mark.ids("U15")
async def test_100_before_the_101() -> None:
    """A client that expects a 100 gets it before the switch (RFC 9110 §7.8)."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await end.receive_until(b"body")
        await end.send(switched())
        await end.receive_all()

    async with open_scene(handle) as scene, scene.client() as client:
        await client.send(
            offer("Expect: 100-continue", "Content-Length: 4").replace(b"GET", b"PUT")
        )
        assert await client.receive_until(b"\r\n\r\n") == (
            b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        await client.send(b"body")
        assert (await client.receive_until(b"\r\n\r\n", 2)).endswith(switched())


@pytest.mark.ids("U20")
async def test_other_informational_responses_before_the_101() -> None:
    """They are passed on in their order (RFC 9110 §15.2)."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + switched())
        await end.receive_all()

    async with open_scene(handle) as scene, scene.client() as client:
        await client.send(offer())
        got = await client.receive_until(b"\r\n\r\n", 2)

    assert got == b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + switched()


async def test_refusal_is_relayed_whole() -> None:
    """With status, fields and a body of any length; the client's connection goes on."""
    body = b"x" * 300_000
    async with (
        open_scene(answer(okay("X: 1", body=body, status="403 Go Away"))) as scene,
        scene.client() as client,
    ):
        for _ in range(2):
            client.received.clear()
            await client.send(offer())
            got = await client.receive_until(body)
            first, fields, content = split_head(got)

            assert (first, content) == (b"HTTP/1.1 403 Go Away", body)
            assert b"X: 1" in fields
        assert scene.proxy.statistics().total_tunnels == 0


async def test_verdict_takes_too_long() -> None:
    """A 504 after upgrade_timeout, which does not bound the tunnel."""

    async def hold(end: End) -> None:
        await end.receive_all()

    async with open_scene(hold, upgrade_timeout=0.05) as scene:
        async with scene.client() as client:
            await client.send(offer())
            got = await client.receive_until(b"\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 504 ")
    async with open_scene(echo, upgrade_timeout=0.05) as scene:
        async with scene.client() as client:
            await client.send(offer())
            await client.receive_until(b"\r\n\r\n")
            await trio.sleep(0.1)
            await client.send(b"on")
            assert (await client.receive_until(b"ON")).endswith(b"ON")


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_reset_of_one_side_resets_the_other(side: str) -> None:
    """A cut never looks like an end."""
    records: list[TunnelRecord] = []
    ready = trio.Event()

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched())
        await ready.wait()
        if side == "upstream":
            await end.reset()
        else:
            await end.receive_all()

    async with open_scene(handle, on_tunnel=records.append) as scene:
        async with scene.client() as client:
            await client.send(offer())
            await client.receive_until(b"\r\n\r\n")
            ready.set()
            if side == "client":
                await client.reset()
            else:
                await client.receive_all()
                assert client.was_reset
            await settle()
        if side == "client":
            assert scene.upstream.ends[0].was_reset

    assert (records[0].ended_by, records[0].cause) == (side, "reset")


@pytest.mark.parametrize(
    ("options", "half_closed", "cause"),
    [
        ({"tunnel_idle_timeout": 0.05}, False, "idle"),
        ({"half_close_timeout": 0.05}, True, "half_close_timeout"),
    ],
)
async def test_silent_tunnel_is_reset(options, half_closed: bool, cause: str) -> None:
    """Both sides see a cut, since neither has ended."""
    records: list[TunnelRecord] = []

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched())
        await end.receive_all()
        await trio.sleep_forever()

    async with open_scene(handle, on_tunnel=records.append, **options) as scene:
        async with scene.client() as client:
            await client.send(offer())
            await client.receive_until(b"\r\n\r\n")
            if half_closed:
                await client.stream.send_eof()
            await client.receive_all()
            await settle()

            assert client.was_reset
            assert half_closed or scene.upstream.ends[0].was_reset
    assert (records[0].ended_by, records[0].cause) == (None, cause)


async def test_drain_ends_tunnels() -> None:
    """A drain waits, then cancels what is left; both sides are reset."""
    records: list[TunnelRecord] = []
    async with open_scene(echo, on_tunnel=records.append) as scene:
        async with scene.client() as client:
            await client.send(offer())
            await client.receive_until(b"\r\n\r\n")
            await scene.server.drain(grace=0.05)
            await client.receive_all()

            assert client.was_reset
    assert (records[0].ended_by, records[0].cause) == (None, "cancelled")


async def test_no_switch_while_draining() -> None:
    """An offer that the upstream accepts is answered with 503; its side is cut."""
    started, draining = trio.Event(), trio.Event()

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        started.set()
        await draining.wait()
        await end.stream.send_all(switched())
        await end.receive_all()

    async with open_scene(handle, limits=Limits(linger=0)) as scene:
        async with scene.client() as client:
            await client.send(offer())
            await started.wait()
            scene.server.start_drain(grace=5)
            draining.set()
            got = await client.receive_all()
            await settle()

            assert scene.upstream.ends[0].ended or scene.upstream.ends[0].was_reset
    assert got.startswith(b"HTTP/1.1 503 ")


async def test_on_tunnel_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in it is logged and hides nothing."""

    def fail(_record: TunnelRecord) -> None:
        raise RuntimeError("a bug")

    async with open_scene(echo, on_tunnel=fail) as scene, scene.client() as client:
        await client.send(offer())
        await client.stream.send_eof()
        assert (await client.receive_all()).endswith(switched())

    assert "on_tunnel has raised" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_101_with_an_empty_element() -> None:
    """A recipient ignores it (RFC 9110 §5.6.1.2); the client's 101 has none."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched(token=", websocket ,"))
        await end.receive_all()

    async with open_scene(handle) as scene, scene.client() as client:
        await client.send(offer())
        got = await client.receive_until(b"\r\n\r\n")

        assert got == switched()


async def test_101_that_names_several_protocols() -> None:
    """Each was offered, so it is legal; but a 101 of ours names one: a 502."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched(token="a, b"))
        await end.receive_all()

    async with open_scene(handle, upgrades=("a", "b")) as scene:
        async with scene.client() as client:
            await client.send(offer(token="a, b"))
            got = await client.receive_until(b"\r\n\r\n")

        assert got.startswith(b"HTTP/1.1 502 ")
        assert scene.proxy.statistics().failures == 1

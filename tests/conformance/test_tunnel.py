"""The client of a proxy: what it sends, and which answers open a tunnel."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadResponse,
    IllegalSwitch,
    PeerGone,
    TunnelRefused,
    open_connection,
    open_tunnel,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..wire import SWITCHED, okay
from .wires import CONNECT, CONTINUE, TUNNEL, URL, Dialling, read_all, with_fields


async def check_tunnel(
    dialling: Dialling, wire: bytes, stream_bytes: bytes, sent: bytes
) -> None:
    async def use(stream: trio.abc.Stream) -> None:
        tunnel = await open_tunnel("http://x:3128", "a:1", stream=stream)
        async with tunnel as (response, inner, head):
            assert 200 <= response.status <= 299
            assert stream_bytes.startswith(head)
            await inner.send_all(b"hello")
            assert await read_all(inner) == stream_bytes

    await dialling.run(use, wire, sent + b"hello")


@pytest.mark.ids("C08", "C01", "C07", "M01", "M02", "C03")
async def test_connect_on_the_wire(dialling: Dialling) -> None:
    """A CONNECT has host:port as target and Host, no content (RFC 9112 §3.2.3)."""
    await check_tunnel(dialling, TUNNEL + b"\r\nHEAD", b"\r\nHEAD", CONNECT)


@pytest.mark.ids("C06", "C22", "C03")
@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 3"],
        ["Transfer-Encoding: chunked"],
        ["Content-Length: 3", "Content-Length: x", "Transfer-Encoding: gzip"],
    ],
)
@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 299 x"]
)
async def test_framing_of_a_2xx_is_ignored(
    dialling: Dialling, fields: list[str], line: bytes
) -> None:
    """Any 2xx opens a tunnel; its framing fields are ignored (RFC 9110 §9.3.6)."""
    wire = with_fields(line + b"\r\n\r\n", *fields) + b"\x80raw"

    await check_tunnel(dialling, wire, b"\x80raw", CONNECT)


@pytest.mark.ids("C03", "U19", "C21")
async def test_1xx_is_no_tunnel(dialling: Dialling) -> None:
    """A 100 before the 200 does not open a tunnel (RFC 9110 §9.3.6)."""

    async def use(stream: trio.abc.Stream) -> None:
        tunnel = await open_tunnel(URL, "a:1", stream=stream)
        async with tunnel:
            assert [head.status for head in tunnel.informational] == [100]
            assert await read_all(tunnel.stream) == b"HEAD"

    await dialling.run(use, CONTINUE + TUNNEL + b"HEAD", CONNECT)


@pytest.mark.ids("C03", "C20")
@pytest.mark.parametrize(
    "status", ["407 Proxy Authentication Required", "302 Found", "501 Not Implemented"]
)
async def test_refused_tunnel(dialling: Dialling, status: str) -> None:
    """Another status is a refusal, whose body can be read (RFC 9110 §9.3.6)."""

    async def use(stream: trio.abc.Stream) -> None:
        with pytest.raises(TunnelRefused, match=status) as caught:
            await open_tunnel(URL, "a:1", stream=stream)
        assert caught.value.response.status == int(status[:3])
        assert caught.value.response.headers["proxy-authenticate"] == "Basic"
        assert caught.value.response.body == b"first say who you are"

    answer = okay(b"first say who you are", "Proxy-Authenticate: Basic", status=status)

    await dialling.run(use, answer + b"HEAD", CONNECT)


@pytest.mark.ids("C03")
@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"HTTP/2.0 200 OK\r\n\r\n", BadResponse),
        (b"SSH-2.0-x\r\n\r\n", BadResponse),
        (TUNNEL[:-2], PeerGone),
        (b"", PeerGone),
    ],
)
async def test_malformed_or_incomplete_answer(
    dialling: Dialling, wire: bytes, error
) -> None:
    """A malformed or incomplete response opens no tunnel (RFC 9110 §9.3.6)."""

    async def use(stream: trio.abc.Stream) -> None:
        with pytest.raises(error):
            await open_tunnel(URL, "a:1", stream=stream)

    await dialling.run(use, wire, CONNECT)


@pytest.mark.ids("O02", "M12")
async def test_no_request_after_a_refusal(dialling: Dialling) -> None:
    """No request is sent after a refused CONNECT (RFC 9931 §8)."""

    async def use(stream: trio.abc.Stream) -> None:
        async with await open_connection(URL, stream=stream) as connection:
            with pytest.raises(TunnelRefused) as caught:
                await connection.connect("a:1")
            assert await caught.value.response.read() == b"no"
            with pytest.raises(PeerGone):
                await connection.request("GET", "/")

    await dialling.run(use, okay(b"no", status="403 Forbidden"), CONNECT)


@pytest.mark.ids("C01", "C08")
@pytest.mark.parametrize(
    "authority", ["a", "a:", "a:0", "a:x", ":1", "::1", "a:1/b", ""]
)
async def test_tunnel_needs_a_port(authority: str) -> None:
    """Without a port nothing is sent: CONNECT has no default (RFC 9110 §9.3.6)."""
    peer = ScriptedPeer(TUNNEL)
    with pytest.raises(ValueError, match=r"port|host"):
        await open_tunnel(URL, authority, stream=peer)

    assert not peer.sent
    assert peer.closed


@pytest.mark.ids("C07", "C08")
async def test_connect_only_by_connect() -> None:
    """Only connect() sends a CONNECT, and without content, Upgrade or Expect."""
    peer = ScriptedPeer(TUNNEL)
    connection = await open_connection(URL, stream=peer)
    for call in (
        lambda: connection.request("CONNECT", "a:1"),
        lambda: connection.upgrade("a:1", "echo", method="CONNECT"),
        lambda: connection.connect("a:1", headers={"Content-Length": "2"}),
        lambda: connection.connect("a:1", headers={"Upgrade": "echo"}),
        lambda: connection.connect("a:1", headers={"Expect": "100-continue"}),
    ):
        with pytest.raises(ValueError, match=r"CONNECT|written by the library"):
            await call()

    assert not peer.sent


@pytest.mark.ids("O01")
async def test_payload_waits_for_the_2xx() -> None:
    """There is no stream to send on before the 2xx (RFC 9931 §8)."""
    for packets in split_points(CONTINUE + TUNNEL):
        peer = ScriptedPeer(*packets[:-1], then="silence")
        async with trio.open_nursery() as nursery:

            async def dial(peer=peer) -> None:
                async with await open_tunnel(URL, "a:1", stream=peer) as tunnel:
                    await tunnel.stream.send_all(b"secret")

            nursery.start_soon(dial)
            await trio.testing.wait_all_tasks_blocked()
            assert peer.sent == CONNECT
            peer.feed(packets[-1])
            peer.finish()

        assert peer.sent == CONNECT + b"secret"


@pytest.mark.ids("C03", "U04")
async def test_101_to_a_connect(dialling: Dialling) -> None:
    """A 101 to a CONNECT is illegal (RFC 9110 §15.2.2)."""

    async def use(stream: trio.abc.Stream) -> None:
        with pytest.raises(IllegalSwitch, match="asked for no switch"):
            await open_tunnel(URL, "a:1", stream=stream)

    await dialling.run(use, SWITCHED + b"HEAD", CONNECT)

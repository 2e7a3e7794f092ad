"""Dialling: tunnels through a proxy, byte for byte, and which end closes."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadResponse,
    IllegalSwitch,
    Limits,
    OpenError,
    PeerGone,
    Request,
    Response,
    Tunnel,
    TunnelRefused,
    UsageError,
    open_connection,
    open_tunnel,
    pipe,
    serve_tcp,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..wire import SWITCHED, okay

PROXY = "http://proxy:3128"
ASKED = b"CONNECT example.com:22 HTTP/1.1\r\nHost: example.com:22\r\n\r\n"
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def dial(peer: trio.abc.Stream, authority: str = "example.com:22", **options):
    return await open_tunnel(PROXY, authority, stream=peer, **options)


async def check_tunnel(wire: bytes, status: int, expected: bytes) -> None:
    """However the wire is cut, the tunnel opens and the stream yields this."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets)
        async with await dial(peer) as (response, stream, head):
            assert response.status == status
            assert b"".join([bytes(chunk) async for chunk in stream]) == expected
            assert expected.startswith(head)
            await stream.send_all(b"mine")
        assert peer.sent == ASKED + b"mine"
        assert peer.closed


async def check_failure(wire: bytes, error: type[OpenError], match: str, then="end"):
    """However the wire is cut, opening fails with this, and nothing is left open."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, then=then)
        with pytest.raises(error, match=match) as failure:
            await dial(peer)

        assert peer.closed, packets
        assert peer.sent in (ASKED, b"")
    return failure.value


class TestTunnel:
    """A 2xx, and the tunnel after it."""

    @pytest.mark.ids("C01", "C03")
    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"HTTP/1.1 200 Connection established", 200),
            (b"HTTP/1.1 200", 200),
            (b"HTTP/1.1 201 Created", 201),
            (b"HTTP/1.1 204 No Content", 204),
            (b"HTTP/1.1 299 Odd", 299),
            # The responses of ncat and tinyproxy.
            (b"HTTP/1.0 200 OK", 200),
            (b"HTTP/1.0 200 OK\r\nConnection: close", 200),
        ],
    )
    async def test_any_2xx(self, line: bytes, status: int) -> None:
        """Any 2xx opens it, in HTTP/1.0 too; the next bytes are its data (§9.3.6)."""
        await check_tunnel(line + b"\r\nA: b\r\n\r\n", status, b"")
        await check_tunnel(line + b"\r\n\r\nSSH-2.0\r\n", status, b"SSH-2.0\r\n")

    @pytest.mark.ids("C06")
    @pytest.mark.parametrize(
        "fields",
        [
            b"Content-Length: 3\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: x\r\n",
            b"Content-Length: 1\r\ncontent-length: 2\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"TRANSFER-encoding:\r\n",
        ],
    )
    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    async def test_framing_is_ignored(self, fields: bytes, version: bytes) -> None:
        """A length or coding frames nothing, even a malformed one (§9.3.6)."""
        head = b"HTTP/%s 200 OK\r\nA: b\r\n%sC: d\r\n\r\n" % (version, fields)
        await check_tunnel(head + b"\x80raw", 200, b"\x80raw")

        async with await dial(ScriptedPeer(head)) as (response, _, _):
            assert response.headers.raw == ((b"A", b"b"), (b"C", b"d"))

    @pytest.mark.ids("U19", "R42")
    async def test_informational(self) -> None:
        """1xx before the 2xx are skipped, and kept (RFC 9110 §15.2)."""
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nA: b\r\n\r\n"
        await check_tunnel(early + OPENED + b"raw", 200, b"raw")

        async with await dial(ScriptedPeer(early + OPENED)) as tunnel:
            assert [head.status for head in tunnel.informational] == [100, 102]
            assert tunnel.informational[1].headers["a"] == "b"

    async def test_nothing_is_http_after_it(self) -> None:
        """Bytes in the tunnel that look like a message are data."""
        await check_tunnel(OPENED + OPENED + SWITCHED, 200, OPENED + SWITCHED)

    async def test_end_after_the_head(self) -> None:
        """The proxy's end is the stream's; our direction stays open."""
        for packets in split_points(OPENED):
            peer = ScriptedPeer(*packets)
            async with await dial(peer) as (_, stream, _):
                assert await stream.receive_some() == b""
                await stream.send_all(b"still here")
            assert peer.sent == ASKED + b"still here"

    async def test_request_on_the_wire(self) -> None:
        """Host is the authority; then the user's fields; no field frames a body."""
        peer = ScriptedPeer(OPENED)
        fields = {"Proxy-Authorization": "Basic x", "Connection": "close"}
        await dial(peer, "[::1]:443", headers=fields)

        assert peer.sent == (
            b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n"
            b"Proxy-Authorization: Basic x\r\nConnection: close\r\n\r\n"
        )

    async def test_over_tcp(self) -> None:
        """Through a real proxy bytes and ends pass in both directions."""

        async def speak(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.send_all(b"hello ")
                async for chunk in stream:
                    await stream.send_all(chunk)

        async def app(request: Request) -> Response | Tunnel:
            host, port = request.authority
            target = await trio.open_tcp_stream(host, port or 0)

            async def handler(request, stream, head) -> None:
                async with target, trio.open_nursery() as nursery:
                    nursery.start_soon(pipe, stream, target)
                    nursery.start_soon(pipe, target, stream)

            return Tunnel(handler)

        async with trio.open_nursery() as nursery:
            (port,) = [
                listener.socket.getsockname()[1]
                for listener in await nursery.start(
                    partial(trio.serve_tcp, speak, 0, host="127.0.0.1")
                )
            ]
            proxy = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
            tunnel = await open_tunnel(proxy.url, f"127.0.0.1:{port}")
            async with tunnel as (_, stream, _):
                await stream.send_all(b"you")
                await stream.send_eof()
                got = b"".join([bytes(chunk) async for chunk in stream])
            nursery.cancel_scope.cancel()

        assert got == b"hello you"


class TestRefused:
    """Anything but a 2xx."""

    @pytest.mark.ids("C03")
    @pytest.mark.parametrize(
        "status", ["301 Moved Permanently", "403 Forbidden", "502 Bad Gateway"]
    )
    async def test_refused(self, status: str) -> None:
        """The error has the response, its body read; the connection is closed."""
        wire = okay(b"reasons", "X-A: 1", status=status)
        error = await check_failure(
            wire,
            TunnelRefused,
            f'^proxy {PROXY}, target example.com:22: refused with {status}: "reasons"$',
        )

        assert error.response.status == int(status[:3])
        assert error.response.headers["x-a"] == "1"
        assert error.response.body == await error.response.read() == b"reasons"
        assert not error.response.truncated

    async def test_407(self) -> None:
        """A 407's challenge and chunked body can be read (RFC 9110 §15.5.8)."""
        wire = (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n"
            b'Proxy-Authenticate: Basic realm="x"\r\n'
            b"Transfer-Encoding: chunked\r\n\r\n"
            b"3\r\nwho\r\n1\r\n?\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        error = await check_failure(wire, TunnelRefused, "407")

        assert error.response.headers["proxy-authenticate"] == 'Basic realm="x"'
        assert error.response.body == b"who?"
        assert error.response.trailers == {"x-sum": "1"}

    async def test_body_until_the_end(self) -> None:
        """A body without a length lasts until the proxy's end."""
        error = await check_failure(
            b"HTTP/1.0 403 No\r\n\r\nuntil the end", TunnelRefused, "403 No"
        )
        assert error.response.body == b"until the end"

    async def test_body_is_cut(self) -> None:
        """Limits.refusal_body bytes of a long body are kept, all bytes of a cut one."""
        long = okay(b"x" * 100, status="403 Forbidden")
        for wire, size in ((long, 10), (long[:-95], 5)):
            peer = ScriptedPeer(wire)
            with pytest.raises(TunnelRefused) as caught:
                await dial(peer, limits=Limits(refusal_body=10))

            assert caught.value.response.body == b"x" * size
            assert caught.value.response.truncated
            assert peer.closed

    @pytest.mark.parametrize("line", [b"HTTP/1.1 101 Go", b"HTTP/1.1 101"])
    async def test_101(self, line: bytes) -> None:
        """A 101 is illegal, because CONNECT asks for no switch (RFC 9110 §7.8)."""
        head = SWITCHED.replace(b"HTTP/1.1 101 Switching Protocols", line)
        error = await check_failure(head + b"raw", IllegalSwitch, "asked for no switch")

        assert error.defect == "the request asked for no switch"

    @pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 2", OPENED[:-2]])
    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_gone(self, wire: bytes, then: str) -> None:
        """An end or a reset before the complete response is PeerGone."""
        await check_failure(wire, PeerGone, "connection", then=then)

    @pytest.mark.parametrize(
        ("wire", "match"),
        [
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "begins with 'S'"),
            (b"HTTP/2.0 200 OK\r\n\r\n", "begins with 'HTTP/2'"),
            (b"HTTP/1.1 200 OK\nA: b\n\n", "bare CR or LF"),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "folded"),
            (b"HTTP/1.1 403 No\r\nContent-Length: x\r\n\r\n", "Content-Length"),
            (b"HTTP/1.1 102 A\r\n\r\n" * 17, "too many informational"),
        ],
    )
    async def test_no_http(self, wire: bytes, match: str) -> None:
        """A response that is not HTTP opens no tunnel."""
        await check_failure(wire, BadResponse, match)


class TestArguments:
    """A mistake in the arguments is raised before anything is sent."""

    @pytest.mark.ids("C01", "C08")
    @pytest.mark.parametrize(
        "authority",
        [
            "",
            "example.com",
            "example.com:",
            ":22",
            "example.com:0",
            "example.com:65536",
            "example.com:x",
            "::1:22",
            "[::1]",
            "[::g]:22",
            "user@example.com:22",
            "http://example.com:22",
            "example.com:22/",
            "a b:22",
            "a:22\r\nX: y",
            "ex\xe4mple.com:22",
        ],
    )
    async def test_authority(self, authority: str) -> None:
        """The authority has a host and always a port (§9.3.6, RFC 9112 §3.2.3)."""
        peer = ScriptedPeer(OPENED)
        connection = await open_connection(PROXY, stream=peer)
        with pytest.raises(ValueError):  # noqa: PT011  the message is that of parse_connect_authority
            await connection.connect(authority)
        assert not peer.closed
        with pytest.raises(ValueError):  # noqa: PT011
            await dial(peer, authority)

        assert peer.closed
        assert not peer.sent

    @pytest.mark.parametrize(
        "name",
        ["Host", "content-length", "Transfer-Encoding", "UPGRADE", "Expect"],
    )
    async def test_field(self, name: str) -> None:
        """A field that is not allowed in a CONNECT, or that the library writes, fails."""
        peer = ScriptedPeer(OPENED)
        with pytest.raises(ValueError, match=f"^{name} is written by the library"):
            await dial(peer, headers={name: "x"})

        assert peer.closed
        assert not peer.sent

    @pytest.mark.parametrize("url", ["ftp://x", "http://", "http://u@p@x"])
    async def test_url(self, url: str) -> None:
        """A malformed proxy URL fails; the stream is owned nevertheless."""
        peer = ScriptedPeer(OPENED)
        with pytest.raises(ValueError, match="URL"):
            await open_tunnel(url, "a:1", stream=peer)

        assert peer.closed

    async def test_order(self) -> None:
        """The authority is checked before the proxy is dialled."""
        with pytest.raises(ValueError, match="host:port"):
            await open_tunnel("http://127.0.0.1:1", "a")

    async def test_refused_connection(self) -> None:
        """A proxy that cannot be reached is an OSError, as from Trio."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        with pytest.raises(OSError, match=str(port)):
            await open_tunnel(f"http://127.0.0.1:{port}", "a:1")


class TestConnect:
    """The same on a connection that is already open."""

    async def test_after_a_request(self) -> None:
        """The connection becomes the tunnel; its object counts as closed."""
        peer = ScriptedPeer(okay(b"1"), OPENED + b"raw", then="silence")
        connection = await open_connection(PROXY, stream=peer)
        await (await connection.request("GET", "http://x/")).read()
        tunnel = await connection.connect("a:1")

        assert tunnel.head == b"raw"
        with pytest.raises(trio.ClosedResourceError):
            await connection.request("GET", "/")
        await connection.aclose()
        assert not peer.closed
        await trio.aclose_forcefully(tunnel.stream)
        assert peer.closed

    @pytest.mark.ids("O02")
    async def test_refused(self) -> None:
        """The refusal's body can be read, but no other request made (RFC 9931 §8)."""
        refusal = okay(b"reasons", status="407 Proxy Authentication Required")
        for packets in split_points(refusal):
            peer = ScriptedPeer(*packets, then="silence")
            connection = await open_connection(PROXY, stream=peer)
            with pytest.raises(TunnelRefused) as caught:
                await connection.connect("a:1")
            assert not peer.closed
            assert caught.value.response.body == b""
            with pytest.raises(UsageError, match="body is not read"):
                await connection.connect("a:1")
            assert await caught.value.response.read() == b"reasons"
            sent = bytes(peer.sent)
            with pytest.raises(PeerGone, match="ended the connection"):
                await connection.request("GET", "/")
            assert peer.closed
            assert peer.sent == sent

    @pytest.mark.parametrize(
        "wire", [b"", OPENED[:-1], okay(b"x", status="403 No")[:-1]]
    )
    async def test_cancelled(self, wire: bytes) -> None:
        """A cancellation while the tunnel is opened leaves nothing open."""
        peer = ScriptedPeer(wire, then="silence")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial, peer)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

        assert scope.cancelled_caught
        assert peer.closed

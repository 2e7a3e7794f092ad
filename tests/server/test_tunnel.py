"""CONNECT on the server's side, byte for byte: the tunnel, and every other answer."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Request,
    Response,
    Tunnel,
    Upgrade,
    UpgradedStream,
    UsageError,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..servers import check_every_split, run_script
from ..wire import BUG, DATE, SWITCHED, UP, get, okay

CONNECT = b"CONNECT example.com:22 HTTP/1.1\r\nHost: example.com:22\r\n\r\n"
OLD = b"CONNECT example.com:22 HTTP/1.0\r\n\r\n"
OPENED = b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n"


async def tunnel_app(request: Request) -> Tunnel:
    return Tunnel(echo)


async def serve(app, *packets: bytes, then="end") -> ScriptedPeer:
    """Serve an app that may have bugs."""
    peer = ScriptedPeer(*packets, then=then)
    await serve_stream(app, peer)
    assert peer.closed
    return peer


class TestTunnel:
    """The answer that opens a tunnel."""

    @pytest.mark.ids("C03", "C07", "U34")
    async def test_early_bytes_are_echoed_once(self) -> None:
        """Bytes after the head are the first of the tunnel (RFC 9110 §9.3.6)."""
        await check_every_split(tunnel_app, CONNECT + b"\x80raw", OPENED + b"\x80raw")
        await check_every_split(tunnel_app, CONNECT, OPENED)
        # Even if they look like the next request.
        await check_every_split(tunnel_app, CONNECT + UP, OPENED + UP)

    async def test_http_1_0(self) -> None:
        """ncat, socat, OpenBSD's nc and openssl send HTTP/1.0 without Host: it works."""
        await check_every_split(tunnel_app, OLD + b"raw", OPENED + b"raw")
        with_host = OLD[:-2] + b"Host: example.com:22\r\n\r\n"
        await check_every_split(tunnel_app, with_host + b"raw", OPENED + b"raw")

    @pytest.mark.parametrize(
        "field",
        [
            b"Content-Length: 0",
            b"Expect: 100-continue",
            b"Connection: Upgrade\r\nUpgrade: echo",
            b"Proxy-Connection: keep-alive",
            b"Connection: close",
        ],
    )
    async def test_fields(self, field: bytes) -> None:
        """Fields that matter in other requests have no effect."""
        wire = CONNECT[:-2] + field + b"\r\n\r\nraw"
        await check_every_split(tunnel_app, wire, OPENED + b"raw")

    async def test_request_of_the_app(self) -> None:
        """App and handler see an authority, no path, no offers and no body."""
        seen: list[object] = []

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            assert head == stream.head
            seen.append((head, repr(request)))

        async def app(request: Request) -> Tunnel:
            seen.append((request.method, request.target, request.authority))
            seen.append((request.path, request.query, len(request.upgrades)))
            seen.append((await request.read(), request.trailers.raw))
            return Tunnel(handler, {"Via": "1.1 x", "Proxy-Status": "y"})

        peer = await run_script(
            app, CONNECT[:-2] + b"Upgrade: echo\r\n\r\nHEAD", b"more"
        )

        assert peer.sent == OPENED[:-2] + b"Via: 1.1 x\r\nProxy-Status: y\r\n\r\n"
        assert seen == [
            ("CONNECT", "example.com:22", ("example.com", 22)),
            ("", "", 0),
            (b"", ()),
            (b"HEAD", "<Request CONNECT example.com:22>"),
        ]

    async def test_after_other_requests(self) -> None:
        """Earlier requests are answered first (RFC 9112 §9.3.2)."""

        async def app(request: Request) -> Response | Tunnel:
            if request.method == "CONNECT":
                return Tunnel(echo)
            return Response(200, await request.read() or request.path.encode())

        post = get("/1", "Content-Length: 4").replace(b"GET", b"POST") + b"body"
        await check_every_split(
            app,
            post + get("/2") + CONNECT + b"raw",
            okay(b"body") + okay(b"/2") + OPENED + b"raw",
        )

    async def test_bug_in_the_handler(self, caplog) -> None:
        """An error after the 200 is logged, and nothing more is sent."""

        async def handler(request, stream, head) -> None:
            raise LookupError("oops")

        async def app(_: Request) -> Tunnel:
            return Tunnel(handler)

        peer = await serve(app, CONNECT)

        assert peer.sent == OPENED
        assert not peer.got_eof
        assert "oops" in caplog.text


class TestAnswer:
    """The Tunnel object."""

    @pytest.mark.ids("U34")
    @pytest.mark.parametrize(
        "name",
        ["Content-Length", "transfer-encoding", "Connection", "Upgrade", "Keep-Alive"],
    )
    def test_fields(self, name: str) -> None:
        """Framing fields and hop-by-hop fields are refused (RFC 9110 §8.6)."""
        with pytest.raises(ValueError, match=f"^{name} is written by the library"):
            Tunnel(echo, {name: "x"})

    def test_injection(self) -> None:
        """Nothing can be injected by a field."""
        with pytest.raises(ValueError, match="A: control characters"):
            Tunnel(echo, {"A": "b\r\nC: d"})

    def test_handler(self) -> None:
        """A handler that cannot be called is refused when it is given."""
        with pytest.raises(TypeError, match=r"cannot be called: .* not int"):
            Tunnel(3)  # type: ignore[arg-type]

    def test_immutable(self) -> None:
        """A Tunnel is immutable, so it is sent as it was checked."""
        tunnel = Tunnel(echo, {"A": "b"})

        assert tunnel.headers.raw == ((b"A", b"b"),)
        assert repr(tunnel) == f"Tunnel({echo!r})"
        with pytest.raises(AttributeError):
            tunnel.handler = echo  # type: ignore[misc]


class TestAcceptConnect:
    """The tunnel inside the app."""

    async def test_accept_and_echo(self) -> None:
        """accept_connect gives the stream and its head; returning closes it."""
        heads: list[bytes] = []

        async def app(request: Request) -> None:
            stream, head = await request.accept_connect(headers={"Via": "x"})
            heads.append(head)
            await echo(request, stream, head)

        peer = await run_script(app, CONNECT + b"HEAD")
        expected = OPENED[:-2] + b"Via: x\r\n\r\nHEAD"

        assert heads == [b"HEAD"]
        assert peer.sent == expected
        await check_every_split(app, CONNECT + b"HEAD", expected)

    async def test_twice(self) -> None:
        """A second accept, of either kind, raises and changes nothing."""

        async def app(request: Request) -> None:
            stream, head = await request.accept_connect()
            with pytest.raises(UsageError, match="has switched protocols already"):
                await request.accept_connect()
            with pytest.raises(UsageError, match="has switched protocols already"):
                await request.accept_upgrade("echo")
            await echo(request, stream, head)

        peer = await run_script(app, CONNECT + b"raw")

        assert peer.sent == OPENED + b"raw"

    async def test_of_another_request(self) -> None:
        """Only a CONNECT can become a tunnel; nothing is sent, any answer is possible."""

        async def app(request: Request) -> Response:
            with pytest.raises(UsageError, match=r"^no tunnel was asked for by <Requ"):
                await request.accept_connect()
            return Response(200, b"okay")

        await check_every_split(app, UP + get("/2"), okay() * 2)

    async def test_after_the_answer(self) -> None:
        """A request that was answered cannot open a tunnel."""
        kept: list[Request] = []

        async def app(request: Request) -> Response:
            kept.append(request)
            return Response(200, b"okay")

        peer = await run_script(app, get("/"))
        with pytest.raises(UsageError, match="answered already"):
            await kept[0].accept_connect()
        assert peer.sent == okay()

    async def test_forbidden_field(self) -> None:
        """A field that the 200 may not have is refused before anything is sent."""

        async def app(request: Request) -> Response:
            with pytest.raises(ValueError, match="Content-Length is written"):
                await request.accept_connect(headers={"Content-Length": "0"})
            return Response(403, b"")

        peer = await run_script(app, CONNECT)
        assert peer.sent.startswith(b"HTTP/1.1 403 ")

    @pytest.mark.parametrize(
        "answer", [Response(200, b"late"), Tunnel(echo), Upgrade("echo", echo), "odd"]
    )
    async def test_answer_after_the_switch(self, answer, caplog) -> None:
        """An answer that is returned after the 200 is a bug: no HTTP follows."""

        async def app(request: Request):
            await request.accept_connect()
            return answer

        peer = await serve(app, CONNECT)

        assert peer.sent == OPENED
        assert "UsageError" in caplog.text

    async def test_cancelled_at_once(self) -> None:
        """If it is cancelled before its first byte, nothing has happened."""

        async def app(request: Request) -> Response:
            with trio.CancelScope() as scope:
                scope.cancel()
                await request.accept_connect()
            assert scope.cancelled_caught
            return Response(403, b"no")

        peer = await run_script(app, CONNECT)
        assert peer.sent.startswith(b"HTTP/1.1 403 Forbidden\r\n")

    @pytest.mark.parametrize("again", ["accept", "tunnel", "response"])
    async def test_broken_by_a_cancelled_200(self, again: str, caplog) -> None:
        """After a 200 that was cancelled in the middle, no other answer is sent."""
        caplog.set_level(logging.INFO)
        near, far = trio.testing.lockstep_stream_pair()

        async def app(request: Request) -> Response | Tunnel:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel, scope)
                    await request.accept_connect()
            if again == "accept":
                with pytest.raises(UsageError, match="answered already"):
                    await request.accept_connect()
            return Tunnel(echo) if again == "tunnel" else Response(403, b"never sent")

        async def cancel(scope: trio.CancelScope) -> None:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, far)
            await near.send_all(CONNECT)
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            got = b"".join([bytes(chunk) async for chunk in near])

        assert got in {b"", OPENED}
        assert caplog.text.count("dropped, the connection is broken") == 1


class TestRefused:
    """Every other answer ends the connection."""

    @pytest.mark.ids("O02", "S24")
    @pytest.mark.parametrize("status", [301, 403, 405, 407, 426, 502, 599])
    @pytest.mark.parametrize("head", [CONNECT, OLD])
    async def test_closes(self, status: int, head: bytes) -> None:
        """The answer says ``close``; bytes after it are not processed (RFC 9931 §8)."""
        asked: list[str] = []

        async def app(request: Request) -> Response:
            asked.append(request.method)
            return Response(
                status, b"no", {"Upgrade": "x", "Proxy-Authenticate": "Basic"}
            )

        for packets in split_points(head + get("/2") + CONNECT):
            peer = await run_script(app, *packets)

            assert peer.sent.startswith(b"HTTP/1.1 %d " % status)
            assert peer.sent.count(b"\r\nConnection: close\r\n") == 1
            assert peer.sent.endswith(b"\r\n\r\nno")
            assert peer.sent.count(b"HTTP/1.1 ") == 1
            assert peer.got_eof
        assert set(asked) == {"CONNECT"}

    @pytest.mark.ids("C07")
    @pytest.mark.parametrize(
        "field", [b"Content-Length: 4", b"Transfer-Encoding: chunked"]
    )
    async def test_body(self, field: bytes) -> None:
        """A CONNECT with content is a 400, and the connection ends (RFC 9110 §9.3.6)."""
        for packets in split_points(CONNECT[:-2] + field + b"\r\n\r\nbody" + get("/2")):
            peer = await run_script(echo_app, *packets)

            assert peer.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert peer.sent.endswith(b"close\r\n\r\na CONNECT has no content\n")

    @pytest.mark.ids("C02")
    @pytest.mark.parametrize("target", ["a", "a:", ":1", "a:0", "a:65536", "/", "*"])
    async def test_target(self, target: str) -> None:
        """A target without a valid host and port is a 400 (RFC 9110 §9.3.6)."""
        wire = f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + get("/2")
        peer = await run_script(echo_app, wire)

        assert peer.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert peer.sent.count(b"HTTP/1.1 ") == 1
        assert b"\r\nConnection: close\r\n" in peer.sent

    @pytest.mark.ids("CVE-2026-94439", "O02")
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (Response(200), "<Response 200 OK> to CONNECT would promise a tunnel"),
            (Response(299, b"x"), "<Response 299 Unknown> to CONNECT would promise"),
            (Upgrade("echo", echo), "is no answer to CONNECT"),
            (None, "the app returned None to <Request CONNECT example.com:22>"),
            ("okay", "the app returned 'okay' to <Request CONNECT example.com:22>"),
        ],
    )
    async def test_bugs(self, answer, text: str, caplog) -> None:
        """A wrong answer to CONNECT is logged and a 500, and the connection ends."""

        async def app(_: Request):
            return answer

        wire = CONNECT[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        peer = await serve(app, wire + get("/2"))

        assert peer.sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert peer.sent.count(b"HTTP/1.1 ") == 1
        assert b"\r\nConnection: close\r\n" in peer.sent
        (record,) = caplog.records
        assert text in str(record.exc_info[1])
        assert "serving <Request CONNECT example.com:22> to" in record.message

    @pytest.mark.parametrize("wire", [get("/1"), UP])
    async def test_tunnel_to_another_request(self, wire: bytes, caplog) -> None:
        """A Tunnel to another method is logged and a 500; the connection goes on."""

        async def app(request: Request) -> Tunnel | Response:
            return Response(200, b"") if request.path == "/2" else Tunnel(echo)

        peer = await serve(app, wire + get("/2"))

        error = BUG
        assert peer.sent == error + okay(b"")
        assert SWITCHED not in peer.sent
        (record,) = caplog.records
        assert "no tunnel was asked for by <Request GET" in str(record.exc_info[1])

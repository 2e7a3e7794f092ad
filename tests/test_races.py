"""Limits and guards hold during an await, and no secret is shown."""

from __future__ import annotations

import array
import logging
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    BadResponse,
    Limits,
    Request,
    Response,
    Tunnel,
    Unavailable,
    Upgrade,
    UpgradeRefused,
    UsageError,
    open_connection,
    open_upgrade,
    serve_stream,
    serve_tcp,
)
from trio_upgrade._http.chunked import ChunkDecoder
from trio_upgrade.testing import ScriptedPeer

from .apps import echo, echo_app
from .servers import run_script
from .sockets import tcp_pair
from .tls import make_tls_contexts, wrap_tls
from .wire import SWITCHED, UP, get, okay

SLOW_UP = UP[:-2] + b"Content-Length: 1\r\n\r\n"


class TestUpgradedLimit:
    """``Limits.upgraded`` while offers are under way."""

    async def test_place_is_taken_before_the_body_is_awaited(self) -> None:
        """Two offers that hold back their bodies cannot both pass the check."""
        first, second = (ScriptedPeer(SLOW_UP, then="silence") for _ in range(2))
        limits = Limits(upgraded=1, linger=0)
        async with trio.open_nursery() as nursery:
            app = echo_app
            start = partial(serve_tcp, app, 0, host="127.0.0.1", limits=limits)
            server = await nursery.start(start)
            for peer in (first, second):
                nursery.start_soon(partial(serve_stream, app, peer, server=server))
                await trio.testing.wait_all_tasks_blocked()
            await second.wait_sent(b"HTTP/1.1 503 ")
            first.feed(b"z")
            await first.wait_sent(SWITCHED)
            assert server.statistics().upgraded == 1
            nursery.cancel_scope.cancel()

    async def test_place_is_given_back(self) -> None:
        """An accept that fails does not count, so another one can follow."""

        async def app(request: Request) -> Upgrade:
            with trio.CancelScope() as scope:
                scope.cancel()
                await request.accept_upgrade("echo")
            assert request.server.statistics().upgraded == 0
            return Upgrade("echo", echo)

        peer = await run_script(app, UP, limits=Limits(upgraded=1))

        assert peer.sent == SWITCHED

    async def test_drain_that_begins_meanwhile(self) -> None:
        """If a drain begins before the body has come, there is no switch."""

        async def app(request: Request) -> Response:
            with pytest.raises(Unavailable, match="shutting down"):
                await request.accept_upgrade("echo")
            return Response(503, b"later")

        peer = ScriptedPeer(SLOW_UP, then="silence")
        async with trio.open_nursery() as nursery:
            start = partial(
                serve_tcp, app, 0, host="127.0.0.1", limits=Limits(linger=0)
            )
            server = await nursery.start(start)
            nursery.start_soon(partial(serve_stream, app, peer, server=server))
            await trio.testing.wait_all_tasks_blocked()
            server.start_drain(None)
            peer.feed(b"z")
            await server.wait_ended()

        assert peer.sent.startswith(b"HTTP/1.1 503 ")

    async def test_response_deadline_runs_again(self, autojump_clock) -> None:
        """After a cancelled accept the response deadline runs again."""

        async def app(request: Request) -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await request.accept_upgrade("echo")
            await trio.sleep_forever()

        peer = await run_script(
            app, UP, then="silence", limits=Limits(response_timeout=1, linger=0)
        )

        assert peer.sent.startswith(b"HTTP/1.1 503 ")


class TestOneAtATime:
    """No other task uses the connection while it switches."""

    @pytest.mark.ids("F31")
    async def test_reading_while_it_switches(self) -> None:
        """It is refused: the bytes may be dropped. To wait for the client is allowed."""
        outcomes: list[str] = []

        async def refuse(use) -> None:
            with pytest.raises(UsageError, match="switching this connection"):
                await use()
            outcomes.append("refused")

        async def wait(request: Request) -> None:
            outcomes.append(str(await request.wait_disconnect()))

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.accept_upgrade, "echo")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(wait, request)
                await trio.testing.wait_all_tasks_blocked()
                await refuse(request.read)
                await refuse(partial(request.accept_upgrade, "echo"))
                peer.feed(b"z")

        peer = ScriptedPeer(SLOW_UP, then="silence")
        async with trio.open_nursery() as nursery:
            limits = Limits(linger=0)
            serve = partial(serve_stream, app, peer, limits=limits, strict=True)
            nursery.start_soon(serve)

        assert outcomes == ["refused", "refused", "False"]
        assert peer.sent == SWITCHED


class TestSecrets:
    """Refused bytes are not quoted."""

    @pytest.mark.parametrize(
        "wire",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer S3CRET\r\n\r\n",
            b"GET /?token=S3CRET x HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    )
    async def test_malformed_request(self, wire: bytes, caplog) -> None:
        """A refused line is not shown to the peer, which may be a proxy, nor logged."""
        caplog.set_level(logging.DEBUG)
        peer = await run_script(echo_app, wire)

        assert peer.sent.startswith(b"HTTP/1.1 400 ")
        assert b"blanks is 3" in peer.sent or b"the name in field line 2" in peer.sent
        assert b"S3CRET" not in peer.sent
        assert "S3CRET" not in caplog.text

    async def test_malformed_response(self) -> None:
        """The client's exception and its causes do not quote a refused line."""
        wire = b"HTTP/1.1 200 OK\r\nSet-Cookie : sid=S3CRET\r\n\r\n"
        with pytest.raises(BadResponse) as caught:
            await open_upgrade("http://x", "echo", stream=ScriptedPeer(wire))
        exc: BaseException | None = caught.value
        while exc is not None:
            assert "S3CRET" not in str(exc)
            exc = exc.__cause__

    @pytest.mark.parametrize("value", ["S3CRET\n", "S3CRET\u2603"])
    def test_malformed_value(self, value: str) -> None:
        """A field is named, its value is not shown."""
        with pytest.raises(ValueError, match=r"^Authorization: ") as caught:
            Response(200, headers={"Authorization": value})

        assert "S3CRET" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_reprs(self) -> None:
        """The repr of an answer does not show its fields."""
        fields = {"Set-Cookie": "sid=S3CRET"}

        assert "S3CRET" not in repr(Upgrade("echo", echo, fields))
        assert "S3CRET" not in repr(Tunnel(echo, fields))


class TestChunks:
    """The size of chunks, and of their framing."""

    @pytest.mark.ids("CVE-2023-39326")
    def test_extensions(self) -> None:
        """The sum of extensions is limited; large chunks may have some."""
        decoder = ChunkDecoder(1000, 10)
        decoder.decode(
            b"".join(b"64;a=b\r\n" + b"x" * 100 + b"\r\n" for _ in range(1000))
        )
        with pytest.raises(BadBody, match="far longer than the chunk data"):
            decoder.decode(b"1;%b\r\nx\r\n" % (b"y" * 100) * 12)
            decoder.decode(b"")

    async def test_views_of_wide_items(self) -> None:
        """The size of a chunk counts bytes, not the items of a memoryview."""

        async def body():
            yield memoryview(array.array("I", [1, 2]))

        async def app(request: Request) -> Response:
            return Response(200, body())

        peer = await run_script(app, get("/"))
        size = array.array("I", [1, 2]).itemsize * 2

        assert b"\r\n\r\n%x\r\n" % size in peer.sent


class TestClient:
    """Errors of the client, and its limits."""

    async def test_closed_by_its_owner(self) -> None:
        """A TLS stream closed by its owner is a ClosedResourceError, in no group."""
        near, far = wrap_tls(
            await tcp_pair(), make_tls_contexts(), https_compatible=True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, echo_app, far)
            connection = await open_connection("http://x", stream=near)
            await (await connection.request("GET", "/")).read()
            await near.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await connection.request("GET", "/")

    async def test_refusal_that_stalls(self, autojump_clock) -> None:
        """The status of a refusal is reported even if its body never ends."""
        peer = ScriptedPeer(
            okay(b"abcdef", status="403 Forbidden")[:-3], then="silence"
        )
        with pytest.raises(UpgradeRefused, match="403") as caught:
            await open_upgrade("http://x", "echo", stream=peer)

        assert trio.current_time() >= 2
        assert caught.value.response.body == b"abc"
        assert caught.value.response.truncated


def test_reset_content() -> None:
    """A 205 has no content (RFC 9110 §15.3.6)."""
    with pytest.raises(ValueError, match="a 205 has no content"):
        Response(205, b"body")
    assert Response(205).status == 205


async def test_url_of_an_ended_server() -> None:
    """A server that has ended has no URL."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_tcp, echo_app, 0, host="127.0.0.1"))
        await server.drain(0)

    with pytest.raises(ValueError, match="no listener"):
        _ = server.url

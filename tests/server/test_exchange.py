"""One request and its answer, byte for byte.

The S ids are the rows of the wire-case table; each runs whole, cut in two at every point,
and byte by byte.
"""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    BodyTooLarge,
    Limits,
    NotOffered,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    UsageError,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..servers import check_every_split, run_script
from ..wire import DATE, REQUIRED, SWITCHED, TEXT, UP, get, okay


class TestOffers:
    """Which requests are offers, and which are ordinary (RFC 9110 §7.8)."""

    @pytest.mark.ids("S1", "S2", "R2")
    async def test_early_bytes_are_echoed_once(self) -> None:
        """Bytes after the request head come first in the stream, however they are cut."""
        await check_every_split(echo_app, UP + b"HEAD", SWITCHED + b"HEAD")

    @pytest.mark.ids("S1", "S2")
    async def test_head_came_with_the_request(self) -> None:
        """``head`` has the bytes that came with the request; it may be empty."""
        seen: list[tuple[bytes, bytes]] = []

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            assert head == stream.head
            chunks = [bytes(chunk) async for chunk in stream]
            seen.append((head, b"".join(chunks)))

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        await run_script(app, UP + b"HEAD", b"more")
        await run_script(app, UP, b"HEAD", b"more")

        assert seen == [(b"HEAD", b"HEADmore"), (b"", b"HEADmore")]

    @pytest.mark.ids("S3")
    async def test_head_is_bounded_by_the_read_size(self) -> None:
        """If 300,000 bytes follow an offer, ``head`` has those of one receive."""
        heads: list[bytes] = []

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            heads.append(head)
            await echo(request, stream, head)

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        data = bytes(range(250)) * 1200
        peer = await run_script(app, UP + data)

        assert heads == [data[: 65536 - len(UP)]]
        assert peer.sent == SWITCHED + data

    @pytest.mark.ids("S4", "U12", "U25")
    @pytest.mark.parametrize(
        "fields",
        [
            ["Upgrade: echo"],
            ["Upgrade: echo", "Connection: keep-alive"],
            ["Connection: upgrade"],
            ["Connection: upgradeX", "Upgrade: echo"],
            ["Connection: Upgrade", "Upgrade:"],
            ["Connection: Upgrade", "Upgrade: , ,"],
            ["Connection: Upgrade", "Upgrade: ec ho"],
            ["Connection: Upgrade", "Upgrade: echo/"],
        ],
    )
    async def test_no_offer(self, fields: list[str]) -> None:
        """A request with half an offer is an ordinary one, and the connection goes on."""
        offers = []

        async def app(request: Request) -> Response:
            offers.append(len(request.upgrades))
            return Response(200, request.path.encode())

        wire = get("/1", *fields) + get("/2")

        await check_every_split(app, wire, okay(b"/1") + okay(b"/2"))
        assert set(offers) == {0}

    @pytest.mark.ids("S5", "S6", "S7", "U03", "U28")
    @pytest.mark.parametrize(
        ("fields", "offered"),
        [
            (["Connection: keep-alive, Upgrade", "Upgrade: echo"], ["echo"]),
            (
                ["Connection: keep-alive", "Connection: upgrade", "Upgrade: echo"],
                ["echo"],
            ),
            (["Connection: uPgRaDe", "uPgRaDe: echo"], ["echo"]),
            (["Upgrade: echo", "Connection: Upgrade"], ["echo"]),
            (["Connection: , ,\tUpgrade ,", "Upgrade: ,echo ,\t,"], ["echo"]),
            (["Connection: close, upgrade", "Upgrade: echo"], ["echo"]),
            (["Connection: Upgrade", "Upgrade: a/1, Echo"], ["a/1", "Echo"]),
            (["Connection: Upgrade", "Upgrade: a/1", "Upgrade: echo"], ["a/1", "echo"]),
            (["Connection: Upgrade", "Upgrade: b@d, echo"], ["echo"]),
        ],
    )
    async def test_offer(self, fields: list[str], offered: list[str]) -> None:
        """Lists, case, order and empty elements do not matter; the offers' order does."""
        seen: list[list[str]] = []

        async def app(request: Request) -> Upgrade:
            seen.append(list(request.upgrades))
            return Upgrade("echo", echo)

        await check_every_split(app, get("/", *fields) + b"HEAD", SWITCHED + b"HEAD")
        assert all(offers == offered for offers in seen)

    @pytest.mark.ids("S8", "U13")
    async def test_http_1_0_offers_nothing(self) -> None:
        """An Upgrade in an HTTP/1.0 request is ignored."""
        wire = UP.replace(b"HTTP/1.1", b"HTTP/1.0")

        expected = okay(b"/u").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

        await check_every_split(echo_app, wire, expected)

    @pytest.mark.ids("S28")
    async def test_unclaimed_offer_is_an_ordinary_request(self) -> None:
        """An h2c offer that the app does not accept is an ordinary request."""
        wire = get(
            "/1",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        )

        await check_every_split(echo_app, wire + get("/2"), okay(b"/1") + okay(b"/2"))

    @pytest.mark.ids("S26")
    async def test_connect_offers_nothing(self) -> None:
        """Upgrade fields on a CONNECT are no offer."""
        offers = []

        async def app(request: Request) -> Response:
            offers.append(len(request.upgrades))
            return Response(405, b"no tunnels here")

        wire = UP.replace(b"GET /u", b"CONNECT a:1")
        peer = await run_script(app, wire)

        assert offers == [0]
        assert peer.sent.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")


class TestSwitch:
    """The 101, and the 100 and the body before it."""

    @pytest.mark.ids("U04", "R7")
    async def test_spelling_reason_and_fields_are_the_apps(self) -> None:
        """The 101 has the app's spelling and reason, and the app's fields after ours."""

        async def app(request: Request) -> Upgrade:
            return Upgrade(
                "ECHO", echo, {"X-Room": "7"}, reason="Web Socket Protocol Handshake"
            )

        peer = await run_script(app, UP)

        assert peer.sent == (
            b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n"
            b"Connection: Upgrade\r\nUpgrade: ECHO\r\nX-Room: 7\r\n\r\n"
        )

    @pytest.mark.ids("S32")
    async def test_immediate_end(self) -> None:
        """A client that half-closes at once gets its 101, then our end."""
        for packets in split_points(UP):
            peer = await run_script(echo_app, *packets)

            assert peer.sent == SWITCHED
            assert peer.got_eof

    @pytest.mark.ids("S33", "S34")
    async def test_handler_that_reads_late(self, autojump_clock) -> None:
        """A handler that reads late gets the head, later bytes and the end, in order."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            await trio.sleep(3600)  # On the mock clock.
            await echo(request, stream, head)

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        for packets in split_points(UP + b"HD"):
            peer = ScriptedPeer(*packets, b"later")
            await serve_stream(app, peer, strict=True)

            assert peer.sent == SWITCHED + b"HDlater"
            assert peer.got_eof

    @pytest.mark.ids("U15", "S10")
    async def test_expected_100_comes_before_the_101(self) -> None:
        """With both fields the 100 is sent first, even without a body (RFC 9110 §7.8)."""
        wire = UP[:-2] + b"Expect: 100-continue\r\n\r\n"

        await check_every_split(
            echo_app,
            wire + b"HEAD",
            b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCHED + b"HEAD",
        )

    @pytest.mark.ids("S11")
    async def test_body_before_the_switch(self) -> None:
        """The body belongs to the request, the bytes after it to the stream."""
        bodies = []

        async def app(request: Request) -> Upgrade:
            bodies.append(await request.read())
            return Upgrade("echo", echo)

        wire = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 5\r\n\r\nhelloHEAD"

        await check_every_split(app, wire, SWITCHED + b"HEAD")
        assert set(bodies) == {b"hello"}

    @pytest.mark.ids("S12")
    async def test_chunked_body_before_the_switch(self) -> None:
        """A chunked body and its trailers end exactly where the stream begins."""
        bodies = []

        async def app(request: Request) -> Upgrade:
            bodies.append(b"".join([chunk async for chunk in request.stream()]))
            return Upgrade("echo", echo)

        head = UP.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        body = b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nX-T: 1\r\n\r\n"

        await check_every_split(app, head + body + b"HEAD", SWITCHED + b"HEAD")
        assert set(bodies) == {b"helloyou"}

    @pytest.mark.ids("S23", "R12")
    async def test_unread_body_is_dropped_first(self) -> None:
        """A body that the app did not read never becomes protocol data."""
        wire = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 5\r\n\r\nhelloHEAD"

        await check_every_split(echo_app, wire, SWITCHED + b"HEAD")

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_body_that_was_read_is_not_unread(self, streamed: bool) -> None:
        """A body that was read does not count as unread, however long it was."""

        async def app(request: Request) -> Upgrade:
            if streamed:
                assert sum([len(chunk) async for chunk in request.stream()]) == 100_000
            else:
                assert len(await request.read()) == 100_000
            return Upgrade("echo", echo)

        head = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 100000\r\n\r\n"
        peer = await run_script(app, head + b"x" * 100_000 + b"HEAD")

        assert peer.sent == SWITCHED + b"HEAD"

    async def test_body_over_the_limit_is_not_invited(self) -> None:
        """A body that is known to be too long is refused without a 100, and not read."""

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", echo)

        head = UP.replace(b"GET", b"POST")[:-2]
        wire = head + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n"
        peer = ScriptedPeer(wire, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(serve_stream, app, peer, limits=Limits(drain_body=10))
            )
            await peer.wait_sent(b"10 bytes\n")
            peer.finish()

        assert peer.sent.startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    async def test_unread_body_over_the_limit(self, framing: str) -> None:
        """More than drain_body bytes unread: 413, close, the handler is not called."""

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", never)

        async def never(request: Request, stream: UpgradedStream, head: bytes) -> None:
            raise AssertionError("called")

        head = UP.replace(b"GET", b"POST")[:-2]
        if framing == "length":
            wire = head + b"Content-Length: 11\r\n\r\n" + b"x" * 11
        else:
            wire = head + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11
        peer = await run_script(app, wire, then="end", limits=Limits(drain_body=10))

        assert peer.sent.startswith(b"HTTP/1.1 413 ")
        assert peer.sent.count(b"HTTP/1.1") == 1

    @pytest.mark.ids("S13", "O05", "R11")
    async def test_refused_offer_goes_on_at_the_exact_byte(self) -> None:
        """Requests pipelined after a refused offer are all answered, in order."""
        seen: list[str] = []

        async def app(request: Request) -> Response:
            seen.append(request.path)
            return Response(403 if request.upgrades else 200, request.path.encode())

        wire = UP + get("/2") + get("/3")
        expected = okay(b"/u", status="403 Forbidden") + okay(b"/2") + okay(b"/3")

        await check_every_split(app, wire, expected)
        assert seen[:3] == ["/u", "/2", "/3"]

    @pytest.mark.ids("S13", "R12")
    async def test_refused_offer_with_a_body(self) -> None:
        """A request after the unread body of a refused offer is answered, too."""
        head = UP.replace(b"GET", b"POST")[:-2]
        wire = head + b"Content-Length: 5\r\n\r\nhello" + get("/2")
        expected = okay(b"/u", status="403 Forbidden") + okay(b"/2")

        async def app(request: Request) -> Response:
            return Response(403 if request.upgrades else 200, request.path.encode())

        await check_every_split(app, wire, expected)

    @pytest.mark.ids("S14", "S15", "M09")
    async def test_101_comes_after_every_earlier_response(self) -> None:
        """A switch pipelined after a slow request waits for the response to that."""
        may_answer = trio.Event()
        calls: list[str] = []

        async def app(request: Request) -> Response | Upgrade:
            calls.append(request.path)
            if request.path == "/slow":
                await may_answer.wait()
                return Response(200, await request.read())
            return Upgrade("echo", echo)

        slow = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow"
        for packets in split_points(slow + UP + b"EARLY"):
            may_answer, calls = trio.Event(), []
            peer = ScriptedPeer(*packets, then="silence")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_stream, app, peer)
                await trio.testing.wait_all_tasks_blocked()

                assert not peer.sent
                assert calls == ["/slow"]

                may_answer.set()
                await peer.wait_sent(b"EARLY")
                peer.feed(b"LATE")
                peer.finish()

            assert peer.sent == okay(b"slow") + SWITCHED + b"EARLYLATE"

    @pytest.mark.ids("S16", "M13")
    async def test_nothing_after_close(self) -> None:
        """Bytes after a request with ``Connection: close`` are not processed."""
        wire = get("/1", "Connection: close") + UP
        expected = okay(b"/1", status="200 OK").replace(
            b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"
        )

        await check_every_split(echo_app, wire, expected)

    @pytest.mark.ids("U08")
    async def test_not_offered_is_a_426(self) -> None:
        """An Upgrade to a protocol that was not offered is a 426, and HTTP goes on."""

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", echo)

        await check_every_split(app, get("/1") + UP + b"x", REQUIRED + SWITCHED + b"x")


class TestAcceptUpgrade:
    """The switch inside the app."""

    @pytest.mark.ids("S1")
    async def test_accept_and_echo(self) -> None:
        """accept_upgrade gives the stream and its head; returning closes it."""
        heads = []

        async def app(request: Request) -> None:
            stream, head = await request.accept_upgrade(
                "echo", headers=[("X-Room", "7")], reason="Go"
            )
            heads.append(head)
            await echo(request, stream, head)

        peer = await run_script(app, UP + b"HEAD")

        assert heads == [b"HEAD"]
        assert peer.sent == (
            b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"
            b"X-Room: 7\r\n\r\nHEAD"
        )

    async def test_not_offered(self) -> None:
        """It raises before anything is sent; if uncaught, the client gets a 426."""

        async def app(request: Request) -> None:
            with pytest.raises(NotOffered, match="'echo'"):
                await request.accept_upgrade("echo")
            await request.accept_upgrade("echo")

        peer = await run_script(app, get("/"))

        assert peer.sent == REQUIRED

    async def test_twice(self) -> None:
        """A second accept raises and changes nothing."""

        async def app(request: Request) -> None:
            stream, head = await request.accept_upgrade("echo")
            with pytest.raises(UsageError, match="switched"):
                await request.accept_upgrade("echo")
            await echo(request, stream, head)

        peer = await run_script(app, UP + b"HEAD")

        assert peer.sent == SWITCHED + b"HEAD"

    async def test_answer_after_the_switch(self, caplog) -> None:
        """A Response returned after a switch is a bug: no HTTP follows the 101."""

        async def app(request: Request) -> Response:
            await request.accept_upgrade("echo")
            return Response(200, b"too late")

        peer = ScriptedPeer(UP)
        await serve_stream(app, peer)

        assert peer.sent == SWITCHED
        assert "returned after the switch" in caplog.text

    async def test_cancelled_at_once(self) -> None:
        """If accept_upgrade() is already cancelled, it does nothing at all."""

        async def app(request: Request) -> Response:
            with trio.CancelScope() as scope:
                scope.cancel()
                await request.accept_upgrade("echo")
            assert scope.cancelled_caught
            return Response(503, b"busy")

        peer = await run_script(app, UP)

        assert peer.sent == okay(b"busy", status="503 Service Unavailable")

    async def test_cancelled_before_the_101(self) -> None:
        """After a cancellation during the drain of the body, any answer is possible."""

        async def app(request: Request) -> Response:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel, scope)
                    if request.upgrades:
                        await request.accept_upgrade("echo")
            return Response(503, b"busy")

        async def cancel(scope: trio.CancelScope) -> None:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

        head = UP.replace(b"GET", b"POST")[:-2]
        peer = ScriptedPeer(head + b"Content-Length: 5\r\n\r\nhe", then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(b"busy")
            peer.feed(b"llo", get("/2"))
            await peer.wait_sent(b"busy" + b"HTTP/1.1 503")
            peer.finish()

        assert peer.sent.count(b"HTTP/1.1 503 Service Unavailable") == 2
        assert b"101" not in peer.sent

    @pytest.mark.parametrize("upgrade", [False, True])
    async def test_broken_by_a_cancelled_101(self, upgrade: bool, caplog) -> None:
        """After a 101 that was cancelled in the middle, no other answer is sent."""
        caplog.set_level(logging.INFO)
        near, far = trio.testing.lockstep_stream_pair()

        async def app(request: Request) -> Response | Upgrade:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel, scope)
                    await request.accept_upgrade("echo")
            return Upgrade("echo", echo) if upgrade else Response(200, b"never sent")

        async def cancel(scope: trio.CancelScope) -> None:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, far)
            await near.send_all(UP)
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            got = b"".join([bytes(chunk) async for chunk in near])

        assert got in {b"", SWITCHED}
        assert caplog.text.count("dropped, the connection is broken") == 1

    async def test_abandoned_drain_leaves_no_body(self) -> None:
        """A body that accept_upgrade() dropped in part cannot be read as if whole."""
        outcome = []

        async def app(request: Request) -> Response:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel, scope)
                    await request.accept_upgrade("echo")
            with pytest.raises(UsageError, match="dropped") as caught:
                await request.read()
            outcome.append(caught.value)
            return Response(503, b"busy")

        async def cancel(scope: trio.CancelScope) -> None:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

        head = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 10\r\n\r\n"
        peer = ScriptedPeer(head + b"hello", then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(b"busy")
            peer.feed(b"WORLD")
            peer.finish()

        assert len(outcome) == 1

    async def test_kept_request_has_no_hold_on_the_next(self) -> None:
        """A Request kept after its answer can neither read nor answer the next one."""
        kept: list[Request] = []

        async def app(request: Request) -> Response:
            kept.append(request)
            if request.path == "/1":
                return Response(200, b"1")
            with pytest.raises(UsageError, match="answered"):
                await kept[0].accept_upgrade("a")
            with pytest.raises(UsageError, match="answered"):
                await kept[0].read()
            return Response(200, await request.read())

        fields = "Connection: Upgrade\r\nUpgrade: a\r\nContent-Length: 3\r\n\r\n"
        head = "POST /%d HTTP/1.1\r\nHost: x\r\n" + fields
        wire = (head % 1 + "ONE" + head % 2 + "TWO").encode()

        await check_every_split(app, wire, okay(b"1") + okay(b"TWO"))

    async def test_answering_twice(self) -> None:
        """A streamed response cannot switch: the request was answered."""

        async def app(request: Request) -> Response:
            async def body():
                with pytest.raises(UsageError, match="answered"):
                    await request.accept_upgrade("echo")
                yield b"still HTTP"

            return Response(200, body())

        peer = await run_script(app, UP)

        assert peer.sent.endswith(b"\r\nstill HTTP\r\n0\r\n\r\n")

    async def test_body_is_gone_after_the_switch(self) -> None:
        """A body that accept_upgrade() dropped cannot be read; one read before can."""
        head = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 5\r\n\r\nhello"

        async def dropped(request: Request) -> None:
            await request.accept_upgrade("echo")
            with pytest.raises(UsageError):
                await request.read()

        async def kept(request: Request) -> None:
            assert await request.read() == b"hello"
            await request.accept_upgrade("echo")
            assert await request.read() == b"hello"

        for app in (dropped, kept):
            peer = await run_script(app, head)

            assert peer.sent == SWITCHED

    async def test_upgrade_returned_after_the_switch(self, caplog) -> None:
        """An Upgrade returned after accept_upgrade() is a bug, like any other answer."""

        async def app(request: Request) -> Upgrade:
            await request.accept_upgrade("echo")
            return Upgrade("echo", echo)

        peer = ScriptedPeer(UP)
        await serve_stream(app, peer)

        assert peer.sent == SWITCHED
        assert "returned after the switch" in caplog.text


class TestBodies:
    """Reading, limits, expectations."""

    POST = b"POST /p HTTP/1.1\r\nHost: x\r\n"

    async def test_read_is_kept(self) -> None:
        """A second read returns the same bytes, and a stream repeats them."""

        async def app(request: Request) -> Response:
            assert await request.read() == b"hello"
            assert await request.read() == b"hello"
            assert [chunk async for chunk in request.stream()] == [b"hello"]
            return Response(200, b"ok")

        peer = await run_script(app, self.POST + b"Content-Length: 5\r\n\r\nhello")

        assert peer.sent == okay(b"ok")

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 11\r\n\r\nhello",
            b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world",
        ],
    )
    async def test_read_over_its_limit(self, framing: bytes) -> None:
        """BodyTooLarge, uncaught, is a 413 that closes the connection in stages."""

        async def app(request: Request) -> Response:
            with pytest.raises(BodyTooLarge):
                await request.read(limit=4)
            await request.read(limit=4)
            raise AssertionError("not reached")

        limits = Limits(drain_body=4)
        peer = await run_script(
            app, self.POST + framing, b"\r\n0\r\n\r\n", limits=limits
        )

        assert peer.sent.startswith(b"HTTP/1.1 413 ")
        assert peer.sent.endswith(b"the body is longer than 4 bytes\n")

    @pytest.mark.ids("S20", "S22", "R13")
    @pytest.mark.parametrize(
        ("framing", "then"),
        [
            (b"Content-Length: 50\r\n\r\nabc", "end"),
            (b"Content-Length: 50\r\n\r\nabc", "reset"),
            (b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "end"),
            (b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", "silence"),
        ],
    )
    async def test_broken_body(self, framing: bytes, then: str, autojump_clock) -> None:
        """A broken body raises where it is read; if uncaught, it is a 400."""
        raised = []

        async def app(request: Request) -> Response:
            try:
                await request.read()
            except BadBody as exc:
                raised.append(exc)
                raise
            raise AssertionError("not reached")

        peer = await run_script(app, UP[:-2] + framing, then=then)

        assert len(raised) == 1
        assert b"101" not in peer.sent
        if then != "reset":
            assert peer.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nConnection: close\r\n" in peer.sent

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            (b"POST / HTTP/1.0\r\n", Response(200, b"ok")),
            (b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", Response(200)),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\n",
                Response(200, headers={"Connection": "close"}),
            ),
        ],
    )
    async def test_unwanted_body_is_not_awaited(
        self, head: bytes, answer: Response
    ) -> None:
        """If the connection ends anyway, the server does not wait for the body's end."""

        async def app(_: Request) -> Response:
            return answer

        peer = ScriptedPeer(head + b"Content-Length: 10\r\n\r\nhalf", then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await trio.testing.wait_all_tasks_blocked()

            assert peer.got_eof
            peer.finish()

    async def test_leaving_the_stream_early(self) -> None:
        """A loop over a body may be left at any time; the rest is skipped."""

        async def app(request: Request) -> Response:
            async for chunk in request.stream():
                return Response(200, chunk)
            return Response(200, b"empty")

        post = self.POST + b"Content-Length: %d\r\n\r\n"
        peer = await run_script(app, post % 8 + b"one", b"three", post % 0, get("/"))

        assert peer.sent == okay(b"one") + okay(b"empty") * 2

    async def test_every_piece_is_a_checkpoint(self) -> None:
        """Each piece of a body is a checkpoint, also if it was received before."""
        pieces = []

        async def app(request: Request) -> Response:
            stream = request.stream()
            for _ in range(3):
                with trio.testing.assert_checkpoints():
                    pieces.append(await anext(stream, b""))
            return Response(200)

        head = self.POST + b"Transfer-Encoding: chunked\r\n\r\n"
        await run_script(app, head + b"1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")

        assert pieces == [b"ab", b"c", b""]

    async def test_stream_of_an_ended_body_is_a_checkpoint(self) -> None:
        """Iteration over an ended body is a checkpoint, too."""

        async def app(request: Request) -> Response:
            for _ in range(2):
                with trio.testing.assert_checkpoints():
                    assert [chunk async for chunk in request.stream()] == []
            return Response(200)

        await run_script(app, get("/"))

    async def test_100_when_the_app_begins_to_read(self) -> None:
        """The 100 is sent when the app reads, once, and not before."""
        sent_before = []

        async def app(request: Request) -> Response:
            await trio.testing.wait_all_tasks_blocked()
            sent_before.append(bytes(peer.sent))
            first = await request.read()
            assert await request.read() == first
            return Response(200, first)

        wire = self.POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        peer = ScriptedPeer(wire, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.feed(b"hello")
            await peer.wait_sent(b"hello")
            peer.finish()

        assert sent_before == [b""]
        assert peer.sent == b"HTTP/1.1 100 Continue\r\n\r\n" + okay(b"hello")

    @pytest.mark.ids("U32")
    async def test_no_100_if_the_body_was_received(self) -> None:
        """A client that sends the body without waiting gets no 100."""

        async def app(request: Request) -> Response:
            return Response(200, await request.read())

        wire = self.POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
        peer = await run_script(app, wire)

        assert peer.sent == okay(b"hello")

    async def test_no_100_without_reading_closes(self) -> None:
        """After an answer without the 100 the next bytes are unclear: it closes."""
        wire = self.POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        peer = await run_script(echo_app, wire, b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")

        assert peer.sent.count(b"HTTP/1.1") == 1
        assert b"\r\nConnection: close\r\n" in peer.sent

    @pytest.mark.ids("U31")
    async def test_expectation_of_http_1_0_is_ignored(self) -> None:
        """An HTTP/1.0 client never gets a 1xx."""

        async def app(request: Request) -> Response:
            return Response(200, await request.read())

        wire = (
            b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            b"hello",
        )
        peer = await run_script(app, *wire)

        assert peer.sent.startswith(b"HTTP/1.1 200 OK\r\n")

    async def test_declared_body_over_the_drain_limit_closes(self) -> None:
        """An unread body that is too long to skip ends the connection with ``close``."""
        wire = self.POST + b"Content-Length: 11\r\n\r\nhello world" + get("/2")
        peer = await run_script(echo_app, wire, limits=Limits(drain_body=10))

        assert peer.sent.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close\r\n" in peer.sent
        assert peer.sent.endswith(b"/p")

    async def test_chunked_body_over_the_drain_limit_closes(self) -> None:
        """A body of unknown length is skipped up to the limit, then it is closed."""
        wire = (
            self.POST
            + b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"
        )
        peer = await run_script(
            echo_app, wire + get("/2"), limits=Limits(drain_body=10)
        )

        assert peer.sent == okay(b"/p")

    @pytest.mark.ids("F36")
    @pytest.mark.parametrize("read", [0, 2])
    async def test_framing_counts_as_drained(self, read: int) -> None:
        """The limit is on the bytes of the wire: data, chunk headers and trailers."""

        async def app(request: Request) -> Response:
            if request.path == "/2":
                return Response(200, b"/2")
            body = request.stream()
            taken = b"".join([await anext(body) for _ in range(read)])
            return Response(200, taken)

        # What the app has read does not count.
        first = [b"3;x\r\nabc\r\n"] * read
        wire = b"1;x\r\nx\r\n" * 10 + b"0\r\nA: b\r\n\r\n"
        head = self.POST + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = okay(b"abc" * read)
        for packets in split_points(wire + get("/2")):
            limits = Limits(drain_body=len(wire))
            peer = await run_script(app, head, *first, *packets, limits=limits)
            assert peer.sent == answer + okay(b"/2"), packets

            limits = Limits(drain_body=len(wire) - 1)
            peer = await run_script(app, head, *first, *packets, limits=limits)
            assert peer.sent == answer, packets

    async def test_framing_counts_before_a_switch(self) -> None:
        """A body of tiny chunks is a 413 to an offer when its wire is over the limit."""
        offer = UP.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        wire = b"1\r\nx\r\n" * 10 + b"0\r\n\r\n"
        for packets in split_points(wire):
            limits = Limits(drain_body=len(wire))
            peer = await run_script(echo_app, offer, *packets, b"raw", limits=limits)
            assert peer.sent == SWITCHED + b"raw"

            limits = Limits(drain_body=len(wire) - 1)
            peer = await run_script(echo_app, offer, *packets, b"raw", limits=limits)
            assert peer.sent.startswith(b"HTTP/1.1 413 ")

    @pytest.mark.ids("F36")
    async def test_pieces_of_tiny_chunks(self) -> None:
        """The chunks of one receive are one piece, and so one checkpoint."""
        pieces: list[bytes] = []

        async def app(request: Request) -> Response:
            pieces.extend([piece async for piece in request.stream()])
            return Response(200)

        head = self.POST + b"Transfer-Encoding: chunked\r\n\r\n"
        packets = [b"1\r\nx\r\n" * size for size in (1, 100, 1000)]
        await run_script(app, head, *packets, b"0\r\n\r\n")

        assert pieces == [b"x", b"x" * 100, b"x" * 1000]


class TestResponses:
    """Ordinary responses, byte for byte."""

    async def answer(self, response: Response, request: bytes = get("/")) -> bytes:
        async def app(_: Request) -> Response:
            return response

        return bytes((await run_script(app, request)).sent)

    async def test_bytes_and_str(self) -> None:
        """A body of bytes or str has its Content-Length; str is sent as UTF-8."""
        assert await self.answer(Response(200, b"abc")) == okay(b"abc")
        assert await self.answer(Response(200, "é")) == okay("é".encode(), TEXT)

    async def test_async_iterable(self) -> None:
        """A body of unknown length is chunked, and its generator is closed."""
        closed = []

        async def body():
            try:
                yield b"one"
                yield b""
                yield b"two"
            finally:
                closed.append(True)

        got = await self.answer(Response(200, body()))

        assert got == (
            b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        )
        assert closed == [True]

    async def test_async_iterable_with_its_length(self) -> None:
        """If the app gives a Content-Length, an iterable is sent without chunks."""

        async def body():
            yield b"one"
            yield b"two"

        got = await self.answer(Response(200, body(), {"Content-Length": "6"}))

        assert got == okay(b"onetwo")

    async def test_async_iterable_to_http_1_0(self) -> None:
        """For an HTTP/1.0 client the end of the connection ends the body."""

        async def body():
            yield b"one"

        got = await self.answer(Response(200, body()), b"GET / HTTP/1.0\r\n\r\n")

        head = b"HTTP/1.1 200 OK\r\n" + DATE + b"Connection: close\r\n\r\n"
        assert got == head + b"one"

    @pytest.mark.parametrize("status", [204, 304])
    async def test_statuses_without_content(self, status: int) -> None:
        """204 and 304 have no content and no Content-Length."""
        got = await self.answer(Response(status), get("/") + get("/"))

        assert got.count(b"HTTP/1.1 %d " % status) == 2
        assert b"Content-Length" not in got

    async def test_head_request(self) -> None:
        """HEAD gets the fields of the GET and no content."""
        request = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"

        got = await self.answer(Response(200, b"abc"), request + get("/"))

        assert got == okay(b"abc")[:-3] + okay(b"abc")

    async def test_large_body(self) -> None:
        """A body that is too long for one send arrives whole."""
        body = b"x" * 100_000

        assert await self.answer(Response(200, body)) == okay(body)

    async def test_no_length_on_a_204(self, caplog) -> None:
        """A Content-Length that the app gives to a 204 is a bug (RFC 9110 §8.6)."""

        async def app(_: Request) -> Response:
            return Response(204, headers={"Content-Length": "0"})

        peer = ScriptedPeer(get("/"))
        await serve_stream(app, peer)

        assert peer.sent.startswith(b"HTTP/1.1 500 ")
        assert "204" in caplog.text

    @pytest.mark.ids("U09", "U12")
    async def test_advertising(self) -> None:
        """An Upgrade field that the app gives gets its option, and is no switch."""
        got = await self.answer(Response(200, b"", {"Upgrade": "echo"}), UP + get("/"))

        assert got.count(b"HTTP/1.1 200 OK") == 2
        assert got.count(b"Upgrade: echo\r\nConnection: Upgrade\r\n") == 2

    async def test_close_by_the_app(self) -> None:
        """``Connection: close`` from the app ends the connection."""
        response = Response(200, b"bye", {"Connection": "close"})

        got = await self.answer(response, get("/1") + get("/2"))

        assert got == okay(b"bye", "Connection: close")

    @pytest.mark.parametrize(
        "headers",
        [
            [("Content-Length", "5")],
            [("Content-Length", "3"), ("Content-Length", "3")],
            [("Content-Length", "+3")],
        ],
    )
    async def test_wrong_length_is_a_bug(self, headers, caplog) -> None:
        """A Content-Length that is not the body's is found before anything is sent."""

        async def app(_: Request) -> Response:
            return Response(200, b"abc", headers)

        peer = ScriptedPeer(get("/"))
        await serve_stream(app, peer)

        assert peer.sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert "Content-Length" in caplog.text


class TestCloseOnOptimisticData:
    """Bytes after a refused offer, with and without the option."""

    OFFER = UP[:-2]
    CLOSED = okay(b"no").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def check(
        self, wire: bytes, *, close: bool, expected: bytes, path: str = "/u"
    ) -> None:
        """Serve the wire to an app that reads the body and to one that does not."""

        async def app(request: Request) -> Response:
            if request.path != path:
                return Response(200, request.path.encode())
            async for _ in request.stream():
                break
            return Response(200, b"no")

        async def unread_app(request: Request) -> Response:
            return Response(
                200, b"no" if request.path == path else request.path.encode()
            )

        for each in (app, unread_app):
            peer = ScriptedPeer(wire)
            await serve_stream(each, peer, close_on_optimistic_data=close, strict=True)

            assert peer.sent == expected
            assert peer.closed

    @pytest.mark.ids("O05")
    async def test_off(self) -> None:
        """By default these bytes are the next request (RFC 9931 §5)."""
        await self.check(
            UP + get("/2"), close=False, expected=okay(b"no") + okay(b"/2")
        )

    async def test_on(self) -> None:
        """With the option they are not processed, and the refusal says ``close``."""
        await self.check(UP + get("/2"), close=True, expected=self.CLOSED)
        await self.check(UP + b"\0", close=True, expected=self.CLOSED)

    @pytest.mark.parametrize(
        ("field", "body"),
        [
            (b"Content-Length: 0", b""),
            (b"Content-Length: 5", b"hello"),
            (b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ],
    )
    async def test_body(self, field: bytes, body: bytes) -> None:
        """The body belongs to the offer; only bytes after it count."""
        offer = self.OFFER + field + b"\r\n\r\n" + body
        await self.check(offer + get("/2"), close=True, expected=self.CLOSED)
        await self.check(
            offer + get("/2"), close=False, expected=okay(b"no") + okay(b"/2")
        )
        if b"chunked" not in field:
            await self.check(offer, close=True, expected=okay(b"no"))

    async def test_chunked_body_that_was_read(self) -> None:
        """After the end of a chunked body it is known whether bytes follow."""

        async def app(request: Request) -> Response:
            return Response(200, await request.read())

        body = b"5\r\nhello\r\n0\r\n\r\n"
        wire = self.OFFER + b"Transfer-Encoding: chunked\r\n\r\n" + body
        for following, expected in (
            (b"", okay(b"hello")),
            (get("/2"), self.CLOSED.replace(b": 2", b": 5")[:-2] + b"hello"),
        ):
            peer = ScriptedPeer(wire + following)
            await serve_stream(app, peer, close_on_optimistic_data=True, strict=True)

            assert peer.sent == expected

    async def test_alone(self) -> None:
        """If no bytes follow the offer, the connection goes on with a later request."""
        peer = ScriptedPeer(UP, then="silence")
        async with trio.open_nursery() as nursery:

            async def app(request: Request) -> Response:
                return Response(200, request.path.encode())

            nursery.start_soon(
                partial(
                    serve_stream, app, peer, close_on_optimistic_data=True, strict=True
                )
            )
            await peer.wait_sent(okay(b"/u"))
            peer.feed(get("/2"))
            await peer.wait_sent(okay(b"/2"))
            peer.finish()

        assert peer.sent == okay(b"/u") + okay(b"/2")

    @pytest.mark.parametrize("fields", [[], ["Upgrade: echo"], ["Connection: upgrade"]])
    async def test_without_an_offer(self, fields: list[str]) -> None:
        """The option does not change pipelined requests without an offer."""
        wire = get("/1", *fields) + get("/2")
        await self.check(
            wire, close=True, expected=okay(b"no") + okay(b"/2"), path="/1"
        )

    async def test_accepted(self) -> None:
        """Bytes after an accepted offer belong to the stream."""
        peer = ScriptedPeer(UP + b"HEAD")
        await serve_stream(echo_app, peer, close_on_optimistic_data=True, strict=True)

        assert peer.sent == SWITCHED + b"HEAD"

    async def test_automatic_refusal(self) -> None:
        """The automatic 426 is a refusal like any other."""

        async def app(request: Request) -> Upgrade:
            return Upgrade("other", echo)

        peer = ScriptedPeer(UP + get("/2"))
        await serve_stream(app, peer, close_on_optimistic_data=True, strict=True)

        assert peer.sent.startswith(b"HTTP/1.1 426 ")
        assert b"Connection: " in peer.sent
        assert b"close" in peer.sent
        assert peer.sent.count(b"HTTP/1.1") == 1

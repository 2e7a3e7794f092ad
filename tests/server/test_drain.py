"""A drain: idle connections are closed, others told, waited for, and cut at the end."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Request,
    Response,
    serve_listeners,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo_app
from ..servers import MemoryListener, feed_slowly
from ..tls import make_tls_contexts
from ..wire import SWITCHED, UP, closing, get, okay


class TestDrain:
    """What happens to each kind of connection."""

    @pytest.mark.ids("R25")
    async def test_no_connections(self, make_scene, autojump_clock) -> None:
        """Without connections the drain is over at once, and the server returns."""
        scene = await make_scene().open()
        assert not scene.server.is_draining

        await scene.server.drain(100)

        assert scene.server.is_draining
        assert trio.current_time() == 0
        assert scene.listener.closed
        await scene.over.wait()
        assert scene.server.statistics().is_draining

    @pytest.mark.ids("R25")
    async def test_idle(self, make_scene, autojump_clock) -> None:
        """Idle connections are closed at once, without a response."""
        scene = await make_scene().open()
        peer = await scene.join(get("/1"))

        await scene.server.drain(100)

        assert peer.closed
        assert peer.sent == okay(b"/1")
        assert trio.current_time() == 0
        assert scene.recorder.reasons == [EndReason.DRAINED]

    @pytest.mark.ids("F20")
    @pytest.mark.parametrize(
        ("limits", "grace", "seconds"),
        [({}, 100, 5), ({}, None, 5), ({}, 3, 3), ({"header_timeout": 2}, 100, 2)],
    )
    async def test_without_a_request(
        self, limits, grace, seconds, make_scene, autojump_clock
    ) -> None:
        """A new connection has some seconds for its first request."""
        scene = await make_scene(**limits).open()
        peer = await scene.join()

        await scene.server.drain(grace)

        assert peer.closed
        assert peer.sent == b""
        assert trio.current_time() == seconds

    @pytest.mark.ids("F20")
    @pytest.mark.parametrize("packets", list(split_points(get("/1"))))
    async def test_first_request(self, packets, make_scene, autojump_clock) -> None:
        """The first request of a new connection is answered, and is the last."""
        scene = await make_scene().open()
        peer = await scene.join()
        scene.server.start_drain(100)
        await feed_slowly(peer, 0.125, *packets)

        await scene.server.drain(100)

        assert peer.sent == closing(okay(b"/1"))
        assert trio.current_time() == 0.125 * len(packets)

    @pytest.mark.ids("F20")
    async def test_first_offer(self, make_scene, autojump_clock) -> None:
        """The first request may be an offer, and is refused as all are."""
        scene = await make_scene().open()
        peer = await scene.join()
        scene.server.start_drain(100)
        peer.feed(UP)

        await scene.server.drain(100)

        assert peer.sent.startswith(b"HTTP/1.1 503 ")

    async def test_under_way(self, make_scene, autojump_clock) -> None:
        """A response under way says ``close``; the next request is not read."""
        scene = await make_scene().open()
        peer = await scene.join(get("/wait") + get("/2"))

        await scene.server.drain(100)

        assert trio.current_time() == 5
        assert peer.sent == closing(okay(b"/wait"))
        assert scene.recorder.reasons == [EndReason.ANSWERED]

    async def test_answer_that_had_begun(self, make_scene, autojump_clock) -> None:
        """A response whose header section was already sent is also the last."""

        async def body():
            yield b"one"
            await trio.sleep(5)
            yield b"two"

        async def streaming(_: Request) -> Response:
            return Response(200, body())

        scene = await make_scene().open(streaming)
        peer = ScriptedPeer(get("/"), then="silence")
        scene.nursery.start_soon(
            partial(serve_stream, streaming, peer, server=scene.server)
        )
        await peer.wait_sent(b"one")

        await scene.server.drain(100)

        assert trio.current_time() == 5
        assert peer.sent.endswith(b"two\r\n0\r\n\r\n")
        assert scene.recorder.reasons == [EndReason.DRAINED]

    async def test_head_that_has_begun(self, make_scene, autojump_clock) -> None:
        """A request of which a part was received is answered."""
        scene = await make_scene().open()
        peer = await scene.join(get("/1")[:9])
        scene.server.start_drain(100)
        await trio.sleep(3)
        peer.feed(get("/1")[9:])

        await scene.server.drain(100)

        assert peer.sent == closing(okay(b"/1"))

    @pytest.mark.parametrize("wire", [UP, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"])
    async def test_offers(self, wire: bytes, make_scene, autojump_clock) -> None:
        """Offers during a drain get a 503, which says why and closes."""
        scene = await make_scene().open()

        async def accepting(request: Request) -> None:
            if request.method == "CONNECT":
                await request.accept_connect()
            await request.accept_upgrade("echo")

        peer = ScriptedPeer(wire[:9], then="silence")
        scene.nursery.start_soon(
            partial(serve_stream, accepting, peer, server=scene.server)
        )
        await trio.testing.wait_all_tasks_blocked()
        scene.server.start_drain(None)
        peer.feed(wire[9:])

        await scene.server.drain(None)

        assert peer.sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Connection: close\r\n" in peer.sent
        assert b"this server is shutting down" in peer.sent
        assert scene.server.statistics().total_upgraded == 0

    async def test_offer_with_a_slow_body(self, make_scene, autojump_clock) -> None:
        """An offer gets the 503, too, if the drain begins before its body has ended."""
        scene = await make_scene().open()
        peer = await scene.join(UP[:-2] + b"Content-Length: 2\r\n\r\na")
        scene.server.start_drain(None)
        peer.feed(b"b")

        await scene.server.drain(None)

        assert peer.sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert scene.server.statistics().total_errors == 0

    @pytest.mark.ids("R25")
    async def test_upgraded(self, make_scene, autojump_clock) -> None:
        """Handlers are told and awaited; after the grace the others are cut."""
        scene = await make_scene(linger=None).open()
        peers = [await scene.join(UP.replace(b"/u", b"/polite"))]
        peers.append(await scene.join(UP))
        peers[0].finish()

        await scene.server.drain(30)

        assert trio.current_time() == 30
        assert all(peer.closed for peer in peers)
        assert peers[0].sent == SWITCHED + b"goodbye"
        assert peers[1].sent == SWITCHED
        assert scene.recorder.reasons == [EndReason.RETURNED, EndReason.DRAINED]
        assert scene.server.statistics().upgraded == 0

    async def test_cut_requests(self, make_scene, autojump_clock) -> None:
        """A request that is not answered within the grace is cut without a response."""
        scene = await make_scene().open()
        peer = await scene.join(get("/wait"))

        await scene.server.drain(3)

        assert trio.current_time() == 3
        assert peer.sent == b""
        assert peer.closed
        assert scene.recorder.reasons == [EndReason.DRAINED]

    @pytest.mark.parametrize("linger", [None, 100])
    async def test_linger_is_cut(self, linger, make_scene, autojump_clock) -> None:
        """No connection lingers beyond the grace."""
        scene = await make_scene(linger=linger).open()
        idle = await scene.join()
        last = await scene.join(get("/1", "Connection: close"))

        await scene.server.drain(7)

        assert trio.current_time() == 7
        assert idle.closed
        assert last.closed
        assert set(scene.recorder.reasons) == {EndReason.DRAINED, EndReason.ANSWERED}

    async def test_body_that_does_not_come(self, make_scene, autojump_clock) -> None:
        """Waiting for the rest of a body after its answer ends with the grace, too."""
        scene = await make_scene(body_timeout=None).open()
        await scene.join(get("/1", "Content-Length: 5"))

        await scene.server.drain(7)

        assert trio.current_time() == 7

    async def test_accepted_as_it_began(self, make_scene, autojump_clock) -> None:
        """A connection that is accepted while the drain begins counts as new."""
        scene = await make_scene(header_timeout=None).open()
        near = await scene.listener.connect()
        scene.server.start_drain(None)

        await scene.over.wait()

        assert trio.current_time() == 5
        assert await near.receive_some() == b""

    async def test_joins_late(self, make_scene, autojump_clock) -> None:
        """A stream that joins a server that drains is served its last request."""
        scene = await make_scene(header_timeout=None).open()
        busy = await scene.join(get("/wait"))
        scene.server.start_drain(100)
        late = await scene.join(get("/1"))
        assert late.closed
        assert late.sent == closing(okay(b"/1"))
        await scene.over.wait()
        assert busy.closed

        too_late = await scene.join(get("/1"))

        assert too_late.closed
        assert not too_late.sent

    async def test_over_tls(self, autojump_clock) -> None:
        """Idle TLS connections are ended with a close_notify, or in their handshake."""
        client, context = make_tls_contexts()
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                serve_listeners,
                echo_app,
                [trio.SSLListener(listener, context, https_compatible=False)],
            )
            silent = await listener.connect()
            near = trio.SSLStream(
                await listener.connect(), client, server_hostname="localhost"
            )
            await near.send_all(get("/1"))
            assert await near.receive_some() == okay(b"/1")
            server.start_drain(50)
            assert await near.receive_some() == b""
            assert trio.current_time() == 0
            await near.aclose()
            async for _ in silent:
                pass
            assert trio.current_time() == 5
            await silent.aclose()

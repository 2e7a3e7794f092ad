"""start_tls(): on either side, with early bytes below TLS."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    Response,
    TLSStream,
    Upgrade,
    UpgradedStream,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade._streams.closing import close_in_stages
from trio_upgrade._streams.socket_stream import DirectSocketStream
from trio_upgrade._streams.underlying import iter_layers
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo
from ..cancelling import cancel_everywhere
from ..sockets import direct, tcp_pair
from ..tls import make_tls_contexts

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return make_tls_contexts()


async def start_both(
    near: UpgradedStream, far: UpgradedStream, contexts: Contexts
) -> tuple[UpgradedStream, UpgradedStream]:
    """Start TLS on both ends of a connection; the first is the client."""
    ends: list[UpgradedStream] = []

    async def start(stream: UpgradedStream, context: ssl.SSLContext, **options) -> None:
        ends.append(await stream.start_tls(context, **options))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(start, near, contexts[0], server_hostname="localhost")
        )
        nursery.start_soon(partial(start, far, contexts[1], server_side=True))
    return near.outermost, far.outermost


class TestHandshake:
    """The new stream, the old one, and failures."""

    async def test_both_sides(self, contexts: Contexts) -> None:
        """Both ends go on inside TLS, and the counts go on."""
        near, far = map(UpgradedStream, await tcp_pair())
        await near.send_all(b"greeting")
        assert await far.receive_some() == b"greeting"
        tls_near, tls_far = await start_both(near, far, contexts)
        await tls_near.send_all(b"secret")

        assert await tls_far.receive_some() == b"secret"
        assert (tls_near.sent, tls_far.received) == (14, 14)
        assert isinstance(tls_near.transport, TLSStream)
        assert tls_near.can_send_eof
        await tls_near.send_eof()
        assert await tls_far.receive_some() == b""
        await tls_far.send_all(b"late")
        assert await tls_near.receive_some() == b"late"
        await tls_near.aclose()
        await tls_far.aclose()

    async def test_old_object(self, contexts: Contexts) -> None:
        """The old stream counts as detached and no longer owns the connection."""
        near, far = map(UpgradedStream, trio.testing.memory_stream_pair())
        tls_near, tls_far = await start_both(near, far, contexts)

        assert near.detached
        assert near.outermost is tls_near is tls_near.outermost
        await near.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await near.start_tls(contexts[0], server_hostname="localhost")
        await tls_near.send_all(b"x")
        assert await tls_far.receive_some() == b"x"

    @pytest.mark.ids("F35")
    async def test_head_goes_below(self, contexts: Contexts) -> None:
        """However much of the client's hello is in the head, TLS gets all of it.

        No stream of the stack keeps a copy of it.
        """
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            client = UpgradedStream(near)
            start = partial(client.start_tls, server_hostname="localhost")
            nursery.start_soon(start, contexts[0])
            wire = bytes(await far.receive_some())
            for cut in {1, 5, len(wire) // 2, len(wire) - 1, len(wire)}:
                # From memory, so that each cut is made in the same hello.
                below = ScriptedPeer(wire[cut:], then="end")
                stream = UpgradedStream(below, wire[:cut])
                with pytest.raises(trio.BrokenResourceError):
                    await stream.start_tls(contexts[1], server_side=True)
                # TLS has read the whole hello: it has answered.
                assert below.sent.startswith(b"\x16\x03\x03")
            stream = UpgradedStream(UpgradedStream(far, wire[7:]), b"xx" + wire[:7])
            assert await stream.receive_some(2) == b"xx"
            server = await stream.start_tls(contexts[1], server_side=True)
            await server.send_all(b"hi")
        assert await client.outermost.receive_some() == b"hi"
        assert stream.head == b""
        for layer in iter_layers(server):
            assert not isinstance(layer, UpgradedStream) or layer.head == b""

    @pytest.mark.ids("F35")
    async def test_head_over_a_socket(self, contexts: Contexts) -> None:
        """TLS uses the socket of ours directly, and has the heads of all layers."""
        near, far = direct(await tcp_pair())
        async with trio.open_nursery() as nursery:
            client = UpgradedStream(near)
            start = partial(client.start_tls, server_hostname="localhost")
            nursery.start_soon(start, contexts[0])
            wire = await far.receive_some()
            below = UpgradedStream(UpgradedStream(far, wire[100:]), wire[7:100])
            stream = UpgradedStream(below, b"xx" + wire[:7])
            assert await stream.receive_some(2) == b"xx"
            server = await stream.start_tls(contexts[1], server_side=True)
            assert [type(layer) for layer in iter_layers(server)][1:] == [
                TLSStream,
                DirectSocketStream,
            ]
            await server.send_all(b"hi")
        assert await client.outermost.receive_some() == b"hi"
        for layer in stream, below:
            assert layer.head == b""
        await client.outermost.aclose()
        await server.aclose()

    async def test_alert(self, contexts: Contexts) -> None:
        """The peer gets the alert of a failed handshake, and no reset."""
        near, far = direct(await tcp_pair())
        # More than one receive takes, and less than the kernel does.
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        far.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 1_000_000)
        await far.send_all(b"\x16\x03\x01\x00\x05hello" * 10_000)
        with pytest.raises(trio.BrokenResourceError):
            await UpgradedStream(near).start_tls(contexts[1], server_side=True)
        assert near.fileno() == -1
        assert (await far.receive_some())[:1] == b"\x15"
        assert await far.receive_some() == b""
        await far.aclose()

    @pytest.mark.parametrize(
        ("side", "options", "error"),
        [
            # The ssl module would silently check no name.
            (0, {}, ValueError),
            (0, {"server_side": True}, ssl.SSLError),
            (1, {}, ssl.SSLError),
        ],
    )
    async def test_arguments(self, contexts: Contexts, side, options, error) -> None:
        """Arguments that do not fit are an error, and nothing was done."""
        peer = ScriptedPeer(b"more")
        stream = UpgradedStream(peer, b"head")
        with pytest.raises(error):
            await stream.start_tls(contexts[side], **options)

        assert not stream.detached
        assert not peer.sent
        assert await stream.receive_some() == b"head"

    @pytest.mark.parametrize("wire", [b"", b"no TLS at all"])
    async def test_failed(self, contexts: Contexts, wire: bytes) -> None:
        """A handshake that fails breaks the stream and closes the connection."""
        peer = ScriptedPeer(wire)
        stream = UpgradedStream(peer)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.start_tls(contexts[0], server_hostname="localhost")

        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert stream.outermost.broken
        assert peer.closed

    async def test_cancelled(self, contexts: Contexts) -> None:
        """A cancellation at any step closes the connection."""

        async def run(peer: ScriptedPeer) -> None:
            stream = UpgradedStream(peer)
            with pytest.raises(trio.BrokenResourceError):
                await stream.start_tls(contexts[0], server_hostname="localhost")

        assert await cancel_everywhere(run, b"\x16\x03\x03", b"\x00") > 3


class TestScopes:
    """The scope that owned the old stream owns the new one."""

    @pytest.mark.parametrize("times", [1, 2])
    async def test_end_to_end(self, contexts: Contexts, times: int) -> None:
        """A greeting, then TLS, then the end in both directions; even TLS in TLS."""
        ends = []

        class Observer:
            def ended(self, record) -> None:
                ends.append(record)

        async def handler(request, stream, head) -> None:
            for _ in range(times):
                await stream.send_all(b"ready")
                stream = await stream.start_tls(contexts[1], server_side=True)
            await echo(request, stream, head)

        async def app(request) -> Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            serve = partial(
                serve_tcp,
                app,
                0,
                host="127.0.0.1",
                strict=True,
                observer=Observer(),
                limits=Limits(linger=None),
            )
            server = await nursery.start(serve)
            upgraded = await open_upgrade(
                server.url, "echo", limits=Limits(linger=None)
            )
            async with upgraded as (_, stream, _):
                for _ in range(times):
                    assert await stream.receive_some() == b"ready"
                    stream = await stream.start_tls(
                        contexts[0], server_hostname="localhost"
                    )
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                outermost = stream
            with pytest.raises(trio.ClosedResourceError):
                await outermost.send_all(b"x")
            await server.drain(10)

        assert [(end.received, end.sent) for end in ends] == [(5, 5 * times + 5)]

    async def test_client_that_fails_resets(self, contexts: Contexts) -> None:
        """An error in the client's block resets the connection below TLS."""
        outcome = []

        async def handler(request, stream, head) -> None:
            tls = await stream.start_tls(contexts[1], server_side=True)
            with pytest.raises(trio.BrokenResourceError):
                await tls.receive_some()
            outcome.append(tls)

        async def app(request) -> Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
            with pytest.raises(LookupError):
                async with await open_upgrade(server.url, "echo") as (_, stream, _):
                    await stream.start_tls(contexts[0], server_hostname="localhost")
                    raise LookupError
            await server.drain(10)

        assert outcome[0].broken

    @pytest.mark.ids("S36")
    async def test_failed_handshake_costs_its_own_connection(
        self, contexts: Contexts, caplog
    ) -> None:
        """A client that does not speak TLS is not logged as a bug of the app."""

        async def handler(request, stream, head) -> None:
            await stream.start_tls(contexts[1], server_side=True)

        async def app(request) -> Response | Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
            async with await open_upgrade(server.url, "echo") as (_, stream, _):
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                # Perhaps an alert, then the end or a reset.
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
            await server.drain(10)

        assert not caplog.records

    async def test_detached_in_tls(self, contexts: Contexts) -> None:
        """The scope does not close a transport that was detached from the new stream."""
        near, far = map(UpgradedStream, trio.testing.memory_stream_pair())
        tls_near, tls_far = await start_both(near, far, contexts)
        transport, head = tls_near.detach()
        await close_in_stages(near)
        await transport.send_all(b"still here")

        assert head == b""
        assert await tls_far.receive_some() == b"still here"

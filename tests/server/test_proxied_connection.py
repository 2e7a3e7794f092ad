"""Connections that begin with a PROXY protocol header, and those that should."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    MalformedMessage,
    Request,
    Response,
    Server,
    TrustedPeers,
    Tunnel,
    Upgrade,
    forwarded,
    open_server,
    open_tunnel,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
    serve_unix,
)
from trio_upgrade._server.connection import Connection
from trio_upgrade._server.proxied_connection import ProxiedConnection
from trio_upgrade._server.serve import _find_kind
from trio_upgrade._server.server import find_state
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo
from ..cancelling import CancelAtStep
from ..recording import Recorder
from ..servers import run_script
from ..sockets import tcp_pair, unix_pair
from ..tls import make_tls_contexts
from ..wire import get

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V1 = b"PROXY TCP4 192.0.2.43 10.0.0.1 4711 443\r\n"
V1_TCP6 = b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n"
V2 = SIGNATURE + bytes.fromhex("21110011 c000022b 0a000001 1267 01bb 2000020000")
V2_UNIX = SIGNATURE + bytes.fromhex("213100d8") + b"/run/client".ljust(216, b"\0")
LOCAL = SIGNATURE + bytes.fromhex("20000000")
UNKNOWN = b"PROXY UNKNOWN\r\n"
CLIENT = ("192.0.2.43", 4711)
LAST = get("/", "Connection: close")


async def app(request: Request) -> Response:
    """Answer with what is known of the client."""
    peers = (request.peer, request.transport_peer, request.scheme)
    return Response(200, repr(peers))


async def ask(stream: trio.abc.Stream, *packets: bytes) -> bytes:
    """Send the packets, one at a time, and return all that comes, without the head."""
    for packet in packets:
        await stream.send_all(packet)
        if len(packets) > 1:
            await trio.testing.wait_all_tasks_blocked()
    received = b""
    async with stream:
        while chunk := await stream.receive_some():
            received += chunk
    return received.partition(b"\r\n\r\n")[2] or received


async def serve_pair(
    *packets: bytes,
    pair: Callable[..., Any] = unix_pair,
    trusted: Any = ("unix", HOST),
    recorder: Recorder | None = None,
    limits: Limits = Limits(),
) -> bytes:
    """Serve the packets on one connection; return the body of the answer."""
    near, far = await pair()
    answer = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                serve_stream,
                app,
                far,
                proxy_protocol=trusted,
                observer=recorder or Recorder(),
                limits=limits,
                strict=True,
            )
        )
        answer = await ask(near, *packets)
    return answer


def secure(stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
    return trio.SSLStream(
        stream, context, server_hostname="localhost", https_compatible=True
    )


def connect_at_once(port: int) -> trio.SocketStream:
    """Return a connection that is in the backlog: no task of the server has run."""
    return trio.SocketStream(
        trio.socket.from_stdlib_socket(socket.create_connection((HOST, port)))
    )


class TestServing:
    """Every function that serves."""

    async def check(
        self, opened: Any, dial: Any, *, scheme: str = "http", client: Any = None
    ) -> None:
        """The header is read first; records and the app have the client's address."""
        async with opened as server:
            for header, peer in (
                (V1, CLIENT),
                (V2, CLIENT),
                (V1_TCP6, ("2001:db8::1", 4711)),
                (V2_UNIX, "/run/client"),
                (LOCAL, None),
                (UNKNOWN, None),
            ):
                stream = await dial(server)
                own = stream.socket.getsockname()
                own = own if isinstance(own, tuple) else None
                await stream.send_all(header)
                if client is not None:
                    stream = secure(stream, client)
                found = await ask(stream, LAST)

                assert found.decode() == repr((peer or own, own, scheme))

    @staticmethod
    async def dial(server: Server) -> trio.SocketStream:
        return await trio.open_tcp_stream(HOST, server.port)

    async def test_tcp(self) -> None:
        """serve_tcp()."""
        recorder = Recorder()
        opened = open_server(
            serve_tcp, app, 0, host=HOST, proxy_protocol=[HOST], observer=recorder
        )
        await self.check(opened, self.dial)
        peers = [end.peer for end in recorder.ends]

        assert peers[:4] == [CLIENT, CLIENT, ("2001:db8::1", 4711), "/run/client"]
        assert [record.peer for record in recorder.requests] == peers
        assert {peer[0] for peer in peers[4:]} == {HOST}  # type: ignore[index]

    async def test_tls(self) -> None:
        """serve_ssl_over_tcp(): the header comes before the handshake."""
        client, context = make_tls_contexts()
        opened = open_server(
            serve_ssl_over_tcp, app, 0, context, host=HOST, proxy_protocol=[HOST]
        )
        await self.check(opened, self.dial, scheme="https", client=client)

    async def test_unix(self, tmp_path) -> None:
        """serve_unix()."""
        path = tmp_path / "socket"

        async def dial(server: Server) -> trio.SocketStream:
            return await trio.open_unix_socket(path)

        opened = open_server(
            serve_unix, app, path, proxy_protocol=TrustedPeers(["unix"])
        )
        await self.check(opened, dial)

    async def test_listeners(self) -> None:
        """serve_listeners(), with Trio's socket listeners."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        opened = open_server(serve_listeners, app, listeners, proxy_protocol={HOST})
        await self.check(opened, self.dial)

    async def test_listeners_of_others(self) -> None:
        """serve_listeners(), with a listener that puts Trio's TLS on the socket."""
        client, context = make_tls_contexts()
        (below,) = await trio.open_tcp_listeners(0, host=HOST)
        listener = trio.SSLListener(below, context, https_compatible=True)
        opened = open_server(serve_listeners, app, [listener], proxy_protocol=[HOST])
        await self.check(opened, self.dial, scheme="https", client=client)

    @pytest.mark.parametrize("trusted", [None, (), [], ["10.0.0.0/8"], ["unix"]])
    async def test_from_others(self, trusted: Any) -> None:
        """From a peer that is not trusted a header is a malformed request."""
        for header in (V1, V2):
            found = await serve_pair(header, LAST, pair=tcp_pair, trusted=trusted)
            assert found.startswith((b"HTTP/1.1 400 ", b"a PROXY", b"no HTTP"))
        found = await serve_pair(LAST, pair=tcp_pair, trusted=trusted)
        assert HOST.encode() in found

    async def test_memory(self) -> None:
        """A stream without a socket has no address to be trusted."""
        peer = ScriptedPeer(LAST)
        await serve_stream(app, peer, proxy_protocol=["0.0.0.0/0", "unix"])

        assert peer.sent.endswith(b"(None, None, 'http')")

    async def test_without_the_option(self) -> None:
        """A server without the option has connections of the plain kind."""
        for trusted, kind in (
            (None, Connection),
            ((), Connection),
            (["unix"], ProxiedConnection),
        ):
            opened = open_server(serve_tcp, app, 0, host=HOST, proxy_protocol=trusted)
            async with opened as server:
                assert _find_kind(find_state(server)) is kind

    @pytest.mark.parametrize(
        ("trusted", "error", "match"),
        [
            (["10.0.0.1/8"], ValueError, "'10.0.0.1/8' is neither a network"),
            (["balancer"], ValueError, "'balancer' is neither a network"),
            (HOST, TypeError, "must be a collection of networks"),
            (True, TypeError, "must be a collection of networks"),
            ([5], TypeError, "must be a str or an object of ipaddress"),
        ],
    )
    async def test_mistakes(self, trusted: Any, error: Any, match: str) -> None:
        """A mistake in the peers is an error before anything is taken over."""
        peer = ScriptedPeer()
        with pytest.raises(error, match=match):
            await serve_stream(app, peer, proxy_protocol=trusted)
        assert not peer.closed


class TestReading:
    """The header's own bytes are read, and no others."""

    @pytest.mark.parametrize("header", [V1, V2, LOCAL, UNKNOWN])
    async def test_every_split(self, header: bytes) -> None:
        """Packets may end anywhere, also within the header."""
        named = CLIENT if header in (V1, V2) else None
        for packets in split_points(header + LAST):
            if len(packets) == 2 and len(packets[0]) > len(header) + 2:
                continue  # A split of the request, which is tested elsewhere.
            found = await serve_pair(*packets)
            assert found.decode() == repr((named, None, "http")), packets

    async def test_with_a_handshake(self) -> None:
        """The first bytes of TLS may come in the packet of the header."""
        client, context = make_tls_contexts()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        opened = open_server(
            serve_ssl_over_tcp, app, 0, context, host=HOST, proxy_protocol=[HOST]
        )
        async with opened as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            async with stream:
                await stream.send_all(V2 + outgoing.read())
                incoming.write(await stream.receive_some())
                tls.do_handshake()
                await stream.send_all(outgoing.read())
                tls.write(LAST)
                await stream.send_all(outgoing.read())
                found = b""
                while chunk := await stream.receive_some():
                    incoming.write(chunk)
                    with suppress(ssl.SSLWantReadError):
                        found += tls.read(65536)
        assert repr(CLIENT).encode() in found

    async def test_it_waits(self) -> None:
        """An incomplete header costs no time while the server waits for the rest."""
        near, far = await unix_pair()

        class Count(trio.abc.Instrument):
            steps = 0

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                self.steps += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, far, proxy_protocol=["unix"]))
            async with near:
                await near.send_all(V1[:20])
                await trio.testing.wait_all_tasks_blocked()
                count = Count()
                trio.lowlevel.add_instrument(count)
                await trio.sleep(0.05)
                trio.lowlevel.remove_instrument(count)
        assert count.steps < 5


class TestRefused:
    """From a trusted peer the header is required."""

    @pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
    @pytest.mark.parametrize(
        "wire",
        [
            LAST,
            b"\x16\x03\x01\0\5",
            V1.replace(b"TCP4", b"TCP6"),
            V1.replace(b"4711", b"65536"),
            b"PROXY UNKNOWN".ljust(200, b"x"),
            SIGNATURE + b"\x31\x11\0\0",
            SIGNATURE + b"\x21\x11\2\x09",
        ],
    )
    async def test_malformed(self, wire: bytes, pair: Any, caplog) -> None:
        """Closed at once without an answer, with one DEBUG line."""
        recorder = Recorder()
        with caplog.at_level(logging.DEBUG, "trio_upgrade"):
            try:
                found = await serve_pair(wire, pair=pair, recorder=recorder)
            except* trio.BrokenResourceError:
                found = b""  # Unread bytes make the close a reset.
        (line,) = caplog.messages
        (end,) = recorder.ends

        assert found == b""
        assert "PROXY protocol header" in line
        assert line.startswith("refused ")
        assert end.reason is EndReason.MALFORMED
        assert isinstance(end.cause, MalformedMessage)
        assert not recorder.requests
        assert end.peer is None or end.peer[0] == HOST

    @pytest.mark.parametrize(
        ("wire", "reason"),
        [
            (b"", EndReason.PEER),
            (V1[:10], EndReason.MALFORMED),
            (V2[:20], EndReason.MALFORMED),
        ],
    )
    async def test_end(self, wire: bytes, reason: EndReason, caplog) -> None:
        """A peer that ends without a byte only looks whether the port is open."""
        recorder = Recorder()
        near, far = await unix_pair()
        with caplog.at_level(logging.DEBUG, "trio_upgrade"):
            async with near:
                await near.send_all(wire)
                await near.send_eof()
                await serve_stream(app, far, proxy_protocol=["unix"], observer=recorder)

        assert recorder.reasons == [reason]
        assert len(caplog.messages) == 1

    async def test_reset(self) -> None:
        """A reset before the header is the end of the connection."""
        recorder = Recorder()
        near, far = await tcp_pair()
        near.setsockopt(
            trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        trusted = TrustedPeers([HOST])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    serve_stream, app, far, proxy_protocol=trusted, observer=recorder
                )
            )
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()

        assert recorder.reasons == [EndReason.LOST]
        assert isinstance(recorder.ends[0].cause, OSError)

    @pytest.mark.parametrize("wire", [b"", V1[:-1], V2[:-1]])
    async def test_too_slow(self, wire: bytes, autojump_clock, caplog) -> None:
        """The whole header has header_timeout, however it drips; nothing is sent."""
        recorder = Recorder()
        near, far = await unix_pair()
        found = b"x"

        async def drip() -> None:
            nonlocal found
            for at in range(len(wire)):
                await near.send_all(wire[at : at + 1])
                await trio.sleep(0.1)
            found = await near.receive_some()

        began = trio.current_time()
        with caplog.at_level(logging.DEBUG, "trio_upgrade"):
            async with trio.open_nursery() as nursery, near:
                nursery.start_soon(drip)
                await serve_stream(
                    app,
                    far,
                    proxy_protocol=["unix"],
                    observer=recorder,
                    limits=Limits(header_timeout=7),
                )
                assert trio.current_time() - began == 7
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        assert found == b""
        assert recorder.reasons == [EndReason.SLOW_HEADER]
        assert caplog.messages == ["ended None: a message head took too long"]

    async def test_no_deadline(self, autojump_clock) -> None:
        """None disables the deadline, and after the header others run."""
        recorder = Recorder()

        async def slowly() -> None:
            await trio.sleep(1000)
            await near.send_all(V1)

        near, far = await unix_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slowly)
            async with near:
                nursery.start_soon(
                    partial(
                        serve_stream,
                        app,
                        far,
                        proxy_protocol=["unix"],
                        observer=recorder,
                        limits=Limits(header_timeout=None),
                    )
                )
                await trio.sleep(1001)
                assert b"192.0.2.43" in await ask(near, LAST)
        assert recorder.ends[0].peer == CLIENT


class TestEnding:
    """Before its header a connection is idle, as one without a request so far."""

    async def open(self, nursery: trio.Nursery, recorder: Recorder) -> Any:
        """Return a server and a connection that waits for its header."""
        server = await nursery.start(
            partial(
                serve_tcp,
                app,
                0,
                host=HOST,
                proxy_protocol=[HOST],
                observer=recorder,
            )
        )
        stream = await trio.open_tcp_stream(HOST, server.port)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().idle == server.statistics().connections == 1
        return server, stream

    @pytest.mark.parametrize(("grace", "seconds"), [(0, 0), (3, 3), (100, 5)])
    async def test_drain(self, grace: float, seconds: float, autojump_clock) -> None:
        """A drain gives it 5 seconds, or the grace if that is shorter."""
        recorder = Recorder()
        async with trio.open_nursery() as nursery:
            server, stream = await self.open(nursery, recorder)
            began = trio.current_time()
            await server.drain(grace)
            assert trio.current_time() - began == seconds
            await stream.aclose()
        assert recorder.reasons == [EndReason.DRAINED]

    async def test_drain_serves(self) -> None:
        """A request that comes in that time is served."""
        recorder = Recorder()
        async with trio.open_nursery() as nursery:
            server, stream = await self.open(nursery, recorder)
            other = connect_at_once(server.port)
            server.start_drain(10)
            assert repr(CLIENT).encode() in await ask(stream, V1, get("/"))
            assert repr(CLIENT).encode() in await ask(other, V2, get("/"))
            await server.wait_ended()

    async def test_accepted_in_a_drain(self, autojump_clock) -> None:
        """One from the backlog has no more time than the others."""
        recorder = Recorder()
        async with trio.open_nursery() as nursery:
            server, stream = await self.open(nursery, recorder)
            other = connect_at_once(server.port)
            began = trio.current_time()
            await server.drain(100)
            assert trio.current_time() - began == 5
            await stream.aclose()
            await other.aclose()
        assert recorder.reasons == [EndReason.DRAINED] * 2

    async def test_cancelled(self) -> None:
        """A cancellation closes it."""
        recorder = Recorder()
        async with trio.open_nursery() as nursery:
            _, stream = await self.open(nursery, recorder)
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await stream.aclose()
        assert recorder.reasons == [EndReason.CANCELLED]

    async def test_cancelled_at_every_step(self) -> None:
        """Cancelled at any step the connection is closed."""
        for step in range(1, 100):
            near, far = await unix_pair()
            await near.send_all(V1 + LAST)
            instrument = CancelAtStep(step)
            trio.lowlevel.add_instrument(instrument)
            try:
                with instrument.scope:
                    await serve_stream(
                        app, far, proxy_protocol=["unix"], limits=Limits(linger=0)
                    )
            finally:
                trio.lowlevel.remove_instrument(instrument)
            assert far.socket.fileno() == -1
            await near.aclose()
            if not instrument.scope.cancelled_caught:
                assert step > 4
                return
        raise AssertionError


class TestAfterwards:
    """What comes after the header is as without it."""

    async def test_upgrade(self) -> None:
        """The address stays known after a switch, and after the end."""
        recorder = Recorder()
        seen: list[Request] = []

        async def handler(request: Request, stream: Any, head: bytes) -> None:
            seen.append(request)
            assert request.peer == CLIENT
            await echo(request, stream, head)

        async def switching(request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        opened = open_server(
            serve_tcp,
            switching,
            0,
            host=HOST,
            proxy_protocol=[HOST],
            observer=recorder,
        )
        async with opened as server:
            transport = await trio.open_tcp_stream(HOST, server.port)
            await transport.send_all(V2)
            async with await open_upgrade("http://x", "echo", stream=transport) as (
                _,
                stream,
                _,
            ):
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            await server.drain(5)
        assert seen[0].peer == CLIENT
        assert seen[0].transport_peer is None
        assert recorder.switches[0].peer == recorder.ends[0].peer == CLIENT

    async def test_tunnel_to_ourselves(self) -> None:
        """A stream that joins the server in a tunnel has no header of its own."""

        async def handler(request: Request, stream: Any, head: bytes) -> None:
            await serve_stream(app, stream, server=request.server)

        async def tunnelling(request: Request) -> Tunnel:
            return Tunnel(handler)

        for header, client in ((V1, CLIENT), (LOCAL, None)):
            opened = open_server(
                serve_tcp, tunnelling, 0, host=HOST, proxy_protocol=[HOST]
            )
            async with opened as server:
                transport = await trio.open_tcp_stream(HOST, server.port)
                own = transport.socket.getsockname()
                await transport.send_all(header)
                async with await open_tunnel(
                    "http://x", "y:1", stream=transport
                ) as opened_tunnel:
                    found = await ask(opened_tunnel.stream, LAST)

                assert found.decode() == repr((client or own, own, "http"))

    @pytest.mark.parametrize(
        ("header", "trusted", "peer"),
        [
            # The client of the balancer is a proxy that speaks HTTP.
            (V1, ["192.0.2.0/24"], ("1.1.1.1", 0)),
            (V1, [HOST], CLIENT),
            (V1, ["unix"], CLIENT),
            # A Unix socket of another machine, perhaps.
            (V2_UNIX, ["unix"], "/run/client"),
            (LOCAL, [HOST], ("1.1.1.1", 0)),
        ],
    )
    async def test_forwarded(self, header: bytes, trusted: Any, peer: Any) -> None:
        """forwarded() goes on from the client that the header names."""

        async def proxied(request: Request) -> Response:
            return Response(200, repr(forwarded(request, trusted).peer))

        opened = open_server(serve_tcp, proxied, 0, host=HOST, proxy_protocol=[HOST])
        async with opened as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            fields = ("X-Forwarded-For: 1.1.1.1", "Connection: close")
            found = await ask(stream, header + get("/", *fields))

        assert found.decode() == repr(peer)

    @pytest.mark.parametrize(
        ("header", "peer"),
        [(V1, CLIENT), (V2_UNIX, "/run/client"), (LOCAL, ("1.1.1.1", 0))],
    )
    async def test_forwarded_on_a_unix_socket(self, header: bytes, peer: Any) -> None:
        """Trust in the balancer on a Unix socket is no trust in its clients."""

        async def proxied(request: Request) -> Response:
            return Response(200, repr(forwarded(request, ["unix"]).peer))

        near, far = await unix_pair()
        fields = ("X-Forwarded-For: 1.1.1.1", "Connection: close")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(serve_stream, proxied, far, proxy_protocol=["unix"])
            )
            found = await ask(near, header + get("/", *fields))

        assert found.decode() == repr(peer)


async def test_transport_peer_without_it() -> None:
    """Without the option both addresses are the same, and None where there is none."""
    near, far = await tcp_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, app, far)
        own = near.socket.getsockname()
        assert (await ask(near, LAST)).decode() == repr((own, own, "http"))
    assert (await run_script(app, LAST)).sent.endswith(b"(None, None, 'http')")

"""TLS of ours on the server: handshakes, certificates, and how it ends."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_upgrade import (
    EndReason,
    Limits,
    Request,
    Response,
    Server,
    TLSFailed,
    TLSStream,
    Upgrade,
    open_connection,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
)
from trio_upgrade._streams.socket_listener import adopt_listener
from trio_upgrade._streams.tls_listener import TLSListener
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..recording import Recorder
from ..tls import make_tls_contexts
from ..wire import get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
# A record of a handshake, and no message of TLS in it.
NO_HELLO = b"\x16\x03\x01\x00\x05hello"


@asynccontextmanager
async def serving(app, ssl_context, **options: Any) -> AsyncIterator[Server]:
    """Serve over TLS within the block, which ends the server."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_ssl_over_tcp, app, 0, ssl_context, host=HOST, **options)
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


async def dial(server: Server) -> trio.SocketStream:
    return await trio.open_tcp_stream(HOST, int(server.url.rpartition(":")[2]))


async def fetch(server: Server, context: ssl.SSLContext, name="localhost") -> bytes:
    """Return the body of a GET over TLS, to a server of this name."""
    connection = await open_connection(
        server.url, ssl_context=context, server_hostname=name
    )
    async with connection:
        return await (await connection.request("GET", "/x")).read()


class TestHandshake:
    """It is made in the connection's own task, and has a deadline."""

    async def test_others_go_on(self) -> None:
        """A client that does not begin its handshake delays no other."""
        client, server_context = make_tls_contexts()
        async with serving(echo_app, server_context) as server, await dial(server):
            assert await fetch(server, client) == b"/x"

    @pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
    async def test_deadline(self, autojump_clock, sent: bytes) -> None:
        """A handshake that takes longer than header_timeout is ended, and not by TLS."""
        recorder, limits = Recorder(), Limits(header_timeout=3)
        context = make_tls_contexts()[1]
        async with (
            serving(echo_app, context, observer=recorder, limits=limits) as server,
            await dial(server) as client,
        ):
            started = trio.current_time()
            await client.send_all(sent)
            assert await client.receive_some() == b""
            assert trio.current_time() - started == 3
            await client.aclose()
            await server.drain(5)

        assert recorder.reasons == [EndReason.SLOW_HEADER]

    @pytest.mark.parametrize(
        ("sent", "alert"),
        [
            # OpenSSL sends no alert to a peer whose first bytes are no TLS at all.
            (get("/"), b""),
            (get("/") * 10_000, b""),
            (NO_HELLO, b"\x15"),
            (NO_HELLO * 30_000, b"\x15"),
        ],
    )
    async def test_no_tls(self, sent: bytes, alert: bytes, caplog) -> None:
        """A client that speaks clear text gets an alert and an end, never a reset."""
        recorder = Recorder()
        context = make_tls_contexts()[1]
        async with (
            serving(echo_app, context, observer=recorder) as server,
            await dial(server) as client,
        ):
            await client.send_all(sent)
            with trio.fail_after(5):
                received = b"".join([bytes(data) async for data in client])
            assert received[:1] == alert
            await client.aclose()
            await server.drain(5)
            assert server.statistics().total_tls_failed == 1

        assert recorder.reasons == [EndReason.TLS_FAILED]
        assert isinstance(recorder.ends[0].cause, ssl.SSLError)
        assert not caplog.records

    async def test_client_that_hangs_up(self) -> None:
        """A client that ends within the handshake is no failure of TLS."""
        recorder = Recorder()
        context = make_tls_contexts()[1]
        async with serving(echo_app, context, observer=recorder) as server:
            client = await dial(server)
            await client.send_all(b"\x16\x03\x01")
            await client.aclose()
            await server.drain(5)

        assert recorder.reasons == [EndReason.PEER]

    @pytest.mark.parametrize("ours", [True, False])
    async def test_backlog_of_a_drain(self, ours: bool) -> None:
        """Connections that wait in the backlog when a drain begins are served."""
        client, context = make_tls_contexts()
        (tcp,) = await trio.open_tcp_listeners(0, host=HOST)
        options: dict[str, Any] = {"https_compatible": True}
        listener = (
            TLSListener(adopt_listener(tcp), context, **options)
            if ours
            else trio.SSLListener(tcp, context, **options)
        )
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, echo_app, [listener])
            await trio.testing.wait_all_tasks_blocked()
            below: Any = listener.transport_listener
            address = below.socket.getsockname()
            # Without a checkpoint in between: it accepts none of them before.
            sockets = [socket.create_connection(address) for _ in range(3)]
            assert server.statistics().waiting == 3
            server.start_drain(60)
            streams = [
                trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                for sock in sockets
            ]
            for stream in streams:
                tls = TLSStream(
                    stream, client, server_hostname="localhost", https_compatible=True
                )
                async with tls:
                    await tls.send_all(get("/1"))
                    received = b"".join([bytes(data) async for data in tls])
                    assert b"Connection: close" in received
                    assert received.endswith(b"/1")


class TestContexts:
    """The context may change while the server runs."""

    async def test_replaced(self) -> None:
        """The function is asked for each connection."""
        first, second = make_tls_contexts(), make_tls_contexts()
        current = first
        async with serving(echo_app, lambda: current[1]) as server:
            connection = await open_connection(
                server.url, ssl_context=first[0], server_hostname="localhost"
            )
            async with connection:
                assert await (await connection.request("GET", "/x")).read() == b"/x"
                current = second
                with pytest.raises(TLSFailed, match=r"self-signed|local issuer"):
                    await fetch(server, first[0])
                assert await fetch(server, second[0]) == b"/x"
                # An open connection stays as it is.
                assert await (await connection.request("GET", "/y")).read() == b"/y"

    async def test_function_that_fails(self, caplog) -> None:
        """An error costs its own connection, and is logged; the next one works."""
        client, server_context = make_tls_contexts()
        client_only = ssl.create_default_context()
        results: list[Any] = [LookupError("oops"), None, client_only, server_context]
        recorder = Recorder()

        def make() -> Any:
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        async with serving(echo_app, make, observer=recorder) as server:
            for _ in range(3):
                async with await dial(server) as stream:
                    with suppress(trio.BrokenResourceError):
                        assert await stream.receive_some() == b""
            assert await fetch(server, client) == b"/x"
            assert server.statistics().connections == 1
            await server.drain(5)

        kinds = [LookupError, TypeError, ssl.SSLError]
        assert [type(record.exc_info[1]) for record in caplog.records] == kinds
        assert [type(record.error) for record in recorder.errors] == kinds
        assert all(HOST in str(record.peer) for record in recorder.errors)

    async def test_strict(self) -> None:
        """A strict server raises the error."""

        def make() -> ssl.SSLContext:
            raise LookupError("oops")

        with pytest.RaisesGroup(
            pytest.RaisesExc(LookupError, match="oops"), flatten_subgroups=True
        ):
            async with serving(echo_app, make, strict=True) as server:
                async with await dial(server):
                    await trio.sleep_forever()

    async def test_interrupted(self) -> None:
        """An exception that is no error is never only logged."""

        def make() -> ssl.SSLContext:
            raise KeyboardInterrupt

        with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
            async with serving(echo_app, make) as server:
                async with await dial(server):
                    await trio.sleep_forever()

    async def test_names(self) -> None:
        """An sni_callback chooses the certificate by the name that the client wants."""
        authority = trustme.CA()
        client = ssl.create_default_context()
        authority.configure_trust(client)
        contexts = {}
        for name in "one.example", "two.example":
            contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name).configure_cert(contexts[name])

        def choose(
            tls: ssl.SSLObject, name: str | None, _context: object
        ) -> int | None:
            if name not in contexts:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            tls.context = contexts[name]
            return None

        default = contexts["one.example"]
        default.sni_callback = choose
        async with serving(echo_app, default) as server:
            for name in contexts:
                assert await fetch(server, client, name) == b"/x"
            with pytest.raises(TLSFailed, match=r"(?i)unrecognized.name"):
                await fetch(server, client, "three.example")


class TestPeerCertificate:
    """The client's certificate on a request."""

    @staticmethod
    def make_contexts(mode: ssl.VerifyMode, *, own: bool) -> tuple[Any, Any]:
        authority = trustme.CA()
        client, server = (
            ssl.create_default_context(),
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        )
        authority.configure_trust(client)
        authority.configure_trust(server)
        authority.issue_cert("localhost").configure_cert(server)
        server.verify_mode = mode
        if own:
            authority.issue_cert("me@example.org").configure_cert(client)
        return client, server

    @pytest.mark.parametrize("ours", [True, False])
    @pytest.mark.parametrize(
        ("mode", "own", "known"),
        [
            (ssl.CERT_REQUIRED, True, True),
            (ssl.CERT_OPTIONAL, True, True),
            (ssl.CERT_OPTIONAL, False, False),
            (ssl.CERT_NONE, True, False),
        ],
    )
    async def test_modes(
        self, mode: ssl.VerifyMode, own: bool, known: bool, ours: bool
    ) -> None:
        """It is there if the server asked and the client has one; after a switch too."""
        client, context = self.make_contexts(mode, own=own)
        seen: list[dict[str, Any] | None] = []

        async def handler(request: Request, _stream: object, _head: bytes) -> None:
            seen.append(request.peer_certificate)

        async def app(request: Request) -> Upgrade:
            seen.append(request.peer_certificate)
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            if ours:
                serve = partial(serve_ssl_over_tcp, app, 0, context, host=HOST)
            else:
                (tcp,) = await trio.open_tcp_listeners(0, host=HOST)
                listener = trio.SSLListener(tcp, context, https_compatible=True)
                serve = partial(serve_listeners, app, [listener])
            server = await nursery.start(serve)
            upgraded = await open_upgrade(
                server.url, "echo", ssl_context=client, server_hostname="localhost"
            )
            async with upgraded as (_, stream, _):
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()

        names = [
            None if found is None else found["subjectAltName"][0][1] for found in seen
        ]
        assert names == ["me@example.org" if known else None] * 2

    async def test_no_tls(self) -> None:
        """Without TLS there is none."""

        async def app(request: Request) -> Response:
            assert request.peer_certificate is None
            return Response(200, b"fine")

        peer = ScriptedPeer(get("/"))
        await serve_stream(app, peer, strict=True)

        assert peer.sent.endswith(b"fine")


async def test_stream_of_users() -> None:
    """Trio's TLS is served as it is, also over memory, with a TLSStream as the client."""
    client, context = make_tls_contexts()
    near, far = trio.testing.memory_stream_pair()
    tls = trio.SSLStream(far, context, server_side=True)
    schemes: list[str] = []

    async def app(request: Request) -> Response:
        schemes.append(request.scheme)
        return Response(200, b"fine")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, tls, strict=True))
        async with TLSStream(near, client, server_hostname="localhost") as stream:
            await stream.send_all(get("/"))
            assert (await stream.receive_some()).endswith(b"fine")
            await stream.send_eof()
            assert await stream.receive_some() == b""

    assert schemes == ["https"]


async def test_half_close(caplog) -> None:
    """The end of a client's direction reaches the handler; its answer still comes."""
    client, context = make_tls_contexts()

    async def handler(_request: Request, stream: Any, _head: bytes) -> None:
        received = b"".join([bytes(data) async for data in stream])
        await stream.send_all(received[::-1])

    async def app(_request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    async with serving(app, context) as server:
        upgraded = await open_upgrade(
            server.url, "echo", ssl_context=client, server_hostname="localhost"
        )
        async with upgraded as (_, stream, _):
            assert isinstance(stream.transport, TLSStream)
            assert stream.can_send_eof
            await stream.send_all(b"abc")
            await stream.send_eof()
            assert b"".join([bytes(data) async for data in stream]) == b"cba"

    assert not caplog.records

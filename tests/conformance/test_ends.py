"""What the peer sees of the end of a stream, by what ended its owner's block.

The owner is a handler of a server, an app that has switched by itself, a client's block,
or stream_scope(); the stream is TCP, Unix, TLS or memory. The rows are those of
docs/topics/ends.md.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Request,
    Tunnel,
    Upgrade,
    UpgradedStream,
    open_tunnel,
    open_upgrade,
    pipe,
    relay,
    serve_stream,
    serve_tcp,
    stream_scope,
)
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade._streams.tls import TLSStream

from ..recording import Recorder
from ..sockets import tcp_pair, unix_pair
from ..tls_streams import contexts
from ..wire import SWITCHED, UP
from .ends import ENDINGS, KINDS

if TYPE_CHECKING:
    from trio_upgrade import Server

CONTEXTS = {version: contexts(version) for version in ("1.2", "1.3")}
# The columns, and trio.SSLStream, which is no different.
STREAMS = (*KINDS, "TLS 1.2 (Trio)", "TLS 1.3 (Trio)")
OWNERS = ("handler", "app", "client", "scope")
URL = "http://x/u"
# More than two sockets and their TLS hold.
CUT_DATA = b"x" * 32 * 2**20


async def open_ends(kind: str, *, server: bool) -> tuple[Any, Any]:
    """Return our end of a connection, and that of a peer that is not ours."""
    if kind == "memory":
        return trio.testing.memory_stream_pair()
    ours, peer = await (unix_pair() if kind == "Unix" else tcp_pair())
    if not kind.startswith("TLS"):
        return adopt_stream(ours), peer
    client_context, server_context = CONTEXTS[kind.split()[1]]
    make: Any = trio.SSLStream if kind.endswith("(Trio)") else TLSStream
    if server:
        return (
            make(adopt_stream(ours), server_context, server_side=True),
            trio.SSLStream(peer, client_context, server_hostname="localhost"),
        )
    return (
        make(adopt_stream(ours), client_context, server_hostname="localhost"),
        trio.SSLStream(peer, server_context, server_side=True),
    )


async def read_until(stream: trio.abc.ReceiveStream, marker: bytes) -> None:
    got = bytearray()
    while not got.endswith(marker):
        chunk = await stream.receive_some()
        assert chunk
        got += chunk


async def see_end(peer: Any, *, answers: bool = True) -> str:
    """Return what the peer sees, as the table says it.

    Args:
        peer: The stream of the peer.
        answers: Whether it answers a close_notify, which we may be waiting for; if we
            have closed the connection, the answer would be answered by a reset.
    """
    seen = ""
    try:
        while data := await peer.receive_some():
            assert data.strip(CUT_DATA[:1]) == b""
        if isinstance(peer, trio.SSLStream):
            seen = "close_notify, "
            below = peer.transport_stream
            if answers:
                below, rest = await peer.unwrap()
                assert rest == b""
            async with below:
                assert await below.receive_some() == b""
    except trio.BrokenResourceError as exc:
        reset = isinstance(exc.__cause__, ConnectionResetError)
        return seen + ("RST" if reset else "FIN")
    return seen + ("end" if isinstance(peer, trio.StapledStream) else "FIN")


class Case:
    """A connection of ours whose block or handler ends in one way."""

    def __init__(self, ending: str, owner: str) -> None:
        self.ending = ending
        self.owner = owner
        # Cancels the owner.
        self.scope = trio.CancelScope()
        self.peer_is_ready = trio.Event()
        self.sent = trio.Event()
        self.transport: trio.abc.Stream | None = None
        self.server: Server | None = None
        self.recorder = Recorder()

    async def run(self, stream: trio.abc.Stream) -> None:
        """Own a stream, use it, and leave in the way of the case."""
        try:
            with self.scope:
                await self.own(stream)
        except* (LookupError, trio.BrokenResourceError):
            pass

    async def own(self, stream: trio.abc.Stream) -> None:
        if self.owner == "client":
            async with await open_upgrade(URL, "echo", stream=stream) as (_, owned, _):
                await self.use(owned)
        elif self.owner == "scope":
            if self.ending in ("reset", "detach"):
                stream = UpgradedStream(stream)
            async with stream_scope(stream) as scoped:
                assert scoped is stream
                await self.use(scoped)
        else:
            await serve_stream(self.app, stream, observer=self.recorder)

    async def app(self, request: Request) -> Upgrade | None:
        self.server = request.server
        if self.owner == "handler":
            return Upgrade("echo", self.handle)
        stream, _ = await request.accept_upgrade("echo")
        await self.use(stream)
        return None

    async def handle(
        self, _request: Request, stream: UpgradedStream, _head: bytes
    ) -> None:
        await self.use(stream)

    async def use(self, stream: Any) -> None:
        await stream.send_all(b"data")
        await self.peer_is_ready.wait()
        if self.ending.endswith("cut"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, CUT_DATA)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        self.sent.set()
        if self.ending == "peer":
            await stream.receive_some()
        if self.ending.startswith("eof"):
            await stream.send_eof()
        if self.ending.startswith("piped"):
            source, sink = await tcp_pair()
            async with source, sink:
                await sink.send_eof()
                await pipe(source, stream, tls_ends=True)
        match self.ending.split()[-1]:
            case "exception":
                raise LookupError("oops")
            case "group":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    self.scope.cancel()
                    raise LookupError("oops")
            case "cancelled":
                self.scope.cancel()
                if not self.ending.startswith("return"):
                    await trio.sleep_forever()
            case "grace":
                assert self.server is not None
                self.server.start_drain(0)
                await trio.sleep_forever()
            case "reset":
                await stream.reset()
            case "forcefully":
                await trio.aclose_forcefully(stream)
            case "detach":
                self.transport, _ = stream.detach()


def look_up(ending: str, kind: str) -> str:
    """Return the cell of the table."""
    return ENDINGS[ending].seen[KINDS.index(kind.removesuffix(" (Trio)"))]


def list_cases() -> list[tuple[str, str, str]]:
    """Return every case: the ending, the owner, the stream."""
    return [
        (ending, owner, kind)
        for ending, row in ENDINGS.items()
        for owner in (OWNERS[:2] if row.server_only else OWNERS)
        for kind in STREAMS
        if look_up(ending, kind) != "-"
        # Trio's TLS has no send_eof(), and does not tell whether a send was cut.
        and not ("Trio" in kind and ending.startswith(("eof", "piped", "return cut")))
    ]


@pytest.mark.ids("F21")
@pytest.mark.parametrize(("ending", "owner", "kind"), list_cases())
async def test_peer_sees(ending: str, owner: str, kind: str) -> None:
    """The peer sees what the table says, whoever owns the stream."""
    expected = look_up(ending, kind)
    case = Case(ending, owner)
    ours, peer = await open_ends(kind, server=owner in ("handler", "app"))
    bottom = getattr(ours, "transport_stream", ours)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.run, ours)
            if owner in ("handler", "app"):
                await peer.send_all(UP)
            elif owner == "client":
                await read_until(peer, b"\r\n\r\n")
                await peer.send_all(SWITCHED)
            await read_until(peer, b"data")
            case.peer_is_ready.set()
            await case.sent.wait()
            if ending == "peer":
                reset_on_close(peer)
                await trio.aclose_forcefully(peer)
            elif expected != "nothing":
                answers = ending.startswith("return")
                assert await see_end(peer, answers=answers) == expected
                await trio.aclose_forcefully(peer)
    if ending == "detach":
        assert case.transport is not None
        await case.transport.send_all(b"nothing was ended")
        await read_until(peer, b"nothing was ended")
        await trio.aclose_forcefully(peer)
        await trio.aclose_forcefully(case.transport)
    elif kind != "memory":
        assert bottom.fileno() == -1


class TestProxy:
    """Both ends of a proxy that is cut see a reset."""

    @pytest.mark.ids("F21")
    @pytest.mark.parametrize("how", ["cancelled", "drained"])
    @pytest.mark.parametrize("answer", ["accept", "Tunnel"])
    @pytest.mark.parametrize("upstream", ["upgrade", "tunnel", "tcp"])
    async def test_cut(self, how: str, answer: str, upstream: str) -> None:
        """Neither end takes the half of a transfer for the whole."""
        recorder = Recorder()
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]

        async def dial() -> Any:
            url = f"http://127.0.0.1:{port}"
            if upstream == "upgrade":
                return await open_upgrade(url, "echo")
            if upstream == "tunnel":
                return await open_tunnel(url, "a:1")
            return stream_scope(await trio.open_tcp_stream("127.0.0.1", port))

        async def carry(
            _request: Request, stream: UpgradedStream, _head: bytes
        ) -> None:
            async with await dial() as opened:
                await relay(stream, opened if upstream == "tcp" else opened.stream)

        async def app(request: Request) -> Tunnel | None:
            if answer == "Tunnel":
                return Tunnel(carry)
            await carry(request, *await request.accept_connect())
            return None

        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(serve_tcp, app, 0, host="127.0.0.1", observer=recorder)
            )
            address = server.listeners[0].socket.getsockname()
            near = await trio.open_tcp_stream(*address)
            await near.send_all(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
            await read_until(near, b"\r\n\r\n")
            far = await listener.accept()
            if upstream != "tcp":
                await read_until(far, b"\r\n\r\n")
                line = b"HTTP/1.1 200 OK\r\n\r\n"
                await far.send_all(line if upstream == "tunnel" else SWITCHED)
            await near.send_all(b"half")
            await read_until(far, b"half")
            await far.send_all(b"half")
            await read_until(near, b"half")
            if how == "cancelled":
                nursery.cancel_scope.cancel()
            else:
                await server.drain(0)

        reason = EndReason.CANCELLED if how == "cancelled" else EndReason.DRAINED
        assert recorder.reasons == [reason]
        for end in (near, far):
            assert await see_end(end) == "RST"
            await end.aclose()
        await listener.aclose()

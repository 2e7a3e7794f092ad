# Servers and clients against scripted bytes, over every kind of stream.  A script keeps
# packets apart, so every split runs there; memory, TCP and TLS show that the stream below
# makes no difference.
from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

import pytest
import trio
import trio.testing

from trio_upgrade import Limits, OpenError, Response, open_upgrade, serve_stream
from trio_upgrade.testing import ScriptedPeer, split_points

from ..servers import run_script
from ..sockets import tcp_pair
from ..tls import wrap_tls
from ..wire import DATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from trio_upgrade import Request

    Result = TypeVar("Result")

Kind: TypeAlias = Literal["script", "memory", "tcp", "tls"]
Contexts: TypeAlias = "tuple[ssl.SSLContext, ssl.SSLContext]"
TLSStream: TypeAlias = "trio.SSLStream[trio.abc.Stream]"

KINDS: tuple[Kind, ...] = ("script", "memory", "tcp", "tls")
URL = "http://x/u"
CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
TUNNEL = b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Bytes; longer wires are not sent byte by byte where each byte is a system call.
SHORT = 120


async def unreachable_app(request: Request) -> Response:
    """Fail, since no request may reach the app."""
    raise AssertionError(f"the app was called: {request!r}")


def with_fields(head: bytes, *fields: str) -> bytes:
    """Return the same header section with these field lines after its own."""
    return head[:-2] + "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n"


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def open_ends(
    kind: Kind, contexts: Contexts
) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return the client's and the server's end of a connection."""
    if kind == "memory":
        return trio.testing.memory_stream_pair()
    pair = await tcp_pair()
    return pair if kind == "tcp" else wrap_tls(pair, contexts, https_compatible=True)


def real_cuts(wire: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the wire whole, and byte by byte if it is short."""
    yield (wire,)
    if 1 < len(wire) <= SHORT:
        yield tuple(wire[point : point + 1] for point in range(len(wire)))


class Serving:
    """A server on one kind of stream, which gets scripted bytes."""

    def __init__(self, kind: Kind, contexts: Contexts) -> None:
        self.kind = kind
        self._contexts = contexts

    async def check(self, app, wire: bytes, expected: bytes, limits=None) -> None:
        """However the wire is cut, the server sends exactly the expected bytes."""
        if self.kind == "script":
            for packets in split_points(wire):
                peer = await run_script(app, *packets, limits=limits)

                assert peer.sent == expected, packets
        else:
            for packets in real_cuts(wire):
                got = await self._converse(app, packets, len(expected), limits)

                assert got == expected

    async def check_refusal(
        self,
        wire: bytes,
        status: str,
        match: bytes = b"",
        *,
        app=unreachable_app,
        limits=None,
    ) -> None:
        """The server refuses the wire, however it is cut, and ends the connection.

        The response has this status and a text that says why. No request reaches the
        app, and none after the refusal is answered. Only the script cuts the wire.
        """
        if self.kind == "script":
            for packets in split_points(wire):
                peer = await run_script(app, *packets, limits=limits)

                check_closing_text(bytes(peer.sent), status, match)
        else:
            got = await self._converse(app, (wire,), None, limits)

            check_closing_text(got, status, match)

    async def _converse(
        self, app, packets: tuple[bytes, ...], size: int | None, limits
    ) -> bytes:
        near, far = await open_ends(self.kind, self._contexts)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(serve_stream, app, far, limits=limits or Limits(), strict=True)
            )
            async with near:
                for packet in packets:
                    await near.send_all(packet)
                while size is None or len(got) < size:
                    chunk = await near.receive_some()
                    if not chunk:
                        break
                    got += chunk
                got += await self._finish(near)
        return bytes(got)

    async def _finish(self, near: trio.abc.Stream) -> bytes:
        # End our direction; return the bytes that come until the server ends its own.
        if isinstance(near, trio.abc.HalfCloseableStream):
            await near.send_eof()
            return await read_all(near)
        # TLS cannot end one direction alone; more data from the server breaks this.  The
        # rule that TLS ends with a closure alert has tests of its own.
        try:
            bottom, rest = await cast("TLSStream", near).unwrap()
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLEOFError):
                return b""
            raise
        await bottom.aclose()
        return bytes(rest)


def check_closing_text(got: bytes, status: str, match: bytes = b"") -> None:
    """The bytes are one response of plain text that announces the end."""
    head, blank, text = got.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")

    assert line == f"HTTP/1.1 {status}".encode()
    assert b"Connection: close" in fields
    assert b"Content-Type: text/plain; charset=utf-8" in fields
    assert b"Content-Length: %d" % len(text) in fields
    assert blank
    assert text.endswith(b"\n")
    assert match in text


class Dialling:
    """A client on one kind of stream, whose server sends scripted bytes."""

    def __init__(self, kind: Kind, contexts: Contexts) -> None:
        self.kind = kind
        self._contexts = contexts

    async def run(
        self,
        use: Callable[[trio.abc.Stream], Awaitable[Result]],
        wire: bytes,
        sent: bytes | None = None,
    ) -> Result:
        """Run the client against the server's bytes, however they are cut.

        Args:
            use: The client; it has to close the stream.
            wire: The bytes of the server.
            sent: The bytes that the client has to send; None does not check them.
        """
        if self.kind == "script":
            for packets in split_points(wire):
                peer = ScriptedPeer(*packets)
                result = await use(peer)

                assert peer.closed, packets
                assert sent is None or peer.sent == sent, packets
        else:
            for packets in real_cuts(wire):
                near, far = await open_ends(self.kind, self._contexts)
                received = bytearray()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._serve, far, packets, received)
                    result = await use(near)

                assert sent is None or received == sent
        return result

    async def _serve(
        self, far: trio.abc.Stream, packets: tuple[bytes, ...], received: bytearray
    ) -> None:
        async with far:
            try:
                while b"\r\n\r\n" not in received:
                    received += await far.receive_some()
                for packet in packets:
                    await far.send_all(packet)
                bottom = far
                if self.kind == "tls":
                    bottom = cast("TLSStream", far).transport_stream
                await cast("trio.abc.HalfCloseableStream", bottom).send_eof()
                received += await read_all(far)
            except trio.BrokenResourceError:
                pass  # The client has closed before it read all our bytes.

    async def check_switch(
        self, wire: bytes, stream_bytes: bytes, sent: bytes | None = None, **options
    ) -> None:
        """The client switches; its stream has these bytes, then the end."""

        async def use(stream: trio.abc.Stream) -> None:
            upgraded = await open_upgrade(URL, "echo", stream=stream, **options)
            async with upgraded as (response, switched, head):
                assert response.status == 101
                assert stream_bytes.startswith(head)
                assert await read_all(switched) == stream_bytes

        await self.run(use, wire, sent)

    async def check_failure(
        self, wire: bytes, error: type[OpenError], match: str = "", **options
    ) -> OpenError:
        """Opening fails with this error, and the stream is closed."""

        async def use(stream: trio.abc.Stream) -> OpenError:
            with pytest.raises(error, match=match) as caught:
                await open_upgrade(URL, "echo", stream=stream, **options)
            return caught.value

        return await self.run(use, wire)

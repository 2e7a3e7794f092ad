# Apps and clients against bytes, over every kind of stream.  A script is exact about
# packets, so every split runs there; memory, TCP and TLS show that the stream below makes
# no difference.
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
# Longer wires are not sent byte by byte where each byte is a system call.
SHORT = 120


async def nobody(request: Request) -> Response:
    """An app that no request may reach."""
    raise AssertionError(f"the app was called: {request!r}")


def closing(response: bytes) -> bytes:
    """The same response, with the announcement that the connection ends."""
    return response.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def with_fields(head: bytes, *fields: str) -> bytes:
    """The same head with these field lines behind its own."""
    return head[:-2] + "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n"


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def open_ends(
    kind: Kind, contexts: Contexts
) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """The client's and the server's end of a connection."""
    if kind == "memory":
        return trio.testing.memory_stream_pair()
    pair = await tcp_pair()
    return pair if kind == "tcp" else wrap_tls(pair, contexts, https_compatible=True)


def real_cuts(wire: bytes) -> Iterator[tuple[bytes, ...]]:
    """Whole, and byte by byte where that is soon done."""
    yield (wire,)
    if 1 < len(wire) <= SHORT:
        yield tuple(wire[point : point + 1] for point in range(len(wire)))


class Serving:
    """A server on one kind of stream, spoken to in bytes."""

    def __init__(self, kind: Kind, contexts: Contexts) -> None:
        self.kind = kind
        self._contexts = contexts

    async def check(self, app, wire: bytes, expected: bytes, limits=None) -> None:
        """However the wire is cut, the client gets exactly this, and then the end."""
        if self.kind == "script":
            for packets in split_points(wire):
                peer = await run_script(app, *packets, limits=limits)

                assert peer.sent == expected, packets
        else:
            for packets in real_cuts(wire):
                got = await self._converse(app, packets, len(expected), limits)

                assert got == expected

    async def check_refusal(
        self, wire: bytes, status: str, match: bytes = b"", *, app=nobody, limits=None
    ) -> None:
        """However the wire is cut: this status, a text that says why, and the end.

        Nothing reaches the app, nothing behind the refusal is answered. That a cut makes
        no difference is shown on the script alone.
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
        # End our direction; what else comes until the server ends its own.
        if isinstance(near, trio.abc.HalfCloseableStream):
            await near.send_eof()
            return await read_all(near)
        # TLS cannot end one direction alone; more data from the server breaks this.  That
        # it ends with a closure alert is a rule with tests of its own.
        try:
            bottom, rest = await cast("TLSStream", near).unwrap()
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLEOFError):
                return b""
            raise
        await bottom.aclose()
        return bytes(rest)


def check_closing_text(got: bytes, status: str, match: bytes = b"") -> None:
    """It is one response with a plain text, which announces the end."""
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
    """A client on one kind of stream, whose server follows a script."""

    def __init__(self, kind: Kind, contexts: Contexts) -> None:
        self.kind = kind
        self._contexts = contexts

    async def run(
        self,
        use: Callable[[trio.abc.Stream], Awaitable[Result]],
        wire: bytes,
        sent: bytes | None = None,
    ) -> Result:
        """However the server's bytes are cut, the client does its job and closes.

        Args:
            use: The client's side; it closes the stream.
            wire: What the server says.
            sent: What the client has to have said.
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
                pass  # The client has closed with our bytes unread.

    async def check_switch(
        self, wire: bytes, stream_bytes: bytes, sent: bytes | None = None, **options
    ) -> None:
        """The switch is taken, and its stream has these bytes, then the end."""

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
        """Opening fails with this error, and nothing is left open."""

        async def use(stream: trio.abc.Stream) -> OpenError:
            with pytest.raises(error, match=match) as caught:
                await open_upgrade(URL, "echo", stream=stream, **options)
            return caught.value

        return await self.run(use, wire)

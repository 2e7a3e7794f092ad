# Apps and clients against bytes, over every kind of stream.  A scripted stream has exact
# packets, so it runs every way to cut the bytes.  Memory, TCP and TLS streams show that
# the kind of stream makes no difference.
from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

import pytest
import trio
import trio.testing

from trio_upgrade import Limits, OpenError, Response, open_upgrade, serve_stream
from trio_upgrade.testing import ScriptedPeer, split_points

from ..support import DATE, run_script, tcp_pair, wrap_tls

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
# Longer wires are not sent byte by byte if each byte is a system call.
SHORT = 120


async def unreachable_app(request: Request) -> Response:
    """Fail the test: no request may reach this app."""
    raise AssertionError(f"the app was called: {request!r}")


def closing(response: bytes) -> bytes:
    """Return the same response with ``Connection: close``."""
    return response.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def with_fields(head: bytes, *fields: str) -> bytes:
    """Return the same message head with these field lines added at its end."""
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
    """A server on one kind of stream, to which a test sends bytes."""

    def __init__(self, kind: Kind, contexts: Contexts) -> None:
        self.kind = kind
        self._contexts = contexts

    async def check(self, app, wire: bytes, expected: bytes, limits=None) -> None:
        """Check that the client gets exactly this and then the end, for all cuts."""
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
        """Check that the client gets this status, a text with the reason, and the end.

        The request does not reach the app, and no later request is answered. Only the
        scripted stream runs all cuts.
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
        # Ends our direction; returns what comes until the server ends its own.
        if isinstance(near, trio.abc.HalfCloseableStream):
            await near.send_eof()
            return await read_all(near)
        # TLS cannot end one direction only; unwrap() fails if the server sends more data.
        # Other tests check that the server ends with a closure alert.
        try:
            bottom, rest = await cast("TLSStream", near).unwrap()
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLEOFError):
                return b""
            raise
        await bottom.aclose()
        return bytes(rest)


def check_closing_text(got: bytes, status: str, match: bytes = b"") -> None:
    """Check that this is one response with a plain text and ``Connection: close``."""
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
        """Run the client for all cuts of the server's bytes; check that it closes.

        Args:
            use: The client's side; it closes the stream.
            wire: The bytes that the server sends.
            sent: The bytes that the client must send, None for any.
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
        """Check that the client switches and its stream has these bytes, then the end."""

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
        """Check that opening fails with this error and leaves nothing open."""

        async def use(stream: trio.abc.Stream) -> OpenError:
            with pytest.raises(error, match=match) as caught:
                await open_upgrade(URL, "echo", stream=stream, **options)
            return caught.value

        return await self.run(use, wire)

# A stream of a user's on top of another one, which changes the bytes.
from __future__ import annotations

import trio


def turn(data: bytes | bytearray | memoryview) -> bytes:
    """Return the bytes as a wrapper sends them, or receives them."""
    return bytes(octet ^ 0xFF for octet in data)


class Wrapper(trio.abc.Stream):
    """Inverts every bit on the way; names the stream below as Trio's wrappers do."""

    def __init__(self, transport_stream: trio.abc.Stream) -> None:
        self.transport_stream = transport_stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return turn(await self.transport_stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(turn(data))

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.transport_stream.aclose()


class HalfCloseableWrapper(Wrapper, trio.abc.HalfCloseableStream):
    """The same, on a stream that can be half-closed."""

    async def send_eof(self) -> None:
        assert isinstance(self.transport_stream, trio.abc.HalfCloseableStream)
        await self.transport_stream.send_eof()

"""A final response while the body is sent, on streams that a cut send breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Response, open_connection, serve_stream

from ..sockets import tcp_pair
from ..tls import make_tls_contexts, wrap_tls
from ..tls_streams import VERSIONS, close_all, opened
from ..wire import okay

if TYPE_CHECKING:
    from trio_upgrade import Request


class Clogged(trio.abc.Stream):
    """A stream whose peer reads nothing, sends some packets, and is then silent."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = list(packets)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.sleep_forever()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.packets:
            await trio.sleep_forever()
        return self.packets.pop(0)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class TestEarlyAnswer:
    """The part of its body that can be read."""

    @pytest.mark.ids("M10")
    async def test_body_of_the_answer_can_be_read(self) -> None:
        """The body is read before the sending is cut (RFC 9112 §9.3)."""
        refusal = b"y" * 50_000

        async def app(request: Request) -> Response:
            return Response(413, refusal)

        contexts = make_tls_contexts()
        near, far = wrap_tls(await tcp_pair(), contexts, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, far)
            async with await open_connection("http://x", stream=near) as connection:
                response = await connection.request("POST", "/", body=bytes(20_000_000))

                assert response.status == 413
                assert await response.read() == refusal

    @pytest.mark.parametrize("version", VERSIONS)
    async def test_own_tls(self, version: str, autojump_clock) -> None:
        """TLS of ours survives a cut send, so the body can be read as it comes."""
        near, far = await opened(version)
        part, parts = b"y" * 50_000, 4

        async def refuse() -> None:
            await far.receive_some()
            await far.send_all(okay(parts * part)[: -parts * len(part)])
            for _ in range(parts):
                await trio.sleep(3)
                await far.send_all(part)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            connection = await open_connection("http://x", stream=near)
            began = trio.current_time()
            response = await connection.request("POST", "/", body=bytes(20_000_000))
            assert trio.current_time() - began < 1
            assert await response.read() == parts * part
            await connection.aclose()
        await close_all(far)

    async def test_answer_that_does_not_end(self, autojump_clock) -> None:
        """A body that does not end is given only ``Limits.linger`` seconds."""
        stream = Clogged(okay(b"begun")[:-2])
        connection = await open_connection("http://x", stream=stream)
        began = trio.current_time()
        response = await connection.request("POST", "/", body=bytes(200_000))

        assert response.status == 200
        assert trio.current_time() - began == 2

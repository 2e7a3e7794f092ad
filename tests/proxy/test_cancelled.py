"""A proxy that is cancelled at any step leaves nothing open, on neither side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Limits, serve_stream
from trio_upgrade.proxy import ForwardProxy, ReverseProxy

from ..cancelling import cancel_everywhere
from .scenes import HOST, End, Upstream, request, settle
from .test_switching import offer, switched

if TYPE_CHECKING:
    from trio_upgrade.testing import ScriptedPeer


async def serve_upstream(end: End) -> None:
    """Switch an offer and echo; answer anything else, with a hint and trailers."""
    got = await end.receive_until(b"\r\n\r\n")
    if b"Upgrade: websocket" in got:
        await end.stream.send_all(switched() + b"hello")
        await end.receive_all()
        return
    if not got:
        return
    await end.receive_until(b"0\r\n\r\n")
    await end.stream.send_all(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nokay\r\n0\r\nX-Sum: 1\r\n\r\n"
    )


POST = request(
    "Transfer-Encoding: chunked", method="POST", body=b"2\r\nhi\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("wire", "then", "expected"),
    [(POST, "silence", b"X-Sum: 1\r\n\r\n"), (offer() + b"early", "end", b"hello")],
    ids=["request", "offer"],
)
async def test_reverse_proxy(
    nursery: trio.Nursery, wire: bytes, then, expected: bytes
) -> None:
    """Each connection to the upstream is closed when the proxy's block is left."""
    upstream = Upstream(serve_upstream)
    await nursery.start(upstream.serve)
    last: list[ScriptedPeer] = []

    async def run(peer: ScriptedPeer) -> None:
        last[:] = [peer]
        async with ReverseProxy(upstream.url, connections=1) as proxy:
            try:
                await serve_stream(proxy, peer, limits=Limits(linger=0))
            finally:
                assert proxy.statistics().tunnels == 0
                assert proxy.pool_statistics().in_use == 0
                assert proxy.pool_statistics().waiting == 0
        with trio.CancelScope(shield=True):
            await settle()
        assert all(end.done for end in upstream.ends)

    assert await cancel_everywhere(run, wire, then=then) > 10
    assert last[0].sent.endswith(expected)
    nursery.cancel_scope.cancel()


async def test_forward_proxy(nursery: trio.Nursery) -> None:
    """A tunnel that was dialled and not opened yet is closed as well."""
    upstream = Upstream(serve_upstream)
    await nursery.start(upstream.serve)
    authority = f"{HOST}:{upstream.port}"
    wire = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    last: list[ScriptedPeer] = []

    async def run(peer: ScriptedPeer) -> None:
        last[:] = [peer]
        async with ForwardProxy(
            networks=["127.0.0.0/8"], ports=range(1, 65536)
        ) as proxy:
            await serve_stream(proxy, peer, limits=Limits(linger=0))
        with trio.CancelScope(shield=True):
            await settle()
        assert all(end.done for end in upstream.ends)

    assert await cancel_everywhere(run, wire + offer(), then="end") > 10
    assert last[0].sent.endswith(switched() + b"hello")
    nursery.cancel_scope.cancel()

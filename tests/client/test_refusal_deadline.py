"""Refusals whose body does not end, inside scopes with a deadline."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import Limits, Refused, open_connection, open_tunnel, open_upgrade
from trio_upgrade._client.proxies import Proxy, open_tunnel_through
from trio_upgrade._client.urls import parse_url
from trio_upgrade.testing import ScriptedPeer, split_points

from ..sockets import tcp_pair
from ..tls import make_tls_contexts, wrap_tls

URL = "http://example.com"
FRAMINGS = {
    "no length": b"\r\nwhy",
    "no body": b"\r\n",
    "length": b"Content-Length: 9\r\n\r\nwhy",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\n",
}


async def open_via(limits: Limits, stream: trio.abc.Stream) -> None:
    try:
        await open_tunnel_through(Proxy(URL), stream, parse_url("http://a"), limits)
    finally:
        # Their caller does this.
        await trio.aclose_forcefully(stream)


OPENINGS: dict[str, Any] = {
    "upgrade": partial(open_upgrade, URL, "echo"),
    "large upgrade": partial(open_upgrade, URL, "echo", body=bytes(200_000)),
    "tunnel": partial(open_tunnel, URL, "a:1"),
    "via": open_via,
}


@pytest.mark.ids("F6")
@pytest.mark.parametrize("status", [401, 403, 407])
@pytest.mark.parametrize("how", OPENINGS)
@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS.keys())
async def test_refused_before_the_deadline(
    autojump_clock, status: int, how: str, framing: bytes
) -> None:
    """The refusal is raised after half of the time that is left, with what has come."""
    wire = b"HTTP/1.1 %d No\r\n" % status + framing
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, then="silence")
        began = trio.current_time()
        with trio.fail_after(1), pytest.raises(Refused) as caught:
            await OPENINGS[how](limits=Limits(), stream=peer)

        assert trio.current_time() - began == pytest.approx(0.5)
        assert caught.value.response.status == status
        assert caught.value.response.truncated
        assert caught.value.response.body == (b"why" if b"why" in framing else b"")
        assert peer.closed


@pytest.mark.ids("F6")
@pytest.mark.parametrize(
    ("deadlines", "linger", "waited"),
    [
        ((), 2, 2),
        ((100,), 2, 2),
        ((3,), 2, 1.5),
        ((10, 1, 5), 2, 0.5),
        ((1,), 0.25, 0.25),
        ((1,), None, 0.5),
        ((1,), 0, 0),
    ],
)
async def test_how_long_is_waited(
    autojump_clock, deadlines: tuple[float, ...], linger: float | None, waited: float
) -> None:
    """The earliest deadline of all scopes counts, and ``Limits.linger``."""
    peer = ScriptedPeer(b"HTTP/1.1 403 No\r\n\r\n", then="silence")
    began = trio.current_time()

    async def within(seconds: tuple[float, ...]) -> None:
        if seconds:
            with trio.fail_after(seconds[0]):
                await within(seconds[1:])
        else:
            limits = Limits(linger=linger)
            await open_upgrade(URL, "echo", limits=limits, stream=peer)

    with pytest.raises(Refused):
        await within(deadlines)

    assert trio.current_time() - began == waited


@pytest.mark.ids("F6")
async def test_body_that_trickles(autojump_clock) -> None:
    """A body that goes on coming does not hold the caller either."""
    peer = ScriptedPeer(b"HTTP/1.1 403 No\r\n\r\n", then="silence")

    async def trickle() -> None:
        while True:
            await trio.sleep(0.1)
            peer.feed(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with trio.fail_after(0.9), pytest.raises(Refused) as caught:
            await open_upgrade(URL, "echo", stream=peer)
        nursery.cancel_scope.cancel()

    assert caught.value.response.body == b"xxxx"


@pytest.mark.ids("F6")
async def test_early_refusal_over_tls(autojump_clock) -> None:
    """Nor does the body of an early response, which is read before a send is cut."""
    near, far = wrap_tls(await tcp_pair(), make_tls_contexts(), https_compatible=True)

    async def serve() -> None:
        try:
            await far.receive_some()
            await far.send_all(b"HTTP/1.1 413 No\r\n\r\nwhy")
            await trio.sleep_forever()
        finally:
            await trio.aclose_forcefully(far)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        connection = await open_connection(URL, stream=near)
        began = trio.current_time()
        with trio.fail_after(1):
            response = await connection.request("POST", "/", body=bytes(20_000_000))
        assert response.status == 413
        assert trio.current_time() - began < 1
        await trio.aclose_forcefully(near)
        nursery.cancel_scope.cancel()


@pytest.mark.ids("F6")
async def test_cancelled(autojump_clock) -> None:
    """A cancellation without a deadline ends the wait at once."""
    peer = ScriptedPeer(b"HTTP/1.1 403 No\r\n\r\n", then="silence")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(open_upgrade, URL, "echo", stream=peer))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

    assert scope.cancelled_caught
    assert peer.closed

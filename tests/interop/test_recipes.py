"""The files of examples/deploy, each with its program in front of real servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import open_upgrade
from trio_upgrade.carrier import open_carrier

from .programs import HOST
from .recipes import (
    DELAY,
    DEPLOY,
    PROXIES,
    loading_both,
    open_places,
    open_proxy,
    open_tinyproxy,
    replace,
)

if TYPE_CHECKING:
    from trio_upgrade import UpgradedStream

each_proxy = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.peer(proxy.program))
        for name, proxy in PROXIES.items()
    ],
)


async def count(stream: UpgradedStream | trio.abc.HalfCloseableStream) -> bytes:
    """Send 1,000 bytes and an end, and return what the server says then."""
    await stream.send_all(bytes(1000))
    await stream.send_eof()
    try:
        return b"".join([bytes(chunk) async for chunk in stream])
    except trio.BrokenResourceError:
        return b""


class TestProxies:
    """nginx.conf, haproxy.cfg, Caddyfile and apache.conf in front of two servers."""

    @each_proxy
    async def test_servers_are_replaced(self, name: str, tmp_path: Path) -> None:
        """Two servers are replaced, one after the other, and no client notices.

        Neither do tunnels: those that are open have the grace, and further offers go to
        the other server.
        """
        async with (
            open_places(delay=DELAY) as places,
            open_proxy(name, tmp_path, [place.port for place in places]) as port,
        ):
            async with loading_both(port) as tallies:
                for place in places:
                    await replace(place, port)

        for tally in tallies:
            assert not tally.lost
            assert tally.answered == tally.connections > 20

    @each_proxy
    async def test_half_close(self, name: str, tmp_path: Path) -> None:
        """Where the proxy passes an end on, the answer to it comes back.

        A proxy that does not closes both directions.  By WebSocket the end is a message,
        which every proxy passes on.
        """
        async with (
            open_places(delay=0) as places,
            open_proxy(name, tmp_path, [place.port for place in places]) as port,
        ):
            url = f"http://{HOST}:{port}/count"
            async with await open_upgrade(url, "count") as (_, stream, _):
                answer = await count(stream)
            async with open_carrier(f"{url}/websocket", "count") as carried:
                by_websocket = await count(carried)

        assert answer == (b"1000 bytes\n" if PROXIES[name].keeps_half_close else b"")
        assert by_websocket == b"1000 bytes\n"


@pytest.mark.peer("tinyproxy")
async def test_tunnel_that_cannot_be_half_closed(tmp_path: Path) -> None:
    """At an end tinyproxy closes both directions: what was not sent by then is lost.

    An end that is a message arrives, and so does the answer to it: by a WebSocket in the
    tunnel, or in a protocol that says itself how much comes.
    """
    async with (
        open_places(delay=0) as (place, _),
        open_tinyproxy(tmp_path, place.port) as via,
    ):
        url = f"http://{HOST}:{place.port}/count"
        async with await open_upgrade(url, "count", via=via) as (_, stream, _):
            by_half_close = await count(stream)
        async with open_carrier(f"{url}/websocket", "count", via=via) as carried:
            by_websocket = await count(carried)
        async with await open_upgrade(
            f"http://{HOST}:{place.port}/", "echo", via=via
        ) as (_, stream, _):
            await stream.send_all(bytes(1000))
            by_length = await stream.receive_exactly(1000)

    assert by_half_close == b""
    assert by_websocket == b"1000 bytes\n"
    assert by_length == bytes(1000)


def test_every_recipe_is_tested() -> None:
    """No file of examples/deploy is left out by the tests that run them."""
    tests = "".join([path.read_text() for path in Path(__file__).parent.glob("*.py")])

    for path in DEPLOY.iterdir():
        if path.is_file():
            assert path.name in tests

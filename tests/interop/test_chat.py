"""examples/chat.py: in Chromium, and as a program of ours sees it."""

from __future__ import annotations

import json
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from trio_upgrade import UpgradeRefused, open_connection, serve_tcp
from trio_upgrade.proxy import ReverseProxy, TunnelRecord
from trio_upgrade.websocket import open_websocket

from .chromium import open_browser
from .programs import BOUND, HOST, example, read_url, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from websockets.trio.client import ClientConnection

EVIL = '<b>bold</b><img src=x onerror="window.hacked=1"><script>hacked=1</script>'
# What a page shows: its lines, and the names of the people.
LINES = "[...document.querySelectorAll('.bubble, .note')].map((e) => e.lastChild.data)"
PEOPLE = "[...document.querySelectorAll('#people .face')].map((face) => face.title)"
OPEN = "!!document.querySelector('#dot.open')"


def say(text: str) -> str:
    """Return a script that says something as a user does."""
    return (
        f"document.querySelector('#text').value = {json.dumps(text)};"
        "document.querySelector('#form').requestSubmit(); true"
    )


@asynccontextmanager
async def reached(
    url: str, records: list[TunnelRecord], *, proxied: bool
) -> AsyncIterator[str]:
    """Yield the URL itself, or that of a proxy in front of it."""
    if not proxied:
        yield url
        return
    async with (
        trio.open_nursery() as nursery,
        ReverseProxy(url, on_tunnel=records.append) as proxy,
    ):
        server = await nursery.start(
            partial(serve_tcp, proxy, 0, host=HOST, strict=True)
        )
        yield server.url
        nursery.cancel_scope.cancel()


@pytest.mark.peer("chromium")
@pytest.mark.parametrize("proxied", [False, True], ids=["straight", "proxied"])
async def test_two_tabs_chat(tmp_path: Path, *, proxied: bool) -> None:
    """Two tabs see each other's texts, as texts; they say goodbye and come back.

    A third tab gets the history. Through a proxy all is the same.
    """
    records: list[TunnelRecord] = []
    with trio.fail_after(BOUND):
        async with (
            await start(*example("chat.py", 0)) as server,
            open_browser(tmp_path) as browser,
            reached(
                straight := await read_url(server), records, proxied=proxied
            ) as url,
        ):
            ada = await browser.open_tab(f"{url}/lobby?name=Ada")
            await ada.wait(OPEN)
            grace = await browser.open_tab(f"{url}/lobby?name=<i>Grace</i>")
            await ada.wait(f"{PEOPLE}.length === 2")
            await grace.wait(f"{OPEN} && {PEOPLE}.length === 2")
            await ada.evaluate(say("hello"))
            await grace.wait(f"{LINES}.includes('hello')")
            await grace.evaluate(say(EVIL))
            await ada.wait(f"{LINES}.includes({json.dumps(EVIL)})")

            assert await ada.evaluate(PEOPLE) == ["Ada", "<i>Grace</i>"]
            late = await browser.open_tab(f"{url}/lobby?name=Late")
            assert await late.wait(f"{LINES}.length === 3 && {LINES}") == [
                *("hello", EVIL, "Late is here"),
            ]
            other = await browser.open_tab(f"{url}/other?name=Ada")
            await other.wait(OPEN)
            assert await other.wait(f"{LINES}.length && {LINES}") == ["Ada is here"]
            # A script that says nothing of its origin does not run.
            await late.evaluate(
                "document.body.append(Object.assign(document.createElement('script'),"
                " {textContent: 'window.hacked = 1'}))"
            )
            for tab in ada, grace, late:
                assert not await tab.evaluate("window.hacked")
                assert not await tab.evaluate("document.querySelectorAll('b').length")

            server.process.send_signal(signal.SIGTERM)
            assert await server.process.wait() == 0
            await ada.wait(f"{LINES}.includes('The server says goodbye.')")
            await grace.wait(f"!{OPEN}")
            await ada.evaluate(say("is not lost"))
            assert await ada.evaluate("document.querySelector('#text').value")
            # Of each of the four pages the tunnel has ended, whole in both directions.
            assert [record.cause for record in records] == ["eof"] * 4 * proxied
            port = straight.rpartition(":")[2]
            async with await start(*example("chat.py", port)) as again:
                assert await read_url(again) == straight
                await ada.wait(f"{OPEN} && {PEOPLE}.length === 3")
                await grace.wait(OPEN)
                await ada.evaluate(say("again"))
                await grace.wait(f"{LINES}.includes('again')")


async def receive(websocket: ClientConnection, count: int) -> list[Any]:
    """Receive so many messages of the chat."""
    return [json.loads(await websocket.recv()) for _ in range(count)]


async def test_messages() -> None:
    """Texts are kept short, and those of the last 100 are remembered; data is refused."""
    with trio.fail_after(BOUND):
        async with await start(*example("chat.py", 0)) as server:
            url = (await read_url(server)).replace("http", "ws") + "/%C3%A4"
            async with open_websocket(f"{url}?name=%20A{'n' * 40}%20") as ann:
                before, came = await receive(ann, 2)
                assert before == {"kind": "before", "said": []}
                assert came["people"] == ["A" + "n" * 23]
                await ann.send("  ")
                for number in range(105):
                    await ann.send(f" {number}{'x' * 1990}yyyyyyyyyyyyy")
                    (said,) = await receive(ann, 1)
                    assert said["text"].startswith(f"{number}xxx")
                    assert len(said["text"]) == 2000
                async with open_websocket(url) as late:
                    before, came = await receive(late, 2)
                    assert len(before["said"]) == 100
                    assert before["said"][0]["text"].startswith("5x")
                    assert came["name"] == "somebody"
                    await late.send(b"data")
                    with pytest.raises(ConnectionClosed) as closed:
                        await receive(late, 1)
                    assert closed.value.rcvd is not None
                    assert closed.value.rcvd.code == 1003
                kinds = [message["kind"] for message in await receive(ann, 2)]
                assert kinds == ["came", "left"]
                await ann.send("x" * 8001)
                with pytest.raises(ConnectionClosedError, match="1009"):
                    await receive(ann, 1)


async def test_drain() -> None:
    """A drain says goodbye by 1001, and the program ends."""
    with trio.fail_after(BOUND):
        async with await start(*example("chat.py", 0)) as server:
            url = (await read_url(server)).replace("http", "ws")
            async with open_websocket(f"{url}/lobby") as websocket:
                await receive(websocket, 2)
                server.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed, match="1001"):
                    await receive(websocket, 1)
            assert await server.process.wait() == 0


async def test_too_many_rooms() -> None:
    """Of more rooms than 100 with people none is opened; an empty one is forgotten."""
    with trio.fail_after(BOUND):
        async with await start(*example("chat.py", 0)) as server:
            url = (await read_url(server)).replace("http", "ws")
            async with AsyncExitStack() as stack:
                websockets = [
                    await stack.enter_async_context(open_websocket(f"{url}/{number}"))
                    for number in range(100)
                ]
                for websocket in websockets:
                    await receive(websocket, 2)
                async with open_websocket(f"{url}/more") as more:
                    with pytest.raises(ConnectionClosed, match="1013"):
                        await receive(more, 1)
                async with open_websocket(f"{url}/50") as second:
                    assert (await receive(second, 2))[1]["people"] == ["somebody"] * 2
                await websockets[7].aclose()
                async with open_websocket(f"{url}/more") as more:
                    assert len(await receive(more, 2)) == 2


async def test_paths() -> None:
    """The page is at every path that can name a room; others are not found."""
    with trio.fail_after(BOUND):
        async with await start(*example("chat.py", 0)) as server:
            url = await read_url(server)
            async with await open_connection(url) as connection:
                for path, status in (("/", 302), ("/a/b", 404), ("/%2e~x", 200)):
                    response = await connection.request("GET", path)
                    body = await response.read()
                    assert response.status == status
            policy = response.headers["content-security-policy"]
            nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
            assert f'<script nonce="{nonce}">'.encode() in body
            assert b"NONCE" not in body
            with pytest.raises(UpgradeRefused) as refused:
                async with open_websocket(f"{url.replace('http', 'ws')}/a/b"):
                    pass
            assert refused.value.response.status == 404

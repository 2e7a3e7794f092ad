"""Chromium and Firefox as the client, Chromium with TLS, too."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import Response, serve_ssl_over_tcp, serve_tcp
from trio_upgrade.websocket import accept_websocket

from ..interop.programs import BOUND, HOST, start
from ..tls import make_tls_contexts
from .wires import echo_or_burst

if TYPE_CHECKING:
    from trio_upgrade import Server

HERE = Path(__file__).parent
PAGE = (HERE / "page.html").read_text()
# --no-sandbox, since CI runs as root.  The others keep it from asking anybody else.
CHROMIUM = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--ignore-certificate-errors"),
    "--remote-debugging-port=0",
]
# Nothing but the page is to be loaded, and no page of its own shown first.
FIREFOX_SETTINGS = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.type": 0,
    "services.settings.server": "",
    "toolkit.telemetry.enabled": False,
}
CHROMIUM_MARK = pytest.mark.peer("chromium")
FIREFOX_MARK = pytest.mark.peer("firefox-esr")


def make_command(browser: str, folder: Path, target: str) -> list[str]:
    """Return the command that opens a page, without a window."""
    if browser == "chromium":
        return [*CHROMIUM, f"--user-data-dir={folder}", target]
    settings = [
        f"user_pref({json.dumps(name)}, {json.dumps(value)});"
        for name, value in FIREFOX_SETTINGS.items()
    ]
    (folder / "user.js").write_text("\n".join(settings))
    return [
        "firefox-esr",
        "--headless",
        "--new-instance",
        "--profile",
        str(folder),
        target,
    ]


class Site:
    """A server with the page and WebSockets on one port, which gets the reports."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](10)
        self.server: Server

    async def app(self, request):
        if request.path == "/":
            return Response(200, PAGE, {"Content-Type": "text/html"})
        if request.path == "/report":
            await self._send.send(json.loads(await request.read()))
            return Response(204)
        if request.path == "/favicon.ico":
            return Response(404)
        origin = self.server.url
        return accept_websocket(
            request, echo_or_burst, origins=[origin], subprotocols=["a", "b"]
        )

    async def open(self, nursery: trio.Nursery, *, tls: bool) -> Site:
        """Start the server; return the site."""
        if tls:
            _, context = make_tls_contexts()
            serving = partial(serve_ssl_over_tcp, self.app, 0, context)
        else:
            serving = partial(serve_tcp, self.app, 0)
        self.server = await nursery.start(partial(serving, host=HOST, strict=True))
        return self

    async def next_report(self) -> Any:
        """Wait for what the page says next."""
        with trio.fail_after(BOUND):
            return await self._receive.receive()


@pytest.mark.parametrize(
    ("browser", "tls"),
    [
        pytest.param("chromium", False, marks=CHROMIUM_MARK, id="chromium-ws"),
        pytest.param("chromium", True, marks=CHROMIUM_MARK, id="chromium-wss"),
        # It has no switch that lets any certificate pass.
        pytest.param("firefox", False, marks=FIREFOX_MARK, id="firefox-ws"),
    ],
)
async def test_talk(
    browser: str, tls: bool, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Echo, subprotocol, 1 MiB, 50 messages right after the 101, closes of both sides."""
    site = await Site().open(nursery, tls=tls)
    url = site.server.url
    target = f"{url}/#{url.replace('http', 'ws', 1)},talk"
    async with await start(*make_command(browser, tmp_path, target)):
        seen = await site.next_report()

    assert seen == {
        "subprotocol": "a",
        "same": True,
        "length": 2**20,
        "ours": [4000, "ours", True],
        "messages": 50,
        "theirs": [4001, "theirs", True],
    }


@pytest.mark.parametrize(
    "browser",
    [
        pytest.param("chromium", marks=CHROMIUM_MARK),
        pytest.param("firefox", marks=FIREFOX_MARK),
    ],
)
async def test_sigterm(browser: str, nursery: trio.Nursery, tmp_path: Path) -> None:
    """The page gets a 1001 within a second of the server's SIGTERM."""
    site = await Site().open(nursery, tls=False)
    async with AsyncExitStack() as stack:
        script = str(HERE / "draining_server.py")
        command = await start(sys.executable, "-X", "dev", script)
        server = await stack.enter_async_context(command)
        target = f"{site.server.url}/#ws://{HOST}:{await server.read_line()},wait"
        page = await start(*make_command(browser, tmp_path, target))
        await stack.enter_async_context(page)
        assert (await site.next_report())["subprotocol"] == "a"
        asked = time.time()
        server.process.terminate()
        seen = await site.next_report()
        with trio.fail_after(BOUND):
            assert await server.process.wait() == 0

    assert (seen["code"], seen["clean"]) == (1001, True)
    assert seen["at"] - asked < 1

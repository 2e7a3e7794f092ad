# Chromium with tabs, driven by its DevTools protocol over a WebSocket of ours.
from __future__ import annotations

import json
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from trio_upgrade.websocket import open_websocket

from .programs import start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from websockets.trio.client import ClientConnection

# --no-sandbox, since CI runs as root.  The others keep it from asking anybody else.
COMMAND = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--no-proxy-server"),
]
_LISTENING = b"DevTools listening on "


class Tab:
    """A tab of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def evaluate(self, script: str) -> Any:
        """Evaluate JavaScript in the page, and return its value."""
        found = await self._browser.call(
            "Runtime.evaluate",
            self._session,
            expression=script,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def wait(self, script: str) -> Any:
        """Wait until JavaScript in the page has a true value, and return that."""
        while not (value := await self.evaluate(script)):  # noqa: ASYNC110  another program
            await trio.sleep(0.02)
        return value


class Browser:
    """A running browser."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._number = 0

    async def open_tab(self, url: str) -> Tab:
        """Open a page in a new tab."""
        target = await self.call("Target.createTarget", url=url)
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        return Tab(self, attached["sessionId"])

    async def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol, and return its result; one at a time."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        await self._websocket.send(json.dumps(message))
        while True:
            answer = json.loads(await self._websocket.recv())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Browser]:
    """Start a browser whose profile is in a folder."""
    options = [f"--user-data-dir={folder}", "--remote-debugging-port=0"]
    async with await start(*COMMAND, *options, stderr=subprocess.STDOUT) as program:
        while not (line := (await program.read_until(b"\n"))).startswith(_LISTENING):
            assert line
        url = line.removeprefix(_LISTENING).decode().strip()
        # Its messages may have pictures.
        async with open_websocket(url, max_size=None) as websocket:
            yield Browser(websocket)

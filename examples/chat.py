# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade[websocket]"]
# ///
"""A chat for browsers: the page and its WebSockets on one port.

    python examples/chat.py [PORT]

PORT is 1337 unless given; 0 takes any free port. Each path is a room: open
http://127.0.0.1:1337/lobby in two tabs. A room remembers its last 100 messages. A reader
that is too slow is dropped, and its page connects again. Ctrl-C or SIGTERM says goodbye
to all pages (1001, going away), which then try to come back.

No text of a user ever becomes HTML: the page, chat.html, is the same for everybody, gets
all texts as JSON, and shows them by textContent. Its Content-Security-Policy lets nothing
else run.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import secrets
import signal
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import trio

from trio_upgrade import (
    Request,
    Response,
    Room,
    Server,
    Upgrade,
    drain_on_signal,
    open_room,
    serve_tcp,
)
from trio_upgrade.websocket import accept_websocket

if TYPE_CHECKING:
    from websockets.trio.server import ServerConnection

PAGE = Path(__file__).with_suffix(".html").read_text()
POLICY = (
    "default-src 'none'; connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; "
    "script-src 'nonce-{0}'; style-src 'nonce-{0}'"
)
ROOM_PATH = re.compile(r"/[\w.~%-]{1,100}", re.ASCII)
MOST_ROOMS = 100
MOST_REMEMBERED = 100
# Characters; and the bytes of a message, of which a character takes at most four.
MOST_IN_NAME, MOST_IN_TEXT = 24, 2000
MOST_BYTES = 4 * MOST_IN_TEXT
# Seconds that the pages have to close in a drain.
GRACE = 5


class Place:
    """One room, its people and its last messages."""

    room: Room

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.people: list[str] = []
        self.said: deque[dict[str, object]] = deque(maxlen=MOST_REMEMBERED)

    async def keep_open(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be open until the chat forgets this room."""
        with self.scope:
            async with open_room() as self.room:
                task_status.started()
                await trio.sleep_forever()

    async def talk(self, name: str, websocket: ServerConnection) -> None:
        """Serve one page as long as it is here."""
        async with self.room.join(websocket) as member:
            self.people.append(name)
            member.send_nowait(json.dumps({"kind": "before", "said": [*self.said]}))
            self.tell("came", name)
            try:
                async for text in websocket:
                    if not isinstance(text, str):
                        await websocket.aclose(1003, "only text is said here")
                    elif text := text.strip()[:MOST_IN_TEXT]:
                        self.said.append(self.tell("said", name, text))
            finally:
                self.people.remove(name)
                self.tell("left", name)

    def tell(self, kind: str, name: str, text: str = "") -> dict[str, object]:
        """Send a message to all pages, and return it."""
        message: dict[str, object] = {"kind": kind, "name": name, "at": time.time()}
        message |= {"text": text} if kind == "said" else {"people": self.people}
        self.room.send_nowait(json.dumps(message))
        return message


class Chat:
    """All rooms, each kept open by a task."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.places: dict[str, Place] = {}
        self.lock = trio.Lock()

    async def app(self, request: Request) -> Response | Upgrade:
        """Answer with the page, or with a WebSocket in the room of the path."""
        if request.path == "/":
            return Response(302, headers={"Location": "/lobby"})
        if not ROOM_PATH.fullmatch(request.path):
            return Response(404, "no such room\n")
        if "websocket" in request.upgrades:
            handler = partial(self.welcome, request)
            return accept_websocket(request, handler, max_size=MOST_BYTES)
        nonce = secrets.token_urlsafe()
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": POLICY.format(nonce),
        }
        return Response(200, PAGE.replace("NONCE", nonce), headers)

    async def welcome(self, request: Request, websocket: ServerConnection) -> None:
        """Find the room of a page, which says its name in the query."""
        (name, *_) = parse_qs(request.query).get("name", ["somebody"])
        place = await self.find(request.path)
        if place is None:
            await websocket.aclose(1013, "too many rooms are open")
        else:
            await place.talk(name.strip()[:MOST_IN_NAME] or "somebody", websocket)

    async def find(self, path: str) -> Place | None:
        """Return the room of a path; None if too many have people in them."""
        async with self.lock:
            if path not in self.places:
                if len(self.places) == MOST_ROOMS and not self.forget_one():
                    return None
                place = Place()
                await self.nursery.start(place.keep_open)
                self.places[path] = place
            return self.places[path]

    def forget_one(self) -> bool:
        """Forget a room without people; return whether there was one."""
        for path, place in self.places.items():
            if not place.people:
                place.scope.cancel()
                del self.places[path]
                return True
        return False


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, Chat(nursery).app, port, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)
        await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=GRACE)
        # The tasks of the rooms.
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", metavar="PORT", type=int, nargs="?", default=1337)
    given = parser.parse_args().port
    try:
        trio.run(main, given)
    except* OSError as group:
        sys.exit(f"port {given}: {group.exceptions[0]}; 0 takes any free port")

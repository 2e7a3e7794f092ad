# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade[websocket]", "coredis>=6,<7"]
# ///
"""A chat whose rooms span processes, on one machine or on several, by Redis pub/sub.

    python examples/deploy/several_machines.py PORT [REDIS_URL [ROOM...]]

REDIS_URL is redis://127.0.0.1:6379 unless given, and the rooms are lobby and garden. A
WebSocket at ``/ROOM?name=NAME`` is in the room of that name, whichever process it is
connected to. It sends texts, and gets JSON:

- ``{"kind": "said", "name": …, "text": …}``: what any member says;
- ``{"kind": "lost", "text": …}``: only to the member that said it: Redis did not take it;
- ``{"kind": "apart"}``: this process has lost Redis, and until ``{"kind": "together"}``
  its members may miss what others say. Redis keeps nothing for a process that is away.

Each process subscribes once, for all rooms, and dials Redis again, after a delay that
grows, when it loses it. Members stay connected meanwhile.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import anyio
import trio
from coredis import Redis
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

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
    from collections.abc import Mapping

    from websockets.trio.server import ServerConnection

PREFIX = "chat:"
MOST_BYTES, MOST_IN_NAME = 8000, 24
# Seconds: for one command, until Redis is dialled again (it doubles), and to end.
COMMAND, FIRST_DELAY, LONGEST_DELAY, GRACE = 5, 0.1, 2.0, 5
# What coredis raises when a connection fails; it stands on anyio.
LOST = (
    RedisError,
    OSError,
    TimeoutError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
log = logging.getLogger("several_machines")


class Exchange:
    """What all processes share: one connection to Redis, made again when it is lost."""

    def __init__(self, url: str, rooms: Mapping[str, Room]) -> None:
        self.url = url
        self.rooms = rooms
        self.redis: Redis[str] | None = None

    async def run(self) -> None:
        """Give the rooms of this process what comes from all processes."""
        delay = FIRST_DELAY
        while True:
            problem: object = "the subscription has ended"
            try:
                # Its own policies would repeat in silence; the members shall know.
                async with Redis.from_url(
                    self.url,
                    decode_responses=True,
                    connect_timeout=COMMAND,
                    stream_timeout=COMMAND,
                    retry_policy=NoRetryPolicy(),
                ) as redis:
                    async with redis.pubsub(
                        patterns=[f"{PREFIX}*"],
                        ignore_subscribe_messages=True,
                        retry_policy=NoRetryPolicy(),
                        max_idle_seconds=COMMAND,
                    ) as messages:
                        self.redis, delay = redis, FIRST_DELAY
                        self.tell_all("together")
                        async for message in messages:
                            channel = str(message["channel"])
                            room = self.rooms.get(channel.removeprefix(PREFIX))
                            if room is not None:
                                room.send_nowait(str(message["data"]))
            except* LOST as group:
                problem = group.exceptions[0]
            finally:
                was_together, self.redis = self.redis is not None, None
            # When it is cancelled, coredis may raise an error of its cleaning up instead.
            await trio.lowlevel.checkpoint()
            log.warning("no Redis: %r", problem)
            if was_together:
                self.tell_all("apart")
            # At random, so that not all processes come back at the same moment.
            await trio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
            delay = min(2 * delay, LONGEST_DELAY)

    def tell_all(self, kind: str) -> None:
        """Tell every member of this process."""
        for room in self.rooms.values():
            room.send_nowait(json.dumps({"kind": kind}))

    async def say(self, room: str, name: str, text: str) -> bool:
        """Publish; return whether Redis took it."""
        if self.redis is None:
            return False
        message = json.dumps({"kind": "said", "name": name, "text": text})
        try:
            with trio.fail_after(COMMAND):
                await self.redis.publish(PREFIX + room, message)
        except (*LOST, trio.TooSlowError):
            return False
        return True


class Chat:
    """The rooms, and the members that are connected to this process."""

    def __init__(self, rooms: Mapping[str, Room], exchange: Exchange) -> None:
        self.rooms = rooms
        self.exchange = exchange

    async def app(self, request: Request) -> Response | Upgrade:
        """Answer with a WebSocket in a room."""
        if request.path == "/health":
            # Not of Redis: all processes would fail together, and none could help.
            return Response(503 if request.server.is_leaving else 200)
        name = request.path.removeprefix("/")
        if name not in self.rooms:
            return Response(404, "no such room\n")
        handler = partial(self.talk, request, name)
        return accept_websocket(request, handler, max_size=MOST_BYTES)

    async def talk(
        self, request: Request, room: str, websocket: ServerConnection
    ) -> None:
        """Serve one member as long as it is here."""
        (name, *_) = parse_qs(request.query).get("name", ["somebody"])
        async with self.rooms[room].join(websocket) as member:
            kind = "apart" if self.exchange.redis is None else "together"
            member.send_nowait(json.dumps({"kind": kind}))
            async for text in websocket:
                if not isinstance(text, str):
                    await websocket.aclose(1003, "only text is said here")
                elif not await self.exchange.say(room, name[:MOST_IN_NAME], text):
                    member.send_nowait(json.dumps({"kind": "lost", "text": text}))


async def main(port: int, url: str, names: list[str]) -> None:
    async with AsyncExitStack() as stack:
        rooms = {name: await stack.enter_async_context(open_room()) for name in names}
        exchange = Exchange(url, rooms)
        async with trio.open_nursery() as nursery:
            app = Chat(rooms, exchange).app
            serve = partial(serve_tcp, app, port, host="127.0.0.1")
            server: Server = await nursery.start(serve)
            nursery.start_soon(exchange.run)
            print(f"listening at {server.url}", flush=True)
            await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=GRACE)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig()
    arguments = sys.argv[1:]
    port, url, *names = [
        *arguments,
        *["1337", "redis://127.0.0.1:6379"][len(arguments) :],
    ]
    trio.run(main, int(port), url, names or ["lobby", "garden"])

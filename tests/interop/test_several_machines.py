"""examples/deploy/several_machines.py with a Redis that is killed in between."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.restart.proxies import wait_listening
from trio_upgrade.websocket import open_websocket

from .programs import HOST, Program, example, read_url, start
from .recipes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.trio.client import ClientConnection

pytestmark = pytest.mark.peer("redis-server")


async def start_redis(port: int) -> Program:
    """Start a Redis that keeps nothing on disk, and wait until it listens."""
    memory_only = "--save", "", "--appendonly", "no"
    options = "--bind", HOST, "--port", str(port), *memory_only
    program = await start("redis-server", *options, stderr=subprocess.DEVNULL)
    await wait_listening(port, program.process)
    return program


class Member:
    """A WebSocket in a room."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    async def say(self, text: str) -> None:
        await self.websocket.send(text)

    async def receive(self, kind: str) -> dict[str, str]:
        """Receive the next message, which is of this kind."""
        message: dict[str, str] = json.loads(await self.websocket.recv())

        assert message["kind"] == kind, message
        return message

    async def hears(self, text: str) -> bool:
        """Whether this is what is said next."""
        return (await self.receive("said"))["text"] == text


@asynccontextmanager
async def two_processes(port: int) -> AsyncIterator[list[Member]]:
    """Start two processes, each with two members in the lobby and one in the garden."""
    command = example("deploy/several_machines.py", 0, f"redis://{HOST}:{port}")
    async with AsyncExitStack() as stack:
        programs, members = [], []
        for _ in range(2):
            program = await start(*command, stderr=subprocess.DEVNULL)
            programs.append(await stack.enter_async_context(program))
            url = (await read_url(program)).replace("http", "ws", 1)
            for path in ("/lobby?name=a", "/lobby?name=b", "/garden?name=c"):
                websocket = await stack.enter_async_context(open_websocket(url + path))
                members.append(Member(websocket))
        yield members
        for program in programs:
            program.process.send_signal(signal.SIGTERM)
        for program in programs:
            assert await program.process.wait() == 0


async def wait_together(members: list[Member]) -> None:
    """Wait until the process of each member has Redis."""
    for member in members:
        kind = ""
        while kind != "together":
            kind = json.loads(await member.websocket.recv())["kind"]
            assert kind in ("apart", "together")


async def test_rooms_span_processes() -> None:
    """One message reaches all members of a room in both processes, and no others.

    While Redis is down a sender is told that its message is lost, and members that they
    may miss some. When Redis is back all goes on, on the connections of before.
    """
    port = free_port()
    redis = await start_redis(port)
    try:
        async with two_processes(port) as members:
            await wait_together(members)
            one, _, gardener, *_ = members
            lobby = [member for at, member in enumerate(members) if at % 3 < 2]
            await one.say("first")
            await gardener.say("roses")
            assert [await member.hears("first") for member in lobby] == [True] * 4
            assert [await members[at].hears("roses") for at in (2, 5)] == [True] * 2

            await redis.aclose()
            for member in members:
                await member.receive("apart")
            await one.say("second")
            assert (await one.receive("lost"))["text"] == "second"

            redis = await start_redis(port)
            await wait_together(members)
            await one.say("third")
            assert [await member.hears("third") for member in lobby] == [True] * 4
    finally:
        await redis.aclose()


async def test_redis_that_is_not_there_at_first() -> None:
    """Processes serve without Redis, say so, and find it when it comes."""
    port = free_port()
    async with two_processes(port) as members:
        await members[0].receive("apart")
        async with await start_redis(port):
            await wait_together(members)
            await members[0].say("hello")
            assert await members[3].hears("hello")

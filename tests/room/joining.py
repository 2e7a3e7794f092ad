# A handler that joins a room, as a task of a test, and streams for it.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio_upgrade import Room, RoomMember


class Handler:
    """Joins a room and stays until it is told to go, or dropped."""

    def __init__(self) -> None:
        self.member: RoomMember
        self.left = trio.Event()
        self._go = trio.Event()
        self.body_went_on = False

    async def run(self, room: Room, stream, *, task_status) -> None:
        async with room.join(stream) as self.member:
            task_status.started()
            await self._go.wait()
            self.body_went_on = True
        self.left.set()

    def go(self) -> None:
        self._go.set()


async def join(nursery: trio.Nursery, room: Room, stream) -> Handler:
    """Let a task join the room; return its handler."""
    handler = Handler()
    await nursery.start(handler.run, room, stream)
    return handler


class Held(trio.abc.Stream):
    """A stream without a socket, whose sends wait until they are allowed."""

    def __init__(self, allowed: float = 0) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.error: Exception | None = None
        self._allowed = trio.Semaphore(0)
        self.allow(int(allowed))

    def allow(self, sends: int) -> None:
        for _ in range(sends):
            self._allowed.release()

    async def send_all(self, data) -> None:
        if self.closed:
            raise trio.ClosedResourceError
        await self._allowed.acquire()
        if self.error is not None:
            raise self.error
        self.sent.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class SendOnly(trio.abc.SendStream):
    """A stream that can only send; closed when its room drops it."""

    def __init__(self) -> None:
        self.closed = False

    async def send_all(self, data) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()

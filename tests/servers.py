# Servers without sockets: apps that run against scripted connections and in memory.
from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from trio_upgrade import Limits, serve_listeners, serve_stream
from trio_upgrade.testing import ScriptedPeer, split_points

from .apps import drainable_app
from .recording import Recorder

if TYPE_CHECKING:
    from trio_upgrade import EndReason, Server


async def run_script(app, *packets: bytes, then="end", limits=None) -> ScriptedPeer:
    """Serve an app on a scripted connection to its end; return the script."""
    peer = ScriptedPeer(*packets, then=then)
    with trio.fail_after(60):
        await serve_stream(app, peer, limits=limits or Limits(), strict=True)

    assert peer.closed
    return peer


async def check_every_split(app, wire: bytes, expected: bytes) -> None:
    """The server sends the expected bytes, however the wire is cut into packets."""
    for packets in split_points(wire):
        peer = await run_script(app, *packets)

        assert peer.sent == expected, packets


async def feed_slowly(peer: ScriptedPeer, every: float, *packets: bytes) -> None:
    """Feed the packets to a script, after a pause of `every` seconds before each."""
    for packet in packets:
        await trio.sleep(every)
        peer.feed(packet)


class TimedCase:
    """One connection: what was sent, why it ended, and when."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.recorder = Recorder()

    async def serve(self, app, peer, every: float = 0, *packets: bytes) -> float:
        """Serve a scripted connection to its end; return the seconds that it took."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed_slowly, peer, every, *packets)
            await serve_stream(
                app, peer, limits=self.limits, observer=self.recorder, strict=True
            )
            nursery.cancel_scope.cancel()
        assert peer.closed
        return trio.current_time() - began

    @property
    def reason(self) -> EndReason:
        """Why the only connection ended."""
        (reason,) = self.recorder.reasons
        return reason


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose connections are memory streams, which have no socket."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](10)
        self.closed = False

    async def connect(self) -> trio.abc.Stream:
        """Return the client's end of a new connection."""
        near, far = trio.testing.memory_stream_pair()
        await self._send.send(far)
        return near

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class Scene:
    """A server that scripted connections join."""

    def __init__(self, nursery: trio.Nursery, limits: Limits) -> None:
        self.nursery = nursery
        self.limits = limits
        self.recorder = Recorder()
        self.listener = MemoryListener()
        self.server: Server
        self.over = trio.Event()

    async def open(self, application=drainable_app) -> Scene:
        """Start the server; return the scene."""
        self.server = await self.nursery.start(self._serve, application)
        return self

    async def _serve(self, application, *, task_status) -> None:
        await serve_listeners(
            application,
            [self.listener],
            limits=self.limits,
            observer=self.recorder,
            strict=True,
            task_status=task_status,
        )
        self.over.set()

    async def join(self, *script: bytes) -> ScriptedPeer:
        """Serve a script that stays open after its packets, and let it be read."""
        peer = ScriptedPeer(*script, then="silence")
        self.nursery.start_soon(
            partial(serve_stream, drainable_app, peer, server=self.server)
        )
        await trio.testing.wait_all_tasks_blocked()
        return peer

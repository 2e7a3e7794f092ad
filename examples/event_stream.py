# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Server-sent events, for EventSource in a browser or `curl -N`.

    python examples/event_stream.py [PORT]

``POST /`` sends its body, a line of text, to every client that listens by ``GET /``. A
client that leaves is forgotten at once: its block is cancelled, although it waits for an
event. PORT is 1337 unless given. Ctrl-C or SIGTERM drains the server.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from functools import partial

import trio

from trio_upgrade import Request, Response, Server, drain_on_signal, serve_tcp

# Events that wait for a client which reads slowly; it misses the others.
WAITING = 100
FIELDS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


class Events:
    """The clients that listen."""

    def __init__(self) -> None:
        self._listeners: set[trio.MemorySendChannel[bytes]] = set()

    async def app(self, request: Request) -> Response | None:
        """Publish an event, or stream the events."""
        if request.method == "POST":
            return Response(200, self._publish(await request.read(1000)))
        send, receive = trio.open_memory_channel[bytes](WAITING)
        self._listeners.add(send)
        print(f"{len(self._listeners)} listening", flush=True)
        try:
            async with request.cancelled_on_disconnect(), trio.open_nursery() as tasks:
                tasks.start_soon(self._end_in_drain, request.server, send)
                async with request.respond(200, FIELDS) as answer:
                    async for event in receive:
                        await answer.send(b"data: %b\n\n" % event)
                tasks.cancel_scope.cancel()
        finally:
            self._listeners.discard(send)
            print(f"{len(self._listeners)} listening", flush=True)
        return None

    async def _end_in_drain(self, server: Server, send: trio.abc.AsyncResource) -> None:
        # A drain would wait for the end of a stream that has none.
        await server.wait_draining()
        await send.aclose()

    def _publish(self, text: bytes) -> str:
        for send in self._listeners:
            with suppress(trio.WouldBlock, trio.ClosedResourceError):
                send.send_nowait(b" ".join(text.splitlines()))
        return f"{len(self._listeners)}\n"


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, Events().app, port, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)
        await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=3)


if __name__ == "__main__":
    logging.basicConfig()
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1337)

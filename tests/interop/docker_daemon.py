# A substitute for Docker's daemon, with the part of its API that ``docker exec`` needs.
# It runs the commands on this machine, without a container.
from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from trio_upgrade import Response, Upgrade, pipe

if TYPE_CHECKING:
    from trio_upgrade import Request, UpgradedStream

JSON = {"Content-Type": "application/json"}
# The oldest version that current clients support.
API_VERSION = "1.44"


@dataclass
class Exec:
    """A command that was created and may have been started."""

    config: dict[str, Any]
    status: int | None = None


@dataclass
class Daemon:
    """The app, and a record of its requests.

    Attributes:
        calls: Method and path of each request, without the version.
        sends_only: The bytes to send before the end of the connection, instead of
            running a command.
    """

    calls: list[str] = field(default_factory=list)
    sends_only: bytes | None = None
    execs: dict[str, Exec] = field(default_factory=dict)

    async def app(self, request: Request) -> Response | Upgrade:
        path = re.sub(r"^/v[0-9.]+", "", request.path)
        self.calls.append(f"{request.method} {path}")
        match [request.method, *path.split("/")[1:]]:
            case ["HEAD" | "GET", "_ping"]:
                body = b"" if request.method == "HEAD" else b"OK"
                return Response(200, body, {"Api-Version": API_VERSION})
            case [_, "containers", name, *_] if name != "box":
                return refuse(404, f"No such container: {name}")
            case ["GET", "containers", _, "json"]:
                return answer(200, {"Id": "b0", "State": {"Running": True}})
            case ["POST", "containers", _, "exec"]:
                number = str(len(self.execs))
                self.execs[number] = Exec(json.loads(await request.read()))
                return answer(201, {"Id": number})
            case ["POST", "exec", number, "start"]:
                return self.start(request, self.execs[number])
            case ["POST", "exec", _, "resize"]:
                return Response(200)
            case ["GET", "exec", number, "json"]:
                status = self.execs[number].status
                return answer(200, {"Running": status is None, "ExitCode": status})
        return refuse(404, f"page not found: {path}")

    def start(self, request: Request, started: Exec) -> Response | Upgrade:
        if started.config["Cmd"] == ["refused"]:
            return refuse(409, "the container is paused")
        assert list(request.upgrades) == ["tcp"]

        async def run(request: Request, stream: UpgradedStream, head: bytes) -> None:
            if self.sends_only is not None:
                return await stream.send_all(self.sends_only)
            run_it = run_on_terminal if started.config.get("Tty") else run_with_pipes
            # Set before the stream ends, since the client then asks for the status.
            started.status = await run_it(started.config, stream)

        content_type = {"Content-Type": "application/vnd.docker.raw-stream"}
        return Upgrade("tcp", run, content_type, reason="UPGRADED")


def answer(status: int, content: object) -> Response:
    return Response(status, json.dumps(content), JSON)


def refuse(status: int, message: str) -> Response:
    return answer(status, {"message": message})


async def run_with_pipes(config: dict[str, Any], stream: UpgradedStream) -> int:
    """Run a command and send its two outputs in frames."""
    lock = trio.Lock()

    async def send_frames(kind: int, source: trio.abc.ReceiveStream) -> None:
        async for chunk in source:
            async with lock:
                await stream.send_all(struct.pack(">B3xL", kind, len(chunk)) + chunk)

    attached = config["AttachStdin"]
    process = await trio.lowlevel.open_process(
        config["Cmd"],
        stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with trio.open_nursery() as nursery:
        if process.stdin is not None:
            nursery.start_soon(feed, stream, process.stdin)
        async with trio.open_nursery() as outputs:
            outputs.start_soon(send_frames, 1, process.stdout)
            outputs.start_soon(send_frames, 2, process.stderr)
        nursery.cancel_scope.cancel()
    return await process.wait()


async def feed(stream: UpgradedStream, sink: trio.abc.SendStream) -> None:
    async with sink:
        # The command may end before it has read all of its input.
        with suppress(trio.BrokenResourceError):
            await pipe(stream, sink)


async def run_on_terminal(config: dict[str, Any], stream: UpgradedStream) -> int:
    """Run a command on a terminal and send the terminal's output without frames."""
    ours, theirs = os.openpty()
    terminal = trio.lowlevel.FdStream(ours)
    try:
        process = await trio.lowlevel.open_process(
            config["Cmd"], stdin=theirs, stdout=theirs, stderr=theirs
        )
    finally:
        os.close(theirs)
    async with terminal, trio.open_nursery() as nursery:
        if config["AttachStdin"]:
            nursery.start_soon(feed_terminal, stream, terminal)
        # On Linux reading fails when no process has the other side open any more.
        with suppress(trio.BrokenResourceError):
            async for chunk in terminal:
                await stream.send_all(chunk)
        nursery.cancel_scope.cancel()
    return await process.wait()


async def feed_terminal(stream: UpgradedStream, terminal: trio.abc.SendStream) -> None:
    async for chunk in stream:
        await terminal.send_all(chunk)

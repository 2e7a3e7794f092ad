# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Run a command in a container like ``docker exec -i``, with Docker's own protocol.

    echo hello | python examples/docker_exec.py [-H unix://PATH] CONTAINER COMMAND ...

The connection that starts the command is upgraded (Docker says "hijacked"). From then on
it carries the command's standard input one way, and frames with its output and errors the
other way. The end of our input is sent as a half-close. The exit status is the command's.
PATH is /var/run/docker.sock unless given; Podman's socket works too.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from typing import Any
from urllib.parse import quote

import trio

from trio_upgrade import (
    EndOfStream,
    OpenError,
    UpgradedStream,
    UpgradeRefused,
    open_connection,
    open_upgrade,
)

JSON = {"Content-Type": "application/json"}
# Precedes each piece of output: 1 for standard output or 2 for errors, and the length.
FRAME = struct.Struct(">B3xL")
# The longest piece to print at once.
MOST_BYTES = 65536


def to_url(path: str) -> str:
    """Return the URL of a server on a Unix socket."""
    return f"http+unix://{quote(path, safe='')}"


async def call(
    path: str, method: str, target: str, content: object = None
) -> dict[str, Any]:
    """Make one call of the daemon's API, and return the JSON of its response."""
    body = b"" if content is None else json.dumps(content).encode()
    async with await open_connection(to_url(path)) as connection:
        response = await connection.request(method, target, headers=JSON, body=body)
        answer: dict[str, Any] = json.loads(await response.read())
    if response.status >= 400:
        sys.exit(answer["message"])
    return answer


async def run(path: str, container: str, command: list[str]) -> int:
    """Run the command to its end, and return its status."""
    attach = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    target = f"/containers/{quote(container, safe='')}/exec"
    created = await call(path, "POST", target, {**attach, "Cmd": command})
    target = f"/exec/{created['Id']}"
    upgraded = await open_upgrade(
        to_url(path) + f"{target}/start",
        "tcp",
        method="POST",
        headers=JSON,
        body=json.dumps({"Detach": False, "Tty": False}).encode(),
    )
    async with upgraded as (_response, stream, _head), trio.open_nursery() as nursery:
        nursery.start_soon(send_input, stream)
        await print_output(stream)
        nursery.cancel_scope.cancel()
    state = await call(path, "GET", f"{target}/json")
    if state["Running"]:
        sys.exit("the connection has ended before the command")
    status: int = state["ExitCode"]
    return status


async def send_input(stream: UpgradedStream) -> None:
    try:
        # If the command ends first, the thread is abandoned: a read of a keyboard cannot
        # be cancelled.
        while chunk := await trio.to_thread.run_sync(
            os.read, sys.stdin.fileno(), 65536, abandon_on_cancel=True
        ):
            await stream.send_all(chunk)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass  # The command ended before it had read all of its input.


async def print_output(stream: UpgradedStream) -> None:
    while True:
        try:
            header = await stream.receive_exactly(FRAME.size)
        except EndOfStream as exc:
            if exc.available == 0:
                return
            sys.exit("the daemon ended the stream in the middle of a frame")
        kind, left = FRAME.unpack(header)
        output = sys.stderr.buffer if kind == 2 else sys.stdout.buffer
        # Not receive_exactly(): a frame may be long.
        while left:
            piece = await stream.receive_some(min(left, MOST_BYTES))
            if not piece:
                sys.exit("the daemon ended the stream in the middle of a frame")
            output.write(piece)
            output.flush()
            left -= len(piece)


async def main(path: str, container: str, command: list[str]) -> int:
    try:
        return await run(path, container, command)
    except UpgradeRefused as exc:
        sys.exit(f"{exc}\n{exc.response.body.decode(errors='replace')}")
    except (OSError, OpenError) as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", "--host", default="unix:///var/run/docker.sock")
    parser.add_argument("container")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    socket_path = given.host.removeprefix("unix://")
    sys.exit(trio.run(main, socket_path, given.container, given.command))

# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Run a command in a container like ``docker exec -i``, with Docker's own protocol.

    echo hello | python examples/docker_exec.py [-H HOST] CONTAINER COMMAND ...

The connection that starts the command is upgraded (Docker says "hijacked"). From then on
it carries the command's standard input one way, and frames with its output and errors the
other way. The end of our input is sent as a half-close, over TLS as well: Docker goes on
reading and sending after it. The exit status is the command's.

HOST is unix://PATH, by default unix:///var/run/docker.sock (Podman's socket works too),
or tcp://NAME:PORT, which is TLS with --tlscacert FILE, the authorities to trust. Docker's
client has the same two options.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import struct
import sys
from typing import Any, NamedTuple
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


class Daemon(NamedTuple):
    """Where the daemon is, and whom to trust if it is reached over TLS."""

    url: str
    ssl_context: ssl.SSLContext | None


def find_daemon(host: str, authorities: str | None) -> Daemon:
    """Return the daemon that Docker's client calls by this HOST."""
    kind, _, place = host.partition("://")
    if kind == "unix":
        return Daemon(f"http+unix://{quote(place, safe='')}", None)
    if authorities is None:
        return Daemon(f"http://{place}", None)
    context = ssl.create_default_context(cafile=authorities)
    return Daemon(f"https://{place}", context)


async def call(
    daemon: Daemon, method: str, target: str, content: object = None
) -> dict[str, Any]:
    """Make one call of the daemon's API, and return the JSON of its response."""
    body = b"" if content is None else json.dumps(content).encode()
    url, context = daemon
    async with await open_connection(url, ssl_context=context) as connection:
        response = await connection.request(method, target, headers=JSON, body=body)
        answer: dict[str, Any] = json.loads(await response.read())
    if response.status >= 400:
        sys.exit(answer["message"])
    return answer


async def run(daemon: Daemon, container: str, command: list[str]) -> int:
    """Run the command to its end, and return its status."""
    attach = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    target = f"/containers/{quote(container, safe='')}/exec"
    created = await call(daemon, "POST", target, {**attach, "Cmd": command})
    target = f"/exec/{created['Id']}"
    upgraded = await open_upgrade(
        f"{daemon.url}{target}/start",
        "tcp",
        method="POST",
        headers=JSON,
        body=json.dumps({"Detach": False, "Tty": False}).encode(),
        ssl_context=daemon.ssl_context,
    )
    async with upgraded as (_response, stream, _head), trio.open_nursery() as nursery:
        nursery.start_soon(send_input, stream)
        await print_output(stream)
        nursery.cancel_scope.cancel()
    state = await call(daemon, "GET", f"{target}/json")
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


async def main(daemon: Daemon, container: str, command: list[str]) -> int:
    try:
        return await run(daemon, container, command)
    except UpgradeRefused as exc:
        sys.exit(f"{exc}\n{exc.response.body.decode(errors='replace')}")
    except (OSError, OpenError) as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", "--host", default="unix:///var/run/docker.sock")
    parser.add_argument("--tlscacert")
    parser.add_argument("container")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    where = find_daemon(given.host, given.tlscacert)
    sys.exit(trio.run(main, where, given.container, given.command))

# Programs that run during a test.  None outlives the test: leaving the scope kills a
# program that has not ended by itself.
from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

HOST = "127.0.0.1"
# Seconds for one test.  No test needs as much; it only ends a test that hangs.
BOUND = 60
EXAMPLES = Path(__file__).parents[2] / "examples"
_SCRIPTS = Path(__file__).parent
# No program writes a longer line, in bytes.
_LINE_BYTES = 64 * 1024


class Program(trio.abc.AsyncResource):
    """A running program, whose output is read line by line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._read = bytearray()

    async def read_line(self) -> str:
        """Read the next line of the output; empty at the end."""
        return (await self.read_until(b"\n")).decode().removesuffix("\n")

    async def read_json(self) -> Any:
        """Read the next line, which is a JSON value."""
        return json.loads(await self.read_line())

    async def read_until(self, marker: bytes) -> bytes:
        """Read the output up to and including a marker, or to the end."""
        assert self.process.stdout is not None
        while marker not in self._read:
            assert len(self._read) < _LINE_BYTES
            chunk = await self.process.stdout.receive_some()
            if not chunk:
                break
            self._read += chunk
        before, found, after = self._read.partition(marker)
        self._read = after
        return bytes(before + found)

    async def aclose(self) -> None:
        """Kill the program if it still runs, and close the pipes."""
        with suppress(ProcessLookupError):
            self.process.kill()
        with trio.CancelScope(shield=True):
            await self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    await pipe.aclose()


async def start(*command: str, stderr: int | None = None) -> Program:
    """Start a program; the result is an async context manager.

    Args:
        command: The program and its arguments.
        stderr: ``subprocess.PIPE`` to read it; None to share ours.
    """
    pipe = subprocess.PIPE
    return Program(
        await trio.lowlevel.open_process(
            command, stdin=pipe, stdout=pipe, stderr=stderr
        )
    )


async def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with any status, and capture its output."""
    return await trio.run_process(
        command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
    )


def node(script: str, *arguments: object) -> list[str]:
    """Return the command that runs one of the scripts in this folder."""
    return ["node", str(_SCRIPTS / script), *map(str, arguments)]


def example(name: str, *arguments: object) -> list[str]:
    """Return the command that runs an example; -X dev reports what is left open."""
    return [sys.executable, "-X", "dev", str(EXAMPLES / name), *map(str, arguments)]


async def read_url(server: Program) -> str:
    """Read the URL that an example, or the command, prints when it listens."""
    words, _, url = (await server.read_line()).rpartition(" ")

    assert words in ("listening at", "")
    assert "://" in url
    return url


async def read_port_url(server: Program) -> str:
    """Return the URL of a Node server, which prints its port when it listens."""
    report = await server.read_json()
    return f"http://{HOST}:{report['port']}"


async def wait_listening(port: int) -> None:
    """Wait until a program listens that does not report it, by trying to connect."""
    while True:
        try:
            stream = await trio.open_tcp_stream(HOST, port)
        except OSError:
            await trio.sleep(0.01)
        else:
            await stream.aclose()
            return

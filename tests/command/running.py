# The program run inside the test's process, so that its coverage is measured: with pipes
# as standard streams, and servers or clients in a thread of their own.
from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from trio_upgrade import open_server, serve_tcp
from trio_upgrade._command.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"


class Result(NamedTuple):
    """How the program ended, and what it said."""

    status: int
    stdout: bytes
    stderr: str


class Streams:
    """Pipes instead of standard input and output, and a text instead of errors."""

    def __init__(self, stdin: bytes) -> None:
        self.stdout, self._stdout = os.pipe()
        self._stdin, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        self.stderr = io.StringIO()
        self.read = b""

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Be the standard streams of this process for as long as a block runs."""
        before = os.dup(0), os.dup(1), sys.stdout, sys.stderr
        os.dup2(self._stdin, 0)
        os.dup2(self._stdout, 1)
        os.close(self._stdin)
        os.close(self._stdout)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), self.stderr
        try:
            yield
        finally:
            sys.stdout.close()
            os.dup2(before[0], 0)
            os.dup2(before[1], 1)
            os.close(before[0])
            os.close(before[1])
            sys.stdout, sys.stderr = before[2:]

    def read_line(self) -> str:
        """Read a line of standard output; empty at the end."""
        while b"\n" not in self.read:
            chunk = os.read(self.stdout, 4096)
            if not chunk:
                break
            self.read += chunk
        line, _, self.read = self.read.partition(b"\n")
        return line.decode()

    def read_url(self) -> str:
        """Read the URL that the program prints when it listens."""
        url = self.read_line()
        assert "://" in url, self.stderr.getvalue()
        return url

    def read_rest(self) -> bytes:
        """Read standard output to its end, and close it."""
        with open(self.stdout, "rb") as file:
            return self.read + file.read()


def run(*words: object, stdin: bytes = b"") -> Result:
    """Run the program with this standard input, which has to fit into a pipe."""
    streams = Streams(stdin)
    with streams.replacing():
        status = main([str(word) for word in words])
    return Result(status, streams.read_rest(), streams.stderr.getvalue())


def run_beside(*words: object, act: Callable[[Streams], object]) -> Result:
    """Run the program in this thread, and a function beside it in another one."""
    streams = Streams(b"")
    failures: list[BaseException] = []

    def run_act() -> None:
        try:
            act(streams)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run_act, daemon=True)
    with streams.replacing():
        thread.start()
        status = main([str(word) for word in words])
    thread.join(30)
    for failure in failures:
        raise failure
    return Result(status, streams.read_rest(), streams.stderr.getvalue())


@contextmanager
def fresh_logging() -> Iterator[None]:
    """Let the program set up logging for as long as a block runs, as in a new process."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.handlers = []
    try:
        yield
    finally:
        root.level, root.handlers = level, handlers


@contextmanager
def serving(
    app: Any, serve: Any = serve_tcp, *arguments: Any, **options: Any
) -> Iterator[str]:
    """Run a server in a thread, and give its URL."""
    started = threading.Event()
    found: list[Any] = []
    given = arguments or (0,)
    if serve is serve_tcp:
        options = {"host": HOST, **options}

    async def run_server() -> None:
        async with open_server(serve, app, *given, **options) as server:
            stop = trio.Event()
            found.extend([server.url, trio.lowlevel.current_trio_token(), stop])
            started.set()
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(run_server,), daemon=True)
    thread.start()
    assert started.wait(10)
    url, token, stop = found
    with ExitStack() as stack:
        stack.callback(thread.join, 10)
        stack.callback(token.run_sync_soon, stop.set)
        yield url

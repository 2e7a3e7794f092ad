"""Worker processes, and their replacement."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

import trio

from .load import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

WORKER = str(Path(__file__).with_name("worker.py"))
FORKING = str(Path(__file__).with_name("forking.py"))
GRACE = 5.0
# Seconds that a process may need to end, besides its grace.
SLACK = 5.0


@final
class Worker(trio.abc.AsyncResource):
    """A running worker."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def drain(self, *, blocked: bool = False) -> None:
        """Send SIGTERM, and wait for the end.

        Args:
            blocked: Whether to block the worker first.

        Raises:
            RuntimeError: It ended with an error.
            trio.TooSlowError: It did not end within its grace.
        """
        if blocked:
            self.process.send_signal(signal.SIGUSR1)
        self.process.terminate()
        with trio.fail_after(GRACE + SLACK):
            status = await self.process.wait()
        if status:
            raise RuntimeError(f"a worker ended with status {status}")

    async def aclose(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        with trio.CancelScope(shield=True):
            await self.process.wait()
            assert self.process.stdout is not None
            await self.process.stdout.aclose()


async def start_worker(
    kind: str, number: int, grace: float = GRACE, pass_fds: Iterable[int] = ()
) -> Worker:
    """Start a worker and wait until it accepts connections; see worker.py."""
    return await _start([WORKER, kind, str(number), str(grace)], pass_fds)


async def start_forking(kind: str) -> Worker:
    """Start two workers by run_workers(); the process is their supervisor's."""
    return await _start([FORKING, kind, str(GRACE)])


async def _start(words: list[str], pass_fds: Iterable[int] = ()) -> Worker:
    process = await trio.lowlevel.open_process(
        [sys.executable, *words], stdout=subprocess.PIPE, pass_fds=[*pass_fds]
    )
    assert process.stdout is not None
    line = bytes(await process.stdout.receive_some())
    worker = Worker(process, int(line or b"0"))
    if not line:
        await worker.aclose()
        raise RuntimeError("a worker did not start")
    return worker


def find_children(process: trio.Process) -> list[int]:
    """Return the process ids of a supervisor's workers, the oldest first; Linux."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(map(int, path.read_text().split()))


@final
class Place(trio.abc.AsyncResource):
    """A port, and the worker that serves it at the moment.

    Args:
        port: The port.
        sock: The listening socket that is handed from worker to worker; None if each
            worker opens one of its own, with ``reuse_port``.
    """

    def __init__(self, port: int, sock: socket.socket | None) -> None:
        self.port = port
        self._sock = sock
        self._worker: Worker | None = None

    async def replace(self, *, blocked: bool = False) -> None:
        """Start a new worker, and only then drain the old one, if there is one."""
        old = self._worker
        if self._sock is None:
            self._worker = await start_worker("share", self.port)
        else:
            number = self._sock.fileno()
            self._worker = await start_worker("inherit", number, pass_fds=[number])
        if old is not None:
            async with old:
                await old.drain(blocked=blocked)

    async def aclose(self) -> None:
        """Kill the worker."""
        if self._worker is not None:
            await self._worker.aclose()


@asynccontextmanager
async def open_places(number: int, *, inherit: bool) -> AsyncIterator[list[Place]]:
    """Start workers in so many places.

    Args:
        number: How many.
        inherit: Whether each is a listening socket of its own, which stays open while
            workers come and go. Otherwise all are one port, which the workers share.
    """
    async with AsyncExitStack() as stack:
        places: list[Place] = []
        if inherit:
            for _ in range(number):
                sock = stack.enter_context(
                    socket.create_server((HOST, 0), backlog=socket.SOMAXCONN)
                )
                places.append(Place(sock.getsockname()[1], sock))
        else:
            # Bound but not listening: it keeps the port, and gets no connection.
            reserved = stack.enter_context(socket.socket())
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind((HOST, 0))
            places += [Place(reserved.getsockname()[1], None) for _ in range(number)]
        for place in places:
            await stack.enter_async_context(place)
            await place.replace()
        yield places

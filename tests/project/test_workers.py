"""examples/workers.py: several processes on one port, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import open_connection, open_upgrade

from ..interop.programs import BOUND, Program, example, read_url, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs fork(2), and looks into /proc: only on Linux"
)


@asynccontextmanager
async def running(*before: str) -> AsyncIterator[tuple[Program, str]]:
    """Run the example with three workers; give the program and its URL."""
    command = example("workers.py", 0, 3)
    async with await start(*before, *command, stderr=subprocess.PIPE) as program:
        yield program, await read_url(program)


async def ask(url: str) -> int:
    """Return the process id of a worker."""
    async with await open_connection(url) as connection:
        response = await connection.request("GET", "/")
        return int(await response.read())


async def find_workers(url: str) -> set[int]:
    """Return the process ids of all workers: ask until all have answered."""
    found: set[int] = set()
    for _ in range(1000):
        found.add(await ask(url))
        if len(found) == 3:
            return found
    raise AssertionError(f"only {found} answer")


async def wait_refused(url: str) -> None:
    """Return when no process accepts any more."""
    port = int(url.rpartition(":")[2])
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            return
        await stream.aclose()


async def read_errors(program: Program) -> str:
    """Return standard error up to its end, when the last process has closed it."""
    assert program.process.stderr is not None
    return b"".join([bytes(chunk) async for chunk in program.process.stderr]).decode()


async def test_connections_are_spread_and_drained() -> None:
    """Each worker gets connections; after SIGTERM a live one may end; the status is 0."""
    with trio.fail_after(BOUND):
        async with running() as (program, url):
            workers = await find_workers(url)
            async with await open_upgrade(url, "echo") as (_, stream, _):
                program.process.terminate()
                await wait_refused(url)
                await stream.send_all(b"still here")
                assert await stream.receive_some() == b"still here"
            status = await program.process.wait()
            errors = await read_errors(program)

    assert program.process.pid not in workers
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_the_grace(number: signal.Signals) -> None:
    """The second signal resets a live connection; the status stays 0."""
    with trio.fail_after(BOUND):
        async with running() as (program, url):
            async with await open_upgrade(url, "echo") as (_, stream, _):
                program.process.send_signal(number)
                await wait_refused(url)
                program.process.send_signal(number)
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
                status = await program.process.wait()
                errors = await read_errors(program)

    assert (status, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signal_to_all_processes(number: signal.Signals) -> None:
    """A signal that reaches the workers, too, as Ctrl-C does, costs no connection."""
    with trio.fail_after(BOUND):
        async with running("setsid") as (program, url):
            async with await open_upgrade(url, "echo") as (_, stream, _):
                os.killpg(program.process.pid, number)
                if number is not signal.SIGHUP:
                    await wait_refused(url)
                for _ in range(10):
                    await stream.send_all(b"still here")
                    assert await stream.receive_some() == b"still here"
                    await trio.sleep(0.01)
            if number is signal.SIGHUP:
                # The others have ended it already, and would not be expected again.
                program.process.terminate()
            status = await program.process.wait()
            errors = await read_errors(program)

    assert (status, errors) == (0, "")


async def test_killed_worker_is_replaced() -> None:
    """A worker that is killed is replaced within a second, and the others go on."""
    with trio.fail_after(BOUND):
        async with running() as (program, url):
            workers = await find_workers(url)
            async with await open_connection(url) as connection:
                owner = int(await (await connection.request("GET", "/")).read())
                victim = min(workers - {owner})
                os.kill(victim, signal.SIGKILL)
                with trio.fail_after(1):
                    while await ask(url) in workers:
                        pass
                again = await connection.request("GET", "/")
                assert int(await again.read()) == owner
            program.process.terminate()
            status = await program.process.wait()
            errors = await read_errors(program)

    assert status == 0
    assert errors == (
        f"ERROR:trio_upgrade.workers:worker {victim} ended by itself, "
        "killed by SIGKILL\n"
    )


async def test_workers_share_memory() -> None:
    """Each worker has at most 10 MB for itself: it has imported nothing."""
    with trio.fail_after(BOUND):
        async with running() as (_, url):
            for worker in await find_workers(url):
                rollup = await trio.Path(f"/proc/{worker}/smaps_rollup").read_text()
                sizes = re.findall(r"^Private_\w+: +(\d+) kB$", rollup, re.MULTILINE)
                assert sum(map(int, sizes)) <= 10 * 1024


async def test_no_orphan() -> None:
    """If the main process is killed, the workers end by themselves."""
    with trio.fail_after(BOUND):
        async with running() as (program, url):
            await find_workers(url)
            program.process.kill()
            # The workers have standard error, too, so it ends with the last worker.
            errors = await read_errors(program)
            await wait_refused(url)

    assert errors == ""


async def test_port_in_use() -> None:
    """A port that another program uses is an error at once."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with trio.fail_after(BOUND):
            command = example("workers.py", port, 2)
            async with await start(*command, stderr=subprocess.PIPE) as program:
                status = await program.process.wait()
                errors = await read_errors(program)

    assert status == 1
    assert "in use" in errors

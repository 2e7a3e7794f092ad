"""The process of a worker, here without a fork: the test lends it its own."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from trio_upgrade import Worker
from trio_upgrade._workers.child import become_worker, flush_output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs fork(2): not on Windows"
)
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The handlers and the mask are as before after the test."""
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(main: Callable[[Worker], Awaitable[None]]) -> tuple[int, bytes]:
    """Run a worker; return its status and what it has said to its supervisor."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            status = become_worker(Worker(0, [], theirs, grace=1), main, set())
        return status, ours.recv(100)


async def return_nothing(worker: Worker) -> None:
    pass


def test_normal_end() -> None:
    """If main returns, the status is 0."""
    assert run(return_nothing) == (0, b"")


@pytest.mark.parametrize(
    ("code", "status"), [(None, 0), (0, 0), (7, 7), ("out of luck", 1)]
)
def test_exit(code: object, status: int) -> None:
    """SystemExit in main gives the status, as it does elsewhere in Python."""

    async def main(worker: Worker) -> None:
        raise SystemExit(code)

    assert run(main) == (status, b"")


def test_error(caplog: pytest.LogCaptureFixture) -> None:
    """An exception is logged with its traceback, and the status is 1."""

    async def main(worker: Worker) -> None:
        raise ValueError("out of main")

    assert run(main) == (1, b"")
    (record,) = caplog.records
    assert record.name == "trio_upgrade.workers"
    assert record.getMessage() == f"error in worker {os.getpid()}"
    assert "ValueError: out of main" in caplog.text


def test_no_async_function(caplog: pytest.LogCaptureFixture) -> None:
    """A main that is no async function is such an error."""
    assert run(lambda worker: None) == (1, b"")  # type: ignore[arg-type, return-value]
    assert "TypeError" in caplog.text


def test_signals() -> None:
    """SIGTERM asks for a replacement; SIGINT and SIGHUP, meant for others, do nothing."""

    async def main(worker: Worker) -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)

    assert run(main) == (0, b"replace\n")


def test_signal_before_trio_runs() -> None:
    """A signal that came while all were blocked is handled as any other."""
    # To this thread: others, idle ones of earlier tests, have not blocked it.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    assert run(return_nothing) == (0, b"replace\n")


def test_programs_of_a_worker_can_be_interrupted() -> None:
    """No signal is ignored or blocked, which a program started here would inherit."""
    found: list[object] = []

    async def main(worker: Worker) -> None:
        found.extend(signal.getsignal(number) for number in HANDLED)
        found.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    run(main)

    assert signal.SIG_IGN not in found
    assert found[-1] == set()


def test_signals_of_the_supervisor_are_not_reported_here() -> None:
    """The descriptor that Python writes signals to is no longer the supervisor's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        try:
            run(return_nothing)
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(BlockingIOError):
                ours.recv(1)
        finally:
            signal.set_wakeup_fd(before)


def test_output_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was printed is written before a fork, wherever it goes."""
    below = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(below))
    sys.stdout.write("once")
    assert below.getvalue() == b""
    monkeypatch.setattr(sys, "stderr", None)
    flush_output()

    assert below.getvalue() == b"once"
    sys.stdout.close()
    flush_output()

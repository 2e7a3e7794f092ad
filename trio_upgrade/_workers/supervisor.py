# The process that forks the workers.  It never runs Trio and has no thread: a fork(2) of
# such a process is a working one, at any time.  It waits in one place, for a signal, for
# a word of a worker, or for the time of the next step; the fleet decides about all steps.
#
# Handlers of signals do nothing here, since one that logs or forks can meet a lock that
# the code below holds (gunicorn #3004, #3198).  Python itself writes each signal's number
# to a socket, which is polled with the others.
from __future__ import annotations

import gc
import math
import os
import select
import signal
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, final

from .child import become_worker, do_nothing, flush_output, leave
from .fleet import (
    LOGGER,
    Drain,
    EndGrace,
    Fleet,
    Kill,
    Leave,
    Start,
    Vacate,
)
from .worker import DRAIN, DRAIN_LAST, END_GRACE, LEAVE, READY, REPLACE, Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from .fleet import Step
    from .places import Places

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_RECEIVE_BYTES = 4096
# What waitpid(2) cannot say any more, if other code has waited for the process.
_UNKNOWN_STATUS = 255
# In milliseconds, 24 days: poll(2) takes an int of C.
_LONGEST_POLL = 2**31 - 1


@final
class Supervisor:
    """Runs workers to their end.

    Args:
        main: The user's function.
        places: The listening sockets; they are owned from now on.
        fleet: The decisions.
        grace: Seconds that a worker has to drain; infinity for no limit.
        jitter: Seconds over which a worker tells its connections of a drain.
        on_ready: Called with the URL of the first worker, when all are ready.
    """

    def __init__(
        self,
        main: Callable[[Worker], Awaitable[None]],
        places: Places,
        fleet: Fleet,
        *,
        grace: float,
        jitter: float | None,
        on_ready: Callable[[str], object] | None,
    ) -> None:
        self._main = main
        self._places = places
        self._fleet = fleet
        self._grace = grace
        self._jitter = jitter
        self._on_ready = on_ready
        self._url = ""
        self._channels: dict[int, Channel] = {}
        # Python writes the number of each signal into the second one.
        self._wakeup, self._signalled = socket.socketpair()
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)

    def run(self) -> bool:
        """Run the workers to their end; return whether each ended as it was told."""
        frozen_before = gc.get_freeze_count()
        try:
            with self._receiving_signals():
                try:
                    self._run()
                except BaseException:
                    # Of the user's function on_ready, most likely.
                    self._fleet.fail()
                    self._run()
                    raise
        finally:
            self._places.close()
            for sock in (self._wakeup, self._signalled):
                sock.close()
            if not frozen_before:
                gc.unfreeze()
        return not self._fleet.failed

    @contextmanager
    def _receiving_signals(self) -> Generator[None]:
        # Not blocked in between, so one that comes before is handled as it was before.
        before = signal.set_wakeup_fd(
            self._signalled.fileno(), warn_on_full_buffer=False
        )
        handlers = {
            number: signal.signal(number, do_nothing) or signal.SIG_DFL
            for number in SIGNALS
        }
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)

    def _run(self) -> None:
        while True:
            for step in self._fleet.decide(time.monotonic()):
                self._take(step)
            # Only now: a step that fails can be the end.
            if self._fleet.is_over:
                return
            self._wait()
            self._receive_signals()
            for pid in [*self._channels]:
                self._listen_to(pid)
                self._reap(pid)

    ################################################################
    # Steps
    ################################################################

    def _take(self, step: Step) -> None:
        match step:
            case Start():
                try:
                    self._start(step)
                except OSError as exc:
                    self._fleet.not_started(step, str(exc), time.monotonic())
            case Leave(pid):
                self._channels[pid].send(LEAVE)
            case Drain(pid, last):
                if last:
                    # First of all, so that connections are refused as soon as the
                    # workers have closed theirs, and do not wait in a backlog.
                    self._places.close()
                self._channels[pid].send(DRAIN_LAST if last else DRAIN)
            case EndGrace(pid):
                self._channels[pid].send(END_GRACE)
            case Kill(pid):
                os.kill(pid, signal.SIGKILL)
            case Vacate(place):
                self._places.vacate(place)
            case _:  # Announce, the only other one
                LOGGER.info("all workers are ready: %s", self._url)
                if self._on_ready is not None:
                    self._on_ready(self._url)

    def _start(self, step: Start) -> None:
        listeners = self._places.open(step.place)
        ours, theirs = socket.socketpair()
        flush_output()
        # The garbage collector of the worker would otherwise write to every object of
        # ours, and so make a copy of every page.
        gc.freeze()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if not pid:  # pragma: no cover  (os._exit() loses what was measured)
                status = 1
                try:
                    self._forget(ours, step.place)
                    worker = Worker(
                        step.place,
                        listeners,
                        theirs,
                        grace=self._grace,
                        jitter=self._jitter,
                    )
                    status = become_worker(worker, self._main, mask)
                finally:
                    leave(status)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._channels[pid] = Channel(ours)
        self._fleet.started(step, pid, time.monotonic())

    def _forget(
        self, ours: socket.socket, place: int
    ) -> None:  # pragma: no cover  (as above)
        # A copy of our end of a channel would hide our death from its worker, and a copy
        # of another place's listening socket would collect connections for nothing.
        self._places.close(but=place)
        for sock in (ours, self._wakeup, self._signalled):
            sock.close()
        for channel in self._channels.values():
            channel.close()

    ################################################################
    # What happened
    ################################################################

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        for channel in self._channels.values():
            if not channel.is_over:
                poll.register(channel, select.POLLIN)
        deadline = self._fleet.next_deadline
        if deadline == math.inf:
            poll.poll()
        else:
            # Rounded up: a poll that ends too early would be made again.
            timeout = math.ceil(1000 * (deadline - time.monotonic()))
            poll.poll(min(max(0, timeout), _LONGEST_POLL))

    def _receive_signals(self) -> None:
        numbers = b""
        with suppress(BlockingIOError):
            numbers = self._wakeup.recv(_RECEIVE_BYTES)
        for number in numbers:
            if number == signal.SIGHUP:
                LOGGER.info("the workers are replaced")
                self._fleet.restart()
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._fleet.stop(time.monotonic())

    def _listen_to(self, pid: int) -> None:
        for line in self._channels[pid].receive_lines():
            if line == REPLACE:
                self._fleet.replace(pid)
            else:
                self._url = self._url or line.removeprefix(READY).decode()
                self._fleet.ready(pid)

    def _reap(self, pid: int) -> None:
        # Not of any process: the user's code may have others, and wait for them.
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended, code = pid, _UNKNOWN_STATUS
        else:
            code = os.waitstatus_to_exitcode(status)
        if ended:
            # It may have said something since we listened.
            self._listen_to(pid)
            self._channels.pop(pid).close()
            self._fleet.ended(pid, code, time.monotonic())


@final
class Channel:
    """Our end of the sockets between a worker and us.

    Attributes:
        is_over: Whether the worker has closed its end.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.is_over: bool = False
        self._sock = sock
        self._received = b""

    def fileno(self) -> int:
        """Return the descriptor, to be polled."""
        return self._sock.fileno()

    def send(self, order: bytes) -> None:
        """Send an order, unless the worker has ended."""
        with suppress(OSError):
            self._sock.send(order)

    def receive_lines(self) -> list[bytes]:
        """Receive the lines that the worker has sent since."""
        received = b""
        with suppress(BlockingIOError, ConnectionResetError):
            received = self._sock.recv(_RECEIVE_BYTES)
            self.is_over = not received
        *lines, self._received = (self._received + received).split(b"\n")
        return lines

    def close(self) -> None:
        """Close it."""
        self._sock.close()

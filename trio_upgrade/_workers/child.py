# The process of a worker, from fork(2) to its end.
from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import trio

from .fleet import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .worker import Worker


def become_worker(
    worker: Worker, main: Callable[[Worker], Awaitable[None]], mask: set[int]
) -> int:
    """Make a worker of this process, run it, and return its exit status.

    Args:
        worker: The worker. It has closed what belongs to the supervisor.
        main: The user's function.
        mask: The signals that are blocked while it runs. Until now all that the
            supervisor handles are blocked.
    """
    signal.set_wakeup_fd(-1)
    # For the supervisor to decide; here they would cost connections.  A function, because
    # SIG_IGN would also hold for every program that the worker starts.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, do_nothing)

    def handle_term(*_: object) -> None:
        worker.ask_for_replacement()

    signal.signal(signal.SIGTERM, handle_term)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        trio.run(worker.run, main)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        LOGGER.exception("error in worker %d", os.getpid())
        return 1
    return 0


def do_nothing(*_: object) -> None:
    """Handle a signal: it only has to wake up, or to be harmless."""


def leave(
    status: int,
) -> NoReturn:  # pragma: no cover  (and so would be the whole test)
    """End this process, without a step back into what its parent was doing.

    So the functions of :mod:`atexit` do not run: they are the parent's.
    """
    with suppress(Exception):
        logging.shutdown()
    flush_output()
    os._exit(status)


def flush_output() -> None:
    """Write out what standard output and error hold back.

    Before fork(2), as otherwise each process would write it once more.
    """
    for stream in (sys.stdout, sys.stderr):
        # AttributeError: it is None.  OSError, ValueError: it is closed.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()

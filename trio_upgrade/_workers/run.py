# run_workers(): its arguments, and the parts that it is made of.
from __future__ import annotations

import errno
import math
import os
import threading
from typing import TYPE_CHECKING, cast

import trio

from .._errors import UsageError
from .._server.arguments import check_backlog, check_host, check_listeners, check_port
from .._server.state import check_jitter
from .._streams.socket_listener import DirectSocketListener, share_listener
from .._streams.tcp_listeners import open_tcp_listeners_outside_trio
from .._util import check_seconds, name_kind, public

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .worker import Worker

# A worker that imports or connects for longer than that is more likely stuck.
_READY_SECONDS = 60.0


@public
def run_workers(
    main: Callable[[Worker], Awaitable[None]],
    *,
    workers: int,
    grace: float | None,
    delay: float = 0,
    jitter: float | None = None,
    port: int | None = None,
    host: str | bytes | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] = (),
    ready_timeout: float | None = _READY_SECONDS,
    on_ready: Callable[[str], object] | None = None,
) -> int:
    """Serve in several processes, until told to stop; for the end of a main program.

    ::

        async def main(worker):
            await worker.serve(app)

        sys.exit(run_workers(main, workers=4, grace=10, port=1337))

    This process opens the listening sockets, forks the workers, and replaces those that
    die. It runs no Trio, only ``main`` does, in each worker. Import before the call what
    the workers need: they then share its memory. What the call leaves open or running is
    inherited by the workers as fork(2) does it, and threads are not.

    Signals to this process: SIGTERM and SIGINT drain all workers, and a second one ends
    the delay and their grace. SIGHUP restarts the workers, one after the other: a new one
    is started, and when it is ready the old one drains; no connection is refused
    meanwhile. The new ones run ``main`` again but import nothing again. If one of them
    ends before it is ready, the restart is given up and the old ones stay. SIGTERM to a
    worker replaces only that one, in the same way; its SIGINT and SIGHUP do nothing. If
    this process is killed, the workers drain.

    A worker that dies, by a signal, an exception or the return of its ``main``, is
    replaced at once. If it was the second within 60 seconds this is done after a second,
    a delay that doubles up to 30 seconds as long as others follow.

    Linux and other Unix systems; on macOS only if nothing uses its frameworks before the
    call, because they do not survive a fork.

    Args:
        main: An async function, run by :func:`trio.run` in each worker. It serves by
            :meth:`Worker.serve`, or by its own servers and :meth:`Worker.ready`, and
            returns when they have ended. Until then a worker is not ready.
        workers: How many, at least 1.
        grace: Seconds that a worker's connections have to end when it drains; see
            :meth:`Server.start_drain`. None disables the limit. A worker that still
            exists 5 seconds after it is killed.
        delay: Seconds from the first signal to the drain. Meanwhile the workers serve as
            before, and :attr:`Server.is_leaving` is True, so that their answers to health
            checks can make a load balancer send its requests elsewhere. A second signal
            ends it; SIGHUP, and SIGTERM to a worker, do nothing meanwhile. A restart has
            none: other workers accept.
        jitter: The seconds over which a worker that drains tells its connections, at
            most the grace; see :meth:`Server.start_drain`. None tells all at once.
        port: The TCP port, 0 for any free one. None if ``listeners`` are given.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means the kernel's maximum.
        reuse_port: Whether each worker has a listening socket of its own on the port,
            and other processes may listen on it, too. Linux then gives connections out
            by a hash of their addresses, also to a worker that is busy. By default,
            False, all accept from one socket: whichever is free takes the next
            connection.
        listeners: Listeners to use instead, for example of :func:`inherit_listeners` or
            a :class:`trio.SocketListener`. They are owned from now on.
        ready_timeout: Seconds from the start of a worker until it has to be ready;
            then it is killed, and counts as one that ended before it was ready. None
            disables the limit.
        on_ready: Called once in this process, with the URL of the first worker's
            server, when all workers are ready; for example to tell systemd.

    Returns:
        An exit status. 0 if this was told to stop and each worker ended with status 0.
        1 if a worker ended before it was ready, unless it was to replace one that still
        serves, or if five died within 60 seconds: then the others were drained, and what
        started this program can start it again. 1 also if a worker failed while all
        drained, or had to be killed.

    Raises:
        TypeError: An argument has another type.
        ValueError: An argument is out of range, or there is not exactly one of ``port``
            and ``listeners``.
        UsageError: Called inside Trio, or not in the main thread.
        OSError: The address cannot be listened on, or this platform has no fork(2).
    """
    if not callable(main):
        raise TypeError(f"main must be an async function, not {name_kind(main)}")
    if type(cast("object", workers)) is not int:
        raise TypeError(f"workers must be an int, not {name_kind(workers)}")
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    check_seconds("a grace", grace)
    check_seconds("a delay", delay)
    check_jitter(jitter)
    check_seconds("ready_timeout", ready_timeout)
    check_host(host)
    check_backlog(backlog)
    if (port is None) == (not listeners):
        raise ValueError("either a port or listeners have to be given")
    if trio.lowlevel.in_trio_run():
        raise UsageError("run_workers() runs Trio in other processes: call it outside")
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("run_workers() handles signals: call it in the main thread")
    if not hasattr(os, "fork"):
        raise OSError(errno.EOPNOTSUPP, "workers need fork(2), which Windows lacks")
    # Windows also lacks some of the signals that these modules name.
    from .fleet import Fleet
    from .places import Places
    from .supervisor import Supervisor

    if port is not None:
        check_port(port)
        opened = open_tcp_listeners_outside_trio(
            port, host=host, backlog=backlog, reuse_port=reuse_port
        )
    else:
        opened = _take_over(listeners, reuse_port=reuse_port)
    places = Places(opened, workers, shared=not reuse_port, backlog=backlog)
    patience = math.inf if ready_timeout is None else ready_timeout
    seconds = math.inf if grace is None else grace
    fleet = Fleet(workers, grace=seconds, ready_timeout=patience, delay=delay)
    supervisor = Supervisor(
        main, places, fleet, grace=seconds, jitter=jitter, on_ready=on_ready
    )
    return int(not supervisor.run())


def _take_over(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]], *, reuse_port: bool
) -> list[DirectSocketListener]:
    check_listeners(listeners)
    if reuse_port:
        raise ValueError("reuse_port is for a port, not for listeners that are open")
    taken: list[DirectSocketListener] = []
    for listener in listeners:
        direct = share_listener(listener)
        if not isinstance(direct, DirectSocketListener):
            # Others may have a task, or state that cannot be in two processes.
            raise TypeError(
                "listeners must be those of sockets, as of inherit_listeners() or a "
                f"trio.SocketListener, not {name_kind(listener)}"
            )
        taken.append(direct)
    return taken

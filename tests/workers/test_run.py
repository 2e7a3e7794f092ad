"""run_workers() itself, with real processes; the supervisor is the test's process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import (
    Request,
    Response,
    UsageError,
    Worker,
    run_workers,
)
from trio_upgrade._streams.socket_listener import DirectSocketListener

from ..interop.programs import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="needs fork(2), and looks into /proc: on Linux"
    ),
    # Trio's idle threads of earlier tests; they hold no lock.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def app(request: Request) -> Response:
    return Response(200, f"{os.getpid()}\n")


async def work(worker: Worker) -> None:
    await worker.serve(app)


def ask(address: tuple[str, int]) -> int:
    """Return the process id of a worker."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(GET)
        answer = b""
        while chunk := sock.recv(1000):
            answer += chunk
    return int(answer.rpartition(b"\r\n")[2])


def address_of(url: str) -> tuple[str, int]:
    return HOST, int(url.rpartition(":")[2])


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Script(logging.Handler):
    """Takes one step whenever the supervisor logs the next of some messages.

    The supervisor is the only thread, so this is how a test acts while it runs.
    """

    def __init__(self, *steps: tuple[str, Callable[[], object]]) -> None:
        super().__init__(logging.INFO)
        self._steps = [*steps]

    def emit(self, record: logging.LogRecord) -> None:
        if self._steps and self._steps[0][0] in record.getMessage():
            _, act = self._steps.pop(0)
            act()


@contextmanager
def following(*steps: tuple[str, Callable[[], object]]) -> Iterator[None]:
    logger = logging.getLogger("trio_upgrade.workers")
    script = Script(*steps)
    level = logger.level
    logger.addHandler(script)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(script)
        logger.setLevel(level)
    assert script._steps == []


def serve(**options: Any) -> int:
    given = {"workers": 2, "grace": 5, "port": 0, "host": HOST, **options}
    return run_workers(given.pop("main", work), **given)


def find_children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        return [*map(int, children.read().split())]


def test_stop() -> None:
    """SIGTERM ends it with status 0, and everything is as it was before."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)]
    workers: set[int] = set()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        workers.add(ask(address_of(url)))
        stop()

    assert serve(on_ready=on_ready) == 0
    assert os.getpid() not in workers
    assert before == [
        signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)
    ]
    assert signal.set_wakeup_fd(-1) == -1
    assert gc.get_freeze_count() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(address_of(urls[0]))


@pytest.mark.parametrize("reuse_port", [False, True])
def test_dead_worker_is_replaced(reuse_port: bool) -> None:
    """A worker that is killed is replaced, and the new one answers on the same port."""
    found: list[int] = []
    urls: list[str] = []

    def kill() -> None:
        found.append(ask(address_of(urls[0])))
        os.kill(found[0], signal.SIGKILL)

    def begin(url: str) -> None:
        urls.append(url)
        kill()

    def look() -> None:
        while found[-1] == found[0]:
            found.append(ask(address_of(urls[0])))
        stop()

    with following(("killed by SIGKILL", lambda: None), ("is ready", look)):
        status = serve(workers=1, reuse_port=reuse_port, on_ready=begin)

    assert status == 0


def test_second_death_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of the second one that dies is empty for a second, its socket closed."""
    monkeypatch.setattr("trio_upgrade._workers.deaths._FIRST_DELAY", 0.01)
    urls: list[str] = []

    def kill() -> None:
        os.kill(ask(address_of(urls[0])), signal.SIGKILL)

    def begin(url: str) -> None:
        urls.append(url)
        kill()

    with following(
        ("killed by SIGKILL", lambda: None),
        ("is ready", kill),
        ("killed by SIGKILL", lambda: None),
        ("is ready", stop),
    ):
        status = serve(workers=1, reuse_port=True, on_ready=begin)

    assert status == 0


def test_death_before_it_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    """If one worker cannot start, the others drain, and the status is 1."""

    async def main(worker: Worker) -> None:
        if worker.number == 1:
            raise ValueError("cannot start")
        await worker.serve(app)

    assert serve(main=main) == 1
    assert "ended by itself, status 1" in caplog.text
    assert "before it was ready" in caplog.text


def test_never_ready() -> None:
    """A worker that is not ready in time is killed: it could not start."""

    async def main(worker: Worker) -> None:
        await trio.sleep_forever()

    assert serve(main=main, workers=1, ready_timeout=0.01) == 1


def test_second_signal() -> None:
    """The second signal ends the grace."""

    async def main(worker: Worker) -> None:
        supervisor = os.getppid()

        async def app(request: Request) -> Response:
            os.kill(supervisor, signal.SIGTERM)
            await request.server.wait_draining()
            os.kill(supervisor, signal.SIGINT)
            await trio.sleep_forever()
            raise AssertionError

        await worker.serve(app)

    clients: list[socket.socket] = []

    def on_ready(url: str) -> None:
        clients.append(socket.create_connection(address_of(url)))
        clients[0].sendall(GET)

    assert serve(main=main, grace=None, on_ready=on_ready) == 0
    with clients[0]:
        assert clients[0].recv(1000) == b""


def test_delay() -> None:
    """After a signal health checks fail first; requests are answered meanwhile."""
    statuses: list[bytes] = []

    async def health(request: Request) -> Response:
        return Response(503 if request.server.is_leaving else 200)

    async def main(worker: Worker) -> None:
        await worker.serve(health)

    def on_ready(url: str) -> None:
        def probe() -> bytes:
            with socket.create_connection(address_of(url), timeout=10) as sock:
                sock.sendall(GET)
                return sock.recv(12)

        def act() -> None:
            while b"503" not in statuses[-1]:
                statuses.append(probe())
            stop()

        statuses.append(probe())
        stop()
        thread = threading.Thread(target=act)
        threads.append(thread)
        thread.start()

    threads: list[threading.Thread] = []
    began = time.monotonic()

    assert serve(main=main, on_ready=on_ready, delay=60) == 0
    assert time.monotonic() - began < 50
    for thread in threads:
        thread.join()
    assert statuses[0].endswith(b"200")
    assert statuses[-1].endswith(b"503")


def test_backlog_is_answered_at_the_end() -> None:
    """No worker goes on, so the last one answers what is in the backlog by then."""

    async def app(request: Request) -> Response:
        time.sleep(0.2)  # noqa: ASYNC251  so that the others stay in the backlog
        return Response(200, f"{os.getpid()}\n")

    async def main(worker: Worker) -> None:
        await worker.serve(app)

    clients: list[socket.socket] = []

    def on_ready(url: str) -> None:
        for _ in range(4):
            client = socket.create_connection(address_of(url), timeout=10)
            client.sendall(GET)
            clients.append(client)
        stop()

    assert serve(main=main, workers=1, on_ready=on_ready) == 0
    for client in clients:
        with client:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_restart() -> None:
    """SIGHUP replaces every worker; nothing is refused meanwhile."""
    urls: list[str] = []
    old: list[int] = []
    new: list[int] = []

    def look() -> None:
        new.extend(find_children())
        stop()

    def on_ready(url: str) -> None:
        urls.append(url)
        old.extend(find_children())
        os.kill(os.getpid(), signal.SIGHUP)

    def ask_now() -> None:
        ask(address_of(urls[0]))

    with following(
        ("are replaced", ask_now),
        ("is ready", ask_now),
        ("has drained", ask_now),
        ("is ready", ask_now),
        ("has drained", look),
    ):
        assert serve(on_ready=on_ready) == 0

    assert len(old) == 2
    # The last one that has drained is still listed.
    assert len({*new} - {*old}) == 2


def test_single_replacement() -> None:
    """SIGTERM to a worker replaces it; no other one is touched."""
    victims: list[int] = []

    def on_ready(url: str) -> None:
        victims.append(ask(address_of(url)))
        os.kill(victims[0], signal.SIGTERM)

    with following(("is ready", lambda: None), ("has drained", stop)):
        assert serve(on_ready=on_ready, workers=1) == 0


def test_deadlines_beyond_those_of_poll() -> None:
    """A grace or a time to become ready may be a year, which poll(2) cannot wait for."""
    year = 365 * 86400.0
    status = serve(grace=year, ready_timeout=year, on_ready=lambda _: stop())

    assert status == 0


def test_without_on_ready() -> None:
    """The user's function may be left out; the log says the same."""
    with following(("all workers are ready: http://127.0.0.1:", stop)):
        assert serve() == 0


def test_worker_has_no_descriptor_too_much() -> None:
    """A worker holds its own socket and channel, and those that Trio has opened."""
    counts: list[int] = []

    async def app(request: Request) -> Response:
        return Response(200, f"{len(os.listdir('/proc/self/fd'))}\n")

    async def main(worker: Worker) -> None:
        await worker.serve(app)

    def on_ready(url: str) -> None:
        counts.extend(ask(address_of(url)) for _ in range(50))
        stop()

    before = len(os.listdir("/proc/self/fd"))
    assert serve(main=main, workers=3, reuse_port=True, on_ready=on_ready) == 0
    # One listener, one channel, epoll, two pairs by which Trio is woken up, one
    # connection.
    assert {*counts} == {before + 8}
    assert len(os.listdir("/proc/self/fd")) == before


def test_error_in_on_ready() -> None:
    """What on_ready raises comes out, after the workers have drained."""

    def on_ready(url: str) -> None:
        raise ValueError("of on_ready")

    with pytest.raises(ValueError, match="of on_ready"):
        serve(on_ready=on_ready)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_no_process_can_be_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If fork(2) fails again and again, this is given up, and nothing stays open."""
    monkeypatch.setattr("trio_upgrade._workers.deaths._FIRST_DELAY", 0.001)

    def fork() -> int:
        raise BlockingIOError("no more processes")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", fork)

    assert serve(workers=1) == 1
    assert caplog.text.count("no worker could be started: no more processes") == 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_process_that_other_code_has_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its status is lost, its end is not."""

    def steal(url: str) -> None:
        (child,) = find_children()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    with following(("status 255", lambda: None), ("is ready", stop)):
        assert serve(workers=1, on_ready=steal) == 0


def test_frozen_objects_stay_frozen() -> None:
    """A caller that has frozen its objects finds them frozen."""
    gc.freeze()
    try:
        assert serve(workers=1, on_ready=lambda url: stop()) == 0
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


################################################################
# Listeners that are given
################################################################


def test_given_listener() -> None:
    """It serves on a listener of Trio, also one that no URL can name at its port."""
    sock = socket.create_server((HOST, 0))
    address = sock.getsockname()
    answers: list[int] = []

    def on_ready(url: str) -> None:
        assert address_of(url) == address
        answers.append(ask(address))
        stop()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    assert serve(port=None, listeners=[listener], on_ready=on_ready) == 0
    assert answers
    assert sock.fileno() == -1


def test_listener_of_another_kind() -> None:
    """A listener without a socket cannot be shared by processes."""
    sock = socket.create_server((HOST, 0))
    given = [DirectSocketListener(sock), MemoryLike()]
    with sock:
        with pytest.raises(TypeError, match=r"inherit_listeners.* not MemoryLike"):
            serve(port=None, listeners=given)
        with pytest.raises(ValueError, match="reuse_port is for a port"):
            serve(port=None, listeners=given[:1], reuse_port=True)
        with pytest.raises(TypeError, match="listeners must be"):
            serve(port=None, listeners=5)
        assert sock.fileno() > 0


class MemoryLike(trio.abc.Listener[trio.abc.Stream]):
    async def accept(self) -> trio.abc.Stream:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


################################################################
# Mistakes
################################################################


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"main": None}, TypeError, "main must be an async function, not None"),
        ({"workers": True}, TypeError, "workers must be an int, not bool"),
        ({"workers": 2.0}, TypeError, "workers must be an int, not float"),
        ({"workers": 0}, ValueError, "workers must be 1 or more, not 0"),
        ({"grace": -1}, ValueError, "grace must not be negative"),
        ({"delay": -1}, ValueError, "a delay must not be negative"),
        ({"jitter": -1}, ValueError, "jitter must not be negative"),
        ({"jitter": float("inf")}, ValueError, "jitter must be finite"),
        ({"ready_timeout": "1"}, TypeError, "ready_timeout must be seconds or None"),
        ({"port": -1}, ValueError, "port must be from 0"),
        ({"host": 1}, TypeError, "host must be"),
        ({"backlog": -1}, ValueError, "backlog must not be negative"),
        ({"port": None}, ValueError, "either a port or listeners"),
        ({"listeners": [1]}, ValueError, "either a port or listeners"),
    ],
)
def test_mistakes(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A wrong argument is an error before anything is opened."""
    with pytest.raises(error, match=message):
        serve(**options)


def test_port_in_use() -> None:
    """A port that another program uses is an error at once."""
    with socket.create_server((HOST, 0)) as sock:
        with pytest.raises(OSError, match="in use"):
            serve(port=sock.getsockname()[1])


async def test_inside_trio() -> None:
    """A fork inside Trio would break the child, so it is refused."""
    with pytest.raises(UsageError, match="call it outside"):
        serve()


def test_in_another_thread() -> None:
    """Only the main thread can handle signals."""
    errors: list[Exception] = []

    def run() -> None:
        with pytest.raises(UsageError, match="in the main thread") as caught:
            serve()
        errors.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert errors


def test_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without fork(2) is an OSError."""
    monkeypatch.delattr(os, "fork")
    with pytest.raises(OSError, match="Windows lacks"):
        serve()

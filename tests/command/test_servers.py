"""serve, echo and proxy: where they listen, how they drain, and what they log."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from trio_upgrade import Response, open_connection, open_upgrade
from trio_upgrade._command import application, echo, proxy
from trio_upgrade._command.access_log import name_client
from trio_upgrade._command.errors import CommandFailed
from trio_upgrade._command.listening import Place, SocketFile, open_unix_listener
from trio_upgrade._command.parser import parse
from trio_upgrade._command.serve import choose_app
from trio_upgrade._command.serving import Serving

from .running import HOST, Streams, fresh_logging, run, run_beside, serving

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="sends signals, and forks"),
    # A forked worker has only the thread that forked it.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

APPS = """
import os
from trio_upgrade import Response

async def app(request):
    return Response(200, f"{request.server.is_leaving}")

class Nested:
    app = staticmethod(app)

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["client"][0].encode()})
"""


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def get(url: str, **headers: str) -> bytes:
    """Make a request in a thread that runs no Trio."""

    async def ask() -> bytes:
        async with await open_connection(url) as connection:
            response = await connection.request("GET", "/x?q=sesame", headers=headers)
            return await response.read()

    return trio.run(ask)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of apps."""
    (tmp_path / "command_apps.py").write_text(APPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "command_apps", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["app", "Nested.app"])
def test_serve(folder, name: str) -> None:
    """An app of the working directory is served, and a signal drains: status 0."""

    def act(streams: Streams) -> None:
        assert get(streams.read_url()) == b"False"
        stop()

    words = ("serve", f"command_apps:{name}", "--port", "0")
    assert run_beside(*words, act=act) == (0, b"", "")


def test_serve_asgi(folder) -> None:
    """--asgi serves such an application, which learns of clients from trusted proxies."""

    def act(streams: Streams) -> None:
        url = streams.read_url()
        assert get(url, **{"X-Forwarded-For": "192.0.2.1"}) == b"192.0.2.1"
        stop()

    words = ("serve", "command_apps:asgi", "--asgi", "--port", "0")
    trusted = ("--trusted", "127.0.0.0/8", "--access-log")
    result = run_beside(*words, *trusted, act=act)

    assert result.status == 0
    assert re.fullmatch(
        r'192\.0\.2\.1 - - \[.*\] "GET /x\?\*\*\* HTTP/1\.1" 200 9\n', result.stderr
    )


def test_kind_of_application(folder) -> None:
    """An application of ASGI needs --asgi; what has no signature is taken as it is."""
    result = run("serve", "command_apps:asgi")

    assert result.status == 2
    assert "add --asgi" in result.stderr
    assert not application.looks_like_asgi(dict)
    assert application.takes_asgi(dict)


def test_startup_that_fails(folder) -> None:
    """An ASGI application that says that it cannot start: one line, and status 1."""
    (folder / "command_failing.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})"
    )
    sys.modules.pop("command_failing", None)
    result = run("serve", "command_failing:app", "--asgi", "--port", "0")

    assert result.status == 1
    assert result.stderr == (
        "trio-upgrade serve: the startup of the ASGI application failed: no database\n"
    )


def test_shutdown_that_fails(folder) -> None:
    """So is one whose shutdown fails."""
    (folder / "command_stuck.py").write_text(
        "async def app(scope, receive, send):\n"
        "    for phase in ('startup.complete', 'shutdown.failed'):\n"
        "        await receive()\n"
        "        await send({'type': f'lifespan.{phase}', 'message': 'stuck'})"
    )
    sys.modules.pop("command_stuck", None)

    def act(streams: Streams) -> None:
        streams.read_url()
        stop()

    words = ("serve", "command_stuck:app", "--asgi", "--port", "0")
    result = run_beside(*words, act=act)

    assert result.status == 1
    assert result.stderr.endswith(
        "the shutdown of the ASGI application failed: stuck\n"
    )
    assert result.stderr.count("\n") == 1


async def test_worker_that_cannot_start(capsys) -> None:
    """In a worker such a failure is one line, too."""

    @asynccontextmanager
    async def open_app():
        raise CommandFailed("no database")
        yield

    serving = Serving.from_arguments(parse(["echo"]))
    place = Place.from_arguments(parse(["echo"]))
    worker: Any = None
    with pytest.raises(SystemExit) as caught:
        await serving.work(worker, place, open_app)

    assert caught.value.code == 1
    said = f"trio-upgrade worker {os.getpid()}: no database\n"
    assert capsys.readouterr().err == said


async def test_worker_without_its_certificate(tmp_path, capsys) -> None:
    """A worker whose certificate was spoilt says who it is, and names the file."""
    cert, key = make_certificate(tmp_path)
    arguments = parse(["echo", "--tls", cert, key])
    serving, place = Serving.from_arguments(arguments), Place.from_arguments(arguments)
    (tmp_path / "key.pem").write_text("-----BEGIN")
    worker: Any = SimpleNamespace(serve=None)
    with pytest.raises(SystemExit) as caught:
        await serving.work(worker, place, echo.open_echo)

    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        f"trio-upgrade worker {os.getpid()}: {cert} and {key} are not a certificate and "
        "its key in PEM\n"
    )


def test_startup_that_raises(folder) -> None:
    """An application with a bug shows where it is."""
    (folder / "command_raising.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        "    raise ValueError('of the user')"
    )
    sys.modules.pop("command_raising", None)
    result = run("serve", "command_raising:app", "--asgi", "--port", "0")

    assert result.status == 1
    assert "ValueError: of the user" in result.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named"),
        ("raise ValueError('of the user')", "ValueError: of the user"),
    ],
)
def test_error_in_the_module(folder, source: str, message: str) -> None:
    """An error in the user's module shows its traceback, and ends with 1."""
    name = f"command_broken_{message[0].lower()}"
    (folder / f"{name}.py").write_text(source)
    result = run("serve", f"{name}:app")

    assert result.status == 1
    assert f'{name}.py", line 1' in result.stderr
    assert message in result.stderr


def test_delay_and_grace(folder) -> None:
    """During the delay requests are answered; a second signal ends delay and grace."""

    async def talk(url: str) -> None:
        async with await open_connection(url) as connection:
            stop()
            while True:
                response = await connection.request("GET", "/")
                if await response.read() == b"True":
                    break
        stop()

    def act(streams: Streams) -> None:
        trio.run(talk, streams.read_url())

    words = ("serve", "command_apps:app", "--port", "0", "--delay", "60")
    assert run_beside(*words, act=act).status == 0


HEALTH = ("--health", "/health", "--access-log", "--delay", "20", "--port", "0")


def check_health(url: str) -> None:
    """Ask for the health until the server is leaving, and end the delay."""

    async def ask(method: str, target: str) -> tuple[int, bytes]:
        async with await open_connection(url) as connection:
            response = await connection.request(method, target)
            return response.status, await response.read()

    async def talk() -> None:
        assert await ask("GET", "/health?at=1") == (200, b"ok\n")
        assert await ask("HEAD", "/health") == (200, b"")
        # Neither another method nor another path, nor another host's.
        for method, target in (
            ("POST", "/health"),
            ("GET", "/health/"),
            ("GET", "/"),
            ("GET", f"{url}/health"),
        ):
            assert (await ask(method, target))[1] not in (b"ok\n", b"")
        stop()
        while (answer := await ask("GET", "/health"))[0] == 200:
            pass
        assert answer == (503, b"leaving\n")
        assert (await ask("HEAD", "/health"))[0] == 503
        # The app is served as before.
        assert (await ask("GET", "/"))[0] == 200
        stop()

    trio.run(talk)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize(
    "words",
    [
        ("serve", "command_apps:app"),
        ("serve", "command_apps:asgi", "--asgi"),
        ("echo",),
    ],
)
def test_health(folder, words: tuple[str, ...], workers: tuple[str, ...]) -> None:
    """--health answers GET and HEAD of its path itself: 200, and 503 while it leaves."""

    def act(streams: Streams) -> None:
        url = streams.read_url()
        try:
            check_health(url)
        except BaseException:
            # So that the program ends, after its delay.
            stop()
            raise

    result = run_beside(*words, *workers, *HEALTH, act=act)

    assert result.status == 0
    if not workers:
        # As any request.  The log of workers goes where the test does not see it.
        assert '"GET /health?*** HTTP/1.1" 200 3\n' in result.stderr
        assert '"GET /health HTTP/1.1" 503 8\n' in result.stderr


def test_health_of_a_forward_proxy() -> None:
    """Of a forward proxy too, but not for the same path of another host."""

    def act(streams: Streams) -> None:
        url = streams.read_url()

        async def ask() -> None:
            async with await open_connection(url) as connection:
                response = await connection.request("GET", "/health")
                assert (response.status, await response.read()) == (200, b"ok\n")
                response = await connection.request("GET", "http://127.0.0.1/health")
                assert response.status == 403
                await response.read()

        trio.run(ask)
        stop()

    words = ("proxy", "--forward", "--health", "/health", "--port", "0")
    assert run_beside(*words, act=act).status == 0


def test_wrong_app_with_health() -> None:
    """A health check does not hide that the app is none."""
    result = run("serve", "os:getcwd", "--health", "/health", "--port", "0")

    assert result.status == 2
    assert "the app must be an async function" in result.stderr


def test_echo() -> None:
    """Any offer but those of TLS and HTTP/2, any CONNECT and WebSockets are echoed."""

    async def talk(url: str) -> None:
        async with await open_upgrade(url, "h2c", "Any/3") as (response, stream, _):
            assert response.headers["Upgrade"] == "Any/3"
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        async with await open_connection(url) as connection:
            async with await connection.connect("any:1") as (_, stream, _):
                await stream.send_all(b"y")
                assert await stream.receive_some() == b"y"

    def act(streams: Streams) -> None:
        url = streams.read_url()
        trio.run(talk, url)
        stop()

    assert run_beside("echo", "--port", "0", act=act).status == 0


def test_echo_of_websockets(monkeypatch) -> None:
    """WebSockets are echoed by messages; without the extra the answer is a 501."""
    with serving(echo.answer) as url:
        result = run("websocket", url, "--wait", "0.1", stdin=b"hello\n")
        assert result == (0, b"hello\n", "")
        monkeypatch.setitem(sys.modules, "trio_upgrade.websocket", None)
        result = run("connect", url, "websocket")
        assert result.status == 1
        assert "refused with 501" in result.stderr


@pytest.mark.parametrize("host", ["*", "::1"])
def test_host(host: str) -> None:
    """--host is an address, or * for every one."""

    def act(streams: Streams) -> None:
        url = streams.read_url()
        assert host == "*" or "[::1]" in url
        get(url)
        stop()

    words = ("echo", "--host", host, "--port", "0")
    assert run_beside(*words, act=act).status == 0


def make_certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate and its key, and return the files."""
    import trustme

    certificate = trustme.CA().issue_cert("localhost")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    return files


@pytest.mark.parametrize("place", ["port", "fd", "plain fd", "unix"])
def test_places(tmp_path, place: str) -> None:
    """TLS on a port and on an inherited socket, and a Unix socket."""
    tls = ("--tls", *make_certificate(tmp_path))
    with socket.create_server((HOST, 0)) as sock:
        options: tuple[Any, ...] = {
            "port": ("--port", 0, *tls),
            "fd": ("--fd", os.dup(sock.fileno()), *tls),
            "plain fd": ("--fd", os.dup(sock.fileno())),
            "unix": ("--unix", tmp_path / "socket"),
        }[place]

        def act(streams: Streams) -> None:
            url = streams.read_url()
            schemes = {"plain fd": "http://", "unix": "http+unix://"}
            assert url.startswith(schemes.get(place, "https://"))
            words = ["connect", url, "echo", "--direct", "--insecure"]
            command = [sys.executable, "-m", "trio_upgrade", *words]
            found = subprocess.run(
                command, input=b"x", stdout=subprocess.PIPE, timeout=20, check=True
            )
            assert found.stdout == b"x"
            stop()

        result = run_beside("echo", "--grace", "0", *options, act=act)

    assert result.status == 0


def test_sockets_of_systemd(monkeypatch) -> None:
    """Sockets of systemd are taken without an address, and --fd has to name all."""
    taken: list[int] = []

    class Listener:
        def __init__(self, number: int) -> None:
            self.number = number
            self.socket = self

        def fileno(self) -> int:
            return self.number

    def inherit_listeners():
        taken.append(1)
        return [Listener(3), Listener(4)]

    monkeypatch.setattr(
        "trio_upgrade._command.listening.inherit_listeners", inherit_listeners
    )

    def take(*words: str) -> Any:
        return Place.from_arguments(parse(["echo", *words])).take_over()

    assert [listener.number for listener in take()] == [3, 4]
    assert len(take("--fd", "3", "--fd", "4")) == 2
    with pytest.raises(Exception, match="descriptor 4 was passed, too"):
        take("--fd", "3")
    with pytest.raises(Exception, match="descriptor 5 was not passed"):
        take("--fd", "3", "--fd", "4", "--fd", "5")
    assert take("--port", "0") == []
    assert len(taken) == 4


def test_socket_that_does_not_listen() -> None:
    """A socket that does not listen is refused, and stays as it is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = run("echo", "--fd", ours.fileno())
        assert ours.getblocking()
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"

    assert result.status == 2
    assert "cannot listen: descriptor " in result.stderr


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_address_in_use(workers) -> None:
    """An address that is in use is a failure, with or without workers."""
    with socket.create_server((HOST, 0)) as sock:
        result = run("echo", "--port", sock.getsockname()[1], *workers)

    assert result.status == 1
    assert result.stderr.startswith("trio-upgrade echo: cannot listen: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["port", "unix"])
def test_workers(tmp_path, place: str) -> None:
    """Workers serve on a port or on a Unix socket, whose file is removed at the end."""
    path = tmp_path / "socket"
    words = ("--unix", path) if place == "unix" else ("--port", 0)

    def act(streams: Streams) -> None:
        assert b"offer any" in get(streams.read_url())
        stop()

    result = run_beside("echo", "--workers", "2", *words, act=act)

    assert (result.status, result.stderr) == (0, "")
    assert not path.exists()


async def test_work() -> None:
    """A worker serves the app with the limits, the log and the certificate."""
    arguments = parse(["echo", "--access-log", "--limit", "linger=1"])
    given: dict[str, Any] = {}

    class Worker:
        async def serve(self, app, **options):
            given.update(options, app=app)

    serving = Serving.from_arguments(arguments)
    worker: Any = Worker()
    await serving.work(worker, Place.from_arguments(arguments), echo.open_echo)

    assert given["app"] is echo.answer
    assert given["ssl_context"] is None
    assert given["limits"].linger == 1
    assert given["observer"] is not None


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_unix_socket_nowhere(tmp_path, workers) -> None:
    """The path on which it cannot listen is named."""
    path = tmp_path / "not there" / "socket"
    result = run("echo", "--unix", path, *workers)

    assert result == (
        1,
        b"",
        f"trio-upgrade echo: cannot listen on {path}: No such file or directory\n",
    )


def test_certificates_that_do_not_fit(tmp_path) -> None:
    """A wrong key and one with a passphrase are told apart, and nothing is asked."""
    cert, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = make_certificate(tmp_path / "other")
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    wrong = run("echo", "--tls", cert, other)
    asking = run("echo", "--tls", cert, locked, stdin=b"hunter2\n")

    assert wrong.status == asking.status == 2
    assert wrong.stderr == f"trio-upgrade echo: {other} is not the key of {cert}\n"
    assert f"{locked} has a passphrase" in asking.stderr
    assert asking.stderr.count("\n") == 1


def test_unix_sockets_of_others(tmp_path) -> None:
    """The file of a dead socket is replaced; a live socket and another file stay."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listener = open_unix_listener(path)
    result = run("echo", "--unix", path, "--workers", "1")
    assert result.status == 1
    assert "another process listens there" in result.stderr
    # Its own close() is for Trio.
    os.close(listener.socket.detach())
    (tmp_path / "file").touch()
    result = run("echo", "--unix", tmp_path / "file", "--workers", "1")
    assert result.status == 1
    assert "a file that is no socket" in result.stderr
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_file_of_a_unix_socket(tmp_path, replaced: bool) -> None:
    """The file is removed at the end, but not that of a server that has come after."""
    path = str(tmp_path / "socket")
    os.close(open_unix_listener(path).socket.detach())
    file = SocketFile(path)
    if replaced:
        following = open_unix_listener(path)
        os.close(following.socket.detach())
    file.remove()

    assert os.path.exists(path) == replaced


def test_unix_socket_of_a_busy_server(tmp_path) -> None:
    """A server whose backlog is full is one that listens: nothing waits for it."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        result = run("echo", "--unix", path, "--workers", "1")

    assert result.status == 1
    assert "another process listens there" in result.stderr


def test_access_log() -> None:
    """A line for each answer and switch, with no query, no userinfo and no controls."""

    def act(streams: Streams) -> None:
        url = streams.read_url()
        get(url)
        assert run_connect(url) == b"HTTP/1.1 101"
        with socket.create_connection((HOST, int(url.rpartition(":")[2]))) as sock:
            sock.sendall(b"GET http://u:hunter2@h/ HTTP/1.1\r\nHost: h\r\n\r\n")
            sock.recv(1000)
        with socket.create_connection((HOST, int(url.rpartition(":")[2]))) as sock:
            sock.sendall(b"\x1b[0m nonsense\r\n\r\n")
            sock.recv(1000)
        stop()

    result = run_beside("echo", "--port", "0", "--access-log", act=act)
    lines = [re.sub(r"\[.*?\]", "[]", line) for line in result.stderr.splitlines()]

    assert '127.0.0.1 - - [] "GET /x?*** HTTP/1.1" 200 58' in lines
    assert '127.0.0.1 - - [] "GET / HTTP/1.1" 101 -' in lines
    assert any('"-" 400' in line for line in lines)
    assert "hunter2" not in result.stderr
    assert "sesame" not in result.stderr


@pytest.mark.parametrize("peer", [None, (), "/run/client"])
def test_client_without_an_address(peer: object) -> None:
    """A client of a Unix socket is logged as a dash."""
    assert name_client(peer) == "-"


def run_connect(url: str, protocol: bytes = b"x") -> bytes:
    """Make a switch by hand, and return the beginning of the 101."""
    with socket.create_connection((HOST, int(url.rpartition(":")[2]))) as sock:
        offer = b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n" + offer + b"\r\n")
        return sock.recv(12)


@pytest.mark.parametrize("upgrade", ["*", "echo"])
def test_reverse_proxy(upgrade: str) -> None:
    """Requests and the allowed upgrades go on to the upstream."""

    def act(streams: Streams) -> None:
        url = streams.read_url()
        assert b"offer any" in get(url)
        assert run_connect(url)[:12] == (
            b"HTTP/1.1 101" if upgrade == "*" else b"HTTP/1.1 200"
        )
        stop()

    with serving(echo.answer) as upstream:
        words = ("proxy", upstream, "--port", "0", "--upgrade", upgrade)
        assert run_beside(*words, act=act).status == 0


def test_forward_proxy(tmp_path) -> None:
    """Allowed ports and networks, and only for users of the file."""
    (tmp_path / "users").write_text("user:hunter2\nother:sesame\n")

    async def dial(url: str, port: int, user: str) -> bytes:
        from trio_upgrade import open_tunnel

        url = url.replace("//", f"//{user}@")
        async with await open_tunnel(url, f"{HOST}:{port}") as (_, stream, _):
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            return bytes(await stream.receive_some())

    with serving(echo.answer) as upstream:
        port = int(upstream.rpartition(":")[2])

        def act(streams: Streams) -> None:
            url = streams.read_url()
            assert trio.run(dial, url, port, "user:hunter2").startswith(b"HTTP/1.1 200")
            with pytest.raises(Exception, match="407"):
                trio.run(dial, url, port, "user:wrong")
            stop()

        options = ("--allow", "127.0.0.0/8", "--allow-port", port)
        users = ("--users", f"@{tmp_path}/users")
        words = ("proxy", "--forward", "--port", "0", *options, *users)
        result = run_beside(*words, act=act)

    assert (result.status, result.stderr) == (0, "")


def test_versions_of_upgrades() -> None:
    """--upgrade compares as upgrades= does: names without case, versions exactly."""

    def act(streams: Streams) -> None:
        url = streams.read_url()
        offers = {b"Chat/2": 101, b"chat": 200, b"chat/1": 200, b"ECHO": 101}
        for protocol, status in offers.items():
            answer = run_connect(url, protocol)
            assert answer == b"HTTP/1.1 %d" % status, protocol
        stop()

    with serving(echo.answer) as upstream:
        options = ("--upgrade", "chat/2", "--upgrade", "echo")
        words = ("proxy", upstream, "--port", "0", *options)
        assert run_beside(*words, act=act).status == 0


@pytest.mark.parametrize("verbose", [True, False])
def test_ended_tunnels_of_a_reverse_proxy(verbose: bool) -> None:
    """-v logs each tunnel that has ended: who, what, how much, how long, and why."""

    async def talk(url: str) -> None:
        target = f"{url}/chat?q=sesame"
        fields = {"X-Forwarded-For": "192.0.2.1"}
        opening = open_upgrade(target, "chat/2", headers=fields)
        async with await opening as (_, stream, _):
            await stream.send_all(b"abc")
            assert await stream.receive_some() == b"abc"
            await stream.send_eof()
            assert await stream.receive_some() == b""
        async with await open_upgrade(target, "chat/2") as (_, stream, _):
            await stream.reset()

    def act(streams: Streams) -> None:
        trio.run(talk, streams.read_url())
        stop()

    with serving(echo.answer) as upstream:
        words = ("proxy", upstream, "--port", "0", "--upgrade", "*")
        options = ("--trusted", "127.0.0.0/8", *(["-v"] if verbose else []))
        with fresh_logging():
            result = run_beside(*words, *options, act=act)

    assert result.status == 0
    first, second, *rest = result.stderr.splitlines() or ("", "")
    if not verbose:
        assert result.stderr == ""
        return
    assert rest == []
    assert re.fullmatch(
        r"INFO trio_upgrade\.command: tunnel from 192\.0\.2\.1, chat/2 /chat\?\*\*\*: "
        r"3 bytes sent, 3 received, \d+\.\d s, ended by the client \(eof\)",
        first,
    )
    # The address of a client that is gone is known.
    assert "tunnel from 127.0.0.1, " in second
    assert second.endswith("ended by the client (reset)")


def test_ended_tunnels_of_a_forward_proxy() -> None:
    """Of a CONNECT it has the target, and not the user; a drain is the proxy's doing."""

    async def talk(url: str, port: int) -> None:
        from trio_upgrade import open_tunnel

        url = url.replace("//", "//user:hunter2@")
        async with await open_tunnel(url, f"{HOST}:{port}") as (_, stream, _):
            stop()
            assert await stream.receive_some() == b""

    with serving(echo.answer) as upstream:
        port = int(upstream.rpartition(":")[2])

        def act(streams: Streams) -> None:
            with suppress(trio.BrokenResourceError):
                trio.run(talk, streams.read_url(), port)

        options = ("--allow", "127.0.0.0/8", "--allow-port", port, "--grace", "0.1")
        words = ("proxy", "--forward", "--port", "0", "-v", *options)
        with fresh_logging():
            result = run_beside(*words, act=act)

    assert result.status == 0
    (line,) = [line for line in result.stderr.splitlines() if "tunnel from" in line]
    assert re.fullmatch(
        rf"INFO .*: tunnel from 127\.0\.0\.1, CONNECT 127\.0\.0\.1:{port}: "
        r"0 bytes sent, 0 received, 0\.\d s, ended by the proxy \(cancelled\)",
        line,
    )
    assert "hunter2" not in result.stderr


def test_default_forward_proxy() -> None:
    """Without options the policy is that of ForwardProxy."""
    make = proxy.choose_proxy(parse(["proxy", "--forward"]))

    assert type(make()).__name__ == "ForwardProxy"


async def test_plain_app_as_it_is() -> None:
    """An app of ours is served as it is."""

    async def app(request):
        return Response(200)

    serving = Serving.from_arguments(parse(["echo"]))
    async with choose_app(app, serving, is_asgi=False)() as opened:
        assert opened is app

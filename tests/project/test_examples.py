"""The examples, run as the README and their docstrings say."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import pytest
import trio
import trustme
from apachelogs import COMMON, LogParser
from prometheus_client.parser import text_string_to_metric_families

from trio_upgrade import (
    PeerGone,
    Request,
    Response,
    Upgrade,
    open_connection,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade.websocket import accept_websocket

from ..apps import echo
from ..interop.programs import BOUND, EXAMPLES, HOST, example, read_url, run, start
from ..wire import SWITCHED, UP, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio_upgrade import Server

# PEP 723: a comment line for each line of TOML.
SCRIPT_BLOCK = re.compile(r"^# /// script\n((?:#(?: .*)?\n)+)# ///$", re.MULTILINE)
ROOT = EXAMPLES.parent
# What an example needs beside this package.
OTHER_PACKAGES = {"asgi_app.py": ["starlette"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def sigint_works() -> Iterator[None]:
    """A program that starts here does not ignore SIGINT, as background jobs do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def test_echo_pair_shows_each_stage() -> None:
    """One run shows the request, the switch, the echo, the end, and the early bytes."""
    with trio.fail_after(BOUND):
        result = await run(*example("echo_pair.py", 0))
    lines = result.stdout.decode().splitlines()

    assert result.returncode == 0
    assert result.stderr == b""
    assert re.fullmatch(r"server: listening at http://127\.0\.0\.1:\d+", lines[0])
    # Which side prints first is up to the scheduler; each has its own order.
    assert [line for line in lines[1:] if line.startswith("server: ")] == [
        "server: switched to websocket; early bytes: b''",
        "server: switched to websocket; early bytes: b'early'",
    ]
    assert [line for line in lines if not line.startswith("server: ")] == [
        "client: GET / gave 200 OK: b'okay'",
        "client: got upgraded! 101 Web Socket Protocol Handshake",
        "client: the echo is b'hello, echo'",
        "client: half-closed; the server has ended too: b''",
        "raw peer: sent b'early' with the request, got back b'early'",
    ]


async def test_echo_pair_prints_the_lines_of_the_readme() -> None:
    """The README shows the lines of a real run, except for the port."""
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"^```text\n(server: .*?)^```$", readme, re.MULTILINE | re.DOTALL)
    with trio.fail_after(BOUND):
        result = await run(*example("echo_pair.py", 0))
    printed = re.sub(r":\d+\n", ":1337\n", result.stdout.decode(), count=1)

    assert shown is not None
    assert sorted(printed.splitlines()) == sorted(shown[1].splitlines())


@pytest.mark.parametrize("name", ["echo_pair.py", "chat.py"])
async def test_help(name: str) -> None:
    """With --help the first programs say what they are and how they are called."""
    with trio.fail_after(BOUND):
        result = await run(*example(name, "--help"))
    text = result.stdout.decode()

    assert (result.returncode, result.stderr) == (0, b"")
    assert f"python examples/{name} [PORT]" in text
    assert "0 takes any free port" in text


@pytest.mark.parametrize("name", ["echo_pair.py", "chat.py"])
async def test_port_is_taken(name: str) -> None:
    """A port that another program has is one line, which says what to do."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        port = listener.socket.getsockname()[1]
        with trio.fail_after(BOUND):
            result = await run(*example(name, port))
    message = result.stderr.decode()

    assert result.returncode == 1
    assert re.fullmatch(rf"port {port}: [^\n]*; 0 takes any free port\n", message)


@pytest.mark.parametrize(
    "content",
    [b"", b"one\ntwo\n\nno end of line", os.urandom(1024 * 1024)],
    ids=["nothing", "lines", "1 MiB"],
)
async def test_echo_client_prints_its_input(content: bytes) -> None:
    """Standard input comes back from the server unchanged, and the client ends."""
    with trio.fail_after(BOUND):
        async with await start(*example("echo_server.py", 0)) as server:
            url = await read_url(server)
            result = await run(*example("echo_client.py", url), stdin=content)

    assert result.stderr == b"got upgraded! echo\n"
    assert result.returncode == 0
    assert result.stdout == content


async def echo_websocket(websocket) -> None:
    """Echo, and close after the text "bye" or "away"."""
    async for message in websocket:
        await websocket.send(message)
        if message in {"bye", "away"}:
            await websocket.aclose(1000 if message == "bye" else 1012, "said so")


async def serve_websocket(nursery: trio.Nursery) -> str:
    """Serve such an echo; return its URL."""

    async def app(request: Request) -> Response | Upgrade:
        return accept_websocket(request, echo_websocket, subprotocols=["a"])

    serve = partial(serve_tcp, app, 0, host=HOST, strict=True)
    server: Server = await nursery.start(serve)
    return server.url.replace("http", "ws", 1)


async def test_websocket_client_prints_the_echo(nursery) -> None:
    """Each line comes back, also the last one, and the client closes with 1000."""
    command = example("websocket_client.py", await serve_websocket(nursery), "b", "a")
    with trio.fail_after(BOUND):
        result = await run(*command, stdin=b"one\ntwo\nthree")

    assert result.stdout == b"one\ntwo\nthree\n"
    assert result.stderr == b"open, subprotocol a\nclosed: 1000 \n"
    assert result.returncode == 0


async def test_websocket_client_waits_for_the_last_answers(nursery) -> None:
    """A pong may come before the answers to the last lines: they are printed, too."""

    async def answer_late(websocket) -> None:
        async for message in websocket:
            # By then the library has answered the ping that follows the lines.
            await trio.sleep(0.2)
            await websocket.send(message)

    async def app(request: Request) -> Response | Upgrade:
        return accept_websocket(request, answer_late)

    server: Server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    command = example("websocket_client.py", server.url.replace("http", "ws", 1))
    with trio.fail_after(BOUND):
        result = await run(*command, stdin=b"one\ntwo\n")

    assert result.stdout == b"one\ntwo\n"
    assert result.stderr.endswith(b"closed: 1000 \n")


async def test_websocket_client_does_not_wait_for_ever(nursery) -> None:
    """A server that never falls silent is left five seconds after the last line."""

    async def chatter(websocket) -> None:
        while True:
            await websocket.send("tick")
            await trio.sleep(0.1)

    async def app(request: Request) -> Response | Upgrade:
        return accept_websocket(request, chatter)

    server: Server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    command = example("websocket_client.py", server.url.replace("http", "ws", 1))
    with trio.fail_after(BOUND):
        result = await run(*command, stdin=b"one\n")

    assert result.stdout.startswith(b"tick\n")
    assert result.stderr.endswith(b"closed: 1000 \n")
    nursery.cancel_scope.cancel()


async def test_websocket_client_ends_with_the_server(nursery) -> None:
    """The client ends when the server closes, although it waits for more input."""
    command = example("websocket_client.py", await serve_websocket(nursery), "a")
    with trio.fail_after(BOUND):
        async with await start(*command, stderr=subprocess.PIPE) as client:
            assert client.process.stdin is not None
            assert client.process.stderr is not None
            await client.process.stdin.send_all(b"bye\n")
            assert await client.read_line() == "bye"
            said = b"".join([chunk async for chunk in client.process.stderr])
            assert await client.process.wait() == 0

    assert said == b"open, subprotocol a\nclosed: 1000 said so\n"


async def test_websocket_client_connects_again(nursery) -> None:
    """With --reconnect a close with another code than 1000 is not the end."""
    url = await serve_websocket(nursery)
    command = example("websocket_client.py", url, "a", "--reconnect")
    with trio.fail_after(BOUND):
        async with await start(*command, stderr=subprocess.PIPE) as client:
            assert client.process.stdin is not None
            assert client.process.stderr is not None
            await client.process.stdin.send_all(b"away\n")
            assert await client.read_line() == "away"
            said = b""
            while b"closed: 1012 said so\n" not in said:
                said += await client.process.stderr.receive_some()
            await client.process.stdin.send_all(b"bye\n")
            assert await client.read_line() == "bye"
            assert await client.process.wait() == 0


async def test_websocket_client_is_refused(nursery) -> None:
    """A refusal ends the client with one line that says why."""
    url = await serve_websocket(nursery)
    with trio.fail_after(BOUND):
        result = await run(*example("websocket_client.py", url, "c"))

    assert result.returncode == 1
    assert result.stderr.startswith(b"cannot open ws://")
    assert b"400 Bad Request" in result.stderr
    assert result.stderr.count(b"\n") == 1


async def test_echo_client_ends_with_the_server() -> None:
    """The client ends with the server, although it waits for more input."""
    with trio.fail_after(BOUND):
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        async with listener:
            port = listener.socket.getsockname()[1]
            command = example("echo_client.py", f"http://{HOST}:{port}/")
            async with await start(*command, stderr=subprocess.PIPE) as client:
                assert client.process.stdin is not None
                assert client.process.stderr is not None
                async with await listener.accept() as stream:
                    await stream.receive_some()
                    await stream.send_all(SWITCHED)
                    await client.process.stdin.send_all(b"hello\n")
                    # When this has come, the client waits for its input again.
                    assert await stream.receive_some() == b"hello\n"
                    await stream.send_all(b"welcome\n")
                    assert await client.read_line() == "welcome"
                    await stream.send_all(b"farewell\n")
                last = await client.read_line()
                status = await client.process.wait()
                errors = await client.process.stderr.receive_some()

    assert last == "farewell"
    assert status == 0
    assert errors == b"got upgraded! echo\n"


API_LINES = [
    "7 requests on 2 connections",
    "apple costs 3",
    "bread costs 5",
    "cheese costs 8",
    "dates costs 6",
    "eggs costs 4",
    "figs: URL/items/figs: 404 Not Found",
]


async def test_api_client() -> None:
    """By itself it shows what its own API has, over two connections."""
    with trio.fail_after(BOUND):
        result = await run(*example("api_client.py"))
    output = re.sub(r"http://127\.0\.0\.1:\d+", "URL", result.stdout.decode())
    lines = output.splitlines()

    assert (result.returncode, result.stderr) == (0, b"")
    # The tasks end in any order.
    assert sorted(lines) == API_LINES
    assert lines[-1] == "7 requests on 2 connections"


async def test_api_client_of_another_server(nursery: trio.Nursery) -> None:
    """With a URL it asks that API; one that fails is an exit with one line."""

    async def app(request: Request) -> Response:
        known = request.path == "/v1/items"
        return Response(200, b'{"names": []}') if known else Response(404)

    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    result = await run(*example("api_client.py", server.url + "/v1/items"))
    failed = await run(*example("api_client.py", server.url))

    assert result.stdout.decode().splitlines() == [
        f"figs: {server.url}/v1/items/figs: 404 Not Found",
        "2 requests on 1 connections",
    ]
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.decode() == f"{server.url}: 404 Not Found\n"


async def test_echo_client_without_a_server() -> None:
    """If no server listens it fails with one line and no traceback."""
    with socket.socket() as bound:
        # Bound and not listening, so no other program can take the port.
        bound.bind((HOST, 0))
        port = bound.getsockname()[1]
        with trio.fail_after(BOUND):
            result = await run(*example("echo_client.py", f"http://{HOST}:{port}/"))
    message = result.stderr.decode()

    assert result.returncode == 1
    assert result.stdout == b""
    assert re.fullmatch(rf"[^\n]*{HOST}[^\n]*{port}[^\n]*\n", message)


async def test_echo_client_prints_a_refusal() -> None:
    """For a protocol that the server does not speak it prints the answer and fails."""
    with trio.fail_after(BOUND):
        async with await start(*example("echo_server.py", 0)) as server:
            url = await read_url(server)
            result = await run(*example("echo_client.py", url, "gopher"))

    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.decode().splitlines()[:2] == [
        f'{url}/: refused with 200 OK: "okay"',
        "okay",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
async def test_event_stream() -> None:
    """Clients get the events; one that leaves is forgotten; a drain ends the others."""
    with trio.fail_after(BOUND):
        command = example("event_stream.py", 0)
        async with await start(*command, stderr=subprocess.PIPE) as server:
            url = await read_url(server)
            port = urlsplit(url).port
            assert port is not None
            async with (
                await open_connection(url) as staying,
                await trio.open_tcp_stream(HOST, port) as leaving,
                await open_connection(url) as publishing,
            ):
                response = await staying.request("GET", "/")
                events = response.stream()
                assert await server.read_line() == "1 listening"
                await leaving.send_all(get("/"))
                assert await server.read_line() == "2 listening"
                posted = await publishing.request("POST", "/", body=b"one\nevent")
                assert await posted.read() == b"2\n"
                assert await anext(events) == b"data: one event\n\n"
                await leaving.aclose()
                assert await server.read_line() == "1 listening"
                posted = await publishing.request("POST", "/", body=b"two")
                assert await posted.read() == b"1\n"
                assert await anext(events) == b"data: two\n\n"
                server.process.send_signal(signal.SIGTERM)
                assert [chunk async for chunk in events] == []
                assert await server.read_line() == "0 listening"
            status = await server.process.wait()
            assert server.process.stderr is not None
            errors = await server.process.stderr.receive_some()

    assert response.headers["content-type"] == "text/event-stream"
    assert status == 0
    assert errors == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
@pytest.mark.usefixtures("sigint_works")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", ["client", "second signal", "grace"])
async def test_echo_server_drains(number: signal.Signals, first: str) -> None:
    """Ctrl-C and SIGTERM end it with status 0 and no traceback, at each kind of end.

    An echo that is cut is reset.
    """
    with trio.fail_after(BOUND):
        command = example("echo_server.py", 0)
        async with await start(*command, stderr=subprocess.PIPE) as server:
            assert server.process.stderr is not None
            url = await read_url(server)
            async with await open_upgrade(url, "echo") as (_, stream, _):
                # The switch is over for the server, too, when the echo has come.
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                async with await open_connection(url) as idle:
                    await (await idle.request("GET", "/")).read()
                    server.process.send_signal(number)
                    # The idle connection is closed, so the drain has begun.
                    with pytest.raises(PeerGone):
                        while True:
                            await (await idle.request("GET", "/")).read()
                await stream.send_all(b"y")
                assert await stream.receive_some() == b"y"
                began = trio.current_time()
                if first == "client":
                    await stream.send_eof()
                elif first == "second signal":
                    server.process.send_signal(number)
                status = await server.process.wait()
                taken = trio.current_time() - began
                if first == "client":
                    assert await stream.receive_some() == b""
                else:
                    with pytest.raises(trio.BrokenResourceError):
                        await stream.receive_some()
            errors = await server.process.stderr.receive_some()

    assert status == 0
    assert errors == b""
    assert (taken > 1) == (first == "grace")


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
async def test_asgi_app() -> None:
    """Starlette answers, and an offer of echo switches on the same port."""
    pytest.importorskip("starlette", reason="needs starlette: pip install --group asgi")
    with trio.fail_after(BOUND):
        async with await start(*example("asgi_app.py", 0)) as server:
            url = await read_url(server)
            async with await open_connection(url) as connection:
                home = await connection.request("GET", "/")
                assert await home.read() == b'{"greeting":"hello"}'
                ticks = await connection.request("GET", "/ticks")
                assert await ticks.read() == b"tick 0\ntick 1\ntick 2\n"
            echoed = await run(*example("echo_client.py", url), stdin=b"raw")
            server.process.send_signal(signal.SIGTERM)
            assert await server.read_line() == "goodbye"
            assert await server.process.wait() == 0

    assert echoed.stdout == b"raw"
    assert echoed.returncode == 0


async def test_reverse_proxy(nursery: trio.Nursery) -> None:
    """Requests and upgrades go on; a line says what each tunnel has carried."""

    async def app(request: Request) -> Response | Upgrade:
        if request.upgrades:
            return Upgrade("websocket", echo)
        return Response(200, request.path)

    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    with trio.fail_after(BOUND):
        async with await start(*example("reverse_proxy.py", server.url, 0)) as proxy:
            url = await read_url(proxy)
            async with await open_connection(url) as connection:
                response = await connection.request("GET", "/a")
                assert await response.read() == b"/a"
                response = await connection.request("GET", "/healthy")
                assert await response.read() == b"0 tunnels\n"
            async with await open_upgrade(url + "/chat", "websocket") as (_, stream, _):
                await stream.send_all(b"hello")
                assert await stream.receive_exactly(5) == b"hello"
            line = await proxy.read_line()
    nursery.cancel_scope.cancel()

    assert re.fullmatch(r"/chat: 5 bytes up, 5 down, \d+\.\d s, eof by client", line), (
        line
    )


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name
)
def test_example_has_metadata(path: Path) -> None:
    """PEP 723 metadata names this package and the Pythons that it supports."""
    (block,) = SCRIPT_BLOCK.findall(path.read_text())
    # Without the extra a carrier is left out.
    users = re.compile(r"trio_upgrade\.(?:carrier|websocket)")
    extra = "[websocket]" if users.search(path.read_text()) else ""
    metadata = tomllib.loads(re.sub(r"^# ?", "", block, flags=re.MULTILINE))

    assert metadata == {
        "requires-python": PROJECT["requires-python"],
        "dependencies": [PROJECT["name"] + extra, *OTHER_PACKAGES.get(path.name, [])],
    }


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name
)
def test_example_shows_its_command_line(path: Path) -> None:
    """The docstring has the command line."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring is not None
    assert re.search(rf"^    .*python examples/{path.name}\b", docstring, re.MULTILINE)


async def test_start_tls(tmp_path: Path) -> None:
    """The greetings are in clear text, the rest is in TLS, and it ends by itself."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    # The authority follows it, so that a client that trusts the file trusts the chain.
    chain, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for blob in (*certificate.cert_chain_pems, authority.cert_pem):
        blob.write_to_path(str(chain), append=True)
    certificate.private_key_pem.write_to_path(str(key))
    result = await run(*example("start_tls.py", chain, key))

    assert result.stderr == b""
    assert result.returncode == 0
    assert result.stdout.decode().splitlines() == [
        "server: in clear text b'hello, may we talk?'",
        "client: in clear text b'ready for TLS'",
        "server: in TLS b'a secret'",
        "client: in TLS b'a secret'",
    ]


class TestFollow:
    """examples/follow.py: which redirects it follows, and with which credentials."""

    async def follow(
        self, nursery: trio.Nursery, *answers: Response, userinfo: str = "u:p@"
    ) -> tuple[list[tuple[str, str | None]], bytes, int | None]:
        """Run it against these answers; return the requests, the output and status."""
        asked: list[tuple[str, str | None]] = []
        script = list(answers)

        async def app(request: Request) -> Response | Upgrade:
            asked.append((request.target, request.headers.get("authorization")))
            return script.pop(0) if script else Upgrade("echo", echo)

        server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
        url = server.url.replace("//", f"//{userinfo}") + "/start"
        result = await run(*example("follow.py", url))
        return asked, result.stdout, result.returncode

    async def test_redirects(self, nursery: trio.Nursery) -> None:
        """Relative redirects are followed; no challenge, no credentials."""
        asked, output, status = await self.follow(
            nursery,
            Response(301, headers={"Location": "next?x"}),
            Response(307, headers={"Location": "/last"}),
        )

        assert asked == [("/start", None), ("/next?x", None), ("/last", None)]
        assert (output, status) == (b"hello\n", 0)

    async def test_challenge(self, nursery: trio.Nursery) -> None:
        """A 401 is answered once; later requests to the origin have credentials, too."""
        challenge = Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        asked, _, status = await self.follow(
            nursery, challenge, Response(302, headers={"Location": "/b"})
        )
        basic = "Basic dTpw"

        assert asked == [("/start", None), ("/start", basic), ("/b", basic)]
        assert status == 0
        asked, _, status = await self.follow(nursery, challenge, challenge)
        assert [value for _, value in asked] == [None, basic]
        assert status == 1

    async def test_other_origin(self, nursery: trio.Nursery) -> None:
        """Another origin gets no credentials, not even those that a Location names."""
        challenge = Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        seen: list[str | None] = []

        async def app(request: Request) -> Response:
            seen.append(request.headers.get("authorization"))
            return challenge

        other = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
        location = other.url.replace("//", "//a:b@")
        asked, _, status = await self.follow(
            nursery, challenge, Response(302, headers={"Location": location})
        )

        assert len(asked) == 2
        assert seen == [None]
        assert status == 1

    @pytest.mark.parametrize(
        "response",
        [
            Response(404),
            Response(302),
            Response(302, headers={"Location": "ftp://x/"}),
            Response(407),
            Response(401, headers={"WWW-Authenticate": "Negotiate"}),
        ],
    )
    async def test_refusal(self, nursery: trio.Nursery, response: Response) -> None:
        """Any other response is a refusal."""
        asked, _, status = await self.follow(nursery, response)

        assert len(asked) == 1
        assert status == 1

    async def test_circle(self, nursery: trio.Nursery) -> None:
        """A circle of redirects ends."""
        circle = [Response(302, headers={"Location": "/start"})] * 10
        asked, _, status = await self.follow(nursery, *circle, userinfo="")

        assert len(asked) == 6
        assert status == 1


class TestObserving:
    """examples/observing.py, whose output is read by the parsers of others."""

    async def test_access_log(self) -> None:
        """Each answer and each switch is a line in Common Log Format."""
        before = datetime.now(UTC).replace(microsecond=0)
        async with Observed() as observed:
            await observed.ask(b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n")
            await observed.ask(b'GET /"\\x HTTP/1.0\r\n\r\n')
            await observed.ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            await observed.ask(b"\x16\x03\x01\r\n\r\n")
            await observed.ask(UP)
            lines = [await observed.read_line() for _ in range(5)]
        parse = LogParser(COMMON).parse
        entries = [parse(line) for line in lines]

        assert [
            (entry.request_line, entry.final_status, entry.bytes_sent)
            for entry in entries
        ] == [
            ("GET /a?b=c HTTP/1.1", 200, 5),
            ('GET /"\\x HTTP/1.0', 200, 5),
            ("HEAD / HTTP/1.1", 200, None),
            (None, 400, entries[3].bytes_sent),
            ("GET /u HTTP/1.1", 101, None),
        ]
        assert entries[3].bytes_sent > 0
        for entry in entries:
            assert entry.remote_host == HOST
            assert entry.remote_logname is None
            assert entry.remote_user is None
            assert before <= entry.request_time <= datetime.now(UTC)

    async def test_metrics(self) -> None:
        """The metrics are Prometheus's text format, with the counts of the traffic."""
        async with Observed() as observed:
            for wire in (get("/"), get("/"), b"\x00\r\n\r\n", UP):
                await observed.ask(wire)
            # The last connection ends in the server's own time.
            samples: dict[str, float] = {}
            while samples.get('connections_ended_total{reason="returned"}') != 1:
                answer = await observed.ask(get("/metrics", "Connection: close"))
                head, _, text = answer.partition(b"\r\n\r\n")
                samples = read_metrics(text.decode())

        assert b"Content-Type: text/plain; version=0.0.4" in head
        # The present request is counted when it is answered.
        asked = samples["http_request_duration_seconds_count"]
        assert samples['http_request_duration_seconds_bucket{le="+Inf"}'] == asked
        assert samples["http_request_duration_seconds_sum"] > 0
        assert samples['http_responses_total{class="2xx"}'] == asked - 1
        assert samples['http_responses_total{class="4xx"}'] == 1
        assert samples['http_responses_total{class="5xx"}'] == 0
        assert samples["http_responses_cut_total"] == 0
        assert samples["http_requests_refused_total"] == 1
        assert samples['http_switches_total{protocol="echo"}'] == 1
        assert samples["app_errors_total"] == 0
        assert samples["tls_failures_total"] == 0
        assert samples['connections{state="busy"}'] >= 1
        assert samples['connections{state="upgraded"}'] == 0
        assert samples['connections_ended_total{reason="malformed"}'] == 1


class Observed:
    """The example, running."""

    async def __aenter__(self) -> Self:
        command = example("observing.py", 0)
        self._program = await start(*command, stderr=subprocess.PIPE)
        assert self._program.process.stderr is not None
        words, _, url = (await self._program.process.stderr.receive_some()).rpartition(
            b" "
        )
        assert words == b"listening at"
        self._port = urlsplit(url.strip().decode()).port
        self.read_line = self._program.read_line
        return self

    async def __aexit__(self, *exc: object) -> None:
        async with self._program:
            if exc == (None, None, None):
                self._program.process.send_signal(signal.SIGTERM)
                assert await self._program.process.wait() == 0

    async def ask(self, wire: bytes) -> bytes:
        """Send bytes and an end on a connection of their own; return the answer."""
        assert self._port is not None
        async with await trio.open_tcp_stream(HOST, self._port) as stream:
            await stream.send_all(wire)
            await stream.send_eof()
            return b"".join([bytes(chunk) async for chunk in stream])


def read_metrics(text: str) -> dict[str, float]:
    """Parse Prometheus's text format; return the values by name and labels."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = ",".join(
                f'{key}="{value}"' for key, value in sample.labels.items()
            )
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in values
            values[name] = sample.value
    return values

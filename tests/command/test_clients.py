"""connect, tunnel and websocket, with servers in a thread."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from functools import partial

import pytest
import trio

from trio_upgrade import (
    Response,
    Tunnel,
    Upgrade,
    serve_ssl_over_tcp,
    serve_unix,
)
from trio_upgrade._command import echo as echo_command, session, websocket as command
from trio_upgrade._command.meter import Meter
from trio_upgrade.carrier import accept_carrier
from trio_upgrade.websocket import accept_websocket

from ..apps import echo
from .running import HOST, run, run_beside, serving

SECRETS = ("hunter2", "Bearer", "dXNlcjpodW50ZXIy", "sesame")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_connect() -> None:
    """What is sent comes back; the end of the input is a half-close; the status is 0."""
    with serving(echo_command.answer) as url:
        result = run("connect", url, "any/1", "other", stdin=b"hello\n")

    assert result == (0, b"hello\n", "")


def test_verbose_without_secrets(tmp_path) -> None:
    """-v shows both header sections, with everything masked that is a secret."""
    (tmp_path / "fields").write_text("X-Plain: sesame\n")

    async def app(_request):
        headers = {"Set-Cookie": "a=sesame", "Location": "/x?code=sesame"}
        return Upgrade("echo", echo, headers)

    with serving(app) as url:
        result = run(
            *("connect", "-v", url.replace("//", "//user:hunter2@") + "/a?b=sesame"),
            *("echo", "-H", "Cookie: sesame", "--header-file", tmp_path / "fields"),
            *("-H", "Accept: text/plain"),
            stdin=b"x",
        )

    assert result.status == 0
    assert result.stderr.splitlines() == [
        "> GET /a?*** HTTP/1.1",
        f"> Host: {url.removeprefix('http://')}",
        "> Connection: Upgrade",
        "> Upgrade: echo",
        "> Cookie: ***",
        "> X-Plain: ***",
        "> Accept: text/plain",
        "> Authorization: ***",
        ">",
        "< HTTP/1.1 101 Switching Protocols",
        "< Connection: Upgrade",
        "< Upgrade: echo",
        "< Set-Cookie: ***",
        "< Location: /x?***",
        "<",
    ]


def test_secrets_from_elsewhere(tmp_path, monkeypatch) -> None:
    """A URL, field or subprotocol of a file or variable is not shown in any part.

    Neither are credentials that stand in other fields.
    """
    monkeypatch.setenv("THE_FIELD", "X-Plain: sesame-9")
    monkeypatch.setenv("THE_SUBPROTOCOL", "sesame-8")

    async def app(request):
        headers = {"X-Echo": request.headers.get("X-Plain", "none")}
        if "websocket" in request.upgrades:
            return accept_websocket(
                request, lambda ws: ws.aclose(), subprotocols=["sesame-8"]
            )
        return Response(403, headers=headers)

    with serving(app) as url:
        (tmp_path / "url").write_text(f"{url}/hook/sesame?x=sesame")
        words = (f"@{tmp_path}/url", "-v", "-H", "X-Scheme: Bearer sesame")
        refused = run("connect", *words, "echo", "-H", "env:THE_FIELD")
        offers = ("env:THE_SUBPROTOCOL", "base64url.bearer.sesame")
        options = [word for offer in offers for word in ("--subprotocol", offer)]
        websocket = run("websocket", *words, *options)

    assert (refused.status, websocket.status) == (1, 0)
    assert "> GET /***?*** HTTP/1.1\n" in refused.stderr
    assert "> X-Scheme: Bearer ***\n" in refused.stderr
    assert "< X-Echo: ***\n" in refused.stderr
    assert f"{url}/***" in refused.stderr
    assert "Sec-WebSocket-Protocol: ***\n" in websocket.stderr
    assert "sesame" not in refused.stderr + websocket.stderr


def test_secret_target(tmp_path, caplog) -> None:
    """The path of an endpoint from a file is not logged."""

    def act(streams):
        port = int(streams.read_url().rpartition(":")[2])
        with socket.create_connection((HOST, port), 10) as sock:
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        os.kill(os.getpid(), signal.SIGTERM)

    async def app(_request):
        return Response(403)

    with serving(app) as url:
        (tmp_path / "url").write_text(f"{url}/hook/sesame")
        words = ("tunnel", f"@{tmp_path}/url", "--protocol", "x", "--listen", "0")
        assert run_beside(*words, act=act).status == 0

    assert "no tunnel to http" in caplog.text
    assert "sesame" not in caplog.text


def test_refusal() -> None:
    """A refusal is one line and the status 1; with -v its header section is shown."""

    async def app(_request):
        return Response(401, "no\n", {"WWW-Authenticate": 'Basic realm="x"'})

    with serving(app) as url:
        url = url.replace("//", "//user:hunter2@")
        quiet = run("connect", f"{url}/?q=sesame", "echo")
        verbose = run("connect", "-v", url, "echo")

    assert quiet.status == verbose.status == 1
    assert quiet.stderr.count("\n") == 1
    assert "refused with 401 Unauthorized" in quiet.stderr
    assert '< WWW-Authenticate: Basic realm="x"' in verbose.stderr
    assert not any(word in quiet.stderr + verbose.stderr for word in SECRETS)


def test_unreachable() -> None:
    """A server that is not there is one line and the status 1."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
    result = run("connect", f"http://{HOST}:{port}/", "echo", "--timeout", "none")

    assert result.status == 1
    assert "Connection refused" in result.stderr
    assert result.stderr.count("\n") == 1


def test_silent_server() -> None:
    """The opening has a limit."""
    with socket.create_server((HOST, 0)) as sock:
        url = f"http://{HOST}:{sock.getsockname()[1]}"
        for words in (["connect", url, "echo"], ["websocket", url]):
            result = run(*words, "--timeout", "0.05")

            assert result.status == 1
            assert result.stderr.endswith("no answer within 0.05 seconds\n")


def test_reset() -> None:
    """A connection that breaks is a failure."""

    async def handle(_request, stream, _head):
        await stream.reset()

    async def app(_request):
        return Upgrade("echo", handle)

    with serving(app) as url:
        result = run("connect", url, "echo")

    assert result.status == 1
    assert result.stderr == "trio-upgrade connect: the connection was reset\n"


def test_keep_open() -> None:
    """--keep-open passes no end on: the server ends, here after all bytes."""

    async def handle(_request, stream, _head):
        await stream.send_all(await stream.receive_exactly(5))
        with trio.move_on_after(0.05) as scope:
            assert await stream.receive_some() != b""
        assert scope.cancelled_caught
        await stream.send_all(b" open")

    async def app(_request):
        return Upgrade("echo", handle)

    with serving(app) as url:
        result = run("connect", url, "echo", "--keep-open", stdin=b"hello")

    assert result == (0, b"hello open", "")


def test_unread_input() -> None:
    """A server that ends first is no failure, though input is left over."""

    async def handle(_request, stream, _head):
        await stream.send_all(b"enough")

    async def app(_request):
        return Upgrade("echo", handle)

    with serving(app) as url:
        assert run("connect", url, "echo", stdin=bytes(60000)).status == 0


def test_method_and_body_on_a_unix_socket(tmp_path) -> None:
    """As Docker wants it: POST with a body, to a Unix socket."""

    async def app(request):
        assert request.method == "POST"
        assert await request.read() == b"{}"
        return Upgrade("tcp", echo)

    with serving(app, serve_unix, tmp_path / "socket") as url:
        words = ("--method", "POST", "--body", "{}")
        assert run("connect", url, "tcp", *words, stdin=b"x").stdout == b"x"


@pytest.mark.parametrize("way", ["ca", "insecure", "name", "client"])
def test_tls(tmp_path, way: str) -> None:
    """The files for TLS are used, and the half-close works over TLS."""
    import trustme

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = authority.issue_cert("localhost")
    certificate.configure_cert(server)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(files[0]))
    certificate.private_key_pem.write_to_path(str(files[1]))
    options = {
        "ca": ["--ca-file", ca],
        "insecure": ["--insecure"],
        "name": ["--ca-file", ca, "--server-name", "localhost"],
        "client": ["--insecure", "--client-cert", *files],
    }[way]
    serve = serve_ssl_over_tcp
    with serving(echo_command.answer, serve, 0, server, host=HOST) as url:
        if way == "ca":
            url = url.replace(HOST, "localhost")
        result = run("connect", url, "echo", *options, stdin=b"secure")

    assert result == (0, b"secure", "")


def test_reader_gone() -> None:
    """Without a reader of standard output the program ends as by SIGPIPE, silently."""

    def act(streams):
        os.close(streams.stdout)
        streams.stdout = os.open(os.devnull, os.O_RDONLY)

    async def handle(_request, stream, _head):
        while True:
            await stream.send_all(bytes(1000))
            await trio.sleep(0.01)

    async def app(_request):
        return Upgrade("flood", handle)

    with serving(app) as url:
        result = run_beside("connect", url, "flood", act=act)

    assert (result.status, result.stderr) == (141, "")


def test_output_that_fails() -> None:
    """A disk that is full is a failure, not an end as by SIGPIPE."""
    with serving(echo_command.answer) as url, open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "trio_upgrade", "connect", url, "echo"]
        found = subprocess.run(
            command, input=b"x", stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert found.returncode == 1
    assert found.stderr == (
        b"trio-upgrade connect: cannot write to standard output: "
        b"No space left on device\n"
    )


def test_input_that_fails() -> None:
    """Input that cannot be read is a failure; the server gets no end, but a reset."""
    ended: list[BaseException | None] = []

    async def handle(_request, stream, _head):
        try:
            await stream.receive_some()
        except BaseException as exc:
            ended.append(exc)
            raise
        ended.append(None)

    async def app(_request):
        return Upgrade("echo", handle)

    with serving(app) as url:
        command = [sys.executable, "-m", "trio_upgrade", "connect", url, "echo"]
        with open(os.devnull, "wb") as null:
            found = subprocess.run(
                command, stdin=null, capture_output=True, check=False
            )

    assert found.returncode == 1
    assert found.stderr == (
        b"trio-upgrade connect: cannot read standard input: Bad file descriptor\n"
    )
    assert isinstance(ended[0], trio.BrokenResourceError)


def test_interrupted() -> None:
    """Ctrl-C ends with 130 and without a traceback."""

    async def handle(_request, stream, _head):
        await stream.send_all(b"x")
        await trio.sleep_forever()

    async def app(_request):
        return Upgrade("silence", handle)

    def act(streams):
        # It has begun: in the opening an interrupt could lose a socket.
        assert os.read(streams.stdout, 1) == b"x"
        os.kill(os.getpid(), signal.SIGINT)

    with serving(app) as url:
        result = run_beside("connect", url, "silence", act=act)

    assert (result.status, result.stderr) == (130, "")


def test_no_socks(monkeypatch) -> None:
    """Without the extra for SOCKS one line says what to install."""
    # As if it were not installed, also if another test has imported it.
    monkeypatch.setitem(sys.modules, "python_socks.async_.trio.v2", None)
    result = run("tunnel", "h:1", "--via", "socks5h://user:hunter2@h")

    assert result.status == 1
    assert "trio-upgrade[socks]" in result.stderr
    assert "hunter2" not in result.stderr


################################################################
# tunnel
################################################################


async def tunnels(request):
    """Open a tunnel to anywhere, which echoes after the authority."""
    name = str(request.authority).encode()

    async def handle(request, stream, head):
        await stream.send_all(name + b" ")
        await echo(request, stream, head)

    return Tunnel(handle)


def test_tunnel_through_a_proxy(monkeypatch) -> None:
    """--via, or https_proxy of the environment, is asked for the target."""
    with serving(tunnels) as url:
        result = run("tunnel", "host:22", "--via", url, stdin=b"x")
        assert result == (0, b"host:22 x", "")
        assert run("tunnel", "::1", "22", "--via", url).stdout == b"[::1]:22 "
        monkeypatch.setenv("https_proxy", url)
        assert run("tunnel", "host", "22").stdout == b"host:22 "


def test_tunnel_without_a_proxy() -> None:
    """Without a proxy the connection is direct."""
    with serving(echo_command.answer) as url:
        target = url.removeprefix("http://")
        request = b"GET / HTTP/1.0\r\n\r\n"
        assert b" 200 " in run("tunnel", target, "--direct", stdin=request).stdout


@pytest.mark.parametrize("options", [[], ["--carriers"]])
def test_tunnel_to_an_endpoint(options) -> None:
    """The URL of an endpoint is upgraded, or reached by any carrier."""

    async def carry(_request, stream):
        while chunk := await stream.receive_some():
            await stream.send_all(chunk)

    async def app(request):
        if options and "ssh" in request.upgrades:
            return Response(404)
        return accept_carrier(request, "ssh", carry)

    with serving(app) as url:
        words = ("tunnel", f"{url}/ssh", "--protocol", "ssh", *options)
        assert run(*words, stdin=b"through") == (0, b"through", "")


@pytest.mark.parametrize("grace", ["0.05", "none"])
def test_tunnel_of_a_port(grace: str) -> None:
    """Each connection to the port is carried; a signal ends the port, then the rest."""

    def act(streams):
        port = int(streams.read_url().rpartition(":")[2])
        with socket.create_connection((HOST, port), 10) as sock:
            sock.sendall(b"x")
            assert sock.recv(100).startswith(b"h")
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                try:
                    socket.create_connection((HOST, port), 10).close()
                except ConnectionError:
                    break
            if grace == "none":
                os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(ConnectionResetError):
                while sock.recv(100):
                    pass

    with serving(tunnels) as url:
        words = ("tunnel", "host:22", "--via", url, "--listen", "0", "--grace", grace)
        result = run_beside(*words, act=act)

    assert (result.status, result.stderr) == (0, "")


def test_port_whose_tunnels_have_ended() -> None:
    """After a signal the program ends with the last connection."""

    def act(streams):
        streams.read_url()
        os.kill(os.getpid(), signal.SIGINT)

    words = ("tunnel", "host:22", "--direct", "--listen", f"{HOST}:0")
    assert run_beside(*words, act=act).status == 0


def test_port_without_a_tunnel(caplog) -> None:
    """A tunnel that cannot be opened resets its connection, and is logged."""

    async def app(_request):
        return Response(403)

    def act(streams):
        port = int(streams.read_url().rpartition(":")[2])
        with socket.create_connection((HOST, port), 10) as sock:
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
        os.kill(os.getpid(), signal.SIGTERM)

    with serving(app) as url:
        via = url.replace("//", "//user:hunter2@")
        words = ("tunnel", "host:22", "--via", via, "--listen", "0")
        assert run_beside(*words, act=act).status == 0

    assert "no tunnel to host:22: " in caplog.text
    assert "hunter2" not in caplog.text


def test_port_in_use() -> None:
    """A port that cannot be listened on is a failure."""
    with socket.create_server((HOST, 0)) as sock:
        port = sock.getsockname()[1]
        result = run("tunnel", "h:1", "--direct", "--listen", port)

    assert result.status == 1
    assert f"cannot listen on {HOST}:{port}: " in result.stderr


################################################################
# websocket
################################################################


async def websockets(request, **options):
    """Echo messages; some are orders to close."""

    async def handle(websocket):
        async for message in websocket:
            if message == "binary":
                await websocket.send(b"\0\1")
            elif message == "close":
                await websocket.aclose(1011, "a \x1bbug")
            elif message == "bye":
                await websocket.aclose(1000)
            elif message == "long":
                await websocket.send("x" * (2**20 + 1))
            elif message == "lose":
                await trio.aclose_forcefully(websocket.stream)
            else:
                await websocket.send(message)

    return accept_websocket(request, handle, **options)


def test_websocket() -> None:
    """Each line is a message and each message a line; a last line may be unfinished."""
    app = partial(websockets, subprotocols=["chat"])
    with serving(app) as url:
        words = ("websocket", url, "--wait", "0.1", "--subprotocol", "chat")
        result = run(*words, stdin=b'{"a": 1}\r\n\nbinary\nlast')

    assert result == (0, b'{"a": 1}\n\nAAE=\nlast\n', "")


def test_websocket_verbose() -> None:
    """-v shows both header sections here, too."""
    with serving(websockets) as url:
        words = ("websocket", "-v", url, "--wait", "none", "--origin", "http://o")
        result = run(*words, stdin=b"bye\n")

    assert result.status == 0
    assert "> Sec-WebSocket-Key: ***\n" in result.stderr
    assert "> Origin: http://o\n" in result.stderr
    assert "< HTTP/1.1 101 Switching Protocols\n" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"close\n", "the WebSocket was closed with 1011 a \\x1bbug"),
        (b"lose\n", "the connection was lost"),
        (b"\xff\n", "a line is not UTF-8: it cannot be a message"),
    ],
)
def test_websocket_failures(line: bytes, message: str) -> None:
    """A bad close, a lost connection and a line that is no text are failures."""
    with serving(websockets) as url:
        result = run("websocket", url, stdin=line)

    assert (result.status, result.stdout) == (1, b"")
    assert result.stderr == f"trio-upgrade websocket: {message}\n"


def test_websocket_long_message() -> None:
    """A message that is too long is told apart from a lost connection."""
    with serving(websockets) as url:
        result = run("websocket", url, stdin=b"long\n")

    assert result.status == 1
    assert "the WebSocket had to be closed: 1009 (message too big)" in result.stderr


def test_websocket_long_line(monkeypatch) -> None:
    """A line without an end is not kept for ever."""
    monkeypatch.setattr(command, "_MOST_BYTES", 10)
    with serving(websockets) as url:
        result = run("websocket", url, stdin=bytes(100))

    assert result.stderr.endswith("a line is longer than 10 bytes\n")


def test_websocket_without_the_extra(monkeypatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "trio_upgrade.websocket", None)
    result = run("websocket", "ws://h")

    assert result.status == 1
    assert 'pip install "trio-upgrade[websocket]"' in result.stderr


async def test_silence_after_the_end(autojump_clock) -> None:
    """When the peer has ended, input is read on only while bytes move."""
    is_over = trio.Event()
    meter = Meter(is_shown=False, is_live=False)

    async def move() -> None:
        await trio.sleep(50)
        meter.sent.left_to_right += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        await session._wait_silence(is_over, meter)
    assert trio.current_time() == 120

    is_over.set()
    await session._wait_silence(is_over, meter)
    assert trio.current_time() == 120

"""HAProxy in front of us: the PROXY protocol, and X-Forwarded-For."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import (
    Authority,
    EndReason,
    Forwarded,
    Request,
    Response,
    Server,
    Upgrade,
    forwarded,
    open_connection,
    open_server,
    open_upgrade,
    serve_ssl_over_tcp,
    serve_tcp,
    serve_unix,
)

from ..apps import echo
from ..recording import Recorder
from ..tls import make_tls_contexts
from .programs import HOST, start, wait_listening

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

pytestmark = pytest.mark.peer("haproxy")

CONFIG = """
defaults
    mode {mode}
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend clients
    bind {bind}
    default_backend server
backend server
    {backend}
    server server {server} {options}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


async def app(request: Request) -> Response | Upgrade:
    if request.path == "/echo":
        return Upgrade("echo", echo)
    found = forwarded(request, [HOST])
    peers = (request.peer, request.transport_peer, request.scheme, found)
    return Response(200, repr(peers))


class Balancer:
    """HAProxy in front of one server; the listening address is its own or a socket."""

    def __init__(self, folder: Path, *, unix: bool = False) -> None:
        self.port = free_port()
        self.path = folder / "clients"
        self.unix = unix
        self.config = folder / "haproxy.cfg"

    def run(
        self, server: str, options: str, *, mode: str = "tcp", backend: str = ""
    ) -> Any:
        """Return the start of HAProxy, an awaitable."""
        self.config.write_text(
            CONFIG.format(
                bind=f"unix@{self.path}" if self.unix else f"{HOST}:{self.port}",
                mode=mode,
                server=server,
                options=options,
                backend=backend,
            )
        )
        return start("haproxy", "-db", "-q", "-f", str(self.config))

    async def dial(self) -> trio.SocketStream:
        if not self.unix:
            await wait_listening(self.port)
            return await trio.open_tcp_stream(HOST, self.port)
        while True:
            try:
                return await trio.open_unix_socket(self.path)
            except OSError:
                # It does not listen yet, and does not say when it does.
                await trio.sleep(0.01)


async def ask(stream: trio.abc.Stream, url: str = "http://x/") -> str:
    async with await open_connection(url, stream=stream) as connection:
        response = await connection.request("GET", "/")
        return (await response.read()).decode()


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_client_is_known(option: str, kind: str, tmp_path: Path) -> None:
    """The app has the address of HAProxy's client, in plain text and before TLS."""
    balancer = Balancer(tmp_path)
    client, context = make_tls_contexts()
    trusted: Any = {"proxy_protocol": [HOST, "unix"]}
    path = tmp_path / "server"
    opened = {
        "tcp": open_server(serve_tcp, app, 0, host=HOST, **trusted),
        "tls": open_server(serve_ssl_over_tcp, app, 0, context, host=HOST, **trusted),
        "unix": open_server(serve_unix, app, path, **trusted),
    }[kind]
    async with opened as server:
        address = f"unix@{path}" if kind == "unix" else f"{HOST}:{server.port}"
        async with await balancer.run(address, option):
            stream: Any = await balancer.dial()
            own = stream.socket.getsockname()
            if kind == "tls":
                stream = secure(stream, client)
            found = await ask(stream)
            peer, transport, scheme, last = eval_peers(found)

            assert peer == last == own
            assert scheme == ("https" if kind == "tls" else "http")
            if kind == "unix":
                assert transport is None
            else:
                assert transport[0] == HOST
                assert transport != own
            stream = await balancer.dial()
            if kind == "tls":
                stream = secure(stream, client)
            async with await open_upgrade("http://x/echo", "echo", stream=stream) as (
                _,
                upgraded,
                _,
            ):
                await upgraded.send_all(b"hello")
                assert await upgraded.receive_some() == b"hello"


def secure(stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
    return trio.SSLStream(
        stream, context, server_hostname="localhost", https_compatible=True
    )


def eval_peers(text: str) -> tuple[Any, Any, Any, Any]:
    """Return what the app has found, from its repr."""
    names = {"Forwarded": Forwarded, "Authority": Authority}
    peer, transport, scheme, found = eval(text, names)
    return peer, transport, scheme, found.peer


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_client_on_a_unix_socket(option: str, tmp_path: Path) -> None:
    """Version 1 cannot say it; the app then has the balancer's address."""
    balancer = Balancer(tmp_path, unix=True)
    opened = open_server(serve_tcp, app, 0, host=HOST, proxy_protocol=[HOST])
    async with opened as server:
        async with await balancer.run(f"{HOST}:{server.port}", option):
            peer, transport, _, _ = eval_peers(await ask(await balancer.dial()))

            assert peer in (transport, None, str(balancer.path))
            assert transport[0] == HOST


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_check_of_health(option: str, tmp_path: Path) -> None:
    """HAProxy's own connections name no client: LOCAL, or its own address."""
    recorder, checked = Recorder(), trio.Event()

    async def healthy(request: Request) -> Response:
        assert request.peer is not None
        assert request.peer[0] == HOST
        if request.path == "/health":
            checked.set()
        return Response(200)

    opened = open_server(
        serve_tcp,
        healthy,
        0,
        host=HOST,
        proxy_protocol=[HOST],
        observer=recorder,
        strict=True,
    )
    async with opened as server:
        check = f"{option} check inter 50ms check-send-proxy"
        backend = "option httpchk GET /health"
        balancer = Balancer(tmp_path)
        async with await balancer.run(f"{HOST}:{server.port}", check, backend=backend):
            await checked.wait()
    assert not {EndReason.MALFORMED, EndReason.ERROR} & {*recorder.reasons}


async def test_without_its_header(tmp_path: Path) -> None:
    """A balancer that sends no header gets no answer."""
    recorder = Recorder()
    opened = open_server(
        serve_tcp, app, 0, host=HOST, proxy_protocol=[HOST], observer=recorder
    )
    async with opened as server:
        balancer = Balancer(tmp_path)
        async with await balancer.run(f"{HOST}:{server.port}", ""):
            stream = await balancer.dial()
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                with suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
    assert recorder.reasons[-1] is EndReason.MALFORMED


@pytest.mark.parametrize("both", [False, True])
async def test_forwarded_for(both: bool, tmp_path: Path) -> None:
    """X-Forwarded-For of HAProxy in HTTP mode, and with the PROXY protocol below it."""
    options: Any = {"proxy_protocol": [HOST]} if both else {}
    opened = open_server(serve_tcp, app, 0, host=HOST, **options)
    async with opened as server:
        assert isinstance(server, Server)
        balancer = Balancer(tmp_path)
        async with await balancer.run(
            f"{HOST}:{server.port}",
            "send-proxy-v2" if both else "",
            mode="http",
            backend=(
                "option forwardfor\n"
                "    http-request set-src req.hdr(X-Client)\n"
                "    http-request set-header X-Forwarded-Proto https"
            ),
        ):
            stream = await balancer.dial()
            async with await open_connection("http://x", stream=stream) as connection:
                fields = {"X-Client": "192.0.2.43", "X-Forwarded-For": "1.1.1.1"}
                response = await connection.request("GET", "/", headers=fields)
                text = (await response.read()).decode()

    peer, transport, _, found = eval_peers(text)
    assert transport[0] == HOST
    assert found[0] == "192.0.2.43"
    # With both the peer is the client already, and no proxy that is to be believed.
    assert peer[0] == ("192.0.2.43" if both else HOST)
    assert ("scheme='https'" in text) is not both

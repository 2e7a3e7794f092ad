"""The client over every way to a server, also through real proxy programs."""

from __future__ import annotations

import socket
import ssl
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trustme

from trio_upgrade import (
    IllegalSwitch,
    PeerGone,
    Proxy,
    Response,
    SocksRefused,
    TLSFailed,
    TunnelRefused,
    Upgrade,
    UpgradeRefused,
    open_connection,
    open_tunnel,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
)
from trio_upgrade.proxy import ForwardProxy

from ..apps import echo
from ..tls import make_tls_contexts
from ..wire import SWITCHED
from .programs import HOST, example, read_url, start, wait_listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio_upgrade import App, Request

# The ways by name: the proxies, nearest first, and the scheme of the server.
WAYS = {
    "tcp": ([], "http"),
    "tls": ([], "https"),
    "unix": ([], "http+unix"),
    "tls over unix": ([], "https+unix"),
    "example": (["example"], "http"),
    "example, tls": (["example"], "https"),
    "tinyproxy": (["tinyproxy"], "http"),
    "tinyproxy, tls": (["tinyproxy"], "https"),
    "https": (["https"], "http"),
    "https, tls": (["https"], "https"),
    "socks5": (["socks5"], "http"),
    "socks5h, tls": (["socks5h"], "https"),
    "tinyproxy, https": (["tinyproxy", "https"], "http"),
    "https, socks5h, tls": (["https", "socks5h"], "https"),
    "socks5h, https, tinyproxy, tls": (["socks5h", "https", "tinyproxy"], "https"),
}
PROGRAMS = {"tinyproxy": "tinyproxy", "socks5": "microsocks", "socks5h": "microsocks"}


class Way(NamedTuple):
    """How to open a connection to a server.

    Attributes:
        url: The URL of the server.
        options: The options for ``open_upgrade`` and the like.
        listeners: The listeners of the server.
        proxied: Whether there is a proxy between.
    """

    url: str
    options: dict[str, Any]
    listeners: list[trio.abc.Listener[trio.abc.Stream]]
    proxied: bool


def marks(proxies: list[str]) -> list[pytest.MarkDecorator]:
    return [
        pytest.mark.peer(PROGRAMS[name], required=True)
        for name in proxies
        if name in PROGRAMS
    ]


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of the client and of the server."""
    return make_tls_contexts()


@pytest.fixture(
    params=[
        pytest.param(way, id=name, marks=marks(way[0])) for name, way in WAYS.items()
    ]
)
async def way(request, nursery, tmp_path, contexts) -> AsyncIterator[Way]:
    """Each way to a server in turn."""
    proxies, scheme = request.param
    client_context, server_context = contexts
    options: dict[str, Any] = {}
    async with trio.open_nursery() as programs:
        if proxies:
            make = partial(
                open_proxy, nursery=programs, folder=tmp_path, contexts=contexts
            )
            options["via"] = [await make(name) for name in proxies]
        listeners, url = await listen(scheme, tmp_path, server_context)
        if scheme.startswith("https"):
            options["ssl_context"] = client_context
        yield Way(url, options, listeners, bool(proxies))
        programs.cancel_scope.cancel()
    for listener in listeners:
        await listener.aclose()


async def listen(
    scheme: str, folder: Path, server_context: ssl.SSLContext
) -> tuple[list[trio.abc.Listener[trio.abc.Stream]], str]:
    """Open the listener of a server; return it and its URL."""
    if scheme.endswith("+unix"):
        path = str(folder / "socket")
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        listener: Any = trio.SocketListener(sock)
        url = f"{scheme}://{path.replace('/', '%2F')}"
    else:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        host = "localhost" if scheme == "https" else HOST
        url = f"{scheme}://{host}:{listener.socket.getsockname()[1]}"
    if scheme.startswith("https"):
        listener = trio.SSLListener(listener, server_context, https_compatible=True)
    return [listener], url


async def open_proxy(
    name: str,
    *,
    nursery: trio.Nursery,
    folder: Path,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> str | Proxy:
    """Start a proxy; it ends with the nursery."""
    if name == "https":
        app = ForwardProxy(ports=range(1, 65536), networks=["127.0.0.0/8"])
        serve = partial(serve_ssl_over_tcp, app, 0, contexts[1], host=HOST)
        server = await nursery.start(serve)
        port = server.url.rpartition(":")[2]
        return Proxy(f"https://localhost:{port}", ssl_context=contexts[0])
    url: str = await nursery.start(run_proxy, name, folder)
    return url


async def run_proxy(
    name: str, folder: Path, *, task_status: trio.TaskStatus[str]
) -> None:
    """Run a proxy program, and report its URL when it listens."""
    if name == "example":
        async with await start(
            *example("connect_proxy.py", 0, "--any-port", "127.0.0.0/8")
        ) as proxy:
            task_status.started(await read_url(proxy))
            await trio.sleep_forever()
    port = find_free_port()
    if name == "tinyproxy":
        config = folder / "tinyproxy.conf"
        lines = (f"Port {port}", f"Listen {HOST}", "BasicAuth user secret")
        config.write_text("\n".join([*lines, "Timeout 60", "LogLevel Critical", ""]))
        command, scheme = ["tinyproxy", "-d", "-c", str(config)], "http"
    else:
        command = [*("microsocks", "-i", HOST, "-p", str(port))]
        command += ["-u", "user", "-P", "secret"]
        scheme = name
    async with await start(*command, stderr=subprocess.DEVNULL):
        await wait_listening(port)
        task_status.started(f"{scheme}://user:secret@{HOST}:{port}")
        await trio.sleep_forever()


def find_free_port() -> int:
    """Return a port that is free, although another program may take it meanwhile."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


async def serve(nursery: trio.Nursery, app: App, way: Way) -> None:
    await nursery.start(partial(serve_listeners, app, way.listeners, strict=True))


async def pieces(*words: bytes) -> AsyncIterator[bytes]:
    for word in words:
        await trio.lowlevel.checkpoint()
        yield word


async def app(request: Request) -> Response | Upgrade:
    if request.path == "/echo":
        return Upgrade("echo", echo)
    if request.path == "/pieces":
        return Response(200, pieces(b"one", b"two"))
    if request.path == "/refused":
        return Response(403, b"reasons", {"X-Why": "because"})
    body = b"".join([chunk async for chunk in request.stream()])
    return Response(200, request.headers["host"].encode() + b" " + body)


async def test_switch(way: Way, nursery: trio.Nursery) -> None:
    """An offer is accepted, and 1 MiB comes back (RFC 9110 §7.8)."""
    await serve(nursery, app, way)
    sent = bytes(range(256)) * 4096
    upgraded = await open_upgrade(way.url + "/echo", "echo", **way.options)
    async with upgraded as (response, stream, _):
        assert response.status == 101
        received = bytearray()
        async with trio.open_nursery() as sending:
            sending.start_soon(stream.send_all, sent)
            while len(received) < len(sent):
                received += await stream.receive_some()

        assert received == sent


async def test_half_close(way: Way, nursery: trio.Nursery) -> None:
    """After send_eof the other direction goes on, over TLS too."""
    await serve(nursery, app, way)
    upgraded = await open_upgrade(way.url + "/echo", "echo", **way.options)
    async with upgraded as (_, stream, _):
        if way.proxied:
            # Tinyproxy and microsocks then close both directions.
            return
        assert stream.can_send_eof
        await stream.send_all(b"last words")
        await stream.send_eof()
        back = b"".join([bytes(chunk) async for chunk in stream])

        assert back == b"last words"


async def test_requests_then_switch(way: Way, nursery: trio.Nursery) -> None:
    """One connection streams bodies, survives a refusal, and then switches."""
    await serve(nursery, app, way)
    async with await open_connection(way.url, **way.options) as connection:
        response = await connection.request("GET", "/pieces")
        assert b"".join([chunk async for chunk in response.stream()]) == b"onetwo"
        body = pieces(b"x" * 100_000, b"", b"y")
        response = await connection.request("POST", "/body", body=body)
        assert (await response.read()).endswith(b" " + b"x" * 100_000 + b"y")
        with pytest.raises(UpgradeRefused) as caught:
            await connection.upgrade("/refused", "echo")
        assert await caught.value.response.read() == b"reasons"
        async with await connection.upgrade("/echo", "echo") as (_, stream, _):
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"


async def test_refused(way: Way, nursery: trio.Nursery) -> None:
    """A refusal has its body, and the 1xx responses before it."""
    await serve(nursery, app, way)
    with pytest.raises(UpgradeRefused) as caught:
        await open_upgrade(
            way.url + "/other",
            "echo",
            method="POST",
            headers={"Expect": "100-continue", "Host": "docker"},
            body=b"{}",
            **way.options,
        )

    response = caught.value.response
    assert response.body == b"docker {}"
    assert [head.status for head in response.informational] == [100]


async def answer(nursery: trio.Nursery, way: Way, wire: bytes, *, wait: bool) -> None:
    """Serve: receive a request if ``wait`` is set, send these bytes and close."""

    async def handler(stream: trio.abc.Stream) -> None:
        received = bytearray()
        while wait and b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        await stream.send_all(wire)

    await nursery.start(partial(trio.serve_listeners, handler, way.listeners))


async def test_illegal_switch(way: Way, nursery: trio.Nursery) -> None:
    """A 101 to a protocol not offered is an IllegalSwitch (RFC 9110 §7.8)."""
    wire = SWITCHED.replace(b"Upgrade: echo", b"Upgrade: other")
    await answer(nursery, way, wire, wait=True)
    with pytest.raises(IllegalSwitch):
        await open_upgrade(way.url, "echo", **way.options)


@pytest.mark.parametrize("wire", [b"", SWITCHED[:20]])
async def test_gone(way: Way, nursery: trio.Nursery, wire: bytes) -> None:
    """An end before the answer is complete is a PeerGone."""
    await answer(nursery, way, wire, wait=True)
    with pytest.raises(PeerGone):
        await open_upgrade(way.url, "echo", **way.options)


async def test_early_bytes(way: Way, nursery: trio.Nursery) -> None:
    """The bytes after the 101 are the first of the stream."""
    await answer(nursery, way, SWITCHED + b"HEAD", wait=True)
    async with await open_upgrade(way.url, "echo", **way.options) as (_, stream, _):
        received = b"".join([bytes(chunk) async for chunk in stream])

        assert received == b"HEAD"


async def test_certificate_not_trusted(way: Way, nursery: trio.Nursery) -> None:
    """The certificate of the server is checked, also through proxies."""
    if "ssl_context" not in way.options:
        return
    await nursery.start(partial(serve_listeners, app, way.listeners))
    options = {**way.options, "ssl_context": None}
    with pytest.raises(TLSFailed, match=r"self-signed|unable to get local issuer"):
        await open_upgrade(way.url + "/echo", "echo", **options)


class TestRefusingProxy:
    """Errors of proxies that open no tunnel."""

    @pytest.mark.ids("O01", "C03")
    @pytest.mark.peer("tinyproxy", required=True)
    @pytest.mark.parametrize(
        ("userinfo", "status"), [("", 407), ("user:wrong@", 401), ("user:secret@", 500)]
    )
    async def test_tinyproxy(
        self, nursery: trio.Nursery, tmp_path: Path, userinfo: str, status: int
    ) -> None:
        """The error has the response of the proxy with its body, and names the proxy."""
        proxy = await nursery.start(run_proxy, "tinyproxy", tmp_path)
        via = proxy.replace("user:secret@", userinfo)
        url = f"http://{HOST}:{find_free_port()}/"
        for dial in (
            partial(open_upgrade, url, "echo"),
            partial(open_connection, url),
        ):
            with pytest.raises(TunnelRefused) as caught:
                await dial(via=via)

            assert caught.value.response.status == status
            assert caught.value.response.body
            assert caught.value.proxy == proxy.rpartition("@")[2]
            assert "secret" not in repr(caught.value) + str(caught.value.__notes__)

    @pytest.mark.peer("microsocks", required=True)
    @pytest.mark.parametrize(
        ("userinfo", "code", "match"),
        [
            ("", None, "authentication"),
            ("user:wrong@", None, "authentication failure"),
            ("user:secret@", 5, "refused"),
        ],
    )
    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    async def test_microsocks(
        self, nursery: trio.Nursery, tmp_path: Path, scheme, userinfo, code, match
    ) -> None:
        """The error has the SOCKS reply code, if there was a reply (RFC 1928 §6)."""
        proxy = await nursery.start(run_proxy, scheme, tmp_path)
        via = proxy.replace("user:secret@", userinfo)
        with pytest.raises(SocksRefused, match=match) as caught:
            await open_upgrade(f"http://{HOST}:{find_free_port()}/", "echo", via=via)

        assert caught.value.code == code
        assert caught.value.proxy == proxy.rpartition("@")[2]

    async def test_second_of_two(
        self,
        nursery: trio.Nursery,
        tmp_path: Path,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    ) -> None:
        """In a chain the error names the proxy that refused."""
        make = partial(open_proxy, nursery=nursery, folder=tmp_path, contexts=contexts)
        first, second = await make("example"), await make("https")
        unreachable = f"http://{HOST}:{find_free_port()}/"
        assert isinstance(second, Proxy)
        with pytest.raises(TunnelRefused) as caught:
            await open_upgrade(unreachable, "echo", via=[first, second])

        assert caught.value.response.status == 502
        assert caught.value.proxy == second.endpoint.authority
        with pytest.raises(TunnelRefused) as caught:
            await open_tunnel(
                second.url, unreachable[7:-1], via=first, ssl_context=contexts[0]
            )
        assert caught.value.response.status == 502


async def _post(url: str, body: bytes, context: ssl.SSLContext) -> None:
    async with await open_connection(url, ssl_context=context) as connection:
        await connection.request("POST" if body else "GET", "/", body=body)


@pytest.mark.ids("F2")
@pytest.mark.peer("openssl")
@pytest.mark.parametrize(
    ("version", "ours", "alert"),
    [
        ("-tls1_3", "none", "ALERT_CERTIFICATE_REQUIRED"),
        ("-tls1_3", "wrong", "ALERT_UNKNOWN_CA"),
        ("-tls1_2", "none", "ALERT_HANDSHAKE_FAILURE"),
        ("-tls1_2", "wrong", "ALERT_UNKNOWN_CA"),
    ],
)
async def test_refused_by_openssl(
    tmp_path: Path, version: str, ours: str, alert: str
) -> None:
    """A server that refuses our certificate is TLSFailed, in each way of dialling."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if ours == "wrong":
        trustme.CA().issue_cert("client").configure_cert(context)
    own = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own"))
    server = await start(
        *("openssl", "s_server", "-accept", f"{HOST}:0", "-www", version),
        *("-Verify", "1", "-verify_return_error", "-CAfile", str(tmp_path / "ca")),
        *("-cert", str(tmp_path / "own"), "-key", str(tmp_path / "own")),
        stderr=subprocess.DEVNULL,
    )
    async with server:
        await server.read_until(b"ACCEPT ")
        port = (await server.read_line()).rpartition(":")[2]
        url = f"https://localhost:{port}"
        proxy = Proxy(url, ssl_context=context)
        big = bytes(3_000_000)
        for dial in (
            partial(open_upgrade, url, "echo", ssl_context=context),
            partial(open_upgrade, url, "echo", body=big, ssl_context=context),
            partial(_post, url, b"", context),
            partial(_post, url, big, context),
            partial(open_tunnel, url, "a:1", ssl_context=context),
            partial(open_upgrade, "http://a", "echo", via=proxy),
        ):
            with pytest.raises(TLSFailed, match=alert):
                await dial()

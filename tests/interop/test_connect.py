"""Programs that ask for tunnels, through examples/connect_proxy.py.

Four of the five send ``CONNECT host:port HTTP/1.0`` without a Host field.
"""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Response, TunnelRefused, open_tunnel, pipe, serve_ssl_over_tcp

from ..tls import make_tls_contexts
from .programs import BOUND, HOST, example, read_url, run, start

if TYPE_CHECKING:
    import subprocess

    from trio_upgrade import Request

WORDS = b"through the tunnel\n"

# The command of each program; {proxy} and {target} are ports.
CLIENTS = {
    "ncat": ["ncat", "--proxy", "{host}:{proxy}", "{host}", "{target}"],
    "socat": [
        *("socat", "-t", str(BOUND), "-"),
        "PROXY:{host}:{host}:{target},proxyport={proxy}",
    ],
    "nc": ["nc", "-N", "-X", "connect", "-x", "{host}:{proxy}", "{host}", "{target}"],
}
programs = [pytest.param(name, marks=pytest.mark.peer(name)) for name in CLIENTS]


async def echo(stream: trio.SocketStream) -> None:
    await pipe(stream, stream)


async def ask(
    command: list[str], target: int, *, any_port: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a program through the proxy, with WORDS as its whole input."""
    options = ["--any-port", "127.0.0.0/8"] if any_port else []
    with trio.fail_after(BOUND):
        async with await start(*example("connect_proxy.py", 0, *options)) as proxy:
            port = (await read_url(proxy)).rpartition(":")[2]
            filled = [
                word.format(host=HOST, proxy=port, target=target) for word in command
            ]
            return await run(*filled, stdin=WORDS)


async def start_echo(nursery: trio.Nursery) -> int:
    serve = partial(trio.serve_tcp, echo, 0, host=HOST)
    listeners: list[trio.SocketListener] = await nursery.start(serve)
    port: int = listeners[0].socket.getsockname()[1]
    return port


@pytest.mark.ids("C03", "R36")
@pytest.mark.parametrize("name", programs)
async def test_bytes_and_both_ends_come_through(
    name: str, nursery: trio.Nursery
) -> None:
    """Bytes come back although the program has ended its side (RFC 9110 §9.3.6)."""
    result = await ask(CLIENTS[name], await start_echo(nursery))

    assert result.stdout == WORDS
    assert result.returncode == 0


@pytest.mark.ids("O02", "S24")
@pytest.mark.peer("nc")
async def test_refusal_is_shown() -> None:
    """The program shows the status and the reason phrase of a refusal."""
    result = await ask(CLIENTS["nc"], 22, any_port=False)

    assert b'"HTTP/1.1 403 Forbidden"' in result.stderr
    assert result.returncode == 1


@pytest.mark.peer("curl")
async def test_curl_through_the_tunnel(nursery: trio.Nursery, tmp_path) -> None:
    """Curl makes a TLS connection to our server through the tunnel."""
    _, server_context = make_tls_contexts()

    async def app(request: Request) -> Response:
        return Response(200, f"{request.scheme}://{request.authority.host}")

    serve = partial(serve_ssl_over_tcp, app, 0, server_context, host=HOST, strict=True)
    server = await nursery.start(serve)
    port = int(server.url.rpartition(":")[2])
    curl = ["curl", "-q", "-sS", "-k", "--noproxy", "", "--max-time", str(BOUND)]
    command = [*curl, "--proxy", "http://{host}:{proxy}", "https://{host}:{target}/"]
    result = await ask(command, port)

    assert result.stderr == b""
    assert result.stdout == f"https://{HOST}".encode()


@pytest.mark.peer("openssl")
async def test_openssl_through_the_tunnel(nursery: trio.Nursery) -> None:
    """The TLS handshake of s_client goes through the tunnel."""
    client_context, server_context = make_tls_contexts()
    assert client_context.verify_mode is ssl.CERT_REQUIRED

    async def app(request: Request) -> Response:
        return Response(200, "okay")

    serve = partial(serve_ssl_over_tcp, app, 0, server_context, host=HOST)
    server = await nursery.start(serve)
    port = int(server.url.rpartition(":")[2])
    options = ["-proxy", "{host}:{proxy}", "-connect", "{host}:{target}"]
    result = await ask(["openssl", "s_client", *options], port)

    assert b"CONNECTED" in result.stdout
    assert b"Server certificate" in result.stdout


async def test_our_own_client(nursery: trio.Nursery) -> None:
    """open_tunnel reaches a target through the example, and reports a closed port."""
    target = await start_echo(nursery)
    with trio.fail_after(BOUND):
        async with await start(
            *example("connect_proxy.py", 0, "--any-port", "127.0.0.0/8")
        ) as proxy:
            url = await read_url(proxy)
            async with await open_tunnel(url, f"{HOST}:{target}") as (_, stream, _):
                await stream.send_all(WORDS)
                await stream.send_eof()
                back = b"".join([bytes(chunk) async for chunk in stream])
            with pytest.raises(TunnelRefused) as caught:
                await open_tunnel(url, f"{HOST}:1")

    assert back == WORDS
    assert caught.value.response.status == 502
    assert caught.value.response.body == b"the upstream cannot be reached\n"

"""The scope that an application gets with each request."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from trio_upgrade import serve_ssl_over_tcp, serve_tcp, serve_unix
from trio_upgrade.asgi import open_asgi

from ..tls import make_tls_contexts
from ..wire import get
from .serving import START, body, sender, serve

HOST = "127.0.0.1"


async def find_scope(wire: bytes, **options) -> dict[str, Any]:
    """Return the scope of a request."""
    scopes: list[dict[str, Any]] = []

    async def app(scope, receive, send) -> None:
        scopes.append(scope)
        await sender(START, body())(scope, receive, send)

    await serve(app, wire, **options)
    (scope,) = scopes
    return scope


async def test_whole_scope() -> None:
    """Every key of the specification is there, with its type."""
    scope = await find_scope(
        b"get /a%20b/%C3%A9?x=%20y HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    )

    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%20y",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"x-a", b"1"), (b"x-a", b"2")],
        "client": None,
        "server": None,
        "state": {},
        "extensions": {"http.response.trailers": {}, "http.response.early_hint": {}},
    }


async def test_http10() -> None:
    """HTTP/1.0 has neither trailers nor 1xx responses: there are no extensions."""
    scope = await find_scope(b"GET / HTTP/1.0\r\n\r\n")

    assert scope["http_version"] == "1.0"
    assert scope["extensions"] == {}
    assert scope["headers"] == []


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/", "/", b"/", b""),
        ("/?", "/", b"/", b""),
        ("//a//b", "//a//b", b"//a//b", b""),
        ("/a?b?c", "/a", b"/a", b"b?c"),
        ("/%2F", "//", b"/%2F", b""),
        ("/%zz%", "/%zz%", b"/%zz%", b""),
        ("/%ff", "/\N{REPLACEMENT CHARACTER}", b"/%ff", b""),
        ("http://x/a?b", "/a", b"/a", b"b"),
        ("http://x", "/", b"/", b""),
    ],
)
async def test_targets(target: str, path: str, raw_path: bytes, query: bytes) -> None:
    """The path is decoded, raw_path is not, and neither has the query."""
    scope = await find_scope(get(target))

    assert scope["path"] == path
    assert scope["raw_path"] == raw_path
    assert scope["query_string"] == query


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_asterisk(root_path: str) -> None:
    """The asterisk of OPTIONS is no path (RFC 9112 §3.2.4)."""
    wire = b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"
    scope = await find_scope(wire, root_path=root_path)

    assert (scope["path"], scope["raw_path"]) == ("*", b"*")


async def test_root_path() -> None:
    """The path includes root_path, as the specification says."""
    scope = await find_scope(get("/a%20b"), root_path="/ap i")

    assert scope["root_path"] == "/ap i"
    assert scope["path"] == "/ap i/a b"
    assert scope["raw_path"] == b"/ap%20i/a%20b"


async def ask(stream: trio.abc.Stream, *fields: str) -> None:
    """Make one request, and read the answer to the end."""
    await stream.send_all(get("/", "Connection: close", *fields))
    assert b"".join([bytes(chunk) async for chunk in stream])
    await stream.aclose()


class Seen:
    """Serves an application that keeps its scopes."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def app(self, scope, receive, send) -> None:
        self.scopes.append(scope)
        await sender(START, body())(scope, receive, send)


async def test_tcp(nursery) -> None:
    """Both addresses are host and port."""
    seen = Seen()
    async with open_asgi(seen.app, lifespan="off") as adapter:
        server = await nursery.start(partial(serve_tcp, adapter, 0, host=HOST))
        address = server.listeners[0].socket.getsockname()
        stream = await trio.open_tcp_stream(*address)
        client = stream.socket.getsockname()
        await ask(stream)
        await server.drain(grace=1)

    (scope,) = seen.scopes
    assert scope["client"] == client
    assert scope["server"] == address
    assert scope["scheme"] == "http"


async def test_tls(nursery) -> None:
    """Over TLS the scheme is https."""
    client, server_context = make_tls_contexts()
    seen = Seen()
    async with open_asgi(seen.app, lifespan="off") as adapter:
        server = await nursery.start(
            partial(serve_ssl_over_tcp, adapter, 0, server_context, host=HOST)
        )
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost",
            urlsplit(server.url).port,
            ssl_context=client,
            https_compatible=True,
        )
        await ask(stream)
        await server.drain(grace=1)

    assert [scope["scheme"] for scope in seen.scopes] == ["https"]


@pytest.mark.skipif(not hasattr(trio.socket, "AF_UNIX"), reason="needs Unix sockets")
async def test_unix(nursery, tmp_path) -> None:
    """The server is the path of its Unix socket; the client has no address."""
    seen = Seen()
    path = str(tmp_path / "socket")
    async with open_asgi(seen.app, lifespan="off", trusted=["unix"]) as adapter:
        server = await nursery.start(partial(serve_unix, adapter, path))
        await ask(await trio.open_unix_socket(path))
        await ask(await trio.open_unix_socket(path), "X-Forwarded-For: 192.0.2.1")
        await server.drain(grace=1)

    assert [scope["client"] for scope in seen.scopes] == [None, ("192.0.2.1", 0)]
    assert seen.scopes[0]["server"] == (path, None)


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"], ["127.0.0.0/8"]])
async def test_forwarded(nursery, trusted) -> None:
    """Only of trusted proxies client, scheme and Host are taken (RFC 7239)."""
    seen = Seen()
    async with open_asgi(seen.app, lifespan="off", trusted=trusted) as adapter:
        server = await nursery.start(partial(serve_tcp, adapter, 0, host=HOST))
        address = server.listeners[0].socket.getsockname()
        for fields in (
            ["Forwarded: for=192.0.2.1;proto=https;host=example.com"],
            ["X-Forwarded-For: 192.0.2.2", "X-Forwarded-Proto: https"],
        ):
            await ask(await trio.open_tcp_stream(*address), *fields)
        await server.drain(grace=1)

    first, second = seen.scopes
    hosts = [dict(scope["headers"])[b"host"] for scope in seen.scopes]
    if trusted == ["127.0.0.0/8"]:
        assert (first["client"], second["client"]) == (
            ("192.0.2.1", 0),
            ("192.0.2.2", 0),
        )
        assert (first["scheme"], second["scheme"]) == ("https", "https")
        assert hosts == [b"example.com", b"x"]
    else:
        assert first["client"][0] == HOST
        assert first["scheme"] == "http"
        assert hosts == [b"x", b"x"]

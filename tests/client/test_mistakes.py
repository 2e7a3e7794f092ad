"""Mistakes in a call: each is raised before anything is opened, in clear words."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import Proxy, open_connection, open_tunnel, open_upgrade
from trio_upgrade.testing import ScriptedPeer

from ..wire import SWITCHED, okay

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
upgrade: Any = open_upgrade
tunnel: Any = open_tunnel
connect: Any = open_connection


async def chunks():
    yield b"never"


# What a call may get wrong in the request itself; {} stands for host and port.
REQUEST: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"method": "a b"}, ValueError, "a method must be a token such as GET: .*'a b'"),
    ({"method": ""}, ValueError, "a method must be a token"),
    ({"method": "GET\r\nX: y"}, ValueError, "a method must be a token"),
    ({"method": b"GET"}, TypeError, "a method must be a str, not bytes"),
    ({"method": None}, TypeError, "a method must be a str, not NoneType"),
    ({"method": "CONNECT"}, ValueError, "CONNECT asks for a tunnel"),
    ({"body": "abc"}, TypeError, "a body of str: it must be bytes, or an async"),
    ({"body": {"a": 1}}, TypeError, "a body of dict: it must be bytes"),
    ({"body": bytearray(b"x")}, TypeError, "a body of bytearray: it must be bytes"),
    ({"body": [b"x"]}, TypeError, "a body of list: it must be bytes"),
    ({"body": None}, TypeError, "a body of NoneType: it must be bytes"),
    ({"headers": {"Expect": "100-continue"}}, ValueError, "Expect: there is no body"),
    (
        {"headers": {"Content-Length": "3"}, "body": b"abc"},
        ValueError,
        "Content-Length is written by the library",
    ),
    ({"headers": {"Content-Length": "x"}, "body": chunks()}, ValueError, "b'x'"),
    ({"headers": {"Content-Length": "9" * 19}, "body": chunks()}, ValueError, "999"),
    ({"headers": {"Content-Length": "0" * 21}, "body": chunks()}, ValueError, "000"),
    (
        {"headers": [("Host", "a"), ("host", "a")]},
        ValueError,
        "only one Host field can be sent, not 2",
    ),
]
FIELDS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"headers": "A: b"}, TypeError, "a mapping, or pairs of name and value, not str"),
    ({"headers": b"A: b"}, TypeError, "pairs of name and value, not bytes"),
    ({"headers": None}, TypeError, "pairs of name and value, not NoneType"),
    ({"headers": 3}, TypeError, "pairs of name and value, not int"),
    ({"headers": ["ab"]}, TypeError, "a pair of name and value, not str"),
    ({"headers": [b"A: b"]}, TypeError, "a pair of name and value, not bytes"),
    ({"headers": [("A",)]}, TypeError, "a pair of name and value, not a tuple of 1"),
    ({"headers": [["A", "b", "c"]]}, TypeError, "not a list of 3"),
    ({"headers": [3]}, TypeError, "a pair of name and value, not int"),
    ({"headers": {3: "b"}}, TypeError, "a field name must be str or bytes, not int"),
    (
        {"headers": {"A": None}},
        TypeError,
        "A: the value must be str or bytes, not NoneType",
    ),
    ({"headers": {"A b": "c"}}, ValueError, "not a token: 'A b'"),
    ({"headers": {"A": "b\r\nC: d"}}, ValueError, "A: control characters"),
]
HOSTS = [
    ("a b", "Host must be host[:port], not 'a b'"),
    ("u:secret@a", "Host must be host[:port], not '***@a'"),
    ("a:70000", "Host must be host[:port], not 'a:70000': a port above 65535"),
    ("http://a", "Host must be host[:port], not 'http://a'"),
    ("a/x?secret", "Host must be host[:port], not 'a/x?***'"),
    ("a, b", "Host must be host[:port], not 'a, b'"),
    ("a:b", "Host must be host[:port]"),
    ("[::1", "Host must be host[:port]"),
    ("a\xe9", "Host must be host[:port]"),
    ("a\x9b", "Host must be host[:port], not 'a\\x9b'"),
]
OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"limits": 3}, TypeError, "limits must be a Limits, not int"),
    ({"limits": None}, TypeError, "limits must be a Limits, not NoneType"),
    (
        {"ssl_context": True},
        TypeError,
        "ssl_context must be an ssl.SSLContext, not bool",
    ),
    (
        {"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)},
        ValueError,
        "ssl_context must be for a client",
    ),
    ({"local_address": 3}, TypeError, "local_address must be a str, not int"),
    (
        {"via": 3},
        TypeError,
        "via must be a URL, a Proxy or a sequence of them, not int",
    ),
    ({"via": {"http": "http://p"}}, TypeError, "sequence of them, not dict"),
    ({"via": b"http://p"}, TypeError, "sequence of them, not bytes"),
    ({"via": ["http://{}", 3]}, TypeError, "a URL must be a str, not int"),
    ({"via": ["http://{}", b"http://p"]}, TypeError, "a URL must be a str, not bytes"),
    ({"via": "http://p:0"}, ValueError, "from 1 to 65535, not 0: http://p:0"),
    ({"via": ["http://{}", "http://u:secret@p:0"]}, ValueError, r"\*\*\*@p:0"),
    ({"via": ["http://{}", "socks5h://p:0", "http://q"]}, ValueError, "socks5h://p:0"),
    ({"via": ""}, ValueError, "a URL begins with a scheme"),
]
URLS: list[tuple[Any, type[Exception], str]] = [
    ("", ValueError, "a URL begins with a scheme"),
    (None, TypeError, "a URL must be a str, not NoneType"),
    (b"http://{}", TypeError, "a URL must be a str, not bytes"),
    (3, TypeError, "a URL must be a str, not int"),
    ("{}", ValueError, "a URL begins with a scheme"),
    ("ftp://{}", ValueError, "scheme 'ftp': it must be http, https, ws or wss"),
    ("http://{}/a b", ValueError, "blanks, control or non-ASCII"),
    ("http://{}/a\r\nb", ValueError, "blanks, control or non-ASCII"),
]
PROTOCOLS: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((), TypeError, "at least one protocol"),
    ((["echo"],), TypeError, "each protocol is an argument of its own.* not list"),
    (
        (("echo", "a"),),
        TypeError,
        "each protocol is an argument of its own.* not tuple",
    ),
    ((b"echo",), TypeError, "a protocol must be a str such as 'websocket', not bytes"),
    (("echo", None), TypeError, "a protocol must be a str .* not NoneType"),
    (("a b",), ValueError, r"not a protocol name\[/version\]: 'a b'"),
]


class Listener:
    """A port that notes every connection; or a dead one, that refuses them."""

    def __init__(self, *, alive: bool) -> None:
        self.socket = socket.socket()
        self.socket.bind((HOST, 0))
        self.socket.setblocking(False)
        self.alive = alive
        if alive:
            self.socket.listen()
        self.authority = f"{HOST}:{self.socket.getsockname()[1]}"

    def place(self, given: Any) -> Any:
        """Return the same arguments with our address in the place of {}."""
        if isinstance(given, str):
            return given.replace("{}", self.authority)
        if isinstance(given, list):
            return [self.place(inner) for inner in given]
        if isinstance(given, dict):
            return {name: self.place(inner) for name, inner in given.items()}
        return given

    def check_unused(self) -> None:
        if self.alive:
            with pytest.raises(BlockingIOError):
                self.socket.accept()


@pytest.fixture(params=["alive", "dead"])
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    made = Listener(alive=request.param == "alive")
    with made.socket:
        yield made


async def check(listener: Listener, call: Any, error: type[Exception], match: str):
    """The call fails with this error before a connection; a dead peer changes nothing."""
    with trio.fail_after(5), pytest.raises(error, match=match) as caught:
        await call()

    listener.check_unused()
    assert "secret" not in str(caught.value)
    assert not isinstance(caught.value, OSError)


@pytest.mark.ids("F3")
@pytest.mark.parametrize(("options", "error", "match"), REQUEST + FIELDS + OPTIONS)
async def test_offer(listener: Listener, options, error, match: str) -> None:
    """open_upgrade checks the whole request and its options before it dials."""
    url = f"http://{listener.authority}/"
    call = partial(upgrade, url, "echo", **listener.place(options))

    await check(listener, call, error, match)


@pytest.mark.ids("F3")
@pytest.mark.parametrize(("protocols", "error", "match"), PROTOCOLS)
async def test_protocols(listener: Listener, protocols, error, match: str) -> None:
    """Protocols are given one by one, each a str that is a protocol."""
    call = partial(upgrade, f"http://{listener.authority}/", *protocols)

    await check(listener, call, error, match)


@pytest.mark.ids("F3")
@pytest.mark.parametrize(("options", "error", "match"), FIELDS + OPTIONS)
async def test_tunnel(listener: Listener, options, error, match: str) -> None:
    """open_tunnel checks its fields and options before it dials the proxy."""
    url = f"http://{listener.authority}/"
    call = partial(tunnel, url, "a:1", **listener.place(options))

    await check(listener, call, error, match)


@pytest.mark.ids("F3")
@pytest.mark.parametrize(
    ("authority", "error"),
    [
        ("a:0", ValueError),
        ("a", ValueError),
        ("", ValueError),
        ("u:secret@a:1", ValueError),
        ("a\x9b:1", ValueError),
        (None, TypeError),
        (("a", 22), TypeError),
    ],
)
async def test_tunnel_authority(listener: Listener, authority: Any, error) -> None:
    """The authority of a tunnel is a str host:port, its port not 0."""
    call = partial(tunnel, f"http://{listener.authority}/", authority)

    await check(listener, call, error, r"host:port(.*not '(?!.*\x9b)|, not)")


@pytest.mark.ids("F3")
@pytest.mark.parametrize(("options", "error", "match"), OPTIONS)
async def test_connection(listener: Listener, options, error, match: str) -> None:
    """open_connection checks its options before it dials."""
    call = partial(connect, f"http://{listener.authority}/", **listener.place(options))

    await check(listener, call, error, match)


@pytest.mark.ids("F3")
@pytest.mark.parametrize("via", [{}, {"via": "http://{}"}, {"via": "socks5h://{}"}])
async def test_port_0(listener: Listener, via) -> None:
    """No one can listen at port 0: it is refused here, not by the peer or a proxy."""
    for scheme in ("http", "wss"):
        call = partial(
            connect, f"{scheme}://u:secret@h:0/?secret", **listener.place(via)
        )
        await check(listener, call, ValueError, f"not 0: {scheme}://.*h:0/")


@pytest.mark.ids("F3")
@pytest.mark.parametrize(("url", "error", "match"), URLS)
async def test_url(listener: Listener, url: Any, error, match: str) -> None:
    """Each function wants a URL that is a str with a scheme, and no blanks."""
    url = listener.place(url)
    for call in (
        partial(connect, url),
        partial(upgrade, url, "echo"),
        partial(tunnel, url, "a:1"),
        partial(connect, "http://h", via=[f"http://{listener.authority}", url]),
    ):
        await check(listener, call, error, match)


@pytest.mark.ids("F3")
async def test_given_stream() -> None:
    """A given stream is closed by each mistake; nothing was sent on it."""
    mistakes = [
        *(((), {**options, "url": "http://h/"}) for options, _, _ in REQUEST + FIELDS),
        *(((), {"url": url}) for url, _, _ in URLS),
        ((["echo"],), {"url": "http://h/"}),
        ((), {"url": "http://h/", "limits": 3}),
        ((), {"url": "http://h/", "ssl_context": True}),
    ]
    for protocols, options in mistakes:
        peer = ScriptedPeer(SWITCHED)
        with trio.fail_after(5), pytest.raises((TypeError, ValueError)):
            await upgrade(
                options.pop("url"), *(protocols or ("echo",)), stream=peer, **options
            )
        assert peer.closed
        assert not peer.sent


@pytest.mark.ids("F3")
async def test_stream_of_another_type() -> None:
    """An object that is no Trio stream is refused whatever else is wrong, and left."""
    with socket.socket() as given:
        for call in (
            partial(connect, None),
            partial(upgrade, "http://h", ["echo"]),
            partial(tunnel, "http://h", "a"),
        ):
            with pytest.raises(TypeError, match=r"stream must be a trio\.abc\.Stream"):
                await call(stream=given)
        assert given.fileno() >= 0


@pytest.mark.ids("F3")
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        *REQUEST,
        *FIELDS,
        ({"target": "/a b"}, ValueError, "a target must be visible ASCII .* '/a b'"),
        ({"target": ""}, ValueError, "a target must be visible ASCII"),
        ({"target": "/a\x9b"}, ValueError, r"not '/a\\x9b'"),
        ({"target": "/\xe9?secret"}, ValueError, r"not '/\xe9\?\*\*\*'"),
        ({"target": b"/"}, TypeError, "a target must be a str, not bytes"),
        ({"target": None}, TypeError, "a target must be a str, not NoneType"),
        ({"target": "http:///x"}, ValueError, "a target in absolute form must be http"),
        ({"target": "http://u:secret@h/"}, ValueError, "must be http://host"),
    ],
)
async def test_request(options, error, match: str) -> None:
    """A mistake in a request sends nothing, and the connection can be used."""
    for name in ("request", "upgrade"):
        peer = ScriptedPeer(okay(b"1"))
        connection = await open_connection("http://h", stream=peer)
        given = {"method": "GET", "target": "/", **options}
        target = given.pop("target")
        with pytest.raises(error, match=match) as caught:
            if name == "request":
                await connection.request(given.pop("method"), target, **given)
            else:
                await connection.upgrade(target, "echo", **given)

        assert "secret" not in str(caught.value)
        assert not peer.sent
        assert not peer.closed
        assert await (await connection.request("GET", "/")).read() == b"1"


@pytest.mark.ids("F3")
async def test_connect() -> None:
    """A mistake in a CONNECT sends nothing, and the connection can be used."""
    peer = ScriptedPeer(okay(b"1"))
    connection: Any = await open_connection("http://h", stream=peer)
    for authority, options in (
        ("a:0", {}),
        (("a", 1), {}),
        ("a:1", {"headers": "A: b"}),
        ("a:1", {"headers": {"Host": "b"}}),
    ):
        with pytest.raises((ValueError, TypeError)):
            await connection.connect(authority, **options)
    assert not peer.sent
    assert await (await connection.request("GET", "/")).read() == b"1"


@pytest.mark.ids("F5")
@pytest.mark.parametrize(("host", "message"), HOSTS)
async def test_host(listener: Listener, host: str, message: str) -> None:
    """A Host field that is no authority is refused, as a server would refuse it."""
    headers = {"Host": host.encode("latin-1")}
    if "\x9b" not in message:
        with pytest.raises(ValueError, match="Host") as caught:
            await open_upgrade(f"http://{listener.authority}", "echo", headers=headers)
        assert str(caught.value).startswith(message)
        listener.check_unused()
    peer = ScriptedPeer(okay())
    connection = await open_connection("http://h", stream=peer)
    with pytest.raises(ValueError, match="Host must be"):
        await connection.request("GET", "/", headers=headers)
    assert not peer.sent


@pytest.mark.ids("F5")
@pytest.mark.parametrize("host", ["", "a", "A.b:80", "[::1]:1", "a_b", "a%20b", "a:"])
async def test_host_that_servers_accept(host: str) -> None:
    """An authority is sent as it was given; an empty Host is well formed."""
    peer = ScriptedPeer(okay())
    connection = await open_connection("http://h", stream=peer)
    await connection.request("GET", "/", headers={"Host": host})

    assert f"\r\nHost: {host}\r\n".encode() in peer.sent


@pytest.mark.ids("F3")
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((None,), TypeError, "a URL must be a str, not NoneType"),
        (("http://h", "A: b"), TypeError, "pairs of name and value, not str"),
        (("socks5://h", "A: b"), TypeError, "pairs of name and value, not str"),
        (("http://h", {"A": 3}), TypeError, "A: the value must be str or bytes"),
    ],
)
def test_proxy(arguments, error, match: str) -> None:
    """A Proxy is checked when it is made."""
    with pytest.raises(error, match=match):
        Proxy(*arguments)


@pytest.mark.ids("F3")
def test_proxy_context() -> None:
    """So are its TLS settings."""
    make: Any = Proxy
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext, not bool"):
        make("https://h", ssl_context=True)
    with pytest.raises(ValueError, match="for a client"):
        make("https://h", ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.ids("F3")
def test_proxy_keeps_its_fields() -> None:
    """Fields are kept as they were checked: an iterator is read only once."""
    given = {"A": "b"}
    proxy = Proxy("http://h", given)
    given["Host"] = "x"

    assert proxy.headers == ((b"A", b"b"),)
    assert Proxy("http://h", iter([("A", "b")])).headers == ((b"A", b"b"),)

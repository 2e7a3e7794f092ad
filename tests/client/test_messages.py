"""The messages of a client alone tell a person who failed, when, and what to mend."""

from __future__ import annotations

import datetime as dt
import errno
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from trio_upgrade import (
    BadResponse,
    IllegalSwitch,
    Limits,
    MalformedMessage,
    OpenError,
    PeerGone,
    SocksRefused,
    TLSFailed,
    TunnelRefused,
    UpgradeRefused,
    open_connection,
    open_tunnel,
    open_upgrade,
)
from trio_upgrade._client.wording import escape, mask
from trio_upgrade.testing import ScriptedPeer, split_points

from ..wire import SWITCHED, okay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[trio.SocketStream], Awaitable[None]]

HOST = "127.0.0.1"
# A test fails if this is in a message.
SECRET = "secret"
URL = f"ws://u:{SECRET}@example.com:81/chat?token={SECRET}"
NAMED = "ws://***@example.com:81/chat?***"


class NoNames(trio.abc.HostnameResolver):
    """Knows no name, as the resolver of a machine whose DNS is down."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError("no name of an address is needed")


def whole_message(exc: BaseException) -> str:
    """Return what a traceback shows of an exception: its message, and its notes."""
    text = "\n".join([str(exc), *getattr(exc, "__notes__", ())])
    assert SECRET not in text
    assert SECRET not in repr(exc)
    return text


async def fail(call: Any, error: type[BaseException]) -> str:
    """Return the whole message that the call fails with."""
    with trio.fail_after(5), pytest.raises(error) as caught:
        await call()
    return whole_message(caught.value)


async def serve(nursery: trio.Nursery, handler: Handler) -> str:
    start = partial(trio.serve_tcp, handler, 0, host=HOST)
    listeners: list[trio.SocketListener] = await nursery.start(start)
    return f"{HOST}:{listeners[0].socket.getsockname()[1]}"


def answer(wire: bytes, count: int = 1) -> Handler:
    """Return a peer that answers each of ``count`` request heads, and then ends."""

    async def handle(stream: trio.SocketStream) -> None:
        for _ in range(count):
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await stream.receive_some()
            await stream.send_all(wire)

    return handle


@pytest.fixture
def dead() -> Any:
    """The address of a port that refuses connections."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield f"{HOST}:{bound.getsockname()[1]}"


class TestDialling:
    """An OSError of the system has a note that says what was dialled."""

    @pytest.mark.ids("F8")
    async def test_closed_port(self, dead: str) -> None:
        """The URL is named, without userinfo and query."""
        url = f"wss://u:{SECRET}@{dead}/chat?a={SECRET}"
        for call in (partial(open_upgrade, url, "echo"), partial(open_connection, url)):
            assert await fail(call, ConnectionRefusedError) == (
                f"[Errno {errno.ECONNREFUSED}] cannot connect to {dead}: "
                "Connection refused\n"
                f"while connecting to wss://***@{dead}/chat?***"
            )

    @pytest.mark.ids("F8")
    async def test_dead_name(self) -> None:
        """A name that does not resolve is named."""
        trio.socket.set_custom_hostname_resolver(NoNames())

        assert await fail(partial(open_upgrade, URL, "echo"), socket.gaierror) == (
            f"[Errno {socket.EAI_NONAME}] Name or service not known\n"
            f"while connecting to {NAMED}"
        )

    @pytest.mark.ids("F8")
    @pytest.mark.parametrize("octet", ["", "\x9b"])
    async def test_dead_unix_path(self, tmp_path: Path, octet: str) -> None:
        """The path of a Unix socket is named, its controls escaped."""
        path = f"{tmp_path}/none{octet}"
        quoted = f"{tmp_path}/none{'%C2%9B' if octet else ''}".replace("/", "%2F")
        shown = path.replace(octet, r"\x9b") if octet else path
        call = partial(open_connection, f"wss+unix://{quoted}/chat")

        assert await fail(call, FileNotFoundError) == (
            "[Errno 2] No such file or directory\n"
            f"while connecting to Unix socket {shown} (wss+unix), target /chat"
        )

    @pytest.mark.ids("F8")
    @pytest.mark.parametrize("scheme", ["http", "socks5h"])
    async def test_dead_first_proxy(self, dead: str, scheme: str) -> None:
        """A proxy that cannot be reached is named, and what it was to lead to."""
        via = [f"{scheme}://u:{SECRET}@{dead}", "http://h:1"]
        call = partial(open_upgrade, URL, "echo", via=via)

        assert await fail(call, ConnectionRefusedError) == (
            f"[Errno {errno.ECONNREFUSED}] cannot connect to {dead}: Connection refused\n"
            f"while connecting to proxy {scheme}://***@{dead}, on the way to {NAMED}"
        )

    @pytest.mark.ids("F8")
    async def test_dead_second_proxy(self, nursery, dead: str) -> None:
        """The first proxy says that it cannot reach the second one."""
        wire = okay(b"cannot\nconnect", status="502 Bad Gateway")
        first = await serve(nursery, answer(wire))
        via = [f"http://{first}", f"http://u:{SECRET}@{dead}"]
        call = partial(open_upgrade, URL, "echo", via=via)

        assert await fail(call, TunnelRefused) == (
            f"proxy http://{first}, target {dead}: refused with 502 Bad Gateway: "
            '"cannot connect"\n'
            f"on the way through <Proxy http://{first}>"
        )

    @pytest.mark.ids("F8")
    async def test_name_for_socks(self, nursery) -> None:
        """A name that is looked up here for a SOCKS proxy is named, and the proxy."""
        trio.socket.set_custom_hostname_resolver(NoNames())

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some(3)
            await stream.send_all(b"\x05\x00")
            await stream.receive_some()

        proxy = await serve(nursery, handle)
        call = partial(open_upgrade, URL, "echo", via=f"socks5://{proxy}")

        assert await fail(call, socket.gaierror) == (
            f"[Errno {socket.EAI_NONAME}] Name or service not known\n"
            f"while looking up example.com for proxy socks5://{proxy}, "
            "target example.com:81"
        )


class TestTLS:
    """TLS that fails names the URL, a proxy, or the path of a Unix socket."""

    @pytest.fixture
    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(1)
        authority.issue_cert(HOST, "localhost", not_after=yesterday).configure_cert(
            server
        )
        client = ssl.create_default_context()
        authority.configure_trust(client)
        return client, server

    @pytest.mark.ids("F8")
    @pytest.mark.parametrize("as_proxy", [False, True])
    async def test_expired(self, nursery, contexts, as_proxy: bool) -> None:
        """An expired certificate says whose it is."""
        client, server = contexts

        async def handle(stream: trio.SocketStream) -> None:
            tls = trio.SSLStream(stream, server, server_side=True)
            with pytest.raises(trio.BrokenResourceError):
                await tls.do_handshake()

        origin = await serve(nursery, handle)
        call: Any = partial(
            open_upgrade, f"wss://u:{SECRET}@{origin}/x?{SECRET}", "echo"
        )
        named = f"wss://***@{origin}/x?***"
        if as_proxy:
            proxy = f"https://u:{SECRET}@{origin}"
            call = partial(open_tunnel, proxy, "h:1")
            named = f"https://***@{origin}/"

        assert await fail(partial(call, ssl_context=client), TLSFailed) == (
            f"no TLS with {named}: certificate has expired"
        )

    @pytest.mark.ids("F8")
    async def test_unix(self, nursery, tmp_path: Path) -> None:
        """TLS over a Unix socket names its path."""
        path = tmp_path / "app.sock"
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(str(path))
        sock.listen()
        listener = trio.SocketListener(sock)

        async def handle(stream: trio.SocketStream) -> None:
            await stream.send_all(b"HTTP/1.1 400 Bad\r\n\r\n")

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        call = partial(open_connection, f"wss+unix://{str(path).replace('/', '%2F')}")

        assert (await fail(call, TLSFailed)).startswith(
            f"no TLS with Unix socket {path} (wss+unix): "
        )


class TestRefused:
    """A refusal says who refused, with which status, challenge and words."""

    @pytest.mark.ids("F8", "F14")
    async def test_401(self) -> None:
        """A 401 names the URL and what it wants."""
        wire = okay(
            b"log in, please",
            'WWW-Authenticate: Basic realm="x\x9b"',
            status="401 Unauthorized",
        ).replace(b"\xc2\x9b", b"\x9b")
        for packets in split_points(wire):
            call = partial(open_upgrade, URL, "echo", stream=ScriptedPeer(*packets))
            assert await fail(call, UpgradeRefused) == (
                f"{NAMED}: refused with 401 Unauthorized "
                r'(it wants Basic realm="x\x9b"): "log in, please"'
            )

    @pytest.mark.ids("F8", "F14")
    async def test_407(self, nursery) -> None:
        """A 407 names the proxy, its target and what it wants."""
        wire = okay(
            b"who?",
            "Proxy-Authenticate: Negotiate",
            status="407 Proxy Authentication Required",
        )
        proxy = await serve(nursery, answer(wire))
        via = f"http://u:{SECRET}@{proxy}"

        assert await fail(
            partial(open_upgrade, URL, "echo", via=via), TunnelRefused
        ) == (
            f"proxy http://***@{proxy}, target example.com:81: refused with "
            '407 Proxy Authentication Required (it wants Negotiate): "who?"\n'
            f"on the way through <Proxy http://{proxy}>"
        )

    @pytest.mark.ids("F14")
    @pytest.mark.parametrize(
        ("fields", "body", "words"),
        [
            ("Content-Type: text/plain", b"a\r\n\tb  c ", ': "a b c"'),
            (
                "Content-Type: text/plain",
                b"\x1b[2J\xc2\x9b\x00",
                r': "\x1b[2J\x9b\x00"',
            ),
            ("Content-Type: text/plain", b"\xe2\x80\xaegnp", r': "\u202egnp"'),
            ("Content-Type: text/plain", b"N\xe3o", ': "N\xe3o"'),
            ("Content-Type: application/json", b'{"a": 1}', ''': "{"a": 1}"'''),
            ("Content-Type: application/problem+json", b"{}", ': "{}"'),
            ("Content-Type: text/html", b"<h1>403</h1> no", ': "403 no"'),
            ("Content-Type: TEXT/plain;a=b", b"x" * 300, f': "{"x" * 120}..."'),
            ("Content-Type: text/plain", b"x" * 300 + b"\xc3", f': "{"x" * 120}..."'),
            ("X-A: b", "N\xe3o".encode(), ': "N\xe3o"'),
            ("X-A: b", b"\x00\x01", ""),
            ("X-A: b", b"\xff\xfe", ""),
            ("Content-Type: image/png", b"PNG", ""),
            ("Content-Type: text/plain\r\nContent-Encoding: gzip", b"abc", ""),
            ("Content-Type: text/plain", b"", ""),
            ("Content-Type: text/plain", b" \r\n", ""),
        ],
    )
    async def test_words(self, fields: str, body: bytes, words: str) -> None:
        """Only text is shown: in one line, escaped, and not more than 120 characters."""
        wire = okay(body, fields, status="403 Forbidden")
        call = partial(open_upgrade, URL, "echo", stream=ScriptedPeer(wire))

        assert await fail(call, UpgradeRefused) == (
            f"{NAMED}: refused with 403 Forbidden{words}"
        )

    @pytest.mark.ids("F14")
    async def test_reason(self) -> None:
        """Controls in a reason phrase are escaped, in the repr of the response too."""
        wire = okay(b"", status="403 @").replace(b"@", b"a\x9b31m\x85\xadb\xe9")
        shown = r"403 a\x9b31m\x85\xadb" + "\xe9"
        for packets in split_points(wire):
            peer = ScriptedPeer(*packets)
            with pytest.raises(UpgradeRefused) as caught:
                await open_upgrade(URL, "echo", stream=peer)
            assert str(caught.value) == f"{NAMED}: refused with {shown}"
            assert repr(caught.value.response) == f"<ClientResponse {shown}>"
            assert repr(caught.value).isprintable()
            assert caught.value.response.reason == "a\x9b31m\x85\xadb\xe9"

    @pytest.mark.ids("F14")
    async def test_words_only_if_read(self) -> None:
        """On a connection of one's own the body is shown once it was read."""
        peer = ScriptedPeer(okay(b"no room", status="403 Forbidden"))
        connection = await open_connection(URL, stream=peer)
        with pytest.raises(UpgradeRefused) as caught:
            await connection.upgrade("/other?secret", "echo")
        named = "ws://***@example.com:81/other?***: refused with 403 Forbidden"

        assert whole_message(caught.value) == named
        await caught.value.response.read()
        assert whole_message(caught.value) == f'{named}: "no room"'

    @pytest.mark.ids("F14")
    async def test_cut_body(self) -> None:
        """Of a body that is cut the words that were kept are shown."""
        wire = okay(b"abcdef", status="403 Forbidden")
        call = partial(
            open_upgrade,
            URL,
            "echo",
            stream=ScriptedPeer(wire),
            limits=Limits(refusal_body=3),
        )

        assert (await fail(call, UpgradeRefused)).endswith(': "abc"')

    @pytest.mark.ids("F14", "F8")
    async def test_socks(self, nursery) -> None:
        """A SOCKS proxy that refuses is named, and the target."""

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some(3)
            await stream.send_all(b"\x05\x00")
            await stream.receive_some()
            await stream.send_all(b"\x05\x05\x00")

        proxy = await serve(nursery, handle)
        call = partial(open_upgrade, URL, "echo", via=f"socks5h://{proxy}")

        assert await fail(call, SocksRefused) == (
            f"the SOCKS proxy {proxy} refused: no tunnel to example.com:81: "
            "Connection refused by destination host\n"
            f"on the way through <Proxy socks5h://{proxy}>"
        )


class TestAnswer:
    """Every other OpenError names the URL or proxy, and the stage."""

    @pytest.mark.ids("F8")
    @pytest.mark.parametrize(
        ("wire", "error", "text"),
        [
            (b"", PeerGone, "the server ended the connection before its answer"),
            (b"HTTP/1.1 4", PeerGone, "the server ended the connection within its"),
            (b"\x16", BadResponse, "a TLS handshake where plain HTTP was expected"),
            (
                SWITCHED.replace(b": echo", b": a\x9b"),
                IllegalSwitch,
                r"illegal 101: its Upgrade field is malformed: 'a\x9b'",
            ),
        ],
    )
    async def test_answer(self, wire: bytes, error: type[OpenError], text: str) -> None:
        """After the request was sent the stage is the answer."""
        for packets in split_points(wire):
            call = partial(open_upgrade, URL, "echo", stream=ScriptedPeer(*packets))
            message = await fail(call, error)
            assert message.startswith(f"{NAMED}, reading the answer: {text}")
            call = partial(open_tunnel, URL, "h:22", stream=ScriptedPeer(*packets))
            if error is not IllegalSwitch:
                message = await fail(call, error)
                assert message.startswith(
                    "proxy ws://***@example.com:81, target h:22, "
                    f"reading the answer: {text}"
                )

    @pytest.mark.ids("F8")
    async def test_other_stages(self) -> None:
        """Before the request, and while it is sent, the messages say so."""
        peer = ScriptedPeer(okay(b"1") + b"more")
        connection = await open_connection(URL, stream=peer)
        await (await connection.request("GET", "/1")).read()
        call: Any = partial(connection.request, "GET", f"/2?{SECRET}")

        assert await fail(call, BadResponse) == (
            "ws://***@example.com:81/2?***, before the request: "
            "the server sent more than its response"
        )

        async def body():
            yield b"x"
            await trio.sleep_forever()

        call = partial(
            open_upgrade, URL, "echo", body=body(), stream=ScriptedPeer(b"HTTP/1.1 ")
        )
        assert await fail(call, PeerGone) == (
            f"{NAMED}, sending the request: "
            "the server ended the connection within its answer"
        )

    @pytest.mark.ids("F8")
    async def test_socks(self, nursery) -> None:
        """A SOCKS proxy that goes away is named, and the target."""

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some(4)

        proxy = await serve(nursery, handle)
        call = partial(open_upgrade, URL, "echo", via=f"socks5h://u:{SECRET}@{proxy}")

        assert (await fail(call, PeerGone)).startswith(
            f"proxy socks5h://***@{proxy}, target example.com:81, in the SOCKS "
            "exchange: the SOCKS proxy ended the connection"
        )


class TestParts:
    """The parts of a message."""

    @pytest.mark.ids("F14")
    def test_escape(self) -> None:
        """Whatever the text, the result can be printed in one line."""
        for number in range(0x3000):
            assert escape(chr(number)).isprintable()
        assert escape("\\x\xe9") == "\\x\xe9"
        assert escape("a" * 5, 3) == "aaa..."

    @pytest.mark.ids("F8")
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("/a?b=c?d", "/a?***"),
            ("http://u:p@h/x?y", "http://***@h/x?***"),
            ("u:p@q@h", "***@h"),
            ("\n@h", "***@h"),
            ("a\x9b", r"a\x9b"),
            ("/p?m=a@b&token=s", "/p?***"),
            ("/@me/chat", "/@me/chat"),
            ("http://h/p?x=a@b&token=s", "http://***"),
            ("user:p?w@h:1", "***"),
            ("u:p/w@h", "***"),
            ("http://u:p#q@h/x", "http://***"),
        ],
    )
    def test_mask(self, text: str, shown: str) -> None:
        """No userinfo and no query is shown."""
        assert mask(text) == shown

    @pytest.mark.ids("F8")
    async def test_absolute_target(self) -> None:
        """For a target in absolute form the peer is named, and the target."""
        connection = await open_connection("http://p:1", stream=ScriptedPeer())
        call = partial(connection.request, "GET", f"http://h/x?{SECRET}")

        assert (await fail(call, PeerGone)).startswith(
            "http://p:1, target http://h/x?***, reading the answer: "
        )


@pytest.mark.ids("F8")
@pytest.mark.parametrize("kind", [PeerGone, MalformedMessage])
async def test_error_of_the_source_of_a_body(kind: type[Exception]) -> None:
    """An error of another connection, which the body comes from, is raised unchanged."""
    failure = kind("http://other/, reading the answer: gone")

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise failure

    peer = ScriptedPeer(then="silence")
    with pytest.raises(kind) as caught:
        await open_upgrade("http://h/", "echo", body=body(), stream=peer)
    assert peer.closed

    assert caught.value is failure
    assert str(failure) == "http://other/, reading the answer: gone"


@pytest.mark.ids("F2")
async def test_tls_error_of_another_implementation() -> None:
    """It may lack the attributes that OpenSSL's errors have."""

    class Foreign(trio.abc.Stream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise trio.BrokenResourceError from ssl.SSLError("not trusted")

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    with pytest.raises(TLSFailed, match=r"TLS failed: .*not trusted"):
        await open_upgrade("https://h/", "echo", stream=Foreign())


@pytest.mark.ids("F3")
async def test_server_hostname_of_another_type() -> None:
    """The message says what was wanted."""
    with pytest.raises(TypeError, match="server_hostname must be a str, not bytes"):
        await open_upgrade(
            "https://127.0.0.1:1/",
            "echo",
            server_hostname=b"x",  # type: ignore[arg-type]
        )

"""Transports: checks before anything is opened, TLS, and failures."""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from trio_upgrade import (
    BadResponse,
    PeerGone,
    Request,
    Response,
    TLSFailed,
    open_connection,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_tcp,
)
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.underlying import find_underlying_socket

from ..sockets import Resolver
from ..wire import okay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[trio.SocketStream], Awaitable[None]]
    TLSHandler = Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]

HOST = "127.0.0.1"
RECORD = 16 * 1024


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def make_server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def make_client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def read_head(stream: trio.abc.ReceiveStream) -> None:
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()


async def abort(stream: trio.abc.Stream) -> None:
    reset_on_close(stream)
    await trio.aclose_forcefully(stream)


async def whoami(request: Request) -> Response:
    assert isinstance(request.peer, tuple)
    return Response(200, f"{request.peer[0]} {request.headers['host']}")


async def fetch(url: str, **options) -> bytes:
    async with await open_connection(url, **options) as connection:
        return await (await connection.request("GET", "/")).read()


async def serve_raw(nursery: trio.Nursery, handler: Handler) -> int:
    serve = partial(trio.serve_tcp, handler, 0, host=HOST)
    listeners: list[trio.SocketListener] = await nursery.start(serve)
    port: int = listeners[0].socket.getsockname()[1]
    return port


class TestWay:
    """A way that is not possible is refused before anything is opened."""

    @pytest.mark.parametrize(
        ("url", "options", "match"),
        [
            ("http+unix://%2Fa", {"via": "http://x"}, "no proxy connects to a Unix"),
            (
                "http://y",
                {"via": ["http://x", "http+unix://%2Fa"]},
                "no proxy connects",
            ),
            ("http+unix://%2Fa", {"local_address": HOST}, "local_address"),
            ("http://y", {"via": "ftp://x"}, "scheme 'ftp'"),
            ("http://y", {"via": ["http://"]}, "no host"),
            ("http://y", {"server_hostname": "x"}, "the URL does not ask for"),
            ("ws+unix://%2Fa", {"server_hostname": "x"}, "the URL does not ask for"),
            (
                "http://y",
                {"server_hostname": "x", "via": "https://p"},
                "the URL does not ask for",
            ),
        ],
    )
    async def test_refused(self, url: str, options, match: str) -> None:
        """The error says what is wrong."""
        with pytest.raises(ValueError, match=match):
            await open_upgrade(url, "echo", **options)

    async def test_no_socket_file(self, tmp_path: Path) -> None:
        """A Unix socket that does not exist is the OSError of connecting."""
        path = str(tmp_path / "none").replace("/", "%2F")
        with pytest.raises(FileNotFoundError):
            await open_connection(f"http+unix://{path}")

    async def test_local_address(self, nursery: trio.Nursery) -> None:
        """The server sees the given local address."""
        server = await nursery.start(partial(serve_tcp, whoami, 0, host=HOST))

        assert (await fetch(server.url, local_address="127.0.0.2")).startswith(
            b"127.0.0.2 "
        )

    async def test_ipv6(self, nursery: trio.Nursery) -> None:
        """An IPv6 address is dialled without brackets, and has them in Host."""
        if not has_ipv6():
            pytest.skip("needs IPv6 on the loopback interface")
        server = await nursery.start(partial(serve_tcp, whoami, 0, host="::1"))
        port = server.url.rpartition(":")[2]

        assert await fetch(f"http://[0::1]:{port}") == f"::1 [::1]:{port}".encode()

    @pytest.mark.ids("F10")
    @pytest.mark.parametrize("zone", ["%25lo", "%lo", "%251", "%1", "%250"])
    @pytest.mark.parametrize("local_address", [None, "::1"])
    async def test_zone(
        self, nursery: trio.Nursery, zone: str, local_address: str | None
    ) -> None:
        """An address with a zone is dialled, and Host does not have the zone."""
        if not has_ipv6() or socket.if_indextoname(1) != "lo":
            pytest.skip("needs IPv6 on the loopback interface of Linux")
        server = await nursery.start(partial(serve_tcp, whoami, 0, host="::1"))
        port = server.url.rpartition(":")[2]
        url = f"http://[0::1{zone}]:{port}"

        answer = await fetch(url, local_address=local_address)
        assert answer == f"::1 [::1]:{port}".encode()

    @pytest.mark.ids("F10")
    @pytest.mark.parametrize("local_address", [None, "::"])
    async def test_zone_of_a_link(
        self, nursery: trio.Nursery, local_address: str | None
    ) -> None:
        """The zone says on which link an address is: another one does not lead there."""
        if not (found := find_link_local()):
            pytest.skip("needs an interface with a link-local IPv6 address, and Linux")
        address, name, index = found
        sock = trio.socket.socket(socket.AF_INET6)
        await sock.bind((address, 0, 0, index))
        sock.listen()
        port = sock.getsockname()[1]
        listeners = [trio.SocketListener(sock)]

        async def app(request: Request) -> Response:
            return Response(200, request.headers["host"])

        await nursery.start(partial(serve_listeners, app, listeners))
        for zone in name, index:
            url = f"http://[{address}%25{zone}]:{port}/"
            answer = await fetch(url, local_address=local_address)
            assert answer == f"[{address}]:{port}".encode()
        for zone in "%25lo", "":
            with pytest.raises(OSError, match=f"{port}"):
                await fetch(
                    f"http://[{address}{zone}]:{port}/", local_address=local_address
                )

    @pytest.mark.ids("F10")
    @pytest.mark.parametrize("local_address", [None, "::1"])
    @pytest.mark.parametrize("zone", ["no-such-zone", "4294967296", "9" * 5000])
    async def test_zone_unknown(self, zone: str, local_address: str | None) -> None:
        """A zone that this machine does not have is the OSError of connecting."""
        url = f"http://[fe80::1%25{zone}]:81/"
        with pytest.raises(
            OSError, match=r"cannot connect to .*: no interface"
        ) as caught:
            await open_connection(url, local_address=local_address)

        assert caught.value.errno == errno.ENODEV
        assert f"[fe80::1%{zone}]:81" in str(caught.value)

    @pytest.mark.ids("F10")
    async def test_zone_in_errors(self) -> None:
        """The error of an address that cannot be reached names its zone."""
        if not has_ipv6() or socket.if_indextoname(1) != "lo":
            pytest.skip("needs IPv6 on the loopback interface of Linux")
        with pytest.raises(OSError, match=r"to \[fe80::1%lo\]:81: ") as caught:
            await open_connection("http://[fe80::1%25lo]:81/")

        # Without a scope Linux answers EINVAL.
        assert caught.value.errno not in (None, errno.EINVAL)

    async def test_options(self, nursery: trio.Nursery) -> None:
        """A socket to an address has the options that Trio sets for a name."""
        server = await nursery.start(partial(serve_tcp, whoami, 0, host=HOST))

        async with await open_connection(server.url) as connection:
            sock = find_underlying_socket(connection._http._stream)
            assert sock is not None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0

    @pytest.mark.parametrize("host", [HOST, "224.0.0.1"])
    async def test_refused_connection(self, host: str) -> None:
        """An address that refuses, or that TCP cannot use, is an OSError."""
        with socket.socket() as bound:
            bound.bind((HOST, 0))
            address = f"{host}:{bound.getsockname()[1]}"
            with pytest.raises(OSError, match=f"cannot connect to {address}: ") as info:
                await open_connection(f"http://{address}")

        assert info.value.errno
        assert isinstance(info.value, ConnectionRefusedError) == (host == HOST)

    async def test_name(self, nursery: trio.Nursery) -> None:
        """A name is looked up, and its addresses are tried as Trio does."""
        trio.socket.set_custom_hostname_resolver(Resolver())
        server = await nursery.start(partial(serve_tcp, whoami, 0, host=HOST))
        port = server.url.rpartition(":")[2]

        assert await fetch(f"http://name:{port}") == f"{HOST} name:{port}".encode()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def find_link_local() -> tuple[str, str, int] | None:
    """Return a link-local address of this machine, its interface and the index."""
    try:
        table = Path("/proc/net/if_inet6").read_text()
    except OSError:
        return None
    for line in table.splitlines():
        digits, index, _, _, _, name = line.split()
        if digits.startswith("fe80"):
            return str(IPv6Address(int(digits, 16))), name, int(index, 16)
    return None


class TestTLS:
    """TLS if the URL says so."""

    @pytest.mark.parametrize(
        ("name", "host", "sni"),
        [
            ("a.example", "a.example", "a.example"),
            ("A.Example.", "a.example.", "a.example"),
            ("B\xfccher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
            (HOST, HOST, None),
        ],
    )
    async def test_names(
        self,
        nursery: trio.Nursery,
        authority: trustme.CA,
        name: str,
        host: str,
        sni: str | None,
    ) -> None:
        """The certificate is checked against the name, or address, in the URL."""
        trio.socket.set_custom_hostname_resolver(Resolver())
        context = make_server_context(authority, host.removesuffix("."))
        seen: list[str | None] = []
        context.sni_callback = lambda _, asked, __: seen.append(asked)
        serve = partial(serve_ssl_over_tcp, whoami, 0, context, host=HOST)
        server = await nursery.start(serve)
        port = server.url.rpartition(":")[2]
        url = f"wss://{name}:{port}"
        answer = await fetch(url, ssl_context=make_client_context(authority))

        assert answer == f"{HOST} {host}:{port}".encode()
        # RFC 6066 §3: SNI has no address, and no dot at the end.
        assert seen == [sni]

    async def test_context_of_ours(
        self, nursery: trio.Nursery, authority: trustme.CA, tmp_path, monkeypatch
    ) -> None:
        """Our context trusts as the system does, and offers only http/1.1 (RFC 7301)."""
        context = make_server_context(authority, "localhost")
        context.set_alpn_protocols(["h2", "http/1.1"])
        chosen: list[str | None] = []

        async def handler(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await read_head(stream)
            chosen.append(stream.selected_alpn_protocol())
            await stream.send_all(okay(b"ok"))

        serve = partial(trio.serve_ssl_over_tcp, handler, 0, context, host=HOST)
        listeners = await nursery.start(serve)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        trusted = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(trusted))
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

        assert await fetch(f"https://localhost:{port}") == b"ok"
        assert chosen == ["http/1.1"]

    async def test_context_that_offers_more(
        self, nursery: trio.Nursery, authority: trustme.CA
    ) -> None:
        """A given context is not changed; if the peer chooses h2, that is an error."""
        server_context = make_server_context(authority, "localhost")
        server_context.set_alpn_protocols(["h2"])
        client_context = make_client_context(authority)
        client_context.set_alpn_protocols(["h2", "http/1.1"])
        serve = partial(serve_ssl_over_tcp, whoami, 0, server_context, host=HOST)
        server = await nursery.start(serve)
        url = f"https://localhost:{server.url.rpartition(':')[2]}"
        with pytest.raises(TLSFailed, match="chose 'h2'"):
            await fetch(url, ssl_context=client_context)

    async def test_no_tls_there(self, nursery: trio.Nursery) -> None:
        """A server in clear text is TLSFailed."""
        server = await nursery.start(partial(serve_tcp, whoami, 0, host=HOST))
        with pytest.raises(
            TLSFailed, match=rf"no TLS with https://{HOST}:\d+/: .*VERSION"
        ) as caught:
            await fetch(server.url.replace("http", "https"))

        assert isinstance(caught.value.__cause__, ssl.SSLError)

    async def test_another_name(
        self, nursery: trio.Nursery, authority: trustme.CA
    ) -> None:
        """The certificate of another name is TLSFailed."""
        context = make_server_context(authority, "localhost")
        serve = partial(serve_ssl_over_tcp, whoami, 0, context, host=HOST)
        server = await nursery.start(serve)
        with pytest.raises(TLSFailed, match="IP address mismatch"):
            await fetch(server.url, ssl_context=make_client_context(authority))

    @pytest.mark.ids("F12")
    @pytest.mark.parametrize(
        ("given", "checked", "sni"),
        [
            ("edge.example", "edge.example", "edge.example"),
            ("Edge.Example.", "edge.example", "edge.example"),
            ("b\xfccher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1", None),
            ("2001:DB8:0::1", "2001:db8::1", None),
        ],
    )
    @pytest.mark.parametrize("scheme", ["https", "wss+unix"])
    async def test_server_hostname(
        self,
        nursery: trio.Nursery,
        authority: trustme.CA,
        tmp_path: Path,
        scheme: str,
        given: str,
        checked: str,
        sni: str | None,
    ) -> None:
        """SNI and the check of the certificate have this name; Host has the URL's."""
        context = make_server_context(authority, checked)
        seen: list[str | None] = []
        context.sni_callback = lambda _, asked, __: seen.append(asked)
        listener: trio.abc.Listener[trio.abc.Stream]
        if scheme == "https":
            (listener,) = await trio.open_tcp_listeners(0, host=HOST)
            host = f"{HOST}:{listener.socket.getsockname()[1]}"
            url = f"https://{host}"
        else:
            path, host = str(tmp_path / "s"), "localhost"
            sock = trio.socket.socket(socket.AF_UNIX)
            await sock.bind(path)
            sock.listen()
            listener = trio.SocketListener(sock)
            url = f"{scheme}://{path.replace('/', '%2F')}"

        async def app(request: Request) -> Response:
            return Response(200, request.headers["host"])

        listeners = [trio.SSLListener(listener, context, https_compatible=True)]
        await nursery.start(partial(serve_listeners, app, listeners))
        dial = partial(fetch, url, ssl_context=make_client_context(authority))

        assert await dial(server_hostname=given) == host.encode()
        assert seen == [sni]
        with pytest.raises(TLSFailed, match="mismatch"):
            await dial()
        with pytest.raises(TLSFailed, match=r"mismatch.*'other\.example'"):
            await dial(server_hostname="other.example")

    @pytest.mark.ids("F12")
    @pytest.mark.parametrize(
        "given",
        [
            "",
            ".",
            "a:443",
            "[::1]",
            "::1%lo",
            "https://a",
            "u@a",
            ".a",
            "a b",
            "a\n",
            "a/",
        ],
    )
    async def test_server_hostname_refused(self, given: str) -> None:
        """A text that is no name and no address is refused before anything is dialled."""
        with pytest.raises(ValueError, match="is a host name or an address, not"):
            await open_upgrade("https://x", "echo", server_hostname=given)

    @pytest.mark.parametrize("how", ["end", "reset"])
    async def test_gone_in_the_handshake(self, nursery: trio.Nursery, how: str) -> None:
        """An end or a reset within the TLS handshake is PeerGone."""

        async def handler(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            if how == "reset":
                await abort(stream)

        port = await serve_raw(nursery, handler)
        with pytest.raises(PeerGone, match="within the TLS handshake"):
            await open_connection(f"https://{HOST}:{port}")


class TestIdleTLS:
    """Between two requests over TLS nothing unasked is taken for a response."""

    async def ask_twice(
        self,
        nursery: trio.Nursery,
        authority: trustme.CA,
        then: TLSHandler,
        first: bytes = okay(b"1"),
    ) -> bytes:
        go, gone = trio.Event(), trio.Event()
        context = make_server_context(authority, "localhost")

        async def handler(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await read_head(stream)
            await stream.send_all(first)
            await go.wait()
            await then(stream)
            gone.set()
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                await stream.receive_some()
                await stream.send_all(okay(b"2"))

        serve = partial(trio.serve_ssl_over_tcp, handler, 0, context, host=HOST)
        listeners = await nursery.start(serve)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        async with await open_connection(
            f"https://localhost:{port}", ssl_context=make_client_context(authority)
        ) as connection:
            assert await (await connection.request("GET", "/")).read() == b"1"
            go.set()
            await gone.wait()
            return await (await connection.request("GET", "/")).read()

    async def test_quiet(self, nursery: trio.Nursery, authority: trustme.CA) -> None:
        """If nothing came, the second request is made; session tickets do not count."""

        async def then(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await trio.lowlevel.checkpoint()

        assert await self.ask_twice(nursery, authority, then) == b"2"

    @pytest.mark.ids("M08", "F7")
    @pytest.mark.parametrize("end", [True, False])
    async def test_late_408(
        self, nursery: trio.Nursery, authority: trustme.CA, end: bool
    ) -> None:
        """A response that came meanwhile is not that of the second request."""
        for unasked in (okay(b"", status="408 Request Timeout"), okay(b"2")):

            async def then(
                stream: trio.SSLStream[trio.SocketStream], unasked: bytes = unasked
            ) -> None:
                for octet in unasked:
                    await stream.send_all(bytes([octet]))
                if end:
                    await stream.aclose()

            is_timeout = unasked.startswith(b"HTTP/1.1 408")
            error = PeerGone if end or is_timeout else BadResponse
            with pytest.raises(error, match=r"idle|more than its response"):
                await self.ask_twice(nursery, authority, then)

    @pytest.mark.ids("M08")
    async def test_in_the_same_packet(
        self, nursery: trio.Nursery, authority: trustme.CA
    ) -> None:
        """Nor are bytes in their own record, in one packet with the first response."""

        async def then(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await trio.lowlevel.checkpoint()

        # A record has at most 16 KiB (RFC 8446 §5.1).
        first = okay(b"1", "X-Fill: " + "x" * (RECORD - len(okay(b"1", "X-Fill: "))))
        assert len(first) == RECORD
        with pytest.raises(BadResponse, match="more than its response"):
            await self.ask_twice(nursery, authority, then, first + b"HTTP/1.1 408 ")

    async def test_end(self, nursery: trio.Nursery, authority: trustme.CA) -> None:
        """A close_notify between two requests is PeerGone."""

        async def then(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await stream.aclose()

        with pytest.raises(PeerGone, match="ended the idle connection"):
            await self.ask_twice(nursery, authority, then)

    async def test_reset(self, nursery: trio.Nursery, authority: trustme.CA) -> None:
        """A reset between two requests is PeerGone."""

        async def then(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await abort(stream)

        with pytest.raises(PeerGone, match="ended the idle connection"):
            await self.ask_twice(nursery, authority, then)

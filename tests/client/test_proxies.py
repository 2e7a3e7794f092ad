"""Proxies: their URLs, and the exchange with them."""

from __future__ import annotations

import ssl
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from trio_upgrade import (
    BadResponse,
    IllegalSwitch,
    PeerGone,
    Proxy,
    TLSFailed,
    TunnelRefused,
    open_connection,
    open_tunnel,
    open_upgrade,
)

from ..wire import SWITCHED, okay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"


async def serve_raw(
    nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]
) -> str:
    serve = partial(trio.serve_tcp, handler, 0, host=HOST)
    listeners: list[trio.SocketListener] = await nursery.start(serve)
    return f"{HOST}:{listeners[0].socket.getsockname()[1]}"


class Script:
    """A proxy that reads request heads and sends one answer for each."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.received = bytearray()

    async def handle(self, stream: trio.abc.Stream) -> None:
        for number, answer in enumerate(self.answers, 1):
            while self.received.count(b"\r\n\r\n") < number:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                self.received += chunk
            await stream.send_all(answer)


class TestProxy:
    """The class."""

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("http://u:secret@H:3128/", "<Proxy http://h:3128>"),
            ("https://[::1]", "<Proxy https://[::1]:443>"),
            ("socks5://u:secret@h", "<Proxy socks5://h:1080>"),
            ("SOCKS5H://h:1", "<Proxy socks5h://h:1>"),
            ("http+unix://%2Frun%2Fproxy", "<Proxy http at /run/proxy>"),
        ],
    )
    def test_repr(self, url: str, shown: str) -> None:
        """The repr shows where the proxy is, and no secret."""
        assert repr(Proxy(url)) == shown
        if "socks" not in url.lower():
            assert repr(Proxy(url, {"Proxy-Authorization": "x"})) == shown

    @pytest.mark.parametrize(
        ("url", "headers", "match"),
        [
            ("h:1", {}, "begins with a scheme"),
            ("socks4://h", {}, "scheme 'socks4'"),
            ("http://h", {"Host": "x"}, "Host is written by the library"),
            ("http://h", {"A": "b\r\nC: d"}, "A: control"),
            ("socks5://h", {"A": "b"}, "SOCKS has no fields"),
            ("socks5://u@h", {}, "credentials in the URL that SOCKS cannot"),
            ("socks5://:p@h", {}, "credentials in the URL that SOCKS cannot"),
            ("socks5://u:%C3%A9@h", {}, "credentials in the URL that SOCKS cannot"),
            (f"socks5://u:{'p' * 256}@h", {}, "credentials in the URL that SOCKS"),
        ],
    )
    def test_refused(self, url: str, headers, match: str) -> None:
        """A URL that cannot be a proxy's is refused by the constructor."""
        with pytest.raises(ValueError, match=match):
            Proxy(url, headers)

    @pytest.mark.ids("F12")
    @pytest.mark.parametrize(
        ("url", "name", "match"),
        [
            ("http://h", "x", "the URL does not ask for"),
            ("socks5h://h", "x", "the URL does not ask for"),
            ("https://h", "x:443", "is a host name or an address, not 'x:443'"),
        ],
    )
    def test_server_hostname_refused(self, url: str, name: str, match: str) -> None:
        """A name for TLS is refused without TLS, or if it is malformed."""
        with pytest.raises(ValueError, match=match):
            Proxy(url, server_hostname=name)

    def test_without_the_extra(self, monkeypatch) -> None:
        """If python-socks is missing, the error names the extra to install."""
        monkeypatch.setitem(sys.modules, "python_socks.async_.trio.v2", None)
        with pytest.raises(ModuleNotFoundError, match=r"trio-upgrade\[socks\]"):
            Proxy("socks5://h")


class TestThrough:
    """The exchange with a proxy, byte for byte."""

    @pytest.mark.ids("C01", "C08", "C09", "O01")
    async def test_wire(self, nursery) -> None:
        """CONNECT is alone until the 2xx; the request has no field of the proxy."""
        script = Script(OPENED, SWITCHED + b"HEAD")
        proxy = await serve_raw(nursery, script.handle)
        via = Proxy(f"http://u:p@{proxy}", {"User-Agent": "x"})
        upgraded = await open_upgrade("ws://A.example/chat", "echo", via=via)
        async with upgraded as (_, stream, _):
            assert await stream.receive_some() == b"HEAD"

        assert script.received == (
            b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n"
            b"User-Agent: x\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
            b"GET /chat HTTP/1.1\r\nHost: a.example\r\n"
            b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )

    @pytest.mark.ids("F10")
    async def test_zone(self, nursery) -> None:
        """The authority of a CONNECT has no zone: it is of this machine (RFC 6874 §4)."""
        script = Script(OPENED, SWITCHED)
        proxy = await serve_raw(nursery, script.handle)
        url = "ws://[fe80::1%25lo]/chat"
        upgraded = await open_upgrade(url, "echo", via=f"http://{proxy}")
        await trio.aclose_forcefully(upgraded.stream)

        assert b"%" not in script.received
        assert script.received.startswith(
            b"CONNECT [fe80::1]:80 HTTP/1.1\r\nHost: [fe80::1]:80\r\n\r\n"
            b"GET /chat HTTP/1.1\r\nHost: [fe80::1]\r\n"
        )

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (b"", PeerGone),
            (b"HTTP/1.1 2", PeerGone),
            (b"SSH-2.0\r\n\r\n", BadResponse),
            (SWITCHED, IllegalSwitch),
        ],
    )
    async def test_failed(self, nursery, answer: bytes, error) -> None:
        """A failure has a note with the proxy's name."""
        proxy = await serve_raw(nursery, Script(answer).handle)
        with pytest.raises(error) as caught:
            await open_connection("http://h", via=f"http://u:secret@{proxy}")

        assert caught.value.__notes__ == [f"on the way through <Proxy http://{proxy}>"]

    @pytest.mark.ids("C09", "O01")
    async def test_refused(self, nursery) -> None:
        """A refusal has its body; nothing is sent after it."""
        refusal = okay(b"who?", status="407 Proxy Authentication Required")
        script = Script(refusal, OPENED)
        proxy = await serve_raw(nursery, script.handle)
        with pytest.raises(TunnelRefused) as caught:
            await open_upgrade("https://h", "echo", via=f"http://{proxy}")

        assert caught.value.response.status == 407
        assert caught.value.response.body == b"who?"
        assert caught.value.proxy == proxy
        assert script.received == b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"

    @pytest.mark.ids("F12")
    async def test_server_hostname(self, nursery) -> None:
        """Each proxy and the URL's host have their own name for TLS, at any depth."""
        authority = trustme.CA()
        context = ssl.create_default_context()
        authority.configure_trust(context)
        servers = {}
        for name in "outer", "inner", "origin":
            servers[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(f"{name}.example").configure_cert(servers[name])

        async def handle(stream: trio.abc.Stream) -> None:
            # The layers of TLS of one connection, each opened by the CONNECT before it.
            # The client leaves where a name is wrong.
            with suppress(trio.BrokenResourceError):
                for name in "outer", "inner", "origin":
                    stream = trio.SSLStream(stream, servers[name], server_side=True)
                    answer = SWITCHED if name == "origin" else OPENED
                    await Script(answer).handle(stream)

        outer = await serve_raw(nursery, handle)
        make = partial(Proxy, ssl_context=context)
        tls = partial(make, f"https://{outer}", server_hostname="outer.example")
        inner = make("https://h", server_hostname="inner.example")
        dial = partial(
            open_upgrade,
            "wss://h",
            "echo",
            ssl_context=context,
            server_hostname="origin.example",
        )
        upgraded = await dial(via=[tls(), inner])
        await trio.aclose_forcefully(upgraded.stream)
        with pytest.raises(TLSFailed, match=r"mismatch.*'inner.example'"):
            await dial(via=[tls(server_hostname="inner.example"), inner])
        with pytest.raises(TLSFailed, match=r"mismatch.*'h'"):
            await dial(via=[tls(), make("https://h")])
        tunnel = await open_tunnel(
            f"https://{outer}",
            "h:1",
            ssl_context=context,
            server_hostname="outer.example",
        )
        await trio.aclose_forcefully(tunnel.stream)

    async def test_first_bytes_of_a_tunnel(self, nursery) -> None:
        """Bytes that come with the 200 are the first of the tunnel."""
        inner = Script(OPENED, OPENED + b"SSH-2.0")
        proxy = await serve_raw(nursery, inner.handle)
        tunnel = await open_tunnel(f"http://{proxy}", "h:22", via=f"http://{proxy}")
        async with tunnel as (_, stream, head):
            assert head == await stream.receive_some() == b"SSH-2.0"

    @pytest.mark.ids("M08")
    async def test_server_that_speaks_first(self, nursery) -> None:
        """A response before the request is an error (RFC 9112 §9.2)."""
        proxy = await serve_raw(nursery, Script(OPENED + SWITCHED).handle)
        with pytest.raises(BadResponse, match="before it was asked"):
            await open_upgrade("http://h", "echo", via=f"http://{proxy}")

    @pytest.mark.ids("F7")
    async def test_target_that_ends_first(self, nursery) -> None:
        """A 408 before the request is PeerGone; no byte of the request was sent."""
        script = Script(OPENED + okay(b"", status="408 Request Timeout"))
        proxy = await serve_raw(nursery, script.handle)
        with pytest.raises(PeerGone, match="the idle connection") as caught:
            await open_upgrade("http://h", "echo", via=f"http://{proxy}")

        assert not caught.value.request_sent
        assert b"GET" not in script.received

    @pytest.mark.ids("F7")
    async def test_proxy_that_is_gone(self, nursery) -> None:
        """A CONNECT on the way is not the caller's request; that of a tunnel is."""
        proxy = await serve_raw(nursery, Script(b"HTTP/1.1 2").handle)
        with pytest.raises(PeerGone, match="within its answer") as caught:
            await open_upgrade("http://h", "echo", via=f"http://{proxy}")
        assert not caught.value.request_sent

        proxy = await serve_raw(nursery, Script(b"HTTP/1.1 2").handle)
        with pytest.raises(PeerGone, match="within its answer") as caught:
            await open_tunnel(f"http://{proxy}", "h:22")
        assert caught.value.request_sent

    async def test_first_bytes_below_tls(self, nursery) -> None:
        """Bytes that come with the 200 belong to TLS, if TLS is spoken."""
        proxy = await serve_raw(nursery, Script(OPENED + b"no TLS").handle)
        with pytest.raises(TLSFailed, match="no TLS with https://h/: "):
            await open_upgrade("https://h", "echo", via=f"http://{proxy}")

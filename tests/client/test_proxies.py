"""Proxies: their URLs, the environment variables, and the exchange with them."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

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
    proxy_from_environment,
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

    async def handle(self, stream: trio.SocketStream) -> None:
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

    def test_without_the_extra(self, monkeypatch) -> None:
        """If python-socks is missing, the error names the extra to install."""
        monkeypatch.setitem(sys.modules, "python_socks.async_.trio.v2", None)
        with pytest.raises(ModuleNotFoundError, match=r"trio-upgrade\[socks\]"):
            Proxy("socks5://h")


class TestEnvironment:
    """proxy_from_environment(), the only function that reads the environment."""

    @pytest.mark.parametrize(
        ("environment", "url", "expected"),
        [
            ({}, "http://h/", None),
            ({"http_proxy": "http://p:1"}, "http://h/", "http://p:1"),
            ({"http_proxy": "http://p:1"}, "ws://h/", "http://p:1"),
            ({"http_proxy": "http://p:1"}, "https://h/", None),
            ({"HTTPS_PROXY": "https://p"}, "wss://h/", "https://p:443"),
            ({"all_proxy": "socks5h://p"}, "wss://h/", "socks5h://p:1080"),
            ({"all_proxy": "p:1", "http_proxy": ""}, "http://h/", "http://p:1"),
            ({"all_proxy": "p:1"}, "http+unix://%2Fa/", None),
            ({"all_proxy": "p:1", "no_proxy": "*"}, "http://h/", None),
            ({"all_proxy": "p:1", "no_proxy": "x, h"}, "http://a.h/", None),
            ({"all_proxy": "p:1", "no_proxy": "a.h"}, "http://h/", "http://p:1"),
            ({"all_proxy": "p:1", "NO_PROXY": "h:81"}, "http://h:81/", None),
            ({"all_proxy": "p:1", "no_proxy": "h:81"}, "http://h/", "http://p:1"),
            ({"all_proxy": "p:1", "no_proxy": "::1"}, "http://[::1]/", None),
        ],
    )
    def test_variables(self, monkeypatch, environment, url: str, expected) -> None:
        """The variable of the scheme has precedence over that for all."""
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        proxy = proxy_from_environment(url)

        assert repr(proxy) == (f"<Proxy {expected}>" if expected else "None")

    async def test_is_not_read_without_via(self, monkeypatch, nursery) -> None:
        """Without ``via=`` nothing is read from the environment."""
        monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
        origin = await serve_raw(nursery, Script(SWITCHED).handle)
        async with await open_upgrade(f"http://{origin}", "echo") as (response, _, _):
            assert response.status == 101


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

    async def test_first_bytes_below_tls(self, nursery) -> None:
        """Bytes that come with the 200 belong to TLS, if TLS is spoken."""
        proxy = await serve_raw(nursery, Script(OPENED + b"no TLS").handle)
        with pytest.raises(TLSFailed, match="no TLS with https://h/: "):
            await open_upgrade("https://h", "echo", via=f"http://{proxy}")

"""proxy_from_environment(), the only function that reads the environment."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import Upgrade, open_upgrade, proxy_from_environment, serve_tcp
from trio_upgrade._client.proxy_environment import needs_no_proxy

from ..apps import echo
from .no_proxy import DIFFERENT_IN_CURL, FORMS, VARYING_IN_CURL

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from trio_upgrade import Request

    Setter = Callable[[dict[str, str]], None]

HOST = "127.0.0.1"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Setter:
    """Set exactly these variables of those that the function reads."""

    def set_exactly(environment: dict[str, str]) -> None:
        for name in [*os.environ]:
            if name.lower() in VARIABLES:
                monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_exactly


P1, P2 = "http://p:1", "http://p:2"


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "http://h/", None),
        ({"http_proxy": P1}, "http://h/", P1),
        ({"http_proxy": P1}, "ws://h/", P1),
        ({"http_proxy": P1}, "https://h/", None),
        ({"https_proxy": P1}, "http://h/", None),
        ({"HTTPS_PROXY": "https://p"}, "wss://h/", "https://p:443"),
        ({"HTTP_PROXY": P1}, "http://h/", P1),
        ({"HTTP_PROXY": P1, "http_proxy": P2}, "http://h/", P2),
        ({"HTTP_PROXY": P1, "http_proxy": ""}, "http://h/", None),
        ({"all_proxy": "socks5h://p"}, "wss://h/", "socks5h://p:1080"),
        ({"ALL_PROXY": P1}, "ws://h/", P1),
        ({"all_proxy": "p:1", "http_proxy": ""}, "http://h/", P1),
        ({"all_proxy": "p:1", "http_proxy": P2}, "http://h/", P2),
        ({"all_proxy": "p:1"}, "http+unix://%2Fa/", None),
        ({"all_proxy": "u:p@[::1]:3"}, "http://h/", "http://[::1]:3"),
        ({"all_proxy": P1, "no_proxy": "h"}, "http://h/", None),
        ({"all_proxy": P1, "NO_PROXY": "h"}, "http://h/", None),
        ({"all_proxy": P1, "NO_PROXY": "h", "no_proxy": ""}, "http://h/", P1),
        ({"all_proxy": P1, "no_proxy": "h:443"}, "wss://h/", None),
        ({"all_proxy": P1, "no_proxy": "h:443"}, "ws://h/", P1),
    ],
)
def test_variables(
    set_environment: Setter, environment: dict[str, str], url: str, expected: str | None
) -> None:
    """The variable of the scheme goes before that for all, lower case before upper."""
    set_environment(environment)
    proxy = proxy_from_environment(url)

    assert repr(proxy) == (f"<Proxy {expected}>" if expected else "None")


@pytest.mark.ids("F9", "CVE-2016-1000110")
@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({"HTTP_PROXY": P1}, "http://h/", None),
        ({"HTTP_PROXY": P1, "ALL_PROXY": P2}, "http://h/", P2),
        ({"HTTP_PROXY": P1, "http_proxy": P2}, "http://h/", P2),
        ({"HTTPS_PROXY": P1}, "https://h/", P1),
        ({"NO_PROXY": "h", "http_proxy": P1}, "http://h/", None),
    ],
)
def test_cgi(
    set_environment: Setter, environment: dict[str, str], url: str, expected: str | None
) -> None:
    """In a CGI program HTTP_PROXY is a field of the request, so it is ignored."""
    set_environment({"REQUEST_METHOD": "GET", **environment})
    proxy = proxy_from_environment(url)

    assert repr(proxy) == (f"<Proxy {expected}>" if expected else "None")


@pytest.mark.ids("F9")
@pytest.mark.parametrize("value", ["socks://u:p@h:1", "SOCKS://h:1"])
def test_socks(set_environment: Setter, value: str) -> None:
    """``socks://`` is SOCKS5 with the name looked up here."""
    set_environment({"ALL_PROXY": value})

    assert repr(proxy_from_environment("http://x")) == "<Proxy socks5://h:1>"


@pytest.mark.ids("F9")
@pytest.mark.parametrize(
    ("variable", "value", "match"),
    [
        ("ALL_PROXY", "socks4://u:secret@h", "cannot dial a URL of scheme 'socks4'"),
        ("all_proxy", "ftp://u:secret@h", "cannot dial a URL of scheme 'ftp'"),
        ("http_proxy", "u:secret@", "no host"),
        ("HTTP_PROXY", "u:secret@h:x", "not a host"),
        ("http_proxy", "http://u:secret@h:99999", "a port above 65535"),
        ("http_proxy", " http://u:secret@h", "begins with a scheme"),
        ("http_proxy", "http://u:secret@h\n", "blanks, control"),
        ("http_proxy", "http://u:secret@[::1%]", "malformed zone"),
        ("http_proxy", "http://u:secret@h\u2100", "not allowed"),
        ("http_proxy", "http://u:secret@h\udcff", "."),
        ("all_proxy", "socks://u:secr\xe9t@h", "blanks, control"),
        ("all_proxy", "socks5://u:secret%C3%A9@h", "SOCKS cannot carry"),
    ],
)
def test_malformed(
    set_environment: Setter, variable: str, value: str, match: str
) -> None:
    """The error names the variable, and has no credentials."""
    set_environment({variable: value})
    with pytest.raises(ValueError, match=f"^{variable}: .*{match}") as caught:
        proxy_from_environment("http://h/")

    assert "sec" not in f"{caught.value} {caught.value.__context__}"


@pytest.mark.ids("F9")
def test_without_the_extra(
    set_environment: Setter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If python-socks is missing, the error names the variable and the extra."""
    monkeypatch.setitem(sys.modules, "python_socks.async_.trio.v2", None)
    set_environment({"ALL_PROXY": "socks://h"})
    with pytest.raises(ModuleNotFoundError, match=r"^ALL_PROXY: .*trio-upgrade\[socks"):
        proxy_from_environment("http://x")


@pytest.mark.ids("F9")
@pytest.mark.parametrize(("no_proxy", "url", "direct"), FORMS)
def test_no_proxy(
    set_environment: Setter, no_proxy: str, url: str, direct: bool
) -> None:
    """Each form of an entry, and texts that are none, decide as the table says."""
    set_environment({"http_proxy": P1, "no_proxy": no_proxy})

    assert (proxy_from_environment(url) is None) == direct


def test_no_proxy_table() -> None:
    """No form is listed twice, and each difference to curl is about a form."""
    keys = [form[:2] for form in FORMS]

    assert len(keys) == len({*keys})
    assert not DIFFERENT_IN_CURL.keys() & VARYING_IN_CURL.keys()
    assert DIFFERENT_IN_CURL.keys() | VARYING_IN_CURL.keys() <= {*keys}


@given(
    st.text()
    | st.text("[]/:%.*0123456789abcdef, ")
    | st.binary().map(lambda value: value.decode("utf-8", "surrogateescape"))
)
def test_no_proxy_arbitrary_text(text: str) -> None:
    """Any value decides without an error, and * in it is every host."""
    for host in "example.com", "192.0.2.1", "2001:db8::1":
        needs_no_proxy(text, host, 80)
        assert needs_no_proxy(f"{text},*", host, 80)


async def test_is_not_read_without_via(
    set_environment: Setter, nursery: trio.Nursery
) -> None:
    """Without ``via=`` nothing is read from the environment."""

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", echo)

    set_environment({"all_proxy": "http://127.0.0.1:1"})
    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    async with await open_upgrade(server.url, "echo") as (response, _, _):
        assert response.status == 101

"""The URLs that a client dials: each form, malformed ones, and hidden credentials."""

from __future__ import annotations

import re
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import assume, example, given, strategies as st

from trio_upgrade._client.urls import (
    Credentials,
    Endpoint,
    find_server_name,
    parse_any_url,
    parse_socks_url,
    parse_url,
)

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))
names = st.text(ascii_letters + digits + "-_~", min_size=1, max_size=20)
hosts = (
    names
    | st.lists(names, min_size=2, max_size=3).map(".".join)
    | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
)
ports = st.none() | st.integers(0, 65535)


class TestURL:
    """A URL that a client dials."""

    @given(
        st.sampled_from(["http", "https", "ws", "wss", "HTTP", "http+unix", "ftp"]),
        st.sampled_from(["", "u@", "u:p@"]),
        st.sampled_from(
            [
                *("h", "h.example", "1.2.3.4", "[::1]", "H", "h.", ".h", "a..b", "a_b"),
                *("", "a" * 63, "a" * 64, "a." * 126 + "aa", "a." * 126 + "aaa"),
                *("h%41", "ä"),
            ]
        ),
        st.sampled_from(
            ["", ":", ":0", ":01", ":80", ":443", ":9999", ":59999", ":65535", ":65536"]
        ),
        st.sampled_from(["", "/", "/a?b#c", "?q", "#f", "//h@x/", "/ ", "/\n", "/ä"]),
    )
    @example("http", "", "a." * 126 + "aaa", "", "")
    def test_usual_urls_mean_the_same(self, scheme, user, host, port, rest) -> None:
        """The short way for usual URLs returns and refuses what the other one does."""
        url = f"{scheme}://{user}{host}{port}{rest}"
        try:
            expected = parse_any_url(url)
        except ValueError as exc:
            with pytest.raises(ValueError, match=re.escape(str(exc))):
                parse_url(url)
        else:
            assert parse_url(url) == expected

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("http://h", ("h", 80, False, b"h", "/")),
            ("http://h/", ("h", 80, False, b"h", "/")),
            ("HTTP://H:80/A?B=c#frag", ("h", 80, False, b"h", "/A?B=c")),
            ("http://h:8080?q", ("h", 8080, False, b"h:8080", "/?q")),
            ("http://h:/x", ("h", 80, False, b"h", "/x")),
            ("http://h:0/", ("h", 0, False, b"h:0", "/")),
            ("http://h:443/", ("h", 443, False, b"h:443", "/")),
            ("ws://h/chat", ("h", 80, False, b"h", "/chat")),
            ("https://h/", ("h", 443, True, b"h", "/")),
            ("https://h:443/", ("h", 443, True, b"h", "/")),
            ("https://h:80/", ("h", 80, True, b"h:80", "/")),
            ("wss://h:444/", ("h", 444, True, b"h:444", "/")),
            ("http://[::1]/", ("::1", 80, False, b"[::1]", "/")),
            ("http://[0::1]:81/a", ("::1", 81, False, b"[::1]:81", "/a")),
            ("http://1.2.3.4:9//a", ("1.2.3.4", 9, False, b"1.2.3.4:9", "//a")),
        ],
    )
    def test_accepted(self, url: str, expected: tuple[Any, ...]) -> None:
        """Host field and target are the URL's, without a default port (RFC 9110 §7.2)."""
        assert parse_url(url)._replace(scheme="http") == Endpoint(*expected)

    @pytest.mark.parametrize(
        ("url", "match"),
        [
            ("ftp://h/", "cannot dial a URL of scheme 'ftp'"),
            ("socks5://h/", "cannot dial a URL of scheme 'socks5'"),
            ("unix://%2Fa/", "cannot dial a URL of scheme 'unix'"),
            ("h/", "begins with a scheme"),
            ("", "begins with a scheme"),
            ("//h/", "begins with a scheme"),
            ("http:x", "begins with a scheme"),
            (" http://h/", "begins with a scheme"),
            ("http:///x", "no host in the URL"),
            ("http://:80/", "no host in the URL"),
            ("http://h:99999/", "a port above 65535"),
            ("http://h:x/", "not a host"),
            ("http://[::1", "not a host"),
            ("http://[::1%25lo", "not a host"),
            ("http://[%25lo]/", "not a host"),
            ("http://[1:2]/", "not an IPv6 address"),
            ("http://h%41/", "not the name of a host: 'h%41'"),
            ("http://.h/", "not the name of a host"),
            ("http://a..b/", "not the name of a host"),
            (f"http://{'a' * 64}/", "not the name of a host"),
            (f"http://{'a.' * 128}/", "not the name of a host"),
            ("http://h /", "blanks, control or non-ASCII"),
            ("http://h/a b", "blanks, control or non-ASCII"),
            ("http://h/\r\nEvil: 1", "blanks, control or non-ASCII"),
            ("http://h\r\nEvil: 1/", "blanks, control or non-ASCII"),
            ("http://h/\n", "blanks, control or non-ASCII"),
            ("http://h\n", "blanks, control or non-ASCII"),
            ("http://h/\t", "blanks, control or non-ASCII"),
            ("http://h/\0", "blanks, control or non-ASCII"),
            ("http://h/\x7f", "blanks, control or non-ASCII"),
            ("http://h/\u20ac", "blanks, control or non-ASCII"),
            ("http://h\xe9:\xe9/", "blanks, control or non-ASCII"),
            ("http://h\xe9 /", "not allowed"),
            ("http://\u2100/", "not allowed"),
            ("http+unix:///run/x", "no path of a Unix socket"),
            ("http+unix://run/x", "no path of a Unix socket"),
            ("http+unix://%2F/", "no path of a Unix socket"),
            ("http+unix://%2Fa%00/", "no path of a Unix socket"),
            ("http+unix://%2F\xe9/", "blanks, control or non-ASCII"),
        ],
    )
    def test_refused(self, url: str, match: str) -> None:
        """URLs that urllib would accept or silently repair are refused (RFC 3986 §2)."""
        with pytest.raises(ValueError, match=match):
            parse_url(url)

    @pytest.mark.ids("F10")
    @pytest.mark.parametrize(
        ("written", "zone"),
        [
            ("%25eth0", "eth0"),
            ("%eth0", "eth0"),
            ("%253", "3"),
            ("%3", "3"),
            ("%252", "2"),
            ("%25eth0.100-a_b~c", "eth0.100-a_b~c"),
            ("%25en%2F0", "en/0"),
            ("%25a%25b", "a%b"),
            ("%ETH0", "ETH0"),
        ],
    )
    @pytest.mark.parametrize("port", ["", ":81"])
    def test_zone(self, written: str, zone: str, port: str) -> None:
        """A zone, its percent sign escaped or not, is only for dialling (RFC 6874)."""
        endpoint = parse_url(f"wss://u:p@[FE80:0::1{written}]{port}/x")

        assert endpoint.zone == zone
        assert endpoint.host == "fe80::1"
        assert endpoint.host_field == f"[fe80::1]{port}".encode()
        assert endpoint.authority == f"[fe80::1]{port or ':443'}"
        assert find_server_name(endpoint, None) == "fe80::1"
        socks = parse_socks_url(f"socks5://[fe80::1{written}]{port}")
        assert (socks.host, socks.zone) == ("fe80::1", zone)
        assert socks.authority == f"[fe80::1]{port or ':1080'}"

    @pytest.mark.ids("F10")
    @pytest.mark.parametrize(
        ("host", "match"),
        [
            ("[fe80::1%]", "malformed zone of an IPv6 address.*%25eth0"),
            ("[fe80::1%25]", "malformed zone"),
            ("[fe80::1%25a b]", "malformed zone"),
            ("[fe80::1%25\xe9]", "malformed zone"),
            ("[fe80::1%25a%]", "malformed zone"),
            ("[fe80::1%25a%2]", "malformed zone"),
            ("[fe80::1%25a%00]", "malformed zone"),
            ("[fe80::1%25a%0d%0a]", "malformed zone"),
            ("[fe80::1%25a%c3%a9]", "malformed zone"),
            ("[fe80::1%25a/b]", "not a host"),
            ("[fe80::1%25a][", "not a host"),
            ("[127.0.0.1]", "an IPv4 address has no brackets in a URL: 127.0.0.1"),
            ("[127.0.0.1]:80", "an IPv4 address has no brackets in a URL: 127.0.0.1"),
            ("[127.0.0.1%25lo]", "an IPv4 address has no brackets"),
            ("127.0.0.1%25lo", "not the name of a host"),
            ("h%25lo", "not the name of a host"),
            ("::1", "an IPv6 address has brackets in a URL"),
            ("fe80::1%25eth0", "an IPv6 address has brackets in a URL"),
        ],
    )
    def test_address_refused(self, host: str, match: str) -> None:
        """A malformed zone, and brackets in the wrong place, have their own message."""
        for scheme in "http", "https":
            with pytest.raises(ValueError, match=match):
                parse_url(f"{scheme}://{host}/")
        with pytest.raises(ValueError, match=match):
            parse_socks_url(f"socks5://{host}/")

    @pytest.mark.ids("R45")
    @pytest.mark.parametrize(
        ("userinfo", "basic"),
        [
            ("user:secret", b"Basic dXNlcjpzZWNyZXQ="),
            ("user", b"Basic dXNlcjo="),
            (":secret", b"Basic OnNlY3JldA=="),
            ("us%C3%A9r:p%40ss%3A:w", b"Basic dXPDqXI6cEBzczo6dw=="),
        ],
    )
    def test_credentials(self, userinfo: str, basic: bytes) -> None:
        """Userinfo becomes Basic credentials (RFC 7617 §2), and no repr shows it."""
        endpoint = parse_url(f"http://{userinfo}@h:81/x")

        assert endpoint.host_field == b"h:81"
        assert endpoint.credentials is not None
        assert endpoint.credentials.basic() == basic
        assert "Credentials()" in repr(endpoint)
        assert "s" not in repr(endpoint.credentials).removeprefix("Credentials")

    @pytest.mark.parametrize(
        "url",
        [
            "http://a@secret@h/",
            "http://user:sec ret@h/",
            "http://user:secr\xe9t@h/",
            "http://user:secret%0D@h/",
            "http://us%3Aer:secret@h/",
            "http://user:secret%@h/",
            "http://user:secret/@h/",
            "http://user:secret@[::1/",
            "http://user:secret@[::1%25]/",
            "http://user:secret@[1.2.3.4]/",
            "http://user:sec:ret/@h/",
            "http://user:secret@h\u2100:x/",
            "ftp://user:secret@h/",
        ],
    )
    def test_errors_do_not_repeat_credentials(self, url: str) -> None:
        """No error message has the password (RFC 9110 §4.2.4)."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011  many messages
            parse_url(url)

        assert "sec" not in str(caught.value)
        assert caught.value.__context__ is None or "sec" not in str(
            caught.value.__context__
        )

    @pytest.mark.parametrize(
        ("url", "host_field"),
        [
            ("http://B\xfccher.example:81/", b"xn--bcher-kva.example:81"),
            ("http://stra\xdfe.example", b"xn--strae-oqa.example"),
            ("http://xn--bcher-kva.example/", b"xn--bcher-kva.example"),
        ],
    )
    def test_other_alphabets(self, url: str, host_field: bytes) -> None:
        """A name is encoded once, by IDNA 2008, for the resolver, Host and SNI alike."""
        endpoint = parse_url(url)

        assert endpoint.host_field == host_field
        assert endpoint.host == host_field.decode().removesuffix(":81")

    @pytest.mark.parametrize(
        ("url", "secure", "path", "target"),
        [
            ("http+unix://%2Frun%2Fdocker.sock/v1/x?y", False, "/run/d", "/v1/x?y"),
            ("ws+unix://%2Frun%2Fdocker.sock", False, "/run/d", "/"),
            ("WSS+UNIX://%2Frun%2Fdocker.sock", True, "/run/d", "/"),
            ("http+unix://%00abstract/", False, "\0abstract", "/"),
            ("http+unix://%2Fa%3Ab%40c/", False, "/a:b@c", "/"),
        ],
    )
    def test_unix_socket(self, url: str, secure: bool, path: str, target: str) -> None:
        """The escaped path of a Unix socket stands in the place of the host."""
        path = path.replace("/run/d", "/run/docker.sock")

        assert parse_url(url)._replace(scheme="http") == Endpoint(
            "localhost", 0, secure, b"localhost", target, path
        )

    @given(st.text() | visible)
    def test_arbitrary_zone(self, zone: str) -> None:
        """Any text as a zone raises ValueError or leaves nothing of it on the wire."""
        # A bracket would end the zone, and the host with it.
        assume("]" not in zone)
        for mark in "%25", "%":
            try:
                endpoint = parse_url(f"http://[fe80::1{mark}{zone}]:81/")
            except ValueError:
                continue
            assert endpoint.zone
            assert endpoint.host_field == b"[fe80::1]:81"

    def test_authority(self) -> None:
        """``authority`` always has a port, and brackets round an IPv6 address."""
        assert parse_url("https://[::1]/").authority == "[::1]:443"
        assert parse_url("http://h/").authority == "h:80"

    @given(hosts, ports, visible)
    def test_round_trip(self, host: str, port: int | None, rest: str) -> None:
        """A URL made from Host field and target gives the same endpoint."""
        rest = "/" + rest.replace("#", "").replace("?", "")
        authority = host if port is None else f"{host}:{port}"
        endpoint = parse_url(f"http://{authority}{rest}")
        again = parse_url(f"http://{endpoint.host_field.decode()}{endpoint.target}")

        assert again == endpoint
        assert endpoint.target == rest
        assert endpoint.port == (80 if port is None else port)

    @given(st.text() | visible)
    def test_arbitrary_text(self, text: str) -> None:
        """Any text raises ValueError or gives a target that cannot end a line."""
        for url in (text, f"http://{text}", f"ws://h/{text}"):
            try:
                endpoint = parse_url(url)
            except ValueError:
                continue
            assert endpoint.target.startswith("/")
            wire = endpoint.target.encode("ascii") + endpoint.host_field
            assert all(0x21 <= octet <= 0x7E for octet in wire)

    def test_socks(self) -> None:
        """A SOCKS proxy's port is 1080 unless given (RFC 1928 §3)."""
        endpoint = parse_socks_url("socks5://u:p@h")

        assert endpoint.authority == "h:1080"
        assert endpoint.credentials == Credentials(b"u", b"p")
        assert parse_socks_url("socks5h://[::1]:9").authority == "[::1]:9"

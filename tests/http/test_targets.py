"""Request targets and authorities: each form, and strings that have none."""

from __future__ import annotations

from string import ascii_letters, digits

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import Authority, MalformedMessage
from trio_upgrade._http.targets import (
    Target,
    check_authority,
    check_scheme,
    parse_authority,
    parse_target,
)

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))
hosts = st.text(ascii_letters + digits + "-._~", min_size=1, max_size=20) | (
    st.ip_addresses(v=6).map(lambda address: f"[{address}]")
)
ports = st.none() | st.integers(0, 65535)


class TestAuthority:
    """host[:port]: RFC 3986 §3.2 without userinfo."""

    @pytest.mark.parametrize(
        ("text", "host", "port", "shown"),
        [
            ("", "", None, ""),
            ("example.org", "example.org", None, "example.org"),
            ("Example.ORG:8080", "example.org", 8080, "example.org:8080"),
            ("example.org:", "example.org", None, "example.org"),
            ("example.org:0", "example.org", 0, "example.org:0"),
            ("example.org:00080", "example.org", 80, "example.org:80"),
            ("example.org:65535", "example.org", 65535, "example.org:65535"),
            (":80", "", 80, ":80"),
            ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
            ("[::1]", "::1", None, "[::1]"),
            ("[::1]:443", "::1", 443, "[::1]:443"),
            ("[0:0:0:0:0:0:0:1]:", "::1", None, "[::1]"),
            ("[2001:DB8::A]", "2001:db8::a", None, "[2001:db8::a]"),
            ("a%41b", "a%41b", None, "a%41b"),
            ("-._~!$&'()*+,;=", "-._~!$&'()*+,;=", None, "-._~!$&'()*+,;="),
        ],
    )
    def test_accepted(self, text: str, host: str, port: int | None, shown: str) -> None:
        """Hosts are in lower case; addresses are canonical and have no brackets."""
        authority = parse_authority(text)

        assert authority == (host, port)
        assert str(authority) == shown
        check_authority(text.encode())

    @given(
        st.text("aZ9-._~!$&'()*+,;=%:[]@/ \t\xe9\u0661", max_size=12)
        | st.tuples(hosts, st.integers(-1, 100_000)).map("%s:%s".__mod__)
    )
    def test_checked_alike(self, text: str) -> None:
        """check_authority() accepts and refuses the same as parse_authority()."""

        def outcome(function, argument) -> str | None:
            try:
                function(argument)
            except ValueError as exc:
                return str(exc)
            return None

        raw = text.encode("latin-1", "replace")
        assert outcome(check_authority, raw) == outcome(
            parse_authority, raw.decode("latin-1")
        )

    def test_mapped_ipv4(self) -> None:
        """An IPv6 address may end in an IPv4 address with dots (RFC 3986 §3.2.2)."""
        # Python 3.13 keeps the dots, earlier ones write them in hexadecimal.
        assert parse_authority("[::ffff:1.2.3.4]:9") == parse_authority(
            "[::ffff:102:304]:9"
        )

    @pytest.mark.parametrize("text", ["[:1:]", "[1::2::3]", "[fffff::]", "[::1.2.3]"])
    def test_no_ipv6(self, text: str) -> None:
        """What is wrong with an address is said in our words, which peers see."""
        with pytest.raises(ValueError, match=r"^not an IPv6 address in the brackets$"):
            parse_authority(text)

    @pytest.mark.parametrize(
        "text",
        [
            "user@host",
            "user:secret@host:80",
            "host:80:80",
            "host:-1",
            "host:+80",
            "host: 80",
            "host:80 ",
            "host:8o",
            "host:123456",
            "host:\u0661",
            "::1",
            "[::1",
            "::1]",
            "[::1]80",
            "[]",
            "[1.2.3.4]",
            "[::g]",
            "[1::2::3]",
            "[fe80::1%eth0]",
            "[v1.x]",
            "host/path",
            "host?",
            "host#",
            "ho st",
            "ho\r\nst",
            "host\n",
            "host:80\n",
            "h\0",
            "h\xe9",
            "\u212a",
            '"host"',
            "a\\b",
            "a%",
            "a%4",
            "a%4g",
            "%41%",
        ],
    )
    def test_refused(self, text: str) -> None:
        """Anything else is not an authority (RFC 3986 §3.2)."""
        with pytest.raises(ValueError):  # noqa: PT011  ipaddress's message is its own
            parse_authority(text)
        with pytest.raises(ValueError):  # noqa: PT011  likewise
            check_authority(text.encode("latin-1", "replace"))

    @pytest.mark.ids("C02")
    @pytest.mark.parametrize("port", ["65536", "99999"])
    def test_port_too_large(self, port: str) -> None:
        """A port has 16 bits."""
        with pytest.raises(ValueError, match="a port above 65535"):
            parse_authority(f"host:{port}")
        with pytest.raises(ValueError, match="a port above 65535"):
            check_authority(f"host:{port}".encode())

    @given(hosts, ports)
    def test_round_trip(self, host: str, port: int | None) -> None:
        """The str of an authority parses to the same authority."""
        authority = parse_authority(host if port is None else f"{host}:{port}")

        assert authority.port == port
        assert authority.host == host.lower().strip("[]") or ":" in host
        assert parse_authority(str(authority)) == authority

    @given(st.text() | visible)
    def test_arbitrary_text(self, text: str) -> None:
        """Parsing returns or raises ValueError."""
        try:
            authority = parse_authority(text)
        except ValueError:
            return
        assert str(authority).isascii()


class TestTarget:
    """The four forms of a request target (RFC 9112 §3.2)."""

    @pytest.mark.parametrize(
        ("method", "target", "expected"),
        [
            # origin-form
            ("GET", "/", Target("/")),
            ("GET", "/a/b%20c", Target("/a/b%20c")),
            ("GET", "/a?b=c?d&e", Target("/a", "b=c?d&e")),
            ("GET", "/a?", Target("/a")),
            ("OPTIONS", "/a", Target("/a")),
            ("PROPFIND", "/:80", Target("/:80")),
            ("GET", "//host/path", Target("//host/path")),
            ("GET", "//host:bad?q", Target("//host:bad", "q")),
            ("GET", "/http://x/y", Target("/http://x/y")),
            ("GET", "/a;b@c[d]", Target("/a;b@c[d]")),
            # asterisk-form
            ("OPTIONS", "*", Target("*")),
            # authority-form
            ("CONNECT", "Host:80", Target("", "", None, Authority("host", 80))),
            ("CONNECT", "[::1]:65535", Target("", "", None, Authority("::1", 65535))),
        ],
    )
    def test_accepted(self, method: str, target: str, expected: Target) -> None:
        """Each form is split without changes (RFC 9112 §3.2.1, §3.2.3, §3.2.4)."""
        assert parse_target(method, target) == expected

    @pytest.mark.ids("M17")
    @pytest.mark.parametrize(
        ("method", "target", "expected"),
        [
            ("GET", "http://h/a?b", ("/a", "b", "http", ("h", None))),
            ("GET", "HTTPS://H:81/a", ("/a", "", "https", ("h", 81))),
            ("GET", "http://h", ("/", "", "http", ("h", None))),
            ("GET", "http://h?q", ("/", "q", "http", ("h", None))),
            ("GET", "ws://[::1]:9//x", ("//x", "", "ws", ("::1", 9))),
            ("GET", "foo://h/", ("/", "", "foo", ("h", None))),
            ("OPTIONS", "http://h", ("*", "", "http", ("h", None))),
            ("OPTIONS", "http://h:1", ("*", "", "http", ("h", 1))),
            ("OPTIONS", "http://h/", ("/", "", "http", ("h", None))),
            ("OPTIONS", "http://h?q", ("/", "q", "http", ("h", None))),
        ],
    )
    def test_absolute_form(
        self, method: str, target: str, expected: tuple[object, ...]
    ) -> None:
        """A server accepts absolute-form (RFC 9112 §3.2.2, §3.2.4)."""
        assert parse_target(method, target) == expected

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("GET", ""),
            ("GET", "*"),
            ("options", "*"),
            ("OPTIONS", "**"),
            ("GET", "path"),
            ("GET", "host:80"),
            ("GET", "?q"),
            ("GET", "/a#b"),
            ("GET", "/#"),
            ("GET", "http://h/#b"),
            ("GET", "http:///a"),
            ("GET", "http://:80/"),
            ("GET", "://h/"),
            ("GET", "1http://h/"),
            ("GET", "http:/h/"),
            ("GET", "http:h"),
            ("GET", "mailto:a@b"),
            ("GET", "path?x=http://h/"),
        ],
    )
    def test_no_form(self, method: str, target: str) -> None:
        """A target in no form that its method allows is refused (RFC 9112 §3.2)."""
        with pytest.raises(ValueError, match="a target of no known form"):
            parse_target(method, target)

    @pytest.mark.parametrize(
        "target",
        [
            "http://user@h/",
            "http://user:secret@h/",
            "http://h:99999/",
            "http://h:x/",
            "http://[::1/",
            "http://h\\evil/",
            "http://h\u2100/",
        ],
    )
    def test_bad_authority(self, target: str) -> None:
        """Userinfo and malformed authorities are refused (RFC 9110 §4.2.4)."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011  some are urllib's
            parse_target("GET", target)

        assert "secret" not in str(caught.value)

    @pytest.mark.ids("C01", "C02", "C08")
    @pytest.mark.parametrize(
        "target",
        ["*", "host", "host:", "host:0", "host:00", ":80", "", "[::1]", "[::1]:0"],
    )
    def test_connect_without_port(self, target: str) -> None:
        """CONNECT needs a host and a port; there is no default (RFC 9110 §9.3.6)."""
        with pytest.raises(ValueError, match="CONNECT needs host:port"):
            parse_target("CONNECT", target)

    @pytest.mark.ids("C02", "C08")
    @pytest.mark.parametrize(
        "target",
        ["/", "http://h:80/", "h:80/", "u@h:80", "h:80?", "h:80#", "h:80:80"],
    )
    def test_connect_takes_one_form(self, target: str) -> None:
        """CONNECT accepts only authority-form (RFC 9112 §3.2.3)."""
        with pytest.raises(ValueError, match=r"not a host\[:port\]"):
            parse_target("CONNECT", target)

    @pytest.mark.ids("CVE-2026-126344")
    @given(visible)
    def test_origin_form_has_no_authority(self, rest: str) -> None:
        """A target that begins with a slash never names a host (RFC 9112 §3.2.1)."""
        target = "/" + rest.replace("#", "")
        path, _, query = target.partition("?")

        assert parse_target("GET", target) == Target(path, query, None, None)

    @given(st.sampled_from(["GET", "OPTIONS", "CONNECT"]), st.text() | visible)
    def test_arbitrary_text(self, method: str, target: str) -> None:
        """Parsing returns or raises ValueError."""
        for text in (target, f"http://{target}"):
            try:
                parsed = parse_target(method, text)
            except ValueError:
                continue
            assert parsed.authority is not None or text.startswith(("/", "*"))


class TestScheme:
    """The schemes of absolute targets (RFC 9110 §7.4)."""

    @pytest.mark.ids("F25")
    @pytest.mark.parametrize(
        ("scheme", "clear", "secure"),
        [
            *(("http", None, None), ("ws", None, None)),
            *(("https", 421, None), ("wss", 421, None)),
            *(("ftp", 400, 400), ("javascript", 400, 400), ("", 400, 400)),
        ],
    )
    def test_statuses(self, scheme: str, clear: int | None, secure: int | None) -> None:
        """Https and wss need TLS, 421; any other scheme but http and ws is a 400."""
        for is_tls, status in ((False, clear), (True, secure)):
            if status is None:
                check_scheme(scheme, secure=is_tls)
                continue
            with pytest.raises(MalformedMessage, match="the target's scheme") as caught:
                check_scheme(scheme, secure=is_tls)
            assert caught.value.status == status

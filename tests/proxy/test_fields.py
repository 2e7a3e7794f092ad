"""Which fields a proxy forwards and sets, as pure functions."""

from __future__ import annotations

import pytest

from trio_upgrade import Headers
from trio_upgrade._proxy.fields import (
    SWITCH_FIELDS,
    accepts_trailers,
    add_via,
    end_to_end,
    fields_of_101,
    has_passed,
    response_fields,
    trailer_fields,
    without,
)


@pytest.mark.ids("U22", "U23")
def test_named_fields_and_hop_by_hop_fields_stay_here() -> None:
    """Fields that Connection names, and those known as hop-by-hop (RFC 9110 §7.6.1)."""
    headers = Headers(
        [
            (b"hOsT", b"x"),
            (b"Connection", b"x-Secret , close"),
            (b"X-SECRET", b"1"),
            (b"connection", b",,X-Other"),
            (b"x-other", b"2"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Proxy-Connection", b"keep-alive"),
            (b"TE", b"gzip"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"h2c"),
            (b"Cookie", b"a=1"),
            (b"cookie", b"caf\xe9"),
        ]
    )

    assert end_to_end(headers) == [
        (b"hOsT", b"x"),
        (b"Cookie", b"a=1"),
        (b"cookie", b"caf\xe9"),
    ]


@pytest.mark.ids("C09")
def test_proxy_authentication_stays_here() -> None:
    """Credentials for a proxy, and its challenges, are for one hop (RFC 9110 §11.7)."""
    names = ("Proxy-Authorization", "Proxy-Authenticate", "proxy-authentication-info")
    headers = Headers([(name.encode(), b"x") for name in names])

    assert end_to_end(headers) == []


@pytest.mark.ids("U24")
def test_a_client_cannot_name_host_or_length_away() -> None:
    """An end-to-end field is no connection option (RFC 9110 §7.6.1)."""
    headers = Headers(
        [
            (b"Host", b"x"),
            (b"Content-Length", b"1"),
            (b"Connection", b"host, content-length, X"),
            (b"X", b"1"),
        ]
    )

    assert end_to_end(headers) == [(b"Host", b"x"), (b"Content-Length", b"1")]


def test_http2_settings_never_go_on() -> None:
    """Also where Connection does not name them (RFC 9113 §3.1: obsolete)."""
    assert end_to_end(Headers([(b"HTTP2-Settings", b"AAMAAABk")])) == []


@pytest.mark.parametrize(
    ("value", "accepts"),
    [(b"trailers", True), (b"gzip;q=1, Trailers", True), (b"trailersx", False)],
)
def test_te(value: bytes, accepts: bool) -> None:
    """TE is a list whose members compare without case (RFC 9110 §10.1.4)."""
    assert accepts_trailers(Headers([(b"TE", value)])) is accepts


def test_without() -> None:
    """All lines of a name go."""
    assert without([(b"A", b"1"), (b"b", b"2"), (b"a", b"3")], b"a") == [(b"b", b"2")]


@pytest.mark.ids("U27")
def test_via() -> None:
    """Via gets the version as received and our name, after the others (§7.6.3)."""
    fields = [(b"Via", b"1.0 old")]
    add_via(fields, "1.1", "us")

    assert fields == [(b"Via", b"1.0 old"), (b"Via", b"1.1 us")]


@pytest.mark.ids("U26")
@pytest.mark.parametrize(
    ("lines", "passed"),
    [
        ([], False),
        ([b"1.1 us"], True),
        ([b"1.1 other, 1.0 US (comment)"], True),
        ([b"1.1 other", b"HTTP/1.1 us"], True),
        ([b"1.1 us2, 1.1"], False),
    ],
)
def test_loop(lines: list[bytes], passed: bool) -> None:
    """A request whose Via has our name has been here before (RFC 9110 §7.6)."""
    assert has_passed(Headers([(b"Via", line) for line in lines]), "us") is passed


def test_response_fields() -> None:
    """A final response keeps what is end to end, Trailer included."""
    headers = Headers(
        [
            (b"Connection", b"X-Hop"),
            (b"X-Hop", b"1"),
            (b"Upgrade", b"h2c"),
            (b"Content-Length", b"5"),
            (b"Trailer", b"X-Sum"),
            (b"Proxy-Authenticate", b"Basic"),
            (b"Set-Cookie", b"a"),
            (b"set-cookie", b"b"),
        ]
    )
    cookies = [(b"Set-Cookie", b"a"), (b"set-cookie", b"b")]
    kept = [(b"Content-Length", b"5"), (b"Trailer", b"X-Sum"), *cookies]

    assert response_fields(200, headers) == kept
    assert response_fields(304, headers) == kept
    assert response_fields(204, headers) == cookies
    assert response_fields(205, headers) == cookies
    assert response_fields(426, headers) == [*kept, (b"Upgrade", b"h2c")]


def test_cve_2026_55458_fields_of_the_101_are_an_allow_set() -> None:
    """The 101 is built from fields that are known to belong there (go#80875)."""
    headers = Headers(
        [
            (b"Connection", b"Upgrade, Sec-WebSocket-Protocol"),
            (b"Upgrade", b"websocket"),
            (b"Sec-WebSocket-Accept", b"abc"),
            (b"Sec-WebSocket-Protocol", b"named away"),
            (b"Content-Length", b"0"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Keep-Alive", b"timeout=5"),
            (b"X-Internal", b"10.0.0.7"),
            (b"X-More", b"1"),
        ]
    )
    accept = (b"Sec-WebSocket-Accept", b"abc")

    assert fields_of_101(headers, frozenset()) == [accept]
    assert fields_of_101(headers, frozenset({b"x-more"})) == [accept, (b"X-More", b"1")]
    assert not SWITCH_FIELDS & {b"connection", b"upgrade", b"content-length"}


def test_trailers_cannot_change_what_was_decided() -> None:
    """No framing, routing or authentication in trailers (RFC 9110 §6.5.1)."""
    names = str.split(
        "Transfer-Encoding Content-Length Host Authorization Set-Cookie Trailer "
        "X-Forwarded-For Forwarded Connection Content-Type If-Match"
    )
    trailers = Headers([*((name.encode(), b"x") for name in names), (b"X-Sum", b"1")])

    assert trailer_fields(trailers) == [(b"X-Sum", b"1")]

"""The header section of a client's request: Host, credentials and framing."""

from __future__ import annotations

import pytest

from trio_upgrade import open_connection
from trio_upgrade._client.request_head import CheckedRequest, complete_fields
from trio_upgrade._client.urls import parse_url
from trio_upgrade.testing import ScriptedPeer

from ..wire import SWITCHED, okay

PLAIN = parse_url("http://h:81/")
SECRET = parse_url("http://u:p@h/")
BASIC = b"Basic dTpw"


async def chunks():
    yield b"never"


def complete(method="GET", target="/", given=(), body=b"", endpoint=PLAIN):
    return complete_fields(method, target, given, body, endpoint)


class TestHost:
    """RFC 9112 §3.2: Host is the target's authority, without userinfo."""

    @pytest.mark.ids("M01")
    def test_url(self) -> None:
        """Host is that of the URL, unless the field is given."""
        assert complete() == [(b"Host", b"h:81")]
        assert complete(given=[(b"hOST", b"x")]) == [(b"hOST", b"x")]

    @pytest.mark.ids("M17")
    def test_absolute_form(self) -> None:
        """Host is that of a target in absolute form, which is for a proxy."""
        fields = complete(target="http://Other:80/x?://")

        assert fields == [(b"Host", b"other:80")]
        assert complete(target="/http://other/") == [(b"Host", b"h:81")]

    @pytest.mark.ids("F25")
    @pytest.mark.parametrize(
        ("given", "written"),
        [
            ("ws://other/a?b=ws://c", "http://other/a?b=ws://c"),
            ("WS://Other", "http://Other"),
            ("wss://other:1/", "https://other:1/"),
            ("wSs://[::1]/", "https://[::1]/"),
            ("http://other/", "http://other/"),
            ("HTTPS://other/", "HTTPS://other/"),
            ("ftp://other/", "ftp://other/"),
            ("/ws://x", "/ws://x"),
            ("/?wss://x", "/?wss://x"),
            ("*", "*"),
        ],
    )
    def test_scheme_of_an_absolute_target(self, given: str, written: str) -> None:
        """A proxy gets http for ws, https for wss (RFC 6455 §4.1)."""
        request = CheckedRequest("GET", given, (), b"", PLAIN)

        assert request.target == written
        assert request.fields[0][0] == b"Host"

    @pytest.mark.ids("F25")
    async def test_scheme_on_the_wire(self) -> None:
        """Requests and offers to a proxy have an http URI as their target."""
        peer = ScriptedPeer(okay(), SWITCHED)
        async with await open_connection("http://h:81", stream=peer) as connection:
            await (await connection.request("GET", "ws://other/a")).read()
            async with await connection.upgrade("wss://other/b", "echo"):
                pass

        assert peer.sent.startswith(b"GET http://other/a HTTP/1.1\r\nHost: other\r\n")
        assert b"\r\n\r\nGET https://other/b HTTP/1.1\r\nHost: other\r\n" in peer.sent

    @pytest.mark.parametrize("target", ["http://u:p@h/", "http:///x"])
    def test_no_host_in_it(self, target: str) -> None:
        """A target with userinfo, or without a host, is refused (RFC 9110 §4.2.4)."""
        with pytest.raises(ValueError, match=r"host|no known form"):
            complete(target=target)


class TestCredentials:
    """The URL's credentials, for the host that it names."""

    @pytest.mark.ids("C09")
    @pytest.mark.parametrize(
        ("method", "target", "name"),
        [
            ("GET", "/", b"Authorization"),
            ("OPTIONS", "*", b"Authorization"),
            ("GET", "http://other/", b"Proxy-Authorization"),
            ("CONNECT", "a:1", b"Proxy-Authorization"),
        ],
    )
    def test_field(self, method: str, target: str, name: bytes) -> None:
        """A proxy gets them as Proxy-Authorization; a given field replaces them."""
        fields = complete(method, target, endpoint=SECRET)

        assert fields[-1] == (name, BASIC)
        given = [(name.upper(), b"mine")]
        assert complete(method, target, given, endpoint=SECRET)[1:] == given


class TestFraming:
    """The field that frames the body (RFC 9112 §6)."""

    @pytest.mark.parametrize(
        ("method", "body", "expected"),
        [
            ("GET", b"", []),
            ("GET", b"abc", [(b"Content-Length", b"3")]),
            ("POST", b"", [(b"Content-Length", b"0")]),
            ("GET", chunks(), [(b"Transfer-Encoding", b"chunked")]),
        ],
    )
    def test_field(self, method: str, body, expected) -> None:
        """A body of bytes has its length; an iterable is chunked."""
        assert complete(method, body=body)[1:] == expected

    def test_length_of_an_iterable(self) -> None:
        """A given Content-Length is kept for an iterable."""
        given = [(b"content-length", b"5")]

        assert complete(given=given, body=chunks())[1:] == given

    @pytest.mark.parametrize("lengths", [[b"-1"], [b"5, 5"], [b""], [b"5", b"5"]])
    def test_no_length(self, lengths) -> None:
        """A malformed Content-Length is refused (RFC 9112 §6.3)."""
        given = [(b"Content-Length", length) for length in lengths]
        with pytest.raises(ValueError, match=r"Content-Length is not (a|one) number"):
            complete(given=given, body=chunks())

    def test_length_of_bytes(self) -> None:
        """A Content-Length beside a body of bytes is refused: the library writes it."""
        with pytest.raises(ValueError, match="Content-Length is written by"):
            complete(given=[(b"content-length", b"3")], body=b"abc")

    @pytest.mark.parametrize("body", ["text", None, 3, [b"a"], bytearray(b"x")])
    def test_no_body(self, body) -> None:
        """A body of another type is a TypeError."""
        with pytest.raises(TypeError, match=f"a body of {type(body).__name__}"):
            complete(body=body)

    @pytest.mark.ids("U30")
    def test_expectation_without_a_body(self) -> None:
        """Without a body, ``100-continue`` is refused (RFC 9110 §10.1.1)."""
        given = [(b"Expect", b"100-continue")]
        with pytest.raises(ValueError, match="no body"):
            complete(given=given)
        assert given[0] in complete(given=given, body=chunks())

"""ClientCodec: when a 101 is legal, and when the connection can be reused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import pytest

from trio_upgrade import IllegalSwitch, Limits, MalformedMessage
from trio_upgrade._http.client_codec import ClientCodec

from ..wire import SWITCHED, okay
from .codecs import make_client

if TYPE_CHECKING:
    from trio_upgrade._http.headers import Field


class TestSwitch:
    """Which 101 is legal."""

    OFFER = ((b"Connection", b"Upgrade"), (b"Upgrade", b"echo"))

    def test_asked_for(self) -> None:
        """After an offer a 101 is a head like any other."""
        codec = make_client(*self.OFFER)
        codec.receive_data(SWITCHED + b"tail")

        assert codec.parse_response(codec.next_head() or b"").status == 101
        assert codec.detach() == b"tail"

    def test_not_asked_for(self) -> None:
        """Without an offer a 101 is refused before h11 gets it."""
        codec = make_client()
        codec.receive_data(SWITCHED)
        with pytest.raises(IllegalSwitch, match="asked for no switch"):
            codec.parse_response(codec.next_head() or b"")

    @pytest.mark.ids("U14")
    def test_before_the_request_was_sent(self) -> None:
        """A 101 is refused if the request was not sent whole (RFC 9110 §7.8)."""
        codec = make_client(*self.OFFER)
        codec.send_failed()
        codec.receive_data(SWITCHED)
        with pytest.raises(IllegalSwitch, match="before the request was through"):
            codec.parse_response(codec.next_head() or b"")

    def test_1xx_that_looks_alike(self) -> None:
        """A 1010 is neither a 101 nor a status at all."""
        codec = make_client()
        codec.receive_data(SWITCHED.replace(b"101", b"1010"))
        with pytest.raises(MalformedMessage):
            codec.parse_response(codec.next_head() or b"")


class TestReuse:
    """When another exchange can follow."""

    @pytest.mark.ids("M12")
    @pytest.mark.parametrize(
        ("wire", "reusable"),
        [
            (okay(b""), True),
            (okay(b"", "Connection: close"), False),
            (okay(b"").replace(b"1.1", b"1.0"), False),
        ],
    )
    def test_response(self, wire: bytes, reusable: bool) -> None:
        """A connection can be used again unless the response ends it (RFC 9112 §9.3)."""
        codec = make_client()
        codec.receive_data(wire)
        codec.parse_response(codec.next_head() or b"")

        assert codec.is_reusable == reusable

    @pytest.mark.parametrize("length", ["0", "00", "0, 0", "0,0", "0 ,\t0"])
    def test_no_content(self, length: str) -> None:
        """A length of 0 ends the response, also if it is repeated (RFC 9110 §8.6)."""
        codec = make_client()
        codec.receive_data(
            f"HTTP/1.1 200 \r\nContent-Length: {length}\r\n\r\n".encode()
        )
        codec.parse_response(codec.next_head() or b"")

        assert codec.body_ended
        assert codec.is_reusable


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"Accept", b"*/*"), (b"X-Empty", b"")],
        [(b"Connection", b"Upgrade"), (b"Upgrade", b"echo/2, echo")],
        [(b"Connection", b"Upgrade, close"), (b"Upgrade", b"echo")],
        [(b"Connection", b"close")],
        [(b"Content-Length", b"5"), (b"X-Sum", b"1")],
        [(b"Expect", b"100-continue"), (b"Transfer-Encoding", b"chunked")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "CONNECT"])
def test_requests_as_h11_writes_them(method: str, fields: list[Field]) -> None:
    """The bytes and the state are those of an h11 that gets and writes everything."""
    whole = h11.Connection(h11.CLIENT)
    fields = [*fields, (b"Host", b"x:1")]
    codec = ClientCodec(Limits())

    wire = codec.write_request(method, "/a?b", fields)

    told = h11.Request(method=method, target="/a?b", headers=fields)
    assert wire == whole.send(told)
    assert codec._parser.states == whole.states
    if b"5" in dict(fields).values():
        assert codec.write_body(b"five!") == whole.send(h11.Data(data=b"five!"))
    assert codec.write_end() == whole.send(h11.EndOfMessage())
    assert codec._parser.states == whole.states


def test_framing_of_an_informational_response_is_left_out() -> None:
    """The fields of a 1xx that say how long it is mean nothing (RFC 9112 §6.3)."""
    codec = make_client()
    codec.receive_data(
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\n"
    )

    head = codec.parse_response(codec.next_head() or b"")

    assert head.headers.raw == ((b"Link", b"</a>"),)
    assert head.headers.get_list("content-length") == []


@pytest.mark.parametrize(
    ("method", "status", "has_content"),
    [
        ("GET", 200, True),
        ("GET", 404, True),
        ("GET", 204, False),
        ("GET", 304, False),
        ("HEAD", 200, False),
        ("POST", 200, True),
    ],
)
def test_length_without_content(method: str, status: int, has_content: bool) -> None:
    """Some responses have no content whatever their length says (RFC 9112 §6.3)."""
    codec = make_client(method=method)
    codec.receive_data(b"HTTP/1.1 %d OK\r\nContent-Length: 5\r\n\r\n" % status)
    codec.parse_response(codec.next_head() or b"")

    assert codec.body_ended is not has_content
    assert codec.body_left == (5 if has_content else 0)

"""ClientCodec: when a 101 is legal, and when the connection can be reused."""

from __future__ import annotations

import pytest

from trio_upgrade import IllegalSwitch, Limits, MalformedMessage
from trio_upgrade._http.client_codec import ClientCodec

from ..wire import SWITCHED, okay
from .codecs import make_client


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


@pytest.mark.parametrize(("method", "target"), [("a b", "/"), ("GET", "a b")])
def test_malformed_request(method: str, target: str) -> None:
    """A request that h11 refuses is a ValueError, and begins no exchange."""
    codec = ClientCodec(Limits())

    with pytest.raises(ValueError, match="Illegal"):
        codec.write_request(method, target, [(b"Host", b"x")])

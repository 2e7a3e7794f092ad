"""ClientCodec: when a 101 is legal, and when the connection can be reused."""

from __future__ import annotations

import pytest

from trio_upgrade import IllegalSwitch, MalformedMessage

from ..wire import SWITCHED, okay
from .codecs import make_client


class TestSwitch:
    """What the codec itself knows of a 101."""

    OFFER = ((b"Connection", b"Upgrade"), (b"Upgrade", b"echo"))

    def test_asked_for(self) -> None:
        """Behind an offer a 101 is a head like any other."""
        codec = make_client(*self.OFFER)
        codec.receive_data(SWITCHED + b"tail")

        assert codec.parse_response(codec.next_head() or b"").status == 101
        assert codec.detach() == b"tail"

    def test_not_asked_for(self) -> None:
        """Without one it is refused before h11 sees it."""
        codec = make_client()
        codec.receive_data(SWITCHED)
        with pytest.raises(IllegalSwitch, match="asked for no switch"):
            codec.parse_response(codec.next_head() or b"")

    @pytest.mark.ids("U14")
    def test_before_the_request_was_through(self) -> None:
        """Nor is it taken when the request did not go out whole."""
        codec = make_client(*self.OFFER)
        codec.send_failed()
        codec.receive_data(SWITCHED)
        with pytest.raises(IllegalSwitch, match="before the request was through"):
            codec.parse_response(codec.next_head() or b"")

    def test_1xx_that_looks_alike(self) -> None:
        """A 1010 is no 101, and no status either."""
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
    def test_client(self, wire: bytes, reusable: bool) -> None:
        """A client keeps what the server keeps."""
        codec = make_client()
        codec.receive_data(wire)
        codec.parse_response(codec.next_head() or b"")

        assert codec.is_reusable == reusable

"""The objects that apps return are checked when they are made, not when sent."""

from __future__ import annotations

import pytest

from trio_upgrade import Response, Upgrade
from trio_upgrade._http.messages import check_reason, opens_tunnel, standard_reason

from ..apps import echo


class TestResponse:
    """Final responses."""

    @pytest.mark.ids("U17")
    @pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 1000])
    def test_status_not_final(self, status: int) -> None:
        """A 1xx is not a final response; only Upgrade makes a 101 (RFC 9110 §15.2)."""
        with pytest.raises(ValueError, match=f"final response: {status}"):
            Response(status)

    @pytest.mark.ids("U08")
    @pytest.mark.parametrize("headers", [{}, {"Upgrade": ""}, {"Upgrade": ", b@d"}])
    def test_426_names_a_protocol(self, headers: dict[str, str]) -> None:
        """A 426 must name a protocol (RFC 9110 §15.5.22)."""
        with pytest.raises(ValueError, match="426 needs an Upgrade field"):
            Response(426, headers=headers)

        assert Response(426, headers={"upgrade": "a"}).status == 426

    @pytest.mark.parametrize(
        ("given", "body"),
        [
            (b"a", b"a"),
            ("é", "é".encode()),
            (bytearray(b"a"), b"a"),
            (memoryview(b"a"), b"a"),
        ],
    )
    def test_body_in_one_piece(self, given: bytes | str, body: bytes) -> None:
        """Objects with bytes are stored as bytes, and str as UTF-8."""
        response = Response(200, given)

        assert response.body == body
        assert type(response.body) is bytes

    async def test_aclose_without_iterable(self) -> None:
        """aclose() does nothing if the body is bytes."""
        await Response(200, b"a").aclose()

    @pytest.mark.parametrize("body", [None, 5, [b"a"]])
    def test_body_of_another_type(self, body: object) -> None:
        """A body of another type is refused before anything is sent."""
        with pytest.raises(TypeError, match="a body of"):
            Response(200, body)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("headers", "match"),
        [
            ({"Transfer-Encoding": "chunked"}, "Transfer-Encoding"),
            ({"X": "a\r\nSet-Cookie: b"}, "X: control"),
            ({"X\r\nY": "a"}, "token"),
        ],
    )
    def test_fields(self, headers: dict[str, str], match: str) -> None:
        """Framing fields are refused, and nothing can be injected (RFC 9110 §5.5)."""
        with pytest.raises(ValueError, match=match):
            Response(200, headers=headers)

    def test_reason(self) -> None:
        """The reason is the standard phrase, unless another, even empty, is given."""
        assert Response(404).reason == "Not Found"
        assert Response(404, reason="Gone Fishing").reason == "Gone Fishing"
        assert Response(404, reason="").reason == ""
        assert repr(Response(404)) == "<Response 404 Not Found>"

    def test_opens_tunnel(self) -> None:
        """Only a 2xx opens a tunnel in answer to CONNECT (RFC 9110 §9.3.6)."""
        statuses = (200, 299, 300, 404)

        assert [*map(opens_tunnel, statuses)] == [True, True, False, False]


class TestUpgrade:
    """The answer that accepts an offer."""

    @pytest.mark.ids("U34", "U28", "R7")
    @pytest.mark.parametrize(
        ("headers", "match"),
        [
            ({"Content-Length": "0"}, "Content-Length"),
            ({"transfer-encoding": "chunked"}, "transfer-encoding"),
            ({"Connection": "close"}, "Connection"),
            ({"Upgrade": "other"}, "Upgrade"),
            ({"Keep-Alive": "5"}, "Keep-Alive"),
            ({"A": "b\nC: d"}, "A: control"),
        ],
    )
    def test_fields(self, headers: dict[str, str], match: str) -> None:
        """A 101 has no framing field, hop-by-hop field or injection (RFC 9110 §8.6)."""
        with pytest.raises(ValueError, match=match):
            Upgrade("echo", echo, headers)

    @pytest.mark.parametrize("protocol", ["", "a b", "a/", "a,b", "a\r\nX: y"])
    def test_protocol(self, protocol: str) -> None:
        """An Upgrade names one protocol, as name[/version] (RFC 9110 §7.8)."""
        with pytest.raises(ValueError, match="protocol name"):
            Upgrade(protocol, echo)

    def test_handler(self) -> None:
        """A handler must be callable: after the 101 it is too late to find out."""
        with pytest.raises(TypeError, match="handler"):
            Upgrade("echo", None)  # type: ignore[arg-type]

    def test_immutable(self) -> None:
        """An Upgrade is immutable, so it is sent as it was checked."""
        upgrade = Upgrade("echo", echo)

        assert repr(upgrade) == f"Upgrade('echo', {echo!r})"
        with pytest.raises(AttributeError):
            upgrade.protocol = "other"  # type: ignore[misc]
        assert isinstance(upgrade.fields, tuple)


class TestReason:
    """Reason phrases (RFC 9112 §4)."""

    @pytest.mark.parametrize("reason", ["a\r\nb", "a\nb", "\0", "ü", "\x7f"])
    def test_refused(self, reason: str) -> None:
        """A reason phrase is printable ASCII, so nothing can be injected."""
        with pytest.raises(ValueError, match="reason phrase"):
            check_reason(reason)
        with pytest.raises(ValueError, match="reason phrase"):
            Response(200, reason=reason)
        with pytest.raises(ValueError, match="reason phrase"):
            Upgrade("echo", echo, reason=reason)

    def test_standard(self) -> None:
        """The standard phrase is never empty, even for an unknown status."""
        assert standard_reason(200) == "OK"
        assert standard_reason(299) == "Unknown"

"""The objects that apps return are checked when they are made, not when sent."""

from __future__ import annotations

import re

import pytest

from trio_upgrade import Request, Response, Upgrade, open_connection, open_upgrade
from trio_upgrade._http.messages import check_reason, opens_tunnel, standard_reason
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo
from ..servers import run_script
from ..wire import UP, get


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

    @pytest.mark.ids("F28")
    @pytest.mark.parametrize("code", [*range(0x100), 0x100, 0x2028, 0x1F600, 0xD800])
    def test_every_character(self, code: int) -> None:
        """HTAB, blanks, visible characters and obs-text are legal, nothing else."""
        reason = f"Não\t{chr(code)}"
        is_control = (code < 0x20 and code != 0x09) or code == 0x7F
        if not is_control and code <= 0xFF:
            assert check_reason(reason) == reason
            assert Response(200, reason=reason).reason == reason
            assert Upgrade("echo", echo, reason=reason).reason == reason
            return
        text = (
            "a reason phrase must be Latin-1 without control characters but HTAB; it has "
            f"U+{code:04X} at index 4"
        )
        for make in (
            check_reason,
            lambda reason: Response(200, reason=reason),
            lambda reason: Upgrade("echo", echo, reason=reason),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
                make(reason)

    @pytest.mark.ids("F28")
    @pytest.mark.parametrize("reason", ["a\r\nb: c", "a\n", "\r", "\0"])
    def test_no_injection(self, reason: str) -> None:
        """No line can be injected by a reason phrase."""
        with pytest.raises(ValueError, match="a reason phrase must be Latin-1"):
            check_reason(reason)

    @pytest.mark.ids("F28")
    def test_other_types(self) -> None:
        """A reason phrase is a str; the error names the type that was given."""
        with pytest.raises(TypeError, match="must be a str, not bytes"):
            check_reason(b"OK")  # type: ignore[arg-type]

    @pytest.mark.ids("F28")
    @pytest.mark.parametrize(
        "reason",
        [b"", b" ", b"\t", b"a\tb ", b" x", b"N\xe3o", bytes(range(0x80, 0x100))],
    )
    async def test_relayed(self, reason: bytes) -> None:
        """A phrase that a client received goes out as it came, octet by octet."""
        refusal = b"HTTP/1.1 404 " + reason + b"\r\nContent-Length: 0\r\n\r\n"

        async def app(request: Request) -> Response | None:
            upstream = ScriptedPeer(refusal)
            async with await open_connection("http://x", stream=upstream) as client:
                response = await client.request("GET", "/")
            phrase = response.reason
            if request.upgrades:
                await request.accept_upgrade("echo", reason=phrase)
                return None
            return Response(response.status, reason=phrase)

        peer = await run_script(app, get("/"))
        assert peer.sent.startswith(b"HTTP/1.1 404 " + reason + b"\r\nDate: ")
        peer = await run_script(app, UP)
        assert peer.sent.startswith(b"HTTP/1.1 101 " + reason + b"\r\nConnection: ")
        for packets in split_points(bytes(peer.sent)):
            near = ScriptedPeer(*packets)
            upgraded = await open_upgrade("http://x", "echo", stream=near)
            async with upgraded as (response, _, _):
                assert response.reason == reason.decode("latin-1")

    @pytest.mark.ids("F28")
    def test_repr(self) -> None:
        """Controls for a terminal are escaped where a log could show them."""
        assert repr(Response(404, reason="N\xe3o \x9b2J")) == (
            "<Response 404 N\\xe3o \\x9b2J>"
        )

    def test_standard(self) -> None:
        """The standard phrase is never empty, even for an unknown status."""
        assert standard_reason(200) == "OK"
        assert standard_reason(299) == "Unknown"

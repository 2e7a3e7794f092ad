"""The objects that apps return are checked when they are made, not when sent."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest

from trio_upgrade import (
    Headers,
    Request,
    Response,
    Tunnel,
    Upgrade,
    open_connection,
    open_upgrade,
)
from trio_upgrade._http.messages import check_reason, opens_tunnel, standard_reason
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo
from ..servers import run_script
from ..wire import UP, get

TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
COOKIE = ("Set-Cookie", "a=1")
# Public names without their types, for mistakes that a type checker would find.
make_response: Any = Response
make_upgrade: Any = Upgrade
make_tunnel: Any = Tunnel


async def chunks():
    yield b"abc"


async def coroutine() -> None:
    raise AssertionError


class Streamed:
    """An iterable body that is no generator."""

    def __aiter__(self):
        return chunks()


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


class TestMistakes:
    """Each mistake in a call is said in the call, with what was wanted and given."""

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            ("hi", "str"),
            (b"hi", "bytes"),
            (True, "bool"),
            (None, "None"),
            (200.0, "float"),
            (Response, "the class Response"),
            (echo, "the function echo"),
        ],
    )
    def test_status(self, status: object, kind: str) -> None:
        """The status comes first, and is an int."""
        with pytest.raises(TypeError) as caught:
            make_response(status)

        assert str(caught.value) == (
            f"a status must be an int such as 200, not {kind}: "
            "Response(status, body, headers)"
        )

    @pytest.mark.ids("F39")
    def test_status_of_http(self) -> None:
        """A member of HTTPStatus is an int, and kept as one."""
        response = Response(HTTPStatus.NOT_FOUND)

        assert type(response.status) is int
        assert response.status == 404

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (None, "None"),
            (5, "int"),
            ([b"a"], "list"),
            ({"a": 1}, "dict"),
            (chunks, "the function chunks"),
            (Streamed, "the class Streamed"),
            (iter([b"a"]), "list_iterator"),
        ],
    )
    def test_body(self, body: object, kind: str) -> None:
        """A body is bytes, str or an async iterable."""
        with pytest.raises(TypeError, match=f"async iterable of bytes, not {kind}$"):
            make_response(200, body)

    @pytest.mark.ids("F39")
    def test_coroutine(self) -> None:
        """A coroutine that was made too early is named as one."""
        made = coroutine()
        for call in (
            partial(make_response, 200, made),
            partial(make_upgrade, "a", made),
            partial(make_tunnel, made),
        ):
            with pytest.raises(
                TypeError, match="not a coroutine: give the function itself"
            ):
                call()
        made.close()

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize(
        ("headers", "match"),
        [
            ("A: b", "a mapping, or pairs of name and value, not str"),
            (b"A: b", "pairs of name and value, not bytes"),
            (None, "pairs of name and value, not NoneType"),
            (5, "pairs of name and value, not int"),
            ([("a",)], "a pair of name and value, not a tuple of 1"),
            (["ab"], "a pair of name and value, not str"),
            ({"A": 5}, "A: the value must be str or bytes, not int$"),
            ({"A": ["b", "c"]}, "not list; for a repeated field give a pair for each"),
            ({5: "A"}, "a field name must be str or bytes, not int"),
        ],
    )
    def test_headers(self, headers: Any, match: str) -> None:
        """Fields are pairs or a mapping, of str or bytes."""
        answers = (
            partial(make_response, 200, b"", headers),
            partial(make_upgrade, "echo", echo, headers),
            partial(make_tunnel, echo, headers),
            partial(Response(200).with_headers, headers),
            partial(Upgrade("echo", echo).with_headers, headers),
            partial(Tunnel(echo).with_headers, headers),
        )
        for answer in answers:
            with pytest.raises(TypeError, match=match):
                answer()

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize("reason", [5, b"OK", ["OK"]])
    def test_reason(self, reason: object) -> None:
        """A reason phrase is a str."""
        kind = type(reason).__name__
        for call in (
            partial(make_response, 200, reason=reason),
            partial(make_upgrade, "echo", echo, reason=reason),
        ):
            with pytest.raises(TypeError, match=f"phrase must be a str, not {kind}"):
                call()

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize("protocol", [["a"], b"a", None, echo])
    def test_protocol(self, protocol: object) -> None:
        """A protocol is a str."""
        with pytest.raises(TypeError, match="a protocol must be a str such as 'webs"):
            make_upgrade(protocol, echo)

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize(
        ("handler", "kind"), [(None, "None"), (3, "int"), ("echo", "str")]
    )
    def test_handler(self, handler: object, kind: str) -> None:
        """A handler is an async function, as the message says."""
        for call in (
            partial(make_upgrade, "echo", handler),
            partial(make_tunnel, handler),
        ):
            with pytest.raises(TypeError) as caught:
                call()

            assert str(caught.value) == (
                "the handler cannot be called: it must be an async function, await "
                f"handler(request, stream, head), not {kind}"
            )


class TestImmutable:
    """An answer is sent as it was checked; with_headers() makes another one."""

    @pytest.mark.ids("F26")
    @pytest.mark.parametrize(
        "answer", [Response(200, b"a"), Upgrade("echo", echo), Tunnel(echo)]
    )
    def test_attributes(self, answer: Any) -> None:
        """No attribute can be set, deleted or added, and the fields cannot change."""
        for name in ("status", "body", "reason", "handler", "headers", "fields", "x"):
            with pytest.raises((FrozenInstanceError, AttributeError)):
                setattr(answer, name, "a\r\nX: y")
            with pytest.raises((FrozenInstanceError, AttributeError)):
                delattr(answer, name)

        assert not hasattr(answer, "__dict__")
        assert isinstance(answer.headers, Headers)
        assert isinstance(answer.headers.raw, tuple)

    @pytest.mark.ids("F26")
    def test_given_objects_change(self) -> None:
        """What the app does later with its own objects changes nothing."""
        body, headers = bytearray(b"abc"), {"A": "b"}
        response = Response(200, body, headers)
        body[:] = b"x"
        headers["A"] = "x\r\nB: y"

        assert response.body == b"abc"
        assert response.headers.raw == ((b"A", b"b"),)

    @pytest.mark.ids("F26")
    async def test_middleware(self) -> None:
        """A middleware replaces fields of an answer, and its client gets all of them."""

        async def app(request: Request) -> Response:
            return Response(
                200, b"abc", [COOKIE, ("Cache-Control", "no-store"), COOKIE]
            )

        async def middleware(request: Request) -> Response:
            response = await app(request)
            return response.with_headers({"X-A": "1", "cache-control": "private"})

        peer = await run_script(middleware, get("/"))

        assert peer.sent.count(b"Set-Cookie: a=1\r\n") == 2
        assert peer.sent.lower().count(b"cache-control:") == 1
        assert b"\r\ncache-control: private\r\n" in peer.sent
        assert b"\r\nX-A: 1\r\n" in peer.sent

    @pytest.mark.ids("F26")
    def test_replaced(self) -> None:
        """Fields of the same names go, without regard to case; the others stay."""
        body = chunks()
        first = Response(201, body, [("a", "1"), ("B", "2"), ("A", "3")], reason="Yes")
        second = first.with_headers([("A", "4"), (b"c", b"5"), ("a", "6")])

        assert second.headers.raw == (
            (b"B", b"2"),
            (b"A", b"4"),
            (b"c", b"5"),
            (b"a", b"6"),
        )
        assert (second.status, second.reason) == (201, "Yes")
        assert second.body is body
        assert first.headers.get_list("a") == ["1", "3"]
        assert first.with_headers(()).headers.raw == first.headers.raw

    @pytest.mark.ids("F26")
    def test_second_cookie(self) -> None:
        """All lines of a field that repeats are given, as the docstring shows."""
        response = Response(200, "", [COOKIE, ("A", "b")])
        cookie = ("Set-Cookie", "b=2")
        response = response.with_headers([*response.headers.raw, cookie])

        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert response.headers["a"] == "b"
        assert response.headers.get_list("content-type") == [TEXT[1].decode()]

    @pytest.mark.ids("F26")
    @pytest.mark.parametrize(
        ("headers", "match"),
        [
            ({"A": "b\r\nC: d"}, "A: control"),
            ({"Transfer-Encoding": "chunked"}, "Transfer-Encoding is written"),
            ([("Content-Length", "3")] * 2, "Content-Length is not one number but 2"),
            ({"Content-Length": "4"}, "Content-Length is not the length .*: 4, not 3"),
        ],
    )
    def test_checked(self, headers, match: str) -> None:
        """The new answer is checked as the first one was, and the first one stays."""
        response = Response(200, b"abc", {"Content-Length": "3"})
        with pytest.raises(ValueError, match=match):
            response.with_headers(headers)
        with pytest.raises(ValueError, match=match):
            Response(200, b"abc", headers)

        assert response.headers.raw == ((b"Content-Length", b"3"),)

    @pytest.mark.ids("F26")
    @pytest.mark.parametrize(
        "answer", [Upgrade("echo", echo, {"A": "b"}), Tunnel(echo, {"A": "b"})]
    )
    def test_switches(self, answer: Upgrade | Tunnel) -> None:
        """An Upgrade and a Tunnel have the fields that were given, and replace them."""
        changed = answer.with_headers({"a": "c", "D": "e"})

        assert answer.headers.raw == ((b"A", b"b"),)
        assert changed.headers.raw == ((b"a", b"c"), (b"D", b"e"))
        assert changed.handler is echo
        assert type(changed) is type(answer)
        with pytest.raises(ValueError, match="Connection is written by the library"):
            answer.with_headers({"Connection": "close"})

    @pytest.mark.ids("F26")
    def test_upgrade_keeps_the_rest(self) -> None:
        """Protocol and reason of an Upgrade are kept."""
        upgrade = Upgrade("Echo/2", echo, reason="Yes").with_headers({"A": "b"})

        assert (upgrade.protocol, upgrade.reason) == ("Echo/2", "Yes")

    @pytest.mark.ids("F26", "U12")
    def test_advertising(self) -> None:
        """An Upgrade field keeps its connection option (RFC 9110 §7.8)."""
        response = Response(426, headers={"Upgrade": "a"})
        changed = response.with_headers({"Connection": "close"})

        assert changed.headers.get_list("connection") == ["close", "Upgrade"]
        with pytest.raises(ValueError, match="426 needs an Upgrade"):
            response.with_headers({"Upgrade": ""})


class TestContentLength:
    """A Content-Length that the app gives (RFC 9110 §8.6)."""

    @pytest.mark.ids("F26")
    @pytest.mark.parametrize(
        "lengths",
        [
            ["3", "3"],
            ["3", "4"],
            ["3, 3"],
            ["x"],
            [""],
            ["-3"],
            ["+3"],
            ["0x3"],
            ["3 3"],
        ],
    )
    @pytest.mark.parametrize("body", [b"abc", Streamed()])
    def test_not_one_number(self, lengths: list[str], body) -> None:
        """It is one number, or a second reader could find another end."""
        headers = [("Content-Length", length) for length in lengths]
        with pytest.raises(ValueError, match=r"Content-Length is not (a|one) number"):
            Response(200, body, headers)

    @pytest.mark.ids("F26")
    @pytest.mark.parametrize("length", [str(2**63), "9" * 30, "0" * 30])
    def test_too_great(self, length: str) -> None:
        """No number is sent that a client cannot read."""
        with pytest.raises(ValueError, match=r"(is above 2|has more than 20 digits)"):
            Response(200, Streamed(), {"Content-Length": length})

    @pytest.mark.ids("F26")
    def test_greatest(self) -> None:
        """The greatest number of 63 bits is taken."""
        given = {"Content-Length": str(2**63 - 1)}

        assert Response(200, Streamed(), given).headers["content-length"]

    @pytest.mark.ids("F26")
    @pytest.mark.parametrize("length", ["0", "2", "4"])
    def test_wrong(self, length: str) -> None:
        """It is the length of a body that is here, also of a str."""
        with pytest.raises(ValueError, match=rf"length of the body: {length}, not 3"):
            Response(200, "abé"[1:], {"Content-Length": length})

        assert Response(200, "abé"[1:], {"Content-Length": "3"}).body == b"b\xc3\xa9"

    @pytest.mark.ids("F26", "F37")
    def test_without_content(self) -> None:
        """HEAD and 304 may state a length without content; 204 and 205 may not."""
        given = {"Content-Length": "3"}

        assert Response(304, b"", given).headers["content-length"] == "3"
        assert Response(200, b"", given).headers["content-length"] == "3"
        assert Response(205, b"", {"Content-Length": "0"}).status == 205
        with pytest.raises(ValueError, match="a 204 has no Content-Length"):
            Response(204, b"", given)
        with pytest.raises(ValueError, match="a 204 has no Content-Length"):
            Response(204, b"", {"Content-Length": "0"})
        with pytest.raises(ValueError, match="the Content-Length of a 205 is 0"):
            Response(205, b"", given)


class TestText:
    """A str is text, and says so: a browser that guesses would run a script."""

    @pytest.mark.ids("F29")
    @pytest.mark.parametrize("status", [200, 400, 500])
    def test_type(self, status: int) -> None:
        """Without a Content-Type a str is text/plain in UTF-8."""
        assert Response(status, "<script>").headers.raw == (TEXT,)
        assert Response(status, "").headers.raw == (TEXT,)
        assert Response(status, "a", {"A": "b"}).headers.raw == (TEXT, (b"A", b"b"))

    @pytest.mark.ids("F29")
    @pytest.mark.parametrize("name", ["Content-Type", "content-type", b"CONTENT-TYPE"])
    def test_given_type(self, name) -> None:
        """The type that is given is the only one."""
        response = Response(200, "<p>", {name: "text/html; charset=utf-8"})

        assert response.headers.get_list("content-type") == ["text/html; charset=utf-8"]

    @pytest.mark.ids("F29")
    @pytest.mark.parametrize(
        "body", [b"a", bytearray(b"a"), memoryview(b"a"), Streamed()]
    )
    def test_bytes(self, body) -> None:
        """Bytes have no type that the library could know."""
        assert Response(200, body).headers.raw == ()
        assert "content-type" not in Response(200, body, {"A": "b"}).headers

    @pytest.mark.ids("F29")
    def test_replaced(self) -> None:
        """with_headers() replaces the type, and keeps it otherwise."""
        response = Response(200, "<p>")

        changed = response.with_headers({"content-type": "text/html"})
        assert changed.headers.raw == ((b"content-type", b"text/html"),)
        assert response.with_headers({"A": "b"}).headers.raw == (TEXT, (b"A", b"b"))

    @pytest.mark.ids("F29")
    async def test_on_the_wire(self) -> None:
        """A browser gets the type with the text."""

        async def app(request: Request) -> Response:
            return Response(400, f"{request.query} is no name")

        peer = await run_script(app, get("/?<script>"))
        head, _, body = bytes(peer.sent).partition(b"\r\n\r\n")

        assert body == b"<script> is no name"
        assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in head


class TestWithoutContent:
    """204, 205 and 304 have no content (RFC 9110 §15.3.5, §15.3.6, §15.4.5)."""

    @pytest.mark.ids("F37")
    @pytest.mark.parametrize("status", [204, 205, 304])
    @pytest.mark.parametrize("body", [b"abc", "abc", bytearray(b"a"), Streamed(), b" "])
    def test_refused(self, status: int, body) -> None:
        """Content would be lost without a word; so it is refused when it is given."""
        with pytest.raises(ValueError, match=f"^a {status} has no content$"):
            Response(status, body)

    @pytest.mark.ids("F37", "F29")
    @pytest.mark.parametrize("status", [204, 205, 304])
    @pytest.mark.parametrize("body", [b"", "", bytearray(), memoryview(b"")])
    def test_empty(self, status: int, body) -> None:
        """An empty body is no content, and has no type."""
        assert Response(status, body).body == b""
        assert Response(status, body).headers.raw == ()
        assert Response(status, body, {"A": "b"}).headers.raw == ((b"A", b"b"),)

    @pytest.mark.ids("F37", "F38")
    @pytest.mark.parametrize("status", [200, 204, 304])
    async def test_empty_stream(self, status: int) -> None:
        """A stream that is known to be empty is no content: so it can be relayed."""

        async def app(request: Request) -> Response:
            return Response(status, request.stream())

        peer = await run_script(app, get("/"))

        assert peer.sent.startswith(b"HTTP/1.1 %d " % status)
        assert peer.sent.endswith(b"\r\n\r\n")
        assert b"chunked" not in peer.sent
        assert (b"Content-Length: 0\r\n" in peer.sent) == (status == 200)


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

"""Responses that a proxy passes on: every one that our client can receive."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from trio_upgrade import (
    BadResponse,
    ClientConnection,
    ClientResponse,
    Limits,
    Request,
    Response,
    ResponseHead,
    UpgradeRefused,
    open_connection,
    open_upgrade,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..servers import run_script
from ..wire import SWITCHED, get, okay

URL = "http://x"
relay: Any = Response.relayed


async def chunks(*pieces: bytes):
    for piece in pieces:
        yield piece


async def receive(
    wire: bytes, *, method: str = "GET", read: bool = True
) -> ClientResponse:
    """Return the response that a client makes of these bytes."""
    async with await open_connection(URL, stream=ScriptedPeer(wire)) as connection:
        response = await connection.request(method, "/")
        if read:
            await response.read()
    return response


async def forward(*packets: bytes, method: str = "GET") -> bytes:
    """Return what a client gets through a proxy from a server that sends the packets."""

    async def app(request: Request) -> Response:
        return Response.relayed(await connection.request(method, "/"))

    upstream = ScriptedPeer(*packets).hold_until_sent(b"\r\n\r\n")
    connection: ClientConnection
    async with await open_connection(URL, stream=upstream) as connection:
        peer = await run_script(app, get("/").replace(b"GET", method.encode()))
    return bytes(peer.sent)


def answer(status: str, *fields: str, body: bytes = b"") -> bytes:
    """Return a response with exactly these fields."""
    lines = (f"HTTP/1.1 {status}", *fields, "", "")
    return "\r\n".join(lines).encode("latin-1") + body


class TestBody:
    """Content and its framing."""

    @pytest.mark.parametrize("read", [False, True])
    async def test_with_length(self, read: bool) -> None:
        """A length is kept, and an unread body is passed on as it comes."""
        response = await receive(okay(b"abc"), read=read)
        relayed = Response.relayed(response)

        assert relayed.headers.get_list("content-length") == ["3"]
        assert isinstance(relayed.body, bytes) is read

    @pytest.mark.parametrize(
        ("upstream", "sent"),
        [
            (okay(b"abc"), b"Content-Length: 3\r\n\r\nabc"),
            (okay(b""), b"\r\n\r\n"),
            (
                answer(
                    "200 OK",
                    "Transfer-Encoding: chunked",
                    body=b"3\r\nabc\r\n0\r\n\r\n",
                ),
                b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            (
                answer("200 OK", body=b"abc"),
                b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
        ],
        ids=["length", "empty", "chunked", "until the end"],
    )
    async def test_on_the_wire(self, upstream: bytes, sent: bytes) -> None:
        """The framing is ours, and the same data arrives (RFC 9112 §6)."""
        assert (await forward(upstream)).endswith(sent)

    async def test_every_split(self) -> None:
        """The same data arrives, however the server's packets are cut."""
        wire = answer(
            "200 Fine",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "Transfer-Encoding: chunked",
            body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        for packets in split_points(wire):
            sent = await forward(*packets)
            head, _, body = sent.partition(b"\r\n\r\n")
            pieces = [piece for piece in body.split(b"\r\n")[1::2] if piece]

            assert head.startswith(b"HTTP/1.1 200 Fine\r\nDate: ")
            assert b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n" in head
            assert b"".join(pieces) == b"abcde", packets

    async def test_head_request(self) -> None:
        """The answer to HEAD keeps the length of the body that it lacks."""
        sent = await forward(answer("200 OK", "Content-Length: 5"), method="HEAD")

        assert sent.endswith(b"Content-Length: 5\r\n\r\n")

    @pytest.mark.parametrize("body", ["abc", b"abc", bytearray(b"abc")])
    async def test_other_body(self, body: Any) -> None:
        """Another body brings its own length and no other field."""
        response = await receive(
            answer("200 OK", "Content-Length: 5", "Content-Type: a/b", body=b"xxxxx")
        )
        relayed = Response.relayed(response, body=body)

        assert relayed.body == b"abc"
        assert relayed.headers.raw == ((b"Content-Type", b"a/b"),)

    async def test_other_iterable_body(self) -> None:
        """The length of an iterable is not known any more."""
        body = chunks(b"a")
        relayed = Response.relayed(await receive(okay(b"abc")), body=body)

        assert relayed.body is body
        assert "content-length" not in relayed.headers

    @pytest.mark.parametrize("body", [None, b"abc", chunks(b"a")])
    @pytest.mark.parametrize(
        ("wire", "lengths"),
        [
            (answer("204 No Content", "Content-Length: 5"), []),
            (answer("205 Reset", "Content-Length: 5", body=b"abcde"), []),
            (answer("304 Not Modified", "Content-Length: 5"), ["5"]),
        ],
    )
    async def test_without_content(self, wire: bytes, lengths: Any, body: Any) -> None:
        """204, 205 and 304 have no content (RFC 9110 §15.3.5, §15.3.6, §15.4.5)."""
        relayed = Response.relayed(await receive(wire), body=body)

        assert relayed.body == b""
        assert relayed.headers.get_list("content-length") == lengths

    async def test_205_says_0(self) -> None:
        """A 205 is sent with a Content-Length of 0 (RFC 9110 §15.3.6)."""
        sent = await forward(answer("205 Reset", "Content-Length: 5", body=b"abcde"))

        assert sent.endswith(b"Content-Length: 0\r\n\r\n")

    async def test_refusal(self) -> None:
        """A refusal whose body was read to its end can be passed on."""
        wire = answer("403 No", "Content-Length: 3", body=b"abc")
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", stream=ScriptedPeer(wire))
        relayed = Response.relayed(caught.value.response)

        assert (relayed.status, relayed.reason, relayed.body) == (403, "No", b"abc")

    async def test_empty_refusal(self) -> None:
        """So can one without a body, whose connection is closed."""
        wire = answer("403 No", "Content-Length: 0")
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", stream=ScriptedPeer(wire))

        assert Response.relayed(caught.value.response).body == b""

    async def test_truncated(self) -> None:
        """A body that was cut is refused, and the message says the way out."""
        wire = answer("403 No", "Content-Length: 5", body=b"abcde")
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(
                URL, "echo", stream=ScriptedPeer(wire), limits=Limits(refusal_body=2)
            )
        response = caught.value.response
        with pytest.raises(
            ValueError, match=r"cut: open_connection\(\) and its upgrad"
        ):
            Response.relayed(response)

        assert Response.relayed(response, body=response.body).body == b"ab"


class TestHead:
    """Status, reason and fields."""

    async def test_fields(self) -> None:
        """Fields of one hop are left out, the others stay (RFC 9110 §7.6.1, §11.7)."""
        wire = answer(
            "407 No",
            "Connection: X-Hop, close",
            "Keep-Alive: timeout=5",
            "X-Hop: 1",
            "Set-Cookie: a=1",
            "set-cookie: b=2",
            "Upgrade: h2c",
            "Proxy-Authenticate: Basic realm=x",
            "Proxy-Authentication-Info: a=b",
            "Trailer: X-End",
            "Via: 1.1 a",
            "Content-Length: 0",
        )
        relayed = Response.relayed(await receive(wire))

        assert relayed.headers.raw == (
            (b"Set-Cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"Via", b"1.1 a"),
            (b"Content-Length", b"0"),
        )

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("200 Fine \xe9\t!", "Fine \xe9\t!"),
            ("200 ", "OK"),
            ("200", "OK"),
            ("299 ", "Unknown"),
        ],
    )
    async def test_reason(self, line: str, reason: str) -> None:
        """The reason is passed on; an empty one breaks clients that use llhttp."""
        wire = answer(line, "Content-Length: 0")

        assert Response.relayed(await receive(wire)).reason == reason

    async def test_426(self) -> None:
        """A 426 keeps its Upgrade, and the option for it (RFC 9110 §15.5.22)."""
        wire = answer(
            "426 Upgrade", "Upgrade: a/1, b", "Connection: upgrade", "Content-Length: 0"
        )
        relayed = Response.relayed(await receive(wire))

        assert relayed.headers["upgrade"] == "a/1, b"
        assert relayed.headers.options() == {"upgrade"}

    @pytest.mark.parametrize("fields", [(), ("Upgrade: ", "Connection: upgrade")])
    async def test_426_without_upgrade(self, fields: tuple[str, ...]) -> None:
        """A 426 that names no protocol is passed on without; so may a middleware."""
        wire = answer("426 Why", *fields, "Content-Length: 3", body=b"abc")
        relayed = Response.relayed(await receive(wire))

        assert (relayed.status, relayed.reason, relayed.body) == (426, "Why", b"abc")
        assert relayed.headers.raw == ((b"Content-Length", b"3"),)
        named = relayed.with_headers({"X-A": "1"})
        assert (named.status, named.headers["x-a"]) == (426, "1")
        assert named.with_headers({"Upgrade": "a"}).headers["upgrade"] == "a"
        with pytest.raises(ValueError, match="426 needs an Upgrade field"):
            named.with_headers({"Upgrade": ""})

    @given(
        status=st.integers(200, 999),
        reason=st.lists(st.sampled_from([*range(256)])).map(bytes),
        fields=st.lists(
            st.tuples(
                st.sampled_from(
                    (b"A", b"Connection", b"Upgrade", b"Content-Length", b"Trailer")
                ),
                st.lists(st.sampled_from([*range(256)])).map(bytes)
                | st.sampled_from([b"5", b"a", b"0", b"content-length, close"]),
            ),
            max_size=4,
        ),
        method=st.sampled_from(["GET", "HEAD"]),
    )
    @settings(max_examples=300, deadline=None)
    def test_whatever_our_client_takes(
        self, status: int, reason: bytes, fields: Any, method: str
    ) -> None:
        """No response that our client accepts is refused when it is passed on."""
        lines = b"".join([b"%b: %b\r\n" % pair for pair in fields])
        wire = b"HTTP/1.1 %d %b\r\n%b\r\nabcde" % (status, reason, lines)

        async def check() -> None:
            try:
                response = await receive(wire, method=method, read=False)
            except BadResponse:
                return
            relayed = Response.relayed(response)
            assert relayed.status == response.status
            assert relayed.with_headers({"X": "y"}).status == response.status

        trio.run(check)


@pytest.mark.parametrize(
    ("given_", "kind"),
    [
        (ResponseHead(103, "", "1.1", Response(200).headers), "ResponseHead"),
        (Response(200), "Response"),
        (None, "None"),
    ],
)
def test_not_a_final_response(given_: object, kind: str) -> None:
    """A 1xx, of which there is only a head, and other objects are no answers."""
    with pytest.raises(TypeError, match=f"be relayed, a ClientResponse, not {kind}$"):
        relay(given_)


async def test_switched_connection() -> None:
    """A connection that has switched has no answer to pass on."""
    async with await open_upgrade(
        URL, "echo", stream=ScriptedPeer(SWITCHED)
    ) as connection:
        with pytest.raises(TypeError, match="ClientResponse, not UpgradedConnection"):
            relay(connection)

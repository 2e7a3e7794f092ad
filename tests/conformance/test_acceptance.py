"""The 101: its fields, and what is sent before it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import Request, Response, Upgrade, UpgradedStream, serve_stream
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..wire import SWITCHED, UP, closing, get, okay
from .wires import CONTINUE, Serving, with_fields

HOP_BY_HOP = [
    ("Connection", "close"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("TE", "trailers"),
    ("Upgrade", "other"),
]


@pytest.mark.ids("U04", "U12", "U34")
async def test_101_on_the_wire(serving: Serving) -> None:
    """A 101 has both fields, then those of the app, and no others (RFC 9110 §7.8)."""

    async def app(request: Request) -> Upgrade:
        return Upgrade("Echo", echo, {"X-Room": "7"}, reason="Go ahead")

    expected = (
        b"HTTP/1.1 101 Go ahead\r\n"
        b"Connection: Upgrade\r\nUpgrade: Echo\r\nX-Room: 7\r\n\r\n"
    )

    await serving.check(app, UP + b"HEAD", expected + b"HEAD")


@pytest.mark.ids("U04", "U12")
async def test_101_from_within_the_app(serving: Serving) -> None:
    """accept_upgrade sends the same 101 (RFC 9110 §7.8)."""

    async def app(request: Request) -> None:
        stream, head = await request.accept_upgrade("echo")
        await echo(request, stream, head)

    await serving.check(app, UP + b"HEAD", SWITCHED + b"HEAD")


@pytest.mark.ids("U05")
@pytest.mark.parametrize("layers", ["TLS/1.3, HTTP/1.1", "HTTP/1.1,TLS/1.3"])
async def test_one_layer_at_a_time(layers: str) -> None:
    """A 101 names one protocol, so the order cannot be wrong (RFC 9110 §7.8)."""
    with pytest.raises(ValueError, match=r"protocol name\[/version\]"):
        Upgrade(layers, echo)

    async def app(request: Request) -> Response:
        with pytest.raises(ValueError, match=r"protocol name\[/version\]"):
            await request.accept_upgrade(layers)
        return Response(200)

    wire = get("/", "Connection: Upgrade", "Upgrade: TLS/1.3, HTTP/1.1")
    peer = ScriptedPeer(wire)
    await serve_stream(app, peer, strict=True)

    assert peer.sent == okay(b"")


@pytest.mark.ids("U06")
@pytest.mark.parametrize("offer", ["other", "echo/2", "xecho", "echo2"])
async def test_nothing_but_an_offer(serving: Serving, offer: str) -> None:
    """The server never switches to a protocol not offered (RFC 9110 §7.8)."""

    async def app(request: Request) -> Upgrade | Response:
        if request.path == "/1":
            return Response(200, b"1")
        return Upgrade("echo", echo)

    earlier = UP.replace(b"/u", b"/1")
    wire = earlier + get("/", "Connection: Upgrade", f"Upgrade: {offer}")
    refused = okay(
        b"the request does not offer 'echo'\n",
        "Content-Type: text/plain; charset=utf-8",
        "Upgrade: echo",
        "Connection: Upgrade",
        status="426 Upgrade Required",
    )

    await serving.check(app, wire, okay(b"1") + refused)


@pytest.mark.ids("U10")
async def test_request_is_answered_in_the_new_protocol(serving: Serving) -> None:
    """The handler has the request, which it answers after the 101 (RFC 9110 §7.8)."""

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        answer = f"{request.method} {request.path}?{request.query}"
        await stream.send_all(answer.encode())

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    wire = UP.replace(b"/u", b"/chat?room=7")

    await serving.check(app, wire, SWITCHED + b"GET /chat?room=7")


@pytest.mark.ids("U15", "S10")
async def test_100_before_the_101(serving: Serving) -> None:
    """An expected 100 is sent before the 101, even without a body (RFC 9110 §7.8)."""
    wire = with_fields(UP, "Expect: 100-continue")

    await serving.check(echo_app, wire + b"HEAD", CONTINUE + SWITCHED + b"HEAD")

    wire = with_fields(UP, "Expect: 100-Continue", "Content-Length: 4") + b"body"

    await serving.check(echo_app, wire + b"HEAD", CONTINUE + SWITCHED + b"HEAD")


@pytest.mark.ids("U15")
async def test_no_100_without_expectation(serving: Serving) -> None:
    """An offer with a body but without Expect gets no 100 (RFC 9110 §15.2)."""
    wire = with_fields(UP, "Content-Length: 4").replace(b"GET", b"POST") + b"body"

    await serving.check(echo_app, wire + b"HEAD", SWITCHED + b"HEAD")


@pytest.mark.ids("U16", "S1", "S2")
async def test_same_connection_at_the_next_byte(serving: Serving) -> None:
    """The stream begins at the byte after the request (RFC 9110 §7.8)."""
    transports = []

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        transports.append(stream.transport)
        await echo(request, stream, head)

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    await serving.check(app, UP + b"\r\n\x00HEAD", SWITCHED + b"\r\n\x00HEAD")

    kinds = {"memory": trio.StapledStream, "tcp": trio.SocketStream}
    kinds |= {"script": ScriptedPeer, "tls": trio.SSLStream}
    assert {type(transport) for transport in transports} == {kinds[serving.kind]}


@pytest.mark.ids("U17")
async def test_no_1xx_to_http_1_0(serving: Serving) -> None:
    """An HTTP/1.0 client gets only a final response (RFC 9110 §15.2)."""

    async def app(request: Request) -> Upgrade | Response:
        if request.upgrades:
            return Upgrade("echo", echo)
        return Response(200, await request.read(), {"Connection": "close"})

    wire = with_fields(UP, "Expect: 100-continue", "Content-Length: 4") + b"body"
    wire = wire.replace(b"HTTP/1.1", b"HTTP/1.0")

    await serving.check(app, wire, okay(b"body", "Connection: close"))


@pytest.mark.ids("U21", "U34")
@pytest.mark.parametrize("field", [*HOP_BY_HOP, ("Transfer-Encoding", "chunked")])
async def test_no_connection_field_without_its_option(field: tuple[str, str]) -> None:
    """A 101 has no other hop-by-hop field than its own two (RFC 9110 §7.6.1)."""
    with pytest.raises(ValueError, match="written by the library"):
        Upgrade("echo", echo, [field])

    async def app(request: Request) -> Response:
        with pytest.raises(ValueError, match="written by the library"):
            await request.accept_upgrade("echo", headers=[field])
        return Response(200)

    peer = ScriptedPeer(UP)
    await serve_stream(app, peer, strict=True)

    assert peer.sent == okay(b"")


@pytest.mark.ids("U24")
async def test_no_end_to_end_field_is_an_option(serving: Serving) -> None:
    """The library writes only the options Upgrade and close (RFC 9110 §7.6.1)."""

    async def app(request: Request) -> Upgrade | Response:
        if request.path == "/1":
            return Response(200, b"", {"Upgrade": "echo", "Cache-Control": "no-store"})
        return Upgrade("echo", echo, {"Cache-Control": "no-store"})

    advertised = okay(
        b"", "Upgrade: echo", "Cache-Control: no-store", "Connection: Upgrade"
    )
    switched = with_fields(SWITCHED, "Cache-Control: no-store")
    last = closing(advertised)

    await serving.check(app, get("/1") + UP + b"x", advertised + switched + b"x")
    await serving.check(app, get("/1", "Connection: close"), last)


@pytest.mark.ids("U29")
@pytest.mark.parametrize("text", ["a\r\nB: c", "a\nb", "a\rb", "a\x00b", "a\x7fb"])
async def test_no_injection_through_a_field(text: str) -> None:
    """CR, LF, NUL and other controls are refused in a value (RFC 9110 §5.5)."""
    for make in (
        lambda: Upgrade("echo", echo, {"X-A": text}),
        lambda: Upgrade("echo", echo, reason=text),
        lambda: Upgrade(text, echo),
        lambda: Response(200, b"", {"X-A": text}),
        lambda: Response(200, b"", {text: "a"}),
        lambda: Response(200, b"", reason=text),
    ):
        with pytest.raises(ValueError, match="a"):
            make()


@pytest.mark.ids("M09", "S14", "S15")
async def test_101_waits_for_every_earlier_response() -> None:
    """The 101 is sent after all earlier responses (RFC 9112 §9.3.2)."""
    slow = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow"
    for packets in split_points(slow + UP + b"EARLY"):
        may_answer = trio.Event()
        seen: list[str] = []

        async def app(
            request: Request, may_answer=may_answer, seen=seen
        ) -> Response | Upgrade:
            seen.append(request.path)
            if request.path == "/slow":
                await may_answer.wait()
                return Response(200, await request.read())
            return Upgrade("echo", echo)

        peer = ScriptedPeer(*packets)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await trio.testing.wait_all_tasks_blocked()

            assert not peer.sent
            assert seen == ["/slow"]

            may_answer.set()

        assert peer.sent == okay(b"slow") + SWITCHED + b"EARLY"


@pytest.mark.ids("M09", "S14")
async def test_pipelined_answers_keep_their_order(serving: Serving) -> None:
    """Pipelined requests and an offer are answered in order (RFC 9112 §9.3.2)."""
    wire = get("/1") + get("/2") + UP + b"x"

    await serving.check(echo_app, wire, okay(b"/1") + okay(b"/2") + SWITCHED + b"x")

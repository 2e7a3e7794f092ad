"""Upstreams that fail, and clients that leave, in each phase of a request."""

from __future__ import annotations

import logging
import random

import pytest
import trio

from trio_upgrade import Limits, PeerGone, Response, ResponseHead
from trio_upgrade.proxy import ReverseProxy

from .scenes import End, answer, okay, open_scene, request, settle, split_head

# Seconds within which the upstream has to be told that its client has left.  A streamed
# answer is watched after 0.05, all others from the beginning; the rest is for a busy
# machine.
PROMPT = 0.1
UPGRADE = request("Upgrade: websocket").replace(b"close", b"Upgrade")


async def hold(end: End) -> None:
    """Receive and never answer."""
    await end.receive_all()


def unreachable(_url: str, **options) -> ReverseProxy:
    # Port 1 of loopback: nothing listens there.
    return ReverseProxy("http://127.0.0.1:1", **options)


def check_failure(got: bytes, status: bytes, *, port: int = 0) -> None:
    """The answer is of the proxy, and shows nothing of the network."""
    first, fields, body = split_head(got)

    assert first.startswith(b"HTTP/1.1 " + status)
    assert b"Content-Type: text/plain; charset=utf-8" in fields
    assert b"127.0.0.1" not in got
    assert str(port).encode() not in body
    assert body.count(b"\n") == 1


async def test_upstream_that_refuses_connections() -> None:
    """A 502, without a word about the address (RFC 9110 §15.6.3)."""
    async with open_scene(hold, make=unreachable) as scene:
        check_failure(await scene.ask(request()), b"502 ")

        assert scene.proxy.statistics().failures == 1


async def test_upstream_that_does_not_accept_in_time() -> None:
    """A 504 (RFC 9110 §15.6.5); TLS is a part of connecting."""

    def make(url: str, **options):
        return ReverseProxy(url.replace("http:", "https:"), **options)

    async with open_scene(hold, make=make, connect_timeout=0.05) as scene:
        got = await scene.ask(request())

    check_failure(got, b"504 ", port=scene.upstream.port)
    assert b"connection" in got


async def test_upstream_without_tls() -> None:
    """A 502 if TLS cannot be agreed on."""

    def make(url: str, **options):
        return ReverseProxy(url.replace("http:", "https:"), **options)

    async def handle(end: End) -> None:
        await end.stream.receive_some(100)
        await end.send(b"HTTP/1.1 400 No TLS\r\n\r\n")

    async with open_scene(handle, make=make) as scene:
        check_failure(await scene.ask(request()), b"502 ")


async def test_upstream_that_does_not_answer_in_time() -> None:
    """A 504, and the upstream's connection is cut."""
    async with open_scene(hold, response_timeout=0.05) as scene:
        check_failure(await scene.ask(request()), b"504 ")
        await settle()

        assert scene.upstream.ends[0].ended or scene.upstream.ends[0].was_reset


async def test_time_of_the_client_does_not_count() -> None:
    """A slow upload is no fault of the upstream."""
    async with open_scene(answer(okay(), until=b"end"), response_timeout=0.2) as scene:
        async with scene.client() as client:
            await client.send(request("Content-Length: 6", method="POST"))
            for piece in (b"the", b"end"):
                await trio.sleep(0.3)
                await client.send(piece)

            assert (await client.receive_all()).endswith(b"okay")


async def test_no_limits_of_time() -> None:
    """None disables each of them."""
    async with open_scene(
        answer(okay()), connect_timeout=None, response_timeout=None
    ) as scene:
        assert (await scene.ask(request())).endswith(b"okay")


async def end_at_once(end: End) -> None:
    await end.receive_until(b"\r\n\r\n")


async def reset_at_once(end: End) -> None:
    await end.receive_until(b"\r\n\r\n")
    await end.reset()


@pytest.mark.parametrize(
    "handler",
    [
        end_at_once,
        reset_at_once,
        answer(b"not HTTP at all\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nContent-Le", then="end"),
        answer(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"),
        answer(b"HTTP/2 200\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"),
    ],
)
@pytest.mark.ids("M07")
async def test_upstream_that_speaks_no_http(handler) -> None:
    """A 502, and its connection is closed (RFC 9112 §6.3)."""
    async with open_scene(handler) as scene:
        check_failure(await scene.ask(request(method="POST")), b"502 ")
        await settle()

        assert scene.proxy.statistics().failures == 1


CUTS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "end"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "reset"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "end"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "reset"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx", "end"),
    (b"HTTP/1.1 200 OK\r\n\r\nhalf", "reset"),
]


@pytest.mark.parametrize(("wire", "then"), CUTS)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_cut_upstream_is_a_reset(
    wire: bytes, then: str, version: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Half an answer never looks like a whole one, to HTTP/1.0 neither (§6.3, §8)."""
    caplog.set_level(logging.INFO, "trio_upgrade.proxy")
    async with open_scene(answer(wire, then=then)) as scene, scene.client() as client:
        await client.send(request().replace(b"1.1", version, 1))
        got = await client.receive_all()

        assert client.was_reset
        assert not got.endswith(b"0\r\n\r\n")
        assert scene.proxy.statistics().failures == 1
    assert "the upstream broke off" in caplog.text


async def test_upstream_that_falls_silent_in_its_answer() -> None:
    """A reset, and its connection is closed: it would hold a slot of the pool."""
    gone = trio.Event()

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(STREAMING)
        await end.receive_all()
        gone.set()

    async with (
        open_scene(handle, tunnel_idle_timeout=0.05) as scene,
        scene.client() as client,
    ):
        await client.send(request())
        got = await client.receive_all()
        await gone.wait()

        assert got.endswith(b"a\r\n")
        assert client.was_reset
        assert scene.proxy.statistics().failures == 1


async def test_on_error() -> None:
    """A function gets our answer and the cause, and returns the answer to send."""
    seen = []

    def on_error(incoming, response, error):
        seen.append((incoming.path, response.status, type(error)))
        return Response(response.status, "sorry\n")

    async with open_scene(end_at_once, on_error=on_error) as scene:
        got = await scene.ask(request(target="/a"))

    assert got.endswith(b"sorry\n")
    assert seen == [("/a", 502, PeerGone)]


async def test_426_without_upgrade_that_breaks_off() -> None:
    """It is read first, so its failure is a 502."""
    wire = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 9\r\n\r\nhalf"
    async with open_scene(answer(wire, then="end")) as scene:
        check_failure(await scene.ask(request()), b"502 ")


@pytest.mark.parametrize("field", ["", "Upgrade: a b\r\n", "Upgrade: ,\r\n"])
async def test_426_that_names_no_protocol(field: str) -> None:
    """It goes on without Upgrade, by the rules of any other answer (§15.5.22)."""

    def modify_response(_request, head: ResponseHead) -> ResponseHead:
        return head._replace(headers=head.headers.without("server"))

    wire = okay("Server: secret", field + "A: b", status="426 Upgrade Required")
    async with open_scene(answer(wire), modify_response=modify_response) as scene:
        first, fields, body = split_head(await scene.ask(request()))

    assert first == b"HTTP/1.1 426 Upgrade Required"
    assert b"A: b" in fields
    assert b"secret" not in b"".join(fields)
    assert b"Upgrade" not in b"".join(fields)
    assert body == b"okay"


async def test_426_without_upgrade_that_stops() -> None:
    """A 504, as the client has got nothing yet (§15.6.5)."""
    wire = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 9\r\n\r\nhalf"
    async with open_scene(answer(wire), response_timeout=0.05) as scene:
        with trio.fail_after(5):
            check_failure(await scene.ask(request()), b"504 ")


async def test_bad_body_of_the_client_is_its_own_fault() -> None:
    """A 400 from the server; nothing is counted against the upstream (RFC 9112 §6.3)."""
    async with open_scene(hold) as scene:
        got = await scene.ask(
            request("Transfer-Encoding: chunked", method="POST", body=b"zz\r\n")
        )
        await settle()

        assert got.startswith(b"HTTP/1.1 400 ")
        assert scene.proxy.statistics().failures == 0
        assert b"zz" not in scene.upstream.received
        assert not scene.upstream.received.endswith(b"0\r\n\r\n")


async def test_client_that_stops_in_its_body() -> None:
    """A 408 from the server, and the upstream never gets an end of the body."""
    async with open_scene(hold, limits=Limits(linger=0, body_timeout=0.05)) as scene:
        got = await scene.ask(
            request("Transfer-Encoding: chunked", method="POST", body=b"1\r\na\r\n")
        )
        await settle()

        assert got.startswith(b"HTTP/1.1 408 ")
        assert scene.upstream.received.endswith(b"1\r\na\r\n")


STREAMING = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
REFUSING = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 9\r\n\r\nhalf"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
PHASES = {
    "connect": (request(), b"", True),
    "body": (request("Content-Length: 9", method="POST", body=b"half"), b"", False),
    "answer": (request(), b"", False),
    "continue": (
        request("Content-Length: 9", "Expect: 100-continue", method="POST"),
        b"",
        False,
    ),
    "content": (request(), STREAMING, False),
    "426 without Upgrade": (request(), REFUSING, False),
    "offer": (UPGRADE, b"", False),
    "tunnel": (UPGRADE, SWITCHED, False),
}


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("phase", PHASES)
async def test_client_gone_cancels_the_upstream(phase: str, how: str) -> None:
    """Within 100 ms, in each phase of a request."""
    if how == "end" and phase in ("offer", "content", "tunnel"):
        pytest.skip("a mere end may be a half-close there")
    wire, sent, tls = PHASES[phase]
    gone = trio.Event()

    async def handle(end: End) -> None:
        if sent:
            await end.receive_until(b"\r\n\r\n")
            await end.send(sent)
        await end.receive_all()
        gone.set()

    def make(url: str, **options):
        return ReverseProxy(
            url.replace("http:", "https:" if tls else "http:"), **options
        )

    async with open_scene(handle, make=make) as scene, scene.client() as client:
        await client.send(wire)
        await settle()
        assert not gone.is_set()
        began = trio.current_time()
        if how == "reset":
            await client.reset()
        else:
            await client.stream.aclose()
        with trio.fail_after(5):
            await gone.wait()

        assert trio.current_time() - began < PROMPT


async def test_half_closed_client_gets_the_rest_of_a_streamed_answer() -> None:
    """An end of the client's side does not cut an answer that makes progress (§9.6)."""
    more = trio.Event()

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(STREAMING)
        await more.wait()
        await end.send(b"1\r\nb\r\n0\r\n\r\n")

    async with open_scene(handle) as scene, scene.client() as client:
        await client.send(request())
        await client.receive_until(b"a\r\n")
        await client.stream.send_eof()
        await settle()
        more.set()

        assert (await client.receive_all()).endswith(b"b\r\n0\r\n\r\n")


async def test_closed_proxy() -> None:
    """A proxy whose block was left answers with 503."""
    async with open_scene(answer(okay())) as scene:
        await scene.proxy.__aexit__(None, None, None)

        check_failure(await scene.ask(request()), b"503 ")


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://x/base", "http://x?q", "http://", "x:80", "http://x#f"]
)
def test_upstream_url(url: str) -> None:
    """An upstream is a server; targets are the clients'."""
    with pytest.raises(ValueError, match="an upstream is"):
        ReverseProxy(url)


def mutate(dice: random.Random, wire: bytes) -> bytes:
    """Return an answer with some octets changed, doubled or left out."""
    changed = bytearray(wire)
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                del changed[place : place + dice.randrange(1, 9)]
            case 1:
                changed[place] = dice.choice(b"\0\r\n :;,0A\x7f\xe9")
            case 2:
                changed[place:place] = dice.choice([b"\r\n", b"\r\n\r\n", b" ", b"\0"])
            case _:
                changed[place:place] = changed[place : place + 20]
    return bytes(changed)


async def test_mutated_answers() -> None:
    """Whatever an upstream says, the client gets one answer or a cut, and no bug."""
    dice = random.Random(19)
    wires = [
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okay("Set-Cookie: a", "X: y"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
            b"4\r\nokay\r\n0\r\nX: 1\r\nHost: x\r\n\r\n"
        ),
        (
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nConnection: Upgrade\r\n"
            b"Content-Length: 0\r\n\r\n"
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
        ),
    ]

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.stream.send_all(mutate(dice, dice.choice(wires)))

    async with open_scene(handle, response_timeout=1) as scene:
        for number in range(300):
            async with scene.client() as client:
                await client.stream.send_all(UPGRADE if number % 3 == 0 else request())
                if number % 3 == 0:
                    await client.receive_until(b"\r\n\r\n")
                else:
                    await client.receive_all()
                got = bytes(client.received)

            assert got.startswith(b"HTTP/1.1 ") or client.was_reset, got

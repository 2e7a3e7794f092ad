"""ServerHTTP alone; test_exchange tests it with an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import Limits, MalformedMessage, Response
from trio_upgrade._server.http import ServerHTTP
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade.testing import ScriptedPeer

from ..sockets import direct, tcp_pair
from ..wire import DATE, UP, get, okay

if TYPE_CHECKING:
    from trio_upgrade._http.messages import RequestHead

FIELD = (b"Date", DATE[6:-2])


def make(*packets: bytes) -> tuple[ServerHTTP, ScriptedPeer]:
    peer = ScriptedPeer(*packets)
    return ServerHTTP(peer, Limits(), [0] * 10), peer


async def receive_request(http: ServerHTTP) -> RequestHead:
    while (head := http.next_request()) is None:
        assert await http.receive()
    return head


async def test_reuse() -> None:
    """It can be used again when request and response have ended, not before."""
    http, peer = make(get("/1", "Content-Length: 1") + b"x" + get("/2"))
    await receive_request(http)
    assert http.may_answer
    assert not http.is_reusable
    await http.send_response(Response(200, b"a"), FIELD, close=False)
    assert not http.may_answer
    assert not http.is_reusable
    assert await http.receive_body() == b"x"
    assert await http.receive_body() == b""
    assert http.is_reusable
    assert not http.closes

    http.start_next_exchange()
    head = await receive_request(http)
    assert head.target == "/2"
    await http.send_response(Response(200, b"b"), FIELD, close=True)
    assert http.closes
    assert not http.is_reusable
    assert peer.sent.startswith(okay(b"a"))


async def test_refusal_of_a_head_request() -> None:
    """The refusal of a HEAD has no content, whatever was wrong (RFC 9110 §9.3.2)."""
    http, peer = make(b"HEAD / HTTP/1.1\r\n\r\n")
    with pytest.raises(MalformedMessage):
        await receive_request(http)
    await http.send_response(Response(400, b"why"), FIELD, close=True)

    assert peer.sent.endswith(b"\r\n\r\n")


async def test_body_that_fails() -> None:
    """Half a response leaves the connection broken, so it cannot seem complete."""

    async def body():
        yield b"one"
        raise LookupError

    http, _ = make(get("/"))
    await receive_request(http)
    with pytest.raises(LookupError):
        await http.send_response(Response(200, body()), FIELD, close=False)

    assert http.broken
    assert not http.may_answer
    assert not http.is_reusable


@pytest.mark.ids("R20")
@pytest.mark.parametrize("seconds", [30, None])
async def test_each_piece_in_its_time(
    seconds: float | None, autojump_clock: trio.testing.MockClock
) -> None:
    """Each piece of 64 KiB has its own deadline; a peer that stops reading is slow."""
    near, far = trio.testing.lockstep_stream_pair()
    limits = Limits(send_timeout=seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, get("/"))
        http = ServerHTTP(near, limits, [0] * 10)
        await receive_request(http)

    async def take() -> None:
        # The header section is sent alone.
        for size in (1000, 65536, 65536):
            await trio.sleep(20)
            await far.receive_some(size)
        if seconds is None:
            await trio.sleep(1000)
            await far.receive_some(18928)

    answer = Response(200, bytes(150_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        if seconds is None:
            await http.send_response(answer, FIELD, close=False)
            assert trio.current_time() == 1060
        else:
            with pytest.raises(trio.BrokenResourceError, match="did not read in time"):
                await http.send_response(answer, FIELD, close=False)
            assert trio.current_time() == 60 + 30
    assert http.slow == http.broken == http.lost == (seconds is not None)


async def test_cancelled_before_anything_was_sent() -> None:
    """After an early cancellation any response is possible."""
    http, peer = make(get("/"))
    await receive_request(http)
    with trio.CancelScope() as scope:
        scope.cancel()
        await http.send_response(Response(200), FIELD, close=False)

    assert scope.cancelled_caught
    assert http.may_answer
    assert not peer.sent


async def test_receive_nowait() -> None:
    """It receives the bytes that the kernel has, until the request is whole."""
    near, far = direct(await tcp_pair())
    http = ServerHTTP(near, Limits(), [0] * 10)
    http.receive_nowait()
    assert not http.has_buffered
    await far.send_all(UP[:9])
    http.receive_nowait()
    assert http.next_request() is None
    await far.send_all(UP[9:] + b"tail")
    http.receive_nowait()
    head = http.next_request()

    assert head is not None
    assert head.target == "/u"
    assert http.detach() == (b"tail", False)
    await near.aclose()
    await far.aclose()


async def test_receive_nowait_after_a_reset() -> None:
    """After a reset it raises, and the connection is broken."""
    near, far = direct(await tcp_pair())
    http = ServerHTTP(near, Limits(), [0] * 10)
    reset_on_close(far)
    await far.aclose()
    with pytest.raises(trio.BrokenResourceError):
        http.receive_nowait()

    assert http.broken
    assert http.lost
    await near.aclose()

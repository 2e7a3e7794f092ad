"""Sending the body of a request: the wait for a 100, and early answers."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import (
    IllegalSwitch,
    Limits,
    PeerGone,
    UpgradeRefused,
    open_connection,
    open_upgrade,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..wire import SWITCHED, okay
from .wires import CONTINUE, URL, Dialling, read_all, with_fields

EXPECT = {"Expect": "100-continue"}
OFFER = (
    b"POST /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"
    b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"
)
REQUEST = (
    b"POST /u HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
)
# More than all buffers between the two ends can hold.
LONG = b"x" * 20_000_000


@pytest.mark.ids("U30")
async def test_no_expectation_without_content() -> None:
    """A request without a body cannot expect a 100 (RFC 9110 §10.1.1)."""
    peer = ScriptedPeer(SWITCHED)
    with pytest.raises(ValueError, match="Expect: there is no body"):
        await open_upgrade(URL, "echo", headers=EXPECT, stream=peer)
    connection = await open_connection(URL, stream=ScriptedPeer(okay(b"")))
    with pytest.raises(ValueError, match="Expect: there is no body"):
        await connection.request("POST", "/u", headers=EXPECT)

    assert not peer.sent
    assert peer.closed


@pytest.mark.ids("U30", "U14")
async def test_body_waits_for_the_100(autojump_clock) -> None:
    """The body is sent when the 100 has come, not before (RFC 9110 §10.1.1)."""
    for packets in split_points(CONTINUE):
        peer = ScriptedPeer(then="silence")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def dial(peer=peer) -> None:
                upgraded = await open_upgrade(
                    URL,
                    "echo",
                    method="POST",
                    headers=EXPECT,
                    body=b"body",
                    stream=peer,
                )
                async with upgraded:
                    assert [head.status for head in upgraded.informational] == [100]
                    assert await read_all(upgraded.stream) == b"HEAD"

            nursery.start_soon(dial)
            await trio.testing.wait_all_tasks_blocked()
            assert peer.sent == OFFER
            peer.feed(*packets)
            await peer.wait_sent(b"\r\n\r\nbody")
            peer.feed(SWITCHED + b"HEAD")
            peer.finish()

        assert peer.sent == OFFER + b"body"
        assert trio.current_time() == started


@pytest.mark.ids("U30")
async def test_body_does_not_wait_for_ever(autojump_clock) -> None:
    """The body is sent after Limits.continue_timeout anyway (RFC 9110 §10.1.1)."""
    peer = ScriptedPeer(then="silence")
    limits = Limits(continue_timeout=3)
    async with trio.open_nursery() as nursery:

        async def dial() -> None:
            async with await open_connection(URL, stream=peer, limits=limits) as client:
                response = await client.request(
                    "POST", "/u", headers=EXPECT, body=b"body"
                )
                assert await response.read() == b"ok"

        nursery.start_soon(dial)
        started = trio.current_time()
        await peer.wait_sent(b"body")
        assert trio.current_time() - started == 3
        peer.feed(okay(b"ok"))

    assert peer.sent == REQUEST + b"body"


@pytest.mark.ids("U30", "M10", "M12")
async def test_final_answer_instead_of_the_100(dialling: Dialling) -> None:
    """After a final response the body is not sent (RFC 9110 §10.1.1)."""

    async def use(stream: trio.abc.Stream) -> None:
        limits = Limits(continue_timeout=60)
        async with await open_connection(URL, stream=stream, limits=limits) as client:
            response = await client.request("POST", "/u", headers=EXPECT, body=b"body")
            assert response.status == 417
            assert await response.read() == b"no"
            with pytest.raises(PeerGone, match="ended the connection"):
                await client.request("GET", "/u")

    await dialling.run(use, okay(b"no", status="417 Expectation Failed"), REQUEST)


@pytest.mark.ids("U14", "C18")
async def test_101_instead_of_the_100() -> None:
    """A 101 without the 100: the body is sent before the switch (RFC 9110 §7.8)."""
    for packets in split_points(SWITCHED + b"HEAD"):
        peer = ScriptedPeer(*packets)
        upgraded = await open_upgrade(
            URL, "echo", method="POST", headers=EXPECT, body=b"body", stream=peer
        )
        assert peer.sent == OFFER + b"body"
        async with upgraded:
            assert await read_all(upgraded.stream) == b"HEAD"


@pytest.mark.ids("U14", "M12", "C18")
@pytest.mark.parametrize("kind", ["answer", "offer"])
async def test_final_answer_before_the_end_of_the_body(kind: str) -> None:
    """An early response is returned; the cut request closes (RFC 9112 §9.3)."""
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            assert await far.receive_some(1)
            await far.send_all(okay(b"enough", status="413 Content Too Large"))

        nursery.start_soon(serve)
        if kind == "offer":
            with pytest.raises(UpgradeRefused, match="413") as caught:
                await open_upgrade(URL, "echo", body=LONG, stream=near)
            response = caught.value.response
            assert response.body == b"enough"
        else:
            async with await open_connection(URL, stream=near) as client:
                response = await client.request("PUT", "/u", body=LONG)
                assert await response.read() == b"enough"
                with pytest.raises(PeerGone):
                    await client.request("GET", "/u")


@pytest.mark.ids("U14", "C18")
async def test_101_before_the_end_of_the_body() -> None:
    """A 101 while the body is still sent is never accepted (RFC 9110 §7.8)."""
    near, far = trio.testing.lockstep_stream_pair()
    with pytest.raises((IllegalSwitch, PeerGone)):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                assert await far.receive_some(1)
                await far.send_all(SWITCHED)
                await far.aclose()

            nursery.start_soon(serve)
            try:
                await open_upgrade(URL, "echo", body=LONG, stream=near)
            except (IllegalSwitch, PeerGone) as exc:
                failure = exc
            else:
                raise AssertionError("switched in the middle of the body")
        raise failure


@pytest.mark.ids("C7", "U12")
async def test_option_that_a_101_may_lack(dialling: Dialling) -> None:
    """Only a missing Connection field of a 101 can be tolerated (RFC 9110 §7.8)."""
    bare = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n"
    other = with_fields(bare, "Connection: keep-alive")

    await dialling.check_switch(
        bare + b"HEAD", b"HEAD", tolerate_missing_connection=True
    )
    await dialling.check_failure(bare, IllegalSwitch, "does not name Upgrade")
    await dialling.check_failure(
        other, IllegalSwitch, "does not name Upgrade", tolerate_missing_connection=True
    )
    await dialling.check_failure(
        bare.replace(b"echo", b"b"),
        IllegalSwitch,
        "not offered",
        tolerate_missing_connection=True,
    )

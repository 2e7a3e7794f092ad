"""SOCKS5 against scripts: answers that microsocks does not give, byte for byte."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from trio_upgrade import BadResponse, PeerGone, SocksRefused, open_upgrade
from trio_upgrade._streams.resetting import reset_on_close

from ..wire import SWITCHED

HOST = "127.0.0.1"
HELLO = b"\x05\x00"
CONNECTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
ASK_NAME = b"\x05\x01\x00\x03\x09a.example\x00\x50"


class Script:
    """A SOCKS server that reads a number of bytes before each answer."""

    def __init__(self, *steps: tuple[int, bytes], reset: bool = False) -> None:
        self.steps = steps
        self.reset = reset
        self.received = b""

    async def handle(self, stream: trio.SocketStream) -> None:
        total = 0
        for count, answer in self.steps:
            total += count
            while len(self.received) < total:
                self.received += await stream.receive_some(total - len(self.received))
            for octet in answer:
                await stream.send_all(bytes([octet]))
        if self.reset:
            reset_on_close(stream)

    async def dial(
        self, nursery: trio.Nursery, url: str, scheme: str = "socks5h", userinfo=""
    ):
        serve = partial(trio.serve_tcp, self.handle, 0, host=HOST)
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        return await open_upgrade(
            url, "echo", via=f"{scheme}://{userinfo}{HOST}:{port}"
        )


async def test_wire(nursery) -> None:
    """The name goes to the proxy (RFC 1928 §4); then nothing before its reply."""
    request = len(
        b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\n"
        b"Upgrade: echo\r\n\r\n"
    )
    reply = b"\x05\x00\x00\x03\x01x\x00\x50"
    script = Script((3, HELLO), (len(ASK_NAME), reply), (request, SWITCHED))
    async with await script.dial(nursery, "http://a.example/") as (response, _, _):
        assert response.status == 101

    assert script.received.startswith(b"\x05\x01\x00" + ASK_NAME + b"GET / ")


async def test_credentials(nursery) -> None:
    """Credentials are sent to the proxy that asks for them (RFC 1929 §2)."""
    script = Script((4, b"\x05\x02"), (5, b"\x01\x00"), (16, b"\x05\x02\x00"))
    with pytest.raises(SocksRefused, match="not allowed") as caught:
        await script.dial(nursery, "http://a.example/", "socks5h", "u:p@")

    assert script.received == b"\x05\x02\x00\x02\x01\x01u\x01p" + ASK_NAME
    assert caught.value.code == 2


async def test_looked_up_here(nursery) -> None:
    """With socks5:// the name is looked up, and an address goes to the proxy."""
    asked = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
    script = Script((3, HELLO), (len(asked), b"\x05\x04\x00"))
    with pytest.raises(SocksRefused) as caught:
        await script.dial(nursery, "http://127.0.0.1/", "socks5")

    assert script.received == b"\x05\x01\x00" + asked
    assert caught.value.code == 4


@pytest.mark.parametrize(
    ("steps", "error", "match"),
    [
        ([(3, b"")], PeerGone, "ended the connection"),
        ([(3, HELLO), (16, CONNECTED[:5])], PeerGone, "ended the connection"),
        ([(3, b"HT")], SocksRefused, "Unexpected SOCKS version"),
        ([(3, HELLO), (16, b"\x05\x63\x00")], SocksRefused, "Invalid reply code"),
        ([(3, HELLO), (16, b"\x05\x00\x00\x03\x01\xff\x00\x50")], BadResponse, "addr"),
    ],
)
async def test_failed(nursery, steps, error, match: str) -> None:
    """Each kind of failure has its exception."""
    with pytest.raises(error, match=match):
        await Script(*steps).dial(nursery, "http://a.example/")


@pytest.mark.parametrize("steps", [[(3, b"")], [(3, HELLO)]])
async def test_reset(nursery, steps) -> None:
    """A reset by the proxy is PeerGone."""
    with pytest.raises(PeerGone, match="broke") as caught:
        await Script(*steps, reset=True).dial(nursery, "http://a.example/")

    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)

"""splice() alone; test_engine tests what it has in common with the other engines."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from trio_upgrade import Progress
from trio_upgrade._copy.progress import Tally
from trio_upgrade._copy.splice import CAN_SPLICE, splice
from trio_upgrade._streams.socket_stream import DirectSocketStream

pytestmark = pytest.mark.skipif(not CAN_SPLICE, reason="needs Linux's splice(2)")


def make_pair() -> tuple[DirectSocketStream, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    return DirectSocketStream(near), far


async def test_sender_beside_it() -> None:
    """While another task sends on the sink, nothing is written between its bytes."""
    source, sender = make_pair()
    sink, receiver = make_pair()
    sender.send(b"x" * 100)
    sink.sending = True
    with pytest.raises(trio.BusyResourceError):
        await splice(source, sink, Tally(None), size=65536, turns=8)
    sink.sending = False
    receiver.setblocking(False)

    with pytest.raises(BlockingIOError):
        receiver.recv(1)
    for stream in (source, sink):
        await stream.aclose()
    sender.close()
    receiver.close()


async def test_dry_and_ended() -> None:
    """A dry source returns False, an ended one True; no pipe is held after either."""
    source, sender = make_pair()
    sink, receiver = make_pair()
    progress = Progress()
    sender.send(b"x" * 100)
    before = len(os.listdir("/proc/self/fd"))

    assert not await splice(source, sink, Tally(progress), size=65536, turns=8)
    assert receiver.recv(200) == b"x" * 100
    sender.close()
    assert await splice(source, sink, Tally(progress), size=65536, turns=8)
    # Only the sender's descriptor is gone.
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert progress.bytes == 100
    for stream in (source, sink):
        await stream.aclose()
    receiver.close()

"""Mistakes in the call of pipe and relay: raised before a byte is copied."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from trio_upgrade import Progress, pipe, relay
from trio_upgrade.testing import ScriptedPeer

pytestmark = pytest.mark.ids("F39")

copy: Any = pipe
copy_both: Any = relay
make_progress: Any = Progress


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, "None"),
        ("ab", "str"),
        (ScriptedPeer, "the class ScriptedPeer"),
        (partial, "the class partial"),
        (trio.abc.AsyncResource, "the class AsyncResource"),
    ],
)
async def test_streams(given: object, kind: str) -> None:
    """A stream of a copy has the methods that the copy needs."""
    peer = ScriptedPeer(b"abc")
    for call, message in (
        (
            partial(copy, given, peer),
            "source must be a Trio stream with receive_some()",
        ),
        (partial(copy, peer, given), "sink must be a Trio stream with send_all()"),
        (partial(copy_both, given, peer), "left must be a Trio stream with receive_so"),
        (partial(copy_both, peer, given), "right must be a Trio stream with receive_"),
    ):
        with pytest.raises(TypeError) as caught:
            await call()
        assert str(caught.value).startswith(message)
        assert str(caught.value).endswith(f", not {kind}")
    assert peer.packets_left == 1
    assert not peer.closed


async def test_one_way_streams() -> None:
    """A copy in one direction needs one half of each stream."""

    class Source:
        receive_some = ScriptedPeer(b"abc").receive_some

    class Sink:
        def __init__(self, peer: ScriptedPeer) -> None:
            self.send_all = peer.send_all

    peer = ScriptedPeer()
    assert await copy(Source(), Sink(peer), end=False) == 3
    assert peer.sent == b"abc"
    with pytest.raises(
        TypeError, match=r"left must be a Trio stream with send_all\(\)"
    ):
        await copy_both(Source(), peer)


@pytest.mark.parametrize("given", [print, 3, {}, Progress])
async def test_progress(given: object) -> None:
    """The counts are a Progress."""
    peer = ScriptedPeer(b"abc")
    for call in partial(copy, peer, peer), partial(copy_both, peer, peer):
        with pytest.raises(TypeError, match="progress must be a Progress or None, not"):
            await call(progress=given)
    assert peer.packets_left == 1


@pytest.mark.parametrize("name", ["idle_timeout", "half_close_timeout"])
async def test_timeouts(name: str) -> None:
    """A timeout is seconds, or None."""
    peer = ScriptedPeer(b"abc")
    for given in ("5", True, [5]):
        with pytest.raises(TypeError, match=f"{name} must be seconds or None, not"):
            await copy_both(peer, peer, **{name: given})
    for negative in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must not be negative, not"):
            await copy_both(peer, peer, **{name: negative})
    assert peer.packets_left == 1


def test_counts() -> None:
    """A Progress begins with numbers."""
    for given in ("5", None, 1.5, True):
        with pytest.raises(TypeError, match="left_to_right must be an int, not"):
            make_progress(given)
        with pytest.raises(TypeError, match="right_to_left must be an int, not"):
            make_progress(right_to_left=given)
    assert make_progress(1, 2).bytes == 3

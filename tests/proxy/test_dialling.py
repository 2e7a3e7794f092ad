"""Connecting to the addresses that were judged."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
import trio
import trio.testing

from trio_upgrade._proxy.dialling import dial

A, B, C = map(ip_address, ("192.0.2.1", "192.0.2.2", "192.0.2.3"))


class Network:
    """A network whose hosts accept, refuse or are silent, after some seconds."""

    def __init__(self, **hosts: float) -> None:
        self._hosts = hosts
        self.dialled: list[tuple[str, float]] = []
        self.streams: list[trio.abc.Stream] = []

    async def open(self, host: str, port: int):
        assert port == 80
        self.dialled.append((host, trio.current_time()))
        seconds = self._hosts["abc"[int(host[-1]) - 1]]
        await trio.sleep(abs(seconds))
        if seconds < 0:
            raise ConnectionRefusedError(host)
        stream, _ = trio.testing.memory_stream_pair()
        self.streams.append(stream)
        return stream


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock):
    """Make the network of a test."""

    def make(**hosts: float) -> Network:
        made = Network(**hosts)
        monkeypatch.setattr(trio, "open_tcp_stream", made.open)
        return made

    return make


async def test_first_address_wins(network, autojump_clock) -> None:
    """No other one is tried."""
    made = network(a=0.1)

    assert await dial([A, B], 80) is made.streams[0]
    assert len(made.dialled) == 1


async def test_next_address_after_a_failure(network, autojump_clock) -> None:
    """At once (RFC 8305 §5)."""
    made = network(a=-0.1, b=0)
    began = trio.current_time()

    await dial([A, B], 80)

    assert made.dialled[1] == (str(B), pytest.approx(began + 0.1))


async def test_next_address_beside_a_slow_one(network, autojump_clock) -> None:
    """After a quarter of a second; the slow one is given up when the other accepts."""
    made = network(a=1000, b=0)
    began = trio.current_time()

    await dial([A, B], 80)

    assert made.dialled[1] == (str(B), pytest.approx(began + 0.25))
    assert trio.current_time() == pytest.approx(began + 0.25)


async def test_slow_address_wins_in_the_end(network, autojump_clock) -> None:
    """It is still waited for when the last attempt has begun."""
    made = network(a=3, b=-1)

    assert await dial([A, B], 80) is made.streams[0]


async def test_all_fail(network, autojump_clock) -> None:
    """The failure of the first one is raised, alone."""
    network(a=-0.1, b=-0.2, c=-0.05)

    with pytest.raises(ConnectionRefusedError, match=r"192\.0\.2\.1"):
        await dial([A, B, C], 80)


async def test_cancelled(network, autojump_clock) -> None:
    """Nothing stays open."""
    made = network(a=1000, b=1000)
    with trio.move_on_after(5) as scope:
        await dial([A, B], 80)

    assert scope.cancelled_caught
    assert not made.streams


async def test_cancelled_when_one_has_accepted(
    network, autojump_clock, monkeypatch
) -> None:
    """The connection that nobody gets is closed."""
    made = network(a=1)
    scope = trio.CancelScope()
    real = made.open

    async def accept_and_cancel(host: str, port: int):
        stream = await real(host, port)
        scope.cancel()
        return stream

    # The fixture restores Trio's own.
    monkeypatch.setattr(trio, "open_tcp_stream", accept_and_cancel)
    with scope:
        await dial([A], 80)
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught


async def test_two_accept_in_the_same_tick(
    network, autojump_clock, monkeypatch
) -> None:
    """One wins; the other is closed, though it was told too late to give up."""
    made = network(a=0, b=0)
    both = trio.Event()
    real = made.open

    async def open_together(host: str, port: int):
        stream = await real(host, port)
        if len(made.streams) > 1:
            # This one wins before the other one runs again.
            both.set()
        else:
            await both.wait()
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", open_together)
    won = await dial([A, B], 80)

    (other,) = (stream for stream in made.streams if stream is not won)
    with pytest.raises(trio.ClosedResourceError):
        await other.send_all(b"x")
    await won.aclose()


async def test_failure_of_another_kind(network, autojump_clock, monkeypatch) -> None:
    """It comes out, and what has connected meanwhile is closed."""
    made = network(a=0.5, b=1000)
    real = made.open

    async def fail_when_cancelled(host: str, port: int):
        try:
            return await real(host, port)
        except trio.Cancelled:
            raise ZeroDivisionError from None

    monkeypatch.setattr(trio, "open_tcp_stream", fail_when_cancelled)
    with pytest.raises(ExceptionGroup) as raised:
        await dial([A, B], 80)

    assert [type(exc) for exc in raised.value.exceptions] == [ZeroDivisionError]
    with pytest.raises(trio.ClosedResourceError):
        await made.streams[0].send_all(b"x")

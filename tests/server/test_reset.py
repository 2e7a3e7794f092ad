"""A handler that ends its connection by stream.reset()."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Upgrade, serve_stream

from ..recording import Recorder
from ..sockets import direct, tcp_pair
from ..wire import UP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_upgrade import Request, UpgradedStream

    Handler = Callable[[Request, UpgradedStream, bytes], Awaitable[None]]


# With a handler, and with an app that switches itself.
BOTH_WAYS = pytest.mark.parametrize("inside", [False, True])


async def check_reset(
    handler: Handler, *, inside: bool = False, strict: bool = False
) -> Recorder:
    """Serve one switched connection; check that its peer gets a reset."""
    near, far = direct(await tcp_pair())
    recorder = Recorder()

    async def app(request: Request) -> Upgrade | None:
        if inside:
            await handler(request, *await request.accept_upgrade("echo"))
            return None
        return Upgrade("echo", handler)

    await near.send_all(UP)
    await serve_stream(app, far, observer=recorder, strict=strict)

    with pytest.raises(trio.BrokenResourceError):
        while await near.receive_some():
            pass
    await near.aclose()
    return recorder


@pytest.mark.ids("F33")
@BOTH_WAYS
async def test_returns(inside: bool, caplog) -> None:
    """A handler that resets and returns is no bug; the record tells of the reset."""

    async def handler(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await stream.reset()

    for strict in (False, True):
        recorder = await check_reset(handler, inside=inside, strict=strict)

        assert recorder.reasons == [EndReason.RESET]
        assert recorder.errors == []
    assert caplog.records == []


@pytest.mark.ids("F33")
@BOTH_WAYS
async def test_uses_the_stream_afterwards(inside: bool, caplog) -> None:
    """ClosedResourceError after a reset, also as a cause, is no bug."""

    async def use(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await stream.reset()
        await stream.send_all(b"x")

    async def wrap(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await stream.reset()
        try:
            await stream.receive_some()
        except trio.ClosedResourceError as exc:
            raise LookupError("a library's own error") from exc

    async def wrap_group(
        _request: Request, stream: UpgradedStream, _head: bytes
    ) -> None:
        await stream.reset()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
        except* trio.ClosedResourceError as exc:
            raise LookupError("a library's own error") from exc

    for handler in (use, wrap, wrap_group):
        for strict in (False, True):
            recorder = await check_reset(handler, inside=inside, strict=strict)

            assert recorder.reasons == [EndReason.RESET]
            assert recorder.errors == []
    assert caplog.records == []


@pytest.mark.ids("F33")
@BOTH_WAYS
async def test_other_tasks(inside: bool, caplog) -> None:
    """A task that is blocked in the stream gets ClosedResourceError: no bug either."""

    async def handler(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            await stream.reset()

    recorder = await check_reset(handler, inside=inside)

    assert recorder.reasons == [EndReason.RESET]
    assert recorder.errors == []
    assert caplog.records == []


@pytest.mark.ids("F33")
@BOTH_WAYS
async def test_bug_after_a_reset(inside: bool, caplog) -> None:
    """Any other exception after a reset stays a bug, also one that is its own cause."""

    async def handler(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await stream.reset()
        error = LookupError("oops")
        error.__cause__ = KeyError()
        error.__cause__.__cause__ = error
        raise error

    recorder = await check_reset(handler, inside=inside)

    assert recorder.reasons == [EndReason.ERROR]
    (error,) = recorder.errors
    assert error.peer is not None
    assert error.peer == recorder.ends[0].peer
    assert "oops" in caplog.text


@pytest.mark.ids("F33")
@BOTH_WAYS
async def test_closed_without_a_reset(inside: bool, caplog) -> None:
    """ClosedResourceError after the handler's own aclose() stays a bug."""
    near, far = direct(await tcp_pair())
    recorder = Recorder()

    async def handler(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await stream.aclose()
        await stream.send_all(b"x")

    async def app(request: Request) -> Upgrade | None:
        if inside:
            await handler(request, *await request.accept_upgrade("echo"))
            return None
        return Upgrade("echo", handler)

    await near.send_all(UP)
    await serve_stream(app, far, observer=recorder)
    await near.aclose()

    assert recorder.reasons == [EndReason.ERROR]
    assert "ClosedResourceError" in caplog.text


@pytest.mark.ids("F33")
@BOTH_WAYS
async def test_cancelled_afterwards(inside: bool) -> None:
    """A cancellation after a reset ends the connection, which is reset already."""
    near, far = direct(await tcp_pair())
    recorder = Recorder()

    async def handler(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await stream.reset()
        scope.cancel()
        await trio.sleep_forever()

    async def app(request: Request) -> Upgrade | None:
        if inside:
            await handler(request, *await request.accept_upgrade("echo"))
            return None
        return Upgrade("echo", handler)

    await near.send_all(UP)
    with trio.CancelScope() as scope:
        await serve_stream(app, far, observer=recorder)

    assert recorder.reasons == [EndReason.CANCELLED]
    with pytest.raises(trio.BrokenResourceError):
        while await near.receive_some():
            pass
    await near.aclose()

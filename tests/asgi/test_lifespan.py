"""The lifespan of an application: startup, state, shutdown, and what it may do wrong."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import TrioUpgradeError, UsageError
from trio_upgrade.asgi import LifespanFailed, open_asgi

from .serving import START, body, sender, serve, start

STARTUP = {"type": "lifespan.startup"}
SHUTDOWN = {"type": "lifespan.shutdown"}
STARTED = {"type": "lifespan.startup.complete"}
NOT_STARTED = {"type": "lifespan.startup.failed", "message": "no database"}
STOPPED = {"type": "lifespan.shutdown.complete"}
NOT_STOPPED = {"type": "lifespan.shutdown.failed", "message": "data lost"}


def make_app(log, *, on_start=STARTED, on_stop=STOPPED, error=None, stop_error=None):
    """Return an application with a lifespan, which writes into a list."""

    async def app(scope, receive, send) -> None:
        if scope["type"] != "lifespan":
            log.append(scope["state"])
            await sender(START, body())(scope, receive, send)
            return
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        assert await receive() == STARTUP
        scope["state"]["pool"] = log
        log.append("startup")
        await send(on_start)
        if error is not None:
            raise error
        assert await receive() == SHUTDOWN
        log.append("shutdown")
        await send(on_stop)
        if stop_error is not None:
            raise stop_error

    return app


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_whole_life(mode) -> None:
    """It is started before the block and ended after it; requests get its state."""
    log: list[Any] = []
    await serve(make_app(log), b"GET / HTTP/1.0\r\n\r\n", lifespan=mode)

    assert log == ["startup", {"pool": log}, "shutdown"]


async def test_state_is_copied() -> None:
    """Each request gets a shallow copy of the state."""
    log: list[Any] = []
    wire = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    await serve(make_app(log), wire + wire, lifespan="on")

    assert log[1] == log[2]
    assert log[1] is not log[2]


async def test_off() -> None:
    """Without lifespan the application is not asked, and the state is empty."""
    log: list[Any] = []
    await serve(make_app(log), b"GET / HTTP/1.0\r\n\r\n", lifespan="off")

    assert log == [{}]


@pytest.mark.parametrize("error", [None, KeyError("x"), LookupError(5)])
async def test_failed_startup(error) -> None:
    """A failed startup raises; the exception that follows is its cause."""
    log: list[Any] = []
    with pytest.raises(
        LifespanFailed, match=r"startup .* failed: no database$"
    ) as info:
        async with open_asgi(make_app(log, on_start=NOT_STARTED, error=error)):
            raise AssertionError

    assert isinstance(info.value, TrioUpgradeError)
    assert info.value.phase == "startup"
    assert info.value.__cause__ is error
    assert log == ["startup"]


async def refuses(scope, receive, send) -> None:
    """Raise for every scope that is not HTTP, as many applications do."""
    assert scope["type"] == "http"
    await sender(START, body())(scope, receive, send)


async def ignores(scope, receive, send) -> None:
    """Return for a lifespan without a word."""
    if scope["type"] == "http":
        await sender(START, body())(scope, receive, send)


async def waits(scope, receive, send) -> None:
    """Wait for the shutdown only."""
    while scope["type"] == "lifespan" and await receive() != SHUTDOWN:
        pass
    await sender(START, body())(scope, receive, send)


async def speaks_http(scope, receive, send) -> None:
    """Answer to every scope as to a request."""
    await sender(START, body())(scope, receive, send)


@pytest.mark.parametrize("app", [refuses, ignores, waits, speaks_http])
async def test_unsupported(app, caplog) -> None:
    """Under "auto" an application may have no lifespan; the log says so."""
    with caplog.at_level(logging.INFO, "trio_upgrade.asgi"):
        sent = await serve(app, b"GET / HTTP/1.0\r\n\r\n", lifespan="auto")

    assert sent.startswith(b"HTTP/1.1 200 OK")
    assert len(caplog.records) == (app is not ignores)


@pytest.mark.parametrize("app", [refuses, ignores, waits, speaks_http])
async def test_required(app) -> None:
    """Under "on" an application without lifespan is not served."""
    with pytest.raises(LifespanFailed, match=r"it (returned|raised)") as info:
        async with open_asgi(app, lifespan="on"):
            raise AssertionError

    assert (info.value.__cause__ is None) == (app is ignores)


@pytest.mark.parametrize("error", [None, KeyError("x")])
async def test_failed_shutdown(error) -> None:
    """A failed shutdown raises from the end of the block."""
    app = make_app([], on_stop=NOT_STOPPED, stop_error=error)
    with pytest.raises(LifespanFailed, match=r"shutdown .* failed: data lost$") as info:
        async with open_asgi(app):
            pass

    assert info.value.phase == "shutdown"
    assert info.value.__cause__ is error


async def test_error_in_shutdown() -> None:
    """So does an exception after the shutdown began."""
    error = KeyError("x")
    with pytest.raises(LifespanFailed, match="it raised KeyError") as info:
        async with open_asgi(make_app([], stop_error=error)):
            pass

    assert info.value.__cause__ is error


async def test_early_end(caplog) -> None:
    """An exception between the two is logged; the requests show what still works."""
    app = make_app([], error=KeyError("x"))
    sent = await serve(app, b"GET / HTTP/1.0\r\n\r\n", lifespan="on")
    (line,) = caplog.records

    assert sent.startswith(b"HTTP/1.1 200 OK")
    assert line.getMessage() == "the lifespan of the application ended early"


async def test_early_return(caplog) -> None:
    """An application that only has a startup may return after it."""

    async def app(scope, receive, send) -> None:
        await receive()
        await send(STARTED)

    async with open_asgi(app, lifespan="on"):
        pass
    assert not caplog.records


async def test_no_third_message() -> None:
    """An application that loops over the messages for ever is done at the third."""
    ended = []

    async def app(scope, receive, send) -> None:
        try:
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
        finally:
            ended.append(True)

    async with open_asgi(app, lifespan="on"):
        pass
    assert ended == [True]


async def test_waits_after_a_failed_startup() -> None:
    """An application that goes on to wait after its startup failed is ended."""

    async def app(scope, receive, send) -> None:
        await receive()
        await send(NOT_STARTED)
        await receive()

    with pytest.raises(LifespanFailed, match="no database"):
        async with open_asgi(app):
            raise AssertionError


@pytest.mark.parametrize(
    ("first", "second"),
    [(STOPPED, None), (start(), None), (STARTED, STARTED), (STARTED, NOT_STARTED)],
)
async def test_wrong_messages(first, second, caplog) -> None:
    """A message that is not expected is a UsageError in the application."""
    errors = []

    async def app(scope, receive, send) -> None:
        await receive()
        try:
            await send(first)
            await send(second)
        except UsageError as exc:
            errors.append(str(exc))
            raise

    async with open_asgi(app):
        await trio.testing.wait_all_tasks_blocked()
    assert len(errors) == 1
    assert "sent while the lifespan is" in errors[0]


class TestBlock:
    """What leaves the block of open_asgi()."""

    @pytest.mark.parametrize(
        "error",
        [
            OSError("x"),
            ExceptionGroup("x", [KeyError(1)]),
            BaseExceptionGroup("x", [KeyboardInterrupt(), KeyError(1)]),
            KeyboardInterrupt("x"),
            SystemExit(1),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("mode", ["auto", "off"])
    async def test_exception(self, error, mode) -> None:
        """An exception comes out as it went in, and the shutdown was run."""
        log: list[Any] = []
        with pytest.raises(BaseException) as info:  # noqa: PT011
            async with open_asgi(make_app(log), lifespan=mode):
                raise error

        assert info.value is error
        assert log == ([] if mode == "off" else ["startup", "shutdown"])

    async def test_exception_and_failed_shutdown(self, caplog) -> None:
        """It also comes out if the shutdown fails, which is then logged."""
        error = KeyError("x")
        with pytest.raises(KeyError) as info:
            async with open_asgi(make_app([], on_stop=NOT_STOPPED)):
                raise error

        assert info.value is error
        (line,) = caplog.records
        assert "data lost" in line.getMessage()

    @pytest.mark.parametrize("mode", ["on", "off"])
    async def test_cancelled(self, mode) -> None:
        """A cancellation ends the lifespan, too, and it gets no shutdown."""
        log: list[Any] = []
        with trio.CancelScope() as scope:
            async with open_asgi(make_app(log), lifespan=mode):
                scope.cancel()
                await trio.lowlevel.checkpoint()

        assert scope.cancelled_caught
        assert log == ([] if mode == "off" else ["startup"])

    async def test_exception_when_cancelled(self) -> None:
        """An exception comes out also if the block is cancelled by then."""
        with trio.CancelScope() as scope:
            with pytest.raises(KeyError):
                async with open_asgi(make_app([])):
                    scope.cancel()
                    raise KeyError

    async def test_cancelled_while_it_ends(self) -> None:
        """The wait for the shutdown can be cancelled."""

        async def app(scope, receive, send) -> None:
            await receive()
            await send(STARTED)
            await trio.sleep_forever()

        with trio.CancelScope() as scope:
            async with open_asgi(app):
                trio.lowlevel.spawn_system_task(cancel_when_idle, scope)
        assert scope.cancelled_caught

    async def test_cancelled_while_it_starts(self) -> None:
        """The wait for the startup can be cancelled, and nothing runs on."""

        async def app(scope, receive, send) -> None:
            await trio.sleep_forever()

        with trio.CancelScope() as scope:
            trio.lowlevel.spawn_system_task(cancel_when_idle, scope)
            async with open_asgi(app):
                raise AssertionError
        assert scope.cancelled_caught

    async def test_interrupt_in_the_lifespan(self) -> None:
        """A KeyboardInterrupt in the lifespan ends the block and comes alone."""

        async def app(scope, receive, send) -> None:
            await receive()
            await send(STARTED)
            raise KeyboardInterrupt("x")

        with pytest.raises(KeyboardInterrupt, match="x"):
            async with open_asgi(app):
                await trio.sleep_forever()

    async def test_interrupt_in_the_startup(self) -> None:
        """So does one in the startup."""

        async def app(scope, receive, send) -> None:
            raise KeyboardInterrupt("x")

        with pytest.raises(KeyboardInterrupt, match="x"):
            async with open_asgi(app):
                raise AssertionError

    async def test_two_failures(self) -> None:
        """If the body and the lifespan fail on their own, both come in a group."""

        async def app(scope, receive, send) -> None:
            await receive()
            await send(STARTED)
            raise KeyboardInterrupt("x")

        with pytest.raises(BaseExceptionGroup) as info:
            async with open_asgi(app):
                try:
                    await trio.sleep_forever()
                finally:
                    raise KeyError("y")
        kinds = {type(exc) for exc in info.value.exceptions}
        assert kinds == {KeyboardInterrupt, KeyError}


async def cancel_when_idle(scope: trio.CancelScope) -> None:
    """Cancel a scope when all tasks wait."""
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()

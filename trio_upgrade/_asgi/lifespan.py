# The lifespan of an ASGI application: one call of it, beside those for requests.
#
#    STARTING --> RUNNING --> STOPPING --> ENDED
#        |           |            |          ^
#        +-----------+------------+----------+
#
# The application moves it by the messages that it sends; its return or exception ends it
# from each state.
from __future__ import annotations

import logging
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal, final

import trio

from .. import UsageError
from .errors import LifespanFailed

if TYPE_CHECKING:
    from .types import ASGIApp, Message

_LOGGER = logging.getLogger("trio_upgrade.asgi")


class _State(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


@final
class Lifespan:
    """The lifespan of one application.

    Args:
        app: The application.
        mode: ``"on"``: without the lifespan protocol the startup fails; ``"auto"``: then
            the application is served without it.

    Attributes:
        state: What the application has put into ``scope["state"]``.
    """

    def __init__(self, app: ASGIApp, mode: Literal["auto", "on"]) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._phase = _State.STARTING
        # What startup() or shutdown() raises.
        self._failure: LifespanFailed | None = None
        self._is_startup_received = False
        self._started = trio.Event()
        self._shutdown_begun = trio.Event()
        # The application has returned, or waits for a message that does not exist.
        self._ended = trio.Event()

    async def startup(self) -> None:
        """Wait until the application is ready; :meth:`run` must have been started.

        Raises:
            LifespanFailed: It is not, and will not be.
        """
        await self._started.wait()
        if self._failure is not None:
            # Let an exception that follows the message become the cause.
            await self._ended.wait()
            raise self._failure

    async def shutdown(self) -> None:
        """Tell the application that the server has ended, and wait until it is done.

        The wait has no limit of its own; the caller's cancel scope has.

        Raises:
            LifespanFailed: The application says so, or raised an exception.
        """
        self._shutdown_begun.set()
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def run(self) -> None:
        """Call the application, and handle what it raises."""
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:
            self._note_error(exc)
        else:
            self._note_return()
        # Not after a KeyboardInterrupt or Cancelled: then the nursery ends the waits.
        self._phase = _State.ENDED
        self._started.set()
        self._ended.set()

    def _note_error(self, exc: Exception) -> None:
        if self._failure is not None:
            # Starlette says "failed" and raises the reason.
            self._failure.__cause__ = exc
        elif self._phase is _State.STARTING:
            if self._mode == "on":
                self._failure = LifespanFailed("startup", f"it raised {exc!r}")
                self._failure.__cause__ = exc
            else:
                _LOGGER.info("served without lifespan: the application raised %r", exc)
        elif self._phase is _State.RUNNING:
            # The application may still answer requests; each one shows whether it can.
            _LOGGER.error("the lifespan of the application ended early", exc_info=exc)
        else:
            self._failure = LifespanFailed("shutdown", f"it raised {exc!r}")
            self._failure.__cause__ = exc

    def _note_return(self) -> None:
        if self._phase is _State.STARTING and self._mode == "on":
            self._failure = self._failure or LifespanFailed(
                "startup", "it returned before it was complete"
            )

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if not self._is_startup_received:
            self._is_startup_received = True
            return {"type": "lifespan.startup"}
        if self._phase is _State.STARTING and self._failure is None:
            # Otherwise an application that only waits for the end would never start.
            raise UsageError("receive() called again before the startup was complete")
        if self._phase is _State.RUNNING:
            await self._shutdown_begun.wait()
            self._phase = _State.STOPPING
            return {"type": "lifespan.shutdown"}
        # There is no third message.
        self._ended.set()
        await trio.sleep_forever()

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        phase, kind = self._phase, message["type"]
        reason = str(message.get("message", ""))
        if phase is _State.STARTING and kind == "lifespan.startup.complete":
            self._phase = _State.RUNNING
            self._started.set()
        elif phase is _State.STARTING and kind == "lifespan.startup.failed":
            self._failure = LifespanFailed("startup", reason)
            self._started.set()
        elif phase is _State.STOPPING and kind == "lifespan.shutdown.failed":
            self._failure = LifespanFailed("shutdown", reason)
        elif not (phase is _State.STOPPING and kind == "lifespan.shutdown.complete"):
            raise UsageError(f"{kind!r} sent while the lifespan is {phase.name}")

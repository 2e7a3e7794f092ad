# One call of an application for one HTTP request: what receive() and send() do.
#
#    WAITING --start--> HELD --first body--> STREAMING --last body--> COMPLETE
#                                                |                        ^
#                                                +--> TRAILERS --last-----+
#
# The application runs in the task of the connection, so no other request of the
# connection is served until it returns: background tasks of a framework, which run after
# the answer, delay the next request and are waited for in a drain.  But send() and
# receive() may be called in any task of the application.
#
# There is no task that watches the client.  A task of the application that waits in
# receive() does it itself.  Only a call from a cancelled scope, which asks for what is
# known already (Starlette's is_disconnected()), cannot; the first one starts a watcher.
from __future__ import annotations

import logging
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, final

import trio

from .. import BodyError, UsageError
from .errors import ClientDisconnected, remove_disconnects
from .messages import (
    WITHOUT_CONTENT,
    Start,
    parse_body,
    parse_early_hint,
    parse_start,
    parse_trailers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .. import Request, StreamedResponse
    from .messages import Field
    from .types import ASGIApp, Message, Scope

_LOGGER = logging.getLogger("trio_upgrade.asgi")
_EARLY_HINTS = 103
_DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}
_NO_BODY: dict[str, Any] = {"type": "http.request", "body": b"", "more_body": False}


class _State(Enum):
    WAITING = auto()
    HELD = auto()
    STREAMING = auto()
    TRAILERS = auto()
    COMPLETE = auto()


# Tuples: a set would call the hash function of Enum, which is slow.
_BODY_STATES = (_State.HELD, _State.STREAMING)
# Until then nothing of the answer was sent.
_EARLY_STATES = (_State.WAITING, _State.HELD)


@final
class HTTPCall:
    """One call of an application for one HTTP request.

    Args:
        request: The request.
        start_soon: Starts a task that watches the client, when one is needed.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_error",
        "_gone",
        "_has_dropped",
        "_has_left",
        "_is_given",
        "_left",
        "_reading",
        "_request",
        "_start",
        "_start_soon",
        "_state",
        "_trailers",
        "_was_polled",
        "_watched",
    )

    def __init__(self, request: Request, start_soon: Callable[..., object]) -> None:
        self._request = request
        self._start_soon = start_soon
        self._state = _State.WAITING
        self._start: Start | None = None
        # The block of request.respond() that is entered; None before and after it.
        self._answer: StreamedResponse | None = None
        self._has_dropped = False
        self._trailers: list[Field] = []
        # The rest of the request's body; None once its last message was given away.
        self._body: AsyncIterator[bytes] | None = None
        self._left: int | None = None
        # For one task at a time; None if the request has no body.
        self._reading: trio.Lock | None = None
        # Whether the only message of a request without a body was given away.
        self._is_given = False
        if request.has_body:
            self._body = request.stream()
            self._left = _find_length(request)
            self._reading = trio.Lock()
        # Whether the application was told that the client is gone, and the error of the
        # body that said so.
        self._gone = False
        self._error: BodyError | None = None
        # Whether the watcher has seen the client leave.  That alone does not end the
        # reading of the body, nor the answer: it may have ended its own side only.
        self._has_left = False
        self._was_polled = False
        self._watched = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call the application and give the answer that it sends.

        Raises:
            BodyError: The body is broken or too slow and the application gave no answer:
                the server gives one.
            UsageError: The application returned without a complete answer.
            Exception: Whatever the application raised, without the parts that only say
                that the client is gone.
        """
        try:
            await app(scope, self.receive, self.send)
            if not (self._gone or self._state is _State.COMPLETE):
                raise UsageError(
                    "the ASGI application returned before its response was complete"
                )
        except BaseException as exc:
            await self.cut_answer(exc)
            rest = remove_disconnects(exc) if self._gone else exc
            try:
                if rest is exc:
                    raise
                if rest is not None:
                    raise rest from None
            finally:
                # A frame that an exception has passed must not keep a reference to it.
                del exc, rest
        else:
            if self._state is not _State.COMPLETE:
                await self.cut_answer(ClientDisconnected("the client is gone"))
        if self._error is not None and self._state in _EARLY_STATES:
            raise self._error

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer was sent."""
        return self._state is _State.COMPLETE

    async def cut_answer(self, exc: BaseException) -> None:
        """Reset an answer that has begun; the exception says why."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.__aexit__(type(exc), exc, exc.__traceback__)

    ################################################################
    # receive()
    ################################################################

    async def receive(self) -> Message:
        """Return the next message to the application.

        There is no checkpoint when the message is known.
        """
        if self._gone or self._state is _State.COMPLETE:
            return _DISCONNECT.copy()
        if trio.current_effective_deadline() <= trio.current_time():
            return await self._poll()
        if self._reading is not None:
            return await self._read_in_turn(self._reading)
        if not self._is_given:
            self._is_given = True
            return _NO_BODY.copy()
        return await self._wait_disconnect()

    async def _poll(self) -> Message:
        # Called in a cancelled scope.  Starlette drops every message but a disconnect
        # here, so that no part of a body must be given away; the one message of a request
        # without a body is given again to the next call that is not a poll.
        if self._has_left:
            return await self._wait_disconnect()
        if not self._watched:
            self._watched = True
            self._start_soon(self._watch)
        if self._reading is None and not (self._is_given or self._was_polled):
            self._was_polled = True
            return _NO_BODY.copy()
        return await self._wait_disconnect()

    async def _watch(self) -> None:
        # Ends with the request.
        self._has_left = await self._request.wait_disconnect()

    async def _wait_disconnect(self) -> Message:
        # False means that the answer was complete first: the specification has no other
        # message for that.
        if self._has_left or await self._request.wait_disconnect():
            self._gone = True
        return _DISCONNECT.copy()

    async def _read_in_turn(self, reading: trio.Lock) -> Message:
        # Several tasks may call receive(); each message goes to one of them.
        try:
            reading.acquire_nowait()
        except trio.WouldBlock:
            await reading.acquire()
        try:
            if self._body is not None and not self._gone:
                return await self._read(self._body)
        finally:
            reading.release()
        return await self._wait_disconnect()

    async def _read(self, body: AsyncIterator[bytes]) -> Message:
        try:
            piece = await anext(body, b"")
        except BodyError as exc:
            # The connection cannot be used any more. The server answers to this error,
            # when the application has ended.
            self._error = exc
            self._gone = True
        except trio.BrokenResourceError:
            # The client left before the 100 was sent.
            self._gone = True
        except UsageError:
            # Another task has completed the answer, or this one outlives the request.
            pass
        else:
            if self._left is not None:
                self._left -= len(piece)
            more = bool(piece) and self._left != 0
            if not more:
                self._body = None
            return {"type": "http.request", "body": piece, "more_body": more}
        return _DISCONNECT.copy()

    ################################################################
    # send()
    ################################################################

    async def send(self, message: Message) -> None:
        """Take a message from the application.

        Raises:
            ClientDisconnected: The client is gone.
            UsageError: The message is not expected now, or unknown.
            TypeError: A value in it has another type.
            ValueError: A value in it cannot be sent.
        """
        if self._gone:
            raise ClientDisconnected("the client is gone")
        kind: object = message["type"]
        try:
            if kind == "http.response.body" and self._state in _BODY_STATES:
                await self._send_body(message)
            elif kind == "http.response.start" and self._state is _State.WAITING:
                self._start = parse_start(message)
                self._state = _State.HELD
            elif kind == "http.response.trailers" and self._state is _State.TRAILERS:
                await self._send_trailers(message)
            elif kind == "http.response.early_hint" and self._state in _EARLY_STATES:
                links = parse_early_hint(message)
                await self._request.send_informational(_EARLY_HINTS, links)
            else:
                raise UsageError(
                    f"{kind!r} sent while the answer is {self._state.name}"
                )
        except trio.BrokenResourceError as exc:
            self._gone = True
            raise ClientDisconnected("the client is gone") from exc

    async def _send_body(self, message: Message) -> None:
        body, more = parse_body(message)
        start = self._start
        assert start is not None
        if body and start.status in WITHOUT_CONTENT:
            self._log_dropped(start.status)
            body = b""
        if self._state is _State.HELD:
            answer = await self._begin(start, body)
        else:
            assert self._answer is not None
            answer = self._answer
            if body or more:
                await answer.send(body)
        if more:
            return
        if start.trailers:
            self._state = _State.TRAILERS
        else:
            await self._complete(answer)

    async def _begin(self, start: Start, first: bytes) -> StreamedResponse:
        # In another task than the one that leaves the block, perhaps; therefore the block
        # has to be one without a cancel scope.
        answer = self._request.respond(
            start.status, start.fields, first=first, cancel_on_disconnect=False
        )
        # If it fails now, there is no other answer any more.
        self._state = _State.STREAMING
        self._answer = await answer.__aenter__()
        return answer

    async def _complete(self, answer: StreamedResponse) -> None:
        self._answer = None
        await answer.__aexit__(None, None, None)
        self._state = _State.COMPLETE

    async def _send_trailers(self, message: Message) -> None:
        fields, more = parse_trailers(message)
        self._trailers += fields
        if not more:
            answer = self._answer
            assert answer is not None
            if answer.status not in WITHOUT_CONTENT:
                answer.trailers = self._trailers
            await self._complete(answer)

    def _log_dropped(self, status: int) -> None:
        if not self._has_dropped:
            self._has_dropped = True
            _LOGGER.warning("dropped content of a %d to %r", status, self._request)


def _find_length(request: Request) -> int | None:
    # How many bytes the body has; None if that is unknown.
    length = request.headers.get("content-length", "")
    is_known = length.isdecimal() and "transfer-encoding" not in request.headers
    return int(length) if is_known else None

# An answer whose content the app sends piece by piece, request.respond().
#
#      made --> begun: the header section is sent --> left: whole, or cut
#
# The rules of HTTP are those of a Response (ServerCodec), and the connection task goes
# on when the app returns.  Nothing here is bound to a task unless the block is cancelled
# when the client leaves: an adapter for another interface may enter the block where that
# interface begins the answer, and leave it elsewhere.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, cast, final

import trio

from .._errors import UsageError
from .._http.headers import Headers
from .._http.trailers import trailer_fields
from .._util import name_kind, public

if TYPE_CHECKING:
    from types import TracebackType

    from .._http.headers import HeadersLike
    from .dates import DateClock
    from .exchange import Exchange
    from .http import ServerHTTP
    from .silence_watch import SilenceWatch

# RFC 9110 §15.3.5, §15.3.6, §15.4.5.
_EMPTY = frozenset({204, 205, 304})


@public
@final
class StreamedResponse(AbstractAsyncContextManager["StreamedResponse", None]):
    """An answer that the app sends piece by piece; made by :meth:`Request.respond`.

    Attributes:
        status: The status.
        headers: All its fields but those that the library adds: Date, framing,
            ``Connection: close``.
        reason: The reason phrase.
    """

    __slots__ = (
        "_cancel_on_disconnect",
        "_dates",
        "_exchange",
        "_first",
        "_has_content",
        "_http",
        "_trailers",
        "_watch",
        "headers",
        "reason",
        "status",
    )

    def __init__(
        self,
        exchange: Exchange,
        dates: DateClock,
        status: int,
        reason: str,
        headers: Headers,
        first: bytes,
        *,
        cancel_on_disconnect: bool,
    ) -> None:
        self._exchange = exchange
        self._dates = dates
        self.status: int = status
        self.reason: str = reason
        self.headers: Headers = headers
        if not isinstance(cast("object", first), bytes):
            raise TypeError(f"first must be bytes, not {name_kind(first)}")
        if first and status in _EMPTY:
            raise ValueError(f"a {status} has no content")
        self._first = first
        self._cancel_on_disconnect = cancel_on_disconnect
        # None before the block is entered and after it was left.
        self._http: ServerHTTP | None = None
        self._has_content = False
        self._trailers = Headers()
        # None if the block is not cancelled when the client leaves.
        self._watch: SilenceWatch | None = None

    async def __aenter__(self) -> StreamedResponse:
        await trio.lowlevel.checkpoint()
        exchange = self._exchange
        http = exchange.get_sendable()
        with http.sending():
            close = exchange.start_answer(http)
            try:
                self._has_content = await http.begin_streamed(
                    self.status,
                    self.reason,
                    self.headers,
                    self._dates.field(),
                    self._first,
                    close=close,
                )
            except BaseException as exc:
                http.end_streamed(exc)
                raise
        self._http, self._first = http, b""
        if self._cancel_on_disconnect:
            self._watch = exchange.watch_silence(http)
            http.streaming = trio.CancelScope()
            http.streaming.__enter__()
        return self

    async def send(self, chunk: bytes | bytearray | memoryview) -> None:
        """Send a piece of the content; always a checkpoint.

        In answer to HEAD nothing is sent. An empty piece only is a checkpoint.

        Cancelled before its first byte, it has sent nothing. Cancelled in the middle, it
        breaks the connection, and the answer can no longer be completed.

        Args:
            chunk: Bytes, or another object with a buffer.

        Raises:
            TypeError: It has no bytes; nothing was sent.
            ValueError: A 204, 205 or 304 has no content, and nothing was sent. Or it is
                more than Content-Length says; the connection is broken.
            UsageError: The block is not entered yet, or was left.
            trio.BusyResourceError: Another task is sending on this connection.
            trio.BrokenResourceError: The client is gone, or too slow
                (``Limits.send_timeout``), or an earlier call was cut.
        """
        http = self._get_http()
        with http.sending():
            await trio.lowlevel.checkpoint()
            # Meanwhile the block may have been left, or the client.
            self._get_http()
            if self.status in _EMPTY and memoryview(chunk).nbytes:
                raise ValueError(f"a {self.status} has no content")
            if http.broken:
                raise trio.BrokenResourceError("the connection is broken")
            if self._has_content:
                await http.send_content(cast("bytes", chunk))

    @property
    def trailers(self) -> Headers:
        """The fields to send after the content; empty unless they are set.

        They can be set, as pairs or a mapping, until the block is left. They are sent
        where the content is chunked. To HTTP/1.0 and in answer to HEAD they are dropped,
        and a proxy may drop them (RFC 9110 §6.5.1).

        Raises:
            TypeError: These are no fields.
            ValueError: The response has a Content-Length or no content, or a field is
                malformed, or is one of framing, routing or authentication.
            UsageError: The block is not entered yet, or was left.
        """
        return self._trailers

    @trailers.setter
    def trailers(self, fields: HeadersLike) -> None:
        self._get_http()
        checked = Headers(trailer_fields(fields))
        if self.status in _EMPTY or self.headers.lines(b"content-length"):
            raise ValueError("trailers need content without a Content-Length")
        self._trailers = checked

    def _get_http(self) -> ServerHTTP:
        if self._http is None:
            raise UsageError(
                "the answer is used outside of its block: "
                "async with request.respond(...) as answer"
            )
        return self._http

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        http = self._get_http()
        failure = exc_value
        try:
            if failure is None:
                try:
                    await self._end(http)
                except BaseException as exc:
                    failure = exc
            self._http = None
            if self._watch is not None:
                failure = self._stop_watch(http, self._watch, failure)
            http.end_streamed(failure)
            if failure is not None and failure is not exc_value:
                raise failure
        finally:
            # The exception refers to this frame.
            del failure, exc_value

    def _stop_watch(
        self, http: ServerHTTP, watch: SilenceWatch, failure: BaseException | None
    ) -> BaseException | None:
        # Leaves the scope; returns the exception of the block after that.
        watch.stop()
        scope, http.streaming = http.streaming, None
        assert scope is not None
        if failure is None:
            scope.__exit__(None, None, None)
            return None
        try:
            if not scope.__exit__(type(failure), failure, failure.__traceback__):
                return failure
        except BaseException as rest:
            # A part of a group is left.
            return rest
        return http.explain_gone()

    async def _end(self, http: ServerHTTP) -> None:
        with http.sending():
            if http.broken:
                raise trio.BrokenResourceError("the answer was cut")
            if self._has_content:
                await http.end_content(self._trailers.raw)
            if http.closes:
                await http.end_direction()

    def __repr__(self) -> str:
        return f"<StreamedResponse {self.status} {ascii(self.reason)[1:-1]}>"

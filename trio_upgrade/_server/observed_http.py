# ServerHTTP for servers whose observer gets records of requests.  A class of its own, so
# that other servers count no bytes and note no times.
from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .._http_stream import PIECE
from .http import ServerHTTP

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._http.headers import Field, Headers
    from .._limits import Limits
    from .response import Response

    Report: TypeAlias = Callable[[int, int, int, float, BaseException | None], None]


@final
class ObservedHTTP(ServerHTTP):
    """:class:`ServerHTTP` that measures and reports each final response.

    Args:
        stream: The stream that HTTP is spoken on.
        limits: The limits.
        counts: As for :class:`ServerHTTP`.
        report: Called once for each final response that was begun, with the status, the
            bytes of content sent, all its bytes sent, when it was begun, and the
            exception that cut it.
    """

    __slots__ = (
        "_began",
        "_chunks_sent",
        "_head_size",
        "_report",
        "_sent",
        "_status",
        "_uncounted",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: Limits,
        counts: list[int],
        report: Report,
    ) -> None:
        super().__init__(stream, limits, counts)
        self._report = report
        # All bytes sent since the response was begun.
        self._sent = 0
        # The size of the send_short() under way, until a part of it is counted.
        self._uncounted = 0
        # None until the header section is sent.
        self._head_size: int | None = None
        # Bytes of content in the chunks of an iterable body that were sent whole.
        self._chunks_sent = 0
        # The status of a streamed response, and when it was begun.
        self._status = 0
        self._began = 0.0

    async def send_response(
        self, response: Response, date: Field, *, close: bool
    ) -> None:
        """Send a final response and report it; see :meth:`ServerHTTP.send_response`."""
        began = trio.current_time()
        cause: BaseException | None = None
        self._start_counting()
        try:
            await super().send_response(response, date, close=close)
        except BaseException as exc:
            cause = exc
            raise
        finally:
            if self.response_begun:
                content = self._chunks_sent
                if isinstance(response.body, bytes) and self._head_size is not None:
                    content = max(0, self._sent - self._head_size)
                self._report(response.status, content, self._sent, began, cause)
            # The exception refers to this frame.
            del cause

    def _start_counting(self) -> None:
        self._sent = self._uncounted = self._chunks_sent = 0
        self._head_size = None

    async def begin_streamed(
        self,
        status: int,
        reason: str,
        headers: Headers,
        date: Field,
        first: bytes,
        *,
        close: bool,
    ) -> bool:
        """Do what :meth:`ServerHTTP.begin_streamed` does; the report comes at the end."""
        self._status, self._began = status, trio.current_time()
        self._start_counting()
        return await super().begin_streamed(
            status, reason, headers, date, first, close=close
        )

    def end_streamed(self, cause: BaseException | None) -> None:
        """Report the response; see :meth:`ServerHTTP.end_streamed`."""
        super().end_streamed(cause)
        self._report(self._status, self._chunks_sent, self._sent, self._began, cause)

    async def send_short(self, data: bytes) -> None:
        """Send and count; see :meth:`ServerHTTP.send_short`."""
        if self._head_size is None:
            # The first bytes of a response; an empty line ends its header section.
            self._head_size = data.index(b"\r\n\r\n") + 4
        self._uncounted = len(data)
        await super().send_short(data)
        # Otherwise _transmit() has counted it.
        self._sent += self._uncounted
        self._uncounted = 0

    async def _transmit(self, data: bytes) -> None:
        if self._uncounted:
            # The beginning may have been sent without waiting.
            self._sent += self._uncounted - len(data)
            self._uncounted = 0
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            await super()._transmit(piece)
            self._sent += len(piece)

    def _note_content(self, chunk: bytes) -> None:
        self._chunks_sent += memoryview(chunk).nbytes

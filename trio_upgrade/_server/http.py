# The server's HTTP on one Trio stream: requests in, responses out.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from .._http.server_codec import ServerCodec
from .._http_stream import PIECE, RECEIVE_SIZE, SMALL_BODY, HTTPStream
from .._streams.closing import move_on_after
from .response import find_trailers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._http.headers import Field, Headers
    from .._http.messages import RequestHead
    from .._limits import Limits
    from .receive_turn import ReceiveTurn
    from .response import Response

_RESET_CONTENT = 205


class ServerHTTP(HTTPStream[ServerCodec]):
    """HTTP on one connection of a server; tasks that share it take turns to receive.

    Args:
        stream: The stream that HTTP is spoken on.
        limits: The limits.
        counts: The number of final responses that were begun, by the first digit of the
            status; each is counted there.

    Attributes:
        silent_since: When content was last sent, in seconds of Trio's clock, or the
            response begun; infinite while something is sent.
        slow: Whether it is broken because the peer did not read in time.
        streaming: The scope in which the app sends content piece by piece; it is
            cancelled if the client is gone.
        turn: Which task of an app may receive; None until an app has tasks that wait.
    """

    __slots__ = (
        "_counts",
        "_gone",
        "_send_timeout",
        "_sending",
        "silent_since",
        "slow",
        "streaming",
        "turn",
    )

    def __init__(
        self, stream: trio.abc.Stream, limits: Limits, counts: list[int]
    ) -> None:
        super().__init__(stream, ServerCodec(limits))
        self._counts = counts
        self._send_timeout = limits.send_timeout
        self.slow: bool = False
        self.turn: ReceiveTurn | None = None
        self.silent_since: float = math.inf
        self.streaming: trio.CancelScope | None = None
        self._gone: Exception | None = None
        # Whether a task of the app is sending a 1xx or a part of a streamed response.
        self._sending = False

    ################################################################
    # Requests
    ################################################################

    @property
    def has_begun_head(self) -> bool:
        """Whether a part of the next request was read; a blank line does not count."""
        return self._codec.has_begun_head

    @property
    def has_next(self) -> bool:
        """Whether bytes beyond this request have been read, as far as can be known."""
        return self._codec.has_next

    @property
    def client_waits(self) -> bool:
        """Whether the client may be waiting for a 100 before it sends the body."""
        return self._codec.client_waits

    @property
    def continue_owed(self) -> bool:
        """Whether the request expects a 100 and none was sent yet."""
        return self._codec.continue_owed

    @property
    def is_request_whole(self) -> bool:
        """Whether the request was read to its end and no 100 is owed for it."""
        return self._codec.body_ended and not self._codec.continue_owed

    @property
    def lacks_content(self) -> bool:
        """Whether a part of the body was not received yet; False if that is unknown."""
        left = self._codec.body_left
        return left is not None and not self._codec.has_buffered_bytes(left)

    def receive_nowait(self) -> None:
        """Receive bytes that the kernel has already; for a direct socket stream only.

        An end of stream is left for :meth:`receive`.

        Raises:
            trio.BrokenResourceError: The connection is broken.
        """
        assert self._direct is not None
        try:
            received = self._direct.receive_some_nowait(RECEIVE_SIZE)
        except trio.BrokenResourceError as exc:
            self._note_failure(exc)
            raise
        if received:
            self._codec.receive_data(received)

    def next_request(self) -> RequestHead | None:
        """Take the next request's head from the buffer; None if it is not complete yet.

        Raises:
            MalformedMessage: It is not HTTP, or over a limit; a response can be sent.
        """
        return self._codec.next_request()

    def start_next_exchange(self) -> None:
        """Forget the last exchange; bytes that were read ahead are kept."""
        self._codec.start_next_exchange()

    async def watch(self, turn: ReceiveTurn, read_ahead: int) -> None:
        """Receive until the peer's end or a break, or wait until another task has.

        Also returns after ``read_ahead`` bytes, which are kept, and at any other news:
        the caller looks what it is, and calls this again.
        """
        if not turn.is_free or self._is_watched_enough(read_ahead):
            await turn.wait_changed()
            return
        with turn.take(trio.CancelScope()):
            try:
                while not self._is_watched_enough(read_ahead):
                    await self.receive()
            except trio.BrokenResourceError:
                pass  # receive() has noted it.
            except trio.ClosedResourceError:
                # Closed by its owner, or by the connection after the request.
                self.note_loss()

    def _is_watched_enough(self, read_ahead: int) -> bool:
        return self.ended or self._codec.has_buffered_bytes(read_ahead)

    ################################################################
    # Responses
    ################################################################

    @property
    def is_http10(self) -> bool:
        """Whether the request is of HTTP/1.0."""
        return self._codec.is_http10

    async def send_informational(
        self, status: int, reason: str, fields: Iterable[Field]
    ) -> None:
        """Send a 1xx that is neither a 100 nor a 101; the caller has made a checkpoint.

        Raises:
            trio.BrokenResourceError: The connection is broken. A cancellation in the
                middle breaks it, too.
        """
        await self.send_short(self._codec.write_informational(status, reason, fields))

    async def send_interim(
        self, status: int, reason: str, fields: Iterable[Field]
    ) -> None:
        """Send a 100, the 101 of a switch, or the 200 that opens a tunnel.

        Raises:
            trio.BrokenResourceError: The connection is broken. A cancellation in the
                middle breaks it, too.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.send_short(self._codec.write_interim(status, reason, fields))

    async def send_response(
        self, response: Response, date: Field, *, close: bool
    ) -> None:
        """Send a final response.

        Args:
            response: The response. An iterable body is not run if method or status
                allow no content; its owner closes it.
            date: The Date field, for a response that has none.
            close: Whether to end the connection after it.

        Raises:
            ValueError: Content-Length is not the length of the body. If the body is
                bytes, nothing was sent; otherwise the connection is broken.
            trio.BrokenResourceError: The connection is broken. A cancellation in the
                middle, or an error of the iterable, breaks it, too.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        body = response.body
        head, has_content = self._codec.write_response(
            response.status,
            response.reason,
            response.headers,
            len(body) if isinstance(body, bytes) else None,
            date,
            close=close,
        )
        self._counts[response.status // 100] += 1
        if not has_content:
            await self.send_short(head)
        elif not isinstance(body, bytes):
            await self.send_short(head)
            await self._send_iterable(response)
        elif len(body) <= SMALL_BODY:
            await self.send_short(head + body)
        else:
            await self.send_short(head)
            await self.send(body)
        self._codec.response_ended = True

    async def _send_iterable(self, response: Response) -> None:
        body = response.body
        assert not isinstance(body, bytes)
        try:
            with trio.CancelScope() as self.streaming:
                self.silent_since = trio.current_time()
                async for chunk in body:
                    data = self._codec.write_body(chunk)
                    if data:
                        self.silent_since = math.inf
                        await self.send(data)
                        self.silent_since = trio.current_time()
                        self._note_content(chunk)
                end = self._codec.write_end(find_trailers(response))
                self.silent_since = math.inf
                await self.send(end)
                return
            raise self.explain_gone()
        except BaseException:
            # The response has begun and cannot be ended correctly any more.
            self.cut()
            raise
        finally:
            self.streaming = None

    def _note_content(self, chunk: bytes) -> None:
        # A chunk of an iterable body, or of a streamed response, was sent whole.
        pass

    ################################################################
    # Responses that the app streams
    ################################################################

    def sending(self) -> _Sending:
        """Let no other task of the app send, in a ``with``: its bytes would come between.

        Entering raises :exc:`trio.BusyResourceError` if another task is sending.
        """
        return _Sending(self)

    def claim_sending(self) -> None:
        """Begin what :meth:`release_sending` ends; for :meth:`sending`.

        Raises:
            trio.BusyResourceError: Another task is sending.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        self._sending = True

    def release_sending(self) -> None:
        """Let other tasks send again."""
        self._sending = False

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
        """Send the header section of a response whose content the app will send.

        Args:
            status: The status code.
            reason: The reason phrase.
            headers: The fields, checked.
            date: The Date field, for a response that has none.
            first: The content to send with it; may be empty.
            close: Whether to end the connection after it.

        Returns:
            Whether content follows: not to HEAD, nor for a 204 or 304.

        Raises:
            ValueError: ``first`` is more than Content-Length says.
            trio.BrokenResourceError: The connection is broken. A cancellation in the
                middle breaks it, too.
        """
        # RFC 9110 §15.3.6: a 205 has no content, and its framing says so.
        length = 0 if status == _RESET_CONTENT else None
        head, has_content = self._codec.write_response(
            status, reason, headers, length, date, close=close
        )
        data = self._codec.write_body(first) if first and has_content else b""
        self._counts[status // 100] += 1
        if len(data) <= SMALL_BODY:
            await self.send_short(head + data)
        else:
            await self.send_short(head)
            await self.send(data)
        if data:
            self._note_content(first)
        self.silent_since = trio.current_time()
        return has_content

    async def send_content(self, chunk: bytes) -> None:
        """Send a piece of the content; the caller has made a checkpoint.

        Raises:
            TypeError: It is not bytes; nothing was sent.
            ValueError: It is more than Content-Length says; the connection is broken.
            trio.BrokenResourceError: The connection is broken.
        """
        try:
            data = self._codec.write_body(chunk)
        except ValueError:
            self.cut()
            raise
        if data:
            self.silent_since = math.inf
            await self.send_short(data)
            self.silent_since = trio.current_time()
            self._note_content(chunk)

    async def end_content(self, trailers: Iterable[Field]) -> None:
        """Send the end of the content.

        Raises:
            ValueError: Content-Length says more; the connection is broken.
            trio.BrokenResourceError: The connection is broken.
        """
        end = self._codec.write_end(trailers)
        self.silent_since = math.inf
        if end:
            await self.send_short(end)

    def drop_client(self, cause: Exception | None) -> None:
        """Note that the client is gone, and cancel the app that sends content to it.

        Args:
            cause: What a stream of the user's raised, None if it raised nothing new.
        """
        self.note_loss()
        self._gone = cause
        if self.streaming is not None:
            self.streaming.cancel(reason="the client is gone")

    def explain_gone(self) -> trio.BrokenResourceError:
        """Return the error for an app that was cancelled by :meth:`drop_client`."""
        error = trio.BrokenResourceError("the client is gone")
        error.__cause__, self._gone = self._gone, None
        return error

    def end_streamed(self, cause: BaseException | None) -> None:
        """Note that a streamed response is over.

        Args:
            cause: The exception that cut it; None if it is whole.
        """
        if cause is None:
            self._codec.response_ended = True
        else:
            self.cut()
        if self.turn is not None:
            # Tasks that wait for the client's end or read the body need not go on.
            self.turn.interrupt()

    async def end_direction(self) -> None:
        """End our direction of the connection after its last response.

        The app may go on for long, and a client of HTTP/1.0 finds the end of the content
        only here. A failure is no error: the whole response was sent.
        """
        with suppress(trio.BrokenResourceError):
            if self._direct is not None:
                self._direct.end()
            elif isinstance(self._stream, trio.abc.HalfCloseableStream):
                with move_on_after(self._send_timeout):
                    await self._stream.send_eof()

    async def _transmit(self, data: bytes) -> None:
        # Each piece has its own deadline. Only data that is long or has to wait comes
        # here. It gets a scope of its own, because the connection's may be that of all
        # connections.
        with trio.CancelScope() as scope:
            for start in range(0, len(data), PIECE):
                if self._send_timeout is not None:
                    scope.deadline = trio.current_time() + self._send_timeout
                # Slicing bytes copies nothing if there is only one piece.
                await self._stream.send_all(data[start : start + PIECE])
        if scope.cancelled_caught:
            self.slow = True
            raise trio.BrokenResourceError("the peer did not read in time")

    @property
    def response_begun(self) -> bool:
        """Whether the final response was begun."""
        return self._codec.response_begun

    @property
    def closes(self) -> bool:
        """Whether the response that was begun ends the connection."""
        return self._codec.response_begun and self._codec.closes

    @property
    def is_answered(self) -> bool:
        """Whether the final response was sent to its end."""
        return self._codec.response_ended

    @property
    def may_answer(self) -> bool:
        """Whether a final response can still be begun."""
        return not (self.broken or self._codec.response_begun)

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over and another one can follow."""
        codec = self._codec
        return (
            not self.broken
            and codec.response_ended
            and not codec.closes
            and codec.body_ended
        )


@final
class _Sending:
    # Not a generator: that would take three times as long, twice for each answer.
    __slots__ = ("_http",)

    def __init__(self, http: ServerHTTP) -> None:
        self._http = http

    def __enter__(self) -> None:
        self._http.claim_sending()

    def __exit__(self, *exc: object) -> None:
        self._http.release_sending()

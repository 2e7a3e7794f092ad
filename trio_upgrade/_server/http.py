# HTTP on one Trio stream, as a server speaks it: requests in, responses out.
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from .._errors import MalformedMessage
from .._http.switching import keeps_alive
from .._http_stream import PIECE, SMALL_BODY, HTTPStream, Watch
from .response_writer import ResponseWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from .._http.headers import Field
    from .._http.messages import RequestHead
    from .._limits import Limits
    from .response import Response


@final
class ServerHTTP(HTTPStream):
    """One connection of a server; not for two tasks at a time.

    Args:
        stream: What it is spoken on.
        limits: The bounds.
        watch: Is told when a head is waited for.

    Attributes:
        slow: It is broken because the peer did not read in time.
    """

    __slots__ = ("_begun", "_seconds", "_writer", "slow")

    def __init__(self, stream: trio.abc.Stream, limits: Limits, watch: Watch) -> None:
        super().__init__(stream, "server", limits, watch=watch)
        self._seconds = limits.send_timeout
        self._writer = ResponseWriter()
        # An exchange whose head was looked for, and is not here yet.
        self._begun = False
        self.slow: bool = False

    async def receive_request(self) -> RequestHead | None:
        """Receive the next request head.

        Returns:
            The head; None if the client ended the connection instead.

        Raises:
            MalformedMessage: It is none, or over a limit; a response can be sent.
            trio.BrokenResourceError: The connection is broken.
        """
        if not self._begun:
            self._start_exchange()
        self._begun = False
        raw = await self.receive_head()
        return None if raw is None else self._parse_request(raw)

    def receive_request_nowait(self) -> RequestHead | None:
        """Take the next request head if it is here, without a checkpoint; None if not.

        From a kernel socket only.

        Raises:
            MalformedMessage: As :meth:`receive_request` does.
            trio.BrokenResourceError: Likewise.
        """
        self._start_exchange()
        self.receive_nowait()
        raw = self.codec.next_head()
        self._begun = raw is None
        return None if raw is None else self._parse_request(raw)

    def _start_exchange(self) -> None:
        self.codec.start_exchange()
        if self._writer.begun:
            self._writer = ResponseWriter()

    def _parse_request(self, raw: bytes) -> RequestHead:
        writer = self._writer
        try:
            head = self.codec.parse_request(raw)
        except MalformedMessage:
            # To HEAD no refusal has content, either.
            writer.method = raw[: raw.find(b" ")].decode("latin-1")
            raise
        writer.method = head.method
        writer.is_http10 = head.http_version != "1.1"
        writer.closes = not keeps_alive(head.http_version, head.headers)
        return head

    async def wait_disconnect(self, read_ahead: int, *, ignore_end: bool) -> None:
        """Wait until the peer resets the connection, or ends its side.

        What comes meanwhile is kept, up to ``read_ahead`` bytes and a receive; with
        more, or behind an end that is ignored, this waits for ever.
        """
        await trio.lowlevel.checkpoint()
        while not (self.ended or self.lost or self.codec.has_ahead(read_ahead)):
            with suppress(trio.BrokenResourceError):
                self.codec.receive_data(await self.receive())
        if not self.lost and (ignore_end or not self.ended):
            await trio.sleep_forever()

    async def send_informational(
        self, status: int, reason: str, fields: Iterable[Field]
    ) -> None:
        """Send a 1xx, the 101 of a legal switch among them.

        Raises:
            trio.BrokenResourceError: The connection is broken. So it is, too, once a
                cancellation has come in the middle.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.codec.continue_sent()
        await self.send_short(self._writer.write_switch(status, reason, fields))

    async def send_tunnel(self, reason: str, fields: Iterable[Field]) -> None:
        """Send the 200 that makes a CONNECT a tunnel.

        Raises:
            trio.BrokenResourceError: As :meth:`send_informational` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.send_short(self._writer.write_switch(200, reason, fields))

    async def send_response(
        self, response: Response, date: Field, *, close: bool
    ) -> None:
        """Send a final response.

        Args:
            response: The response. An iterable body, which its owner closes, is not
                run where method or status allow no content.
            date: Its Date, unless it has one.
            close: Whether to end the connection with it.

        Raises:
            ValueError: A Content-Length among the fields is not the body's. Of a body
                in bytes nothing was sent; otherwise the connection is broken.
            trio.BrokenResourceError: The connection is broken. So it is, too, after a
                cancellation or an error of the iterable in the middle.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        writer, body = self._writer, response.body
        head, has_content = writer.write_head(response, date, close=close)
        self.codec.continue_sent()
        if not has_content:
            await self.send_short(head)
        elif not isinstance(body, bytes):
            await self.send_short(head)
            await self._send_iterable(body)
        elif len(body) <= SMALL_BODY:
            await self.send_short(head + body)
        else:
            await self.send_short(head)
            await self.send(body)
        writer.ended = True

    async def _send_iterable(self, body: AsyncIterable[bytes]) -> None:
        writer = self._writer
        try:
            async for chunk in body:
                await self.send(writer.write_body(chunk))
            await self.send(writer.write_end())
        except BaseException:
            # The response is begun and cannot be ended properly.
            self.broken = True
            raise

    async def _transmit(self, data: bytes) -> None:
        # Each piece has its time. A scope for each answer that has to wait, or is long:
        # the one of the connection may be that of all.
        with trio.CancelScope() as scope:
            for start in range(0, len(data), PIECE):
                if self._seconds is not None:
                    scope.deadline = trio.current_time() + self._seconds
                # As bytes, which costs nothing where there is one piece only.
                await self._stream.send_all(data[start : start + PIECE])
        if scope.cancelled_caught:
            self.slow = True
            raise trio.BrokenResourceError("the peer did not read in time")

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and another one can follow."""
        return (
            not self.broken
            and self._writer.ended
            and not self._writer.closes
            and self.codec.body_ended
        )

    @property
    def closes(self) -> bool:
        """Whether the answer that was begun ends the connection."""
        return self._writer.begun and self._writer.closes

    @property
    def may_answer(self) -> bool:
        """Whether a final response can still be begun."""
        return not (self.broken or self._writer.begun)

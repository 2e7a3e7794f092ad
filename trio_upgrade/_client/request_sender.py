# Sending a client's request, while its response may already come.
from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import trio

from .._errors import TrioUpgradeError

if TYPE_CHECKING:
    from .._http.messages import ResponseHead
    from .http import ClientHTTP
    from .request_head import CheckedRequest

# The last send of a body can return a little after the peer has received it and has
# answered, because Trio's sockets pass a checkpoint after it, and TLS some more.
_LAST_TICKS = 4
# Not passed on: it is for the sender of the body alone.
_CONTINUE = 100


@final
class RequestSender:
    """Sends one request: its head, its body and its trailer fields.

    Args:
        http: The connection.
        head: The bytes of the header section.
        request: The request; a body that is an iterable is closed after it was sent.

    Attributes:
        done: Whether the whole request was sent, or the connection broke.
        foreign: An exception that the caller's code raised and that is to come out as it
            is: one of ours, by the body, or any, by ``on_informational``. None if there
            was none.
    """

    def __init__(self, http: ClientHTTP, head: bytes, request: CheckedRequest) -> None:
        self._http = http
        self._head = head
        self._body = request.body
        self._request = request
        self.done: bool = False
        # Made only for a task that waits: most requests are sent before the answer.
        self._sent: trio.Event | None = None
        self.foreign: BaseException | None = None
        self._go_ahead: trio.Event | None = None
        self._patience = math.inf

    def wait_for_continue(self, seconds: float) -> None:
        """Hold the body back until a 100 has come, for ``seconds`` at most."""
        self._go_ahead = trio.Event()
        self._patience = seconds

    async def run(self) -> None:
        """Send the request.

        A break of the connection is not raised: the server may have answered before it
        had the whole request. If it did not, the task that receives sees the break.
        """
        try:
            await self._send()
        except trio.BrokenResourceError:
            if not self._http.lost:
                # The source of the body broke, not this connection.
                raise
        except TrioUpgradeError as exc:
            # So did another connection of this library, which the body comes from.
            self.foreign = exc
            raise
        finally:
            aclose = getattr(self._body, "aclose", None)
            if aclose is not None:
                await aclose()
        self.done = True
        if self._sent is not None:
            self._sent.set()

    async def _send(self) -> None:
        http, head, body = self._http, self._head, self._body
        if self._go_ahead is not None:
            await http.send_head(head)
            head = b""
            with trio.move_on_after(self._patience):
                await self._go_ahead.wait()
        if not isinstance(body, bytes):
            await http.send_head(head)
            head = b""
            async for chunk in body:
                await http.send_content(b"", chunk)
        elif body:
            await http.send_content(head, body)
            head = b""
        # Only after the body was sent: from here on the codec accepts a 101, and a
        # function knows the trailer fields.
        await http.send_end(head, self._request.get_trailers())

    async def inform(self, head: ResponseHead) -> None:
        """Pass an informational response on to the caller, who may not want it."""
        on_informational = self._request.on_informational
        if on_informational is None or head.status == _CONTINUE:
            return
        try:
            await on_informational(head)
        except BaseException as exc:
            self.foreign = exc
            raise

    async def handle_response_head(self, head: bytes) -> None:
        """Handle a response that came before all was sent; wait where it needs that."""
        status = head[9:12]
        if self._go_ahead is not None and status in (b"100", b"101"):
            self._go_ahead.set()
        if status == b"101":
            # The whole request is sent before anything switches (RFC 9110 §7.8).
            self._sent = trio.Event()
            await self._sent.wait()
        if status.startswith(b"1"):
            return
        for _ in range(_LAST_TICKS):
            if self.done:
                return
            await trio.lowlevel.checkpoint()

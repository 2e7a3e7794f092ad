# One request and its answer: reads the body, and sends a response or switches the
# protocol.  The rules are decided elsewhere (_http.switching), and the connection is
# closed elsewhere (Connection).
#
# While an exchange lasts it owns the HTTP half of the connection.  It gives the HTTP half
# back when it is over, or drops it at a switch.  So a Request that an app keeps can
# neither read the next request nor answer it.
from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import trio

from .._body import NO_BODY
from .._errors import (
    BodyError,
    BodyTimeout,
    BodyTooLarge,
    MalformedMessage,
    NotOffered,
    Unavailable,
    UsageError,
)
from .._http.messages import opens_tunnel
from .._http.switching import must_close
from .._streams.upgraded import UpgradedStream
from .._util import find_leaves
from .disconnect_scope import DisconnectScope
from .receive_turn import ReceiveTurn
from .request import Request
from .response import Response, refuse
from .silence_watch import SilenceWatch
from .streamed_response import StreamedResponse

if TYPE_CHECKING:
    from .._http.headers import Field, HeadersLike
    from .._http.messages import RequestHead
    from .connection_task import ConnectionTask
    from .http import ServerHTTP
    from .server import Server
    from .state import ServerState

_TUNNEL = "CONNECT"
_ALREADY_SWITCHING = "another task is switching this connection"
_ANSWERED = "the request was answered already"


@final
class Exchange:
    """One request and its answer.

    Args:
        http: The HTTP half of the connection.
        transport: The stream that HTTP is spoken on.
        head: The head of the request.
        server: The server that the request came to.
        state: The state that the connections of that server share.
        connection: The connection that the deadlines are armed for.
        last: Whether the connection ends after the answer.

    Attributes:
        request: The request, as the app gets it.
        http: The HTTP half; None once the exchange is over or the connection switched.
        protocol: The protocol that the connection has switched to, ``"CONNECT"`` for a
            tunnel; None while it is HTTP.

    Raises:
        MalformedMessage: The target has no form that the method permits.
    """

    __slots__ = (
        "__weakref__",
        "_body_dropped",
        "_client_errors",
        "_connection",
        "_gone",
        "_last",
        "_progress",
        "_state",
        "_stream",
        "_switching",
        "_transport",
        "_waited",
        "http",
        "protocol",
        "request",
    )

    def __init__(
        self,
        http: ServerHTTP,
        transport: trio.abc.Stream,
        head: RequestHead,
        server: Server,
        state: ServerState,
        connection: ConnectionTask,
        *,
        last: bool,
    ) -> None:
        self.http: ServerHTTP | None = http
        self._transport = transport
        self._state = state
        self._connection = connection
        self._last = last
        self._body_dropped = False
        # Whether the exchange ended because the client was gone.
        self._gone = False
        # Whether a task is switching the protocol.
        self._switching = False
        # Seconds waited and bytes received since the body last made progress.
        self._waited = 0.0
        self._progress = 0
        self._client_errors: list[Exception] = []
        self._stream: UpgradedStream | None = None
        self.protocol: str | None = None
        body = NO_BODY
        if not http.body_ended:
            body = http.make_body(self._receive_body, state.limits.body_bytes)
        try:
            self.request: Request = Request(head, body, self, transport, server)
        except ValueError as exc:
            raise MalformedMessage(f"the request target is malformed: {exc}") from exc

    @property
    def stream(self) -> UpgradedStream | None:
        """The stream after the switch, with TLS started on it; None while it is HTTP."""
        return None if self._stream is None else self._stream.outermost

    @property
    def lost(self) -> bool:
        """Whether the transport was found broken."""
        stream = self.stream
        return self.get_http().lost if stream is None else stream.broken

    @property
    def was_reset(self) -> bool:
        """Whether the app reset the stream after a switch."""
        return self._stream is not None and self._stream.was_reset

    @property
    def is_client_gone(self) -> bool:
        """Whether the client is known to be gone: a reset, or its end of stream.

        After an offer or CONNECT an end may be a half-close, so it does not count,
        unless a part of the body is missing.
        """
        http = self.get_http()
        if not http.ended:
            return http.lost
        request = self.request
        may_go_on = request.upgrades or request.method == _TUNNEL
        return http.lost or not may_go_on or http.lacks_content

    def get_http(self) -> ServerHTTP:
        """Return the HTTP half.

        Raises:
            UsageError: The exchange is over, or the connection has switched.
        """
        if self.http is None:
            raise UsageError(
                _ANSWERED
                if self._stream is None
                else "the connection has switched protocols already"
            )
        return self.http

    def finish(self) -> ServerHTTP | None:
        """End the exchange and return the HTTP half; None if the connection switched."""
        http = self.http
        if http is not None:
            if http.lost or http.ended:
                self._gone = not http.is_answered and self.is_client_gone
            self.http = None
            if http.turn is not None:
                http.turn.interrupt()
        # Both refer back to this object, the errors by their tracebacks, the request by
        # its body. Such cycles would live until the garbage collector runs.
        self._client_errors.clear()
        del self.request
        return http

    ################################################################
    # The body
    ################################################################

    async def _receive_body(self) -> bytes:
        http = self._get_unanswered()
        if self._switching:
            raise UsageError(_ALREADY_SWITCHING)
        if self._body_dropped:
            raise UsageError("a part of the body was dropped for a switch")
        if http.client_waits:
            await http.send_interim(100, "Continue", ())
        return await self._receive_in_time(http, shared=True)

    def _get_unanswered(self) -> ServerHTTP:
        http = self.get_http()
        if http.is_answered:
            raise UsageError(_ANSWERED)
        return http

    async def _receive_in_time(self, http: ServerHTTP, *, shared: bool) -> bytes:
        # `shared` means that other tasks may want to receive, so that this one has to
        # claim the turn.
        try:
            chunk = await http.receive_buffered_body()
            if chunk is None and shared:
                chunk = await self._claim_and_wait(http)
            elif chunk is None:
                turn = self._get_turn(http) if self._switching else None
                chunk = await self._wait_for_body(http, turn)
        except BodyError as exc:
            self.note_client_error(exc)
            raise
        if http.turn is not None:
            # Tasks that have read ahead as far as they may can go on.
            http.turn.wake()
        # Only data is progress: the framing of small chunks is the client's choice.
        self._progress += len(chunk)
        if self._progress >= self._state.limits.body_progress:
            self._waited, self._progress = 0.0, 0
        return chunk

    async def _claim_and_wait(self, http: ServerHTTP) -> bytes:
        turn = self._get_turn(http)
        turn.claim()
        try:
            await turn.wait_idle()
            self._get_unanswered()
            return await self._wait_for_body(http, turn)
        finally:
            turn.release()

    async def _wait_for_body(self, http: ServerHTTP, turn: ReceiveTurn | None) -> bytes:
        # The limit is on progress, not on the time to the next byte: a slow upload may
        # go on, but a byte now and then is not enough. Only time spent waiting here
        # counts.
        timeout = self._state.limits.body_timeout
        left = math.inf if timeout is None else max(0.0, timeout - self._waited)
        began = trio.current_time()
        scope = trio.CancelScope(deadline=began + left)
        with scope if turn is None else turn.take(scope):
            chunk = await http.receive_body()
            self._waited += trio.current_time() - began
            return chunk
        if turn is not None:
            # If the app has answered meanwhile, that is why the turn has ended.
            self._get_unanswered()
        raise BodyTimeout

    async def _drop_body(self, http: ServerHTTP) -> None:
        # The framing counts, too: with chunks of one byte it is five times the data.
        drained = -http.framing_bytes
        while not http.body_ended:
            chunk = await self._receive_in_time(http, shared=False)
            self._body_dropped = self._body_dropped or bool(chunk)
            drained += len(chunk)
            self._check_dropped(drained + http.framing_bytes)

    def _check_dropped(self, size: int) -> None:
        limit = self._state.limits.drain_body
        if size > limit:
            raise self.note_client_error(BodyTooLarge(limit))

    ################################################################
    # The client's end
    ################################################################

    async def wait_disconnect(self) -> bool:
        """Wait for the client's end; see :meth:`Request.wait_disconnect`."""
        await trio.lowlevel.checkpoint()
        # None once the exchange is over or the connection has switched.
        while (http := self.http) is not None and not http.is_answered:
            if self.is_client_gone:
                return True
            if http.response_begun and http.broken:
                # The answer was cut.
                return False
            turn = self._get_turn(http)
            await http.watch(turn, self._state.limits.read_ahead)
        return self._gone

    def cancelled_on_disconnect(self) -> DisconnectScope:
        """See :meth:`Request.cancelled_on_disconnect`."""
        return DisconnectScope(self.wait_disconnect, self._state.deadlines)

    def _get_turn(self, http: ServerHTTP) -> ReceiveTurn:
        turn = http.turn
        if turn is None:
            turn = http.turn = ReceiveTurn()
            if self._switching:
                # The switch began without a turn; it releases this one at its end.
                turn.claim()
        return turn

    ################################################################
    # The switch
    ################################################################

    async def accept_upgrade(
        self, protocol: str, fields: tuple[Field, ...], reason: str
    ) -> UpgradedStream:
        """Switch; see :meth:`Request.accept_upgrade`."""
        http = self._get_answerable()
        if protocol not in self.request.upgrades:
            raise self.note_client_error(NotOffered(protocol))
        self._begin_switch(http)
        try:
            if http.turn is not None:
                await self._take_turn(http)
            if not http.is_request_whole:
                await self._complete_request(http)
            if self._state.limits.response_timeout is not None:
                self._state.deadlines.response.disarm(self._connection)
            await http.send_interim(101, reason, fields)
            return self._switch_to(protocol, http)
        except BaseException as exc:
            self._undo_switch(http, exc)
            raise
        finally:
            self._end_switch(http)

    async def accept_connect(self, fields: tuple[Field, ...]) -> UpgradedStream:
        """Open the tunnel; see :meth:`Request.accept_connect`."""
        http = self._get_answerable()
        if self.request.method != _TUNNEL:
            raise UsageError(f"no tunnel was asked for by {self.request!r}")
        self._begin_switch(http)
        try:
            if http.turn is not None:
                await self._take_turn(http)
            self._state.deadlines.response.disarm(self._connection)
            await http.send_interim(200, "OK", (self._state.dates.field(), *fields))
            return self._switch_to(_TUNNEL, http)
        except BaseException as exc:
            self._undo_switch(http, exc)
            raise
        finally:
            self._end_switch(http)

    def _get_answerable(self) -> ServerHTTP:
        http = self.get_http()
        if not http.may_answer:
            raise UsageError(_ANSWERED)
        return http

    def _begin_switch(self, http: ServerHTTP) -> None:
        # One switch at a time. The place among Limits.upgraded and the turn are taken
        # before the first await, and until the end no other task may read.
        if self._switching:
            raise UsageError(_ALREADY_SWITCHING)
        if http.turn is not None:
            http.turn.claim()
        self._switching = True
        try:
            self._state.reserve_upgrade()
        except Unavailable as exc:
            self._end_switch(http)
            self.note_client_error(exc)
            raise

    def _end_switch(self, http: ServerHTTP) -> None:
        self._switching = False
        if http.turn is not None:
            http.turn.release()

    async def _take_turn(self, http: ServerHTTP) -> None:
        # A task that waits for the client's end would receive bytes of the other
        # protocol.
        assert http.turn is not None
        await http.turn.wait_idle()
        self._check_still_open(http)

    async def _complete_request(self, http: ServerHTTP) -> None:
        # Sends the 100 that is due before the 101 (RFC 9110 §7.8), and reads the rest of
        # the body.
        if http.body_left:
            # Refuse a body that is too large before a 100 invites it.
            self._check_dropped(http.body_left)
        if http.continue_owed:
            # Also for a request without content: if it has an Upgrade field the 100 is
            # a MUST.
            await http.send_interim(100, "Continue", ())
        await self._drop_body(http)
        self._check_still_open(http)

    def _check_still_open(self, http: ServerHTTP) -> None:
        # Meanwhile the app may have answered in another task, or a drain have begun.
        if http.response_begun:
            raise UsageError(_ANSWERED)
        self._state.check_draining()

    def _undo_switch(self, http: ServerHTTP, exc: BaseException) -> None:
        # The app may still give another answer, within the time for that.
        if isinstance(exc, Unavailable):
            self.note_client_error(exc)
        self._state.release_upgrade()
        deadline = self._state.deadlines.response
        # Unless it was stopped for the 101 it has been running all the time.
        if not (http.broken or deadline.is_armed(self._connection)):
            deadline.arm(self._connection)

    def _switch_to(self, protocol: str, http: ServerHTTP) -> UpgradedStream:
        rest, ended = http.detach()
        state = self._state
        stream = self._stream = UpgradedStream(self._transport, rest, ended=ended)
        self.protocol = protocol
        # Drop everything that belongs to HTTP: the request may now be held for days.
        self.http = None
        self.request._release_http()  # pyright: ignore[reportPrivateUsage]
        state.total_upgraded += 1
        records = self._connection.records
        if records is not None:
            records.report_switch(self.request, protocol)
        return stream

    ################################################################
    # The response
    ################################################################

    async def answer(self, response: Response, *, close: bool = False) -> bool:
        """Send a final response and leave the connection ready for the next request.

        Args:
            response: The response.
            close: Whether the connection ends with it in any case.

        Returns:
            Whether there can be a next request.

        Raises:
            BodyError: The rest of the request's body cannot be skipped; the response
                was sent.
        """
        http, state = self.get_http(), self._state
        close = self.start_answer(http, close=close)
        if isinstance(response.body, bytes):
            await http.send_response(response, state.dates.field(), close=close)
        else:
            watch = self.watch_silence(http)
            try:
                await http.send_response(response, state.dates.field(), close=close)
            finally:
                watch.stop()
        if not http.closes and http.turn is None and http.body_ended:
            return http.is_reusable
        return await self.complete(http)

    def start_answer(self, http: ServerHTTP, *, close: bool = False) -> bool:
        """Stop the deadline of the answer, which is about to be sent.

        Returns:
            Whether the connection ends with it.
        """
        state = self._state
        state.deadlines.response.disarm(self._connection)
        close = (
            close
            or self._last
            or state.draining.is_set()
            or must_close(
                self.request.method,
                client_waits=http.client_waits,
                unread=http.body_left,
                drain_body=state.limits.drain_body,
            )
        )
        if state.close_on_optimistic_data and self.request.upgrades:
            # The client may have assumed the switch: the bytes that follow may be of
            # any protocol.
            close = close or http.has_next
        return close

    async def complete(self, http: ServerHTTP) -> bool:
        """Do what is left to do after a final response that was sent to its end.

        Returns:
            Whether there can be a next request.

        Raises:
            BodyError: The rest of the request's body cannot be skipped.
        """
        if http.closes:
            # No other request is served, so there is no need to find its beginning.
            return False
        if http.turn is not None:
            # Tasks that outlive the request must not receive the next one.
            await http.turn.wait_free()
        await self._drop_body(http)
        return http.is_reusable

    async def send_informational(
        self, status: int, reason: str, fields: tuple[Field, ...]
    ) -> None:
        """Send a 1xx; see :meth:`Request.send_informational`."""
        await trio.lowlevel.checkpoint()
        http = self.get_sendable()
        if http.is_http10:
            # RFC 9110 §15.2: HTTP/1.0 does not define any 1xx.
            return
        with http.sending():
            await http.send_informational(status, reason, fields)

    def respond(
        self,
        status: int,
        headers: HeadersLike,
        reason: str | None,
        first: bytes,
        *,
        cancel_on_disconnect: bool,
    ) -> StreamedResponse:
        """Return a response that is not begun yet; see :meth:`Request.respond`."""
        self.get_http()
        # Checks the arguments.
        checked = Response(status, headers=headers, reason=reason)
        if self.request.method == _TUNNEL and opens_tunnel(status):
            raise UsageError(f"{checked!r} to CONNECT would promise a tunnel")
        return StreamedResponse(
            self,
            self._state.dates,
            checked.status,
            checked.reason,
            checked.headers,
            first,
            cancel_on_disconnect=cancel_on_disconnect,
        )

    async def complete_streamed(self) -> bool:
        """Do what is left to do after a streamed response, once the app has returned.

        Returns:
            Whether there can be a next request.

        Raises:
            UsageError: The response was not ended; it is cut now.
            BodyError: As from :meth:`complete`.
        """
        http = self.get_http()
        if http.broken:
            return False
        if http.is_answered:
            return await self.complete(http)
        error = UsageError("the app returned before it left its respond() block")
        http.end_streamed(error)
        raise error

    def watch_silence(self, http: ServerHTTP) -> SilenceWatch:
        """Watch the client while the app sends content, from a moment later on."""
        return SilenceWatch(
            http, self._get_turn, self._state.deadlines, self._state.limits
        )

    def get_sendable(self) -> ServerHTTP:
        """Return the HTTP half, to send something before or as the answer.

        Raises:
            UsageError: The request was answered, or a task is switching.
            trio.BrokenResourceError: The connection is broken.
        """
        http = self.get_http()
        if http.response_begun:
            raise UsageError(_ANSWERED)
        if self._switching:
            raise UsageError(_ALREADY_SWITCHING)
        if http.broken:
            raise trio.BrokenResourceError("the connection is broken")
        return http

    ################################################################
    # Errors of the client
    ################################################################

    def note_client_error(self, error: Exception) -> Exception:
        """Record that an error is the client's if the app raises it; return the error."""
        self._client_errors.append(error)
        return error

    def find_refusal(self, errors: Exception) -> Response | None:
        """Return the answer to errors of the client; None if they are bugs of the app.

        Errors of the same classes that come from an HTTP client in the app are the app's.
        """
        leaves = find_leaves(errors)
        noted = {id(error) for error in self._client_errors}
        if not all(id(leaf) in noted for leaf in leaves):
            return None
        return refuse(leaves[0])

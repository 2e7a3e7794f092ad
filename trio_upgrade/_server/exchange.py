# One request on its way through the app: read, decided, answered or switched.  It
# decides nothing about the rules (_handshake does) and closes nothing (_session does).
# When it is over it lets go of the connection, so that a Request which somebody kept
# can neither read nor answer the next one.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .._body import NO_BODY, Body
from .._errors import (
    BodyError,
    BodyTimeout,
    BodyTooLarge,
    MalformedMessage,
    NotOffered,
    Unavailable,
    UsageError,
)
from .._http.switching import must_close
from .._streams.upgraded import UpgradedStream
from .._util import find_leaves
from .records import RequestRecord, SwitchRecord
from .request import Request, let_go
from .response import refuse

if TYPE_CHECKING:
    from .._http.headers import Field
    from .._http.messages import RequestHead
    from .deadlines import Expirable
    from .http import ServerHTTP
    from .response import Response
    from .server import Server
    from .state import ServerState

_TUNNEL = "CONNECT"


@final
class ServerExchange:
    """A request and what became of it.

    Args:
        http: The connection, until the exchange is over.
        transport: What it runs on.
        head: Of the request.
        server: What the request is told of its server.
        state: What the server's connections share.
        session: What the deadlines are armed for.
        last: Whether the answer ends the connection.

    Attributes:
        request: What the app gets.
        protocol: What it has switched to, ``"CONNECT"`` for a tunnel.

    Raises:
        MalformedMessage: The target has no form that the method permits.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_clients_faults",
        "_dropped",
        "_http",
        "_last",
        "_on_its_way",
        "_progress",
        "_session",
        "_state",
        "_stream",
        "_transport",
        "_waited",
        "_watching",
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
        session: Expirable,
        *,
        last: bool,
    ) -> None:
        self._http: ServerHTTP | None = http
        self._transport = transport
        self._state = state
        self._session = session
        self._last = last
        self._dropped = False
        self._watching = False
        self._on_its_way = False
        # Of the body: seconds waited for, and bytes come, since it last made progress.
        self._waited = 0.0
        self._progress = 0
        self._began = trio.current_time() if state.wants_times else 0.0
        self._clients_faults: list[Exception] = []
        self._stream: UpgradedStream | None = None
        self.protocol: str | None = None
        limit = state.limits.body_bytes
        codec = http.codec
        body = NO_BODY
        if not codec.body_ended:
            length = codec.body_left
            body = Body(self._receive_body, length, limit, lambda: codec.trailers)
        try:
            self.request = Request(head, body, self, transport, server)
        except ValueError as exc:
            raise MalformedMessage(f"the request target is malformed: {exc}") from exc

    @property
    def stream(self) -> UpgradedStream | None:
        """What the connection has become, its TLS included; None while it is HTTP."""
        return None if self._stream is None else self._stream.outermost

    @property
    def http(self) -> ServerHTTP:
        """The HTTP side.

        Raises:
            UsageError: The exchange is over, or it has none any more.
        """
        if self._http is None:
            raise UsageError(
                "the request was answered already"
                if self.stream is None
                else "the connection has switched protocols already"
            )
        return self._http

    def finish(self) -> None:
        """End the exchange: what is kept of it has no hold on the connection."""
        self._http = None
        # What leads back to here would keep both until the collector comes: the faults
        # by their tracebacks, the request by its body.
        self._clients_faults.clear()
        del self.request

    ################################################################
    # The body
    ################################################################

    async def _receive_body(self) -> bytes:
        http = self.http
        self._check_not_switching()
        if self._dropped:
            raise UsageError("a part of the body was dropped for a switch")
        if http.codec.client_waits:
            await http.send_informational(100, "Continue", ())
        return await self._receive_in_time(http)

    async def _receive_in_time(self, http: ServerHTTP) -> bytes:
        # A floor on progress, not a deadline for the next byte: a slow upload lives, and
        # one byte now and then does not.  Only the time that is waited here counts.
        limits = self._state.limits
        chunk: bytes | None = None
        try:
            if limits.body_timeout is None:
                return await http.receive_body()
            chunk = await http.receive_buffered_body()
            if chunk is None:
                began = trio.current_time()
                with trio.move_on_after(max(0.0, limits.body_timeout - self._waited)):
                    chunk = await http.receive_body()
                if chunk is None:
                    raise BodyTimeout
                self._waited += trio.current_time() - began
        except BodyError as exc:
            self.blame_client(exc)
            raise
        # One packet may bring many small chunks, and each counts.
        self._progress += len(chunk)
        if self._progress >= limits.body_progress:
            self._waited, self._progress = 0.0, 0
        return chunk

    async def _drain_body(self, http: ServerHTTP) -> None:
        drained = 0
        while not http.codec.body_ended:
            chunk = await self._receive_in_time(http)
            self._dropped = self._dropped or bool(chunk)
            drained += len(chunk)
            self._check_drain(drained)

    def _check_drain(self, size: int) -> None:
        limit = self._state.limits.drain_body
        if size > limit:
            raise self._clients_fault(BodyTooLarge(limit))

    async def wait_disconnect(self) -> None:
        """Watch for the client's end; see :meth:`Request.wait_disconnect`."""
        http = self.http
        request = self.request
        if self._watching:
            raise UsageError("another task is waiting for the end of this connection")
        self._check_not_switching()
        self._watching = True
        try:
            await http.wait_disconnect(
                self._state.limits.read_ahead,
                ignore_end=bool(request.upgrades) or request.method == "CONNECT",
            )
        finally:
            self._watching = False

    ################################################################
    # The answer
    ################################################################

    async def accept_upgrade(
        self, protocol: str, fields: tuple[Field, ...], reason: str
    ) -> UpgradedStream:
        """Switch; see :meth:`Request.accept_upgrade`."""
        http = self._get_answerable()
        if protocol not in self.request.upgrades:
            raise self._clients_fault(NotOffered(protocol))
        self._begin_switch()
        try:
            codec = http.codec
            if codec.body_left:
                # Refused before a 100 invites it.
                self._check_drain(codec.body_left)
            if codec.continue_owed or not codec.body_ended:
                if codec.continue_owed:
                    # Also for a request without content: with an Upgrade field beside it
                    # the 100 is a MUST (RFC 9110 §7.8).
                    await http.send_informational(100, "Continue", ())
                await self._drain_body(http)
                # All that may have taken its time.
                self._state.check_draining()
            self._state.deadlines.response.disarm(self._session)
            await http.send_informational(101, reason, fields)
            return self._hand_over(http, protocol)
        except BaseException as exc:
            self._undo_switch(http, exc)
            raise
        finally:
            self._on_its_way = False

    async def accept_connect(self, fields: tuple[Field, ...]) -> UpgradedStream:
        """Make it a tunnel; see :meth:`Request.accept_connect`."""
        http = self._get_answerable()
        if self.request.method != _TUNNEL:
            raise UsageError(f"no tunnel was asked for by {self.request!r}")
        self._begin_switch()
        try:
            self._state.deadlines.response.disarm(self._session)
            await http.send_tunnel("OK", (self._state.dates.field(), *fields))
            return self._hand_over(http, _TUNNEL)
        except BaseException as exc:
            self._undo_switch(http, exc)
            raise
        finally:
            self._on_its_way = False

    def _get_answerable(self) -> ServerHTTP:
        http = self.http
        if not http.may_answer:
            raise UsageError("the request was answered already")
        if self._watching:
            # It would take bytes that belong to the other protocol.
            raise UsageError("a task still waits for the end of this connection")
        return http

    def _begin_switch(self) -> None:
        # One switch on its way: its place is taken before anything is awaited, and
        # nobody else reads meanwhile.
        self._check_not_switching()
        try:
            self._state.reserve_upgrade()
        except Unavailable as exc:
            self._clients_faults.append(exc)
            raise
        self._on_its_way = True

    def _undo_switch(self, http: ServerHTTP, exc: BaseException) -> None:
        # The app has to decide again.
        if isinstance(exc, Unavailable):
            self._clients_faults.append(exc)
        self._state.release_upgrade()
        if not http.broken:
            self._state.deadlines.response.arm(self._session)

    def _check_not_switching(self) -> None:
        if self._on_its_way:
            raise UsageError("another task is switching this connection")

    def _hand_over(self, http: ServerHTTP, protocol: str) -> UpgradedStream:
        rest, ended = http.hand_over()
        state = self._state
        stream = self._stream = UpgradedStream(self._transport, rest, ended=ended)
        self.protocol = protocol
        self._http = None
        # It may be held for days now.
        let_go(self.request)
        state.count_switch()
        if state.on_switch is not None:
            seconds = trio.current_time() - self._began
            state.notify(state.on_switch, SwitchRecord(self.request, protocol, seconds))
        return stream

    async def answer(self, response: Response, *, close: bool = False) -> bool:
        """Send a final response and leave the connection ready for the next request.

        Args:
            response: The answer.
            close: Whether the connection ends with it, whatever else speaks for it.

        Returns:
            Whether there can be a next request.

        Raises:
            BodyError: What the client sends of its body cannot be skipped; the response
                was sent.
        """
        http, state = self.http, self._state
        state.deadlines.response.disarm(self._session)
        close = (
            close
            or self._last
            or state.draining.is_set()
            or must_close(
                self.request.method,
                client_waits=http.codec.client_waits,
                unread=http.codec.body_left,
                drain_body=state.limits.drain_body,
            )
        )
        if state.close_on_optimistic_data and self.request.upgrades:
            # Somebody took the switch for granted: what follows may be anything.
            close = close or http.codec.has_next
        await http.send_response(response, state.dates.field(), close=close)
        if state.on_request is not None:
            seconds = trio.current_time() - self._began
            state.notify(
                state.on_request, RequestRecord(self.request, response.status, seconds)
            )
        if http.closes:
            # Nothing that follows would be processed: no need to find its beginning.
            return False
        await self._drain_body(http)
        return http.reusable

    ################################################################
    # Whose fault it is
    ################################################################

    def blame_client(self, error: BodyError) -> None:
        """Take in that this error, should the app let it out, is the client's fault."""
        self._clients_faults.append(error)

    def _clients_fault(self, error: Exception) -> Exception:
        self._clients_faults.append(error)
        return error

    @property
    def lost(self) -> bool:
        """Whether the transport was found broken."""
        stream = self.stream
        return self.http.lost if stream is None else stream.broken

    def find_refusal(self, errors: Exception) -> Response | None:
        """Return the answer to errors that are the client's fault, None for a bug.

        The same kinds of error from an app's own client are the app's to handle.
        """
        leaves = find_leaves(errors)
        faults = {id(fault) for fault in self._clients_faults}
        if not all(id(leaf) in faults for leaf in leaves):
            return None
        return refuse(leaves[0])


def is_loss(errors: Exception) -> bool:
    """Tell whether this is only what a lost connection looks like to who uses it."""
    gone = trio.BrokenResourceError | trio.ClosedResourceError
    return all(isinstance(leaf, gone) for leaf in find_leaves(errors))

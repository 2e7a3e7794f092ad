# One connection's task: request after request, the guard round the app, and the end.
# The task owns the connection; it is closed in one place, _run().
from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from ._answers import TEXT, refuse
from ._bottom import abort_on_close, find_peer
from ._closing import close_in_stages, close_now, closes_at_once
from ._errors import BadBody, BodyError, BodyTimeout, MalformedMessage, UsageError
from ._exchange import ServerExchange
from ._groups import find_leaves, split_errors
from ._messages import Response, Tunnel, Upgrade, opens_tunnel
from ._server_connection import ServerConnection
from ._stream import UpgradedStream
from ._watching import EndReason, EndRecord, ErrorRecord

if TYPE_CHECKING:
    from ._hub import Hub
    from ._request import Answer, App
    from ._server import Server
    from ._watching import Peer

_LOGGER = logging.getLogger("trio_upgrade.server")
# What is still owed to a peer whose time is up, while HTTP is spoken.
_LATE = {
    EndReason.SLOW_HEAD: (408, "the request came too slowly\n"),
    EndReason.SLOW_DECISION: (503, "the answer took too long\n"),
}


@final
class Session:
    """One connection of a server, from accept to close.

    Args:
        app: What answers.
        transport: The connection; it is owned from now on.
        server: Whose connection it is.
        hub: What that shares with its other connections.

    Attributes:
        idle: Whether no request is under way.
        task: The task that serves it, once it runs.
        depth: How many nurseries that had open by then.
    """

    __slots__ = (
        "_abort",
        "_app",
        "_began",
        "_cause",
        "_http",
        "_hub",
        "_protocol",
        "_reason",
        "_requests",
        "_scope",
        "_server",
        "_stream",
        "_transport",
        "depth",
        "idle",
        "task",
    )

    def __init__(
        self, app: App, transport: trio.abc.Stream, server: Server, hub: Hub
    ) -> None:
        self._app = app
        self._transport = transport
        self._server = server
        self._hub = hub
        self._http = ServerConnection(transport, hub.limits, self)
        # What is to be closed: the transport, or what the last request made of it.
        self._stream = transport
        # What ends whatever this does now, when a deadline has passed.
        self._scope = trio.CancelScope()
        self._cause = EndReason.CANCELLED
        # Whether to end by a reset, so that the peer cannot take the cut for an end.
        self._abort = False
        self._requests = 0
        self._protocol: str | None = None
        self._reason = EndReason.CANCELLED
        # Only an observer wants to know.
        self._began = 0.0 if hub.on_end is None else trio.current_time()
        self.idle: bool = True
        self.task: trio.lowlevel.Task | None = None
        self.depth: int = 0
        self._hub.admit(self)

    async def serve(self) -> None:
        """Serve the connection to its end, and close it on every path.

        Whatever goes wrong in it costs this connection alone, and unless it is the
        peer's doing it is logged; only where the server is strict errors come out.
        """
        hub, self.task = self._hub, trio.lowlevel.current_task()
        self.depth = len(self.task.child_nurseries)
        # Later it may be gone.
        watched = hub.on_end is not None or hub.on_error is not None
        peer = find_peer(self._transport) if watched else None
        try:
            await self._run()
        except BaseException as exc:
            errors, rest = split_errors(exc)
            if hub.strict or errors is None:
                raise
            # A transport that fails to close, or a bug: not the listener's problem.
            _LOGGER.error("error while serving a connection", exc_info=errors)
            if hub.on_error is not None:
                hub.tell(hub.on_error, ErrorRecord(peer, None, errors))
            if rest is not None:
                raise rest from None
        finally:
            hub.dismiss(self, upgraded=self._protocol is not None)
            if hub.on_end is not None:
                self._tell_end(peer)

    async def _run(self) -> None:
        deadlines = self._hub.deadlines
        try:
            with self._scope:
                deadlines.head.arm(self)
                while await self._serve_request():
                    pass
            # Only the end is left, and that has a bound of its own.
            deadlines.disarm(self)
            if self._scope.cancelled_caught:
                await self._apologize(self._cause)
            if not (self._abort or self._http.broken or self._hub.is_over):
                if closes_at_once(self._stream):
                    await self._stream.aclose()
                else:
                    with trio.CancelScope() as self._scope:
                        await close_in_stages(self._stream, self._hub.limits.linger)
                return
        except BaseException:
            deadlines.disarm(self)
            await self._close_abruptly()
            raise
        await self._close_abruptly()

    async def _close_abruptly(self) -> None:
        if self._abort or self._http.broken:
            abort_on_close(self._stream)
        await close_now(self._stream)

    ################################################################
    # Deadlines
    ################################################################

    def expire(self, reason: EndReason) -> None:
        """End what this does now: its time is up."""
        self._cause = reason
        self._scope.cancel(reason=reason.value)

    def head_began(self) -> None:
        """Take in that some of a head has come, but not all."""
        self.idle = False
        if self._requests:
            self._hub.deadlines.idle.disarm(self)
            self._hub.deadlines.head.arm(self)

    def sending_began(self) -> None:
        """Take in that something is being sent that the peer has to read."""
        self._hub.deadlines.sending.arm(self)

    def sending_ended(self) -> None:
        """Take in that it was."""
        self._hub.deadlines.sending.disarm(self)

    ################################################################
    # Requests
    ################################################################

    async def _serve_request(self) -> bool:
        # Whether there can be another one.
        exchange = await self._receive_request()
        if exchange is None:
            return False
        try:
            return await self._run_app(exchange)
        except BaseException as exc:
            return await self._handle(exchange, exc)
        finally:
            self._take_in(exchange)
            exchange.finish()

    async def _handle(self, exchange: ServerExchange, exc: BaseException) -> bool:
        errors, rest = split_errors(exc)
        try:
            if errors is None:
                raise exc
            if rest is None:
                return await self._recover(exchange, errors)
            lost = exchange.is_lost(errors)
            if self._hub.strict and not lost:
                raise exc
            self._abort = self._take_in(exchange)
            if not lost:
                self._report(exchange, errors)
            raise rest from None
        finally:
            # What an exception has passed must not keep it: a cycle, body and all.
            del exc, errors, rest

    def _take_in(self, exchange: ServerExchange) -> bool:
        # What became of the connection; whether it has switched.
        if exchange.stream is not None:
            self._stream = exchange.stream
            self._protocol = exchange.protocol
        return exchange.stream is not None

    async def _receive_request(self) -> ServerExchange | None:
        http, deadlines = self._http, self._hub.deadlines
        self._reason = EndReason.CANCELLED
        if not http.codec.has_begun_head:
            self.idle = True
            if self._hub.draining.is_set():
                self._reason = EndReason.DRAINED
                return None
            if self._requests:
                deadlines.idle.arm(self)
        try:
            head = await http.receive_request()
            if head is None:
                self._reason = EndReason.PEER
                return None
            # Nobody works for a request that has just come too late.
            await trio.lowlevel.checkpoint_if_cancelled()
            deadlines.idle.disarm(self)
            deadlines.head.disarm(self)
            self.idle = False
            self._requests += 1
            self._hub.total_requests += 1
            exchange = ServerExchange(
                http,
                self._transport,
                head,
                self._server,
                self._hub,
                self,
                last=self._is_last(),
            )
        except trio.BrokenResourceError:
            self._reason = EndReason.LOST
            return None
        except MalformedMessage as exc:
            deadlines.head.disarm(self)
            self._reason = EndReason.MALFORMED
            _LOGGER.debug("refused %s: %s", find_peer(self._transport), exc)
            await self._refuse(refuse(exc))
            return None
        deadlines.decision.arm(self)
        return exchange

    def _is_last(self) -> bool:
        most = self._hub.limits.requests_per_connection
        return most is not None and self._requests >= most

    async def _refuse(self, refusal: Response) -> None:
        # Answers what never became a request, or is none any more.
        with suppress(trio.BrokenResourceError):
            await self._http.send_response(refusal, self._hub.dates.field(), close=True)

    async def _apologize(self, reason: EndReason) -> None:
        # After a deadline: what the peer is still owed.
        http, self._reason = self._http, reason
        _LOGGER.debug("ended %s: %s", find_peer(self._transport), reason.value)
        if reason is EndReason.SLOW_READER:
            self._abort = True
        if reason is EndReason.SLOW_HEAD and not http.codec.has_read_ahead:
            return
        if reason in _LATE and http.may_answer:
            status, text = _LATE[reason]
            with trio.CancelScope() as self._scope:
                await self._refuse(Response(status, text, TEXT))

    async def _run_app(self, exchange: ServerExchange) -> bool:
        request = exchange.request
        answer: Answer = await self._app(request)
        if isinstance(answer, Upgrade | Tunnel):
            return await self._switch(exchange, answer)
        if not isinstance(answer, Response):
            if exchange.stream is None or answer is not None:
                raise UsageError(f"the app returned {answer!r} to {request!r}")
            self._reason = EndReason.RETURNED
            return False
        try:
            if exchange.stream is not None:
                raise UsageError(f"{answer!r} returned after the switch")
            if self._is_broken(exchange, answer):
                return False
            if request.method == "CONNECT" and opens_tunnel(answer.status):
                raise UsageError(f"{answer!r} to CONNECT would promise a tunnel")
            return await self._answer(exchange, answer)
        finally:
            await answer.aclose()

    async def _answer(
        self, exchange: ServerExchange, answer: Response, *, close: bool = False
    ) -> bool:
        # Whether there can be another request.
        self._reason = EndReason.CANCELLED
        more = await exchange.answer(answer, close=close)
        self._reason = EndReason.ANSWERED
        return more

    async def _switch(self, exchange: ServerExchange, answer: Upgrade | Tunnel) -> bool:
        request = exchange.request
        if exchange.stream is not None:
            raise UsageError(f"{answer!r} returned after the switch")
        if self._is_broken(exchange, answer):
            return False
        if isinstance(answer, Tunnel):
            stream = await exchange.accept_connect(answer.fields)
        elif request.method == "CONNECT":
            raise UsageError(f"{answer!r} is no answer to CONNECT")
        else:
            stream = await exchange.accept_upgrade(
                answer.protocol, answer.fields, answer.reason
            )
        await answer.handler(request, stream, stream.head)
        self._reason = EndReason.RETURNED
        return False

    def _is_broken(self, exchange: ServerExchange, answer: Answer) -> bool:
        # A 101 or a 100 was begun and failed, and the app went on all the same.
        if exchange.http.broken:
            self._reason = EndReason.LOST
            request = exchange.request
            _LOGGER.info("%r dropped, the connection is broken: %r", answer, request)
        return exchange.http.broken

    ################################################################
    # Errors
    ################################################################

    async def _recover(self, exchange: ServerExchange, errors: Exception) -> bool:
        # After an error: say what can still be said.  Returns what _serve_request does.
        self._abort = exchange.stream is not None
        self._reason = EndReason.ANSWERED
        if exchange.is_lost(errors):
            self._reason = EndReason.LOST
            return False
        refusal = exchange.find_refusal(errors)
        if refusal is None or exchange.stream is not None:
            self._report(exchange, errors)
            refusal = Response(500, "Internal Server Error\n")
        elif exchange.http.ended or exchange.http.lost:
            self._reason = EndReason.LOST
        if exchange.stream is not None or not exchange.http.may_answer:
            return False
        # Behind a body that is broken or too slow nobody finds, or wants, a request.
        bad = BadBody | BodyTimeout
        close = any(isinstance(leaf, bad) for leaf in find_leaves(errors))
        try:
            return await self._answer(exchange, refusal, close=close)
        except (trio.BrokenResourceError, BodyError):
            gone = exchange.http.ended or exchange.http.lost
            self._reason = EndReason.LOST if gone else EndReason.ANSWERED
            return False

    def _report(self, exchange: ServerExchange, errors: Exception) -> None:
        hub = self._hub
        self._reason = EndReason.ERROR
        hub.total_errors += 1
        if hub.on_error is not None:
            hub.tell(hub.on_error, ErrorRecord(exchange.peer, exchange.request, errors))
        if hub.strict:
            self._abort = True
            raise errors
        _LOGGER.error(
            "error in the app, serving %r to %s",
            exchange.request,
            exchange.peer,
            exc_info=errors,
        )

    def _tell_end(self, peer: Peer) -> None:
        hub, stream = self._hub, self._stream
        assert hub.on_end is not None
        switched = stream if isinstance(stream, UpgradedStream) else None
        record = EndRecord(
            peer=peer,
            reason=self._reason,
            protocol=self._protocol,
            requests=self._requests,
            received=0 if switched is None else switched.received,
            sent=0 if switched is None else switched.sent,
            seconds=trio.current_time() - self._began,
        )
        hub.tell(hub.on_end, record)

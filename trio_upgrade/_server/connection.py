# One connection of a server, from accept to close.  Its methods stand in the order of its
# life:
#
#                  +------------- more requests ---------------+
#                  v                                           |
#    accept --> waiting --> in head --> exchange: the app --> answered
#                                           |                   |
#                                           v                   |
#                                       switched: the handler   |
#                                           |                   |
#                                           v                   v
#                                         ending, in stages or by a reset --> closed
#
# Every state may go to ending: at the peer's end, at an error, or when the server ends;
# until the switch also when a deadline passes.  An app that switches by
# request.accept_upgrade() stays in its exchange until it returns.  The task owns the
# stream: it is closed here and nowhere else.
#
# Two things are shaped by cost.  A scope takes a twentieth of the time of an upgrade, so
# a first request that is in the kernel when the task begins is served without one.  And a
# connection may wait for days, so it waits in few frames: a request in
# _receive_request(), a handler in serve() itself.
from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, TypeAlias

import trio

from .._errors import BadBody, BodyError, BodyTimeout, MalformedMessage, UsageError
from .._http.messages import opens_tunnel
from .._http_stream import find_tls_error
from .._streams.closing import (
    close_forcefully,
    close_in_stages,
    close_nowait,
    close_without_linger,
    cut_stream,
    move_on_after,
)
from .._streams.readiness import has_input
from .._streams.socket_stream import DirectSocketStream
from .._streams.underlying import find_peer
from .._streams.upgraded import UpgradedStream, is_cut
from .._util import find_leaves, split_errors
from .arguments import explain_answer, explain_bug, explain_bug_of_handler
from .connection_records import ConnectionRecords
from .connection_task import ConnectionTask
from .end_reason import EndReason
from .exchange import Exchange
from .http import ServerHTTP
from .losses import comes_of_loss, is_loss
from .observed_http import ObservedHTTP
from .observers import LOGGER
from .response import Response, Tunnel, Upgrade, find_fields, refuse

if TYPE_CHECKING:
    from .request import Request
    from .response import Answer, App, UpgradeHandler
    from .server import Server
    from .state import ServerState

    Switched: TypeAlias = tuple[Request, UpgradedStream, UpgradeHandler]

_SWITCHES = (Upgrade, Tunnel)
# These two do not replace ERROR as the reason: the error says more of this connection.
_ENDS_OF_SERVER = frozenset({EndReason.DRAINED, EndReason.CANCELLED})
# An idle connection ends by these, unless a request has come at the same moment.
_ENDS_OF_IDLE = frozenset({EndReason.IDLE, EndReason.DRAINED})
# The answers that are still owed when a deadline has passed.
_LATE_RESPONSES = {
    EndReason.SLOW_HEADER: (408, "the request came too slowly\n"),
    EndReason.SLOW_RESPONSE: (503, "the answer took too long\n"),
}


class Connection(ConnectionTask):
    """One connection of a server.

    Args:
        app: Called for each request.
        server: The server that the requests came to; each request refers to it.
        state: The state that the connections of that server share.
        stream: The connection; it is owned from now on.
        scope: The scope around :meth:`serve`: of one connection, or of all connections
            of a server. It is the one to cancel before the first wait and after a switch:
            in these phases a connection ends only when all end.

    Attributes:
        reason: Why the connection ends, if that is known; None if a cancellation ends
            it.
    """

    __slots__ = (
        "_app",
        "_http",
        "_protocol",
        "_server",
        "_state",
        "_stream",
        "reason",
    )

    def __init__(
        self,
        app: App,
        server: Server,
        state: ServerState,
        stream: trio.abc.Stream,
        scope: trio.CancelScope,
    ) -> None:
        super().__init__(scope)
        self._app = app
        self._server = server
        self._state = state
        # The stream to close: the transport, or the UpgradedStream after a switch.
        self._stream = stream
        # The HTTP half; None while an exchange has it, and after a switch.
        self._http: ServerHTTP | None = None
        self._protocol: str | None = None
        if state.observers.is_wanted:
            self.records = ConnectionRecords(state.observers)
        self.reason: EndReason | None = None
        state.add(self)

    async def serve(self) -> None:
        """Serve the connection to its end, and close it on every path.

        An error ends this connection only. Errors that the peer did not cause are logged,
        or raised if the server is strict.
        """
        state, self.task = self._state, trio.lowlevel.current_task()
        self.depth = len(self.task.child_nurseries)
        # Once the connection is broken or closed, the address may be unknown.
        if self.records is not None:
            self.records.peer = find_peer(self._stream)
        try:
            try:
                switched = await self._speak_http()
                if switched is not None:
                    # Awaited here, with no frame between: it may run for days.
                    request, stream, handler = switched
                    del switched
                    try:
                        await handler(request, stream, stream.head)
                        self.reason = EndReason.RETURNED
                    except BaseException as exc:
                        explain_bug_of_handler(exc)
                        upper = stream.outermost
                        self._give_up(
                            request, exc, broken=upper.broken, was_reset=upper.was_reset
                        )
                    finally:
                        self._stream = stream.outermost
                await self._end()
            except BaseException:
                # Now, for the server may end this connection while it is being closed.
                self.reason = self.reason or self.expired or EndReason.CANCELLED
                state.deadlines.disarm(self)
                await (cut_stream if self._is_cut() else close_forcefully)(self._stream)
                raise
        except BaseException as exc:
            self._report_or_raise(exc)
        finally:
            state.remove(self, upgraded=self._protocol is not None)
            if self.records is not None:
                self._report_end(self.records)
            # A request that an app keeps must not keep the HTTP half, nor its bytes.
            self._http = None

    ################################################################
    # HTTP
    ################################################################

    async def _speak_http(self) -> Switched | None:
        # Returns the handler to call after a switch, with its first two arguments; None
        # if only the end is left: the app may have made the switch itself.
        state, outer = self._state, self.scope
        if self.records is None:
            self._http = ServerHTTP(self._stream, state.limits, state.total_responses)
        else:
            self._http = self._make_observed_http(self.records)
        # As _serve_request() returns it.
        outcome: Switched | bool = True
        if self._needs_no_scope():
            # Do not start a request if we are already cancelled.
            await trio.lowlevel.checkpoint_if_cancelled()
            first = await self._receive_request(wait=False)
            if first is None:
                outcome = self.reason is None
            else:
                outcome = await self._serve_request(first)
                del first
        while outcome is True:
            with trio.CancelScope() as self.scope:
                while outcome is True and (exchange := await self._receive_request()):
                    outcome = await self._serve_request(exchange)
                    # Do not keep it until the next request has come.
                    del exchange
            if not (self.scope.cancelled_caught and self._has_late_request()):
                break
            self.expired = None
        if isinstance(outcome, bool):
            await self._end_http()
            return None
        # No deadline runs any more: from now on only the end of all connections counts.
        self.scope = outer
        if state.must_close_now:
            self.expire(self.expired or EndReason.CANCELLED)
        return outcome

    def _make_observed_http(self, records: ConnectionRecords) -> ServerHTTP:
        stream, limits = self._stream, self._state.limits
        counts = self._state.total_responses
        if not records.wants_responses:
            return ServerHTTP(stream, limits, counts)
        return ObservedHTTP(stream, limits, counts, records.report_response)

    def _needs_no_scope(self) -> bool:
        # While a first request is served that need not be waited for, nothing can expire
        # this connection alone: no deadline for a request is armed, of a drain neither,
        # and a send has a scope of its own. Only the end of a grace can, and that ends
        # all connections.
        direct = isinstance(self._stream, DirectSocketStream)
        return direct and self._state.limits.response_timeout is None

    def _has_late_request(self) -> bool:
        # Whether an idle connection that is ended has received something, which its task
        # could not see any more.  It is answered: the client cannot know of our end.
        http = self._http
        return (
            http is not None
            and self.idle
            and self.expired in _ENDS_OF_IDLE
            and not self._state.must_close_now
            and (http.has_buffered or has_input(self._stream))
        )

    async def _receive_request(self, *, wait: bool = True) -> Exchange | None:
        # Returns None if no other request will come, and then the reason is set. Without
        # `wait` it also returns None if no request was received yet.
        http, state = self._http, self._state
        assert http is not None
        deadlines, armed, begun = state.deadlines, None, False
        if self.requests:
            # Only now: while its body was closed, the answer was still the last one.
            http.start_next_exchange()
            if self.records is not None:
                self.records.request = self.records.cause = None
        if not wait or not http.has_begun_head:
            self.idle = wait
            if state.draining.is_set():
                if self.requests and not has_input(self._stream):
                    self.reason = EndReason.DRAINED
                    return None
                if wait:
                    deadlines.last.arm(self)
        try:
            if not wait:
                http.receive_nowait()
            elif http.has_buffered:
                # The request may have been read already. Let other tasks run all the
                # same.
                await trio.lowlevel.checkpoint()
            while (head := http.next_request()) is None:
                if not wait:
                    return None
                if http.ended:
                    self.reason = EndReason.PEER
                    return None
                if armed is None:
                    armed = deadlines.keep_alive if self.requests else deadlines.header
                    armed.arm(self)
                if not begun and http.has_buffered:
                    begun, self.idle = True, False
                    deadlines.last.disarm(self)
                    if armed is not deadlines.header:
                        armed.disarm(self)
                        armed = deadlines.header
                        armed.arm(self)
                await http.receive()
                # Do not start a request whose deadline has just passed.  It stays in the
                # buffer.
                await trio.lowlevel.checkpoint_if_cancelled()
            if armed is not None:
                armed.disarm(self)
                deadlines.last.disarm(self)
            self.idle = False
            self.requests += 1
            state.total_requests += 1
            most = state.limits.requests_per_connection
            last = most is not None and self.requests >= most
            exchange = Exchange(
                http, self._stream, head, self._server, state, self, last=last
            )
        except trio.BrokenResourceError as exc:
            self._note_break(exc)
            return None
        except MalformedMessage as exc:
            if armed is not None:
                armed.disarm(self)
            self.idle = False
            self.reason = EndReason.MALFORMED
            self._note_cause(exc)
            LOGGER.debug("refused %a: %s", find_peer(self._stream), exc)
            state.total_refused += 1
            await self._refuse(http, refuse(exc))
            return None
        if self.records is not None:
            self.records.begin_request(exchange.request)
        self._http = None
        if state.limits.response_timeout is not None:
            deadlines.response.arm(self)
        return exchange

    async def _serve_request(self, exchange: Exchange) -> Switched | bool:
        # Returns whether there can be another request, or the handler to call.
        try:
            return await self._run_app(exchange)
        except BaseException as exc:
            return await self._handle_error(exchange, exc)
        finally:
            if exchange.protocol is not None:
                self._protocol = exchange.protocol
                self._stream = exchange.stream or self._stream
            self._http = exchange.finish()

    async def _run_app(self, exchange: Exchange) -> Switched | bool:
        answer = await self._app(exchange.request)
        if isinstance(answer, Response):
            if isinstance(answer.body, bytes):
                return await self._respond(exchange, answer)
            async with aclosing(answer):
                return await self._respond(exchange, answer)
        if isinstance(answer, _SWITCHES):
            if not self._may_answer(exchange, answer):
                return False
            request = exchange.request
            if isinstance(answer, Tunnel):
                stream = await exchange.accept_connect(find_fields(answer))
            elif request.method == "CONNECT":
                raise UsageError(f"{answer!r} is no answer to CONNECT")
            else:
                stream = await exchange.accept_upgrade(
                    answer.protocol, find_fields(answer), answer.reason
                )
            return request, stream, answer.handler
        if exchange.protocol is not None and answer is None:
            self.reason = EndReason.RETURNED
            return False
        http = exchange.http
        if http is not None and http.response_begun and answer is None:
            more = await exchange.complete_streamed()
            if not more:
                self.reason = (
                    self._find_reason(http) if http.broken else EndReason.ANSWERED
                )
            return more
        if http is not None and exchange.is_client_gone and answer is None:
            # No answer would reach the client.
            self.reason = EndReason.LOST
            return False
        raise explain_answer(answer, exchange.request)

    async def _respond(
        self, exchange: Exchange, answer: Response, *, close: bool = False
    ) -> bool:
        if not self._may_answer(exchange, answer):
            return False
        if exchange.request.method == "CONNECT" and opens_tunnel(answer.status):
            raise UsageError(f"{answer!r} to CONNECT would promise a tunnel")
        more = await exchange.answer(answer, close=close)
        self.reason = None if more else EndReason.ANSWERED
        return more

    def _may_answer(self, exchange: Exchange, answer: Answer) -> bool:
        if exchange.protocol is not None:
            raise UsageError(f"{answer!r} returned after the switch")
        http = exchange.http
        assert http is not None
        if http.may_answer:
            return True
        if http.response_begun:
            raise UsageError(f"{answer!r} returned after respond()")
        # Sending a 101 or a 100 failed, and the app went on all the same.
        self.reason = EndReason.LOST
        message = "%r dropped, the connection is broken: %r"
        LOGGER.info(message, answer, exchange.request)
        return False

    async def _refuse(self, http: ServerHTTP, refusal: Response) -> None:
        # Answers a message that is no valid request, or one whose deadline has passed.
        with suppress(trio.BrokenResourceError):
            await http.send_response(refusal, self._state.dates.field(), close=True)

    async def _end_http(self) -> None:
        # The close that follows has a time limit of its own.
        self._state.deadlines.disarm(self)
        if self._http is not None and self._http.slow:
            self._end_slow_reader()
        elif self.scope.cancelled_caught:
            await self._end_expired(self.expired or EndReason.CANCELLED)

    ################################################################
    # Expired: a deadline has passed, or the server ends
    ################################################################

    async def _end_expired(self, reason: EndReason) -> None:
        # Sends the response that is still owed.
        http = self._http
        if reason not in _ENDS_OF_SERVER or self.reason is not EndReason.ERROR:
            self.reason = reason
        self._log_end(reason)
        if http is None:
            # The app switched nevertheless, in a shielded scope: HTTP is over.
            return
        if reason is EndReason.SLOW_HEADER and not http.has_buffered:
            return
        if reason in _LATE_RESPONSES and http.may_answer:
            status, text = _LATE_RESPONSES[reason]
            if reason is EndReason.SLOW_HEADER:
                self._state.total_refused += 1
            with trio.CancelScope() as self.scope:
                await self._refuse(http, Response(status, text))

    def _end_slow_reader(self) -> None:
        if self.reason is not EndReason.ERROR:
            self.reason = EndReason.SLOW_READER
        self._log_end(EndReason.SLOW_READER)

    def _log_end(self, reason: EndReason) -> None:
        LOGGER.debug("ended %a: %s", find_peer(self._stream), reason.value)

    ################################################################
    # Errors
    ################################################################

    async def _handle_error(self, exchange: Exchange, exc: BaseException) -> bool:
        # Handles an exception of the app; returns the same as _serve_request().
        errors, rest = split_errors(exc)
        try:
            if errors is not None and rest is None and exchange.protocol is None:
                return await self._answer_error(exchange, errors)
            self._give_up(
                exchange.request,
                exc,
                broken=exchange.lost,
                was_reset=exchange.was_reset,
            )
            return False
        finally:
            # A frame that an exception has passed must not keep a reference to it: the
            # two would be a cycle, and keep the request and its body.
            del exc, errors, rest

    async def _answer_error(self, exchange: Exchange, errors: Exception) -> bool:
        # Sends the response that can still be sent.
        http = exchange.get_http()
        if exchange.lost and is_loss(errors):
            self.reason = EndReason.LOST
            self._note_cause(errors)
            return False
        refusal = exchange.find_refusal(errors)
        if refusal is None:
            explain_bug(errors)
            self._report_error(exchange.request, errors)
            refusal = Response(500, "Internal Server Error\n")
        if not http.may_answer:
            self.reason = self.reason or self._find_reason(http)
            self._note_cause(errors)
            return False
        # After a broken body the next request cannot be found; after one that was too
        # slow it is not wanted.
        bad = BadBody | BodyTimeout
        close = any(isinstance(leaf, bad) for leaf in find_leaves(errors))
        try:
            return await self._respond(exchange, refusal, close=close)
        except (trio.BrokenResourceError, BodyError) as exc:
            self.reason = self._find_reason(http)
            self._note_cause(exc)
            return False

    def _find_reason(self, http: ServerHTTP) -> EndReason:
        return EndReason.LOST if http.ended or http.lost else EndReason.ANSWERED

    def _give_up(
        self, request: Request, exc: BaseException, *, broken: bool, was_reset: bool
    ) -> None:
        # Handles an error after which no response can be sent. It is reported, unless it
        # only says that the connection is broken, or was reset here. Anything that is no
        # error, for example Cancelled, is raised again.
        errors, rest = split_errors(exc)
        try:
            if errors is None:
                raise exc
            only_loss = (broken and is_loss(errors)) or (
                was_reset and comes_of_loss(errors)
            )
            if rest is not None and self._state.strict and not only_loss:
                raise exc
            if only_loss:
                self.reason = EndReason.LOST
                self._note_cause(errors)
            else:
                self._report_error(request, errors)
            if rest is not None:
                raise rest from None
        finally:
            del exc, errors, rest

    def _report_error(self, request: Request, errors: Exception) -> None:
        # Reports errors of the app, and raises them where the server is strict.
        self.reason = EndReason.ERROR
        self._note_cause(errors)
        self._state.total_errors += 1
        # A connection that is broken or closed does not know its peer any more.
        peer = request.peer if self.records is None else self.records.peer
        self._state.observers.report_error(peer, request, errors)
        if self._state.strict:
            raise errors

    def _note_break(self, exc: trio.BrokenResourceError) -> None:
        # Handles a break of the stream while no request is under way.
        failure = find_tls_error(exc)
        self._note_cause(failure or exc)
        if failure is None:
            self.reason = EndReason.LOST
            return
        self.reason = EndReason.TLS_FAILED
        self._state.total_tls_failed += 1
        LOGGER.debug("TLS with %a failed: %s", find_peer(self._stream), failure)

    def _note_cause(self, errors: Exception) -> None:
        if self.records is not None:
            self.records.cause = errors

    def _report_or_raise(self, exc: BaseException) -> None:
        # Raises only the part of an exception that may leave the task; reports the rest.
        errors, rest = split_errors(exc)
        try:
            if self._state.strict or errors is None:
                raise exc
            # The transport failed to close, or it is a bug: neither must end the server.
            peer = None if self.records is None else self.records.peer
            self._state.observers.report_error(peer, None, errors)
            if rest is not None:
                raise rest from None
        finally:
            del exc, errors, rest

    ################################################################
    # The end
    ################################################################

    async def _end(self) -> None:
        state = self._state
        if (
            self._protocol is not None
            and isinstance(self._stream, UpgradedStream)
            and self._stream.was_reset
            and self.reason is not EndReason.ERROR
        ):
            self.reason = EndReason.RESET
        if self._is_cut():
            await cut_stream(self._stream)
        elif state.must_close_now:
            await close_without_linger(self._stream)
        elif not close_nowait(self._stream):
            with move_on_after(state.limits.linger) as self.scope:
                if self._http is not None and self._http.turn is not None:
                    # A task of the app may still receive, but its request is over.
                    await self._http.turn.wait_free()
                await close_in_stages(self._stream, insist=True)
            if self.scope.cancelled_caught:
                # That task may have been too slow.
                await close_forcefully(self._stream)

    def _is_cut(self) -> bool:
        # Whether the peer could take the end for that of a message or transfer that was
        # cut.  After a switch only a normal return, after no send that was cut, makes a
        # transfer whole.  Of HTTP only an answer that has begun is reset, as to HTTP/1.0
        # the end of the connection may end it; otherwise a reset could destroy the answer
        # before.
        if self.reason is EndReason.TLS_FAILED:
            # It gets the alert, which a reset could destroy.
            return False
        if self._protocol is not None:
            return self.reason is not EndReason.RETURNED or is_cut(self._stream)
        strict_error = self._state.strict and self.reason is EndReason.ERROR
        return strict_error or (self._http is not None and self._http.broken)

    def _report_end(self, records: ConnectionRecords) -> None:
        http, stream = self._http, self._stream
        records.report_end(
            self.reason or self.expired or EndReason.CANCELLED,
            stream if isinstance(stream, UpgradedStream) else None,
            self._protocol,
            self.requests,
            answered=http is None or http.response_begun,
        )

# One connection while it speaks HTTP: request after request, and the guard round the
# app.  All of it is let go of when the connection switches.
from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .._errors import BadBody, BodyError, BodyTimeout, MalformedMessage, UsageError
from .._http.messages import opens_tunnel
from .._streams.underlying import find_peer
from .._util import find_leaves, split_errors
from .exchange import ServerExchange, is_loss
from .http import ServerHTTP
from .records import EndReason
from .response import TEXT, Response, Tunnel, Upgrade, refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._streams.upgraded import UpgradedStream
    from .request import Answer, App, Request, UpgradeHandler
    from .server import Server
    from .session import Session
    from .state import ServerState

    Switched: TypeAlias = tuple[Request, UpgradedStream, UpgradeHandler]

_LOGGER = logging.getLogger("trio_upgrade.server")
# Set at every request; attributes of an Enum are slow to look up.
_CANCELLED = EndReason.CANCELLED
_ANSWERED = EndReason.ANSWERED
_SWITCHES = (Upgrade, Tunnel)
# That the app has failed says more than that it was to end.
_ENDS = frozenset({EndReason.DRAINED, EndReason.CANCELLED})
# What is still owed to a peer whose time is up, while HTTP is spoken.
_LATE = {
    EndReason.SLOW_HEADER: (408, "the request came too slowly\n"),
    EndReason.SLOW_RESPONSE: (503, "the answer took too long\n"),
}


@final
class RequestLoop:
    """The requests of one connection, and their answers.

    Args:
        session: The connection, which learns what becomes of it.
        app: What answers.
        server: Whose connection it is.
        state: What that shares with its other connections.

    Attributes:
        http: How it speaks HTTP.
        switched: What runs when the loop is over: the handler that an app has returned,
            and its first two arguments.
    """

    __slots__ = (
        "_app",
        "_server",
        "_session",
        "_state",
        "_transport",
        "http",
        "switched",
    )

    def __init__(
        self, session: Session, app: App, server: Server, state: ServerState
    ) -> None:
        self._session = session
        self._app = app
        self._server = server
        self._state = state
        self._transport = session.stream
        self.http: ServerHTTP = ServerHTTP(session.stream, state.limits, session)
        self.switched: Switched | None = None

    async def run_at_once(self) -> bool:
        """Serve the first request, if it is here already.

        Nothing that is waited for here has a bound of its own but the sending.

        Returns:
            Whether to :meth:`run`.
        """
        # Nobody works for a request when all is over already.
        await trio.lowlevel.checkpoint_if_cancelled()
        exchange = await self._receive_request(at_once=True)
        if exchange is None:
            return self._session.reason is _CANCELLED
        return await self._serve_request(exchange)

    async def run(self) -> None:
        """Serve one request after the other, until there can be no more."""
        while (exchange := await self._receive_request()) is not None:
            more = await self._serve_request(exchange)
            # Not to be kept until the next one has come.
            del exchange
            if not more:
                return

    async def _serve_request(self, exchange: ServerExchange) -> bool:
        # Whether there can be another one.
        try:
            return await self._run_app(exchange)
        except BaseException as exc:
            return await self._handle(exchange, exc)
        finally:
            if exchange.protocol is not None:
                self._session.stream = exchange.stream or self._transport
                self._session.protocol = exchange.protocol
            exchange.finish()

    async def _receive_request(self, *, at_once: bool = False) -> ServerExchange | None:
        http, session, state = self.http, self._session, self._state
        session.reason = _CANCELLED
        if at_once or not http.codec.has_begun_head:
            session.idle = not at_once
            if state.draining.is_set():
                session.reason = EndReason.DRAINED
                return None
        try:
            if at_once:
                head = http.receive_request_nowait()
                if head is None:
                    return None
            else:
                head = await http.receive_request()
                if head is None:
                    session.reason = EndReason.PEER
                    return None
                # Nobody works for a request that has just come too late.
                await trio.lowlevel.checkpoint_if_cancelled()
                session.head_ended()
            session.requests += 1
            state.total_requests += 1
            most = state.limits.requests_per_connection
            last = most is not None and session.requests >= most
            exchange = ServerExchange(
                http, self._transport, head, self._server, state, session, last=last
            )
        except trio.BrokenResourceError:
            session.reason = EndReason.LOST
            return None
        except MalformedMessage as exc:
            session.head_ended()
            session.reason = EndReason.MALFORMED
            _LOGGER.debug("refused %s: %s", find_peer(self._transport), exc)
            await self._refuse(refuse(exc))
            return None
        state.deadlines.response.arm(session)
        return exchange

    async def _refuse(self, refusal: Response) -> None:
        # Answers what never became a request, or is none any more.
        with suppress(trio.BrokenResourceError):
            await self.http.send_response(
                refusal, self._state.dates.field(), close=True
            )

    async def apologize(self, reason: EndReason) -> None:
        """Say what the peer is still owed after a deadline."""
        http, session = self.http, self._session
        if reason not in _ENDS or session.reason is not EndReason.ERROR:
            session.reason = reason
        self._report_end(reason)
        if session.protocol is not None:
            # The app has switched all the same, behind a shield: HTTP is over.
            return
        if reason is EndReason.SLOW_HEADER and not http.codec.has_read_ahead:
            return
        if reason in _LATE and http.may_answer:
            status, text = _LATE[reason]
            with trio.CancelScope() as session.scope:
                await self._refuse(Response(status, text, TEXT))

    def tell_slow(self) -> None:
        """Take in that the peer did not read in time."""
        if self._session.reason is not EndReason.ERROR:
            self._session.reason = EndReason.SLOW_READER
        self._report_end(EndReason.SLOW_READER)

    def _report_end(self, reason: EndReason) -> None:
        _LOGGER.debug("ended %s: %s", find_peer(self._transport), reason.value)

    async def _run_app(self, exchange: ServerExchange) -> bool:
        request = exchange.request
        answer: Answer = await self._app(request)
        if isinstance(answer, _SWITCHES):
            if exchange.protocol is not None:
                raise UsageError(f"{answer!r} returned after the switch")
            if not self._is_broken(exchange, answer):
                stream = await self._switch(exchange, answer)
                self.switched = request, stream, answer.handler
            return False
        if not isinstance(answer, Response):
            if exchange.protocol is None or answer is not None:
                raise UsageError(f"the app returned {answer!r} to {request!r}")
            self._session.reason = EndReason.RETURNED
            return False
        try:
            if exchange.protocol is not None:
                raise UsageError(f"{answer!r} returned after the switch")
            if self._is_broken(exchange, answer):
                return False
            if request.method == "CONNECT" and opens_tunnel(answer.status):
                raise UsageError(f"{answer!r} to CONNECT would promise a tunnel")
            return await self._answer(exchange, answer)
        finally:
            if not isinstance(answer.body, bytes):
                await answer.aclose()

    async def _answer(
        self, exchange: ServerExchange, answer: Response, *, close: bool = False
    ) -> bool:
        # Whether there can be another request.
        self._session.reason = _CANCELLED
        more = await exchange.answer(answer, close=close)
        self._session.reason = _ANSWERED
        return more

    def _switch(
        self, exchange: ServerExchange, answer: Upgrade | Tunnel
    ) -> Awaitable[UpgradedStream]:
        if isinstance(answer, Tunnel):
            return exchange.accept_connect(answer.fields)
        if exchange.request.method == "CONNECT":
            raise UsageError(f"{answer!r} is no answer to CONNECT")
        return exchange.accept_upgrade(answer.protocol, answer.fields, answer.reason)

    def _is_broken(self, exchange: ServerExchange, answer: Answer) -> bool:
        # A 101 or a 100 was begun and failed, and the app went on all the same.
        if self.http.broken:
            self._session.reason = EndReason.LOST
            request = exchange.request
            _LOGGER.info("%r dropped, the connection is broken: %r", answer, request)
        return self.http.broken

    ################################################################
    # Errors
    ################################################################

    async def _handle(self, exchange: ServerExchange, exc: BaseException) -> bool:
        # After an error of the app; returns what _serve_request does.
        errors, rest = split_errors(exc)
        try:
            switched = exchange.protocol is not None
            if errors is not None and rest is None and not switched:
                return await self._recover(exchange, errors)
            lost = exchange.lost
            self._session.give_up(exchange.request, exc, lost=lost, switched=switched)
            return False
        finally:
            # What an exception has passed must not keep it: a cycle, body and all.
            del exc, errors, rest

    async def _recover(self, exchange: ServerExchange, errors: Exception) -> bool:
        # Says what can still be said.
        self._session.reason = _ANSWERED
        if exchange.lost and is_loss(errors):
            self._session.reason = EndReason.LOST
            return False
        refusal = exchange.find_refusal(errors)
        if refusal is None:
            self._session.report(exchange.request, errors)
            refusal = Response(500, "Internal Server Error\n")
        elif exchange.http.ended or exchange.http.lost:
            self._session.reason = EndReason.LOST
        if not exchange.http.may_answer:
            return False
        # Behind a body that is broken or too slow nobody finds, or wants, a request.
        bad = BadBody | BodyTimeout
        close = any(isinstance(leaf, bad) for leaf in find_leaves(errors))
        try:
            return await self._answer(exchange, refusal, close=close)
        except (trio.BrokenResourceError, BodyError):
            gone = exchange.http.ended or exchange.http.lost
            self._session.reason = EndReason.LOST if gone else _ANSWERED
            return False

# One connection's task: request after request, the guard round the app, and the end.
# The task owns the connection; it is closed in one place, run().
from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from ._closing import abort_on_close, close_in_stages, close_now
from ._connection import HTTPConnection
from ._errors import BadBody, BodyError, MalformedMessage, UsageError
from ._exchange import ServerExchange, refuse, send_response
from ._groups import find_leaves, split_errors
from ._messages import Response, Tunnel, Upgrade, opens_tunnel

if TYPE_CHECKING:
    from ._request import Answer, App
    from ._server import Server

_LOGGER = logging.getLogger("trio_upgrade.server")


async def serve_session(
    app: App, transport: trio.abc.Stream, *, server: Server, strict: bool
) -> None:
    """Serve one connection to its end, and close it on every path.

    Whatever goes wrong in it costs this connection alone, and unless it is the peer's
    doing it is logged; only with ``strict`` errors come out.
    """
    session = _Session(app, transport, server, strict=strict)
    try:
        await session.run()
    except BaseException as exc:
        errors, rest = split_errors(exc)
        if strict or errors is None:
            raise
        # A transport that fails to close, or a bug of ours: not the listener's problem.
        _LOGGER.error("error while serving a connection", exc_info=errors)
        if rest is not None:
            raise rest from None


@final
class _Session:
    def __init__(
        self, app: App, transport: trio.abc.Stream, server: Server, *, strict: bool
    ) -> None:
        self._app = app
        self._transport = transport
        self._server = server
        self._strict = strict
        self._secure = isinstance(transport, trio.SSLStream)
        self._http = HTTPConnection(transport, "server", server.limits)
        # What is to be closed: the transport, or what the last request made of it.
        self._stream = transport
        # Whether to end by a reset, so that the peer cannot take the cut for an end.
        self._abort = False

    async def run(self) -> None:
        try:
            while await self._serve_request():
                pass
            if not (self._abort or self._http.broken):
                await close_in_stages(self._stream, self._server.limits.linger)
                return
        except BaseException:
            await self._close_abruptly()
            raise
        await self._close_abruptly()

    async def _close_abruptly(self) -> None:
        if self._abort or self._http.broken:
            abort_on_close(self._stream)
        await close_now(self._stream)

    async def _serve_request(self) -> bool:
        # Whether there can be another one.
        exchange = await self._receive_request()
        if exchange is None:
            return False
        try:
            return await self._run_app(exchange)
        except BaseException as exc:
            errors, rest = split_errors(exc)
            if rest is not None:
                if errors is None or self._strict:
                    raise
                self._abort = self._has_switched(exchange)
                self._report(exchange, errors)
                raise rest from None
            assert errors is not None
            return await self._recover(exchange, errors)
        finally:
            self._has_switched(exchange)
            exchange.finish()

    def _has_switched(self, exchange: ServerExchange) -> bool:
        if exchange.stream is not None:
            self._stream = exchange.stream
        return exchange.stream is not None

    async def _receive_request(self) -> ServerExchange | None:
        try:
            head = await self._http.receive_request()
            if head is None:
                return None
            return ServerExchange(
                self._http, self._transport, head, self._server, secure=self._secure
            )
        except trio.BrokenResourceError:
            return None
        except MalformedMessage as exc:
            with suppress(trio.BrokenResourceError):
                await send_response(
                    self._http, refuse(exc), self._server.dates, close=True
                )
            return None

    async def _run_app(self, exchange: ServerExchange) -> bool:
        request = exchange.request
        answer: Answer = await self._app(request)
        if isinstance(answer, Upgrade | Tunnel):
            return await self._switch(exchange, answer)
        if not isinstance(answer, Response):
            if exchange.stream is None or answer is not None:
                raise UsageError(f"the app returned {answer!r} to {request!r}")
            return False
        try:
            if exchange.stream is not None:
                raise UsageError(f"{answer!r} returned after the switch")
            if self._is_broken(exchange, answer):
                return False
            if request.method == "CONNECT" and opens_tunnel(answer.status):
                raise UsageError(f"{answer!r} to CONNECT would promise a tunnel")
            return await exchange.answer(answer)
        finally:
            await answer.aclose()

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
        return False

    def _is_broken(self, exchange: ServerExchange, answer: Answer) -> bool:
        # A 101 or a 100 was begun and failed, and the app went on all the same.
        if exchange.http.broken:
            request = exchange.request
            _LOGGER.info("%r dropped, the connection is broken: %r", answer, request)
        return exchange.http.broken

    async def _recover(self, exchange: ServerExchange, errors: Exception) -> bool:
        # After an error: say what can still be said.  Returns what _serve_request does.
        if exchange.stream is not None:
            self._abort = True
            if not (exchange.stream.broken and _are_stream_errors(errors)):
                self._report(exchange, errors)
            return False
        http = exchange.http
        if http.lost and _are_stream_errors(errors):
            return False
        refusal = exchange.find_refusal(errors)
        if refusal is None:
            self._report(exchange, errors)
            refusal = Response(500, "Internal Server Error\n")
        if not http.may_answer:
            return False
        # Behind a body with broken framing nobody can find the next request.
        close = any(isinstance(leaf, BadBody) for leaf in find_leaves(errors))
        try:
            return await exchange.answer(refusal, close=close)
        except (trio.BrokenResourceError, BodyError):
            return False

    def _report(self, exchange: ServerExchange, errors: Exception) -> None:
        if self._strict:
            self._abort = True
            raise errors
        _LOGGER.error(
            "error in the app, serving %r to %s",
            exchange.request,
            exchange.peer,
            exc_info=errors,
        )


def _are_stream_errors(errors: Exception) -> bool:
    return all(
        isinstance(leaf, trio.BrokenResourceError | trio.ClosedResourceError)
        for leaf in find_leaves(errors)
    )

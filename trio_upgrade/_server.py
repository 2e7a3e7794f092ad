# Serving: listeners, one task per connection, and the guard round the app.  A
# connection has one owner, its task; it is closed in one place, Connection.run().
from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import trio

from ._closing import abort_on_close, close_in_stages
from ._connection import HTTPConnection
from ._errors import BodyError, MalformedMessage, UsageError
from ._exchange import ServerExchange, find_refusal, refuse, send_response
from ._groups import find_leaves, split_errors
from ._limits import Limits
from ._messages import Response, Upgrade
from ._target import Authority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._request import Answer, App

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)

_LOGGER = logging.getLogger("trio_upgrade.server")
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound


@final
class Server:
    """A running server, as ``nursery.start`` hands it back. Not made by users.

    Attributes:
        listeners: What it accepts from; empty for :func:`serve_stream`.
        limits: Its bounds.
    """

    def __init__(
        self,
        app: App,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        limits: Limits,
        *,
        strict: bool,
    ) -> None:
        self.listeners: list[trio.abc.Listener[trio.abc.Stream]] = list(listeners)
        self.limits: Limits = limits
        self._app = app
        self._strict = strict

    @property
    def url(self) -> str:
        """A URL of the first TCP listener, to dial from this machine.

        Without a path, ``http://127.0.0.1:1337`` say; a wildcard address is replaced
        by its loopback one.

        Raises:
            ValueError: There is no TCP listener.
        """
        for listener in self.listeners:
            secure = isinstance(listener, trio.SSLListener)
            bottom = cast("Any", listener).transport_listener if secure else listener
            if isinstance(bottom, trio.SocketListener):
                name = cast("object", bottom.socket.getsockname())
                if isinstance(name, tuple):
                    host, port = cast("tuple[str, int]", name[:2])
                    authority = Authority(_ANY_HOST.get(host, host), port)
                    return f"{'https' if secure else 'http'}://{authority}"
        raise ValueError("this server has no TCP listener")

    async def serve_connection(self, transport: trio.abc.Stream) -> None:
        """Serve one connection to its end, and close it on every path."""
        await _Connection(self, self._app, transport, strict=self._strict).run()


async def serve_tcp(
    app: App,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    limits: Limits = Limits(),
    strict: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades over TCP, until cancelled.

    Args:
        app: Called once for each request, in the connection's task.
        port: The port, 0 for any free one.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means Trio's default.
        limits: The bounds of every connection.
        strict: Whether exceptions of the app come out of here, for tests. Otherwise
            they are logged to ``trio_upgrade.server`` and cost their own connection.
        task_status: Gets a :class:`Server` as soon as connections are accepted.

    Raises:
        OSError: The address cannot be listened on.
    """
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    await serve_listeners(
        app, listeners, limits=limits, strict=strict, task_status=task_status
    )


async def serve_listeners(
    app: App,
    listeners: Sequence[trio.abc.Listener[StreamT]],
    *,
    limits: Limits = Limits(),
    strict: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades on any Trio listeners, until cancelled.

    When it ends, the listeners and every connection are closed.

    Args:
        app: Called once for each request, in the connection's task.
        listeners: They are owned from now on.
        limits: The bounds of every connection.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
    """
    server = Server(app, listeners, limits, strict=strict)
    await trio.serve_listeners(
        server.serve_connection,
        server.listeners,
        task_status=_ServerStarted(server, task_status),
    )


async def serve_stream(
    app: App,
    stream: trio.abc.Stream,
    *,
    limits: Limits = Limits(),
    strict: bool = False,
) -> None:
    """Serve HTTP/1.1 and its upgrades on one stream; return when that is over.

    Any Trio stream will do: memory, TLS, or one that an earlier protocol is done with.

    Args:
        app: Called once for each request, in this task.
        stream: It is owned from now on, and closed on every path.
        limits: The bounds of the connection.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
    """
    await Server(app, (), limits, strict=strict).serve_connection(stream)


@final
class _ServerStarted:
    # Trio announces its listeners; we announce the server.  (A nursery of our own round
    # trio.serve_listeners would do, but put every error into one group more.)
    def __init__(self, server: Server, task_status: trio.TaskStatus[Server]) -> None:
        self._server = server
        self._task_status = task_status

    def started(self, value: object = None) -> None:  # noqa: ARG002  Trio's signature
        self._task_status.started(self._server)


@final
class _Connection:
    def __init__(
        self, server: Server, app: App, transport: trio.abc.Stream, *, strict: bool
    ) -> None:
        self._server = server
        self._app = app
        self._transport = transport
        self._strict = strict
        self._secure = isinstance(transport, trio.SSLStream)
        self._http = HTTPConnection(transport, "server", server.limits)
        self._exchange: ServerExchange | None = None
        # Whether to end by a reset, so that the peer cannot take the cut for an end.
        self._abort = False

    @property
    def _stream(self) -> trio.abc.Stream:
        # What is to be closed: the transport, or what the last request made of it.
        exchange = self._exchange
        if exchange is None or exchange.stream is None:
            return self._transport
        return exchange.stream

    async def run(self) -> None:
        try:
            while await self._serve_request():
                pass
            if not self._abort:
                await close_in_stages(self._stream, self._server.limits.linger)
                return
        except BaseException:
            if self._abort:
                abort_on_close(self._stream)
            await trio.aclose_forcefully(self._stream)
            raise
        abort_on_close(self._stream)
        await trio.aclose_forcefully(self._stream)

    async def _serve_request(self) -> bool:
        # Whether there can be another one.
        exchange = await self._receive_request()
        self._exchange = exchange
        if exchange is None:
            return False
        try:
            return await self._run_app(exchange)
        except BaseException as exc:
            errors, rest = split_errors(exc)
            if rest is not None:
                if errors is None or self._strict:
                    raise
                self._report(exchange, errors)
                raise rest from None
            assert errors is not None
        return await self._recover(exchange, errors)

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
                await send_response(self._http, refuse(exc), method="GET", close=True)
            return None

    async def _run_app(self, exchange: ServerExchange) -> bool:
        request = exchange.request
        answer: Answer = await self._app(request)
        if exchange.stream is not None:
            if answer is not None:
                raise UsageError(f"{answer!r} returned after the switch")
            return False
        if exchange.http.broken:
            # A 101 or a 100 was begun and failed, and the app went on all the same.
            _LOGGER.info("%r dropped, the connection is broken: %r", answer, request)
            self._abort = True
            return False
        if isinstance(answer, Response):
            if request.method == "CONNECT" and answer.opens_tunnel:
                raise UsageError(f"{answer!r} to CONNECT would promise a tunnel")
            return await exchange.answer(answer)
        if not isinstance(answer, Upgrade):
            raise UsageError(f"the app returned {answer!r} to {request!r}")
        if request.method == "CONNECT":
            raise UsageError(f"{answer!r} is no answer to CONNECT")
        stream = await exchange.accept_upgrade(
            answer.protocol, answer.fields, answer.reason
        )
        await answer.handler(request, stream, stream.head)
        return False

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
        refusal = find_refusal(errors)
        self._abort = http.broken
        if refusal is None:
            self._report(exchange, errors)
            refusal = Response(500, "Internal Server Error\n")
        if not http.may_answer:
            return False
        try:
            return await exchange.answer(refusal)
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

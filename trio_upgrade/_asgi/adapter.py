# The adapter: an app of ours for an ASGI application, and the scope of its lifespan.
from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, cast, final

import trio

from .. import Response, TrustedPeers, Upgrade, UsageError
from .errors import LifespanFailed, choose_error, has_cancelled
from .http import HTTPCall
from .lifespan import Lifespan
from .scope import make_http_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .. import App, Request, Tunnel
    from .types import ASGIApp

_LOGGER = logging.getLogger("trio_upgrade.asgi")
_WEBSOCKET = "websocket"
_NOT_IMPLEMENTED = 501


@final
class ASGIAdapter:
    """An app that serves an ASGI application; :func:`open_asgi` gives it.

    Pass it to any of the ``serve_*`` functions. It may serve several servers.
    """

    def __init__(
        self,
        app: ASGIApp,
        root_path: str,
        fallback: App | None,
        upgrades: tuple[str, ...],
        trusted: TrustedPeers,
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._fallback = fallback
        self._upgrades = upgrades
        self._trusted = trusted
        self._state: dict[str, Any] = {}
        # Starts a task that ends with a request; None while the block is not entered.
        self._start_soon: Callable[..., object] | None = None

    def _open(self, state: dict[str, Any], nursery: trio.Nursery) -> None:
        self._state = state
        self._start_soon = nursery.start_soon

    def _close(self) -> None:
        self._start_soon = None

    async def __call__(self, request: Request) -> Response | Upgrade | Tunnel | None:
        """Answer one request.

        Raises:
            UsageError: The ``async with`` of :func:`open_asgi` was left, or the
                application gave no complete answer.
        """
        start_soon = self._start_soon
        if start_soon is None:
            raise UsageError("used outside of the async with of open_asgi()")
        if request.upgrades or request.method == "CONNECT":
            handler = self._find_handler(request)
            if handler is not None:
                return await handler(request)
        scope = make_http_scope(request, self._root_path, self._state, self._trusted)
        await HTTPCall(request, start_soon).run(self._app, scope)
        return None

    def _find_handler(self, request: Request) -> App | None:
        # Returns None for an ordinary request: a server may ignore any offer (RFC 9110
        # §7.8), as of h2c, which clients make in every request.
        offers = request.upgrades
        if request.method == "CONNECT":
            return self._fallback or _refuse_connect
        if any(protocol in offers for protocol in self._upgrades):
            return self._fallback
        if _WEBSOCKET in offers:
            return _refuse_websocket
        return None

    def __repr__(self) -> str:
        return f"<ASGIAdapter of {self._app!r}>"


ASGIAdapter.__module__ = "trio_upgrade.asgi"


async def _refuse_connect(_request: Request) -> Response:
    return Response(_NOT_IMPLEMENTED, "no tunnels here\n")


async def _refuse_websocket(_request: Request) -> Response:
    return Response(_NOT_IMPLEMENTED, "no WebSocket here\n")


def open_asgi(
    app: ASGIApp,
    *,
    root_path: str = "",
    fallback: App | None = None,
    upgrades: Iterable[str] = (),
    lifespan: Literal["auto", "on", "off"] = "auto",
    trusted: TrustedPeers | Iterable[Any] = (),
) -> AbstractAsyncContextManager[ASGIAdapter, None]:
    """Serve an ASGI application, such as one of Starlette, FastAPI or Litestar.

    ::

        async with open_asgi(app) as adapter:
            await serve_tcp(adapter, 8000)

    The application runs under Trio: its libraries have to know Trio, as anyio does. Each
    request is one call of it, in the task of the connection, which serves the next
    request when the call has returned. So what an application does after its answer, for
    example a background task, is waited for by a drain too.

    Entering runs the startup of the lifespan, and leaving the shutdown, for which the
    caller's cancel scope is the only limit. If the block is cancelled, the lifespan of
    the application is cancelled as well and gets no ``lifespan.shutdown``. Leave the
    block after the servers have ended.

    When the client leaves, ``receive()`` gives ``http.disconnect`` and ``send()`` raises
    :exc:`ClientDisconnected`; the application runs on. The end of the client's side
    counts as leaving, once the application waits in ``receive()``. An error of the
    application before its first ``http.response.body`` is answered with a 500; after
    that the connection is reset. It is logged as those of any app are.

    Content that the status does not allow is dropped with a line in the log
    ``trio_upgrade.asgi``. A ``Transfer-Encoding`` is left out, and so is the
    ``Content-Length`` of a 204. The scope has the extensions ``http.response.trailers``
    and ``http.response.early_hint``, but not for HTTP/1.0.

    Args:
        app: The ASGI 3 application.
        root_path: The path below which a proxy that cuts it shows the application. It is
            put before the path of each request, as the specification says.
        fallback: An app of ours for the requests that ASGI has no form for: those that
            offer a protocol of ``upgrades``, and every CONNECT.
        upgrades: The protocols, as ``name`` or ``name/version``, that ``fallback``
            handles. Requests with other offers, for example of h2c, go to the
            application as the ordinary requests that they are. But an offer of
            ``websocket`` that is not named here is answered with a 501.
        lifespan: ``"on"``: the application must have the lifespan protocol. ``"auto"``:
            one that returns or raises before it is started is served without it.
            ``"off"``: it is not asked for.
        trusted: The proxies that may say who the client is and what it asked for, as for
            :func:`trio_upgrade.forwarded`: ``client``, ``scheme`` and the Host field of
            the scope are then those of their client.

    Returns:
        An async context manager that gives the :class:`ASGIAdapter`.

    Raises:
        TypeError: An argument has another type.
        ValueError: ``lifespan`` is another word, a protocol is malformed, ``upgrades``
            are given without a fallback, or ``root_path`` does not begin with a slash or
            ends with one.
        LifespanFailed: From entering, the startup failed; nothing is left running. From
            leaving, the shutdown failed; if the block raised, too, this is only logged.
    """
    _check_app(app)
    if fallback is not None and not callable(fallback):
        raise TypeError("fallback must be an app, or None")
    if isinstance(upgrades, str):
        raise TypeError("upgrades must be several str, not one")
    protocols = tuple(upgrades)
    for protocol in protocols:
        Upgrade(protocol, _never_called)  # Checks the protocol.
    if protocols and fallback is None:
        raise ValueError("upgrades need a fallback that handles them")
    if lifespan not in ("auto", "on", "off"):
        raise ValueError(f'lifespan must be "auto", "on" or "off", not {lifespan!r}')
    if not isinstance(cast("object", root_path), str):
        raise TypeError("root_path must be a str")
    if root_path and (root_path[0] != "/" or root_path[-1] == "/"):
        raise ValueError('root_path must be "" or like "/api"')
    if not isinstance(trusted, TrustedPeers):
        trusted = TrustedPeers(trusted)
    adapter = ASGIAdapter(app, root_path, fallback, protocols, trusted)
    return _OpenASGI(adapter, None if lifespan == "off" else Lifespan(app, lifespan))


def _check_app(app: object) -> None:
    if not callable(app):
        raise TypeError(
            "an ASGI application is called: await app(scope, receive, send); "
            f"{type(app).__name__} cannot be"
        )


async def _never_called(*_arguments: object) -> None:  # pragma: no cover
    raise AssertionError


@final
class _OpenASGI(AbstractAsyncContextManager[ASGIAdapter, None]):
    def __init__(self, adapter: ASGIAdapter, lifespan: Lifespan | None) -> None:
        self._adapter = adapter
        self._lifespan = lifespan
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery

    async def __aenter__(self) -> ASGIAdapter:
        self._nursery = await self._manager.__aenter__()
        state: dict[str, Any] = {}
        lifespan = self._lifespan
        if lifespan is not None:
            state = lifespan.state
            self._nursery.start_soon(
                lifespan.run, name="lifespan of an ASGI application"
            )
            try:
                await lifespan.startup()
            except BaseException as exc:
                error = await self._close_nursery(exc)
                if error is exc:
                    raise
                raise error from None
        self._adapter._open(state, self._nursery)
        return self._adapter

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._adapter._close()
        error = exc_value
        try:
            if self._lifespan is not None:
                await self._lifespan.shutdown()
        except LifespanFailed as failure:
            if error is None:
                error = failure
            else:
                _LOGGER.error("%s", failure, exc_info=failure)
        except BaseException as cancelled:
            error = error or cancelled
        try:
            error = await self._close_nursery(error)
            if error is not None and error is not exc_value:
                raise error
        finally:
            # A frame that an exception has passed must not keep a reference to it.
            del error, exc_value

    async def _close_nursery(self, exc: BaseException | None) -> BaseException | None:
        # Returns what the block has to raise.
        self._nursery.cancel_scope.cancel()
        # The nursery puts what it gets into a group, and makes new groups of old ones; a
        # Cancelled may be its own.
        passed = exc if exc is not None and has_cancelled(exc) else None
        kind = None if passed is None else type(passed)
        try:
            await self._manager.__aexit__(kind, passed, None)
        except BaseException as raised:
            return choose_error(raised, exc)
        return exc

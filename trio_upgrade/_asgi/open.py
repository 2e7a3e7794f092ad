# The scope of an application: its lifespan, and the nursery of the tasks beside it.
from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, final

import trio

from .. import TrustedPeers, Upgrade
from .adapter import ASGIAdapter
from .errors import LifespanFailed, choose_error, has_cancelled
from .lifespan import Lifespan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .. import App, TrustedLike
    from ..websocket import WebSocketOptions
    from .adapter import MakeWebSocketCall
    from .types import ASGIApp

_LOGGER = logging.getLogger("trio_upgrade.asgi")


def open_asgi(
    app: ASGIApp,
    *,
    root_path: str = "",
    fallback: App | None = None,
    upgrades: Iterable[str] = (),
    lifespan: Literal["auto", "on", "off"] = "auto",
    trusted: TrustedLike = (),
    websocket: WebSocketOptions | None = None,
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

    A WebSocket is one call as well, by :mod:`trio_upgrade.websocket`, whose extra it
    needs: without it an offer is answered with a 501. A malformed offer is refused and
    the application not called. When the application returns, the peer gets a Close with
    1000, after an error 1011, and in a drain 1012 at once, or at the turn of the
    connection if the drain has a ``jitter``; the application hears of it by
    ``websocket.disconnect``: its code is the peer's, 1005 if it gave none, 1006 without
    a Close. A ``websocket.close`` before the accept is a 403, an error
    before it a 500; the extension ``websocket.http.response`` gives other answers. After
    a refusal of any kind the connection serves the next request.

    Args:
        app: The ASGI 3 application.
        root_path: The path below which a proxy that cuts it shows the application. It is
            put before the path of each request, as the specification says.
        fallback: An app of ours for the requests that ASGI has no form for: those that
            offer a protocol of ``upgrades``, and every CONNECT.
        upgrades: The protocols, as ``name`` or ``name/version``, that ``fallback``
            handles. Requests with other offers, for example of h2c, go to the
            application as the ordinary requests that they are, or, if they offer a
            WebSocket, as that.
        lifespan: ``"on"``: the application must have the lifespan protocol. ``"auto"``:
            one that returns or raises before it is started is served without it.
            ``"off"``: it is not asked for.
        trusted: The proxies that may say who the client is and what it asked for, as for
            :func:`trio_upgrade.forwarded`: ``client``, ``scheme`` and the Host field of
            the scope are then those of their client.
        websocket: The options of all WebSockets, for example
            ``{"max_size": 2**16, "compression": None}``. None: the defaults of
            :func:`trio_upgrade.websocket.accept_websocket`.

    Returns:
        An async context manager that gives the :class:`ASGIAdapter`.

    Raises:
        ModuleNotFoundError: ``websocket`` is given, and the extra is not installed.
        TypeError: An argument has another type.
        ValueError: ``lifespan`` is another word, a protocol is malformed, ``upgrades``
            are given without a fallback, ``root_path`` does not begin with a slash or
            ends with one, or an option of ``websocket`` has no such value.
        LifespanFailed: From entering, the startup failed; nothing is left running. From
            leaving, the shutdown failed; if the block raised, too, this is only logged.
    """
    _check_app(app)
    if fallback is not None and not callable(fallback):
        raise TypeError(
            f"fallback must be an app, or None, not {type(fallback).__name__}"
        )
    if isinstance(upgrades, str):
        raise TypeError('upgrades must be a sequence of str, such as ["echo"], not str')
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
    make_adapter = partial(
        ASGIAdapter,
        app,
        root_path,
        fallback,
        protocols,
        trusted,
        _prepare_websockets(websocket),
    )
    return _OpenASGI(
        make_adapter, None if lifespan == "off" else Lifespan(app, lifespan)
    )


def _prepare_websockets(options: WebSocketOptions | None) -> MakeWebSocketCall | None:
    # Here, as the import takes many times as long as a request.
    try:
        from ..websocket import check_websocket_options
        from .websocket import WebSocketCall
    except ModuleNotFoundError as exc:
        if options is None:
            return None
        raise ModuleNotFoundError(
            'WebSockets need the extra: pip install "trio-upgrade[websocket]"'
        ) from exc
    given: WebSocketOptions = {} if options is None else options
    check_websocket_options(given)
    return partial(WebSocketCall, options=given.copy())


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
    def __init__(
        self,
        make_adapter: Callable[[dict[str, Any], trio.Nursery], ASGIAdapter],
        lifespan: Lifespan | None,
    ) -> None:
        self._make_adapter = make_adapter
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
                if error is exc or error is None:
                    raise
                raise error from None
        return self._make_adapter(state, self._nursery)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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


# Tracebacks and help show the path that users import.
for _thing in (open_asgi, ASGIAdapter):
    _thing.__module__ = "trio_upgrade.asgi"

# trio-upgrade serve: an application of a module, ours or of ASGI.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

import trio

from .. import serve_stream
from ..asgi import LifespanFailed, open_asgi
from .application import load_application, looks_like_asgi, takes_asgi
from .dialling import Recorder
from .errors import CommandFailed, UsageFailed, describe
from .listening import Place
from .serving import Serving

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from types import TracebackType

    from .. import App, TrustedPeers
    from ..asgi import ASGIApp
    from .serving import OpenApp


def run(arguments: Namespace) -> int:
    """Run the subcommand, and return its exit status."""
    place = Place.from_arguments(arguments)
    serving = Serving.from_arguments(arguments)
    app = load_application(arguments.app)
    return serving.run(place, choose_app(app, serving, is_asgi=arguments.asgi))


def choose_app(
    app: Callable[..., object], serving: Serving, *, is_asgi: bool
) -> OpenApp:
    """Return how the application is opened in each process.

    Raises:
        UsageFailed: It is of the other kind.
    """
    if is_asgi:
        if not takes_asgi(app):
            raise UsageFailed(
                "this is no application of ASGI: it does not take scope, receive, send"
            )
        return partial(_ASGI, cast("Any", app), serving.trusted)
    if looks_like_asgi(app):
        raise UsageFailed("this is an application of ASGI: add --asgi")
    plain = cast("App", app)
    if serving.workers is not None or serving.health is not None:
        # Workers would fail at it, each with a traceback, and with health checks another
        # app is served: so serve nothing here first.
        try:
            trio.run(serve_stream, plain, Recorder())
        except TypeError as exc:
            raise UsageFailed(describe(exc)) from exc
    return partial(_open_plain, plain)


def _open_plain(app: App) -> AbstractAsyncContextManager[App]:
    return nullcontext(app)


@final
class _ASGI(AbstractAsyncContextManager["App", None]):
    # The block of open_asgi().  A failure that the application describes itself is one
    # line; an exception of it, or a traceback in its message, is shown as it is.

    def __init__(self, app: ASGIApp, trusted: TrustedPeers) -> None:
        self._block = open_asgi(app, trusted=trusted)

    async def __aenter__(self) -> App:
        try:
            return await self._block.__aenter__()
        except LifespanFailed as exc:
            raise _describe_failure(exc) from exc.__cause__

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._block.__aexit__(exc_type, exc, traceback)
        except LifespanFailed as failure:
            raise _describe_failure(failure) from failure.__cause__


def _describe_failure(failure: LifespanFailed) -> Exception:
    text = str(failure)
    is_bug = failure.__cause__ is not None or "\n" in text.strip()
    return failure if is_bug else CommandFailed(text)

# trio-upgrade serve: an application of a module, ours or of ASGI.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio

from .. import serve_stream
from ..asgi import open_asgi
from .application import load_application, looks_like_asgi, takes_asgi
from .dialling import Recorder
from .errors import UsageFailed, describe
from .listening import Place
from .serving import Serving

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from .. import App
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
        return partial(open_asgi, cast("Any", app), trusted=serving.trusted)
    if looks_like_asgi(app):
        raise UsageFailed("this is an application of ASGI: add --asgi")
    plain = cast("App", app)
    if serving.workers is not None:
        # Workers would fail at it, each with a traceback: so serve nothing here first.
        try:
            trio.run(serve_stream, plain, Recorder())
        except TypeError as exc:
            raise UsageFailed(describe(exc)) from exc
    return partial(_open_plain, plain)


def _open_plain(app: App) -> AbstractAsyncContextManager[App]:
    return nullcontext(app)

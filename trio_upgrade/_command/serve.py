# trio-upgrade serve: an application of a module, ours or of ASGI.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..asgi import open_asgi
from .application import load_application, looks_like_asgi
from .errors import UsageFailed
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
        return partial(open_asgi, cast("Any", app), trusted=serving.trusted)
    if looks_like_asgi(app):
        raise UsageFailed("this is an application of ASGI: add --asgi")
    return partial(_open_plain, cast("App", app))


def _open_plain(app: App) -> AbstractAsyncContextManager[App]:
    return nullcontext(app)

# The answers to health checks that the program gives itself, for an app that has none.
from __future__ import annotations

from typing import TYPE_CHECKING, final

from .. import Response

if TYPE_CHECKING:
    from .. import App, Request, Tunnel, Upgrade

_METHODS = frozenset({"GET", "HEAD"})


@final
class Health:
    """An app that answers health checks, and leaves all other requests to another app.

    The answer is 200, and 503 as soon as the server is leaving.

    Args:
        app: The other app.
        path: The path of the checks. It is compared octet by octet, with the target up to
            its query; so an absolute target, which may be another host's, is none.
    """

    def __init__(self, app: App, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, request: Request) -> Response | Upgrade | Tunnel | None:
        """Answer a request."""
        is_check = request.target.partition("?")[0] == self._path
        if not is_check or request.method not in _METHODS:
            return await self._app(request)
        if request.server.is_leaving:
            return Response(503, "leaving\n")
        return Response(200, "ok\n")

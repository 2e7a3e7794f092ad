# ASGI applications of the tests, and ways to serve them without sockets.
from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from trio_upgrade import Limits, serve_stream
from trio_upgrade.asgi import open_asgi
from trio_upgrade.testing import ScriptedPeer

from ..recording import Recorder

if TYPE_CHECKING:
    from trio_upgrade import EndReason, ErrorRecord

START: dict[str, Any] = {"type": "http.response.start", "status": 200}
LIMITS = Limits(linger=0)


def start(status=200, *headers, **more) -> dict[str, Any]:
    """Return a start message."""
    return {**START, "status": status, "headers": headers, **more}


def body(data=b"", *, more=False) -> dict[str, Any]:
    """Return a body message."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def sender(*messages, then=None):
    """Return an application that sends these messages and then raises, if told so."""

    async def app(scope, receive, send) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return app


class Served:
    """One application on one scripted connection.

    Attributes:
        peer: The connection.
        errors: The errors that were counted as those of an app.
    """

    def __init__(self, *script: bytes, then="end", limits=LIMITS) -> None:
        self.peer = ScriptedPeer(*script, then=then)
        self.errors: list[ErrorRecord] = []
        self.reason: EndReason | None = None
        self.limits = limits

    @property
    def sent(self) -> bytes:
        """All that the client got."""
        return bytes(self.peer.sent)

    async def serve(self, app, **options) -> Served:
        """Serve the application to the end of the connection; return self."""
        recorder = Recorder()
        options.setdefault("lifespan", "off")
        async with open_asgi(app, **options) as adapter:
            await serve_stream(
                adapter, self.peer, limits=self.limits, observer=recorder
            )
        assert self.peer.closed
        self.errors = recorder.errors
        (self.reason,) = recorder.reasons
        return self


async def serve(app, *script: bytes, then="end", **options) -> bytes:
    """Serve an application without an error; return what the client got."""
    served = await Served(*script, then=then).serve(app, **options)

    assert not served.errors, served.errors
    return served.sent


def starter(served: Served, app, **options):
    """Return a function for nursery.start_soon() that serves the application."""
    return partial(served.serve, app, **options)

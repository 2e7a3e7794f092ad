"""The responses that a server makes by itself."""

from __future__ import annotations

import pytest

from trio_upgrade import (
    BadBody,
    BodyTimeout,
    BodyTooLarge,
    Limits,
    MalformedMessage,
    NotOffered,
    Request,
    Response,
    Unavailable,
    serve_stream,
)
from trio_upgrade._server.response import refuse
from trio_upgrade.testing import ScriptedPeer

from ..wire import get, okay


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MalformedMessage("wrong"), 400),
        (MalformedMessage("wrong", status=431), 431),
        (BadBody("wrong"), 400),
        (BodyTooLarge(7), 413),
        (BodyTimeout(), 408),
        (NotOffered("echo"), 426),
        (Unavailable("wrong"), 503),
    ],
)
def test_refuse(error: Exception, status: int) -> None:
    """Each error of a client has its status; its message is the content."""
    response = refuse(error)

    assert response.status == status
    assert response.body == f"{error}\n".encode()
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_upgrade_required() -> None:
    """A 426 names the required protocol (RFC 9110 §15.5.22)."""
    assert refuse(NotOffered("echo/2")).headers["Upgrade"] == "echo/2"


async def test_date_of_the_app() -> None:
    """A Date that the app gives is the only one; otherwise the server adds one."""

    async def app(request: Request) -> Response:
        fields = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"} if request.query else {}
        return Response(200, b"", fields)

    peer = ScriptedPeer(get("/?own") + get("/"))
    await serve_stream(app, peer, limits=Limits(linger=0), strict=True)

    own = okay(b"").replace(b"Thu, 01 Jan 1970 00:00:00", b"Sun, 06 Nov 1994 08:49:37")
    assert peer.sent == own + okay(b"")

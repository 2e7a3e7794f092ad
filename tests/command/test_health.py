"""Health checks that the program answers itself; the other requests are the app's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_upgrade import Request, Response, Tunnel, Upgrade
from trio_upgrade._command.health import Health
from trio_upgrade.testing import open_pair

if TYPE_CHECKING:
    import trio


async def app(request: Request) -> Response:
    return Response(404, "of the app\n")


@pytest.mark.parametrize("target", ["/health", "/health?from=here"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_checks(method: str, target: str, nursery: trio.Nursery) -> None:
    """GET and HEAD of the path are answered with 200, whatever the query is."""
    async with await open_pair(nursery, Health(app, "/health")) as connection:
        response = await connection.request(method, target)
        assert response.status == 200
        assert await response.read() == (b"ok\n" if method == "GET" else b"")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/health"),
        ("GET", "/health/"),
        ("GET", "/Health"),
        ("GET", "/%68ealth"),
        ("GET", "/"),
        ("GET", "http://other/health"),
    ],
)
async def test_other_requests(method: str, target: str, nursery: trio.Nursery) -> None:
    """The path is compared octet by octet; an absolute target may be another host's."""
    async with await open_pair(nursery, Health(app, "/health")) as connection:
        response = await connection.request(method, target)
        assert response.status == 404
        assert await response.read() == b"of the app\n"


async def test_leaving(nursery: trio.Nursery) -> None:
    """A server that is leaving fails its checks."""

    async def leave(request: Request) -> Response | Upgrade | Tunnel | None:
        request.server.start_drain(5)
        return await Health(app, "/health")(request)

    async with await open_pair(nursery, leave) as connection:
        response = await connection.request("GET", "/health")
        assert response.status == 503
        assert await response.read() == b"leaving\n"

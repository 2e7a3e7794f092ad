"""The line of a tunnel that has ended, as proxy -v shows it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from trio_upgrade import Request, Response, TrustedPeers
from trio_upgrade._command.tunnel_log import TunnelLog
from trio_upgrade.proxy import TunnelRecord
from trio_upgrade.testing import open_pair

if TYPE_CHECKING:
    import trio

    from trio_upgrade._command.tunnel_log import Proxy


async def log_one(nursery: trio.Nursery, target: str, **fields: Any) -> None:
    """Log the tunnel of one request, which a stand-in for a proxy answers."""
    log = TunnelLog(TrustedPeers([]))

    async def proxy(request: Request) -> Response:
        log.write(TunnelRecord(request, **fields))
        return Response(200)

    async def app(request: Request) -> Response | None:
        return await log.watch(cast("Proxy", proxy), request)

    async with await open_pair(nursery, app) as connection:
        response = await connection.request("GET", target)
        assert response.status == 200
    assert not log._clients, "a request is kept after its tunnel"


@pytest.mark.parametrize(
    ("ended_by", "cause", "shown"),
    [
        ("client", "eof", "ended by the client (eof)"),
        ("upstream", "reset", "ended by the upstream (reset)"),
        (None, "idle", "ended by the proxy (idle)"),
    ],
)
async def test_line(
    ended_by: Any, cause: Any, shown: str, nursery: trio.Nursery, caplog
) -> None:
    """It has all that the record has, and neither the query nor a control character."""
    caplog.set_level(logging.INFO, "trio_upgrade.command")
    await log_one(
        nursery,
        "/chat?token=secret",
        protocol="we\nb",
        from_client=5,
        from_upstream=7,
        seconds=1.25,
        ended_by=ended_by,
        cause=cause,
    )

    (line,) = caplog.messages
    assert line.endswith(f"5 bytes sent, 7 received, 1.2 s, {shown}")
    assert line.startswith("tunnel from -, we")
    assert "/chat?***" in line
    assert "secret" not in line
    assert "\n" not in line

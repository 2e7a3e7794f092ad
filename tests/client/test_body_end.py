"""The body whose connection is used again: after its end it asks that no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from trio_upgrade import Headers
from trio_upgrade._client.body_end import BodyReceiver

if TYPE_CHECKING:
    from trio_upgrade._client.http import ClientHTTP


class Connection:
    """Has one body of three bytes, and then that of another exchange."""

    def __init__(self) -> None:
        self.body_left = 3
        self.body_ended = False

    async def receive_body(self) -> bytes:
        assert not self.body_ended, "this is another exchange"
        self.body_ended = True
        return b"abc"

    def get_trailers(self) -> Headers:
        return Headers([(b"a", b"b")])


async def test_end_is_reported_once() -> None:
    """The report comes with the last byte, and the trailer fields are kept."""
    connection, reports = Connection(), []

    async def report() -> None:
        reports.append(connection.body_ended)

    body = BodyReceiver(cast("ClientHTTP", connection), report).make_body(100)
    assert await body.read(None) == b"abc"
    assert await body.receive_some() == b""
    assert reports == [True]
    assert body.trailers == Headers([(b"a", b"b")])


async def test_report_that_failed() -> None:
    """After a report that failed, or was cancelled, the body is over all the same."""

    async def fail() -> None:
        raise OSError("the idle connection that had to go")

    body = BodyReceiver(cast("ClientHTTP", Connection()), fail).make_body(100)
    with pytest.raises(OSError, match="had to go"):
        await body.receive_some()
    assert await body.receive_some() == b""

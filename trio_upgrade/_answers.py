# What a server says by itself, and how anything is said.
from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import BodyError, MalformedMessage, NotOffered, Unavailable
from ._headers import field_values
from ._messages import Response

if TYPE_CHECKING:
    from ._connection import HTTPConnection
    from ._dates import DateClock

TEXT = {"Content-Type": "text/plain; charset=utf-8"}


async def send_response(
    http: HTTPConnection, response: Response, dates: DateClock, *, close: bool
) -> None:
    """Send a :class:`Response` as it is, with a Date unless it has one."""
    fields = response.fields
    if not field_values(fields, b"date"):
        fields = (dates.field(), *fields)
    await http.send_response(
        response.status, response.reason, fields, response.body, close=close
    )


def refuse(error: BaseException) -> Response:
    """Return the plain-text answer that tells a client what was wrong."""
    text = f"{error}\n"
    if isinstance(error, NotOffered):
        return Response(426, text, {**TEXT, "Upgrade": error.protocol})
    if isinstance(error, Unavailable):
        return Response(503, text, TEXT)
    assert isinstance(error, BodyError | MalformedMessage)
    return Response(error.status, text, TEXT)

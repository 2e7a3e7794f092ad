# What a server says by itself.
from __future__ import annotations

from .._errors import BodyError, MalformedMessage, NotOffered, Unavailable
from .._messages import Response

TEXT = {"Content-Type": "text/plain; charset=utf-8"}


def refuse(error: BaseException) -> Response:
    """Return the plain-text answer that tells a client what was wrong."""
    text = f"{error}\n"
    if isinstance(error, NotOffered):
        return Response(426, text, {**TEXT, "Upgrade": error.protocol})
    if isinstance(error, Unavailable):
        return Response(503, text, TEXT)
    assert isinstance(error, BodyError | MalformedMessage)
    return Response(error.status, text, TEXT)

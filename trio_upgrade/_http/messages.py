# The heads of messages, parsed, and the reason phrases of responses.
from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from .._util import public

if TYPE_CHECKING:
    from .headers import Headers

_MULTIPLE_CHOICES = 300
SWITCHING_PROTOCOLS = "Switching Protocols"
# What RFC 9110 §15 calls them; http.HTTPStatus does so from Python 3.13 on.
_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class RequestHead(NamedTuple):
    """The head of a request, as it was parsed.

    Attributes:
        method: The method.
        target: The request target.
        http_version: ``"1.1"`` or ``"1.0"``.
        headers: The fields.
    """

    method: str
    target: str
    http_version: str
    headers: Headers


@public
class ResponseHead(NamedTuple):
    """The head of a response.

    Attributes:
        status: The status code.
        reason: The reason phrase, which may be empty.
        http_version: ``"1.1"`` or ``"1.0"``.
        headers: The fields.
    """

    status: int
    reason: str
    http_version: str
    headers: Headers


def opens_tunnel(status: int) -> bool:
    """Tell whether a final status means a tunnel in answer to CONNECT: any 2xx."""
    return status < _MULTIPLE_CHOICES


def check_reason(reason: str) -> str:
    """Return the reason phrase itself.

    Raises:
        ValueError: It has characters that RFC 9112 §4 does not allow there.
    """
    if not reason.isprintable() or not reason.isascii():
        raise ValueError(f"not a reason phrase: {reason!r}")
    return reason


@cache
def standard_reason(status: int) -> str:
    """Return the phrase of a status; never empty, which llhttp's clients choke on."""
    # Not at the top: a client has no use for it, and it is slow to import.
    from http import HTTPStatus

    phrase = _PHRASES.get(status)
    if phrase is not None:
        return phrase
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

# Parsed request heads and response heads, and the reason phrases of responses.
from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

from .._util import name_kind, public
from .head_syntax import has_controls

if TYPE_CHECKING:
    from .headers import Headers

_MULTIPLE_CHOICES = 300
SWITCHING_PROTOCOLS = "Switching Protocols"
# The phrases of RFC 9110 §15 that http.HTTPStatus has only since Python 3.13.
_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class RequestHead(NamedTuple):
    """The head of a request: its request line and its header section.

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
    """The head of a response: its status line and its header section.

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
    """Return whether a final status opens a tunnel in answer to CONNECT: any 2xx."""
    return status < _MULTIPLE_CHOICES


def check_reason(reason: str) -> str:
    """Check a reason phrase, which is sent as Latin-1, and return it.

    A phrase that a client received can so be sent on octet by octet.

    Raises:
        TypeError: It is not a str.
        ValueError: It has a control character other than HTAB, or a character above
            U+00FF (RFC 9112 §4).
    """
    if not isinstance(cast("object", reason), str):
        raise TypeError(f"a reason phrase must be a str, not {name_kind(reason)}")
    # The usual phrases first: an answer to each request comes here.
    if not (reason.isascii() and reason.isprintable()) and not _is_reason(reason):
        at, wrong = next(
            (at, wrong) for at, wrong in enumerate(reason) if not _is_reason(wrong)
        )
        raise ValueError(
            "a reason phrase must be Latin-1 without control characters but HTAB; it has "
            f"U+{ord(wrong):04X} at index {at}"
        )
    return reason


def _is_reason(text: str) -> bool:
    try:
        return not has_controls(text.encode("latin-1"))
    except UnicodeEncodeError:
        return False


@cache
def standard_reason(status: int) -> str:
    """Return the standard phrase of a status code.

    It is never empty, since clients that use llhttp fail on an empty phrase.
    """
    # Not at the top of the module: it is slow to import, and a client does not need it.
    # A server imports it before it accepts connections.
    from http import HTTPStatus

    phrase = _PHRASES.get(status)
    if phrase is not None:
        return phrase
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

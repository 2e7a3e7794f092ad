# The messages that an application sends for one HTTP request: each is checked here, and
# only here; any truth value is taken for a bool, as other servers do.  The order of the
# messages is the duty of HTTPCall.
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from .types import Message

    Field: TypeAlias = tuple[bytes, bytes]

# RFC 9110 §15.3.5, §15.3.6, §15.4.5: these responses have no content.
WITHOUT_CONTENT = frozenset({204, 205, 304})
# Fields about the length of content: a 204 must not have one (RFC 9110 §8.6), and that of
# a 205 is written by the library.
_WITHOUT_LENGTH = frozenset({204, 205})
_LENGTH = b"content-length"
# Left out of every answer, and of those without content.
_NEVER = frozenset({b"transfer-encoding"})
_NEVER_EMPTY = _NEVER | {_LENGTH}


class Start(NamedTuple):
    """An ``http.response.start``: the header section, held until there is a body."""

    status: int
    fields: list[Field]
    trailers: bool


def parse_start(message: Message) -> Start:
    """Check an ``http.response.start``.

    Transfer-Encoding is left out, as the specification says; so is a Content-Length where
    the status allows none, because other servers let it pass.

    Raises:
        TypeError: A value has another type.
        ValueError: The status is missing or not that of a final response, or there are
            trailers beside a Content-Length (RFC 9112 §6.5, §7.1.2).
    """
    status: object = message.get("status")
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"http.response.start: status must be an int, not {status!r}")
    if not 200 <= status <= 999:
        raise ValueError(f"http.response.start: {status} is no final status")
    left_out = _NEVER if status not in _WITHOUT_LENGTH else _NEVER_EMPTY
    fields = parse_fields(message, "headers", left_out)
    trailers = bool(message.get("trailers"))
    if trailers and any(name.lower() == _LENGTH for name, _ in fields):
        raise ValueError("http.response.start: trailers need a chunked body")
    return Start(status, fields, trailers)


def parse_body(message: Message) -> tuple[bytes, bool]:
    """Check an ``http.response.body``; return the bytes and whether more will come.

    Raises:
        TypeError: A value has another type.
    """
    body: object = message.get("body", b"")
    if not isinstance(body, bytes):
        if not isinstance(body, bytearray | memoryview):
            kind = type(body).__name__
            raise TypeError(f"http.response.body: body must be bytes, not {kind}")
        # A copy: the application may change it while it is being sent.
        body = bytes(cast("bytes", body))
    return body, bool(message.get("more_body"))


def parse_trailers(message: Message) -> tuple[list[Field], bool]:
    """Check an ``http.response.trailers``; return the fields and whether more come.

    Raises:
        TypeError: A value has another type.
    """
    fields = parse_fields(message, "headers", frozenset())
    return fields, bool(message.get("more_trailers"))


def parse_early_hint(message: Message) -> list[Field]:
    """Check an ``http.response.early_hint``; return the Link fields (RFC 8297 §2).

    Raises:
        TypeError: A value has another type.
    """
    links: object = message.get("links", ())
    if isinstance(links, str | bytes) or not isinstance(links, Iterable):
        raise TypeError("http.response.early_hint: links must be an iterable of bytes")
    fields: list[Field] = []
    for link in cast("Iterable[object]", links):
        if not isinstance(link, bytes):
            raise TypeError(f"http.response.early_hint: a link must be bytes: {link!r}")
        fields.append((b"Link", link))
    return fields


def parse_fields(
    message: Message, name: str, left_out: frozenset[bytes]
) -> list[Field]:
    """Check the fields of a message, and return them but for those that are left out.

    Args:
        message: The message.
        name: The key of the fields.
        left_out: Names in lower case.

    Raises:
        TypeError: They are no pairs of bytes.
    """
    fields: list[Field] = []
    pairs: object = message.get(name, ())
    # The usual case first: the check of an abstract class is slow.
    if type(pairs) is not list and (
        isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable)
    ):
        raise TypeError(f"{message['type']}: {name} must be an iterable of pairs")
    for pair in cast("Iterable[object]", pairs):
        try:
            key, value = cast("tuple[object, object]", pair)
        except (TypeError, ValueError):
            # The message does not show the pair: it may have a secret.
            key = value = None
        if not (isinstance(key, bytes) and isinstance(value, bytes)):
            raise TypeError(f"{message['type']}: {name} must be pairs of bytes")
        if key.lower() not in left_out:
            fields.append((key, value))
    return fields

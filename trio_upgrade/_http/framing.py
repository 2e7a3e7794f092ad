# Checks what a message says about itself before h11 sees it: its version, its Host field,
# and where its body ends.  These checks read the raw bytes, since h11 merges equal
# lengths, prefers a transfer coding to a length, and accepts any Host.  The rules are the
# same whether or not the request is an upgrade.
#
# The message head (start-line and header section) must have passed check_head(), so each
# line ends in CRLF and no line is folded.
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._errors import MalformedMessage
from .decisive_fields import find_decisive
from .targets import check_authority
from .tokens import split_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .headers import Field

_find_request_version = re.compile(rb" HTTP/([0-9]\.[0-9])\r\n").search
_NO_HOST = "no Host field, which every HTTP/1.1 request must have, a CONNECT too"
# Strings, which re compiles when a client first uses them: servers import faster.
_RESPONSE_VERSION = rb"HTTP/([0-9]\.[0-9])[ \r]"
_FRAMING_LINES = rb"(?i)\n(?:content-length|transfer-encoding):[^\r]*\r(?=\n)"
# No length is greater: many programs read it into a signed number of 64 bits, and two
# that disagree about it frame the message differently.  As many digits as h11 accepts.
_GREATEST_LENGTH = 2**63 - 1
_MOST_DIGITS = 20
# A decimal number with so many digits is never too great.
_HARMLESS_DIGITS = 18
_DIGITS = {10: b"0123456789", 16: b"0123456789ABCDEFabcdef"}


def parse_length(digits: bytes, base: int = 10) -> int:
    """Return the number of bytes in a Content-Length or, with base 16, a chunk header.

    Raises:
        ValueError: It is not digits alone (RFC 9110 §8.6, RFC 9112 §7.1), there are more
            than 20, or the number is above 2^63 - 1. The message completes a sentence.
    """
    # int() alone would accept signs, blanks, underscores and a prefix.
    if not digits or digits.translate(None, _DIGITS[base]):
        raise ValueError("is not a number")
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"has more than {_MOST_DIGITS} digits")
    length = int(digits, base)
    if length > _GREATEST_LENGTH:
        raise ValueError("is above 2^63 - 1")
    return length


def parse_given_length(values: Sequence[bytes]) -> int:
    """Return the number of a Content-Length that a user gave, from its lines.

    Raises:
        ValueError: It is not one number, or one that no recipient could read.
    """
    if len(values) != 1:
        raise ValueError(f"Content-Length is not one number but {len(values)}")
    try:
        return parse_length(values[0])
    except ValueError as exc:
        raise ValueError(f"Content-Length {exc}: {values[0]!r}") from None


def check_request(head: bytes) -> tuple[list[Field], dict[bytes, list[bytes]]]:
    """Check a request head that has passed :func:`check_head`.

    Args:
        head: The bytes as received.

    Returns:
        The decisive fields as they came, and their values by name, line by line; the
        names are in lower case there. They are valid if h11 accepts the request head as
        well.

    Raises:
        MalformedMessage: The version is neither HTTP/1.0 nor HTTP/1.1 (RFC 9110
            §15.6.6), Host is missing, repeated or malformed (RFC 9112 §3.2), the end of
            the body is ambiguous or its length no number below 2^63 (§6.1, §6.3), a
            CONNECT has content (RFC 9110 §9.3.6), or Expect names something other than
            100-continue (§10.1.1).
    """
    is_http10 = False
    if not head.endswith(b" HTTP/1.1", 0, head.find(b"\r")):
        is_http10 = _check_version(_find_request_version(head))
    found = find_decisive(head)
    fields = _group(found)
    _check_host(fields.get(b"host", ()), required=not is_http10)
    lengths = fields.get(b"content-length", ())
    codings = fields.get(b"transfer-encoding", ())
    if lengths or codings:
        if len(lengths) > 1 or any(b"," in length for length in lengths):
            # Equal lengths too: a client that repeats its length is broken or attacks.
            raise MalformedMessage("more than one Content-Length")
        _check_body_length(lengths, codings, is_http10=is_http10)
        content = codings or any(length.strip(b"0") for length in lengths)
        if content and head.startswith(b"CONNECT "):
            raise MalformedMessage("a CONNECT has no content")
    if b"expect" in fields and not is_http10:
        for expectation in split_list(fields[b"expect"]):
            if expectation.lower() != "100-continue":
                raise MalformedMessage("an unknown expectation", status=417)
    return found, fields


def check_response(
    head: bytes, *, has_body: bool
) -> tuple[list[Field], dict[bytes, list[bytes]]]:
    """Check a response head that has passed :func:`check_head`.

    Equal lengths are allowed and merged, as RFC 9110 §8.6 permits: one server answers
    one request here, so no second reader can disagree.

    Args:
        head: The bytes as received.
        has_body: Whether the response can have a body. If not, its framing fields mean
            nothing and are not checked.

    Returns:
        As :func:`check_request`.

    Raises:
        MalformedMessage: The version is neither HTTP/1.0 nor HTTP/1.1, or the end of the
            body is ambiguous or its length no number below 2^63 (RFC 9112 §6.1, §6.3).
    """
    is_http10 = False
    if not head.startswith(b"HTTP/1.1 "):
        is_http10 = _check_version(re.match(_RESPONSE_VERSION, head))
    found = find_decisive(head)
    fields = _group(found)
    if has_body:
        lengths = fields.get(b"content-length", ())
        codings = fields.get(b"transfer-encoding", ())
        _check_body_length(lengths, codings, is_http10=is_http10)
    return found, fields


def drop_framing(head: bytes) -> bytes:
    """Return a message head without its framing fields.

    In a 2xx to CONNECT they MUST be ignored (RFC 9110 §9.3.6), and a 1xx ends at its
    empty line whatever they say (RFC 9112 §6.3); even malformed ones.
    """
    return re.sub(_FRAMING_LINES, b"", head)


def _group(found: list[Field]) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in found:
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return fields


def _check_version(match: re.Match[bytes] | None) -> bool:
    # Returns whether the message is HTTP/1.0.  If it has no version, h11 refuses it.
    version: bytes = b"1.1" if match is None else match[1]
    if version in (b"1.1", b"1.0"):
        return version == b"1.0"
    # RFC 9110 §15.6.6 is about major versions: 505.  A minor version above 1 is a 400,
    # since there is no HTTP/1.2 and its rules are unknown.
    raise MalformedMessage(
        f"HTTP/{version.decode()} is not supported",
        status=400 if version.startswith(b"1") else 505,
    )


def _check_host(values: Sequence[bytes], *, required: bool) -> None:
    if len(values) > 1:
        raise MalformedMessage("more than one Host field")
    if not values:
        if required:
            raise MalformedMessage(_NO_HOST)
        return
    try:
        # An empty Host is well formed: Go's clients send it over Unix sockets.
        check_authority(values[0])
    except ValueError as exc:
        raise MalformedMessage(f"a malformed Host field: {exc}") from exc


def _check_lengths(lengths: Iterable[bytes]) -> None:
    # Whether several are equal is left to h11.
    for line in lengths:
        if len(line) > _HARMLESS_DIGITS or not line.isdigit():
            for length in line.split(b","):
                try:
                    parse_length(length.strip(b" \t"))
                except ValueError as exc:
                    raise MalformedMessage(f"a Content-Length that {exc}") from None


def _check_body_length(
    lengths: Iterable[bytes], values: Iterable[bytes], *, is_http10: bool
) -> None:
    if not values:
        _check_lengths(lengths)
        return
    if lengths:
        raise MalformedMessage("both Content-Length and Transfer-Encoding")
    if is_http10:
        raise MalformedMessage("a transfer coding in HTTP/1.0")
    codings = [coding.lower() for coding in split_list(values)]
    if codings[-1:] != ["chunked"] or codings.count("chunked") > 1:
        raise MalformedMessage(
            "chunked is not the last transfer coding, or is repeated"
        )
    if len(codings) > 1:
        raise MalformedMessage("a transfer coding other than chunked", status=501)

# What the head of a message must agree on with itself before h11 sees it, our own too:
# its version, its Host, and where its body ends.  Read from the raw bytes, since h11
# merges equal lengths, lets a transfer coding win over a length, and takes any Host.
# The rules are the same whether or not the request is an upgrade.
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._errors import MalformedMessage
from .headers import DECISIVE_FIELDS
from .targets import check_authority
from .tokens import split_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# Behind check_head a line ends at its CR.  A blank before the colon is left to h11,
# which refuses it.
_find_fields = re.compile(
    rb"\n(" + b"|".join(sorted(DECISIVE_FIELDS)) + rb"):([^\r]*)", re.IGNORECASE
).findall
_find_request_version = re.compile(rb" HTTP/([0-9]\.[0-9])\r\n").search
# Strings, which re compiles when a client comes to use them: servers import faster.
_RESPONSE_VERSION = rb"HTTP/([0-9]\.[0-9])[ \r]"
_FRAMING_LINES = rb"(?i)\n(?:content-length|transfer-encoding):[^\r]*\r(?=\n)"


def check_request(head: bytes) -> dict[bytes, list[bytes]]:
    """Check the head of a request, which :func:`check_head` has passed.

    Returns:
        The lines of its decisive fields, by their names in lower case. They hold if h11
        takes the head as well.

    Raises:
        MalformedMessage: The version is none of HTTP/1.0 and 1.1 (RFC 9110 §15.6.6),
            Host is missing, repeated or malformed (RFC 9112 §3.2), the body's end can
            be read in two ways (§6.1, §6.3), a CONNECT has content (RFC 9110 §9.3.6),
            or something other than a 100 is expected (§10.1.1).
    """
    is_http10 = False
    if not head.endswith(b" HTTP/1.1", 0, head.find(b"\r")):
        is_http10 = _check_version(_find_request_version(head))
    fields = _gather(head)
    _check_host(fields.get(b"host", ()), required=not is_http10)
    lengths = fields.get(b"content-length", ())
    codings = fields.get(b"transfer-encoding", ())
    if lengths or codings:
        if len(lengths) > 1 or any(b"," in length for length in lengths):
            # Equal ones too: whoever repeats it is confused, or wants to confuse.
            raise MalformedMessage("more than one Content-Length")
        _check_body(lengths, codings, is_http10=is_http10)
        content = codings or any(length.strip(b"0") for length in lengths)
        if content and head.startswith(b"CONNECT "):
            raise MalformedMessage("a CONNECT has no content")
    if b"expect" in fields and not is_http10:
        for expectation in split_list(fields[b"expect"]):
            if expectation.lower() != "100-continue":
                raise MalformedMessage("an unknown expectation", status=417)
    return fields


def check_response(head: bytes, *, has_body: bool) -> None:
    """Check the head of a response, which :func:`check_head` has passed.

    Equal lengths are merged, as RFC 9110 §8.6 permits: the answer of one server to
    one request confuses nobody.

    Args:
        head: The bytes as they came.
        has_body: Whether its framing fields mean anything.

    Raises:
        MalformedMessage: The version is none of HTTP/1.0 and 1.1, or the body's end
            can be read in two ways (RFC 9112 §6.1, §6.3).
    """
    is_http10 = _check_version(re.match(_RESPONSE_VERSION, head))
    if has_body:
        fields = _gather(head)
        lengths = fields.get(b"content-length", ())
        _check_body(lengths, fields.get(b"transfer-encoding", ()), is_http10=is_http10)


def drop_framing(head: bytes) -> bytes:
    """Return a head without its framing fields.

    In a 2xx to CONNECT they MUST be ignored, malformed ones too (RFC 9110 §9.3.6).
    """
    return re.sub(_FRAMING_LINES, b"", head)


def _gather(head: bytes) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in _find_fields(head):
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return fields


def _check_version(match: re.Match[bytes] | None) -> bool:
    # Whether it is HTTP/1.0.  Where no version stands at all, h11 says so.
    version: bytes = b"1.1" if match is None else match[1]
    if version in (b"1.1", b"1.0"):
        return version == b"1.0"
    # RFC 9110 §15.6.6 is about major versions.  There is no HTTP/1.2, so nobody who
    # speaks it can be understood.
    raise MalformedMessage(
        f"HTTP/{version.decode()} is not spoken here",
        status=400 if version.startswith(b"1") else 505,
    )


def _check_host(values: Sequence[bytes], *, required: bool) -> None:
    if len(values) > 1:
        raise MalformedMessage("more than one Host field")
    if not values:
        if required:
            raise MalformedMessage("no Host field")
        return
    try:
        # An empty one is well formed: Go's clients send it over Unix sockets.
        check_authority(values[0])
    except ValueError as exc:
        raise MalformedMessage(f"a malformed Host field: {exc}") from exc


def _check_body(
    lengths: Iterable[bytes], values: Iterable[bytes], *, is_http10: bool
) -> None:
    if not values:
        return
    if lengths:
        raise MalformedMessage("both Content-Length and Transfer-Encoding")
    if is_http10:
        raise MalformedMessage("a transfer coding in HTTP/1.0")
    codings = [coding.lower() for coding in split_list(values)]
    if codings[-1:] != ["chunked"] or codings.count("chunked") > 1:
        raise MalformedMessage("the transfer coding does not end in one chunked")
    if len(codings) > 1:
        raise MalformedMessage("a transfer coding other than chunked", status=501)

# Checks the lines of a message head before h11 sees them: how they end, which
# characters they have, how many they are.  h11 splits lines at a bare LF and unfolds
# folded lines, and its events do not show that it did.  So these rules read the raw
# bytes.  They are the same whether or not the request is an upgrade.
#
# "Message head" means the start-line, the header section and the blank line after them.
from __future__ import annotations

import re

from .._errors import MalformedMessage
from .decisive_fields import is_well_formed

# RFC 9110 §5.5: recipients differ in what they make of these.  That is the danger.
_CONTROLS = bytes(octet for octet in (*range(0x20), 0x7F) if octet not in b"\t\r\n")
_BARE_LINE_END = "a bare CR or LF in the message head"
_CONTROL = "a control character in the message head"
# RFC 8446 §5.1.  A server that is spoken to in clear text sends an alert.
_TLS_RECORDS = {0x15: "alert", 0x16: "handshake"}
# The first octet of a method or of "HTTP/": a tchar.
TCHARS = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_PRINTABLE = frozenset(range(0x20, 0x7F))
_DIGITS = b"0123456789"
# The first line of the PROXY protocol's version 1, which HAProxy and others put before a
# request if they are told to.  Version 2 begins with two blank lines.
_PROXY_LINES = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
_REQUEST_LINE_PARTS = 3
_REQUEST_VERSION = rb"HTTP/[0-9]\.[0-9]"
# RFC 9112 §4, as h11 reads it: the blank and the reason phrase may be missing.  Strings,
# which re compiles when a client first uses them: servers import faster.
_STATUS_LINE = rb"HTTP/1\.[0-9] [1-9][0-9]{2}(?: [^\x00-\x08\n-\x1f\x7f]*)?\r\n"
# The octets that may stand at each place of a status line, up to the reason phrase.
_STATUS_OCTETS = (
    *(b"H", b"T", b"T", b"P", b"/", b"1", b".", _DIGITS, b" "),
    *(b"123456789", _DIGITS, _DIGITS, b" \r"),
)


def find_head_end(data: bytes | bytearray, start: int) -> int:
    """Return the index after the message head at the start of ``data``.

    The message head ends with the first empty line. The CR of that line may be missing,
    since h11 ends the message head there as well; :func:`check_head` then refuses it.

    Args:
        data: The bytes received so far.
        start: The index from which to search.

    Returns:
        The index, -1 if the empty line has not been received.
    """
    # Not by a regex, which takes three times as long.
    end = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, len(data) if end < 0 else end + 1)
    if bare >= 0:
        return bare + 2
    return end if end < 0 else end + 3


def check_first_octet(octet: int) -> None:
    """Check the first octet of a message, without waiting for the end of its head.

    Raises:
        MalformedMessage: No start-line begins with this octet.
    """
    if octet in _TLS_RECORDS:
        raise MalformedMessage(
            f"a TLS {_TLS_RECORDS[octet]} where plain HTTP was expected"
        )
    if octet not in TCHARS:
        raise MalformedMessage(f"no HTTP message begins with octet 0x{octet:02x}")


def check_second_blank_line(data: bytes | bytearray) -> None:
    """Check the bytes after a blank line, which a server ignores before a request.

    Raises:
        MalformedMessage: Another blank line begins.
    """
    if data.startswith(b"\r"):
        raise MalformedMessage(
            "no HTTP message begins with octet 0x0d after a blank line; a PROXY protocol "
            "header of version 2 does"
        )


def find_line_fault(head: bytes) -> str | None:
    """Return what is wrong with a line of a request head; None if each is well formed.

    For the text of a refusal: h11 says only which kind of line is illegal. No part of a
    line is quoted, since it may be a secret.

    Args:
        head: A message head that has passed :func:`check_head`.
    """
    line, *fields = head[:-4].split(b"\r\n")
    fault = _find_request_line_fault(line)
    for number, field in enumerate(fields, 1):
        fault = fault or _find_field_fault(field, number)
    return fault


def _find_request_line_fault(line: bytes) -> str | None:
    if line.startswith(_PROXY_LINES):
        return "a PROXY protocol header where a request was expected"
    for index, octet in enumerate(line):
        if octet not in _PRINTABLE:
            return (
                f"the request line has octet 0x{octet:02x} at index {index}: it must be "
                "ASCII, and other characters of the target are written as %-escapes"
            )
    parts = line.split(b" ")
    if len(parts) != _REQUEST_LINE_PARTS or not all(parts):
        return (
            "the request line must be a method, a target and HTTP/1.1, with one blank "
            f"after each of the first two; the number of its blanks is {len(parts) - 1}"
        )
    if not re.fullmatch(_REQUEST_VERSION, parts[2]):
        return "the request line does not end in HTTP/1.1"
    return _find_token_fault("the method", parts[0])


def _find_field_fault(line: bytes, number: int) -> str | None:
    name, colon, _ = line.partition(b":")
    if not colon:
        return f"field line {number} has no colon"
    return _find_token_fault(f"the name in field line {number}", name)


def _find_token_fault(named: str, token: bytes) -> str | None:
    if not token:
        return f"{named} is empty"
    for index, octet in enumerate(token):
        if octet not in TCHARS:
            return f"{named} has octet 0x{octet:02x} at index {index}: it is no token"
    return None


def check_status_line(data: bytes | bytearray) -> None:
    """Check the beginning of a response, as far as it was received.

    A peer of another protocol that greets and then waits sends no empty line, so a
    check of the whole message head would wait for ever.

    Args:
        data: The bytes received so far, perhaps with more than the status line.

    Raises:
        MalformedMessage: They hold an octet that no status line of HTTP/1.x has there.
    """
    if not data or re.match(_STATUS_LINE, data):
        return
    for size, allowed in zip(range(1, len(data) + 1), _STATUS_OCTETS, strict=False):
        if data[size - 1] not in allowed:
            check_first_octet(data[0])
            # Not quoted further: what follows may be a secret.
            beginning = data[:size].decode("latin-1")
            raise MalformedMessage(f"no HTTP/1.x status line begins with {beginning!a}")
    # The line is not complete, or its reason phrase or its end is wrong.
    line, _, rest = data[len(_STATUS_OCTETS) - 1 :].partition(b"\r")
    if b"\n" in line or rest[:1] not in (b"", b"\n"):
        raise MalformedMessage(_BARE_LINE_END)
    if has_controls(bytes(line)):
        raise MalformedMessage(_CONTROL)


def check_head(head: bytes, max_fields: int) -> bool:
    """Check one whole message head, including the blank line at its end.

    Args:
        head: The bytes as received.
        max_fields: The largest number of fields: ``Limits.header_fields``.

    Returns:
        Whether :func:`is_well_formed`: then h11 has nothing to find fault with in the
        fields that it does not decide by.

    Raises:
        MalformedMessage: A line does not end in CRLF, there is a CR or another control
            character inside a line, a line is folded (RFC 9112 §2.2, §5.2; RFC 9110
            §5.5), or there are too many fields.
    """
    well_formed = is_well_formed(head)
    lines = head.count(b"\n")
    if not well_formed:
        if not head.count(b"\r\n") == head.count(b"\r") == lines:
            raise MalformedMessage(_BARE_LINE_END)
        if len(head.translate(None, _CONTROLS)) != len(head):
            raise MalformedMessage(_CONTROL)
        if b"\n " in head or b"\n\t" in head:
            raise MalformedMessage("a folded field line")
    if lines - 2 > max_fields:
        raise MalformedMessage(
            f"more than {max_fields} fields (header_fields)", status=431
        )
    return well_formed


def has_controls(line: bytes) -> bool:
    """Return whether a line, given without its CRLF, has a control character in it."""
    return len(line.translate(None, b"\r\n" + _CONTROLS)) != len(line)

# What the lines of a head must be before h11 sees them.  h11 splits at a bare LF, unfolds
# folded lines and forgets that it did; afterwards nothing can tell.  So these rules read
# the raw bytes, and they are the same whether or not the request is an upgrade.
from __future__ import annotations

from .._errors import MalformedMessage

# RFC 9110 §5.5: a recipient may take these for what it likes, which is the trouble.
_CONTROLS = bytes(octet for octet in (*range(0x20), 0x7F) if octet not in b"\t\r\n")
_TLS_HANDSHAKE = 0x16
# The first octet of a method or of "HTTP/": a tchar.
TCHARS = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def find_head_end(data: bytes | bytearray, start: int) -> int:
    """Return where the head ends that this begins with, -1 if its end is not here.

    Behind the first empty line, whose CR may be missing: there h11 ends it as well.

    Args:
        data: The bytes.
        start: Where to begin to look.
    """
    # Not by a regex, which takes three times as long.
    end = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, len(data) if end < 0 else end + 1)
    if bare >= 0:
        return bare + 2
    return end if end < 0 else end + 3


def check_first_octet(octet: int) -> None:
    """Refuse at once what cannot become a head, before its end has to come.

    Raises:
        MalformedMessage: No start-line begins with this octet.
    """
    if octet == _TLS_HANDSHAKE:
        raise MalformedMessage("TLS spoken where plain HTTP was expected")
    if octet not in TCHARS:
        raise MalformedMessage(f"no HTTP message begins with octet 0x{octet:02x}")


def check_head(head: bytes, max_fields: int) -> None:
    """Check one whole head, its blank line included.

    Args:
        head: The bytes as they came.
        max_fields: How many fields it may have.

    Raises:
        MalformedMessage: A line does not end in CRLF, a CR or another control
            character stands elsewhere, a line is folded (RFC 9112 §2.2, §5.2; RFC 9110
            §5.5), or there are too many fields.
    """
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise MalformedMessage("a CR or LF alone in the head")
    # A third of a regex's time, and nothing to compile.
    if len(head.translate(None, _CONTROLS)) != len(head):
        raise MalformedMessage("a control character in the head")
    if b"\n " in head or b"\n\t" in head:
        raise MalformedMessage("a folded field line")
    if lines - 2 > max_fields:
        raise MalformedMessage(f"more than {max_fields} fields", status=431)


def has_controls(line: bytes) -> bool:
    """Tell whether a line, its CRLF taken off, has a control character in it."""
    return len(line.translate(None, b"\r\n" + _CONTROLS)) != len(line)

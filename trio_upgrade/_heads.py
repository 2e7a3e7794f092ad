# What a head must be before h11 sees it.  h11 splits lines at a bare LF, unfolds folded
# ones and forgets that it did; afterwards nothing can tell.  So these rules read the raw
# bytes, and they are the same whether or not the request is an upgrade.
from __future__ import annotations

import re

from ._errors import MalformedMessage

# Where h11 ends a head, so that both always see the same one.
find_head_end = re.compile(rb"\n\r?\n").search
_find_fold = re.compile(rb"\n[ \t]").search
# The first octet of a method or of "HTTP/": a tchar.  A TLS hello has 0x16 here.
_TCHARS = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def check_first_octet(octet: int) -> None:
    """Refuse at once what cannot become a head, before its end has to come.

    Raises:
        MalformedMessage: No start-line begins with this octet.
    """
    if octet not in _TCHARS:
        raise MalformedMessage(f"no HTTP message begins with octet 0x{octet:02x}")


def check_head(head: bytes, max_fields: int) -> None:
    """Check one whole head, its blank line included.

    Args:
        head: The bytes as they came.
        max_fields: How many fields it may have.

    Raises:
        MalformedMessage: A line does not end in CRLF, a CR stands elsewhere, a line is
            folded (RFC 9112 §2.2, §5.2), or there are too many fields.
    """
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise MalformedMessage("a CR or LF alone in the head")
    if _find_fold(head):
        raise MalformedMessage("a folded field line")
    if lines - 2 > max_fields:
        raise MalformedMessage(f"more than {max_fields} fields", status=431)


def is_switch_head(head: bytes) -> bool:
    """Tell whether a response head is a 101, before h11 judges if one was due."""
    return head[8:13].rstrip() == b" 101"

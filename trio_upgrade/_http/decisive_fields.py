# Less work for h11.  A field line costs h11 about 19,000 instructions; a browser sends
# thirteen.  But h11 decides by the six decisive fields only.  Of every other line
# it checks the grammar, and then it only lists the field; we do not use that list.
#
# So one regular expression checks the grammar of a whole message head, more strictly than
# h11 does.  If it matches, h11 gets the start-line and the lines of the decisive fields,
# as they came and in their order: h11 would have accepted each line that is left out, so
# its decision about the message is the same.  Otherwise h11 gets the message head whole,
# so that each refusal is h11's own.  To leave out a single line pays already.
#
# h11 remains the authority on everything that it decides today.  The rejected alternative
# is to remember what h11 made of earlier message heads: that keeps targets, which carry
# tokens, in memory, and helps only clients that repeat themselves.
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .headers import DECISIVE_FIELDS

if TYPE_CHECKING:
    from .headers import Field

# A field line with a token for a name (RFC 9110 §5.1) and a value of §5.5: HTAB, visible
# characters, blanks, obs-text.  h11 accepts a value if it has no NUL, VT, FF, CR or LF.
# A folded line begins with a blank, which is no token.  The possessive quantifiers never
# try again with fewer octets, so the time is linear for any input.
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+\r\n"
_is_well_formed = re.compile(
    _VALUE + rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:" + _VALUE + rb")*+\r\n"
).fullmatch
# In a message head whose lines all end in CRLF, a line ends at its CR.  The look-ahead
# spares most lines the alternatives.
_initials = b"".join(sorted({name[:1] for name in DECISIVE_FIELDS}))
_find_decisive = re.compile(
    rb"\n(?=[%b])(%b):([^\r]*)" % (_initials, b"|".join(sorted(DECISIVE_FIELDS))),
    re.IGNORECASE,
).findall


def is_well_formed(head: bytes) -> bool:
    """Return whether all lines of a message head are such that h11 accepts the fields.

    Every line ends in CRLF and none has another control character than HTAB in it. Every
    line after the start-line is a token, a colon and a value, and none is folded. False
    means only that this has to be found out in another way.
    """
    return _is_well_formed(head) is not None


def find_decisive(head: bytes) -> list[Field]:
    """Return the names and the values of the decisive fields, as they came, in order.

    Args:
        head: A message head whose lines all end in CRLF. A line with a blank before the
            colon is left out, which h11 refuses.
    """
    return _find_decisive(head)


def keep_decisive(head: bytes, decisive: list[Field]) -> bytes:
    """Return a message head for h11, without the fields that h11 does not decide by.

    If there are no such fields, this is ``head`` itself.

    Args:
        head: A message head that :func:`is_well_formed`.
        decisive: What :func:`find_decisive` returns for it.
    """
    if head.count(b"\n") - 2 == len(decisive):
        return head
    lines = [b"%b:%b\r\n" % field for field in decisive]
    return b"%b%b\r\n" % (head[: head.index(b"\n") + 1], b"".join(lines))

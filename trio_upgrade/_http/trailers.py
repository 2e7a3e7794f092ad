# The trailer fields that a user may send after a chunked body, for both roles.
from __future__ import annotations

from typing import TYPE_CHECKING

from .headers import FRAMING_FIELDS, HOP_BY_HOP_FIELDS, encode_fields

if TYPE_CHECKING:
    from .headers import Field, HeadersLike

# Fields that a recipient has to evaluate before it gets the content (RFC 9110 §6.5.1).
# A recipient that merges trailer fields into the header section would let them change
# what was decided already.  The list is that of Go's httpguts.ValidTrailerHeader, with
# Upgrade and cookies.  Authentication-Info is not on it: §11.6.3 allows it in trailers.
_FORBIDDEN = (
    FRAMING_FIELDS
    | HOP_BY_HOP_FIELDS
    | {
        # Routing.
        b"host",
        b"max-forwards",
        # Authentication, and cookies, which stand for it (RFC 6265).
        b"authorization",
        b"cookie",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"set-cookie",
        b"www-authenticate",
        # How to handle the request, the response and the content.
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"expect",
        b"pragma",
        b"range",
        b"trailer",
    }
)
_CONDITION = b"if-"


def trailer_fields(headers: HeadersLike) -> tuple[Field, ...]:
    """Check the trailer fields that a user gave, and return them as pairs of bytes.

    Nothing here depends on ``TE: trailers``. A client that does not send it has not said
    that it keeps trailer fields, and an intermediary may drop them (RFC 9110 §6.5.1,
    §10.1.4). But every recipient of a chunked body has to read them (RFC 9112 §7.1.2),
    and browsers, curl and Node do so without sending TE.

    Raises:
        TypeError: These are no pairs, or a name or a value is neither str nor bytes.
        ValueError: A field is malformed, or has no meaning after the content: a field of
            framing, routing, authentication, or one that says how to handle the message.
    """
    fields = encode_fields(headers)
    for name, _ in fields:
        lower = name.lower()
        if lower in _FORBIDDEN or lower.startswith(_CONDITION):
            raise ValueError(f"{name.decode('ascii')} cannot be a trailer field")
    return fields

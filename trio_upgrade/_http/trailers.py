# Trailer fields, of requests and of responses: which may be sent, and when they are known.
#
# A recipient may merge trailer fields into the header section or drop them (RFC 9110
# §6.5.1), so a field that decides how a message is read must not come after its content.
from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .headers import (
    FRAMING_FIELDS,
    HOP_BY_HOP_FIELDS,
    Field,
    HeadersLike,
    encode_fields,
)

# A function is called when the content is over: a checksum is not known before.
TrailersLike: TypeAlias = HeadersLike | Callable[[], HeadersLike]

# RFC 9110 §6.5.1 names the groups, and these are their fields.  Not Authentication-Info,
# for which RFC 9110 §11.6.3 allows it, nor ETag and Date, which describe.
TRAILER_FORBIDDEN = (
    FRAMING_FIELDS
    | HOP_BY_HOP_FIELDS
    | frozenset(
        {
            # Routing, and the list of the trailer fields.
            b"host",
            b"trailer",
            # Authentication.
            b"authorization",
            b"cookie",
            b"proxy-authenticate",
            b"proxy-authorization",
            b"set-cookie",
            b"www-authenticate",
            # Request modifiers.
            b"cache-control",
            b"expect",
            b"if-match",
            b"if-modified-since",
            b"if-none-match",
            b"if-range",
            b"if-unmodified-since",
            b"max-forwards",
            b"pragma",
            b"range",
            # Response controls.
            b"age",
            b"expires",
            b"location",
            b"retry-after",
            b"vary",
            # Content format.
            b"content-encoding",
            b"content-range",
            b"content-type",
        }
    )
)


def encode_trailers(trailers: HeadersLike) -> tuple[Field, ...]:
    """Check the trailer fields that a user gave, and return them as pairs of bytes.

    Raises:
        TypeError: As :func:`encode_fields` does.
        ValueError: A field is malformed, or must not be a trailer field.
    """
    fields = encode_fields(trailers)
    for name, _ in fields:
        if name.lower() in TRAILER_FORBIDDEN:
            raise ValueError(f"{name.decode()} must not be a trailer field")
    return fields

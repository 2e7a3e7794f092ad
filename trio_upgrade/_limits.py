# Every bound that a user may want to move, in one place.  A field exists only where
# something enforces it.
from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a server or a client connection: bytes, counts and seconds.

    Immutable, so one object can serve any number of connections.

    Raises:
        ValueError: A bound is negative.
        TypeError: A bound is no number, or None where that means nothing.
    """

    head_bytes: int = 32 * 1024
    """The longest message head, in bytes, first line to blank line; also the longest
    chunk header or trailer block. Browsers with large cookies send up to 16 KiB."""

    header_fields: int = 128
    """The most fields in one head. Nothing legitimate is known to send 100."""

    body_bytes: int = 1024 * 1024
    """The most body bytes that ``read()`` gathers in memory when it is called without
    a limit of its own. A body that is streamed has no such bound."""

    drain_body: int = 64 * 1024
    """The most body bytes that are read and dropped when the app did not want them,
    so that the connection can go on or switch. One receive's worth: it costs less
    than a new connection."""

    refusal_body: int = 64 * 1024
    """The most bytes of a refusal's body that a failed ``open_upgrade`` keeps."""

    informational: int = 16
    """The most 1xx responses that a client takes before the final one. A server that
    sends more is not going to stop (RFC 9110 §15.2 sets no number)."""

    continue_timeout: float = 1.0
    """Seconds that a client waits for a 100 before it sends the body all the same, if
    the request says ``Expect: 100-continue``. As curl; a server that knows nothing of
    it must not make the client wait for ever (RFC 9110 §10.1.1)."""

    linger: float | None = 2.0
    """Seconds that a closing connection goes on reading, so that the peer gets our
    last bytes and not a reset (RFC 9112 §9.6). 0 does not wait; None waits until the
    peer has closed too."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and "None" in str(field.type):
                continue
            if not isinstance(value, int | float):
                raise TypeError(f"{field.name} must be a number, not {value!r}")
            if not value >= 0:
                raise ValueError(f"{field.name} must not be negative, not {value!r}")

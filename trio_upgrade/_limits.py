# Every bound that a user may want to move, in one place.  A field exists only where
# something enforces it.
from __future__ import annotations

from typing import dataclass_transform, final

from ._util import Record, public


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _Bounds(Record):
    # Apart from Limits, so that checkers take the arguments from its fields.
    def __init__(self, **bounds: float | None) -> None:
        kind = type(self)
        types = kind.__annotations__
        for name, value in bounds.items():
            if name not in types:
                raise TypeError(f"there is no bound {name!r}")
            if value is None and "None" in types[name]:
                continue
            if not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, not {value!r}")
        for name in types:
            # Not into vars(): an object that was never asked for it is read faster.
            object.__setattr__(self, name, bounds.get(name, getattr(kind, name)))


@public
@final
class Limits(_Bounds):
    """The bounds of a server or a client connection: bytes, counts and seconds.

    Immutable, so one object can serve any number of connections.

    Raises:
        ValueError: A bound is negative.
        TypeError: A bound is no number, or None where that means nothing; or there is
            no such bound.
    """

    header_bytes: int = 32 * 1024
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

    read_ahead: int = 64 * 1024
    """The most bytes that ``Request.wait_disconnect`` reads and keeps while it watches
    for the client's end. A client that sends more than a whole receive ahead is not
    watched any further."""

    connections: int | None = 10_000
    """The most connections that are served at a time; further ones wait in the kernel's
    backlog, and nobody is turned away. An idle one takes a few KiB here."""

    upgraded: int | None = None
    """The most connections that have switched at a time; further offers get a 503. How
    many are too many only the protocol knows."""

    requests_per_connection: int | None = None
    """The most requests on one connection; the last answer says that it ends. It spreads
    clients anew over the servers behind a balancer, and is of no other use."""

    header_timeout: float | None = 10.0
    """Seconds for a whole head: for the first from accept on, TLS handshake included,
    for later ones from their first byte. 408 if something of it has come. As nginx and
    Go's guides have it within a factor of six; a head is one packet."""

    keep_alive_timeout: float | None = 5.0
    """Seconds that a connection may lie idle between two requests; then it is closed
    without a word. As Node."""

    body_timeout: float | None = 30.0
    """Seconds that the reader of a body waits for the next ``body_progress`` bytes.
    The time that an app takes between two reads does not count. 408."""

    body_progress: int = 1024
    """The bytes of a body that must come within ``body_timeout``. A modem is faster; who
    sends a byte now and then only wants to stay."""

    response_timeout: float | None = None
    """Seconds that the app may take from a whole head to the beginning of its answer,
    the body included; then it is cancelled and a 503 sent. It ends with the switch.
    None, since apps that hold a request open are as legitimate as fast ones."""

    send_timeout: float | None = 30.0
    """Seconds within which the peer must take each 64 KiB of an answer; then it is
    reset. An app that is sending is not cancelled: to it the connection is broken. 0 is
    for what need not wait at all. It ends with the switch, like all the others."""

    continue_timeout: float = 1.0
    """Seconds that a client waits for a 100 before it sends the body all the same, if
    the request says ``Expect: 100-continue``. As curl; a server that knows nothing of
    it must not make the client wait for ever (RFC 9110 §10.1.1)."""

    linger: float | None = 2.0
    """Seconds that a closing connection goes on reading, so that the peer gets our
    last bytes and not a reset (RFC 9112 §9.6). 0 does not wait; None waits until the
    peer has closed too."""

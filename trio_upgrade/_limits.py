# All limits that a user can change, in one place.  A field exists only if some code
# enforces it.  Each is described once, in the docstring of the class: help() would not
# show a docstring of its own.
from __future__ import annotations

from typing import TYPE_CHECKING, dataclass_transform, final

from ._util import Record, name_kind, public, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

# So many limits are named to a caller who does not know that they are keywords.
_NAMED = 3


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _CheckedLimits(Record):
    # A base class, so that type checkers take the arguments of Limits from its fields.
    def __init__(self, *positional: object, **values: float | None) -> None:
        kind = type(self)
        types = kind.__annotations__
        if positional:
            raise TypeError(_describe_positional(positional[0], types))
        for name, value in values.items():
            if name not in types:
                raise TypeError(f"there is no limit {name!r}{suggest(name, types)}")
            _check_limit(name, value, types[name])
        for name in types:
            # Not by vars(): attributes are read faster if no __dict__ was ever made.
            object.__setattr__(self, name, values.get(name, getattr(kind, name)))

    def __repr__(self) -> str:
        # Only what differs from the defaults: it stands in the signatures of functions.
        kind = type(self)
        shown = (
            f"{name}={value!r}"
            for name in kind.__annotations__
            if (value := getattr(self, name)) != getattr(kind, name)
        )
        return f"{kind.__qualname__}({', '.join(shown)})"


def _check_limit(name: str, value: object, annotation: str) -> None:
    if value is None and "None" in annotation:
        return
    # bool is an int, but Limits(linger=True) is no number of seconds.
    if isinstance(value, bool) or not isinstance(value, int | float):
        none = " or None" if "None" in annotation else ""
        raise TypeError(f"{name} must be a number{none}, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    if not isinstance(value, int) and "float" not in annotation:
        none = "; None disables it" if "None" in annotation else ""
        raise TypeError(f"{name} must be an int, not {value!r}{none}")


def _describe_positional(value: object, names: Iterable[str]) -> str:
    first = [*names][:_NAMED]
    return (
        f"limits are given by name, as in Limits({first[0]}=...), not {name_kind(value)} "
        f"alone; the names are {', '.join(first)} and others: see help(Limits)"
    )


@public
@final
class Limits(_CheckedLimits):
    """The limits of a server or of a client connection: bytes, counts and seconds.

    Give them by name: ``Limits(header_timeout=5, connections=None)``. Immutable, so one
    object can be shared by any number of connections.

    None disables a limit. Only the limits that say so take it. No time limit of HTTP
    applies to a stream after the switch; only ``linger`` does.

    Attributes:
        header_bytes: The longest message head in bytes, from the start-line to the
            blank line; also the longest chunk header and the longest trailer section.
            Cannot be None. Browsers with large cookies send up to 16 KiB; this is twice
            as much. A longer request head gets a 431, or a 414 if the request line
            alone is too long.
        header_fields: The largest number of fields in one header section or trailer
            section. Cannot be None. Responses with some hundred Set-Cookie fields
            exist, and ``header_bytes`` already limits the memory; this limits the work
            for thousands of very short fields. A request with more fields gets a 431.
        body_bytes: The largest body in bytes that ``read()`` holds in memory, if the
            call gives no limit of its own. Cannot be None. nginx accepts bodies of up
            to 1 MiB by default, too. A body that is streamed has no limit.
        drain_body: How many bytes of a body that the app did not read are read and
            dropped, so that the connection can go on or switch. Of a chunked body the
            framing counts, too. Cannot be None. 64 KiB is one receive, which costs less
            than a new connection.
        refusal_body: How many bytes of the body of a refusal are kept when
            ``open_upgrade`` or ``open_tunnel`` fails; a longer body is cut. Cannot be
            None. 64 KiB is one receive, and enough for the text of an error.
        informational: The largest number of 1xx responses that a client accepts before
            the final response. Cannot be None. RFC 9110 §15.2 sets no number; a server
            that sends more than 16 will not stop by itself.
        read_ahead: How many bytes are read and kept while a client is watched:
            ``Request.wait_disconnect``, ``Request.cancelled_on_disconnect``, and an
            answer that the app sends piece by piece. Cannot be None. 64 KiB is one
            receive; if a client sends more than that ahead of its turn, its disconnect
            is not noticed until the app reads.
        connections: The largest number of connections served at the same time. Further
            connections wait in the kernel's backlog and are not refused, with
            ``reuse_port`` even if another process has room; a warning in the log says
            so. None disables it. An idle connection takes a few KiB in this process.
            After a switch it also keeps the header section of its request, at most
            ``header_bytes``, and the early bytes until they are read, at most
            ``read_ahead`` and one receive of 64 KiB; a handler keeps its ``head`` until
            ``del head``.
        upgraded: The largest number of switched connections at the same time; further
            offers get a 503. None disables it, and is the default because the right
            number depends on the protocol.
        requests_per_connection: The largest number of requests on one connection; the
            last response says that the connection ends. None disables it, and is the
            default because the limit has only one use: clients connect again, and so
            spread over all servers behind a load balancer.
        header_timeout: Seconds to receive a whole request head. The time of the first
            one starts at accept and includes the TLS handshake; the time of a later one
            starts at its first byte. Then a 408 is sent if a part has come, and the
            connection is closed. A PROXY protocol header before all that has the same
            time. None disables it. A request head is usually one
            packet; nginx allows 60 seconds, and the values in guides for Go are within
            a factor of six, too.
        keep_alive_timeout: Seconds that a connection may be idle between two requests;
            then it is closed without a response. None disables it. Node has 5 seconds,
            too.
        body_timeout: Seconds that the reader of a body waits for the next
            ``body_progress`` bytes; then it raises ``BodyTimeout``, which becomes a
            408. The time between two reads of the app does not count. None disables it.
            nginx allows 60 seconds for a single byte.
        body_progress: How many bytes of a body must come within ``body_timeout``
            seconds. Cannot be None. Even a modem sends 1 KiB in that time; a client
            that sends a byte now and then only wants to hold the connection.
        response_timeout: Seconds from the complete request head to the start of the
            app's response, including the time to read the body; then the app is
            cancelled and a 503 is sent. It ends at the switch. None disables it, and is
            the default because an app that holds a request open is as legitimate as a
            fast one.
        send_timeout: Seconds within which the peer must accept each 64 KiB of a
            response; then the connection is reset. An app that is sending is not
            cancelled: for it the connection is broken. 0 allows only a send that need
            not wait. It ends at the switch. None disables it. nginx allows 60 seconds
            between two writes.
        continue_timeout: Seconds that a client waits for a 100 before it sends the body
            anyway, if the request has ``Expect: 100-continue``. Cannot be None: a
            server that does not know the expectation must not make the client wait for
            ever (RFC 9110 §10.1.1). curl waits 1 second, too.
        linger: Seconds that a closing connection still reads, so that the peer gets our
            last bytes and not a reset (RFC 9112 §9.6). 0 does not wait; None disables
            the limit, so that the close waits until the peer has closed as well. It
            is also how long an app may be silent that sends its answer piece by piece to
            a client which has ended its side; then the answer is cut. None disables
            that, too. Apache's SECONDS_TO_LINGER is 2, too.

    Raises:
        ValueError: A value is negative.
        TypeError: A value is not a number, or not an int where bytes or a count are
            meant, or None for a limit that cannot be disabled; a value is given without
            a name, or there is no limit of that name.
    """

    header_bytes: int = 32 * 1024
    header_fields: int = 1000
    body_bytes: int = 1024 * 1024
    drain_body: int = 64 * 1024
    refusal_body: int = 64 * 1024
    informational: int = 16
    read_ahead: int = 64 * 1024
    connections: int | None = 10_000
    upgraded: int | None = None
    requests_per_connection: int | None = None
    header_timeout: float | None = 10.0
    keep_alive_timeout: float | None = 5.0
    body_timeout: float | None = 30.0
    body_progress: int = 1024
    response_timeout: float | None = None
    send_timeout: float | None = 30.0
    continue_timeout: float = 1.0
    linger: float | None = 2.0

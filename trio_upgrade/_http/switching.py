# The rules of the switch.  Pure functions over what a message says: no Trio, no I/O, no
# h11.  The rooms above ask here and never decide themselves, on either side; so the
# server cannot write a 101 that our client would not take.
from __future__ import annotations

from typing import TYPE_CHECKING

from .headers import (
    FRAMING_FIELDS,
    HOP_BY_HOP_FIELDS,
    Field,
    Headers,
    HeadersLike,
    encode_fields,
    field_values,
)
from .tokens import (
    Offers,
    check_protocol,
    connection_options,
    format_connection,
    format_upgrade,
    is_protocol_list,
    parse_protocols,
    split_list,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# Fields that only the library may write, by message.
_SWITCH_FORBIDDEN = FRAMING_FIELDS | HOP_BY_HOP_FIELDS
_CONNECT_FORBIDDEN = FRAMING_FIELDS | {b"upgrade", b"host", b"expect"}
# A Content-Length may be that of a body whose length only the user knows.
_OFFER_FORBIDDEN = frozenset(
    {b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"}
)


def find_offers(method: str, http_version: str, headers: Headers) -> Offers:
    """Return what a request offers to switch to; empty when it offers nothing.

    An offer needs HTTP/1.1 (an HTTP/1.0 one MUST be ignored), an Upgrade field and the
    ``upgrade`` connection option (RFC 9110 §7.8). A field without its option was
    probably forwarded by mistake (§7.6.1). CONNECT offers a tunnel and nothing else.
    """
    options = headers.options()
    if http_version != "1.1" or method == "CONNECT" or "upgrade" not in options:
        return Offers()
    return parse_protocols(headers.lines(b"upgrade"))


def offer_fields(protocols: Iterable[str], headers: HeadersLike) -> list[Field]:
    """Return the fields of a client's offer: Connection, Upgrade, then the user's.

    Connection options that the user gives are kept beside ``Upgrade``, never in its
    place (go#36381 is what happens otherwise).

    Raises:
        ValueError: A protocol or a field is malformed, or it is a field that decides
            about the coding or about the switch itself.
    """
    given = encode_fields(headers, forbidden=_OFFER_FORBIDDEN)
    options = split_list(field_values(given, b"connection"))
    return [
        (b"Connection", format_connection(["Upgrade", *options])),
        (b"Upgrade", format_upgrade(protocols)),
        *(pair for pair in given if pair[0].lower() != b"connection"),
    ]


def switch_fields(protocol: str, headers: HeadersLike) -> tuple[Field, ...]:
    """Return the fields of a 101 that switches to ``protocol``, in this spelling.

    Raises:
        ValueError: The protocol is malformed, or a field is malformed, hop-by-hop or
            about framing (RFC 9110 §8.6 allows no length in a 1xx).
    """
    return (
        (b"Connection", b"Upgrade"),
        (b"Upgrade", check_protocol(protocol).encode("ascii")),
        *encode_fields(headers, forbidden=_SWITCH_FORBIDDEN),
    )


def tunnel_fields(headers: HeadersLike) -> tuple[Field, ...]:
    """Return the fields of a 200 to CONNECT.

    Raises:
        ValueError: A field is malformed, hop-by-hop or about framing (RFC 9110 §8.6
            allows no length in a 2xx to CONNECT).
    """
    return encode_fields(headers, forbidden=_SWITCH_FORBIDDEN)


def connect_fields(authority: str, headers: HeadersLike) -> list[Field]:
    """Return the fields of a client's CONNECT; its Host is the authority.

    Raises:
        ValueError: A field is malformed, or one that a CONNECT has not: framing, an
            offer, or a Host of its own.
    """
    given = encode_fields(headers, forbidden=_CONNECT_FORBIDDEN)
    return [(b"Host", authority.encode("ascii")), *given]


def advertise(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Return the fields of a response, the option added that its Upgrade field needs.

    Any response may advertise protocols (RFC 9110 §7.8), and every Upgrade field needs
    the ``upgrade`` connection option beside it.
    """
    options = connection_options(field_values(fields, b"connection"))
    if not field_values(fields, b"upgrade") or "upgrade" in options:
        return fields
    return (*fields, (b"Connection", b"Upgrade"))


def find_switch_defect(
    offers: Offers,
    http_version: str,
    headers: Headers,
    *,
    tolerate_missing_connection: bool = False,
) -> str | None:
    """Return what makes a 101 illegal as the answer to these offers, None if nothing.

    Args:
        offers: What the request offered; empty if it asked for no switch.
        http_version: The version in the 101's status line.
        headers: The fields of the 101.
        tolerate_missing_connection: Whether it may lack its Connection field, as those
            of some servers do (caddy#6134); one that says something else is illegal
            all the same.
    """
    if not offers:
        return "the request asked for no switch"
    if http_version != "1.1":
        return f"it is HTTP/{http_version}"
    upgrade = field_values(headers, b"upgrade")
    if not any(split_list(upgrade)):
        return "it has no Upgrade field"
    if not is_protocol_list(upgrade):
        return f"its Upgrade field is malformed: {headers['upgrade']!r}"
    for protocol in parse_protocols(upgrade):
        if protocol not in offers:
            return f"it switches to {protocol!r}, which was not offered"
    tolerated = tolerate_missing_connection and "connection" not in headers
    if not (tolerated or "upgrade" in headers.options()):
        return "its Connection field does not name Upgrade"
    return None


def expects_continue(http_version: str, headers: Headers) -> bool:
    """Tell whether the client may wait for a 100 before it sends the body.

    From an HTTP/1.0 client the expectation MUST be ignored (RFC 9110 §10.1.1).
    """
    values = headers.lines(b"expect")
    return (
        bool(values)
        and http_version == "1.1"
        and "100-continue" in [element.lower() for element in split_list(values)]
    )


def keeps_alive(http_version: str, headers: Headers) -> bool:
    """Tell whether the client may make another request (RFC 9112 §9.3).

    Not in HTTP/1.0: a proxy in front may not know what its client asked for.
    """
    return http_version == "1.1" and "close" not in headers.options()


def expects_anything(fields: Iterable[Field]) -> bool:
    """Tell whether a client's own request waits for a 100 (RFC 9110 §10.1.1)."""
    return any(split_list(field_values(fields, b"expect")))


def must_close(
    method: str, *, client_waits: bool, unread: int | None, drain_body: int
) -> bool:
    """Tell whether the connection has to end after a final response that is no switch.

    Args:
        method: Of the request. A CONNECT that is not tunnelled ends its connection,
            for bytes of the tunnel may follow it already (RFC 9931 §8).
        client_waits: A 100 was expected and not sent, and nothing of the body has come:
            nobody can tell whether it will, or the next request.
        unread: How many bytes of the body are left, 0 for none, None if unknown; an
            unknown length is tried.
        drain_body: How many of them may be read and dropped.
    """
    if method == "CONNECT":
        return True
    if unread == 0:
        return False
    return client_waits or (unread is not None and unread > drain_body)

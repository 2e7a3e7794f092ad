# The rules of the switch, for both sides.  A switch is one exchange of HTTP/1.1
# (RFC 9110 §7.8), after which the connection carries another protocol:
#
#     client                                               server
#     offer_fields()        -- request, Upgrade field -->  find_offers()
#                                                          the app accepts an offer
#     find_switch_defect()  <-- 101, Upgrade field ------  switch_fields()
#                        <-- bytes of the new protocol -->
#
# A request without a complete and well-formed offer is an ordinary request.  The server
# is free to ignore an offer; then its response is an ordinary one, and HTTP goes on
# with the next request unless must_close() forbids it.  CONNECT (§9.3.6) offers a
# tunnel and nothing else: connect_fields() on one side, any 2xx with tunnel_fields() on
# the other.
#
# Everything here is a pure function over the fields of a message: no Trio, no I/O, no
# h11. _server and _client ask these functions and never decide by themselves.  Both use
# the same rules, so our server cannot write a 101 that our client would refuse.
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
    NO_OFFERS,
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

# The fields that only the library may write, for each kind of message.
_SWITCH_FORBIDDEN = FRAMING_FIELDS | HOP_BY_HOP_FIELDS
_CONNECT_FORBIDDEN = FRAMING_FIELDS | {b"upgrade", b"host", b"expect"}
# Not Content-Length: only the user knows the length of a body that is an iterable.
_OFFER_FORBIDDEN = frozenset(
    {b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"}
)


def find_offers(method: str, http_version: str, headers: Headers) -> Offers:
    """Return the protocols that a request offers; empty if it offers none.

    An offer needs HTTP/1.1 (an offer in HTTP/1.0 MUST be ignored), an Upgrade field and
    the ``upgrade`` connection option (RFC 9110 §7.8). An Upgrade field without the
    option was probably forwarded by mistake (§7.6.1). CONNECT offers only a tunnel.
    """
    options = headers.options()
    if http_version != "1.1" or method == "CONNECT" or "upgrade" not in options:
        return NO_OFFERS
    return parse_protocols(headers.lines(b"upgrade"))


def offer_fields(protocols: Iterable[str], headers: HeadersLike) -> list[Field]:
    """Return the fields of a client's offer: Connection, Upgrade, then the user's.

    Connection options that the user gives are added to ``Upgrade`` and never replace it
    (go#36381 shows what happens otherwise).

    Raises:
        ValueError: A protocol or a field is malformed, or a field is one that only the
            library may write: those of the transfer coding and of the switch itself.
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
        ValueError: The protocol is malformed, or a field is malformed, hop-by-hop or a
            framing field (RFC 9110 §8.6 allows no length in a 1xx).
    """
    return (
        (b"Connection", b"Upgrade"),
        (b"Upgrade", check_protocol(protocol).encode("ascii")),
        *encode_fields(headers, forbidden=_SWITCH_FORBIDDEN),
    )


def tunnel_fields(headers: HeadersLike) -> tuple[Field, ...]:
    """Return the fields of a 200 to CONNECT.

    Raises:
        ValueError: A field is malformed, hop-by-hop or a framing field (RFC 9110 §8.6
            allows no length in a 2xx to CONNECT).
    """
    return encode_fields(headers, forbidden=_SWITCH_FORBIDDEN)


def informational_fields(headers: HeadersLike) -> tuple[Field, ...]:
    """Return the fields of a 1xx that is neither a 100 nor a 101.

    Raises:
        ValueError: A field is malformed, hop-by-hop or a framing field (RFC 9110 §8.6
            and RFC 9112 §6.1 allow none in a 1xx).
    """
    return encode_fields(headers, forbidden=_SWITCH_FORBIDDEN)


def connect_fields(authority: str, headers: HeadersLike) -> list[Field]:
    """Return the fields of a client's CONNECT, with the authority as Host.

    Raises:
        ValueError: A field is malformed, or one that does not belong to a CONNECT: a
            framing field, Upgrade, Expect, or another Host.
    """
    given = encode_fields(headers, forbidden=_CONNECT_FORBIDDEN)
    return [(b"Host", authority.encode("ascii")), *given]


def advertise(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Return the fields of a response, with the option that its Upgrade field needs.

    Any response may advertise protocols in an Upgrade field, and every Upgrade field
    needs the ``upgrade`` connection option (RFC 9110 §7.8). It is added if missing.
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
    """Return why a 101 is illegal as the answer to these offers, None if it is legal.

    Args:
        offers: The protocols that the request offered; empty if it offered none.
        http_version: The version in the status line of the 101.
        headers: The fields of the 101.
        tolerate_missing_connection: Whether the 101 may lack the Connection field, as
            the 101 of some servers does (caddy#6134). A Connection field that does not
            name Upgrade stays illegal.

    Returns:
        The defect as a short clause, for :attr:`IllegalSwitch.defect`.
    """
    if not offers:
        return "the request asked for no switch"
    if http_version != "1.1":
        return f"it is HTTP/{http_version}"
    upgrade = field_values(headers, b"upgrade")
    # The usual answer is one protocol of those offered: then it is a list, too.
    if len(upgrade) != 1 or upgrade[0].decode("latin-1") not in offers:
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
    """Return whether the client may wait for a 100 before it sends the body.

    The expectation of an HTTP/1.0 client MUST be ignored (RFC 9110 §10.1.1).
    """
    values = headers.lines(b"expect")
    return (
        bool(values)
        and http_version == "1.1"
        and "100-continue" in [element.lower() for element in split_list(values)]
    )


def keeps_alive(http_version: str, headers: Headers) -> bool:
    """Return whether the connection may carry another request (RFC 9112 §9.3).

    Never in HTTP/1.0, even with ``Connection: keep-alive``: an old proxy may have
    forwarded that option without knowing what it means.
    """
    return http_version == "1.1" and "close" not in headers.options()


def expects_anything(fields: Iterable[Field]) -> bool:
    """Return whether our own request has an expectation (RFC 9110 §10.1.1)."""
    return any(split_list(field_values(fields, b"expect")))


def must_close(
    method: str, *, client_waits: bool, unread: int | None, drain_body: int
) -> bool:
    """Return whether the connection must end after a final response without a switch.

    Args:
        method: The method of the request. A refused CONNECT ends its connection, since
            bytes of the tunnel may follow the request already (RFC 9931 §8).
        client_waits: Whether a 100 was expected and not sent, and no byte of the body
            has come. Then the next bytes may be the body or the next request.
        unread: How many bytes of the body are left to read, None if the length is
            unknown. With an unknown length the caller tries to drain the body.
        drain_body: The most bytes of the body that may be read and dropped.
    """
    if method == "CONNECT":
        return True
    if unread == 0:
        return False
    return client_waits or (unread is not None and unread > drain_body)

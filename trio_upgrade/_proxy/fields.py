# Which fields a proxy forwards, and which it sets: pure functions over pairs of bytes.
#
# The order of the steps is the point of this module.  Fields that the client names in
# Connection are dropped first, and the fields that the upstream trusts are set after
# that, so that a client cannot name them away (CVE-2021-32813, CVE-2021-33197).
from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .. import Headers

Field: TypeAlias = tuple[bytes, bytes]

# RFC 9110 §7.6.1.  The last three belong to the next hop only (§11.7), or to the switch
# to HTTP/2 that no proxy here takes part in (RFC 9113 §3.1).
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
    }
)
# A Connection field that names these is wrong (§7.6.1: no end-to-end fields).  Without
# Host the upstream would serve another site; the length is the framing itself.
_NEVER_NAMED: Final = frozenset({b"host", b"content-length"})
# RFC 9110 §6.5.1: fields that would change what was decided before the trailers came.
_NO_TRAILERS: Final = _HOP_BY_HOP | frozenset(
    {
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"forwarded",
        b"host",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"warning",
        b"www-authenticate",
    }
)
# The fields of a 101 that protocols in use need: WebSocket (RFC 6455 §4.2.2), capsules
# (RFC 9297 §3.4), Docker (Content-Type names the framing of the stream; the others say
# which API it is) and Kubernetes.  Everything else is about the upstream's own hop or
# unknown, and is left out (CVE-2026-55458, golang/go#80875).
SWITCH_FIELDS: Final = frozenset(
    {
        b"api-version",
        b"capsule-protocol",
        b"content-type",
        b"date",
        b"docker-experimental",
        b"ostype",
        b"proxy-status",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"server",
        b"set-cookie",
        b"x-stream-protocol-version",
    }
)
_CONDITION: Final = b"if-"
_NO_CONTENT, _RESET_CONTENT = 204, 205
_UPGRADE_REQUIRED = 426
# Of Windows; the second is RFC 4559.
_BINDING_SCHEMES: Final = ("ntlm", "negotiate")
_X_FORWARDED: Final = b"x-forwarded-"
_OTHER_FORWARDED: Final = frozenset({b"forwarded", b"x-real-ip"})


def end_to_end(headers: Headers) -> list[Field]:
    """Return the pairs that may cross the proxy (RFC 9110 §7.6.1).

    Hop-by-hop fields, those that Connection names and those for authentication with a
    proxy are left out. The others keep their order, case, repetition and octets.
    """
    dropped = _HOP_BY_HOP | (
        {option.encode("latin-1") for option in find_options(headers)} - _NEVER_NAMED
    )
    return [pair for pair in headers.raw if pair[0].lower() not in dropped]


def find_options(headers: Headers) -> set[str]:
    """Return the connection options of a message, in lower case."""
    return list_elements(headers, "connection")


def list_elements(headers: Headers, name: str) -> set[str]:
    """Return the elements of a list field in lower case; its lines are one list."""
    elements = headers.get(name, "").lower().split(",")
    return {element.strip(" \t") for element in elements} - {""}


def accepts_trailers(headers: Headers) -> bool:
    """Return whether the sender takes trailers (RFC 9110 §10.1.4)."""
    return "trailers" in list_elements(headers, "te")


def binds_connection(headers: Headers) -> bool:
    """Return whether a request has credentials that some servers keep for a connection.

    They take every later request on it for one of the same user (RFC 9110 §3.3).
    """
    return any(
        line.lower().startswith(_BINDING_SCHEMES)
        for line in headers.get_list("authorization")
    )


def without(fields: Iterable[Field], *names: bytes) -> list[Field]:
    """Return the fields without those of the given names, which are in lower case."""
    return [pair for pair in fields if pair[0].lower() not in names]


def without_forwarding(fields: Iterable[Field]) -> list[Field]:
    """Return the fields without those that name a client, its scheme or its host.

    Also those with underscores: programs that take fields from environment variables
    cannot tell ``X_Forwarded_For`` from ``X-Forwarded-For``.
    """
    return [pair for pair in fields if not _is_forwarding(pair[0])]


def without_other_forwarding(fields: Iterable[Field], kept: bytes) -> list[Field]:
    """Return the fields with only those forwarding fields that are of one style.

    Args:
        fields: The fields.
        kept: ``b"forwarded"``, or ``b"x-forwarded"`` for all fields that begin so.
    """
    return [
        pair
        for pair in fields
        if not _is_forwarding(pair[0]) or _is_of_style(pair[0].lower(), kept)
    ]


def _is_of_style(name: bytes, style: bytes) -> bool:
    if style == b"forwarded":
        return name == style
    return name.startswith(_X_FORWARDED)


def _is_forwarding(name: bytes) -> bool:
    name = name.lower().replace(b"_", b"-")
    return name in _OTHER_FORWARDED or name.startswith(_X_FORWARDED)


def add_via(fields: list[Field], http_version: str, name: str) -> None:
    """Add this proxy to Via, with the version of the message as received (§7.6.3)."""
    fields.append((b"Via", f"{http_version} {name}".encode("ascii")))


def has_passed(headers: Headers, name: str) -> bool:
    """Return whether a request has passed the proxy of this name: it goes in a loop."""
    for line in headers.get_list("via"):
        for element in line.split(","):
            words = element.split()
            if len(words) > 1 and words[1].lower() == name.lower():
                return True
    return False


def response_fields(status: int, headers: Headers) -> list[Field]:
    """Return the fields of a final response, as the client gets them.

    A 204 has no length (RFC 9110 §8.6), and that of a 205 is 0 (§15.3.6). A 426 keeps
    its Upgrade, which it MUST have (§15.5.22). Trailer stays, as trailers are sent on.
    """
    fields = end_to_end(headers)
    if status in (_NO_CONTENT, _RESET_CONTENT):
        fields = without(fields, b"content-length", b"trailer")
    if status == _UPGRADE_REQUIRED:
        fields += [pair for pair in headers.raw if pair[0].lower() == b"upgrade"]
    return fields


def fields_of_101(headers: Headers, more: frozenset[bytes]) -> list[Field]:
    """Return the fields of the upstream's 101 that the client's 101 gets."""
    allowed = SWITCH_FIELDS | more
    return [pair for pair in end_to_end(headers) if pair[0].lower() in allowed]


def trailer_fields(trailers: Headers) -> list[Field]:
    """Return the trailers that go on: no framing, routing or authentication (§6.5.1)."""
    return [
        pair
        for pair in without_forwarding(trailers.raw)
        if pair[0].lower() not in _NO_TRAILERS
        and not pair[0].lower().startswith(_CONDITION)
    ]

# The request that goes to the upstream, made from the one that came.
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import Headers, Response
from .fields import (
    accepts_trailers,
    add_via,
    end_to_end,
    without,
)

if TYPE_CHECKING:
    from .. import Request
    from .forwarding import Forwarding

# RFC 9110 §7.6.2: only these methods have a limit of hops.
_COUNTED_METHODS: Final = frozenset({"OPTIONS", "TRACE"})


class OutgoingRequest(NamedTuple):
    """The request as a proxy is about to send it, for ``rewrite`` to change.

    Immutable: return another one, made by ``outgoing._replace(target="/other")``, and
    its headers by :meth:`Headers.without` and :meth:`Headers.replaced`.

    Attributes:
        method: The method.
        target: The request target, ``/path?query`` or ``*``, as the client wrote it.
        headers: The fields: hop-by-hop ones are gone, Via and the forwarding fields are
            set. Those that frame the body and offer a switch are written later.
    """

    method: str
    target: str
    headers: Headers


def make_outgoing(
    request: Request, forwarding: Forwarding | None, name: str
) -> OutgoingRequest:
    """Return the request with what a proxy has to take off and to add.

    Args:
        request: The request as received.
        forwarding: Sets the fields that name the client; None leaves them alone.
        name: This proxy's name, for Via.
    """
    fields = end_to_end(request.headers)
    target = request.target
    if not target.startswith("/") and target != "*":
        # In absolute form (RFC 9112 §3.2.2): its authority replaces Host.
        target = find_origin_form(request.method, target)
        fields = without(fields, b"host")
        fields.insert(0, (b"Host", str(request.authority).encode("ascii")))
    if request.http_version == "1.0":
        # The expectation of HTTP/1.0 MUST be ignored (RFC 9110 §10.1.1).
        fields = without(fields, b"expect")
    if forwarding is not None:
        fields = forwarding.set_fields(request, fields)
    if request.method in _COUNTED_METHODS:
        fields = [_count_down(pair) for pair in fields]
    add_via(fields, request.http_version, name)
    if accepts_trailers(request.headers):
        # For this hop it is our word, and we do pass trailers on (RFC 9110 §10.1.4).
        fields += [(b"TE", b"trailers"), (b"Connection", b"TE")]
    return OutgoingRequest(request.method, target, Headers(fields))


def find_origin_form(method: str, target: str) -> str:
    """Return the rest of an absolute target, octet by octet (RFC 9112 §3.2.1, §3.2.4)."""
    _, _, rest = target.partition("://")
    host_length = min(
        (place for place in map(rest.find, "/?") if place >= 0), default=len(rest)
    )
    path = rest[host_length:]
    if path.startswith("/"):
        return path
    if not path and method == "OPTIONS":
        return "*"
    return f"/{path}"


def answer_last_hop(request: Request) -> Response | None:
    """Return our own answer to a request that may go no further (RFC 9110 §7.6.2)."""
    if request.method not in _COUNTED_METHODS:
        return None
    left = request.headers.get("max-forwards", "")
    if not left or left.strip("0"):
        return None
    if request.method == "OPTIONS":
        return Response(204)
    # TRACE would show the client fields that proxies have added (§9.3.8).
    return Response(501, "this proxy does not answer TRACE\n")


# More digits are no limit that a request could reach; 0 was answered here.
_is_count = re.compile(rb"0*[1-9][0-9]{0,8}").fullmatch


def _count_down(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = pair
    if name.lower() != b"max-forwards" or not _is_count(value):
        return pair
    return name, b"%d" % (int(value) - 1)

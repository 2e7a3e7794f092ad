# The fields that tell the upstream who the client is, with which scheme, for which host.
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, final

from .. import TrustedPeers
from .addresses import parse_address
from .fields import (
    Field,
    without,
    without_forwarding,
    without_other_forwarding,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .. import Request

Style: TypeAlias = Literal["x-forwarded", "forwarded"]

_STYLES: Final = ("x-forwarded", "forwarded", None)
_UNIX: Final = "unix"
# Not an address: RFC 7239 §6.2 for a client that has none.
_UNKNOWN: Final = b"unknown"
# As kernels write it: nothing is left to parse.
_is_ipv4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}").fullmatch


@final
class Forwarding:
    """How forwarding fields are cleaned and set.

    Args:
        style: Which fields are set; None sets none.
        trusted: Networks, and ``"unix"``, whose forwarding fields are kept and added to.

    Raises:
        ValueError: The style is not known, or a network is malformed.
    """

    def __init__(self, style: Style | None, trusted: Iterable[str]) -> None:
        if style not in _STYLES:
            raise ValueError(
                f"forwarded must be 'x-forwarded', 'forwarded' or None, not {style!r}"
            )
        self._style = style
        given = trusted if isinstance(trusted, str) else tuple(trusted)
        self._peers = TrustedPeers(given)
        self._trusts_unix = _UNIX in given
        self._trusts_any = bool(given)

    def set_fields(self, request: Request, fields: Iterable[Field]) -> list[Field]:
        """Return the fields with those that name the client as this proxy sees it.

        From a peer that is not trusted every forwarding field is dropped, so that none
        can be forged (RFC 7239 §8.1). From a trusted one the fields of the style are
        added to; those of the other style are dropped, as they would lack this hop.
        """
        host = _find_host(request)
        peer = _find_client(request)
        if not self.trusts(request):
            kept = without_forwarding(fields)
        elif self._style is None:
            return list(fields)
        else:
            kept = without_other_forwarding(fields, self._style.encode())
        if self._style == "forwarded":
            return _add_forwarded(kept, peer, request.scheme.encode(), host)
        if self._style == "x-forwarded":
            return _add_x_forwarded(kept, peer, request.scheme.encode(), host)
        return kept

    def trusts(self, request: Request) -> bool:
        """Return whether the forwarding fields of the request's peer are believed."""
        if not self._trusts_any:
            # The usual case, without a system call for the addresses.
            return False
        # Clients of a Unix socket have no address of their own.
        is_unix = isinstance(request.local, str)
        return self._trusts_unix if is_unix else request.peer in self._peers


def _find_client(request: Request) -> bytes | None:
    peer = cast("object", request.peer)
    if isinstance(peer, tuple):
        host = cast("tuple[str, int]", peer)[0]
        if _is_ipv4(host):
            return host.encode("ascii")
        address = parse_address(host)
        if address is not None:
            # A listener of both families sees IPv4 clients as mapped addresses.
            return str(getattr(address, "ipv4_mapped", None) or address).encode()
    return None


def _find_host(request: Request) -> bytes:
    # The target's authority overrides Host (RFC 9112 §3.2.2).
    return str(request.authority).encode("ascii")


def _add_x_forwarded(
    fields: list[Field], peer: bytes | None, scheme: bytes, host: bytes
) -> list[Field]:
    chain = [value for name, value in fields if name.lower() == b"x-forwarded-for"]
    names = {name.lower() for name, _ in fields}
    added = without(fields, b"x-forwarded-for")
    if peer is not None:
        chain.append(peer)
    if chain:
        added.append((b"X-Forwarded-For", b", ".join(chain)))
    # What the first trusted proxy has seen is what the upstream wants to know.
    if b"x-forwarded-proto" not in names:
        added.append((b"X-Forwarded-Proto", scheme))
    if b"x-forwarded-host" not in names and host:
        added.append((b"X-Forwarded-Host", host))
    return added


def _add_forwarded(
    fields: list[Field], peer: bytes | None, scheme: bytes, host: bytes
) -> list[Field]:
    node = _UNKNOWN if peer is None else peer
    if b":" in node:
        node = b'"[%b]"' % node
    element = b"for=%b;proto=%b" % (node, scheme)
    if host:
        # Quoted, for its colon; a host[:port] has no character that needs an escape.
        element += b';host="%b"' % host
    chain = [value for name, value in fields if name.lower() == b"forwarded"]
    kept = without(fields, b"forwarded")
    return [*kept, (b"Forwarded", b", ".join([*chain, element]))]

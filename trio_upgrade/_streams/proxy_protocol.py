# The header of the PROXY protocol, versions 1 and 2, with which a load balancer says who
# its client is: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.  It comes
# before everything else on a connection, TLS included.  No I/O here.
#
# A header is required from a peer that is trusted to send one: to guess whether there is
# one would let a client behind a balancer of another kind invent its address (§2, "must
# not try to guess").
from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from .._errors import MalformedMessage

# The longest headers, in bytes.  §2.1 counts 107 with the CRLF.  Of version 2, 536 are
# what every TCP segment may carry, and so what a sender can rely on (§2.2).
_MOST_V1 = 107
MOST_BYTES = 536
_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
# The length of the addresses of each family (§2.2): IPv4, IPv6, Unix.
_LENGTHS = {1: 12, 2: 36, 3: 216}
_UNSPECIFIED = 0
_LOCAL, _PROXIED = 0, 1
_TCP_PARTS = 6
_MAX_PORT = 65535


class ProxyHeader(NamedTuple):
    """A header of the PROXY protocol.

    Attributes:
        length: Its bytes, all that belongs to it included.
        names_peer: Whether it names the client. If not, the connection is the balancer's
            own, as for a check of our health, or of a kind that it cannot describe.
        peer: The client's address; None if that is a Unix socket without a path, and
            without ``names_peer``.
    """

    length: int
    names_peer: bool
    peer: tuple[str, int] | str | None


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Parse the header that data begins with; None if it is not complete yet.

    If this returns None, all the data belongs to the header.

    Raises:
        MalformedMessage: The data does not begin with a header, or with one that is
            malformed or too long.
    """
    if data.startswith(_SIGNATURE):
        return _parse_v2(data)
    if data.startswith(_LINE):
        return _parse_v1(data)
    if _SIGNATURE.startswith(data) or _LINE.startswith(data):
        return None
    raise MalformedMessage("no PROXY protocol header, which has to come first")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    # §2.1.  Nothing in it is optional, and there is one blank between two parts.
    end = data.find(b"\r\n", 0, _MOST_V1)
    if end < 0:
        if len(data) >= _MOST_V1 or b"\n" in data:
            raise MalformedMessage(
                f"a PROXY protocol header without CRLF in its first {_MOST_V1} bytes"
            )
        return None
    length = end + 2
    parts = data[:end].split(b" ")
    if parts[1] == b"UNKNOWN":
        # What follows is to be ignored.
        return ProxyHeader(length, names_peer=False, peer=None)
    if len(parts) != _TCP_PARTS or parts[1] not in (b"TCP4", b"TCP6"):
        raise MalformedMessage("a PROXY protocol header that names no TCP connection")
    kind = IPv4Address if parts[1] == b"TCP4" else IPv6Address
    try:
        _, _, source, destination, source_port, destination_port = (
            part.decode("ascii") for part in parts
        )
        peer = _parse_address(kind, source), _parse_port(source_port)
        _parse_address(kind, destination)
        _parse_port(destination_port)
    except ValueError:
        raise MalformedMessage(
            "a PROXY protocol header with a malformed address or port"
        ) from None
    return ProxyHeader(length, names_peer=True, peer=peer)


def _parse_address(kind: type[IPv4Address | IPv6Address], text: str) -> str:
    if "%" in text:
        raise ValueError("a zone means nothing on another machine")
    return format_address(kind(text))


def _parse_port(text: str) -> int:
    port = int(text)
    # "Heading zeroes are not permitted"; int() would accept signs and blanks as well.
    if str(port) != text or not 0 <= port <= _MAX_PORT:
        raise ValueError("not a port")
    return port


def _parse_v2(data: bytes) -> ProxyHeader | None:
    # §2.2.  What follows the addresses, "TLV", is skipped.
    if len(data) < _FIXED:
        return None
    version, command = data[12] >> 4, data[12] & 0xF
    family, transport = data[13] >> 4, data[13] & 0xF
    length = _FIXED + int.from_bytes(data[14:16])
    if version != 2 or command not in (_LOCAL, _PROXIED):
        raise MalformedMessage(
            "a PROXY protocol header of an unknown version or command"
        )
    if length > MOST_BYTES:
        raise MalformedMessage(
            f"a PROXY protocol header of {length} bytes, more than {MOST_BYTES}"
        )
    if command == _LOCAL:
        # "The receiver must discard the protocol block including the family."
        family = _UNSPECIFIED
    elif family > max(_LENGTHS) or transport > 2:
        raise MalformedMessage("a PROXY protocol header of an unknown family")
    elif transport == _UNSPECIFIED:
        family = _UNSPECIFIED
    if length < _FIXED + _LENGTHS.get(family, 0):
        raise MalformedMessage(
            "a PROXY protocol header that is too short for its family"
        )
    if len(data) < length:
        return None
    if family == _UNSPECIFIED:
        return ProxyHeader(length, names_peer=False, peer=None)
    return ProxyHeader(length, names_peer=True, peer=_read_peer(family, data[_FIXED:]))


def _read_peer(family: int, block: bytes) -> tuple[str, int] | str | None:
    # The source comes first, then the destination, then both ports.
    if family == 1:
        return format_address(IPv4Address(block[:4])), int.from_bytes(block[8:10])
    if family == 2:
        return format_address(IPv6Address(block[:16])), int.from_bytes(block[32:34])
    # Padded with NUL; a NUL before is that of an abstract name.
    path = block[:108].rstrip(b"\0")
    if not path.startswith(b"\0"):
        path = path.partition(b"\0")[0]
    return os.fsdecode(path) or None


def format_address(address: IPv4Address | IPv6Address) -> str:
    """Return an address as text, one of IPv4 that is mapped into IPv6 as IPv4.

    A socket for both versions shows its clients of IPv4 so, and proxies pass that on.
    """
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)

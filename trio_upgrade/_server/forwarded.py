# Who the client is behind proxies that say so in fields: Forwarded (RFC 7239), or the
# older X-Forwarded-For, -Proto and -Host.
#
# Each proxy appends what it knows of its own client, so only the end of these lists is
# from proxies that we trust; the rest is the client's, who may write anything there.  So
# the lists are read backwards, from the proxy that is nearest, and never beyond the first
# client that is not itself a trusted proxy.  Forwarded is even parsed backwards: from its
# beginning, a quote that a client left open would hide what the proxies appended.
from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from .._http.targets import HTTP_SCHEMES, Authority, parse_authority
from .._http.tokens import split_list
from .._streams.proxy_protocol import format_address
from .._streams.trusted_peers import make_trusted
from .._util import public

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._http.headers import Headers
    from .._streams.trusted_peers import TrustedLike, TrustedPeers
    from .._streams.underlying import Peer
    from .request import Request

_MAX_PORT = 65535
# RFC 7239 §6: an obfuscated identifier, and a port, which may be obfuscated as well.
_OBFUSCATED = r"_[A-Za-z0-9._-]+"
_match_node = re.compile(
    rf"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|({_OBFUSCATED})|unknown)"
    rf"(?::(?:([0-9]{{1,5}})|{_OBFUSCATED}))?",
    re.IGNORECASE,
).fullmatch

# The grammar of RFC 7239 §4, for reversed text.  In a reversed quoted-string a backslash
# follows the character that it escapes (RFC 9110 §5.6.4).  Blanks around a semicolon,
# which the grammar has not, are common.  What is possessive bounds the time.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  not a secret
_TEXT = r'(?:[\t !#-\[\]-~\x80-\xff]\\?|["\\]\\)*'
_PAIR = rf'(?:{_TOKEN}|"{_TEXT}")={_TOKEN}'
_match_element = re.compile(
    rf"[ \t]*+((?:{_PAIR})?(?:[ \t]*+;[ \t]*+(?:{_PAIR})?)*+)[ \t]*+(?:,|\Z)"
).match
_find_pairs = re.compile(rf'({_TOKEN}|"{_TEXT}")=({_TOKEN})').findall
_unescape = re.compile(r"\\(.)", re.DOTALL).sub


@public
class Forwarded(NamedTuple):
    """Who sent a request, and for what, as :func:`forwarded` returns it.

    Attributes:
        peer: The client's address: host and port, 0 for a port that is not known; an
            obfuscated name such as ``"_hidden"`` (RFC 7239 §6.3); None if it is unknown;
            or as :attr:`Request.peer` has it.
        scheme: ``"http"`` or ``"https"``, as the client asked.
        host: Host and port that the client asked for.
    """

    peer: Peer
    scheme: str
    host: Authority


@public
def forwarded(request: Request, trusted: TrustedLike) -> Forwarded:
    """Return who sent a request, and for what, from the fields of trusted proxies.

    From any other peer these fields are ignored, and this is :attr:`Request.peer`,
    :attr:`Request.scheme` and :attr:`Request.authority`. From a trusted one the list of
    clients is read from its end, while the clients are themselves trusted proxies: the
    client is the last one that is not, or the first of all if every one is trusted. A
    malformed entry ends the reading; the last good one counts.

    ``Forwarded`` (RFC 7239) is used if the request has it, and X-Forwarded-For, -Proto
    and -Host if not: it is the standard, and its entries keep the three together, while
    lists in three fields can go apart. If X-Forwarded-Proto or -Host has as many entries
    as X-Forwarded-For, that of the client counts, else the last one.

    Note:
        A proxy has to remove what it does not write: one that only appends to
        X-Forwarded-For passes on a ``Forwarded`` that its client has invented.

    Args:
        request: The request.
        trusted: The proxies: a :class:`TrustedPeers`, or networks for one. They are
            compared with :attr:`Request.peer` first.

    Raises:
        TypeError: As for :class:`TrustedPeers`, for each request.
        ValueError: As for :class:`TrustedPeers`, for each request.
    """
    peers = make_trusted(trusted)
    direct = Forwarded(request.peer, request.scheme, request.authority)
    transport = request._transport  # pyright: ignore[reportPrivateUsage]
    if not peers.trusts(transport):
        return direct
    headers = request.headers
    lines = headers.lines(b"forwarded")
    if any(lines):
        return _follow_forwarded(lines, direct, peers)
    return _follow_x_forwarded(headers, direct, peers)


def _follow_forwarded(
    lines: Sequence[bytes], found: Forwarded, trusted: TrustedPeers
) -> Forwarded:
    for element in _iter_backwards(lines):
        node = element.get("for", "")
        try:
            peer = _parse_node(node) if "for" in element else found.peer
            scheme = _parse_scheme(element.get("proto"), found.scheme)
            host = _parse_host(element.get("host"), found.host)
        except ValueError:
            break
        found = Forwarded(peer, scheme, host)
        # An entry that does not say who the client was leads no further.
        if "for" not in element or peer not in trusted:
            break
    return found


def _iter_backwards(lines: Sequence[bytes]) -> Iterator[dict[str, str]]:
    # Yields the elements from the last to the first, and ends before a malformed one.
    text = b",".join(lines).decode("latin-1")[::-1]
    position = 0
    while position < len(text):
        match = _match_element(text, position)
        if match is None:
            return
        position = match.end()
        pairs: list[tuple[str, str]] = _find_pairs(match[1])
        element = {name[::-1].lower(): _unquote(value[::-1]) for value, name in pairs}
        if len(element) < len(pairs):
            return  # "MUST NOT occur more than once" (RFC 7239 §4).
        if element:
            yield element


def _unquote(value: str) -> str:
    return _unescape(r"\1", value[1:-1]) if value.startswith('"') else value


def _follow_x_forwarded(
    headers: Headers, found: Forwarded, trusted: TrustedPeers
) -> Forwarded:
    peer, clients = found.peer, split_list(headers.lines(b"x-forwarded-for"))
    back = 0
    for client in reversed(clients):
        try:
            peer = _parse_client(client)
        except ValueError:
            break
        back += 1
        if peer not in trusted:
            break
    scheme, host = found.scheme, found.host
    with suppress(ValueError):
        scheme = _parse_scheme(
            _pick(headers, b"x-forwarded-proto", clients, back), scheme
        )
    with suppress(ValueError):
        host = _parse_host(_pick(headers, b"x-forwarded-host", clients, back), host)
    return Forwarded(peer, scheme, host)


def _pick(
    headers: Headers, name: bytes, clients: Sequence[str], back: int
) -> str | None:
    values = split_list(headers.lines(name))
    if not values:
        return None
    return values[-back] if back and len(values) == len(clients) else values[-1]


def _parse_node(node: str) -> Peer:
    # RFC 7239 §6.
    match = _match_node(node)
    if match is None:
        raise ValueError("not a node")
    ipv6, ipv4, obfuscated, digits = match.groups()
    port = int(digits or 0)
    if port > _MAX_PORT:
        raise ValueError("a port above 65535")
    if ipv6 is not None:
        return format_address(IPv6Address(ipv6)), port
    if ipv4 is not None:
        return format_address(IPv4Address(ipv4)), port
    # Lower and upper case are kept: the name is only of use to compare it.
    return obfuscated


def _parse_client(client: str) -> Peer:
    # There is no standard: the address alone is usual, also of IPv6; Azure adds ports.
    try:
        return _parse_node(client)
    except ValueError:
        if "%" in client:
            raise  # A zone means nothing on another machine.
        return format_address(ip_address(client)), 0


def _parse_scheme(text: str | None, default: str) -> str:
    if text is None:
        return default
    try:
        return HTTP_SCHEMES[text.lower()]
    except KeyError:
        raise ValueError("a scheme that is not served here") from None


def _parse_host(text: str | None, default: Authority) -> Authority:
    return default if text is None else parse_authority(text)

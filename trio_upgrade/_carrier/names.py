# What the carriers make of a protocol and of a URL: names, and the fields of requests.
from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from urllib.parse import unquote_to_bytes

from .. import Headers, Tunnel

if TYPE_CHECKING:
    from .. import HeadersLike

T = TypeVar("T")
Pair: TypeAlias = tuple["str | bytes", "str | bytes"]

_URL = r"(?s)(?P<scheme>[^:/?#]*)://(?:(?P<userinfo>[^/?#]*)@)?(?P<authority>[^/?#]*)"
_SECURE = frozenset({"https", "wss"})
# Not all of the three requests can have these.
_REFUSED = re.compile(rb"(?i)host|expect|sec-websocket-.*")


def public(thing: T) -> T:
    """Set ``__module__`` to the module where users find a function."""
    cast("Any", thing).__module__ = "trio_upgrade.carrier"
    return thing


def name_subprotocol(protocol: str) -> str:
    """Return the subprotocol of WebSocket that carries a protocol.

    A subprotocol is a token, which has no slash, and is compared with its case (RFC 6455
    §4.1); the name of a protocol is not (RFC 9110 §7.8).

    Raises:
        TypeError: The protocol is no str.
        ValueError: It is WebSocket, which is a carrier itself.
    """
    if not isinstance(cast("object", protocol), str):
        raise TypeError(f"a protocol must be a str, not {type(protocol).__name__}")
    name = protocol.lower()
    if name.partition("/")[0] == "websocket":
        raise ValueError("WebSocket is one of the carriers: name what they carry")
    return f"carrier.{name.replace('/', '.')}"


def check_fields(headers: HeadersLike) -> list[Pair]:
    """Return the further fields of a user, which all three requests have.

    Raises:
        TypeError: They are no fields.
        ValueError: One is malformed, hop-by-hop or about framing, or the library
            writes it.
    """
    pairs: Any = headers
    if isinstance(headers, Headers):
        pairs = headers.raw  # Not items(), which would join repeated fields.
    elif isinstance(headers, Mapping):
        pairs = cast("Mapping[Any, Any]", headers).items()
    elif isinstance(cast("object", headers), str | bytes):
        raise TypeError(f"headers must be pairs, not {type(headers).__name__}")
    given: list[Pair] = [*pairs]
    # The core's own check.
    Tunnel(_ignore, given)
    for name, _ in given:
        encoded = name.encode() if isinstance(name, str) else name
        if _REFUSED.fullmatch(encoded):
            shown = encoded.decode()
            raise ValueError(f"{shown} is written by the library and cannot be given")
    return given


async def _ignore(*_: object) -> None:
    # A handler that is only there to be checked.
    ...


def show_url(url: str) -> str:
    """Return a URL without userinfo and query, for messages."""
    return re.sub(r"(?s)//[^/?#]*@", "//", re.split(r"[?#]", url)[0])


def find_authority(url: str) -> str:
    """Return ``host:port`` of a URL that has been dialled, so it is well formed."""
    match = _match(url)
    scheme, unix, _ = match["scheme"].lower().partition("+unix")
    default = "443" if scheme in _SECURE else "80"
    if unix:
        return f"localhost:{default}"
    # No peer gets the zone of an address.
    authority = re.sub(r"%[^\]]*\]", "]", match["authority"])
    if not authority.isascii():
        # A dependency of Trio, used as the core does.
        import idna

        host, colon, port = authority.partition(":")
        authority = idna.encode(host, uts46=True).decode("ascii") + colon + port
    host, port = re.fullmatch(r"(\[.*\]|[^:]*):?(\d*)", authority, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{host}:{port or default}"


def find_credentials(url: str) -> list[tuple[str, str]]:
    """Return the Authorization field for the credentials of such a URL (RFC 7617 §2).

    open_tunnel() makes a Proxy-Authorization of them, as the peer of a CONNECT is a
    proxy. With this one the app finds them in the same field, whatever the carrier.
    """
    userinfo = _match(url)["userinfo"]
    if userinfo is None:
        return []
    user, _, password = userinfo.partition(":")
    token = b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password))
    return [("Authorization", f"Basic {token.decode()}")]


def _match(url: str) -> re.Match[str]:
    match = re.match(_URL, url)
    assert match is not None
    return match

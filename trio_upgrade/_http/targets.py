# Request targets and authorities.  urllib splits them; this module refuses what urllib
# accepts and RFC 9112 §3.2 does not allow.  An origin-form target is never given to
# urlsplit(), which would take "//host" for an authority (the bug of CVE-2026-126344).
#
# No "from __future__ import annotations" here: NamedTuple would compile each annotation
# from a string at import time.

from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

from .._errors import MalformedMessage
from .._util import public

# The characters of hosts (RFC 3986 §3.2.2).
_HEX_DIGITS = frozenset("0123456789ABCDEFabcdef")
_IPV6_CHARACTERS = _HEX_DIGITS | frozenset(":.")
_NAME_CHARACTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=%"
)
# Enough for most names.  No percent sign, because escapes need a closer check.
_PLAIN_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-."
# A WebSocket client that asks a proxy writes http for ws, https for wss (RFC 6455 §4.1).
HTTP_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_MAX_PORT = 65535
_PORT_DIGITS = 5


@public
class Authority(NamedTuple):
    """A host and an optional port.

    Attributes:
        host: A name or an address in lower case, an IPv6 address without its brackets.
            Empty if the peer named no host.
        port: The port number, None if there was none.
    """

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


class Target(NamedTuple):
    """A request target in parts; a part that its form does not have is empty or None."""

    path: str
    query: str = ""
    scheme: str | None = None
    authority: Authority | None = None


def parse_authority(text: str) -> Authority:
    """Split ``host[:port]`` (RFC 3986 §3.2, without userinfo).

    Raises:
        ValueError: ``text`` does not have that form.
    """
    # Not by a regex: this is faster, and every request of a server comes here.
    is_ipv6 = text.startswith("[")
    if is_ipv6:
        host, bracket, rest = text[1:].partition("]")
        unexpected, _, digits = rest.partition(":")
        well_formed = (
            host and bracket and not unexpected and _IPV6_CHARACTERS.issuperset(host)
        )
    else:
        host, _, digits = text.partition(":")
        well_formed = _NAME_CHARACTERS.issuperset(host) and _is_escaped(host)
    if not well_formed or not _is_port(digits):
        raise ValueError("not a host[:port]")
    port = int(digits) if digits else None
    if port is not None and port > _MAX_PORT:
        raise ValueError("a port above 65535")
    if not is_ipv6:
        return Authority(host.lower(), port)
    try:
        return Authority(str(IPv6Address(host)), port)
    except ValueError:
        # In our words, which peers get to see.
        raise ValueError("not an IPv6 address in the brackets") from None


def check_authority(text: bytes) -> None:
    """Check that ``host[:port]`` is well formed, given as the bytes of a message.

    Raises:
        ValueError: :func:`parse_authority` would raise it for the same text.
    """
    host, _, digits = text.partition(b":")
    plain = not host.translate(None, _PLAIN_CHARACTERS)
    if not plain or (digits and not (len(digits) < _PORT_DIGITS and digits.isdigit())):
        # Not the usual form, so the slower and complete check decides.
        parse_authority(text.decode("latin-1"))


def parse_connect_authority(text: str) -> Authority:
    """Split the ``host:port`` of a CONNECT, which has no default port (RFC 9110 §9.3.6).

    Raises:
        ValueError: ``text`` does not have that form.
    """
    authority = parse_authority(text)
    if not authority.host or not authority.port:
        raise ValueError("CONNECT needs host:port")
    return authority


def parse_target(method: str, target: str) -> Target:
    """Split a request target according to its form (RFC 9112 §3.2).

    Raises:
        ValueError: The target has no form that this method allows.
    """
    if method == "CONNECT":
        return Target("", authority=parse_connect_authority(target))
    if target.startswith("/") and "#" not in target:
        path, _, query = target.partition("?")
        return Target(path, query)
    if target == "*" and method == "OPTIONS":
        return Target("*")
    scheme, separator, _ = target.partition("://")
    if separator and scheme.isalpha() and "#" not in target:
        parts = urlsplit(target)
        authority = parse_authority(parts.netloc)
        if authority.host:
            empty_path = "*" if method == "OPTIONS" and not parts.query else "/"
            return Target(
                parts.path or empty_path, parts.query, scheme.lower(), authority
            )
    raise ValueError("a target of no known form")


def check_scheme(scheme: str, *, secure: bool) -> None:
    """Check the scheme of a request's absolute target, given in lower case.

    Args:
        scheme: The scheme.
        secure: Whether the request came over TLS.

    Raises:
        MalformedMessage: We do not serve such URIs, 400; or the scheme asks for TLS, and
            a request in clear text proves no right to it (RFC 9110 §7.4), 421.
    """
    if scheme not in HTTP_SCHEMES:
        raise MalformedMessage("the target's scheme must be http, https, ws or wss")
    if HTTP_SCHEMES[scheme] == "https" and not secure:
        raise MalformedMessage(
            f"the target's scheme is {scheme}, which needs TLS, and this connection is "
            "in clear text",
            status=421,
        )


def write_target(target: str) -> str:
    """Return a target as a client sends it: an absolute one has no ws or wss."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("ws", "wss"):
        return target
    return f"{HTTP_SCHEMES[scheme.lower()]}://{rest}"


def _is_escaped(name: str) -> bool:
    # Returns whether each percent sign begins an escape.
    return "%" not in name or all(
        len(part) > 1 and _HEX_DIGITS.issuperset(part[:2])
        for part in name.split("%")[1:]
    )


def _is_port(digits: str) -> bool:
    return not digits or (
        len(digits) <= _PORT_DIGITS and digits.isascii() and digits.isdigit()
    )

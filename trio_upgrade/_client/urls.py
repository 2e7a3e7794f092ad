# The URLs that a client dials.  No error here may quote a whole URL: it may contain a
# password.  That is why urlsplit, whose errors quote it, is not used.
#
# Annotations are not strings here: NamedTuple would compile each string at the import.

import os
import re
from base64 import b64encode
from typing import NamedTuple, cast, final
from urllib.parse import unquote_to_bytes

from .._http.targets import Authority, parse_authority
from .._util import Record

# Strings, which re compiles when the first URL is parsed: the import is faster.
_URL = (
    r"(?s)(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://"
    r"(?:(?P<userinfo>[^/?#]*)@)?(?P<authority>[^/?#]*)(?P<rest>.*)"
)
# What nearly all URLs are: a scheme and a name or an IPv4 address, both in lower case,
# perhaps a port, perhaps a path.  The other expressions find the same in them, but each
# URL needs six of those.
_USUAL_URL = (
    r"(https?|wss?)://((?:[a-z0-9\-]{1,63}\.)*[a-z0-9\-]{1,63})"
    r"(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?(/[!-\"$-~]*)?"
)
_LONGEST_NAME = 254
# RFC 1035 §2.3.4.  Longer names make the resolver or TLS fail in odd ways.
_DNS_NAME = r"(?!.{255})(?:[^.%]{1,63}\.)*[^.%]{1,63}\.?"
# RFC 3986 §3.2.1, split at the first colon.
_USERINFO = (
    r"(?P<user>(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)"
    r"(?::(?P<password>(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*))?"
)
# An address in brackets with its zone.  The percent sign before the zone is escaped in a
# URI (RFC 6874 §2), but not where a user writes an address (RFC 4007 §11.2, RFC 9844).
_ZONED = r"(?s)(?P<before>\[[^\]%]*)%(?:25)?(?P<zone>[^\]]*)(?P<after>\].*)"
_ZONE = r"(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})+"
# A path from the root, or on Linux an abstract name, which begins with NUL.
_SOCKET_PATH = r"[/\0][^\0]+"
_UNIX = "+unix"
_SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}
_SOCKS_PORT = 1080
_DEFAULT_PORTS = {False: 80, True: 443}


@final
class Credentials(Record):
    """User and password of a URL; the repr has neither, so no log has.

    Attributes:
        user: The user, its escapes decoded.
        password: The password, its escapes decoded; empty if the URL has none.
    """

    user: bytes
    password: bytes

    def __init__(self, user: bytes, password: bytes) -> None:
        vars(self).update(user=user, password=password)

    def __repr__(self) -> str:
        return "Credentials()"

    def basic(self) -> bytes:
        """Return the value of the field that carries them (RFC 7617 §2)."""
        return b"Basic " + b64encode(self.user + b":" + self.password)


class Endpoint(NamedTuple):
    """The parts of a URL that a client needs.

    Attributes:
        host: A name, in ASCII, or an address; ``"localhost"`` for a Unix socket.
        port: The port number, 0 for a Unix socket.
        secure: Whether TLS is spoken.
        host_field: The value of a Host field.
        target: Path and query, at least ``"/"``.
        path: The path of the Unix socket, None for TCP.
        credentials: The URL's credentials, None if it has none.
        scheme: The scheme, in lower case, without ``+unix``.
        zone: The zone of an IPv6 address: the name or the index of an interface of this
            machine. It is for connecting only: no peer is to see it (RFC 6874 §4), and
            no certificate has it.
    """

    host: str
    port: int
    secure: bool
    host_field: bytes
    target: str
    path: str | None = None
    credentials: Credentials | None = None
    scheme: str = "http"
    zone: str | None = None

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return str(Authority(self.host, self.port))


def parse_url(url: str) -> Endpoint:
    """Parse a URL that a client is to dial.

    Raises:
        ValueError: The URL is malformed, or its scheme is not supported. The message
            does not repeat a part that may be a secret.
    """
    check_url_type(url)
    match = re.fullmatch(_USUAL_URL, url)
    if match is None:
        return parse_any_url(url)
    scheme, host, digits, target = match.groups()
    if len(host) > _LONGEST_NAME:
        return parse_any_url(url)
    secure = _SCHEMES[scheme]
    port = default_port = _DEFAULT_PORTS[secure]
    shown = host
    if digits is not None:
        port = int(digits)
        if port != default_port:
            shown = f"{host}:{digits}"
    return Endpoint(
        host,
        port,
        secure,
        shown.encode("ascii"),
        target or "/",
        scheme=scheme,
    )


def parse_any_url(url: str) -> Endpoint:
    """Do what :func:`parse_url` does, with every form of a URL.

    Raises:
        ValueError: As :func:`parse_url` does.
    """
    scheme, userinfo, authority, target = _split_url(url)
    base = scheme.removesuffix(_UNIX)
    if base not in _SCHEMES:
        raise ValueError(
            f"cannot dial a URL of scheme {scheme!r}: it must be http, https, ws or "
            "wss, or one of them with +unix"
        )
    credentials, secure = _parse_userinfo(userinfo), _SCHEMES[base]
    if base != scheme:
        path = _parse_socket_path(authority)
        return Endpoint(
            "localhost", 0, secure, b"localhost", target, path, credentials, base
        )
    default_port = _DEFAULT_PORTS[secure]
    authority, zone = _split_zone(authority)
    host, port = _parse_dialled(authority)
    shown = Authority(host, None if port == default_port else port)
    return Endpoint(
        host,
        default_port if port is None else port,
        secure,
        str(shown).encode("ascii"),
        target,
        None,
        credentials,
        scheme,
        zone,
    )


def parse_socks_url(url: str) -> Endpoint:
    """Parse the URL of a SOCKS proxy.

    Raises:
        ValueError: The URL is malformed.
    """
    scheme, userinfo, authority, target = _split_url(url)
    authority, zone = _split_zone(authority)
    host, port = _parse_dialled(authority)
    port = _SOCKS_PORT if port is None else port
    shown = str(Authority(host, port)).encode("ascii")
    credentials = _parse_userinfo(userinfo)
    return Endpoint(host, port, False, shown, target, None, credentials, scheme, zone)


def find_server_name(endpoint: Endpoint, given: str | None) -> str:
    """Return the name for SNI and for the check of an endpoint's certificate.

    Args:
        endpoint: The peer in TLS.
        given: The name to use instead of the endpoint's host, None for that host.

    Returns:
        A name in ASCII and lower case, or an address, an IPv6 address without brackets.

    Raises:
        ValueError: ``given`` is neither a name nor an address, or there is no TLS.
    """
    if not isinstance(cast("object", given), str | None):
        kind = type(given).__name__
        raise TypeError(f"server_hostname must be a str, not {kind}")
    if given is None:
        host = endpoint.host
    elif not endpoint.secure:
        raise ValueError("server_hostname is for TLS, which the URL does not ask for")
    else:
        host = _parse_server_name(given)
    # No certificate has the dot that makes a name absolute.
    return host.removesuffix(".")


def _parse_server_name(name: str) -> str:
    # An address has no brackets here, as in Python's ssl.
    try:
        return _parse_dialled(f"[{name}]" if ":" in name else name).host
    except ValueError:
        raise ValueError(
            f"server_hostname is a host name or an address, not {name!r}"
        ) from None


def check_url_type(url: object) -> None:
    """Check that a URL is a str.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}")


def _split_url(url: str) -> tuple[str, str | None, str, str]:
    check_url_type(url)
    match = re.fullmatch(_URL, url)
    if match is None:
        raise ValueError("a URL begins with a scheme, as in http://")
    userinfo, rest = match["userinfo"], match["rest"]
    if not (is_visible_ascii(userinfo or "") and is_visible_ascii(rest)):
        raise ValueError("blanks, control or non-ASCII characters in the URL")
    target = rest.partition("#")[0]
    if not target.startswith("/"):
        target = "/" + target
    return match["scheme"].lower(), userinfo, match["authority"], target


def is_visible_ascii(text: str) -> bool:
    """Return whether a text has no blanks, controls or characters beyond ASCII."""
    return text.isascii() and text.isprintable() and " " not in text


def _parse_userinfo(userinfo: str | None) -> Credentials | None:
    if userinfo is None:
        return None
    match = re.fullmatch(_USERINFO, userinfo)
    if match is None:
        raise ValueError("malformed credentials in the URL")
    user = unquote_to_bytes(match["user"])
    password = unquote_to_bytes(match["password"] or "")
    if b":" in user or re.search(rb"[\x00-\x1f\x7f]", user + password):
        raise ValueError("credentials in the URL that Basic cannot carry")
    return Credentials(user, password)


def _split_zone(authority: str) -> tuple[str, str | None]:
    # Return the authority without the zone, and the zone.  RFC 9844, which makes RFC 6874
    # obsolete, is about user interfaces and defines no form for URIs.  As curl does, we
    # accept both forms: without a zone no client could reach a link-local address.
    match = re.fullmatch(_ZONED, authority)
    if match is None:
        return authority, None
    zone = unquote_to_bytes(match["zone"]).decode("latin-1")
    if not re.fullmatch(_ZONE, match["zone"]) or not is_visible_ascii(zone):
        raise ValueError(
            "malformed zone of an IPv6 address in the URL: "
            "it is written as in http://[fe80::1%25eth0]/"
        )
    return match["before"] + match["after"], zone


def _parse_dialled(text: str) -> Authority:
    if not text.isascii():
        # As Trio encodes host names, but before Trio sees this one: so the Host field,
        # SNI and a proxy all get the same name.
        host, colon, digits = text.partition(":")
        text = encode_idna(host) + colon + digits
    if not is_visible_ascii(text):
        raise ValueError("blanks, control or non-ASCII characters in the URL")
    bracketed = re.match(r"\[([0-9.]+)\]", text)
    if bracketed:
        raise ValueError(f"an IPv4 address has no brackets in a URL: {bracketed[1]}")
    if text.count(":") > 1 and not text.startswith("["):
        # Not quoted: in a malformed URL this may be a password.
        raise ValueError("not a host[:port]; an IPv6 address has brackets in a URL")
    authority = parse_authority(text)
    if not authority.host:
        raise ValueError("no host in the URL")
    if ":" not in authority.host and not re.fullmatch(_DNS_NAME, authority.host):
        raise ValueError(f"not the name of a host: {authority.host!r}")
    return authority


def encode_idna(host: str) -> str:
    """Return a host name in ASCII (IDNA 2008).

    Raises:
        UnicodeError: It cannot be encoded.
    """
    # A dependency of Trio.  Not every Trio that we support has encode_hostname().
    import idna

    return idna.encode(host, uts46=True).decode("ascii")


def _parse_socket_path(authority: str) -> str:
    if not is_visible_ascii(authority):
        raise ValueError("blanks, control or non-ASCII characters in the URL")
    path = os.fsdecode(unquote_to_bytes(authority))
    if not re.fullmatch(_SOCKET_PATH, path):
        raise ValueError(
            "no path of a Unix socket in the URL: write it in the place of the host, "
            "its slashes as %2F"
        )
    return path

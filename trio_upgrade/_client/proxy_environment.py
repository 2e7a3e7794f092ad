# The proxy that the environment names for a URL.  There is no standard: programs agree on
# the names of the variables, and differ in what no_proxy may have.  We follow curl >= 8;
# tests/client/no_proxy.py lists each difference with its reason.
from __future__ import annotations

import os
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from .._util import public
from .proxies import Proxy
from .urls import encode_idna, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_Address: TypeAlias = IPv4Address | IPv6Address

# "host", "host:port", "[address]" or "[address]:port".  A bare IPv6 address is none of
# these: it has more than one colon.
_ENTRY = r"(?:\[(?P<address>[^\]]*:[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>[0-9]{1,5}))?"


@public
def proxy_from_environment(url: str) -> Proxy | None:
    """Return the proxy that the environment names for a URL, for ``via=``.

    ``http_proxy`` is for ``http`` and ``ws``, ``https_proxy`` for ``https`` and ``wss``,
    and ``all_proxy`` for both where they are not set or empty. A name in lower case, even
    if empty, goes before the same name in upper case; if ``REQUEST_METHOD`` is set,
    ``HTTP_PROXY`` is ignored: in a CGI program it is the field ``Proxy`` of a request
    ("httpoxy", CVE-2016-1000110). A value without a scheme, ``host:port``, is ``http``;
    ``socks://`` is ``socks5://``, as desktops mean it (for curl it is SOCKS4).

    ``no_proxy`` lists hosts that need no proxy, separated by commas or blanks:

    - ``example.com`` is this name and all names below it, as are ``.example.com``,
      ``*.example.com`` and ``example.com.``; letter case does not matter;
    - ``192.0.2.1``, ``2001:db8::1`` and ``[2001:db8::1]`` are addresses, compared by
      value in any spelling, never by suffix, and without a zone;
    - ``10.0.0.0/8``, ``fd00::/8`` and ``[fd00::]/8`` are networks. No name is looked up,
      so that addresses and networks are only compared with an address in the URL;
    - with ``:port`` a name or an address is meant for that port only;
    - ``*`` is every host. An entry of any other form is ignored.

    No other function of the library reads the environment.

    Args:
        url: The URL to dial.

    Returns:
        The proxy; None if the environment names none for this URL, or if the URL is that
        of a Unix socket.

    Raises:
        ValueError: The URL, or that of the proxy, is malformed. In the latter case the
            message names the variable; it never has credentials.
        ModuleNotFoundError: It is a SOCKS proxy, and the extra is not installed; the
            message names the variable.
    """
    endpoint = parse_url(url)
    environment = dict(os.environ)
    found = _find_proxy(environment, "https" if endpoint.secure else "http")
    if found is None or endpoint.path is not None:
        return None
    _, no_proxy = _find_variable(environment, "no_proxy")
    if needs_no_proxy(no_proxy, endpoint.host, endpoint.port):
        return None
    variable, value = found
    if "://" not in value:
        value = f"http://{value}"
    elif value.lower().startswith("socks://"):
        value = f"socks5{value[len('socks') :]}"
    try:
        return Proxy(value)
    except ValueError as exc:
        raise ValueError(f"{variable}: {exc}") from exc
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(f"{variable}: {exc}") from exc


def _find_proxy(environment: Mapping[str, str], scheme: str) -> tuple[str, str] | None:
    # Return the variable that names the proxy of a scheme, and its value.
    for name in f"{scheme}_proxy", "all_proxy":
        variable, value = _find_variable(environment, name)
        if value:
            return variable, value
    return None


def _find_variable(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    # Return the variable's name as it is spelt, and its value, empty if it is not set.
    upper = name.upper()
    if name in environment:
        return name, environment[name]
    if upper == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
        return upper, ""
    return upper, environment.get(upper, "")


def needs_no_proxy(no_proxy: str, host: str, port: int) -> bool:
    """Whether a value of ``no_proxy`` has an entry for this host and port.

    Args:
        no_proxy: The value of the variable.
        host: A name in ASCII and lower case, or an address without brackets and zone.
        port: The port that is dialled.
    """
    host = host.removesuffix(".")
    address = _parse_address(host)
    return any(
        _is_meant(entry, host, address, port) for entry in re.split(r"[,\s]+", no_proxy)
    )


def _is_meant(entry: str, host: str, address: _Address | None, port: int) -> bool:
    if "/" in entry:
        return address is not None and _is_in_network(address, entry)
    match = re.fullmatch(_ENTRY, entry)
    if match is None:
        name, meant = entry, None
    else:
        name, meant = match["address"] or match["name"] or "", match["port"]
    if meant is not None and int(meant) != port:
        return False
    if name == "*":
        return True
    given = _parse_address(name.partition("%")[0])
    if address is not None or given is not None:
        return address == given
    name = _normalise(name)
    return bool(name) and f".{host}".endswith(f".{name}")


def _parse_address(text: str) -> _Address | None:
    # Every spelling that getaddrinfo() takes for an address, such as 127.1, because such
    # an address is dialled without a look-up.
    try:
        if ":" not in text:
            return IPv4Address(socket.inet_aton(text))
        found = IPv6Address(text)
    except (OSError, ValueError):
        return None
    # The kernel sends these to the IPv4 address (RFC 4291 §2.5.5.2).
    return found.ipv4_mapped or found


def _is_in_network(address: _Address, entry: str) -> bool:
    text, _, digits = entry.translate({ord("["): None, ord("]"): None}).partition("/")
    if not re.fullmatch("[0-9]{1,3}", digits):
        # Not a netmask, which ip_network() takes.
        return False
    try:
        network = ip_network(f"{text}/{digits}", strict=False)
    except ValueError:
        return False
    # An address of the other family is in no network.
    return address in network


def _normalise(name: str) -> str:
    # Return a name as hosts in URLs are; empty if it is no name.
    name = name.removeprefix("*.").removeprefix(".").removesuffix(".").lower()
    try:
        return name if name.isascii() else encode_idna(name)
    except UnicodeError:
        return ""

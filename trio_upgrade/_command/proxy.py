# trio-upgrade proxy: a reverse proxy, or a forward one.
from __future__ import annotations

import hmac
import secrets
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from .. import TrustedPeers
from ..proxy import ForwardProxy, ReverseProxy
from .errors import UsageFailed
from .listening import Place
from .serving import Serving
from .tunnel_log import LoggedProxy, TunnelLog

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    from .. import Request
    from .serving import OpenApp
    from .tunnel_log import Proxy

_ANY = "*"
# Without the URL, which may have a password.
_NO_UPSTREAM = (
    "UPSTREAM is http://host:port without a path, or the same of https or http+unix; "
    "changing paths needs a program, see docs/how-to/upstreams.md"
)


def run(arguments: Namespace) -> int:
    """Run the subcommand, and return its exit status."""
    place = Place.from_arguments(arguments)
    return Serving.from_arguments(arguments).run(place, choose_proxy(arguments))


def choose_proxy(arguments: Namespace) -> OpenApp:
    """Return how the proxy is opened in each process.

    Raises:
        UsageFailed: The arguments do not go together, or one is malformed.
    """
    if arguments.forward == (arguments.upstream is not None):
        raise UsageFailed("name one UPSTREAM, or --forward without one")
    upgrades: Any = arguments.upgrade or ["websocket"]
    # The workers are one proxy.
    settings: dict[str, Any] = {"name": f"trio-upgrade-{secrets.token_hex(4)}"}
    settings["upgrades"] = _allow_all if _ANY in upgrades else upgrades
    log = TunnelLog(TrustedPeers(arguments.trusted)) if arguments.verbose else None
    settings["on_tunnel"] = None if log is None else log.write
    make: Callable[[], Proxy]
    if arguments.forward:
        ports = [*chain.from_iterable(arguments.allow_port)]
        settings |= {"ports": ports, "http_ports": ports} if ports else {}
        settings["networks"] = arguments.allow
        if arguments.users is not None:
            settings["authenticate"] = Users(arguments.users).has
        make = partial(ForwardProxy, **settings)
    else:
        if arguments.allow or arguments.allow_port or arguments.users is not None:
            raise UsageFailed("--allow, --allow-port and --users go with --forward")
        settings["trusted"] = arguments.trusted
        make = partial(ReverseProxy, arguments.upstream, **settings)
        try:
            ReverseProxy(arguments.upstream)
        except ValueError as exc:
            raise UsageFailed(_NO_UPSTREAM) from exc
    try:
        make()
    except ValueError as exc:
        raise UsageFailed(str(exc)) from exc
    return make if log is None else lambda: LoggedProxy(make(), log)


def _allow_all(_request: Request, _protocol: str) -> bool:
    return True


class Users:
    """The users of a forward proxy.

    Args:
        users: Each as ``user:password``.
    """

    def __init__(self, users: Iterable[str]) -> None:
        self._lines = [user.encode() for user in users]

    def has(self, user: str, password: str) -> bool:
        """Return whether there is such a user."""
        given = f"{user}:{password}".encode()
        # All of them: the time says nothing about which.
        found = [hmac.compare_digest(given, line) for line in self._lines]
        return any(found)

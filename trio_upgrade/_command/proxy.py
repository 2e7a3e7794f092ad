# trio-upgrade proxy: a reverse proxy, or a forward one.
from __future__ import annotations

import hmac
import secrets
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..proxy import ForwardProxy, ReverseProxy
from .errors import UsageFailed
from .listening import Place
from .serving import Serving

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from .. import Request
    from .serving import OpenApp

_ANY = "*"


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
    make: Callable[[], Any]
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
        make()
    except (TypeError, ValueError) as exc:
        raise UsageFailed(str(exc)) from exc
    return make


def _allow_all(_request: Request, _protocol: str) -> bool:
    return True


class Users:
    """The users of a forward proxy, from lines ``user:password``.

    Raises:
        UsageFailed: A line has no colon.
    """

    def __init__(self, text: str) -> None:
        self._lines = [line.strip().encode() for line in text.splitlines() if line]
        if not all(b":" in line for line in self._lines):
            raise UsageFailed("--users: a line is written as user:password")

    def has(self, user: str, password: str) -> bool:
        """Return whether there is such a user."""
        given = f"{user}:{password}".encode()
        # All of them: the time says nothing about which.
        found = [hmac.compare_digest(given, line) for line in self._lines]
        return any(found)

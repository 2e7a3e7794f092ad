# Which of a request's offers to switch a proxy passes on.
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from .. import Offers

if TYPE_CHECKING:
    from .. import Request

Upgrades: TypeAlias = "Iterable[str] | Callable[[Request, str], bool]"

# A proxy that passes these on lets the client speak past all of its rules: h2c smuggling
# (golang/go#80416), or TLS inside (RFC 2817).  HTTP/x and h2 have no meaning as tokens.
_NEVER: Final = frozenset({"h2c", "h2", "http", "tls"})


def check_upgrades(upgrades: Upgrades) -> Callable[[Request, str], bool]:
    """Return the predicate for a list of protocols, or the given predicate.

    Raises:
        TypeError: It is neither, or a str by mistake.
        ValueError: A protocol can never be passed on.
    """
    if callable(upgrades):
        return upgrades
    given = cast("object", upgrades)
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(
            "upgrades must be protocols, as in ('websocket',), or a function, not "
            f"{type(upgrades).__name__}"
        )
    allowed = Offers(upgrades)
    for protocol in allowed:
        if is_never_forwarded(protocol):
            raise ValueError(
                f"{protocol!r} is never passed on: requests after such a switch would "
                "go past the proxy"
            )
    return lambda _request, protocol: protocol in allowed


def is_never_forwarded(protocol: str) -> bool:
    """Return whether a protocol is refused whatever the user allows."""
    return protocol.partition("/")[0].lower() in _NEVER


def choose_offers(
    request: Request, allows: Callable[[Request, str], bool]
) -> Sequence[str]:
    """Return the offers that go on, in the client's order; none: an ordinary request."""
    return [
        protocol
        for protocol in request.upgrades
        if not is_never_forwarded(protocol) and allows(request, protocol)
    ]

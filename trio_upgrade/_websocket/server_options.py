# The options that a program gives once for all WebSockets of a server, and passes on to
# accept_websocket() with each request.
from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import signature
from typing import TYPE_CHECKING, Any, TypedDict, cast

from .arguments import Timing, check_server_arguments
from .options import public
from .serving import accept_websocket

if TYPE_CHECKING:
    from .arguments import Bounds, Origins


@public
class WebSocketOptions(TypedDict, total=False):
    """The arguments of :func:`accept_websocket` that fit every WebSocket of a server.

    See there for each of them. :func:`trio_upgrade.asgi.open_asgi` takes them.
    """

    origins: Origins | None
    compression: str | None
    max_size: Bounds
    max_queue: Bounds
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None


@public
def check_websocket_options(options: WebSocketOptions) -> None:
    """Check options before there is a request, for programs that pass them on.

    Args:
        options: The options; those that are missing have their defaults.

    Raises:
        TypeError: One has another type, or there is no such option.
        ValueError: One has no such value.
    """
    if not isinstance(cast("object", options), Mapping):
        kind = type(options).__name__
        raise TypeError(f"the options of WebSockets must be a dict, not {kind}")
    names = [*WebSocketOptions.__annotations__]
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"WebSockets have no option {name!r} here{hint}")
    parameters = signature(accept_websocket).parameters
    values: dict[str, Any] = {name: parameters[name].default for name in names}
    values.update(options)
    timing = Timing(
        ping_interval=values["ping_interval"],
        ping_timeout=values["ping_timeout"],
        close_timeout=values["close_timeout"],
        max_queue=values["max_queue"],
    )
    check_server_arguments(
        values["origins"], values["compression"], values["max_size"], timing
    )

# The arguments that servers and clients share, checked before anything is opened.
from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from websockets.datastructures import Headers as WebSocketHeaders
from websockets.exceptions import InvalidHeaderValue
from websockets.headers import validate_subprotocols

from .. import Headers

if TYPE_CHECKING:
    import re

    from websockets.typing import Origin, Subprotocol

    from .. import HeadersLike

Pair: TypeAlias = tuple["str | bytes", "str | bytes"]
Bounds: TypeAlias = int | tuple[int | None, int | None] | None
"""One bound, or two; None, also for one of them, disables it."""
Origins: TypeAlias = Sequence["str | re.Pattern[str] | None"]

_WRITTEN = "sec-websocket-"


class Timing(TypedDict):
    """What a connection of websockets is told about time and its queue."""

    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    max_queue: Bounds


def check_seconds(name: str, seconds: float | None) -> None:
    """Check a time in seconds, which None disables.

    Raises:
        TypeError: It is neither a number nor None.
        ValueError: It is negative.
    """
    given = cast("object", seconds)
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"{name} must be seconds or None, not {type(given).__name__}")
    if not given >= 0:
        raise ValueError(f"{name} must not be negative, not {given!r}")


def check_bounds(name: str, bounds: Bounds) -> Bounds:
    """Check a bound, or a pair of them, and return it.

    Raises:
        TypeError: It is neither.
        ValueError: A bound is negative, or the second one is higher.
    """
    if type(bounds) is int and bounds >= 0:
        return bounds  # The usual case: this is checked for each request.
    pair = cast("object", bounds)
    if not isinstance(pair, tuple):
        pair = (pair, None)
    given = cast("tuple[object, ...]", pair)
    numbers = [bound for bound in given if bound is not None]
    if len(given) != 2 or not all(type(bound) is int for bound in numbers):
        raise TypeError(
            f"{name} must be an int, a pair of them or None, not {bounds!r}"
        )
    ordered = cast("list[int]", numbers)
    if any(bound < 0 for bound in ordered):
        raise ValueError(f"{name} must not be negative, not {bounds!r}")
    if ordered != sorted(ordered, reverse=True):
        raise ValueError(f"{name}: the second bound is over the first: {bounds!r}")
    return bounds


def check_timing(timing: Timing) -> Timing:
    """Check times in seconds and the bounds of the queue, and return all.

    Raises:
        TypeError: One has another type.
        ValueError: One is negative, or the interval is 0.
    """
    check_bounds("max_queue", timing["max_queue"])
    check_seconds("ping_interval", timing["ping_interval"])
    check_seconds("ping_timeout", timing["ping_timeout"])
    check_seconds("close_timeout", timing["close_timeout"])
    if timing["ping_interval"] == 0:
        raise ValueError("ping_interval must not be 0: None sends no pings")
    return timing


def check_subprotocols(
    subprotocols: Sequence[str] | None,
) -> Sequence[Subprotocol] | None:
    """Check subprotocols and return them.

    Raises:
        TypeError: They are a str, or one is no str.
        ValueError: One is no token.
    """
    if subprotocols is None:
        return None
    given = cast("object", subprotocols)
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(
            f"subprotocols must be a sequence of str, not {type(subprotocols).__name__}"
        )
    for name in cast("Sequence[object]", given):
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol must be a str, not {type(name).__name__}")
    checked = cast("Sequence[Subprotocol]", given)
    validate_subprotocols(checked)
    return checked


def check_origin(origin: str | None) -> Origin | None:
    """Check the origin that a client sends, and return it.

    Raises:
        TypeError: It is neither a str nor None.
        ValueError: It is no value of a field.
    """
    if origin is None:
        return None
    if not isinstance(cast("object", origin), str):
        raise TypeError(f"origin must be a str, not {type(origin).__name__}")
    try:
        WebSocketHeaders(Origin=origin)
    except InvalidHeaderValue as exc:
        raise ValueError(f"not an origin: {origin!r}") from exc
    return cast("Origin", origin)


def check_origins(origins: Origins | None) -> None:
    """Check the origins that a server accepts.

    Raises:
        TypeError: They are no collection, or one is neither a str, a pattern of str nor
            None.
        ValueError: A str is no origin: it has no scheme.
    """
    if origins is None:
        return
    given = cast("object", origins)
    if isinstance(given, str | bytes) or not isinstance(given, Collection):
        # Not an iterator either: it would admit the first request only.
        raise TypeError(f"origins must be a sequence, not {type(origins).__name__}")
    for origin in cast("Collection[object]", given):
        text: object = getattr(origin, "pattern", origin)
        if text is not None and not isinstance(text, str):
            raise TypeError(
                "an origin must be a str, a pattern of str or None, not "
                f"{type(origin).__name__}"
            )
        if isinstance(origin, str) and origin != "null" and "://" not in origin:
            # It would match no browser.
            raise ValueError(
                f"an origin has a scheme, as in 'https://example.com', not {origin!r}"
            )


def check_compression(compression: str | None) -> bool:
    """Return whether to compress.

    Raises:
        ValueError: It is neither ``"deflate"`` nor None.
    """
    if compression not in {"deflate", None}:
        raise ValueError(f"compression must be 'deflate' or None, not {compression!r}")
    return compression is not None


def check_server_arguments(
    origins: Origins | None, compression: str | None, max_size: Bounds, timing: Timing
) -> bool:
    """Check the arguments of a server that fit each request; return whether to compress.

    Raises:
        TypeError: One has another type.
        ValueError: One has no such value.
    """
    deflate = check_compression(compression)
    check_timing(timing)
    check_origins(origins)
    check_bounds("max_size", max_size)
    return deflate


def check_headers(headers: HeadersLike) -> list[Pair]:
    """Return the fields of a user as pairs; the core checks the rest of them.

    Raises:
        TypeError: They are no fields.
        ValueError: The library writes one of them.
    """
    pairs: Any = headers
    if isinstance(headers, Headers):
        pairs = headers.raw  # Not items(), which would join repeated fields.
    elif isinstance(headers, Mapping):
        pairs = cast("Mapping[Any, Any]", headers).items()
    elif isinstance(cast("object", headers), str | bytes):
        raise TypeError(f"headers must be pairs, not {type(headers).__name__}")
    given: list[Pair] = [*pairs]
    for pair in given:
        name = (
            cast("object", pair[0]) if isinstance(cast("object", pair), tuple) else ""
        )
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        if isinstance(text, str) and text.lower().startswith(_WRITTEN):
            raise ValueError(f"{text} is written by the library and cannot be given")
    return given

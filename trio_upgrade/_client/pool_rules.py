# What a pool decides from its arguments alone: which connections a request can use, and
# whether a request that failed may be made again.
#
# Annotations are not strings here: NamedTuple would compile each string at the import.

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from .._errors import OpenError, PeerGone
from .._limits import Limits
from .._util import name_kind
from .connection import Loss
from .proxies import Proxy
from .request_head import CheckedRequest
from .route import Route
from .urls import Endpoint

# RFC 9110 §9.2.2: the safe methods, PUT and DELETE.
_IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})


class Settings(NamedTuple):
    """The options with which a connection is dialled, in a form that can be compared.

    Objects without an equality of their own, TLS settings and :class:`Proxy`, are the
    same only if they are one object.
    """

    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    https_compatible: bool
    via: str | Proxy | Sequence[str | Proxy] | None
    local_address: str | None
    limits: Limits


class Origin(NamedTuple):
    """All that two requests must have in common to use the same connection.

    Not the scheme itself, as ws and http are the same here; nor credentials, which are
    sent with each request.
    """

    secure: bool
    host: str
    port: int
    zone: str | None
    path: str | None
    settings: Settings


def find_settings(options: Mapping[str, Any]) -> Settings:
    """Return the settings of a call's options, all of them given.

    Raises:
        TypeError: ``stream`` is among them, or ``limits`` or ``via`` has another type.
    """
    if options["stream"] is not None:
        raise TypeError("a pool dials by itself: stream= is for open_connection()")
    values = {name: options[name] for name in Settings._fields}
    if not isinstance(cast("object", values["limits"]), Limits):
        kind = type(values["limits"]).__name__
        raise TypeError(f"limits must be a Limits, not {kind}")
    if isinstance(values["via"], list):
        values["via"] = tuple(cast("list[str | Proxy]", values["via"]))
    return Settings(**values)


def check_slots(connections: object, per_origin: object) -> None:
    """Check the numbers of connections of a pool.

    Raises:
        TypeError: One is not an int; ``per_origin`` may be None.
        ValueError: One is less than 1.
    """
    for name, value in ("connections", connections), ("per_origin", per_origin):
        if value is None and name == "per_origin":
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            none = " or None" if name == "per_origin" else ""
            raise TypeError(f"{name} must be an int{none}, not {name_kind(value)}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def find_origin(endpoint: Endpoint, settings: Settings) -> Origin:
    """Return the origin of a request to this endpoint with these settings."""
    return Origin(
        endpoint.secure,
        endpoint.host,
        endpoint.port,
        endpoint.zone,
        endpoint.path,
        settings,
    )


def make_route(endpoint: Endpoint, settings: Settings) -> Route:
    """Return the way to an endpoint, checked.

    Raises:
        TypeError: A setting has another type.
        ValueError: The settings cannot be combined.
    """
    return Route(
        endpoint,
        ssl_context=settings.ssl_context,
        server_hostname=settings.server_hostname,
        https_compatible=settings.https_compatible,
        via=settings.via,
        local_address=settings.local_address,
    )


def may_retry(
    exc: OpenError, loss: Loss | None, request: CheckedRequest, *, reused: bool
) -> bool:
    """Return whether a request that failed may be made again on another connection.

    Args:
        exc: The failure.
        loss: How far the exchange had come; None if it failed by the caller's code.
        request: The request.
        reused: Whether the connection had carried another request before.
    """
    if loss is None:
        return False
    if not loss.begun:
        # The idle connection had ended, or had bytes that no request asked for.
        return reused
    if not isinstance(exc, PeerGone) or not isinstance(request.body, bytes):
        return False
    if not exc.request_sent:
        return True
    # RFC 9110 §9.2.2: a server that closes an idle connection may do so just when a
    # request is on the way; for a fresh connection there is no such reason.  From a
    # request that is not idempotent nothing can tell whether it was acted on.
    return reused and not loss.answered and request.method in _IDEMPOTENT
